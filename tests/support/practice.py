"""A doctor for a model world, with whatever of its surroundings a test makes wrong."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from msgspec.structs import replace

from controller.doctor import Doctor
from controller.doctor.installation import Installation
from controller.doctor.plans import Plans
from controller.domain.catalogue import DatabaseCondition
from controller.domain.status import Check
from controller.peers import HttpPeers, Sighting
from controller.ports import Channel
from controller.providers.host import Provider
from controller.settings import LogChannelSettings, Settings
from controller.sources.kinds import Source
from tests.support.engine import World

CONDITION = DatabaseCondition(
    now=datetime(2026, 1, 1, tzinfo=UTC), version="18.4", schema="0004_pre_events.sql", audit_head=7,
    read_only=False, fsync=True, synchronous_commit="on", connections=3, max_connections=60,
)  # fmt: skip


class Seen:
    """Peers that were seen so."""

    def __init__(self, *sightings: Sighting) -> None:
        self._sightings = sightings

    def sightings(self) -> Sequence[Sighting]:
        return self._sightings


class Practice:
    """A doctor for `world`, with what of the surroundings a test changes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.condition: dict[str, Any] = {}
        self.away: Exception | None = None
        self.schema_problem: str | None = None
        self.sources: dict[str, Source] = {}
        self.providers: dict[str, Provider] = {}
        self.peers: Sequence[Sighting] = ()
        self.settings = Settings(channels={"oncall": LogChannelSettings()})
        self.channels: Mapping[str, Channel] = {}

    async def _condition(self) -> DatabaseCondition:
        if self.away:
            raise self.away
        return replace(CONDITION, **{"now": self.world.clock.now(), **self.condition})

    def doctor(self) -> Doctor:
        world = self.world
        return Doctor(
            installation=Installation(
                store=world.store,
                notifications=world.notifications,
                condition=self._condition,
                schema_problem=lambda: self.schema_problem,
                data=world.folder,
                sources=self.sources,
                providers=self.providers,
                peers=cast("HttpPeers", Seen(*self.peers)),
                presence=world.presence,
                clock=world.clock,
                settings=self.settings,
            ),
            plans=Plans(
                store=world.store, sources=self.sources, providers=world.providers, settings=self.settings
            ),
            channels=self.channels,
            clock=world.clock,
        )

    async def examined(self, *plans: str) -> dict[str, list[Check]]:
        found: dict[str, list[Check]] = {}
        for check in await self.doctor().examine(plans):
            found.setdefault(check.name, []).append(check)
        return found

    async def one(self, name: str, *plans: str) -> Check:
        (check,) = (await self.examined(*plans))[name]
        return check
