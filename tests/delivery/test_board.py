"""The board: kills dominate, versions never go back, nobody waits for a slow reader."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.catalogue import FlagConfig
from controller.domain.flag import FlagState
from controller.domain.sdkflag import state_of, with_version
from controller.snapshot import QUEUED_FRAMES, FlagBoard, Subscription, VersionClock
from tests.support.sdk_door import FLAG, STAFF, SteppedClock, make_board, make_flag, make_record, raised


def seen(board: FlagBoard) -> FlagState:
    config = board.shown(FLAG)
    assert config is not None
    return state_of(config)


def drain(subscription: Subscription) -> list[tuple[str, dict[str, Any]]]:
    """Every frame queued, as (event, data)."""
    frames = []
    subscription.end()
    while (frame := _next(subscription)) is not None:
        event, data = frame.decode().rstrip("\n").split("\n")
        frames.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return frames


def _next(subscription: Subscription) -> bytes | None:
    coroutine = subscription.frame()
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: bytes | None = done.value
        return result
    raise AssertionError("nothing was queued")


# — kills —


def test_a_raise_never_shows_through_a_kill() -> None:
    board = make_board()
    board.load([raised(make_flag(), 10_000, STAFF)], [])
    board.hold_down(FLAG, "kill-1")
    board.put(raised(make_flag(version=50), 100_000, STAFF))
    assert (seen(board).enabled, seen(board).exposure, seen(board).audience) == (False, 0, ())


def test_a_kill_that_is_known_before_the_flag_holds_it_from_its_first_frame() -> None:
    board = make_board()
    board.load([], [make_record()])
    subscription = board.subscribe("production")
    board.put(raised(make_flag(), 50_000))
    (_, empty), (event, patch) = drain(subscription)
    assert (empty["data"]["flags"], event, patch["data"]["on"]) == ({}, "patch", False)


def test_a_kill_is_a_patch_above_everything_served_before() -> None:
    board = make_board()
    ahead = with_version(raised(make_flag(), 10_000), 10**15)
    board.load([ahead], [])
    subscription = board.subscribe("production")
    board.hold_down(FLAG, "kill-1")
    _, (event, patch) = drain(subscription)
    assert (event, patch["path"], patch["data"]["on"]) == ("patch", "/flags/checkout-v2", False)
    assert patch["data"]["version"] > 10**15


def test_a_kill_that_is_repeated_is_sent_once() -> None:
    board = make_board()
    board.load([raised(make_flag(), 10_000)], [])
    board.hold_down(FLAG, "kill-1")
    subscription = board.subscribe("production")
    board.hold_down(FLAG, "kill-1")
    assert len(drain(subscription)) == 1


def test_of_two_kills_the_flag_stays_down_until_both_are_lifted() -> None:
    board = make_board()
    board.load([raised(make_flag(), 10_000)], [make_record("a"), make_record("b")])
    board.lift(FLAG, "a")
    assert not seen(board).enabled
    assert board.holds(FLAG) == ["b"]
    board.lift(FLAG, "b")
    assert seen(board).enabled


def test_a_kill_reaches_its_own_flag_in_its_own_environment_only() -> None:
    board = make_board()
    staging = raised(make_flag(environment="staging"), 10_000)
    board.load([raised(make_flag(), 10_000), staging, raised(make_flag("other"), 10_000)], [])
    board.hold_down(FLAG, "kill-1")
    assert not seen(board).enabled
    for flag in (replace(FLAG, environment="staging"), replace(FLAG, key="other")):
        config = board.shown(flag)
        assert config is not None
        assert config.data["on"]


# — what is stored —


def test_an_older_config_is_ignored() -> None:
    board = make_board()
    board.load([with_version(raised(make_flag(), 10_000), 9)], [])
    board.put(with_version(raised(make_flag(), 50_000), 8))
    assert seen(board).exposure == 10_000


def test_an_empty_answer_of_the_store_deletes_nothing() -> None:
    board = make_board()
    board.load([raised(make_flag(), 10_000)], [])
    board.load([], [])
    assert seen(board).exposure == 10_000


def test_an_archived_flag_is_deleted_and_may_come_back_with_a_higher_version() -> None:
    board = make_board()
    flag = raised(make_flag(), 10_000)
    board.load([flag], [])
    subscription = board.subscribe("production")
    board.put(replace(with_version(flag, 10), archived=True))
    assert board.shown(FLAG) is None
    board.put(with_version(flag, 11))
    _, (deleted, delete), (patched, patch) = drain(subscription)
    assert (deleted, delete["path"], patched) == ("delete", "/flags/checkout-v2", "patch")
    assert 3 < delete["version"] < patch["data"]["version"]


def test_nothing_is_ready_before_something_was_loaded() -> None:
    board = make_board()
    board.put(make_flag())
    assert not board.ready
    board.load([], [])
    assert board.ready


def test_what_may_be_old_is_held_back_until_a_load_or_until_nothing_newer_can_be_had() -> None:
    for goes_on in (FlagBoard.serve_anyway, lambda board: board.load([], [])):
        board = make_board()
        board.load([make_flag()], [])
        board.hold_back()
        assert not board.ready
        goes_on(board)
        assert board.ready


def test_the_entity_tag_stands_for_the_content() -> None:
    board, twin = make_board(), make_board()
    for one in (board, twin):
        one.load([make_flag()], [])
    before = board.snapshot("production")
    assert before == twin.snapshot("production")
    board.put(raised(make_flag(), 1000))
    assert board.snapshot("production").etag != before.etag


# — laws —

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 40), st.sampled_from([0, 100, 50_000, 100_000])),
        st.tuples(st.just("archive"), st.integers(1, 40), st.just(0)),
        st.tuples(st.sampled_from(["hold", "lift"]), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("jump"), st.integers(-7200, 7200), st.just(0)),
    ),
    max_size=25,
)


def take(board: FlagBoard, clock: SteppedClock, step: tuple[str, int, int]) -> None:
    verb, number, exposure = step
    match verb:
        case "put":
            board.put(with_version(raised(make_flag(), exposure, STAFF), number))
        case "archive":
            board.put(replace(with_version(make_flag(), number), archived=True))
        case "hold":
            board.hold_down(FLAG, f"kill-{number}")
        case "lift":
            board.lift(FLAG, f"kill-{number}")
        case "jump":
            clock.jump(number)


@given(steps)
def test_whatever_happens_versions_rise_and_a_held_flag_is_off(sequence: list[tuple[str, int, int]]) -> None:
    clock = SteppedClock()
    board = make_board(clock)
    last = 0
    for step in sequence:
        subscription = board.subscribe("production")
        take(board, clock, step)
        _, *frames = drain(subscription)
        board.unsubscribe("production", subscription)
        for event, frame in frames:
            version = frame["version"] if event == "delete" else frame["data"]["version"]
            assert version > last
            last = version
            assert event == "delete" or not (board.holds(FLAG) and frame["data"]["on"])


@given(steps)
def test_a_stream_tells_the_same_as_a_fresh_start(sequence: list[tuple[str, int, int]]) -> None:
    """Frames applied as an SDK applies them give what a poll gives."""
    clock = SteppedClock()
    board = make_board(clock)
    subscription = board.subscribe("production")
    for step in sequence:
        take(board, clock, step)
    flags: dict[str, Any] = {}
    for event, frame in drain(subscription):
        if event == "put":
            flags = dict(frame["data"]["flags"])
        elif event == "delete":
            flags.pop(frame["path"].removeprefix("/flags/"))
        else:
            flags[frame["data"]["key"]] = frame["data"]
    assert flags == json.loads(board.snapshot("production").body)["flags"]


@given(st.lists(st.tuples(st.sampled_from(["next", "restart", "secure"]), st.integers(-5000, 5000)), max_size=30))
def test_versions_rise_through_restarts_and_clock_jumps(events: list[tuple[str, int]]) -> None:
    clock, reserved, last = SteppedClock(), [0], 0

    async def reserve(version: int) -> bool:
        reserved[0] = max(reserved[0], version)
        return True

    def process() -> VersionClock:
        return VersionClock(clock=clock, floor=reserved[0], reserve=reserve)

    versions = process()
    for event, seconds in events:
        clock.jump(seconds)
        if event == "restart":
            # What was served was secured, which is what a provider does before it saves.
            asyncio.run(versions.secure())
            versions = process()
        elif event == "secure":
            asyncio.run(versions.secure())
        else:
            version = versions.next()
            assert version > last
            last = version


# — who listens —


def test_a_reader_that_falls_behind_is_ended_and_delays_nobody() -> None:
    board = make_board()
    board.load([make_flag()], [])
    slow, quick = board.subscribe("production"), board.subscribe("production")
    read = 0
    for version in range(2, QUEUED_FRAMES + 50):
        board.put(with_version(make_flag(), version))
        while not quick._frames.empty():
            assert _next(quick) is not None
            read += 1
    assert slow.fell_behind
    assert _next(slow) is None
    assert not quick.fell_behind
    assert read == QUEUED_FRAMES + 49


async def test_closing_ends_every_stream_after_what_is_queued() -> None:
    board = make_board()
    board.load([make_flag()], [])
    subscription = board.subscribe("production")
    board.put(raised(make_flag(), 1000))
    board.close()
    frames = [await subscription.frame() for _ in range(3)]
    assert frames[0] is not None
    assert frames[1] is not None
    assert frames[2] is None
    late = board.subscribe("production")
    assert [await late.frame() for _ in range(2)][1] is None


def test_a_frame_is_encoded_once_and_shared() -> None:
    board = make_board()
    board.load([make_flag()], [])
    one, other = board.subscribe("production"), board.subscribe("production")
    assert _next(one) is not None
    assert _next(other) is not None
    board.put(raised(make_flag(), 1000))
    assert _next(one) is _next(other)


@pytest.mark.parametrize("exposure", [0, 100_000])
def test_the_board_hands_out_what_is_stored_below_a_kill(exposure: int) -> None:
    board = make_board()
    config: FlagConfig = raised(make_flag(), exposure)
    board.load([config], [make_record()])
    assert board.stored(FLAG) == config
    assert board.configs() == [config]
