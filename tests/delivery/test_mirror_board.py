"""The board shows the flags of another provider's environment, with kills laid over until they are seen there."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.mirrored import mirrored_flag
from controller.domain.plan import FlagRef, Serve
from controller.snapshot import PATCHES_AT_ONCE, FlagBoard, Overlay, VersionClock
from tests.delivery.test_board import drain
from tests.support.flag_stream import boolean_flag
from tests.support.sdk_door import SteppedClock, make_flag, make_record, raised, reserve_nothing

FLAG = FlagRef(provider="ld", environment="production", key="checkout")
OURS = FlagRef(provider="main", environment="production", key="checkout")
ENVIRONMENT = "ld/production"


class World:
    """A board with the mirrored environment; `resyncs` counts how often everything was asked for anew."""

    def __init__(self) -> None:
        self.resyncs = 0
        versions = VersionClock(clock=SteppedClock(), floor=0, reserve=reserve_nothing)
        self.board = FlagBoard(versions, others={"ld", "unleash"})
        self.name = self.board.mirror("ld", "production", self._resync)
        self.board.load([], [])

    def _resync(self) -> None:
        self.resyncs += 1

    def put(self, *flags: dict[str, Any], segments: dict[str, Any] | None = None) -> None:
        configs = {flag["key"]: mirrored_flag(ENVIRONMENT, flag["key"], flag) for flag in flags}
        self.board.take_everything(ENVIRONMENT, configs, segments or {})

    def patch(self, flag: dict[str, Any]) -> None:
        self.board.take(mirrored_flag(ENVIRONMENT, flag["key"], flag))

    def kill(self, kill_id: str = "kill-1", serve: Serve | None = None) -> None:
        self.board.hold_down(FLAG, kill_id, serve)

    @property
    def shown(self) -> dict[str, Any]:
        return dict(self.board.data(ENVIRONMENT)["checkout"])


def flag(version: int, *, on: bool = True, share: int = 50_000, key: str = "checkout") -> dict[str, Any]:
    return boolean_flag(key, version, share=share, enabled=on)


# — whose flag —


def test_a_kill_of_another_providers_flag_leaves_ours_of_the_same_name_alone() -> None:
    world = World()
    world.put(flag(7))
    ours = raised(make_flag("checkout"), 50_000)
    world.board.load([ours], [make_record(flag=FLAG)])
    shown = world.board.shown(OURS)
    assert shown is not None
    assert shown.data["on"]
    assert not world.shown["on"]


def test_a_kill_of_ours_leaves_another_providers_flag_of_the_same_name_alone() -> None:
    world = World()
    world.put(flag(7))
    world.board.load([raised(make_flag("checkout"), 50_000)], [make_record(flag=OURS)])
    assert world.shown["on"]


def test_a_kill_at_a_provider_that_is_not_mirrored_holds_nothing_of_ours_down() -> None:
    world = World()
    elsewhere = FlagRef(provider="unleash", environment="production", key="checkout")
    world.board.load([raised(make_flag("checkout"), 50_000)], [make_record(flag=elsewhere)])
    shown = world.board.shown(OURS)
    assert shown is not None
    assert shown.data["on"]


def test_a_kill_at_a_provider_that_is_not_mirrored_is_not_kept_on_the_board() -> None:
    board = World().board
    elsewhere = FlagRef(provider="unleash", environment="production", key="checkout")
    board.load([], [make_record(flag=elsewhere)])
    assert board.holds(elsewhere) == []


def test_a_kill_at_a_provider_that_the_settings_no_longer_name_still_holds_our_flag_down() -> None:
    world = World()
    renamed = FlagRef(provider="earlier", environment="production", key="checkout")
    world.board.load([raised(make_flag("checkout"), 50_000)], [make_record(flag=renamed)])
    shown = world.board.shown(OURS)
    assert shown is not None
    assert not shown.data["on"]


def test_mirrored_flags_are_not_among_those_kept_as_our_own() -> None:
    world = World()
    world.put(flag(7))
    assert world.board.configs() == []


def test_a_mirrored_environment_is_known_from_its_first_flags_on() -> None:
    world = World()
    assert not world.board.knows(ENVIRONMENT)
    world.put()
    assert world.board.knows(ENVIRONMENT)
    assert world.board.knows("production")


# — a kill, and what the other side says of it —


def test_a_kill_is_served_one_version_above_and_what_everybody_gets_is_the_off_variation() -> None:
    world = World()
    world.put(flag(7))
    stream = world.board.subscribe(ENVIRONMENT)
    world.kill()
    _, (event, data) = drain(stream)
    assert (event, data["path"], data["data"]["on"], data["data"]["version"]) == (
        "patch",
        "/flags/checkout",
        False,
        8,
    )


def test_the_overlay_is_gone_once_the_other_side_shows_the_kill_itself() -> None:
    world = World()
    world.put(flag(7))
    world.kill()
    assert world.board.overlaid(ENVIRONMENT) == 1
    world.patch(flag(9, on=False, share=0))
    assert world.board.overlaid(ENVIRONMENT) == 0
    assert world.shown == flag(9, on=False, share=0)


def test_what_the_other_side_makes_of_a_kill_is_seen_by_sdks_though_its_version_was_served_already() -> None:
    world = World()
    world.put(flag(7))
    world.kill()
    stream = world.board.subscribe(ENVIRONMENT)
    world.patch(flag(8, on=False, share=0))
    _, (_, data) = drain(stream)
    assert data["data"] == flag(9, on=False, share=0)


def test_a_flag_raised_over_there_while_it_is_killed_is_not_served() -> None:
    world = World()
    world.put(flag(7))
    world.kill()
    world.patch(flag(8, on=False))
    world.patch(flag(9, share=100_000))
    assert not world.shown["on"]


def test_a_kill_holds_whatever_everything_anew_says() -> None:
    world = World()
    world.put(flag(7))
    world.kill()
    world.put(flag(7))
    world.put(flag(3))
    assert not world.shown["on"]


def test_a_kill_holds_a_flag_from_the_moment_it_appears() -> None:
    world = World()
    world.put()
    world.kill()
    stream = world.board.subscribe(ENVIRONMENT)
    world.patch(flag(1))
    _, (_, data) = drain(stream)
    assert not data["data"]["on"]


# — after a reset —


def test_after_a_reset_what_the_other_side_shows_counts_again() -> None:
    world = World()
    world.put(flag(7))
    world.kill()
    world.patch(flag(8, on=False))
    world.board.lift(FLAG, "kill-1")
    assert not world.shown["on"]
    world.patch(flag(9))
    assert world.shown["on"]
    assert world.resyncs == 0


def test_a_flag_whose_kill_was_reset_before_we_saw_it_does_not_come_back_by_itself() -> None:
    world = World()
    world.put(flag(7))
    world.kill()
    world.board.lift(FLAG, "kill-1")
    assert not world.shown["on"]
    assert world.resyncs == 1
    world.patch(flag(8))  # late, and from before the kill
    assert not world.shown["on"]


def test_what_comes_anew_after_a_reset_counts_whoever_raised_it() -> None:
    world = World()
    world.put(flag(7))
    world.kill()
    world.board.lift(FLAG, "kill-1")
    world.put(flag(9))
    assert world.shown["on"]


def test_what_is_kept_for_a_restart_is_killed_until_the_reset_was_followed_by_something_newer() -> None:
    world = World()
    world.put(flag(7))
    world.kill()
    world.board.lift(FLAG, "kill-1")
    flags, _ = world.board.mirror_contents(ENVIRONMENT)
    assert not flags["checkout"]["on"]


def test_of_two_kills_the_flag_is_down_until_both_are_reset() -> None:
    world = World()
    world.put(flag(7))
    world.kill("a")
    world.kill("b")
    world.board.lift(FLAG, "a")
    world.put(flag(8))
    assert not world.shown["on"]


# — a kill that leaves the flag on —

FALLTHROUGH = Serve(rollout="true", fallback="false", kill="fallthrough")


def with_foreign_rule(version: int, share: int) -> dict[str, Any]:
    return {**boolean_flag("checkout", version, share=share, staff_domain="@acme.example"), "targets": ["kept"]}


def test_a_kill_by_the_default_rule_leaves_the_flag_on_and_serves_nobody_by_rule_until_it_is_seen() -> None:
    world = World()
    world.put(with_foreign_rule(7, 50_000))
    world.kill(serve=FALLTHROUGH)
    assert (world.shown["on"], world.shown["fallthrough"], world.shown["rules"]) == (True, {"variation": 1}, [])
    assert world.shown["targets"] == ["kept"]
    world.patch(with_foreign_rule(8, 0))
    assert world.shown["rules"] == with_foreign_rule(8, 0)["rules"]
    assert world.board.overlaid(ENVIRONMENT) == 0


def test_one_kill_that_switches_off_is_enough_among_those_that_leave_on() -> None:
    world = World()
    world.put(flag(7))
    world.kill("a", FALLTHROUGH)
    world.kill("b")
    assert not world.shown["on"]


# — versions, segments, many at once —


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.sampled_from(["put", "patch", "kill", "lift"]))))
def test_versions_served_only_rise_while_a_stream_is_open(steps: list[tuple[int, bool, str]]) -> None:
    world = World()
    world.put(flag(1))
    stream = world.board.subscribe(ENVIRONMENT)
    for version, on, what in steps:
        match what:
            case "put":
                world.put(flag(version, on=on))
            case "patch":
                world.patch(flag(version, on=on))
            case "kill":
                world.kill()
            case "lift":
                world.board.lift(FLAG, "kill-1")
    versions = [data["data"]["version"] for event, data in drain(stream) if event == "patch"]
    assert versions == sorted(set(versions))
    assert [one for one in versions if one > 1] == versions


def test_a_flag_that_is_gone_over_there_is_deleted_with_a_version_sdks_take() -> None:
    world = World()
    world.put(flag(7), flag(2, key="other"))
    stream = world.board.subscribe(ENVIRONMENT)
    world.put(flag(2, key="other"))
    world.board.drop(ENVIRONMENT, "other", 12)
    _, first, second = drain(stream)
    assert first == ("delete", {"path": "/flags/checkout", "version": 8})
    assert second == ("delete", {"path": "/flags/other", "version": 12})
    world.board.drop(ENVIRONMENT, "never-there", 1)


def test_segments_are_shown_changed_and_deleted() -> None:
    world = World()
    world.put(flag(1), segments={"beta": {"key": "beta", "version": 3, "included": ["ana"]}})
    stream = world.board.subscribe(ENVIRONMENT)
    world.board.take_segment(ENVIRONMENT, "beta", {"key": "beta", "version": 4, "included": []})
    world.board.take_segment(ENVIRONMENT, "beta", {"key": "beta", "version": 4, "included": []})
    world.board.drop_segment(ENVIRONMENT, "beta")
    (_, put), patch, delete = drain(stream)
    assert put["data"]["segments"]["beta"]["included"] == ["ana"]
    assert patch == ("patch", {"path": "/segments/beta", "data": {"key": "beta", "version": 4, "included": []}})
    assert delete == ("delete", {"path": "/segments/beta", "version": 5})


def test_much_at_once_reaches_a_stream_as_one_and_ends_none() -> None:
    world = World()
    world.put()
    stream = world.board.subscribe(ENVIRONMENT)
    many = [flag(1, key=f"flag-{number}") for number in range(PATCHES_AT_ONCE + 1)]
    world.put(*many)
    _, (event, data) = drain(stream)
    assert event == "put"
    assert len(data["data"]["flags"]) == len(many)
    assert not stream.fell_behind


def test_only_what_is_mirrored_is_covered_and_only_where_somebody_reads_it() -> None:
    world = World()
    overlay = Overlay(world.board, "eu-1")
    assert overlay.cover(OURS, "kill-1", None) == ()
    assert world.board.holds(OURS) == []
    assert overlay.cover(FLAG, "kill-2", None) == ()
    world.put(flag(7))
    assert overlay.cover(replace(FLAG), "kill-3", None) == ("eu-1",)
    overlay.uncover(FLAG, "kill-2")
    overlay.uncover(OURS, "kill-1")
    assert world.board.holds(FLAG) == ["kill-3"]
