"""Checks of tests: what they test is there, what they name exists in it, and every sentence can be understood."""

from collections.abc import Iterator, Mapping, Sequence

from controller.domain.levels import Kind, NotationError, parse_levels, parse_samples
from controller.domain.plan import RolloutPlan, Stage
from controller.domain.policy import GuardrailPolicy, Metric
from controller.domain.rehearsal import (
    REQUESTS,
    STAND_IN_STAGES,
    Case,
    RehearsalSpec,
    bucket_bound,
    kind_of,
)
from controller.domain.sentences import BLOCKS, CAUSES, Sentence, parse_event, parse_expectation
from controller.manifests import promql
from controller.manifests.checks import Check, Context, reading
from controller.manifests.loader import Manifest
from controller.manifests.problem import Problem, did_you_mean
from controller.manifests.structure import Path

SIDES = ("rollout", "control", "before")


def _what_is_tested(manifest: Manifest, spec: RehearsalSpec, context: Context) -> Iterator[Problem]:
    if (spec.policy is None) == (spec.plan is None):
        message = "a test is of one policy or of one plan"
        yield manifest.problem(("spec",), "R401", message, "write policy: NAME or plan: NAME", at_key=True)
    if spec.plan is not None:
        if spec.with_:
            yield manifest.problem(("spec", "with"), "R401", "the plan itself says with what", "remove with")
        for index, case in enumerate(spec.tests):
            if case.stages:
                path = ("spec", "tests", index, "stages")
                yield manifest.problem(path, "R401", "the plan has stages of its own", "remove stages")


def _names(manifest: Manifest, spec: RehearsalSpec, _: Context) -> Iterator[Problem]:
    """Reports name a test by its name."""
    seen: dict[str, int] = {}
    for index, case in enumerate(spec.tests):
        first = seen.setdefault(case.name, index)
        if first != index:
            line, _column, _length = manifest.span(("spec", "tests", first, "name"))
            path = ("spec", "tests", index, "name")
            yield manifest.problem(
                path, "R402", f'two tests are called "{case.name}"', f"the first is on line {line}"
            )


def _subject(manifest: Manifest, spec: RehearsalSpec, context: Context) -> Iterator[Problem]:
    for key, name, known in (
        ("policy", spec.policy, set(context.declared)),
        ("plan", spec.plan, set(context.plans)),
    ):
        if name is not None and name not in known and known:
            message = f'the {key} "{name}" was not found among these files'
            help_text = did_you_mean(name, known)
            yield manifest.problem(("spec", key), "R403", message, help_text, severity="warning")
    if spec.policy is not None and spec.policy in context.policies:
        params = context.policies[spec.policy].spec.params
        for name in spec.with_:
            if name not in params:
                message = f'the policy has no parameter "{name}"'
                yield manifest.problem(
                    ("spec", "with", name), "R403", message, did_you_mean(name, params), at_key=True
                )


def _levels(manifest: Manifest, spec: RehearsalSpec, context: Context) -> Iterator[Problem]:
    """Every level can be read and belongs to a metric that rules use."""
    policies = _policies(spec, context)
    for index, case in enumerate(spec.tests):
        place: Path = ("spec", "tests", index)
        interval = case.interval_seconds or 15.0
        yield from _notation(manifest, (*place, "traffic"), case.traffic, "rate", interval)
        for side in SIDES:
            for name, level in getattr(case, side).items():
                path = (*place, side, name)
                if name == REQUESTS:
                    yield from _notation(manifest, path, level, "rate", interval)
                elif policies is not None:
                    yield from _level_of_metric(manifest, path, level, policies, interval)
        yield from _series(manifest, place, case)
        yield from _buckets(manifest, place, case, policies)


def _level_of_metric(
    manifest: Manifest, path: Path, level: object, policies: Sequence[GuardrailPolicy], interval: float
) -> Iterator[Problem]:
    name = str(path[-1])
    metric = _metrics(policies).get(name)
    if metric is None:
        known = [one for one in _metrics(policies) if "/" not in one or len(policies) > 1]
        message = f'no metric is called "{name}"'
        yield manifest.problem(path, "R403", message, did_you_mean(name, [*known, REQUESTS]), at_key=True)
        return
    yield from _notation(manifest, path, level, kind_of(metric), interval)


def _metrics(policies: Sequence[GuardrailPolicy]) -> Mapping[str, Metric]:
    found: dict[str, Metric] = {}
    for policy in policies:
        for name, metric in policy.spec.metrics.items():
            found[name] = found[f"{policy.metadata.name}/{name}"] = metric
    return found


def _notation(manifest: Manifest, path: Path, level: object, kind: Kind, interval: float) -> Iterator[Problem]:
    if isinstance(level, bool) or not isinstance(level, str | int | float):
        yield manifest.problem(path, "R404", "a level is one line of text", "write 0.2% for 20m then 12%")
        return
    try:
        parse_levels(manifest.node_at(path).text or str(level), kind, interval=interval)
    except NotationError as error:
        yield _told(manifest, path, "R404", error)


def _series(manifest: Manifest, place: Path, case: Case) -> Iterator[Problem]:
    for index, one in enumerate(case.series):
        path = (*place, "series", index)
        try:
            parse_samples(one.values)
        except NotationError as error:
            yield _told(manifest, (*path, "values"), "R404", error)
        problem = _series_problem(one.series)
        if problem:
            help_text = 'write one series with its labels, as in http_requests_total{variation="on"}'
            yield manifest.problem((*path, "series"), "R404", problem, help_text)


def _series_problem(text: str) -> str:
    try:
        found = promql.selector(text)
    except promql.PromqlError as error:
        return str(error)
    return "" if all(one.operator == "=" for one in found.matchers) else "a series has labels with one value each"


def _buckets(
    manifest: Manifest, place: Path, case: Case, policies: Sequence[GuardrailPolicy] | None
) -> Iterator[Problem]:
    for name, bounds in case.buckets.items():
        path = (*place, "buckets", name)
        metric = _metrics(policies).get(name) if policies is not None else None
        if policies is not None and (metric is None or metric.shape != "quantile"):
            histograms = [one for one, found in _metrics(policies).items() if found.shape == "quantile"]
            message = f'no histogram is called "{name}"'
            yield manifest.problem(path, "R403", message, did_you_mean(name, histograms), at_key=True)
        for index, bound in enumerate(bounds):
            if not _is_bound(str(bound)):
                yield manifest.problem(
                    (*path, index), "R404", f'"{bound}" is no upper bound', "write 0.25 or 250ms"
                )


def _is_bound(text: str) -> bool:
    try:
        return bucket_bound(text) > 0
    except ValueError:
        return False


def _sentences(manifest: Manifest, spec: RehearsalSpec, context: Context) -> Iterator[Problem]:
    policies, stages = _policies(spec, context), _stages_of(spec, context)
    for index, case in enumerate(spec.tests):
        for key, texts, parse in (
            ("expect", case.expect, parse_expectation),
            ("events", case.events, parse_event),
        ):
            for number, text in enumerate(texts):
                path = ("spec", "tests", index, key, number)
                try:
                    sentence = parse(text)
                except NotationError as error:
                    yield _told(manifest, path, "R405", error)
                    continue
                named = stages if stages is None or not case.stages else case.stages
                yield from _named(manifest, path, sentence, key == "expect", policies, named)


def _named(
    manifest: Manifest,
    path: Path,
    sentence: Sentence,
    expected: bool,
    policies: Sequence[GuardrailPolicy] | None,
    stages: Sequence[Stage] | None,
) -> Iterator[Problem]:
    """Rules and stages that a sentence names exist."""
    if expected and sentence.by and policies is not None:
        known = BLOCKS if sentence.verb == "hold" else (*_rules(policies), *CAUSES)
        yield from _unknown(manifest, path, sentence, "by", sentence.by, known)
    if stages is None:
        return
    names = [stage.name for stage in stages]
    if sentence.to:
        yield from _unknown(manifest, path, sentence, "to", sentence.to, [*names, "0%"])
    if sentence.of:
        yield from _unknown(manifest, path, sentence, "of", sentence.of, names)
    if sentence.verb == "approve":
        yield from _unknown(manifest, path, sentence, "noun", sentence.noun, names)


def _unknown(
    manifest: Manifest, path: Path, sentence: Sentence, clause: str, name: str, known: Sequence[str]
) -> Iterator[Problem]:
    if name in known or name in [one.rpartition("/")[2] for one in known]:
        return
    what = "rule" if clause == "by" and sentence.verb != "hold" else "stage"
    if clause == "by" and sentence.verb == "hold":
        what = "reason to hold"
    shown = [one for one in known if "/" not in one]
    yield manifest.problem(
        path, "R403", f'no {what} is called "{name}"', did_you_mean(name, shown), part=sentence.places[clause]
    )


def _rules(policies: Sequence[GuardrailPolicy]) -> list[str]:
    ids = [(policy.metadata.name, rule.id) for policy in policies for rule in policy.spec.rules]
    return [*(rule for _, rule in ids), *(f"{policy}/{rule}" for policy, rule in ids)]


def _policies(spec: RehearsalSpec, context: Context) -> list[GuardrailPolicy] | None:
    """Those the test is about; None while not all of them are at hand."""
    names = [spec.policy] if spec.policy is not None else []
    if spec.plan is not None:
        plan = context.plans.get(spec.plan)
        names = [use.policy for use in plan.spec.guardrails] if plan else []
    if not names or any(name not in context.policies for name in names):
        return None
    return [context.policies[name] for name in names if name is not None]


def _stages_of(spec: RehearsalSpec, context: Context) -> Sequence[Stage] | None:
    if spec.plan is None:
        return STAND_IN_STAGES
    plan: RolloutPlan | None = context.plans.get(spec.plan)
    return plan.spec.stages if plan else None


def _told(manifest: Manifest, path: Path, code: str, error: NotationError) -> Problem:
    return manifest.problem(path, code, str(error), error.help, part=(error.offset, error.length))


REHEARSAL_CHECKS: tuple[Check[RehearsalSpec], ...] = (
    Check(_what_is_tested, reading("policy", "plan", "with", "tests")),
    Check(_names, reading("tests")),
    Check(_subject, reading("policy", "plan", "with")),
    Check(_levels, reading("policy", "plan", "tests")),
    Check(_sentences, reading("policy", "plan", "tests")),
)
