"""What a flag of LaunchDarkly shows."""

from typing import Any

import msgspec
import pytest

from controller.domain.flag import FlagState
from controller.providers.launchdarkly.model import Config, RestFlag, essence
from controller.providers.launchdarkly.reading import our_rules, state_of
from tests.providers.test_launchdarkly_writing import BETA, STAFF, config_of, make_flag, rule_of, weights

TEN = weights((0, 10_000), (1, 90_000))
THEIRS = {
    "_id": "r-theirs",
    "variation": 0,
    "description": "sales",
    "clauses": [{"attribute": "team", "op": "in", "values": ["sales"], "negate": False}],
}


def shown(flag: RestFlag) -> FlagState:
    return state_of(config_of(flag), flag.labels, our_rules(flag, config_of(flag)))


def test_the_share_is_what_the_default_rule_serves_beside_the_off_variation() -> None:
    assert shown(make_flag(fallthrough=TEN)).exposure == 10_000
    assert shown(make_flag(fallthrough={"variation": 0})).exposure == 100_000
    assert shown(make_flag(fallthrough={"variation": 1})).exposure == 0


def test_a_flag_without_an_off_variation_counts_as_all_exposed() -> None:
    state = shown(make_flag(fallthrough={"variation": 1}, offVariation=None))
    assert (state.exposure, state.off_serves) == (100_000, None)


def test_a_third_variation_is_too_much_and_is_named() -> None:
    state = shown(make_flag(("on", "blue", "off"), fallthrough=weights((0, 1_000), (1, 4_000), (2, 95_000))))
    assert (state.exposure, state.foreign) == (5_000, ("variation blue for 4 %",))


def test_our_rules_are_named_once_and_those_of_others_are_foreign() -> None:
    state = shown(make_flag(rules=[THEIRS, rule_of(STAFF), rule_of(BETA, "r-beta"), rule_of(STAFF, "r-again")]))
    assert state.audience == ("staff", "beta")
    (foreign,) = state.foreign
    assert foreign.startswith('rule "sales" [')


def edited(path: str) -> dict[str, Any]:
    rule = msgspec.json.decode(msgspec.json.encode(THEIRS))
    match path:
        case "values":
            rule["clauses"][0]["values"].append("everybody")
        case "variation":
            rule["variation"] = 1
        case "negate":
            rule["clauses"][0]["negate"] = True
        case "rollout":
            del rule["variation"]
            rule |= TEN
    return dict(rule)


@pytest.mark.parametrize("path", ["values", "variation", "negate", "rollout"])
def test_what_is_foreign_reads_differently_once_its_content_changed(path: str) -> None:
    assert shown(make_flag(rules=[THEIRS])).foreign != shown(make_flag(rules=[edited(path)])).foreign


def test_individual_targets_are_counted_and_told_apart() -> None:
    one = shown(make_flag(targets=[{"variation": 0, "values": ["qa-1"]}])).foreign
    other = shown(make_flag(targets=[{"variation": 0, "values": ["qa-2"]}])).foreign
    assert one[0].startswith("1 individual target of kind user for on [")
    assert one != other
    empty = [{"variation": 0, "values": []}, {"variation": 1, "contextKind": "device", "values": []}]
    assert shown(make_flag(targets=empty, contextTargets=empty)).foreign == ()


def test_a_prerequisite_is_foreign() -> None:
    assert shown(make_flag(prerequisites=[{"key": "base", "variation": 0}])).foreign == (
        "prerequisite base, variation 0",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"fallthrough": weights((1, 90_000), (0, 10_000))},
        {"salt": "other"},
        {"fallthrough": weights((0, 10_000), (1, 90_000), bucketBy="email")},
        {"fallthrough": weights((0, 10_000), (1, 90_000), contextKind="device")},
        {"fallthrough": weights((0, 10_000), (1, 90_000), seed=7)},
    ],
)
def test_whatever_decides_who_is_in_a_share_changes_the_bucketing(change: dict[str, Any]) -> None:
    assert (
        shown(make_flag(**{"fallthrough": TEN, **change})).bucketing != shown(make_flag(fallthrough=TEN)).bucketing
    )


def test_a_larger_share_has_the_same_bucketing() -> None:
    larger = make_flag(fallthrough=weights((0, 50_000), (1, 50_000)))
    assert (
        shown(larger).bucketing
        == shown(make_flag(fallthrough=TEN)).bucketing
        == "on, off by user key, salt 043a71"
    )


def test_what_sdks_get_is_the_same_flag_although_it_is_spelled_differently() -> None:
    rest = config_of(
        make_flag(
            on=True,
            fallthrough=weights((0, 10_000), (1, 90_000)),
            rules=[rule_of(STAFF), {**rule_of(BETA, "r-off"), "disabled": True}],
            targets=[{"variation": 0, "values": ["b", "a"], "contextKind": "user"}],
            contextTargets=[{"variation": 0, "values": [], "contextKind": "user"}],
        )
    )
    clause = {"attribute": "email", "op": "endsWith", "values": ["@acme.example"]}
    sdk = {
        "on": True,
        "version": 9,
        "salt": "s",
        "offVariation": 1,
        "fallthrough": {"rollout": {"kind": "rollout", "variations": TEN["rollout"]["variations"]}},
        "rules": [{"id": "r-staff", "variation": 0, "clauses": [clause]}],
        "targets": [{"variation": 0, "values": ["a", "b"]}],
    }
    assert essence(rest) == essence(msgspec.convert(sdk, Config))
    assert essence(rest) != essence(msgspec.convert({**sdk, "on": False}, Config))
    assert essence(rest) != essence(msgspec.convert({**sdk, "targets": []}, Config))
