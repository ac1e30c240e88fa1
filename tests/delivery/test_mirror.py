"""What a stream says of an environment, taken up or refused as a whole, and kept on disk."""

import json
from pathlib import Path
from typing import Any

import pytest

from controller.delivery.mirror import LARGE_BYTES, Mirror
from controller.delivery.server_events import ServerEvent
from controller.delivery.upstream import Garbled
from controller.snapshot import FlagBoard, VersionClock
from tests.support.flag_stream import boolean_flag
from tests.support.sdk_door import SteppedClock, reserve_nothing

ENVIRONMENT = "ld/production"


class World:
    def __init__(self, folder: Path) -> None:
        clock = SteppedClock()
        self.path = folder / "kept.json"
        self.board = FlagBoard(VersionClock(clock=clock, floor=0, reserve=reserve_nothing), others={"ld"})
        self.board.mirror("ld", "production", lambda: None)
        self.changes = 0
        self.mirror = Mirror(
            self.board, ENVIRONMENT, path=self.path, origin="origin", clock=clock, changed=self._changed
        )

    def _changed(self) -> None:
        self.changes += 1

    async def say(self, kind: str, data: Any) -> None:
        await self.mirror.take(ServerEvent(kind, json.dumps(data).encode()))

    @property
    def versions(self) -> dict[str, int]:
        return {key: flag["version"] for key, flag in self.board.data(ENVIRONMENT).items()}


def everything(*flags: dict[str, Any], **segments: Any) -> dict[str, Any]:
    return {"path": "/", "data": {"flags": {flag["key"]: flag for flag in flags}, "segments": segments}}


def flag(version: int, key: str = "checkout", **fields: Any) -> dict[str, Any]:
    return {**boolean_flag(key, version, share=50_000), **fields}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_flags_and_segments_come_change_and_go(world: World) -> None:
    await world.say("put", everything(flag(1), flag(4, "search"), beta={"key": "beta", "version": 1}))
    await world.say("patch", {"path": "/flags/checkout", "data": flag(2)})
    await world.say("delete", {"path": "/flags/search", "version": 5})
    await world.say("patch", {"path": "/segments/beta", "data": {"key": "beta", "version": 2}})
    assert world.versions == {"checkout": 2}
    assert world.board.segments(ENVIRONMENT) == {"beta": {"key": "beta", "version": 2}}
    await world.say("delete", {"path": "/segments/beta", "version": 3})
    assert world.board.segments(ENVIRONMENT) == {}
    assert world.changes == 5


async def test_what_was_deleted_over_there_is_not_served(world: World) -> None:
    await world.say("put", everything(flag(1), flag(2, "gone", deleted=True), old={"version": 1, "deleted": True}))
    assert world.versions == {"checkout": 1}
    assert world.board.segments(ENVIRONMENT) == {}


async def test_what_later_servers_say_is_passed_over(world: World) -> None:
    await world.say("goodbye", {"reason": "tired"})
    await world.say("patch", {"path": "/configOverrides/x", "data": {}})
    assert not world.board.knows(ENVIRONMENT)


@pytest.mark.parametrize(
    "data", [b"", b'{"data": {"flags"', b'{"data": {"flags": {"x": 1}}}', b"\xff", b"[" * 10**5]
)
async def test_what_cannot_be_read_changes_nothing(world: World, data: bytes) -> None:
    await world.say("put", everything(flag(1)))
    with pytest.raises(Garbled):
        await world.mirror.take(ServerEvent("put", data))
    assert world.versions == {"checkout": 1}


async def test_what_was_on_its_way_when_everything_was_asked_for_anew_is_not_taken_up(world: World) -> None:
    await world.say("put", everything(flag(1)))
    world.mirror.outdate()
    await world.say("put", everything(flag(2)))
    assert world.versions == {"checkout": 1}
    world.mirror.begin()
    await world.say("put", everything(flag(3)))
    assert world.versions == {"checkout": 3}


async def test_a_large_environment_is_taken_up_like_a_small_one(world: World) -> None:
    await world.say("put", everything(flag(1, description="x" * LARGE_BYTES)))
    assert world.versions == {"checkout": 1}


async def test_what_is_kept_is_readable_by_its_owner_alone_and_is_what_was_served(world: World) -> None:
    await world.say("put", everything(flag(1, unheard_of=[1]), beta={"key": "beta", "version": 1}))
    await world.mirror.save()
    assert world.path.stat().st_mode & 0o077 == 0
    kept = json.loads(world.path.read_bytes())
    assert kept["flags"] == {"checkout": flag(1, unheard_of=[1])}
    assert kept["segments"] == {"beta": {"key": "beta", "version": 1}}


async def test_a_disk_that_takes_nothing_stops_nothing_and_is_tried_again(world: World) -> None:
    world.path.mkdir()
    await world.say("put", everything(flag(1)))
    await world.mirror.save()
    world.path.rmdir()
    await world.mirror.save()
    assert world.path.is_file()
    assert world.versions == {"checkout": 1}
