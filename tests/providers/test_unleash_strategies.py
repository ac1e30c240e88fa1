"""What Unleash shows is read for what its SDKs make of it, whoever wrote it."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from controller.domain.plan import AttributeMatch, AudienceRule
from controller.providers.unleash.strategies import (
    Constraint,
    Shown,
    Strategy,
    context_field,
    plain,
    rule_strategy,
    share_strategy,
)

KEY = "checkout-v2"
STAFF = AudienceRule(name="staff", match={"email": AttributeMatch(ends_with="@acme.example")})
INSIDERS = Constraint(context_name="team", operator="IN", values=("insiders",))


def gradual(percent: object, **more: Any) -> Strategy:
    group, stickiness = more.pop("group", KEY), more.pop("stickiness", "userId")
    parameters = {"rollout": percent, "groupId": group, "stickiness": stickiness}
    return Strategy(name="flexibleRollout", parameters=parameters, **more)


def ours(percent: object, **more: Any) -> Strategy:
    return gradual(percent, title="rampart", **more)


def exposure(*strategies: Strategy) -> int:
    return Shown(True, strategies).state().exposure


@pytest.mark.parametrize(
    ("text", "percent"),
    [("10", 10), ("0", 0), ("100", 100), ("0.5", 1), ("2.9", 3), ("101", 100), ("-1", 0)],
)
def test_a_share_is_at_most_what_any_sdk_makes_of_its_text(text: object, percent: int) -> None:
    assert exposure(ours(text)) == percent * 1000


@pytest.mark.parametrize("text", ["abc", "", "nan", None])
def test_a_share_that_is_no_number_counts_as_everybody_and_not_as_nobody(text: object) -> None:
    assert exposure(ours(text)) == 100_000
    assert exposure(replace(ours("10"), parameters={})) == 100_000


def test_strategies_of_other_people_add_to_the_exposure() -> None:
    assert exposure(ours("10"), gradual("25", group="theirs")) == 35_000
    assert exposure(ours("10"), gradual("25")) == 25_000, "the same hash: the larger share holds the smaller"
    assert exposure(ours("60"), gradual("70", stickiness="sessionId")) == 100_000
    assert exposure(ours("10"), Strategy(name="default")) == 100_000
    assert exposure(ours("10"), Strategy(name="gradualRolloutUserId", parameters={"percentage": "20"})) == 30_000


def test_what_serves_nobody_without_a_condition_adds_nothing() -> None:
    conditional = gradual("100", group="theirs", constraints=(INSIDERS,))
    in_a_segment = gradual("100", group="theirs", segments=(3,))
    listed = Strategy(name="userWithId", parameters={"userIds": "a,b"})
    asleep = gradual("100", group="theirs", disabled=True)
    assert exposure(ours("10"), conditional, in_a_segment, listed, asleep) == 10_000
    assert exposure(ours("10", disabled=True)) == 0


def test_a_rule_of_ours_that_lost_its_condition_exposes_everybody() -> None:
    rule = rule_strategy(KEY, "user", STAFF)
    assert exposure(ours("1"), rule) == 1_000
    assert exposure(ours("1"), msgspec.structs.replace(rule, constraints=())) == 100_000


def test_a_condition_that_somebody_adds_to_our_share_is_told_and_the_share_not_taken_for_less() -> None:
    state = Shown(True, (ours("10", constraints=(INSIDERS,)),)).state()
    assert state.exposure == 10_000
    assert state.foreign == (
        'conditions that somebody added: strategy "rampart" (flexibleRollout): 10 %; team IN insiders',
    )


def test_rules_of_ours_are_told_by_their_titles() -> None:
    strategies = (ours("1"), rule_strategy(KEY, "user", STAFF), gradual("100", title="rampart: ", disabled=True))
    state = Shown(False, strategies).state()
    assert (state.audience, state.foreign, state.off_serves) == (("staff",), (), "off")


def test_what_is_not_ours_is_described_so_that_every_change_of_it_changes_the_text() -> None:
    many = Constraint(context_name="plan", operator="IN", values=("a", "b", "c", "d", "e"), inverted=True)
    strategies = (
        gradual("25", title="beta", constraints=(INSIDERS, many), segments=(7,)),
        Strategy(name="userWithId"),
        Strategy(name="default", title="rampart"),
    )
    assert Shown(True, strategies).state().foreign == (
        'strategy "beta" (flexibleRollout): 25 %; team IN insiders; plan not IN a, b, c and 2 more; segment 7',
        "strategy userWithId",
        'strategy "rampart" (default): 100 %',
    )


def test_who_is_in_a_share_is_decided_by_group_and_stickiness() -> None:
    def bucketing(one: Strategy) -> str:
        return Shown(True, (one,)).state().bucketing

    assert bucketing(ours("1")) == bucketing(ours("50")) == f"{KEY} by userId"
    assert len({bucketing(ours("1", group=g, stickiness=s)) for g in "ab" for s in "cd"}) == 4
    assert Shown(True, (gradual("25"),)).state().bucketing == "", "not ours"


def test_both_ways_in_which_unleash_shows_a_segment_read_the_same() -> None:
    shown = b'[{"name": "default", "segments": [%s]}]'
    short = msgspec.json.decode(shown % b"7", type=tuple[Strategy, ...])
    long = msgspec.json.decode(shown % b'{"id": 7, "name": "x", "result": true}', type=tuple[Strategy, ...])
    assert short[0] == plain(short[0]) == plain(long[0])


def test_an_audience_rule_becomes_constraints_that_all_must_fit() -> None:
    match = {
        "email": AttributeMatch(ends_with="@acme.example"),
        "plan": AttributeMatch(in_=["beta", "alpha"]),
        "user": AttributeMatch(starts_with="test-"),
        "agent": AttributeMatch(contains="bot"),
    }
    rule = rule_strategy(KEY, "account", AudienceRule(name="staff", match=match))
    assert [(one.context_name, one.operator, one.values) for one in rule.constraints] == [
        ("email", "STR_ENDS_WITH", ("@acme.example",)),
        ("plan", "IN", ("beta", "alpha")),
        ("userId", "STR_STARTS_WITH", ("test-",)),
        ("agent", "STR_CONTAINS", ("bot",)),
    ]
    assert (rule.title, rule.parameters["rollout"]) == ("rampart: staff", "100")


def test_the_share_is_written_as_a_text_and_split_by_the_user() -> None:
    assert share_strategy(KEY, "user", 7_000).parameters == {
        "rollout": "7",
        "stickiness": "userId",
        "groupId": KEY,
    }
    assert [context_field(one) for one in ("user", "key", "account")] == ["userId", "userId", "account"]
