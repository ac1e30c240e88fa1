"""What can be wrong with a rule whose condition parses: it never acts, always acts, or acts on bad luck."""

import math
from collections.abc import Iterable, Iterator

from msgspec import Struct

from controller.domain.conditions import AllOf, Comparison, Condition, ConditionError, comparisons, parse_limit
from controller.domain.policy import Metric, PolicySpec, Rule
from controller.manifests.checks import Check, Context, reading
from controller.manifests.loader import Manifest
from controller.manifests.policy_checks import (
    NOTHING,
    Problems,
    distinguishes_variations,
    parsed,
    selectors,
    unit_misfit,
)
from controller.manifests.structure import Path

SLOW_KILL_SECONDS = 15 * 60.0
MOST_COMPARED = 100
"""Rules compared with each other: nobody writes more, and a hostile file must not take minutes."""


class Values(Struct, frozen=True):
    """The numbers from `low` to `high`, each end in it or not."""

    low: float = -math.inf
    high: float = math.inf
    low_in: bool = True
    high_in: bool = True

    @property
    def empty(self) -> bool:
        return self.low > self.high or (self.low == self.high and not (self.low_in and self.high_in))

    def and_(self, other: "Values") -> "Values":
        low, low_in = max((self.low, not self.low_in), (other.low, not other.low_in))
        high, high_in = min((self.high, self.high_in), (other.high, other.high_in))
        return Values(low, high, not low_in, high_in)


def _possible(metric: Metric) -> Values:
    """What a metric can be at all: a share is a share, a quantile of times is no negative time."""
    if metric.shape == "query":
        return Values()
    return Values(0.0, 1.0) if metric.shape == "ratio" else Values(0.0)


def _holding(comparison: Comparison, floor: float | None) -> Values:
    """The values with which it can hold. A limit relative to the baseline is its floor at least."""
    if comparison.unit == "x baseline":
        over = comparison.operator in (">", ">=") and floor is not None
        return Values(floor or 0.0, low_in=comparison.operator == ">=") if over else Values()
    match comparison.operator:
        case ">" | ">=":
            return Values(comparison.number, low_in=comparison.operator == ">=")
        case "<" | "<=":
            return Values(high=comparison.number, high_in=comparison.operator == "<=")


def _floor(rule: Rule) -> float | None:
    try:
        return parse_limit(rule.floor)[0] if rule.floor is not None else None
    except ConditionError:
        return None


def check_possible(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for index, rule in enumerate(spec.rules):
        path: Path = ("spec", "rules", index, "if")
        for part in (parsed(rule) or NOTHING).parts:
            if not all(_sound(one, spec) for one in part.parts):
                continue
            operand = _impossible(part, rule, spec)
            if operand:
                message = f'rule "{rule.id}" can never fire: {_why_never(operand, part, spec)}'
                yield manifest.problem(path, "R101", message, "write a limit that a bad release would cross")
            elif all(_certain(one, spec) for one in part.parts):
                message = f'rule "{rule.id}" always fires: {part.parts[0].metric} is never outside of this limit'
                yield manifest.problem(path, "R102", message, "write a limit that a good release stays within")


def _sound(one: Comparison, spec: PolicySpec) -> bool:
    """A limit in a unit that does not fit has a finding of its own."""
    metric = spec.metrics.get(one.metric)
    return metric is not None and unit_misfit(metric, one.unit, one.number) is None


def _operand(one: Comparison) -> str:
    return f"baseline({one.metric})" if one.of_baseline else one.metric


def _impossible(part: AllOf, rule: Rule, spec: PolicySpec) -> str:
    """The operand that cannot satisfy all its comparisons, or nothing."""
    left: dict[str, Values] = {}
    for one in part.parts:
        name = _operand(one)
        before = left.get(name, _possible(spec.metrics[one.metric]))
        left[name] = before.and_(_holding(one, _floor(rule)))
    return next((name for name, values in left.items() if values.empty), "")


def _why_never(operand: str, part: AllOf, spec: PolicySpec) -> str:
    several = [one for one in part.parts if _operand(one) == operand]
    if len(several) > 1:
        return f"its limits for {operand} exclude each other"
    kind = "a share is never above 100 % or below 0" if spec.metrics[several[0].metric].shape == "ratio" else ""
    return kind or f"{operand} is never below 0"


def _certain(one: Comparison, spec: PolicySpec) -> bool:
    possible = _possible(spec.metrics[one.metric])
    return one.unit != "x baseline" and possible.and_(_holding(one, None)) == possible


class Ready(Struct, frozen=True):
    """A rule that acts, read once: every rule is compared with every other."""

    index: int
    rule: Rule
    condition: Condition
    floor: float | None
    for_seconds: float


def _ready(spec: PolicySpec) -> list[Ready]:
    found = []
    for index, rule in enumerate(spec.rules[:MOST_COMPARED]):
        condition = parsed(rule)
        if rule.mode == "enforce" and condition and all(_sound(one, spec) for one in comparisons(condition)):
            found.append(Ready(index, rule, condition, _floor(rule), rule.for_seconds))
    return found


def check_order(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    ready = _ready(spec)
    for one in ready:
        rule = one.rule
        first = next((other for other in ready if other is not one and _comes_first(other, one)), None)
        if first is not None:
            done = "done so" if first.rule.then == rule.then else _verb(first.rule, done=True)
            message = (
                f'rule "{rule.id}" is never the first: whenever it would {_verb(rule)}, '
                f'"{first.rule.id}" has already {done}'
            )
            help_text = "remove it, or see whether limits or times were swapped"
            yield manifest.problem(("spec", "rules", one.index, "id"), "R103", message, help_text)


def _comes_first(first: Ready, second: Ready) -> bool:
    """Of two that say the same the later one is too many."""
    return _precedes(first, second) and (first.index < second.index or not _precedes(second, first))


def _verb(rule: Rule, *, done: bool = False) -> str:
    if done:
        return {"pause": "paused", "step_back": "stepped back", "kill": "killed"}[rule.then]
    return rule.then.replace("_", " ")


def _precedes(first: Ready, second: Ready) -> bool:
    """Does `first` act whenever `second` would, no later, so that `second` adds nothing?"""
    if first.for_seconds > second.for_seconds or not _as_harsh(first.rule, second.rule):
        return False
    return all(
        any(_implies(one, other, second.floor, first.floor) for other in first.condition.parts)
        for one in second.condition.parts
    )


def _as_harsh(first: Rule, second: Rule) -> bool:
    if first.then == "kill" and not first.even_if_control_fails:
        # With a failing control such a kill is a pause.
        return second.then == "pause" or (second.then == "kill" and not second.even_if_control_fails)
    order = ("pause", "step_back", "kill")
    return order.index(first.then) >= order.index(second.then)


def _implies(one: AllOf, other: AllOf, floor: float | None, other_floor: float | None) -> bool:
    return all(any(_stricter(a, b, floor, other_floor) for a in one.parts) for b in other.parts)


def _stricter(one: Comparison, other: Comparison, floor: float | None, other_floor: float | None) -> bool:
    relative = (one.unit == "x baseline", other.unit == "x baseline")
    if (one.metric, one.of_baseline, one.operator[0]) != (other.metric, other.of_baseline, other.operator[0]):
        return False
    if relative[0] != relative[1]:
        return False
    limits, others = (one.number, floor or 0.0), (other.number, other_floor or 0.0)
    if not relative[0]:
        limits, others = limits[:1] * 2, others[:1] * 2
    if limits == others:
        return one.operator == other.operator or len(one.operator) == 1
    pairs = list(zip(limits, others, strict=True))
    return all(a >= b for a, b in pairs) if one.operator[0] == ">" else all(a <= b for a, b in pairs)


def check_single_error(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    sample = spec.min_sample.requests
    if sample <= 1:
        return
    for index, rule in enumerate(spec.rules):
        for part in (parsed(rule) or NOTHING).parts:
            for name, limit in _limits(part, spec, rule):
                if not 0 < limit < 1 / sample:
                    continue
                message = (
                    f"one failure among minSample ({sample}) is {100 / sample:.2g} %, already above the limit "
                    f"of {limit * 100:.2g} % for {name}"
                )
                help_text = f"ask for at least {math.ceil(1 / limit)} requests, or raise the limit"
                yield manifest.problem(("spec", "rules", index, "if"), "R109", message, help_text)


def _limits(part: AllOf, spec: PolicySpec, rule: Rule) -> Iterator[tuple[str, float]]:
    """(metric, the highest limit it must be above) for every share of the rollout."""
    over = [one for one in part.parts if not one.of_baseline and one.operator in (">", ">=")]
    for name in dict.fromkeys(one.metric for one in over):
        metric = spec.metrics.get(name)
        if metric is None or metric.shape != "ratio":
            continue
        limits = [
            _floor(rule) or 0.0 if one.unit == "x baseline" else one.number for one in over if one.metric == name
        ]
        yield name, max(limits)


def check_rule_floors(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for index, rule in enumerate(spec.rules):
        if rule.floor is not None:
            continue
        for part in (parsed(rule) or NOTHING).parts:
            relative = [one for one in part.parts if one.unit == "x baseline" and one.operator in (">", ">=")]
            bare = [one for one in relative if not _bounded(one, part.parts)]
            if bare:
                times = f"{bare[0].number:g}"
                message = f'"{times}x baseline" alone: next to nothing is soon {times} times as much'
                help_text = "add floor: with the least that matters, as in 20ms or 1%"
                yield manifest.problem(("spec", "rules", index, "if"), "R123", message, help_text)
                break


def _bounded(relative: Comparison, parts: Iterable[Comparison]) -> bool:
    return any(
        one.metric == relative.metric
        and one.unit != "x baseline"
        and one.operator == relative.operator
        and one.number
        for one in parts
    )


def check_rule_keys(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for index, rule in enumerate(spec.rules):
        path: Path = ("spec", "rules", index)
        if rule.even_if_control_fails and rule.then != "kill":
            message = f'"{rule.id}" does not kill, so evenIfControlFails does nothing'
            yield manifest.problem((*path, "evenIfControlFails"), "R125", message, "remove it", at_key=True)
        if rule.then == "kill" and rule.for_seconds > SLOW_KILL_SECONDS:
            message = f'"{rule.id}" kills only after {rule.for_}'
            help_text = "wait a few minutes at most, or let it pause or step back"
            yield manifest.problem((*path, "for"), "R126", message, help_text)


def check_direction(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for index, rule in enumerate(spec.rules):
        for part in (parsed(rule) or NOTHING).parts:
            own = [one for one in part.parts if not one.of_baseline and one.metric in spec.metrics]
            harmless = [one for one in own if spec.metrics[one.metric].shape != "query"]
            if own and own == harmless and all(one.operator in ("<", "<=") for one in own):
                sign = own[0].operator.replace("<", ">")
                message = f'rule "{rule.id}" fires when {own[0].metric} is low, which is when all is well'
                yield manifest.problem(("spec", "rules", index, "if"), "R127", message, f"write {sign}")
                break


def check_kill_sight(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for index, rule in enumerate(spec.rules):
        named = [one.metric for one in comparisons(parsed(rule) or NOTHING) if not one.of_baseline]
        metrics = [spec.metrics[name] for name in named if name in spec.metrics]
        if rule.then != "kill" or not metrics or any(_sees(metric) for metric in metrics):
            continue
        message = f'"{rule.id}" kills, and {named[0]} cannot tell whether this flag is the cause'
        help_text = "let it pause, or use $variation in the query"
        yield manifest.problem(("spec", "rules", index, "then"), "R114", message, help_text)


def _sees(metric: Metric) -> bool:
    """Selectors without $variation have a finding of their own."""
    return metric.query is None or bool(selectors(metric)) or distinguishes_variations(metric.query)


CONDITION_CHECKS: tuple[Check[PolicySpec], ...] = (
    Check(check_possible, reading("rules", "metrics")),
    Check(check_order, reading("rules", "metrics")),
    Check(check_single_error, reading("rules", "metrics", "minSample")),
    Check(check_rule_floors, reading("rules")),
    Check(check_rule_keys, reading("rules")),
    Check(check_direction, reading("rules", "metrics")),
    Check(check_kill_sight, reading("rules", "metrics")),
)
