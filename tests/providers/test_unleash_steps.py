"""From one set of strategies to another in single requests: in an order that never exposes more than either."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pytest
from msgspec.structs import replace

from controller.domain.plan import AttributeMatch, AudienceRule
from controller.providers.unleash.steps import Create, Patch, Remove, Step, down, towards
from controller.providers.unleash.strategies import Shown, Strategy, rule_strategy, share_strategy

KEY = "checkout-v2"
RULES = {
    name: rule_strategy(
        KEY, "user", AudienceRule(name=name, match={"email": AttributeMatch(ends_with=f"@{name}")})
    )
    for name in ("staff", "beta")
}


def share(percent: int, **more: Any) -> Strategy:
    return replace(share_strategy(KEY, "user", percent * 1000), id=more.pop("id", "share"), **more)


def rules(*names: str) -> Mapping[str, Strategy]:
    return {name: RULES[name] for name in names}


def shown(*strategies: Strategy, enabled: bool = True) -> Shown:
    return Shown(enabled, strategies)


def taken(before: Shown, steps: Sequence[Step]) -> list[Shown]:
    """What is shown after each step."""
    strategies, after = {one.id: one for one in before.strategies}, [before]
    for number, step in enumerate(steps):
        match step:
            case Create(strategy=new):
                strategies[f"new-{number}"] = replace(new, id=f"new-{number}")
            case Remove(id=gone):
                del strategies[gone]
            case Patch(id=found, operations=operations):
                strategies[found] = patched(strategies[found], operations)
        after.append(Shown(before.enabled, tuple(strategies.values())))
    return after


def patched(strategy: Strategy, operations: Sequence[Mapping[str, Any]]) -> Strategy:
    for one in operations:
        _, first, *rest = one["path"].split("/")
        if one["op"] == "test":
            assert strategy.parameters[rest[0]] == one["value"]
        elif first == "parameters":
            strategy = replace(strategy, parameters={**strategy.parameters, rest[0]: one["value"]})
        else:
            strategy = replace(strategy, **{first: one["value"]})
    return strategy


STARTS = [
    shown(),
    shown(share(0)),
    shown(share(10)),
    shown(share(50), *(replace(one, id=name) for name, one in RULES.items())),
    shown(share(50, disabled=True), replace(RULES["staff"], id="staff")),
    shown(replace(RULES["staff"], id="staff")),
    shown(share(10), share(50, id="twin"), replace(RULES["staff"], id="a"), replace(RULES["staff"], id="b")),
    shown(share(10), replace(RULES["staff"], id="staff", constraints=())),
]
ENDS = [(percent, names) for percent in (0, 10, 100) for names in ((), ("staff",), ("staff", "beta"))]


@pytest.mark.parametrize(("start", "end"), list(product(STARTS, ENDS)))
def test_every_way_ends_as_wanted_and_has_nothing_left_to_do(
    start: Shown, end: tuple[int, tuple[str, ...]]
) -> None:
    percent, names = end
    way = taken(start, towards(start, share(percent), rules(*names)))
    state = way[-1].state()
    assert (state.exposure, sorted(state.audience), state.foreign) == (percent * 1000, sorted(names), ())
    assert towards(way[-1], share(percent), rules(*names)) == []


@pytest.mark.parametrize(("start", "end"), list(product(STARTS, ENDS)))
def test_on_no_way_more_are_exposed_than_before_or_after(start: Shown, end: tuple[int, tuple[str, ...]]) -> None:
    percent, names = end
    way = [one.state() for one in taken(start, towards(start, share(percent), rules(*names)))]
    before, after = way[0], way[-1]
    for one in way:
        assert one.exposure <= max(before.exposure, after.exposure)
        assert {*one.audience} <= {*before.audience, *after.audience}
        if one.exposure > after.exposure:
            assert {*one.audience} <= {*before.audience}, "who is new comes after the share went down"
        if one.exposure > before.exposure and any(not each.disabled for each in start.shares):
            assert {*one.audience} <= {*after.audience}, "who goes has gone when the share goes up"


@pytest.mark.parametrize(("start", "end"), list(product(STARTS, ENDS)))
def test_on_no_way_the_last_enabled_strategy_goes(start: Shown, end: tuple[int, tuple[str, ...]]) -> None:
    """With it Unleash would turn the flag off."""
    percent, names = end
    way = taken(start, towards(start, share(percent), rules(*names)))
    alive = [any(not one.disabled for one in each.strategies) for each in way]
    assert alive[0] is bool(start.strategies)
    assert all(alive[1:])


def test_a_rule_of_ours_that_somebody_narrowed_is_made_anew() -> None:
    narrowed = replace(RULES["staff"], id="staff", segments=(3,))
    assert towards(shown(share(10), narrowed), share(10), rules("staff")) == [
        Remove("staff"),
        Create(RULES["staff"]),
    ]


@pytest.mark.parametrize("start", STARTS)
def test_a_kill_leaves_nobody_and_a_strategy_that_is_enabled(start: Shown) -> None:
    way = taken(start, down(start, KEY))
    state = way[-1].state()
    assert (state.exposure, state.audience) == (0, ())
    if start.strategies:
        assert [one.disabled for one in way[-1].strategies] == [False]
    assert all(any(not one.disabled for one in each.strategies) for each in way[1:]), "Unleash would turn it off"
    assert down(way[-1], KEY) == []


def test_a_kill_touches_nothing_that_is_not_ours() -> None:
    theirs = Strategy(name="default", id="theirs", title="ours")
    assert down(shown(theirs), KEY) == []
    assert down(shown(theirs, share(10)), KEY) == [
        Patch("share", ({"op": "replace", "path": "/parameters/rollout", "value": "0"},))
    ]


def test_a_raise_is_refused_where_a_kill_came_first() -> None:
    (step,) = towards(shown(share(10)), share(50), {})
    assert isinstance(step, Patch)
    assert step.operations[0] == {"op": "test", "path": "/parameters/rollout", "value": "10"}


def test_while_somebody_is_exposed_who_it_is_does_not_change() -> None:
    theirs = {"rollout": "10", "groupId": "another", "stickiness": "default"}
    adopted = shown(replace(share(10), parameters=theirs))
    after = taken(adopted, towards(adopted, share(50), {}))[-1]
    assert after.shares[0].bucketing == "another by default"
    nobody = shown(replace(share(0), parameters={**theirs, "rollout": "0"}))
    after = taken(nobody, towards(nobody, share(50), {}))[-1]
    assert after.shares[0].bucketing == f"{KEY} by userId"


def test_a_strategy_of_ours_that_somebody_disabled_is_enabled_only_as_wanted() -> None:
    asleep = shown(share(50, disabled=True))
    (step,) = towards(asleep, share(10), {})
    assert taken(asleep, [step])[-1].state().exposure == 10_000
