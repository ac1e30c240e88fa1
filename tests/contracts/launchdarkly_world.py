"""LaunchDarkly's stand-in with the adapter and the official SDK on it; its faults, and a person beside us."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from controller.domain.flag import FlagState
from controller.providers import build
from controller.providers.host import Provider
from controller.settings import LaunchDarklyProviderSettings
from tests.contracts.provider_world import FLAG, PERSON, Beyond, Edit, Fault, HeldWrite
from tests.support.launchdarkly import PRODUCTION, PROJECT, SDK_KEYS, WRITE_TOKEN, FakeLaunchDarkly, Person
from tests.support.providers import make_host
from tests.support.sdk_door import make_board

CANNOT: dict[Beyond, str] = {
    Edit.RENAMED: "the key of a flag at LaunchDarkly never changes; its name may, and nothing goes by that",
}
STATUSES = {
    Fault.UNAUTHORIZED: 401,
    Fault.FORBIDDEN: 403,
    Fault.NOT_FOUND: 404,
    Fault.BROKEN: 500,
    Fault.AWAY: 503,
}
CONNECTED_SECONDS = 10.0


def secrets(folder: Path, token: str = WRITE_TOKEN) -> dict[str, Any]:
    """The files of settings, written."""
    (folder / "token").write_text(token)
    (folder / "sdk-key").write_text(SDK_KEYS[PRODUCTION])
    return {"api_token_file": str(folder / "token"), "sdk_key_files": {PRODUCTION: str(folder / "sdk-key")}}


def make_settings(fake: FakeLaunchDarkly, folder: Path, **fields: Any) -> LaunchDarklyProviderSettings:
    """With waits as short as they can be."""
    return LaunchDarklyProviderSettings(
        **{
            "project": PROJECT,
            "base_uri": fake.base_uri,
            "stream_uri": fake.stream_uri,
            "events_uri": fake.events_uri,
            "settle_seconds": 3.0,
            "poll_seconds": 0.5,
            "timeout_seconds": 1.0,
            "throttled_seconds": 0.3,
            **secrets(folder),
            **fields,
        }
    )


@asynccontextmanager
async def started(settings: LaunchDarklyProviderSettings, host: Any = None) -> AsyncIterator[Provider]:
    provider = build("main", settings, host or make_host(None, make_board()))
    provider.start()
    try:
        yield provider
    finally:
        await provider.close()


async def connected(provider: Provider) -> None:
    """The official SDK got its flags."""
    async with asyncio.timeout(CONNECTED_SECONDS):
        while True:
            if isinstance((await provider.observe([FLAG]))[FLAG], FlagState):
                return
            await asyncio.sleep(0.01)


class LaunchDarklyWorld:
    patience = 8.0
    """After an outage the SDK waits some seconds before it connects again."""

    def __init__(self, fake: FakeLaunchDarkly, provider: Provider, settings: LaunchDarklyProviderSettings) -> None:
        self.fake = fake
        self.provider = provider
        self._settings = settings

    @property
    def person(self) -> Person:
        return self.fake.person(PERSON)

    @asynccontextmanager
    async def another(self) -> AsyncIterator[Provider]:
        async with started(self._settings) as provider:
            yield provider

    async def edit(self, edit: Edit) -> None:
        person = self.person
        match edit:
            case Edit.RAISED:
                person.share(FLAG.key, 50_000)
            case Edit.TURNED_ON:
                person.turn_on(FLAG.key)
            case Edit.TURNED_OFF:
                person.turn_off(FLAG.key)
            case Edit.SECOND_RULE:
                person.add_rule(FLAG.key, "on", "team", "insiders")
            case Edit.SWAPPED:
                person.swap_order(FLAG.key)
            case Edit.ARCHIVED:
                person.archive(FLAG.key)
            case Edit.RENAMED:
                raise AssertionError(CANNOT[edit])

    @asynccontextmanager
    async def fault(self, fault: Fault) -> AsyncIterator[None]:
        faults = self.fake.faults
        match fault:
            case Fault.DOWN:
                faults.reset()
                self.fake.sdk.down()
            case Fault.LOST_BEFORE:
                faults.reset(on="writes")
            case Fault.LOST_AFTER:
                faults.reset(on="writes", after=True)
            case Fault.HALF:
                faults.half_json()
            case Fault.CONFLICT:
                faults.fail(409, on="writes")
            case Fault.GATEWAY:
                faults.fail(504, on="writes", after=True)
            case Fault.THROTTLED:
                faults.rate_limited()
            case Fault.THROTTLED_UNTIL:
                faults.rate_limited(reset_in_seconds=1.0)
            case Fault.THROTTLED_BEFORE:
                faults.rate_limited(reset_in_seconds=-30.0)
            case _:
                faults.fail(STATUSES[fault])
        try:
            yield
        finally:
            faults.clear()
            self.fake.sdk.up()

    @asynccontextmanager
    async def held_write(self) -> AsyncIterator[HeldWrite]:
        held: Any = self.fake.faults.hold(on="writes", times=1)
        try:
            yield held
        finally:
            held.let_go.set()

    async def everything(self) -> Any:
        return asdict(self.fake.flag(FLAG.key))


@asynccontextmanager
async def launchdarkly_world(folder: Path, **fields: Any) -> AsyncIterator[LaunchDarklyWorld]:
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(FakeLaunchDarkly())
        fake.create_flag(FLAG.key)
        settings = make_settings(fake, folder, **fields)
        provider = await stack.enter_async_context(started(settings))
        await connected(provider)
        yield LaunchDarklyWorld(fake, provider, settings)
