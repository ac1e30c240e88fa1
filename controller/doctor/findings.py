"""One finding is one `Check`; how they are made, and how none of them waits for ever."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from controller.domain.status import Check

log = structlog.get_logger()
T = TypeVar("T")

DEADLINE_SECONDS = 8.0
"""For one question to the outside. Three of them may follow one another within a command's patience."""


def fine(name: str, detail: str) -> Check:
    return Check(name=name, state="ok", detail=detail)


def risky(name: str, detail: str, fix: str) -> Check:
    return Check(name=name, state="warn", detail=detail, fix=fix)


def failed(name: str, detail: str, fix: str) -> Check:
    return Check(name=name, state="fail", detail=detail, fix=fix)


async def answer_or(name: str, asked: Awaitable[T], otherwise: Callable[[str], T]) -> T:
    """The answer, or what `otherwise` makes of the reason why there is none: nobody is waited for without end."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await asked
    except TimeoutError:
        return otherwise(f"no answer within {DEADLINE_SECONDS:g} s")
    except Exception as error:
        # One look that fails must not hide what the others found.
        log.exception("check_failed", check=name)
        return otherwise(f"asking it failed with {type(error).__name__}; see check_failed in the server's log")


async def within_deadline(name: str, checks: Awaitable[Sequence[Check]]) -> Sequence[Check]:
    """What was found, or that nothing was in time."""
    fix = "see whether it is overloaded, and whether what is sent to it arrives"
    return await answer_or(name, checks, lambda why: [failed(name, why, fix)])
