"""One finding is one `Check`; how they are made, and how none of them waits for ever."""

import asyncio
from collections.abc import Awaitable, Sequence

import structlog

from controller.domain.status import Check

log = structlog.get_logger()

DEADLINE_SECONDS = 8.0
"""For one question to the outside. Three of them may follow one another within a command's patience."""


def fine(name: str, detail: str) -> Check:
    return Check(name=name, state="ok", detail=detail)


def risky(name: str, detail: str, fix: str) -> Check:
    return Check(name=name, state="warn", detail=detail, fix=fix)


def failed(name: str, detail: str, fix: str) -> Check:
    return Check(name=name, state="fail", detail=detail, fix=fix)


async def within_deadline(name: str, checks: Awaitable[Sequence[Check]]) -> Sequence[Check]:
    """What was found, or that nothing was in time."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await checks
    except TimeoutError:
        detail = f"no answer within {DEADLINE_SECONDS:g} s"
        return [
            failed(name, detail, "see whether it is overloaded, or whether a firewall drops what is sent to it")
        ]
    except Exception as error:
        # One look that fails must not hide what the others found.
        log.exception("check_failed", check=name)
        return [
            failed(name, f"looking failed with {type(error).__name__}", "see check_failed in the server's log")
        ]
