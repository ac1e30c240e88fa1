"""flagd's own in-process provider reads what we write: from the file, and over gRPC."""

import asyncio
import json
import math
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from controller.domain.plan import AttributeMatch, AudienceRule
from controller.errors import ProviderUnavailable
from tests.contracts.flagd_world import FlagdWorld
from tests.contracts.provider_cases import KILL, STAFF, TURN_ON, bring_to, share
from tests.contracts.provider_world import FLAG, SERVE, Edit, Fault
from tests.support.repository import ROOT
from tests.support.server import free_port

pytestmark = pytest.mark.timeout(240)

PYTHON = ROOT / ".peers" / "python" / "bin" / "python"
APPLICATION = ROOT / "tests" / "peers" / "flagd" / "application.py"
USERS = 20_000
SHARES = (1_000, 10_000, 50_000, 100_000)
ROUNDS = 20
SECONDS = 10.0

WAYS = ("file", "sync")
"""A file is looked at every 500 ms by flagd's Python provider; what is pushed should be there at once."""


def tell(figures: str) -> None:
    """For whoever runs this with -s."""
    sys.stdout.write(f"{figures}\n")


class Application:
    """One process with a real SDK in it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def answer(self) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            line = await self._process.stdout.readline()
        assert line, "the application ended"
        return json.loads(line)

    async def ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"flag": FLAG.key, **question}).encode() + b"\n")
        return await self.answer()

    async def details(self, key: str | None, *, default: bool = False, **attributes: Any) -> Any:
        return await self.ask(ask="details", key=key, default=default, attributes=attributes)

    async def exposed(self) -> set[int]:
        return set(await self.ask(ask="exposed", users=USERS))

    async def comes_to(self, value: bool, *, key: str = "user-1") -> float:
        """When it was first served, on the monotonic clock."""
        seen = await self.ask(ask="until", key=key, value=value, seconds=SECONDS)
        assert seen is not None, f"{key} was not served {value} within {SECONDS:g} s"
        return float(seen)


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Application]:
    process = await asyncio.create_subprocess_exec(
        PYTHON, APPLICATION, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24
    )
    application = Application(process)
    try:
        assert await application.answer() == "ready"
        yield application
    finally:
        process.kill()
        await process.wait()


class World(FlagdWorld):
    """With an application for each way of reading flags."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        super().__init__(folder, sync_bind=f"127.0.0.1:{self.port}")
        self.applications: dict[str, Application] = {}

    async def everywhere(self, value: bool, *, key: str = "user-1") -> dict[str, float]:
        ways = self.applications.items()
        seen = await asyncio.gather(*(application.comes_to(value, key=key) for _, application in ways))
        return dict(zip(self.applications, seen, strict=True))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    async with AsyncExitStack() as running_now:
        for way, where in (("file", str(world.path)), ("sync", str(world.port))):
            world.applications[way] = await running_now.enter_async_context(running(way, where))
        yield world
    await world.provider.close()


async def step(world: World, exposure: int) -> None:
    """Until both applications have it: nobody in particular is let in from this step on, by its own rule."""
    marker = AudienceRule(name="step", match={"step": AttributeMatch(in_=[str(exposure)])})
    await world.provider.apply(share(exposure, STAFF, marker))
    for way, application in world.applications.items():
        deadline = time.monotonic() + SECONDS
        while not (await application.details(None, step=str(exposure)))["value"]:
            assert time.monotonic() < deadline, f"{way} never had {exposure}"
            await asyncio.sleep(0.01)


async def test_shares_are_what_they_say_and_a_larger_one_holds_everybody_of_a_smaller_one(world: World) -> None:
    await bring_to(world, "canary")
    before: set[int] = set()
    for exposure in SHARES:
        await step(world, exposure)
        found = {way: await application.exposed() for way, application in world.applications.items()}
        tell(f"{exposure / 1000:g} %: {len(found['file']) / USERS:.3%} of {USERS:,} by file and by sync")
        assert found["file"] == found["sync"]
        assert before < found["sync"]
        part = exposure / 100_000
        assert abs(len(found["sync"]) - USERS * part) <= 5 * math.sqrt(USERS * part * (1 - part))
        before = found["sync"]
    assert before == set(range(USERS))


async def test_the_audience_is_in_from_the_first_share_on_and_whoever_has_no_key_waits_for_the_last(
    world: World,
) -> None:
    await bring_to(world, "canary")
    rules = [
        replace(STAFF, name="starts", match={"email": AttributeMatch(starts_with="qa-")}),
        replace(STAFF, name="holds", match={"email": AttributeMatch(contains="+beta@")}),
        replace(STAFF, name="both", match={**STAFF.match, "plan": AttributeMatch(in_=["pro", "max"])}),
    ]
    await step(world, 1_000)
    await world.provider.apply(share(1_000, *rules))
    await world.provider.apply(share(1_000, *rules))
    people: list[tuple[dict[str, Any], bool]] = [
        ({"email": "qa-7@x.example"}, True),
        ({"email": "dana+beta@x.example"}, True),
        ({"email": "dana@acme.example", "plan": "max"}, True),
        ({"email": "dana@acme.example"}, False),
        ({"plan": "max"}, False),
        ({"email": 7}, False),
        ({}, False),
    ]
    for application in world.applications.values():
        await served(application, people[0], seconds=SECONDS)
        for person in people:
            await served(application, person)
    await step(world, 100_000)
    for application in world.applications.values():
        await served(application, ({}, True))


async def served(application: Application, person: tuple[dict[str, Any], bool], *, seconds: float = 0.0) -> None:
    """Somebody without a key."""
    attributes, value = person
    deadline = time.monotonic() + seconds
    while (found := await application.details(None, default=not value, **attributes))["value"] != value:
        assert time.monotonic() < deadline, (attributes, found)
        await asyncio.sleep(0.01)
    assert found["error"] is None


async def test_a_kill_serves_the_fallback_whatever_an_applications_own_default_is(world: World) -> None:
    staff = {"email": "dana@acme.example"}
    for begin in ("canary", "everyone"):
        await bring_to(world, begin)
        for application in world.applications.values():
            await served(application, (staff, True), seconds=SECONDS)
        await world.provider.kill(KILL)
        for application in world.applications.values():
            await served(application, (staff, False), seconds=SECONDS)
            found = await application.details("user-1", default=True, **staff)
            assert (found["value"], found["variant"], found["error"]) == (False, "off", None)
        await release(world)


async def release(world: World) -> None:
    await world.provider.settle_kill(KILL)
    await world.provider.forget_kill(KILL)


async def test_a_share_that_waits_to_be_turned_on_exposes_nobody(world: World) -> None:
    """Whoever reads the file in that moment is no application of before: a new one."""
    await world.provider.apply(share(100_000, STAFF))
    for way, where in (("file", str(world.path)), ("sync", str(world.port))):
        async with running(way, where) as newcomer:
            found = await newcomer.details("user-1", default=True, email="dana@acme.example")
            assert (found["value"], found["variant"]) == (False, "off")


async def test_what_other_people_wrote_is_served_as_before(world: World) -> None:
    await bring_to(world, "canary")
    await world.edit(Edit.SECOND_RULE)
    gentle = replace(KILL, serve=replace(SERVE, kill="fallthrough"))
    await world.provider.kill(gentle)
    for application in world.applications.values():
        insiders, staff = {"team": "insiders"}, {"team": "others", "email": "dana@acme.example"}
        await served(application, (insiders, True), seconds=SECONDS)
        await served(application, (staff, False), seconds=SECONDS)
        await served(application, (insiders, True))
        assert (await application.ask(ask="details", flag="neighbour", default=False))["error"] == "TYPE_MISMATCH"


async def test_kills_and_raises_arrive_within_the_time_the_provider_says_it_needs(world: World) -> None:
    times: dict[str, list[float]] = {f"{what} by {way}": [] for what in ("kill", "raise") for way in WAYS}
    await bring_to(world, "canary")
    for _ in range(ROUNDS):
        for what, value in (("raise", True), ("kill", False)):
            arriving = asyncio.create_task(world.everywhere(value))
            began = time.monotonic()
            if value:
                await world.provider.apply(share(100_000))
                await world.provider.apply(TURN_ON)
            else:
                await world.provider.kill(KILL)
            for way, seen in (await arriving).items():
                times[f"{what} by {way}"].append(seen - began)
        await release(world)
    for name, taken in times.items():
        taken.sort()
        tell(f"{name}: median {statistics.median(taken) * 1000:.1f} ms, slowest {taken[-1] * 1000:.1f} ms")
        assert taken[-1] < world.provider.limits.settle_seconds
    assert statistics.median(times["kill by sync"]) < statistics.median(times["kill by file"])


async def test_a_kill_reaches_subscribers_while_the_disk_takes_nothing(world: World) -> None:
    await bring_to(world, "everyone")
    await world.everywhere(True)
    async with world.fault(Fault.DOWN):
        began = time.monotonic()
        with pytest.raises(ProviderUnavailable):
            await world.provider.kill(KILL)
        taken = await world.applications["sync"].comes_to(False) - began
        tell(f"kill by sync without a disk: {taken * 1000:.1f} ms")
        assert taken < 1.0
    await world.provider.kill(KILL)
    await world.applications["file"].comes_to(False)


async def test_a_change_by_a_person_reaches_subscribers_too(world: World) -> None:
    await bring_to(world, "everyone")
    await world.everywhere(True)
    await world.edit(Edit.TURNED_OFF)
    await world.everywhere(False)


async def test_a_subscriber_that_comes_back_is_served_again(world: World, tmp_path: Path) -> None:
    await bring_to(world, "everyone")
    await world.everywhere(True)
    await world.provider.close()
    world.reopen()
    await world.provider.kill(KILL)
    await world.everywhere(False)
