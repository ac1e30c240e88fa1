"""What can be wrong with a rollout plan beyond its shape."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from controller.domain.binding import is_value, param_problems, value_message
from controller.domain.conditions import uses_baseline
from controller.domain.plan import AttributeMatch, FlagRef, PlanSpec, RolloutPlan, Stage
from controller.domain.policy import GuardrailPolicy, Rule
from controller.domain.quantities import FULL_EXPOSURE
from controller.manifests import promql
from controller.manifests.checks import Check, Context, reading
from controller.manifests.loader import Manifest
from controller.manifests.policy_checks import parsed, selectors
from controller.manifests.problem import Problem, did_you_mean, meant, nearest
from controller.manifests.rulebook.rule import Severity
from controller.manifests.schedule_checks import freeze_span
from controller.manifests.structure import Path

Problems = Iterator[Problem]
OPERATORS = "endsWith, startsWith, contains or in"


def check_stages(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    below, below_name = 0, "0 %"
    for index, stage in enumerate(spec.stages):
        if stage.share <= below:
            message = f'stage "{stage.name}" ({stage.exposure}) does not raise the exposure above {below_name}'
            path: Path = ("spec", "stages", index, "exposure")
            yield manifest.problem(path, "R020", message, "write the stages in rising order")
        below, below_name = stage.share, f'"{stage.name}" ({stage.exposure})'
    if spec.stages[-1].share != FULL_EXPOSURE:
        last = len(spec.stages) - 1
        message = f'the last stage "{spec.stages[-1].name}" is at {spec.stages[-1].exposure}, not at 100 %'
        help_text = "end with a stage at 100%, so that the rollout can complete"
        yield manifest.problem(("spec", "stages", last, "exposure"), "R020", message, help_text)
    for index in _repeated(stage.name for stage in spec.stages):
        message = f'a stage "{spec.stages[index].name}" exists already in this plan'
        yield manifest.problem(("spec", "stages", index, "name"), "R020", message, "give every stage its own name")


def check_names(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    lists: tuple[tuple[tuple[str, ...], str, list[str]], ...] = (
        (("audience", "always"), "name", [rule.name for rule in spec.audience.always]),
        (("schedule", "freezes"), "name", [freeze.name for freeze in spec.schedule.freezes]),
        (("guardrails",), "policy", [use.policy for use in spec.guardrails]),
    )
    for where, key, names in lists:
        for index in _repeated(names):
            message = f'"{names[index]}" stands twice in {".".join(where)}'
            yield manifest.problem(("spec", *where, index, key), "R052", message, "keep one, or rename it")


def check_serve(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    if spec.serve.rollout == spec.serve.fallback:
        message = f'rollout and fallback are both "{spec.serve.fallback}": a kill would change nothing'
        yield manifest.problem(
            ("spec", "serve", "fallback"), "R051", message, "name the variation to fall back to"
        )
    for key, variation in (("rollout", spec.serve.rollout), ("fallback", spec.serve.fallback)):
        if not is_value(variation):
            yield manifest.problem(("spec", "serve", key), "R053", value_message(variation))


def check_flag(manifest: Manifest, spec: PlanSpec, context: Context) -> Problems:
    flag = context.flags.get((spec.flag.environment, spec.flag.key))
    known = context.surroundings.providers if context.surroundings else {}
    if flag is None or known.get(spec.flag.provider, "builtin") != "builtin":
        return
    for key, variation in (("rollout", spec.serve.rollout), ("fallback", spec.serve.fallback)):
        if variation not in flag.spec.variations:
            message = f'the flag "{spec.flag.key}" has no variation "{variation}"'
            help_text = did_you_mean(variation, flag.spec.variations)
            fix = meant(variation, flag.spec.variations)
            yield manifest.problem(("spec", "serve", key), "R072", message, help_text, fix=fix)
    fallback, off = spec.serve.fallback, flag.spec.off
    # Beside a server the provider itself objects.
    alone = context.surroundings is None
    if alone and fallback in flag.spec.variations and off in flag.spec.variations and fallback != off:
        message = f'a kill would serve "{off}", which the flag serves when it is off, and not "{fallback}"'
        help_text = f"make {fallback} the flag's off, or the plan's fallback {off}"
        yield manifest.problem(("spec", "serve", "fallback"), "R224", message, help_text)


def check_audience(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    for index, rule in enumerate(spec.audience.always):
        for attribute, match in rule.match.items():
            path: Path = ("spec", "audience", "always", index, "match", attribute)
            written = _operators(match)
            if len(written) != 1:
                count = "no operator" if not written else f"{len(written)} operators"
                message = f'the match of "{attribute[:60]}" has {count}; exactly one is needed'
                yield manifest.problem(path, "R070", message, f"write {OPERATORS}", at_key=True)
            elif match.in_ == [] or "" in (match.ends_with, match.starts_with, match.contains):
                message = f'the match of "{attribute[:60]}" is empty, so it fits nobody or everybody'
                yield manifest.problem((*path, written[0]), "R070", message, "write what to look for")
            elif "mail" in attribute.lower():
                yield from _check_email(manifest, path, written[0], match)


def _operators(match: AttributeMatch) -> list[str]:
    values = {
        "endsWith": match.ends_with,
        "startsWith": match.starts_with,
        "contains": match.contains,
        "in": match.in_,
    }
    return [name for name, value in values.items() if value is not None]


def _check_email(manifest: Manifest, path: Path, operator: str, match: AttributeMatch) -> Problems:
    if operator in ("contains", "startsWith"):
        message = f'"{operator}" on an e-mail address also fits addresses that anybody can register'
        yield manifest.problem((*path, operator), "R021", message, 'write endsWith: "@your.domain"', at_key=True)
        return
    texts = [match.ends_with] if match.ends_with is not None else match.in_ or []
    for text in texts:
        if text is not None and "@" not in text:
            message = f'"{text[:60]}" without "@" also fits other domains that end like it'
            yield manifest.problem((*path, operator), "R021", message, f'write "@{text[:60].lstrip(".")}"')


def check_bakes(manifest: Manifest, spec: PlanSpec, context: Context) -> Problems:
    windows = [(use.policy, context.policies.get(use.policy)) for use in spec.guardrails]
    known = [(policy.spec.window_seconds, name, policy.spec.window) for name, policy in windows if policy]
    if not known:
        return
    longest, name, written = max(known)
    for index, stage in enumerate(spec.stages):
        if 0 < stage.bake_seconds < 2 * longest:
            message = (
                f'stage "{stage.name}" bakes {stage.bake}, less than two windows of "{name}" ({written} each)'
            )
            help_text = "the first window still shows the time before the change; bake longer"
            path: Path = ("spec", "stages", index, "bake")
            yield manifest.problem(path, "R022", message, help_text)


def check_zone(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    name = spec.schedule.timezone
    if _zone(name) is None:
        close = nearest(name, available_timezones())
        help_text = f'did you mean "{close}"?' if close else "write an IANA name, as in Europe/Berlin or UTC"
        message = f'unknown time zone "{name[:60]}"'
        # Offsets of an hour differ by one character.
        fix = "" if any(char.isdigit() for char in name) else meant(name, available_timezones())
        yield manifest.problem(("spec", "schedule", "timezone"), "R031", message, help_text, fix=fix)


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    # A name that is a directory or leads out of the zone database is refused by the file system.
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def check_windows(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    for index, window in enumerate(spec.schedule.advance_only):
        if window.from_ in (window.to, "24:00"):
            message = f"the window from {window.from_} to {window.to} never opens"
            help_text = 'for a whole day write from: "00:00", to: "24:00"'
            yield manifest.problem(("spec", "schedule", "advanceOnly", index, "from"), "R032", message, help_text)


def check_freezes(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    sound = []
    for index, freeze in enumerate(spec.schedule.freezes):
        start, end = freeze_span(freeze)
        if start < end:
            sound.append((start, end, index))
            continue
        message = f'the freeze "{freeze.name}" ends before it starts'
        path: Path = ("spec", "schedule", "freezes", index, "to")
        yield manifest.problem(path, "R030", message, f"write a time after {freeze.from_}")
    for (_start, end, first), (later_start, _end, second) in pairwise(sorted(sound)):
        if later_start < end:
            freezes = spec.schedule.freezes
            message = f'the freezes "{freezes[first].name}" and "{freezes[second].name}" overlap'
            path = ("spec", "schedule", "freezes", max(first, second), "from")
            yield manifest.problem(path, "R030", message, "merge them, or adjust their ends", severity="warning")


def check_people(manifest: Manifest, spec: PlanSpec, context: Context) -> Problems:
    known = context.surroundings
    if known is None:
        return
    for index, notify in enumerate(spec.notify):
        if notify.to not in known.channels:
            message = f'the settings know no channel "{notify.to}"'
            help_text = did_you_mean(notify.to, known.channels) or "add it under [channels] in rampart.toml"
            yield manifest.problem(("spec", "notify", index, "to"), "R040", message, help_text)
    for index, stage in enumerate(spec.stages):
        yield from _check_approvers(manifest, index, stage, context)


def _check_approvers(manifest: Manifest, index: int, stage: Stage, context: Context) -> Problems:
    if stage.approval is None or context.surroundings is None:
        return
    groups = context.surroundings.groups
    for position, group in enumerate(stage.approval.from_):
        if groups.get(group):
            continue
        state = "has no members" if group in groups else "is not defined in the settings"
        path: Path = ("spec", "stages", index, "approval", "from", position)
        help_text = did_you_mean(group, [name for name in groups if name != group])
        message = f'the approver group "{group}" {state}, so nobody could approve'
        yield manifest.problem(path, "R041", message, help_text or "add it under [groups] in rampart.toml")


def check_alerts(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    if spec.mode == "observe" and spec.alerts.max_action == "kill":
        message = "alerts may kill, and a plan that only observes turns nothing off: they pause"
        help_text = "remove one of the two"
        yield manifest.problem(("spec", "alerts", "maxAction"), "R225", message, help_text)


def check_provider(manifest: Manifest, spec: PlanSpec, context: Context) -> Problems:
    if context.surroundings is not None and spec.flag.provider not in context.surroundings.providers:
        message = f'the settings know no provider "{spec.flag.provider}"'
        help_text = did_you_mean(spec.flag.provider, context.surroundings.providers)
        yield manifest.problem(("spec", "flag", "provider"), "R071", message, help_text)


def check_uses(manifest: Manifest, spec: PlanSpec, context: Context) -> Problems:
    for index, use in enumerate(spec.guardrails):
        path: Path = ("spec", "guardrails", index)
        policy = context.policies.get(use.policy)
        if policy is not None:
            yield from _check_params(manifest, path, use.with_, policy)
        elif use.policy not in context.declared:
            offline = context.surroundings is None
            message = f'the policy "{use.policy}" was not found' + (" among these files" if offline else "")
            close = nearest(use.policy, context.declared)
            help_text = f'did you mean "{close}"?' if close else "lint or apply it together with the plan"
            severity: Severity = "warning" if offline else "error"
            fix = meant(use.policy, context.declared)
            yield manifest.problem((*path, "policy"), "R054", message, help_text, severity=severity, fix=fix)


def _check_params(manifest: Manifest, path: Path, given: dict[str, str], policy: GuardrailPolicy) -> Problems:
    for name, message in param_problems(given, policy.spec.params):
        if name in given:
            known = name in policy.spec.params
            help_text = "" if known else did_you_mean(name, policy.spec.params)
            fix = "" if known else meant(name, set(policy.spec.params) - set(given))
            yield manifest.problem((*path, "with", name), "R053", message, help_text, at_key=not known, fix=fix)
        else:
            where = (*path, "with") if given else (*path, "policy")
            yield manifest.problem(where, "R053", message, f"write with: {{ {name}: … }}")


def check_cohort(manifest: Manifest, spec: PlanSpec, context: Context) -> Problems:
    if not spec.audience.always:
        return
    for index, use in enumerate(spec.guardrails):
        policy = context.policies.get(use.policy)
        if policy is None or all(_keeps_audience_out(text, policy) for text in _all_selectors(policy)):
            continue
        message = f'"{use.policy}" also counts the audience that is always in: staff could hide or cause a breach'
        help_text = 'add cohort="share" to its selectors'
        path: Path = ("spec", "guardrails", index, "policy")
        yield manifest.problem(path, "R061", message, help_text)


def _all_selectors(policy: GuardrailPolicy) -> list[str]:
    return [text for metric in policy.spec.metrics.values() for text in selectors(metric).values()]


def _keeps_audience_out(text: str, policy: GuardrailPolicy) -> bool:
    if policy.spec.language != "promql":
        return "cohort" in text
    try:
        return "cohort" in promql.selector(text).labels
    except promql.PromqlError:
        # The policy's own findings say what is wrong with it.
        return True


def check_judgeable(manifest: Manifest, spec: PlanSpec, context: Context) -> Problems:
    policies = [context.policies.get(use.policy) for use in spec.guardrails]
    if None in policies:
        return
    enforced = [
        (policy, rule) for policy in policies if policy for rule in policy.spec.rules if rule.mode == "enforce"
    ]
    if not enforced:
        message = "no rule of these policies is enforced, so no stage could ever pass"
        yield manifest.problem(("spec", "guardrails"), "R062", message, "let one rule be mode: enforce")
    if spec.stages[0].share != FULL_EXPOSURE:
        return
    blind = [rule.id for policy, rule in enforced if _needs_control(policy, rule)]
    if blind:
        message = f"at 100 % there is no control, and no earlier stage measured one for: {', '.join(blind)}"
        help_text = "begin with a smaller stage, or give the policy's baseline fallback: before"
        yield manifest.problem(("spec", "stages", 0, "exposure"), "R062", message, help_text)


def _needs_control(policy: GuardrailPolicy, rule: Rule) -> bool:
    baseline, condition = policy.spec.baseline, parsed(rule)
    if baseline is None or condition is None or not uses_baseline(condition):
        return False
    return baseline.from_ == "control" and baseline.fallback is None


def check_shared_flags(manifests: Iterable[Manifest]) -> Problems:
    """Plans of one call that raise the same flag."""
    seen: dict[FlagRef, Manifest] = {}
    for manifest in manifests:
        if not isinstance(manifest.value, RolloutPlan):
            continue
        first = seen.setdefault(manifest.value.spec.flag, manifest)
        if first.name != manifest.name:
            message = f'the plan "{first.name}" raises the same flag, and a flag has one run at a time'
            help_text = "use one plan, or abandon the other before the start"
            yield manifest.problem(("spec", "flag", "key"), "R223", message, help_text)


def _repeated(names: Iterable[str]) -> Iterator[int]:
    """The indices of the names that stood there before."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield index
        seen.add(name)


PLAN_CHECKS: tuple[Check[PlanSpec], ...] = (
    Check(check_stages, reading("stages")),
    Check(check_names, reading("audience", "schedule", "guardrails")),
    Check(check_serve, reading("serve")),
    Check(check_flag, reading("serve", "flag")),
    Check(check_audience, reading("audience")),
    Check(check_bakes, reading("stages", "guardrails")),
    Check(check_zone, reading("schedule")),
    Check(check_windows, reading("schedule")),
    Check(check_freezes, reading("schedule")),
    Check(check_people, reading("notify", "stages")),
    Check(check_alerts, reading("alerts", "mode")),
    Check(check_provider, reading("flag")),
    Check(check_uses, reading("guardrails")),
    Check(check_cohort, reading("audience", "guardrails")),
    Check(check_judgeable, reading("stages", "guardrails")),
)
