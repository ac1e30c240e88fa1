"""A flag of another server: killed before its owner knows, seen as killed once it does, and else left as it is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.mirrored import is_killed, killed, mirrored_flag, newer_segment
from tests.support.flag_stream import boolean_flag

ENVIRONMENT = "ld/production"


def flag(version: int = 7, share: int = 50_000, **fields: Any) -> dict[str, Any]:
    return {**boolean_flag("checkout", version, share=share), **fields}


def make(**fields: Any) -> Any:
    return mirrored_flag(ENVIRONMENT, "checkout", flag(**fields))


def test_a_kill_changes_nothing_but_that_the_flag_is_off() -> None:
    assert killed(make(unheard_of={"kept": 1}), leave_on=False).data == flag(on=False, unheard_of={"kept": 1})


@pytest.mark.parametrize(
    ("fallthrough", "done"),
    [
        ({"variation": 1}, True),
        ({"variation": 0}, False),
        ({"rollout": {"variations": [{"variation": 0, "weight": 0}, {"variation": 1, "weight": 100_000}]}}, True),
        ({"rollout": {"variations": [{"variation": 0, "weight": 1}, {"variation": 1, "weight": 99_999}]}}, False),
        ({"rollout": {"variations": None}}, False),
    ],
)
def test_a_kill_that_leaves_on_is_done_when_the_default_rule_serves_the_off_variation_alone(
    fallthrough: dict[str, Any], done: bool
) -> None:
    config = make(fallthrough=fallthrough)
    assert is_killed(config, leave_on=True) is done
    assert not is_killed(config, leave_on=False)


def test_a_flag_that_is_off_is_killed_in_every_way() -> None:
    assert is_killed(make(on=False), leave_on=False)
    assert is_killed(make(on=False), leave_on=True)


def test_a_kill_that_leaves_on_keeps_targets_and_rules_that_serve_the_off_variation() -> None:
    rules = [{"id": "ours", "variation": 0, "clauses": []}, {"id": "kept out", "variation": 1, "clauses": []}]
    data = killed(make(rules=rules, targets=[{"variation": 0, "values": ["qa"]}]), leave_on=True).data
    assert (data["on"], data["fallthrough"]) == (True, {"variation": 1})
    assert [rule["id"] for rule in data["rules"]] == ["kept out"]
    assert data["targets"] == [{"variation": 0, "values": ["qa"]}]


def test_without_an_off_variation_every_kill_switches_off() -> None:
    config = mirrored_flag(ENVIRONMENT, "checkout", flag(offVariation=None))
    assert killed(config, leave_on=True).data["on"] is False


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))
)
def test_a_flag_that_cannot_be_read_can_be_killed(garbled: Any) -> None:
    data = {"key": "checkout", "on": True, "offVariation": 0, "fallthrough": garbled, "rules": garbled}
    config = mirrored_flag(ENVIRONMENT, "checkout", {**data, "version": garbled})
    for leave_on in (False, True):
        once = killed(config, leave_on=leave_on)
        assert is_killed(once, leave_on=leave_on)


@pytest.mark.parametrize(("version", "served"), [(2, 4), (3, 4), (4, 4), (9, 9)])
def test_another_segment_is_served_above_the_one_before(version: int, served: int) -> None:
    before = {"key": "beta", "version": 3, "included": ["ana"]}
    assert newer_segment(before, {**before, "version": version, "included": []})["version"] == served
    assert newer_segment(before, {**before, "version": 2}) is before


def test_variations_are_called_by_their_values() -> None:
    config = mirrored_flag(ENVIRONMENT, "checkout", {"version": 1, "variations": [True, "a", "a", {"b": 1}]})
    assert list(config.variations) == ["true", '"a"', '"a" (2)', '{"b": 1}']
