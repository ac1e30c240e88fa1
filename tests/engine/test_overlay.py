"""A kill of a flag that applications read here from another provider: in force and laid over are one."""

from controller.domain.mirrored import mirrored_flag
from controller.domain.plan import FlagRef
from controller.killbook import KillBook
from controller.snapshot import FlagBoard, Overlay, VersionClock
from tests.support.flag_stream import boolean_flag
from tests.support.sdk_door import SteppedClock, make_record, reserve_nothing

FLAG = FlagRef(provider="ld", environment="production", key="checkout")
PLACE = "ld/production"


def make_world() -> tuple[FlagBoard, KillBook]:
    """On at LaunchDarkly, and shown so."""
    clock = SteppedClock()
    board = FlagBoard(VersionClock(clock=clock, floor=0, reserve=reserve_nothing), others={"ld"})
    board.mirror("ld", "production", lambda: None)
    flag = mirrored_flag(PLACE, FLAG.key, boolean_flag(FLAG.key, 7, share=50_000))
    board.take_everything(PLACE, {FLAG.key: flag}, {})
    return board, KillBook(clock=clock, providers=["ld"], overlay=Overlay(board, "eu-1"))


def test_a_kill_is_laid_over_the_flag_the_moment_it_is_in_force() -> None:
    board, killbook = make_world()
    held = killbook.hold(make_record(flag=FLAG))
    assert not board.data(PLACE)[FLAG.key]["on"]
    receipt = held.receipt([])
    assert receipt.replicas == ["eu-1"]
    assert receipt.confirmed_at is None
    assert receipt.provider_updated_at is None


def test_a_kill_that_is_released_is_laid_over_nothing() -> None:
    board, killbook = make_world()
    held = killbook.hold(make_record(flag=FLAG))
    board.take(mirrored_flag(PLACE, FLAG.key, boolean_flag(FLAG.key, 8, share=0, enabled=False)))
    killbook.release(held)
    assert board.holds(FLAG) == []
    assert board.overlaid(PLACE) == 0


def test_kills_of_the_journal_are_laid_over_before_anything_is_served() -> None:
    board, killbook = make_world()
    killbook.take_up([make_record(flag=FLAG)], merged=[])
    assert not board.data(PLACE)[FLAG.key]["on"]


def test_a_kill_of_our_own_flag_is_left_to_its_provider() -> None:
    board, killbook = make_world()
    ours = FlagRef(provider="main", environment="production", key="checkout")
    held = killbook.hold(make_record(flag=ours))
    assert board.holds(ours) == []
    assert held.receipt([]).replicas == []
