"""The real server-side SDK, connected to the stand-in as an application would be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import ldclient
from ldclient.config import Config

from tests.support.launchdarkly.server import PRODUCTION, SDK_KEYS, FakeLaunchDarkly


class App:
    """An application with the SDK."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def value(self, flag: str, user: str = "user-1", default: Any = "default", **attributes: Any) -> Any:
        builder = ldclient.Context.builder(user)
        for name, value in attributes.items():
            builder.set(name, value)
        return self.client.variation(flag, builder.build(), default)

    def exposed(self, flag: str, users: int = 1000) -> set[str]:
        """Those of so many users who get the truth."""
        return {user for user in (f"user-{number}" for number in range(users)) if self.value(flag, user) is True}


@asynccontextmanager
async def sdk_app(
    fake: FakeLaunchDarkly, key: str = SDK_KEYS[PRODUCTION], *, wait_seconds: float = 5.0, **options: Any
) -> AsyncIterator[App]:
    """It may be uninitialised after `wait_seconds`. `options` are those of the SDK."""
    config = Config(
        **{
            "sdk_key": key,
            "base_uri": fake.polling_uri,
            "stream_uri": fake.stream_uri,
            "events_uri": fake.events_uri,
            "initial_reconnect_delay": 0.05,
            "send_events": False,
            "diagnostic_opt_out": True,
            **options,
        }
    )
    client = await asyncio.to_thread(ldclient.LDClient, config, wait_seconds)
    try:
        yield App(client)
    finally:
        await asyncio.to_thread(client.close)
