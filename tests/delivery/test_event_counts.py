"""Whose numbers an event belongs to: what its context was served when it happened, or nobody's."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from controller.delivery.event_bodies import events
from controller.delivery.event_counts import Counts, count, wanted
from controller.delivery.flag_history import FlagHistory
from controller.domain.catalogue import FlagConfig, SdkKey
from controller.domain.evaluation import Evaluator
from controller.domain.sdkflag import turned_on, with_version
from controller.domain.tally import Cell, Tally, Watch
from controller.snapshot import FlagBoard
from tests.support.sdk_door import FLAG, STAFF, make_board, make_flag, make_key, make_kill, raised

NOW = 1_800_000_000.0
"""When deliveries arrive, in seconds since 1970."""

LONG_AGO = int((NOW - 86_400) * 1000)
WATCHED = ("evaluations", "contexts", "error", "error:contexts", "latency")
USERS = [f"user-{number}" for number in range(400)]
SERVER = make_key()
HALF = raised(make_flag(version=LONG_AGO), 50_000)
STAFFED = raised(make_flag(version=LONG_AGO), 50_000, STAFF)


def user(key: str, **attributes: Any) -> dict[str, Any]:
    return {"kind": "user", "key": key, **attributes}


def custom(key: str, context: Any, *, seconds_ago: float = 5.0, **more: Any) -> dict[str, Any]:
    return {"kind": "custom", "key": key, "creationDate": (NOW - seconds_ago) * 1000, "context": context, **more}


def board_with(*configs: FlagConfig) -> tuple[FlagBoard, FlagHistory]:
    board = make_board()
    history = FlagHistory(board)
    board.load(configs, [])
    return board, history


def counted(
    history: FlagHistory, *sent: Mapping[str, Any], watched: tuple[str, ...] = WATCHED, key: SdkKey = SERVER
) -> Counts:
    listed, garbled = events(json.dumps(sent).encode())
    assert garbled == 0
    asked = wanted([Watch(FLAG.key, metric) for metric in watched])
    return count(listed, key, asked, history.view(FLAG.environment), NOW)


def arms(counts: Counts, event: str = "error") -> dict[tuple[str, str], int]:
    """How many by (variation, cohort)."""
    found: dict[tuple[str, str], int] = {}
    for cell, tally in counts.tallies.items():
        if cell.event == event:
            found[cell.variation, cell.cohort] = found.get((cell.variation, cell.cohort), 0) + tally.count
    return found


def served(config: FlagConfig, key: str) -> str:
    """What the evaluator, which is tested against the SDKs, says."""
    variation = (
        Evaluator({config.key: config.data}, patterns=lambda _: None).evaluate(config.key, user(key)).variation
    )
    assert variation is not None
    return list(config.variations)[variation]


def tally(counts: Counts, event: str, variation: str) -> Tally:
    (found,) = [one for cell, one in counts.tallies.items() if (cell.event, cell.variation) == (event, variation)]
    return found


def test_an_outcome_belongs_to_the_variation_that_its_context_was_served() -> None:
    _, history = board_with(HALF)
    counts = counted(history, *(custom("error", user(key)) for key in USERS))
    expected = {name: sum(served(HALF, key) == name for key in USERS) for name in ("on", "off")}
    assert arms(counts) == {("on", "share"): expected["on"], ("off", "share"): expected["off"]}
    assert tally(counts, "error", "on").contexts.estimate() == expected["on"]
    assert {cell.exposure for cell in counts.tallies} == {50_000}


def test_one_who_tries_again_and_again_is_many_events_and_one_context() -> None:
    _, history = board_with(HALF)
    counts = counted(history, *[custom("error", user("ann"))] * 7)
    (found,) = [one for cell, one in counts.tallies.items() if cell.event == "error"]
    assert (found.count, found.contexts.estimate()) == (7, 1)


def test_whoever_is_always_in_is_counted_apart() -> None:
    _, history = board_with(STAFFED)
    sent = [custom("error", user(key, email=f"{key}@acme.example")) for key in USERS[:5]]
    assert arms(counted(history, *sent)) == {("on", "always"): 5}


def test_evaluations_are_counted_as_the_sdk_served_them() -> None:
    _, history = board_with(HALF)
    counters = [
        {"count": 466, "variation": 0, "version": HALF.version, "value": True},
        {"count": 4538, "variation": 1, "version": HALF.version, "value": False},
        {"count": 3, "value": "default"},
        {"count": 5, "variation": 9, "version": HALF.version},
    ]
    features = {FLAG.key: {"counters": counters}, "nobody-asks": {"counters": counters}}
    counts = counted(history, {"kind": "summary", "features": features})
    assert {cell: one.count for cell, one in counts.tallies.items()} == {
        Cell("production", FLAG.key, "evaluations", "on", "", 50_000): 466,
        Cell("production", FLAG.key, "evaluations", "off", "", 50_000): 4538,
    }


def test_values_make_a_histogram_and_events_without_one_are_events_all_the_same() -> None:
    _, history = board_with(HALF)
    sent = [custom("latency", user("ann"), metricValue=value) for value in (0.1, 0.1, 3)]
    counts = counted(
        history, *sent, custom("latency", user("ann")), custom("latency", user("ann"), metricValue=None)
    )
    (found,) = [one for cell, one in counts.tallies.items() if cell.event == "latency"]
    assert found.count == 5
    assert sorted(found.buckets.values()) == [1, 2]


def test_nothing_is_counted_that_nobody_asked_for() -> None:
    _, history = board_with(HALF)
    sent = [custom("click", user("ann")), custom("evaluations", user("ann")), custom("contexts", user("ann"))]
    assert counted(history, *sent, watched=("error", "evaluations")).tallies == {}
    assert counted(history, custom("error", user("ann")), watched=()).tallies == {}


def test_contexts_are_all_that_sdks_tell_of_once_each() -> None:
    _, history = board_with(HALF)
    sent = [{"kind": kind, "creationDate": NOW * 1000, "context": user("ann")} for kind in ("index", "identify")]
    sent += [
        custom("anything", user("bob")),
        {**sent[0], "kind": "feature", "key": FLAG.key, "context": user("cid")},
    ]
    sent += [{**sent[0], "kind": "feature", "key": "another-flag", "context": user("dan")}]
    counts = counted(history, *sent, watched=("contexts",))
    assert sum(one.contexts.estimate() for one in counts.tallies.values()) == 3


def test_a_browsers_summary_tells_who_evaluated_the_flag() -> None:
    _, history = board_with(HALF)
    features = {FLAG.key: {"counters": [{"count": 2, "variation": 0, "version": 1}]}}
    summary = {"kind": "summary", "startDate": NOW * 1000, "features": features, "context": user("ann")}
    elsewhere = {**summary, "features": {"another": {"counters": []}}, "context": user("bob")}
    counts = counted(history, summary, elsewhere, watched=("contexts",))
    assert sum(one.contexts.estimate() for one in counts.tallies.values()) == 1


@pytest.mark.parametrize("kind", ["click", "pageview", "of-tomorrow", "diagnostic"])
def test_other_kinds_are_noted_and_nothing_more(kind: str) -> None:
    _, history = board_with(HALF)
    counts = counted(history, {"kind": kind, "key": "error", "context": user("ann")})
    assert counts.tallies == {}
    assert counts.kinds == {"unknown" if kind == "of-tomorrow" else kind: 1}


def test_a_public_key_speaks_only_of_the_flags_that_it_opens() -> None:
    public = make_key("5f0c", kind="client")
    features = {FLAG.key: {"counters": [{"count": 2, "variation": 0, "version": 1}]}}
    sent = [custom("error", user("ann")), {"kind": "summary", "features": features}]
    _, history = board_with(HALF)
    assert counted(history, *sent, key=public).tallies == {}
    _, history = board_with(raised(make_flag(version=LONG_AGO, client_side=True), 50_000))
    assert {cell.event for cell in counted(history, *sent, key=public).tallies} == {
        "contexts",
        "error",
        "evaluations",
    }


# — what cannot be assigned is never guessed —


@pytest.mark.parametrize(
    "context",
    [
        {"kind": "device", "key": "d1"},
        None,
        {"kind": "user"},
        {"kind": "user", "key": ""},
        "ann",
        {"kind": "multi"},
    ],
    ids=["another kind", "none", "no key", "empty key", "text", "nobody"],
)
def test_an_event_about_no_user_has_no_variation(context: Any) -> None:
    _, history = board_with(HALF)
    counts = counted(history, custom("error", context))
    assert arms(counts) == {("", "nobody"): 1}
    assert counts.unassigned == {"nobody": 1}


def test_one_of_several_kinds_is_the_user() -> None:
    _, history = board_with(HALF)
    both = {"kind": "multi", "user": {"key": "user-1"}, "device": {"key": "d1"}}
    assert arms(counted(history, custom("error", both))) == {(served(HALF, "user-1"), "share"): 1}


def test_keys_alone_are_enough_for_a_flag_that_asks_for_nothing_else() -> None:
    _, history = board_with(HALF)
    sent = [{**custom("error", None), "contextKeys": {"user": key, "device": "d"}} for key in USERS]
    for one in sent:
        del one["context"]
    counts = counted(history, *sent)
    assert arms(counts) == arms(counted(history, *(custom("error", user(key)) for key in USERS)))


def test_keys_alone_are_not_enough_for_a_flag_that_asks_for_attributes() -> None:
    _, history = board_with(STAFFED)
    sent = {"kind": "custom", "key": "error", "creationDate": NOW * 1000, "contextKeys": {"user": "ann"}}
    assert arms(counted(history, sent)) == {("", "hidden"): 1}


def test_an_attribute_that_was_held_back_is_not_taken_for_missing() -> None:
    _, history = board_with(STAFFED)
    held_back = user("ann", _meta={"redactedAttributes": ["/email/domain"]})
    assert arms(counted(history, custom("error", held_back))) == {("", "hidden"): 1}
    beside = user("ann", _meta={"redactedAttributes": ["name"]})
    assert ("", "hidden") not in arms(counted(history, custom("error", beside)))
    within = {"kind": "multi", "user": {"key": "ann", "_meta": {"redactedAttributes": ["email"]}}}
    assert arms(counted(history, custom("error", within))) == {("", "hidden"): 1}


# — at the time it happened —


def changed_half_a_minute_ago(seconds_ago: float) -> tuple[FlagBoard, FlagHistory, FlagConfig]:
    """First at 1 %, for a day; then at 50 %."""
    first = raised(make_flag(version=LONG_AGO), 1_000)
    board, history = board_with(first)
    later = with_version(raised(first, 50_000), int((NOW - seconds_ago) * 1000))
    board.put(later)
    return board, history, later


def test_what_happened_before_a_raise_belongs_to_what_was_served_then() -> None:
    first = raised(make_flag(version=LONG_AGO), 1_000)
    _, history, later = changed_half_a_minute_ago(seconds_ago=300)
    same = [key for key in USERS if served(first, key) == served(later, key)]
    counts = counted(history, *(custom("error", user(key), seconds_ago=600) for key in same))
    expected = {name: sum(served(first, key) == name for key in same) for name in ("on", "off")}
    assert arms(counts) == {(name, "share"): number for name, number in expected.items() if number}


def test_whose_variation_changed_since_is_not_assigned_to_either() -> None:
    first = raised(make_flag(version=LONG_AGO), 1_000)
    _, history, later = changed_half_a_minute_ago(seconds_ago=300)
    moved = [key for key in USERS if served(first, key) != served(later, key)]
    assert len(moved) > 100
    counts = counted(history, *(custom("error", user(key), seconds_ago=600) for key in moved))
    assert arms(counts) == {("", "changed"): len(moved)}
    after = counted(history, *(custom("error", user(key), seconds_ago=200) for key in moved))
    assert arms(after) == {("on", "share"): len(moved)}


def test_while_a_variation_changes_it_is_only_left_out() -> None:
    _, history, _ = changed_half_a_minute_ago(seconds_ago=5)
    counts = counted(history, *(custom("error", user(key), seconds_ago=6) for key in USERS))
    assert arms(counts)["", "changing"] > 100
    assert "changed" not in counts.unassigned


def test_a_kill_ends_what_is_counted_as_rolled_out() -> None:
    board, history, _ = changed_half_a_minute_ago(seconds_ago=300)
    board.hold_down(FLAG, make_kill().id)
    counts = counted(history, *(custom("error", user(key), seconds_ago=-1) for key in USERS))
    assert {arm for arm in arms(counts) if arm[0]} <= {("off", "share")}


def test_an_event_from_the_future_happened_some_time_before() -> None:
    _, history, later = changed_half_a_minute_ago(seconds_ago=1200)
    counts = counted(history, *(custom("error", user(key), seconds_ago=-7200) for key in USERS))
    assert sum(arms(counts).values()) == arms(counts)["on", "share"] + arms(counts)["off", "share"]
    _, history, later = changed_half_a_minute_ago(seconds_ago=300)
    moved = [key for key in USERS if served(later, key) == "on"]
    assert ("on", "share") not in arms(
        counted(history, *(custom("error", user(key), seconds_ago=-7200) for key in moved[:9]))
    )


def test_an_event_that_comes_an_hour_late_has_no_variation() -> None:
    _, history = board_with(HALF)
    assert arms(counted(history, custom("error", user("ann"), seconds_ago=3700))) == {("", "late"): 1}
    assert arms(counted(history, custom("error", user("ann"), seconds_ago=3500))) != {("", "late"): 1}


def test_nothing_is_known_of_the_time_before_a_flag_was_known() -> None:
    _, history = board_with(turned_on(make_flag(version=1), int((NOW - 60) * 1000)))
    assert arms(counted(history, custom("error", user("ann"), seconds_ago=300))) == {("", "changed"): 1}


def test_an_event_of_a_flag_that_is_not_there_is_not_counted() -> None:
    _, history = board_with()
    assert counted(history, custom("error", user("ann"))).tallies == {}


def test_a_prerequisite_that_changed_is_a_change() -> None:
    gate = with_version(raised(make_flag("gate", LONG_AGO), 100_000), LONG_AGO)
    data = {**HALF.data, "prerequisites": [{"key": "gate", "variation": 0}]}
    board, history = board_with(
        gate, FlagConfig(**{**{f: getattr(HALF, f) for f in HALF.__struct_fields__}, "data": data})
    )
    board.put(with_version(make_flag("gate", 1), int((NOW - 300) * 1000)))
    on = [key for key in USERS if served(HALF, key) == "on"]
    assert arms(counted(history, *(custom("error", user(key), seconds_ago=600) for key in on))) == {
        ("", "changed"): len(on)
    }
    assert arms(counted(history, *(custom("error", user(key), seconds_ago=100) for key in on))) == {
        ("off", "share"): len(on)
    }
