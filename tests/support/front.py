"""Rampart's doors in front of a stand-in for LaunchDarkly, in the event loop of the test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from controller.delivery import fronts
from controller.domain.plan import FlagRef
from controller.settings import (
    BuiltinProviderSettings,
    DeliverySettings,
    FrontSettings,
    LaunchDarklyProviderSettings,
    Settings,
)
from controller.snapshot import FlagBoard, Overlay, VersionClock
from controller.telemetry import Metrics
from tests.support.launchdarkly import PRODUCTION, SDK_KEYS, FakeLaunchDarkly
from tests.support.sdk_door import Door, reserve_nothing
from tests.support.tracking import RealClock

PROVIDER = "ld"
ENVIRONMENT = f"{PROVIDER}/{PRODUCTION}"
MOBILE_KEY = "mob-0123456789abcdef"
CLIENT_SIDE_ID = "5f00112233445566778899aa"


def flag_ref(key: str) -> FlagRef:
    return FlagRef(provider=PROVIDER, environment=PRODUCTION, key=key)


def settings_of(
    folder: Path, *, stream_uri: str, events_uri: str, base_uri: str = "http://127.0.0.1:9"
) -> Settings:
    """With every kind of key that applications have. `folder` is the data directory, and where the keys are."""
    for name, secret in (("sdk-key", SDK_KEYS[PRODUCTION]), ("mobile-key", MOBILE_KEY), ("api-token", "api-x")):
        (folder / name).write_text(secret + "\n")
    there = LaunchDarklyProviderSettings(
        project="shop",
        api_token_file=str(folder / "api-token"),
        sdk_key_files={PRODUCTION: str(folder / "sdk-key")},
        base_uri=base_uri,
        stream_uri=stream_uri,
        events_uri=events_uri,
    )
    here = FrontSettings(mobile_key_files=[str(folder / "mobile-key")], client_side_ids=[CLIENT_SIDE_ID])
    return Settings(
        data_dir=str(folder),
        delivery=DeliverySettings(front={PROVIDER: {PRODUCTION: here}}),
        providers={"main": BuiltinProviderSettings(), PROVIDER: there},
    )


class FrontDoors(Door):
    """A door whose board mirrors the environment. `kill` and `reset` are what the engine does to it."""

    def __init__(self, settings: Settings, **limits: Any) -> None:
        self.metrics = Metrics()
        clock = RealClock()
        board = FlagBoard(VersionClock(clock=clock, floor=0, reserve=reserve_nothing), others={PROVIDER})
        found = fronts(settings, board=board, clock=clock, metrics=self.metrics, chance=lambda: 0.0)
        super().__init__(board, clock=clock, fronts=found, **limits)
        (self.front,) = found
        self.overlay = Overlay(board, "eu-1")

    def kill(self, key: str, kill_id: str = "kill-1") -> tuple[str, ...]:
        return self.overlay.cover(flag_ref(key), kill_id, None)

    def reset(self, key: str, kill_id: str = "kill-1") -> None:
        self.overlay.uncover(flag_ref(key), kill_id)

    def shown(self, key: str) -> dict[str, Any]:
        return self.board.data(ENVIRONMENT)[key]

    def series(self, name: str, **labels: str) -> float | None:
        found = {"provider": PROVIDER, "environment": PRODUCTION, **labels}
        return self.metrics.registry.get_sample_value(f"rampart_front_{name}", found)


@asynccontextmanager
async def running_front(settings: Settings, **limits: Any) -> AsyncIterator[FrontDoors]:
    door = FrontDoors(settings, **limits)
    door.open_up()
    door.front.start()
    await door.start()
    try:
        yield door
    finally:
        await door.stop()
        await door.front.close()


@asynccontextmanager
async def in_front_of(fake: FakeLaunchDarkly, folder: Path, **limits: Any) -> AsyncIterator[FrontDoors]:
    settings = settings_of(folder, stream_uri=fake.stream_uri, events_uri=fake.events_uri)
    async with running_front(settings, **limits) as door:
        yield door
