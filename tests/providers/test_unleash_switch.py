"""Flags that are killed together go off together, and what is wrong with one is not the others' fault."""

import asyncio
from collections.abc import Sequence

import pytest

from controller.errors import NotFound, ProviderUnavailable
from controller.providers.unleash.switch import MOST_AT_ONCE, Switch


class Server:
    """Turns off all that it is asked for at once, or nothing when it does not know one of them."""

    def __init__(self, *known: str) -> None:
        self.known = set(known)
        self.off: set[str] = set()
        self.requests: list[tuple[str, tuple[str, ...]]] = []
        self.away = False

    async def turn_off(self, environment: str, keys: Sequence[str]) -> None:
        self.requests.append((environment, tuple(keys)))
        if self.away:
            raise ProviderUnavailable("no answer")
        if unknown := set(keys) - self.known:
            raise NotFound(f"no flag {sorted(unknown)}")
        self.off |= set(keys)


async def test_flags_killed_at_the_same_time_go_in_one_request_for_each_environment() -> None:
    server = Server("a", "b", "c")
    switch = Switch(server.turn_off)
    await asyncio.gather(*(switch.off("production", key) for key in "abca"), switch.off("staging", "a"))
    assert sorted(server.requests) == [("production", ("a", "b", "c")), ("staging", ("a",))]
    await switch.off("production", "a")
    assert server.requests[-1] == ("production", ("a",)), "a later kill is a request of its own"


async def test_a_flag_that_is_not_there_keeps_no_other_one_on() -> None:
    server = Server("a", "b")
    switch = Switch(server.turn_off)
    results = await asyncio.gather(*(switch.off("production", key) for key in "axb"), return_exceptions=True)
    assert server.off == {"a", "b"}
    assert [type(one) for one in results] == [type(None), NotFound, type(None)]


async def test_while_nobody_answers_each_is_told_so_after_one_request() -> None:
    server = Server("a", "b")
    server.away = True
    switch = Switch(server.turn_off)
    results = await asyncio.gather(*(switch.off("production", key) for key in "ab"), return_exceptions=True)
    assert all(isinstance(one, ProviderUnavailable) for one in results)
    assert len(server.requests) == 1


async def test_a_kill_that_gives_up_takes_no_other_along() -> None:
    server = Server("a", "b")
    switch = Switch(server.turn_off)
    patient = asyncio.create_task(switch.off("production", "a"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await switch.off("production", "b")
    await patient
    assert "a" in server.off


async def test_very_many_flags_go_in_several_requests() -> None:
    keys = [f"flag-{number}" for number in range(MOST_AT_ONCE + 10)]
    server = Server(*keys)
    switch = Switch(server.turn_off)
    await asyncio.gather(*(switch.off("production", key) for key in keys))
    assert server.off == set(keys)
    assert max(len(asked) for _, asked in server.requests) <= MOST_AT_ONCE
