"""Told of changes by the database itself, so that another replica's change is not noticed by the next look only.

Being told is a hint to look soon, never the only way to learn of something: a hint may be lost at any time.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import TypeAlias

import asyncpg
import structlog

from controller.store.connections import UNAVAILABLE

CHANNEL = "rampart"
TOPICS = ("kills", "flags", "tokens", "sdk_keys", "plans", "freezes", "kill_addresses")
ANSWER_SECONDS = 5.0
KEEPALIVE_SECONDS = 5.0
RETRY_SECONDS = 1.0

Direct: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_log = structlog.get_logger()


async def listen(
    dsn: str, on_change: Callable[[str], None], chance: Random, *, keepalive_seconds: float = KEEPALIVE_SECONDS
) -> None:
    """Calls `on_change` with a topic, for each that may have changed, until cancelled.

    `dsn` leads to the server itself: a transaction pooler passes nothing on. After every connect each topic may
    have changed. `keepalive_seconds`: how often a silent server is asked whether it is still there.
    """
    heard = True
    while True:
        try:
            connection = await asyncpg.connect(dsn, timeout=ANSWER_SECONDS, statement_cache_size=0)
            try:
                await _follow(connection, on_change, keepalive_seconds)
            finally:
                connection.terminate()
        except UNAVAILABLE as error:
            if heard:
                _log.warning("not_told_of_changes", error=str(error) or type(error).__name__)
            heard = False
        else:
            _log.warning("not_told_of_changes", error="the database closed the connection")
            heard = True
        # All replicas lost it at the same moment; they should not all come back at the same moment.
        await asyncio.sleep(chance.uniform(0, RETRY_SECONDS))


async def _follow(connection: Direct, on_change: Callable[[str], None], keepalive_seconds: float) -> None:
    """Returns when the connection was closed; raises what UNAVAILABLE names when the server does not answer."""
    closed = asyncio.Event()
    connection.add_termination_listener(lambda _: closed.set())
    async with asyncio.timeout(ANSWER_SECONDS):
        await connection.add_listener(CHANNEL, lambda _, __, ___, topic: on_change(str(topic)))
    _log.info("told_of_changes")
    for topic in TOPICS:
        on_change(topic)
    while not await _happens(closed, keepalive_seconds):
        async with asyncio.timeout(ANSWER_SECONDS):
            await connection.execute("SELECT 1")


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
