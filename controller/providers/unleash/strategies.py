"""A flag of Unleash in one environment: a switch and strategies, of which ours are told by their titles.

Whoever fits any enabled strategy gets the feature. So the share of a plan is one strategy, each `always` rule is
another, and a strategy that somebody else enabled adds people to both.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from controller.domain.flag import FlagState
from controller.domain.plan import AttributeMatch, AudienceRule
from controller.domain.quantities import FULL_EXPOSURE, exposure_text

SHARE_TITLE = "rampart"
RULE_TITLE = "rampart: "
GRADUAL = "flexibleRollout"
# What Unleash calls the parameter that holds the share, in each kind of strategy that has one.
PERCENT_IN = {
    GRADUAL: "rollout",
    "gradualRolloutRandom": "percentage",
    "gradualRolloutSessionId": "percentage",
    "gradualRolloutUserId": "percentage",
}
EVERYBODY = "default"
OPERATORS = {
    "ends_with": "STR_ENDS_WITH",
    "starts_with": "STR_STARTS_WITH",
    "contains": "STR_CONTAINS",
    "in_": "IN",
}
ROLLOUT, FALLBACK = "on", "off"
PERCENT = 1000
SHOWN_VALUES = 3


class Constraint(Struct, frozen=True, rename="camel"):
    context_name: str
    operator: str
    values: tuple[str, ...] = ()
    value: str | None = None
    inverted: bool = False
    case_insensitive: bool = False

    def __str__(self) -> str:
        values = self.values or ((self.value,) if self.value else ())
        more = f" and {len(values) - SHOWN_VALUES} more" if len(values) > SHOWN_VALUES else ""
        shown = ", ".join(values[:SHOWN_VALUES]) + more
        return f"{self.context_name} {'not ' if self.inverted else ''}{self.operator} {shown}".rstrip()


class Segment(Struct, frozen=True):
    id: int


class Strategy(Struct, frozen=True, rename="camel"):
    """As Unleash shows it. `id` is empty before it is created; segments are ids, in the playground whole ones."""

    name: str
    id: str = ""
    title: str | None = None
    disabled: bool | None = False
    parameters: dict[str, Any] = {}
    constraints: tuple[Constraint, ...] = ()
    segments: tuple[int | Segment, ...] = ()

    @property
    def is_share(self) -> bool:
        return self.title == SHARE_TITLE and self.name == GRADUAL

    @property
    def rule(self) -> str | None:
        """The name of the audience rule it stands for."""
        if self.name != GRADUAL or not (self.title or "").startswith(RULE_TITLE):
            return None
        return (self.title or "").removeprefix(RULE_TITLE)

    @property
    def conditional(self) -> bool:
        return bool(self.constraints or self.segments)

    @property
    def percent(self) -> int:
        """At most so many, whatever the SDK: Unleash takes any text, and SDKs differ in what they make of it.

        What is no number, or not there, counts as everybody: unknown is never nobody.
        """
        if self.name == EVERYBODY:
            return 100
        if self.name not in PERCENT_IN:
            return 0  # it goes by names or addresses, and knows no share
        try:
            return math.ceil(min(max(float(self.parameters.get(PERCENT_IN[self.name], "")), 0.0), 100.0))
        except (TypeError, ValueError):
            return 100

    @property
    def bucketing(self) -> str:
        """What decides who is in a share; the same for two strategies when the larger holds the smaller."""
        if self.name != GRADUAL:
            return self.name
        return f"{self.parameters.get('groupId', '')} by {self.parameters.get('stickiness', 'default')}"

    def __str__(self) -> str:
        traits = [exposure_text(self.percent * PERCENT)] if self.name in (*PERCENT_IN, EVERYBODY) else []
        traits += map(str, self.constraints)
        traits += [f"segment {one}" for one in self.segments]
        called = f'strategy "{self.title}" ({self.name})' if self.title else f"strategy {self.name}"
        return f"{called}: {'; '.join(traits)}" if traits else called


def plain(strategy: Strategy) -> Strategy:
    """The playground's strategy as the flag itself shows it."""
    segments = tuple(one.id if isinstance(one, Segment) else one for one in strategy.segments)
    return replace(strategy, segments=segments)


class Shown(Struct, frozen=True):
    """A flag in one environment. Flags it depends on are left out: they only ever take people away."""

    enabled: bool
    strategies: tuple[Strategy, ...]

    @property
    def shares(self) -> list[Strategy]:
        """Ours; more than one only after a write whose answer was lost, or by somebody's copying."""
        return [one for one in self.strategies if one.is_share]

    @property
    def rules(self) -> list[tuple[str, Strategy]]:
        return [(rule, one) for one in self.strategies if (rule := one.rule) is not None]

    def state(self) -> FlagState:
        ours = self.shares
        return FlagState(
            enabled=self.enabled,
            exposure=self._exposure(),
            audience=tuple(dict.fromkeys(rule for rule, one in self.rules if not one.disabled and one.percent)),
            foreign=tuple(self._foreign()),
            off_serves=FALLBACK,
            bucketing=ours[0].bucketing if ours else "",
        )

    def _exposure(self) -> int:
        """At most so many fit one of the strategies without conditions, whoever made them."""
        by_bucketing: defaultdict[str, int] = defaultdict(int)
        for one in self.strategies:
            if not one.disabled and (one.is_share or not one.conditional):
                by_bucketing[one.bucketing] = max(by_bucketing[one.bucketing], one.percent)
        return min(sum(by_bucketing.values()) * PERCENT, FULL_EXPOSURE)

    def _foreign(self) -> Iterator[str]:
        for one in self.strategies:
            if one.disabled:
                continue
            if one.is_share:
                if one.conditional:
                    yield f"conditions that somebody added: {one}"
            elif one.rule is None:
                yield str(one)


def share_strategy(key: str, bucket_by: str, exposure: int) -> Strategy:
    return Strategy(
        name=GRADUAL,
        title=SHARE_TITLE,
        parameters={"rollout": rollout(exposure), "stickiness": stickiness(bucket_by), "groupId": key},
    )


def rule_strategy(key: str, bucket_by: str, rule: AudienceRule) -> Strategy:
    return Strategy(
        name=GRADUAL,
        title=f"{RULE_TITLE}{rule.name}",
        parameters={"rollout": "100", "stickiness": stickiness(bucket_by), "groupId": key},
        constraints=tuple(_constraints(rule.match)),
    )


def body(strategy: Strategy) -> Mapping[str, Any]:
    """What creates it: Unleash refuses some of what it shows itself, such as a `value` beside `values`."""
    return {
        "name": strategy.name,
        "title": strategy.title,
        "disabled": False,
        "parameters": strategy.parameters,
        "constraints": [
            {
                "contextName": one.context_name,
                "operator": one.operator,
                "values": one.values,
                "inverted": one.inverted,
                "caseInsensitive": one.case_insensitive,
            }
            for one in strategy.constraints
        ],
        "segments": [],
    }


def _constraints(match: Mapping[str, AttributeMatch]) -> Iterator[Constraint]:
    for attribute, wanted in match.items():
        for field, operator in OPERATORS.items():
            found = getattr(wanted, field)
            if found is not None:
                values = tuple(found) if isinstance(found, list) else (found,)
                yield Constraint(context_name=context_field(attribute), operator=operator, values=values)


def rollout(exposure: int) -> str:
    """Thousandths of a percent → the text Unleash wants; a number would be refused."""
    return str(exposure // PERCENT)


def stickiness(bucket_by: str) -> str:
    return context_field(bucket_by)


def context_field(attribute: str) -> str:
    """`user` (and `key`, as LaunchDarkly calls it) is who the user is; any other is a context field's own name."""
    return "userId" if attribute in ("user", "key") else attribute


def same_rule(one: Strategy, other: Strategy) -> bool:
    """Whether it serves the same people; what else hangs on it, such as variants, is not ours."""
    return (
        not one.disabled
        and one.parameters.get(PERCENT_IN[GRADUAL]) == other.parameters.get(PERCENT_IN[GRADUAL])
        and not one.segments
        and _comparable(one.constraints) == _comparable(other.constraints)
    )


def _comparable(constraints: Iterable[Constraint]) -> list[tuple[Any, ...]]:
    return sorted(
        (one.context_name, one.operator, tuple(sorted(one.values)), one.inverted, one.case_insensitive)
        for one in constraints
    )


def most_values(rules: Sequence[AudienceRule]) -> int:
    """Of one condition: Unleash has a limit."""
    return max((len(one.values) for rule in rules for one in _constraints(rule.match)), default=0)
