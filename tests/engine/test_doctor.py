"""What the doctor finds wrong, and what it says to do about it."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from controller.doctor import Doctor
from controller.domain.catalogue import Replica
from controller.domain.status import Check
from controller.errors import StoreUnavailable
from controller.peers import HttpPeers, Sighting
from controller.sources.kinds import Source
from tests.support.engine import World


class Questioned:
    def __init__(self, *problems: str) -> None:
        self._problems = problems

    async def problems(self) -> Sequence[str]:
        return self._problems


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    await made.apply()
    await made.presence.check_in()
    return made


class Seen:
    """Peers that were seen so."""

    def __init__(self, *sightings: Sighting) -> None:
        self._sightings = sightings

    def sightings(self) -> Sequence[Sighting]:
        return self._sightings


async def examined(world: World, *problems: str, peers: Sequence[Sighting] = ()) -> dict[str, Check]:
    doctor = Doctor(
        database="PostgreSQL",
        store=world.store,
        journal=world.folder / "kills.journal",
        sources={"prom": cast("Source", Questioned(*problems))},
        providers={"main": world.provider},
        peers=cast("HttpPeers", Seen(*peers)),
        presence=world.presence,
    )
    return {check.name: check for check in await doctor.examine()}


async def test_a_healthy_installation_has_nothing_to_fix(world: World) -> None:
    checks = await examined(world)
    assert set(checks) == {"database", "journal", "replicas", "source prom", "plan checkout-v2"}
    assert all(check.ok and not check.fix for check in checks.values())


async def test_a_source_that_does_not_answer_is_named_with_its_reason(world: World) -> None:
    check = (await examined(world, "connection refused"))["source prom"]
    assert (check.ok, check.detail) == (False, "connection refused")
    assert "[sources.prom]" in check.fix


async def test_a_flag_that_cannot_be_read_is_found_before_a_start(world: World) -> None:
    world.provider.unreadable = "404"
    assert "cannot be read: 404" in (await examined(world))["plan checkout-v2"].detail


async def test_a_database_that_is_away_is_told_once(world: World) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("frozen")

    world.store.audit_head = away  # type: ignore[method-assign, assignment]
    world.store.plans = away  # type: ignore[method-assign, assignment]
    checks = await examined(world)
    assert [name for name, check in checks.items() if not check.ok] == ["database"]
    assert "kills" in checks["database"].fix


# — several replicas —

WEB_2 = Sighting("http://web-2:8400", replica="web-2", problem="")


async def joined(world: World, name: str) -> None:
    await world.store.check_in(
        Replica(name=name, version="2"), life=world.store.life, valid_seconds=5.0, remembered=0
    )
    await world.presence.check_in()


async def test_replicas_that_reach_each_other_and_one_database_have_nothing_to_fix(world: World) -> None:
    await joined(world, "web-2")
    checks = await examined(world, peers=[WEB_2])
    assert all(check.ok for check in checks.values())
    assert checks["replicas"].detail == "replica-1, web-2 checked in; versions 1, 2"
    assert checks["peer http://web-2:8400"].detail == "answers as web-2"


async def test_a_missing_replica_is_named_with_the_way_out(world: World) -> None:
    await joined(world, "web-2")
    world.clock.elapsed += 60
    await world.presence.check_in()
    check = (await examined(world))["replicas"]
    assert not check.ok
    assert "nothing rises: replica web-2 has not checked in" in check.detail
    assert "rampart raises" in check.fix


async def test_a_peer_that_is_silent_or_has_another_secret_is_named(world: World) -> None:
    silent = Sighting("http://web-2:8400", problem="answers 401: it has another secret")
    check = (await examined(world, peers=[silent]))["peer http://web-2:8400"]
    assert (check.ok, check.detail) == (False, "answers 401: it has another secret")
    assert "[peers]" in check.fix


async def test_a_peer_on_another_database_is_found(world: World) -> None:
    check = (await examined(world, peers=[WEB_2]))["peer http://web-2:8400"]
    assert not check.ok
    assert "has not checked in at our database" in check.detail
    assert "[database]" in check.fix


async def test_a_replica_that_no_address_leads_to_is_found(world: World) -> None:
    await joined(world, "web-2")
    check = (await examined(world))["replica web-2"]
    assert not check.ok
    assert "without the database a kill does not reach it" in check.detail
