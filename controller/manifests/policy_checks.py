"""What can be wrong with a guardrail policy beyond its shape."""

from collections.abc import Iterable, Iterator

from controller.domain.binding import is_value, placeholders, value_message
from controller.domain.conditions import (
    Comparison,
    Condition,
    ConditionError,
    LimitUnit,
    comparisons,
    parse,
    parse_limit,
    uses_baseline,
)
from controller.domain.policy import BUILT_IN_PLACEHOLDERS, Metric, PolicySpec, Rule
from controller.domain.quantities import seconds
from controller.manifests import promql
from controller.manifests.checks import Check, Context, reading
from controller.manifests.loader import Manifest
from controller.manifests.problem import Problem, did_you_mean, listed, meant, nearest
from controller.manifests.structure import Path

Problems = Iterator[Problem]

NOTHING = Condition(())
TURNED_ROUND = {"=>": ">=", "=<": "<="}
VENDOR_KIND = "http_json"
SHAPES = "bad and total (two counters), or histogram and quantile, or query"


def selectors(metric: Metric) -> dict[str, str]:
    """The selectors a metric declares, by key."""
    written = {"bad": metric.bad, "total": metric.total, "histogram": metric.histogram}
    return {key: text for key, text in written.items() if text is not None}


def distinguishes_variations(text: str) -> bool:
    return any(name == "variation" for name, _, _ in placeholders(text))


def parsed(rule: Rule) -> Condition | None:
    """None when the condition has a mistake, which is reported elsewhere."""
    try:
        return parse(rule.condition)
    except ConditionError:
        return None


def check_conditions(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    # A metric with a mistake of its own is defined all the same.
    defined = manifest.node_at(("spec", "metrics")).entries
    for index, rule in enumerate(spec.rules):
        path: Path = ("spec", "rules", index, "if")
        try:
            condition = parse(rule.condition)
        except ConditionError as error:
            part = (error.offset, error.length)
            fix = TURNED_ROUND.get(rule.condition[error.offset : error.offset + error.length], "")
            yield manifest.problem(path, "R010", f"{error}", error.help, part=part, fix=fix)
            continue
        for comparison in comparisons(condition):
            if comparison.metric not in defined:
                part = (comparison.offset, len(comparison.metric))
                yield _undefined_metric(manifest, path, comparison.metric, defined, part)


def _undefined_metric(
    manifest: Manifest, path: Path, name: str, defined: Iterable[str], part: tuple[int, int]
) -> Problem:
    close = nearest(name, defined)
    message = f'metric "{name[:60]}" is not defined in this policy. defined: {listed(defined)}'
    help_text = f'did you mean "{close}"?' if close else "define it under metrics:"
    return manifest.problem(path, "R010", message, help_text, part=part, fix=meant(name, defined))


def check_units(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for index, rule in enumerate(spec.rules):
        for comparison in comparisons(parsed(rule) or NOTHING):
            metric = spec.metrics.get(comparison.metric)
            misfit = unit_misfit(metric, comparison.unit, comparison.number) if metric else None
            if misfit is not None:
                part = _limit_part(rule.condition, comparison)
                yield manifest.problem(("spec", "rules", index, "if"), "R010", *misfit, part=part)


def check_baseline(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for index, rule in enumerate(spec.rules):
        if spec.baseline is None and uses_baseline(parsed(rule) or NOTHING):
            message = f'rule "{rule.id}" compares with a baseline, but the policy declares none'
            help_text = "write baseline: { from: control, fallback: before } below spec:"
            yield manifest.problem(("spec", "rules", index, "if"), "R013", message, help_text)


def _limit_part(text: str, comparison: Comparison) -> tuple[int, int]:
    after_metric = comparison.offset + len(comparison.metric)
    start = text.index(comparison.operator, after_metric) + len(comparison.operator)
    start += len(text[start:]) - len(text[start:].lstrip())
    end = start
    while end < len(text) and text[end] not in " \t":
        end += 1
    return start, end - start


def unit_misfit(metric: Metric, unit: LimitUnit, number: float) -> tuple[str, str] | None:
    """(message, help) when a limit of this unit says nothing about this metric."""
    if unit == "x baseline":
        return None
    if metric.shape == "ratio" or metric.unit == "ratio":
        if unit == "":
            share = f"{number:g}"
            meant = [f'"{share}%"', f'"{number * 100:g}%"'] if number <= 1 else [f'"{share}%"']
            return (
                f"bare number for a ratio metric; {share} would mean {number * 100:g} %",
                f"write {' or '.join(meant)}",
            )
        return None if unit == "%" else (f'"{unit}" does not fit a ratio', "write a percentage, as in 1%")
    if metric.unit == "seconds":
        if unit in ("ms", "s"):
            return None
        wrong = "a percentage does not fit a time" if unit == "%" else "bare number for a time"
        return wrong, "write the unit, as in 250ms or 1.5s"
    if unit in ("ms", "s"):
        return f'"{unit}" fits times only', "add unit: seconds to the metric, if it is one"
    if unit == "%":
        return "a percentage fits ratios only", "add unit: ratio to the metric, if it is one"
    return None


def check_floors(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for index, rule in enumerate(spec.rules):
        if rule.floor is None:
            continue
        path: Path = ("spec", "rules", index, "floor")
        try:
            number, unit = parse_limit(rule.floor)
        except ConditionError as error:
            yield manifest.problem(path, "R010", f"{error}", error.help, part=(error.offset, error.length))
            continue
        if unit == "x baseline":
            yield manifest.problem(path, "R010", "a floor is absolute", "write it with its unit, as in 20ms")
            continue
        relative = [one for one in comparisons(parsed(rule) or NOTHING) if one.unit == "x baseline"]
        if not relative and parsed(rule) is not None:
            message = f'rule "{rule.id}" has a floor but no limit relative to a baseline'
            yield manifest.problem(
                path, "R010", message, "a floor only lifts limits such as 2x baseline; remove it"
            )
        for comparison in relative:
            metric = spec.metrics.get(comparison.metric)
            misfit = unit_misfit(metric, unit, number) if metric else None
            if misfit is not None:
                yield manifest.problem(path, "R010", *misfit)


def check_rule_ids(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    seen: set[str] = set()
    for index, rule in enumerate(spec.rules):
        if rule.id in seen:
            message = f'a rule "{rule.id}" exists already in this policy'
            yield manifest.problem(("spec", "rules", index, "id"), "R052", message, "give every rule its own id")
        seen.add(rule.id)


def check_harm(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    if not any(rule.then == "kill" and rule.mode == "enforce" for rule in spec.rules):
        message = "no enforced rule kills: a bad release waits for a person"
        help_text = "add a rule with then: kill for harm that must not wait"
        yield manifest.problem(("spec", "rules"), "R050", message, help_text)


def check_kill_delays(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for index, rule in enumerate(spec.rules):
        if rule.then == "kill" and rule.for_seconds < 2 * spec.every_seconds:
            message = f'"{rule.id}" kills after for: {rule.for_}, less than two polls ({spec.every} each)'
            help_text = "a single bad reading could kill; wait for two at least"
            path: Path = ("spec", "rules", index, "for" if rule.for_ != "0s" else "id")
            yield manifest.problem(path, "R023", message, help_text)


def check_shapes(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for name, metric in spec.metrics.items():
        path: Path = ("spec", "metrics", name)
        ratio, quantile = (metric.bad, metric.total), (metric.histogram, metric.quantile)
        begun = [any(one is not None for one in shape) for shape in (ratio, quantile, (metric.query,))]
        complete = [all(one is not None for one in shape) for shape in (ratio, quantile, (metric.query,))]
        if sum(begun) == 0:
            yield manifest.problem(path, "R012", f'metric "{name}" measures nothing', f"write {SHAPES}")
        elif sum(begun) > 1:
            yield manifest.problem(
                path, "R012", f'metric "{name}" mixes several shapes', f"write only one: {SHAPES}"
            )
        elif begun != complete:
            lacking = _lacking(metric)
            message = f'metric "{name}" lacks the key "{lacking}"'
            yield manifest.problem(path, "R012", message, f"write {SHAPES}")


def _lacking(metric: Metric) -> str:
    if metric.bad is not None or metric.total is not None:
        return "total" if metric.total is None else "bad"
    return "quantile" if metric.quantile is None else "histogram"


def check_promql(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    if spec.language != "promql":
        return
    for name, metric in spec.metrics.items():
        for key, text in selectors(metric).items():
            path: Path = ("spec", "metrics", name, key)
            try:
                found = promql.selector(text)
            except promql.PromqlError as error:
                yield manifest.problem(path, "R011", f"{error}", error.help)
                continue
            if key == "histogram" and not found.name.endswith("_bucket"):
                message = f'"{found.name}" is no histogram; the series of a classic one end in _bucket'
                yield manifest.problem(path, "R011", message, f"did you mean {found.name}_bucket?")
            if key == "histogram" and "le" in found.labels:
                message = "the selector picks single buckets; a quantile needs them all"
                yield manifest.problem(path, "R011", message, "remove the matcher on le")
        if metric.query is not None:
            try:
                promql.query(metric.query)
            except promql.PromqlError as error:
                yield manifest.problem(("spec", "metrics", name, "query"), "R011", f"{error}", error.help)


def check_source(manifest: Manifest, spec: PolicySpec, context: Context) -> Problems:
    if context.surroundings is None:
        return
    kind = context.surroundings.sources.get(spec.source)
    if kind is None:
        message = f'the settings know no source "{spec.source}"'
        help_text = (
            did_you_mean(spec.source, context.surroundings.sources) or "add it under [sources] in rampart.toml"
        )
        yield manifest.problem(("spec", "source"), "R071", message, help_text)
        return
    spoken = "vendor" if kind == VENDOR_KIND else "promql"
    if spec.language != spoken:
        place: Path = ("spec", "language" if "language" in manifest.node_at(("spec",)).entries else "source")
        taken = "PromQL, not a vendor's language" if spoken == "promql" else "its vendor's language, not PromQL"
        message = f'the source "{spec.source}" is of kind {kind} and takes {taken}'
        yield manifest.problem(place, "R133", message, f"write language: {spoken}")
    if kind != "scrape":
        return
    for name, metric in spec.metrics.items():
        if metric.query is not None:
            message = f'the source "{spec.source}" scrapes targets itself and cannot answer PromQL'
            help_text = "use bad and total, or histogram and quantile, or a prometheus source"
            yield manifest.problem(("spec", "metrics", name, "query"), "R014", message, help_text)


def check_placeholders(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    known = [*BUILT_IN_PLACEHOLDERS, *spec.params]
    for name, metric in spec.metrics.items():
        texts = {**selectors(metric), **({"query": metric.query} if metric.query is not None else {})}
        for key, text in texts.items():
            for placeholder, offset, length in placeholders(text):
                if placeholder in known:
                    continue
                message = f'"${placeholder[:60]}" is neither a built-in placeholder nor a parameter of this policy'
                path: Path = ("spec", "metrics", name, key)
                help_text = did_you_mean(placeholder, known)
                certain = meant(placeholder, known)
                fix = text[offset : offset + length].replace(placeholder, certain) if certain else ""
                yield manifest.problem(path, "R053", message, help_text, part=(offset, length), fix=fix)


def check_params(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for name, param in spec.params.items():
        path: Path = ("spec", "params", name)
        if name in BUILT_IN_PLACEHOLDERS:
            message = f'"{name}" is a built-in placeholder and cannot be a parameter'
            yield manifest.problem(path, "R053", message, "choose another name", at_key=True)
        if param.required and param.default is not None:
            message = f'the parameter "{name}" is required, so its default is never used'
            yield manifest.problem((*path, "default"), "R053", message, "remove one of the two", at_key=True)
        if not param.required and param.default is None:
            message = f'the parameter "{name}" is neither required nor has a default'
            yield manifest.problem(path, "R053", message, "write required: true or default: value", at_key=True)
        if param.default is not None and not is_value(param.default):
            yield manifest.problem((*path, "default"), "R053", value_message(param.default))


def check_times(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    stale = spec.stale_after_seconds
    nonsense = (
        ("every", spec.every_seconds <= 0, "every must be more than 0", "write every: 15s"),
        ("window", spec.window_seconds <= 0, "window must be more than 0", "write window: 5m"),
        (
            "window",
            0 < spec.window_seconds < 2 * spec.every_seconds,
            f"a window of {spec.window} holds fewer than two polls of {spec.every}",
            "widen the window or poll more often",
        ),
        (
            "staleAfter",
            spec.stale_after is not None and stale < spec.every_seconds,
            f"samples would be stale after {spec.stale_after}, before the next poll ({spec.every})",
            "use at least twice the scrape interval",
        ),
        (
            "staleAfter",
            spec.stale_after is not None and stale > spec.window_seconds > 0,
            f"staleAfter {spec.stale_after} is longer than the window {spec.window}",
            "a sample older than the window is not in it",
        ),
    )
    for key, broken, message, help_text in nonsense:
        if broken:
            yield manifest.problem(("spec", key), "R024", message, help_text)


def check_baseline_span(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    if spec.baseline is not None and seconds(spec.baseline.before) < spec.window_seconds:
        message = f"baseline.before ({spec.baseline.before}) is shorter than the window ({spec.window})"
        yield manifest.problem(("spec", "baseline", "before"), "R024", message, "use several windows, as in 1h")


def check_dilution(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for name, metric in spec.metrics.items():
        for key, text in selectors(metric).items():
            used = {placeholder for placeholder, _, _ in placeholders(text)}
            if "variation" in used:
                continue
            if "flag" in used:
                message = "the selector does not distinguish variations: rollout and baseline are the same series"
                help_text = 'add variation="$variation"' if spec.language == "promql" else "choose by $variation"
            else:
                message = (
                    "the selector distinguishes neither flag nor variation: at a 1 % stage a rollout that fails "
                    "every request moves this metric by 1 % only, and the baseline moves with it"
                )
                help_text = 'add flag="$flag",variation="$variation"'
                if spec.language != "promql":
                    help_text = "choose by $flag and $variation"
            path: Path = ("spec", "metrics", name, key)
            yield manifest.problem(path, "R060", message, help_text)


def check_rule_scope(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    """Rules that look at the baseline alone say nothing about the rollout."""
    for index, rule in enumerate(spec.rules):
        condition = parsed(rule)
        if condition and all(one.of_baseline for one in comparisons(condition)):
            message = f'rule "{rule.id}" looks at the baseline alone and never at the rollout'
            help_text = "add a comparison of the metric itself"
            yield manifest.problem(("spec", "rules", index, "if"), "R062", message, help_text)


POLICY_CHECKS: tuple[Check[PolicySpec], ...] = (
    Check(check_conditions, reading("rules")),
    Check(check_units, reading("rules", "metrics")),
    Check(check_baseline, reading("rules", "baseline")),
    Check(check_floors, reading("rules", "metrics")),
    Check(check_rule_ids, reading("rules")),
    Check(check_harm, reading("rules")),
    Check(check_kill_delays, reading("rules", "every")),
    Check(check_rule_scope, reading("rules")),
    Check(check_shapes, reading("metrics")),
    Check(check_promql, reading("metrics")),
    Check(check_dilution, reading("metrics")),
    Check(check_placeholders, reading("metrics", "params")),
    Check(check_params, reading("params")),
    Check(check_source, reading("source", "metrics")),
    Check(check_times, reading("every", "window", "staleAfter")),
    Check(check_baseline_span, reading("baseline", "window")),
)
