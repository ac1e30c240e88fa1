"""What five hundred flags cost of LaunchDarkly's rate limit, counted by its stand-in.

Sweeps come a thousand times as often here as by default; what counts is requests a sweep, and none between.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from controller.domain.flag import FlagKill, FlagState, Observation, SetShare, Unknown
from controller.domain.plan import FlagRef, Serve
from controller.errors import RampartError
from controller.providers.host import Provider
from controller.settings import LaunchDarklyProviderSettings
from tests.contracts.launchdarkly_world import make_settings, started
from tests.support.launchdarkly import PRODUCTION, FakeLaunchDarkly
from tests.support.sdk_door import until

FLAGS = [FlagRef(provider="main", environment=PRODUCTION, key=f"flag-{number}") for number in range(500)]
PAGES = [0, 100, 200, 300, 400]
SERVE = Serve(rollout="on", fallback="off")
BY_DEFAULT = LaunchDarklyProviderSettings(project="shop", api_token_file="token")
SCALE = 1000
Seen = Mapping[FlagRef, Observation]
WINDOW_SECONDS = 1.0


@pytest.fixture
async def fake() -> AsyncIterator[FakeLaunchDarkly]:
    async with FakeLaunchDarkly() as fake:
        for flag in FLAGS:
            fake.create_flag(flag.key)
        yield fake


async def seen(provider: Provider, wanted: Callable[[Seen], bool], *others: FlagRef) -> None:
    """Look at all of them until it is as wanted."""
    async with asyncio.timeout(30):
        while not wanted(await provider.observe([*FLAGS, *others])):  # noqa: ASYNC110 - a look is what moves it on
            await asyncio.sleep(0.01)


async def known(provider: Provider) -> None:
    await seen(provider, lambda look: all(isinstance(one, FlagState) for one in look.values()))


def pages(fake: FakeLaunchDarkly) -> list[int]:
    return [int(one.query.get("offset", 0)) for one in fake.requests.find("list_flags")]


async def test_a_sweep_is_five_requests_and_between_sweeps_there_is_none(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    settings = make_settings(fake, tmp_path, sweep_seconds=BY_DEFAULT.sweep_seconds / SCALE)
    async with started(settings) as provider:
        await known(provider)
        fake.requests.clear()
        looks = 0
        async with asyncio.timeout(60):
            while len(pages(fake)) < 4 * len(PAGES):
                look = await provider.observe(FLAGS)
                assert all(isinstance(one, FlagState) for one in look.values())
                looks += 1
                await asyncio.sleep(0.01)
    assert fake.requests.count() == fake.requests.count("list_flags"), fake.requests.by_route()
    assert pages(fake)[: 4 * len(PAGES)] == PAGES * 4
    assert looks > 4


def test_by_default_that_is_less_than_one_request_a_minute() -> None:
    assert len(PAGES) * 60 / BY_DEFAULT.sweep_seconds <= 1


async def test_the_first_look_at_all_of_them_is_five_requests(fake: FakeLaunchDarkly, tmp_path: Path) -> None:
    async with started(make_settings(fake, tmp_path, poll_seconds=30.0)) as provider:
        await known(provider)
        assert pages(fake) == PAGES
    assert fake.requests.count() == len(PAGES)


async def test_a_change_of_one_flag_is_read_once_and_asked_once_who_made_it(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    async with started(make_settings(fake, tmp_path)) as provider:
        await known(provider)
        fake.requests.clear()
        fake.person("dana").turn_on(FLAGS[7].key)
        await seen(provider, lambda look: changed_by(look[FLAGS[7]]) != "")
        for _ in range(20):
            await provider.observe(FLAGS)
    assert fake.requests.by_route() == {("GET", "get_flag"): 1, ("GET", "audit_log"): 1}


def changed_by(state: Observation) -> str:
    return state.changed_by if isinstance(state, FlagState) and state.enabled else ""


@pytest.mark.parametrize("gone", ["archived", "deleted", "never made"])
async def test_a_flag_that_is_not_there_costs_nothing_while_the_stream_does_not_show_it(
    fake: FakeLaunchDarkly, tmp_path: Path, gone: str
) -> None:
    flag = replace(FLAGS[0], key="never-made") if gone == "never made" else FLAGS[0]
    dana = fake.person("dana")
    async with started(make_settings(fake, tmp_path, poll_seconds=0.05)) as provider:
        await known(provider)
        if gone == "archived":
            dana.archive(flag.key)
        elif gone == "deleted":
            dana.delete(flag.key)
        await seen(provider, lambda look: isinstance(look[flag], Unknown), flag)
        fake.requests.clear()
        for _ in range(50):
            await provider.observe([*FLAGS, flag])
            await asyncio.sleep(0.01)
        assert fake.requests.count() <= 1, "a last look, in case it was only late"
        if gone == "archived":
            dana.restore(flag.key)
        elif gone == "never made":
            fake.create_flag(flag.key)
        else:
            return
        await seen(provider, lambda look: isinstance(look[flag], FlagState), flag)


async def test_many_changes_at_once_are_listed_instead_of_read_one_by_one(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    async with started(make_settings(fake, tmp_path)) as provider:
        await known(provider)
        fake.requests.clear()
        for flag in FLAGS:
            fake.person("dana").turn_on(flag.key)
        await seen(provider, all_on)
        reads = fake.requests.by_route()
    assert reads.get(("GET", "get_flag"), 0) <= len(FLAGS) / 25, reads
    assert reads["GET", "list_flags"] <= len(FLAGS) / 5, reads


def all_on(look: Seen) -> bool:
    return all(isinstance(one, FlagState) and one.enabled for one in look.values())


async def test_without_the_stream_it_is_five_requests_a_poll(fake: FakeLaunchDarkly, tmp_path: Path) -> None:
    async with started(make_settings(fake, tmp_path, poll_seconds=1.0)) as provider:
        await known(provider)
        fake.sdk.down()
        await until(lambda: fake.sdk.connected == 0)
        # Pages that were read at different times must not become out of date one by one.
        fake.faults.slow(0.05, on="list_flags")
        fake.requests.clear()
        began = asyncio.get_running_loop().time()
        while (lasted := asyncio.get_running_loop().time() - began) < 4:
            await provider.observe(FLAGS)
            await asyncio.sleep(0.02)
    polls = int(lasted) + 1
    assert fake.requests.count() == len(pages(fake)) <= polls * len(PAGES), fake.requests.by_route()
    assert pages(fake) == (PAGES * polls)[: len(pages(fake))]


# — rate limits —


async def test_reads_stop_before_a_window_is_spent_and_kills_get_what_is_left(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    """Without the stream looks want five pages a window, of which the reserve leaves four; two kills follow."""
    settings = make_settings(fake, tmp_path, poll_seconds=WINDOW_SECONDS)
    async with started(settings) as provider:
        await known(provider)
        fake.sdk.down()
        fake.limits.account, fake.limits.window_seconds = settings.kill_reserve + 3, WINDOW_SECONDS
        fake.requests.clear()
        async with looking(provider):
            await until(lambda: fake.limits.account_left < settings.kill_reserve)
            for number in range(2):
                await provider.kill(kill_of(FLAGS[number], number))
            assert not any(fake.config(flag.key).on for flag in FLAGS[:2])
            began = fake.ledger.now()
            await until(lambda: fake.ledger.now() - began > 3 * WINDOW_SECONDS)
    assert fake.limits.refused == 0, fake.requests.by_route()
    assert fake.requests.count("list_flags") > len(PAGES)


@asynccontextmanager
async def looking(provider: Provider) -> AsyncIterator[None]:
    """Within it all flags are looked at without end."""

    async def look() -> None:
        while True:
            await provider.observe(FLAGS)
            await asyncio.sleep(0.005)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def kill_of(flag: FlagRef, number: int) -> FlagKill:
    return FlagKill(flag=flag, kill_id=f"kill-{number}", serve=SERVE, comment="Rampart kill")


async def test_in_a_spent_window_a_raise_is_not_sent_and_says_why(fake: FakeLaunchDarkly, tmp_path: Path) -> None:
    async with started(make_settings(fake, tmp_path)) as provider:
        await known(provider)
        fake.limits.account, fake.limits.window_seconds = 6, 30.0
        raising = SetShare(
            flag=FLAGS[0], serve=SERVE, exposure=1_000, audience=(), bucket_by="user", comment="Rampart"
        )
        await provider.apply(raising)
        with pytest.raises(RampartError, match="kept for kills"):
            await provider.apply(raising)
        before = fake.requests.count()
        await provider.kill(kill_of(FLAGS[0], 1))
    assert fake.requests.count() > before
    assert fake.limits.refused == 0


@pytest.mark.parametrize("reset_in_seconds", [None, 1.0, -60.0])
async def test_after_a_refusal_nothing_is_asked_until_the_window_is_over(
    fake: FakeLaunchDarkly, tmp_path: Path, reset_in_seconds: float | None
) -> None:
    """With and without headers, and with an end of the window that is past."""
    settings = make_settings(fake, tmp_path, poll_seconds=0.01, throttled_seconds=1.0)
    async with started(settings) as provider:
        await known(provider)
        fake.sdk.down()
        await until(lambda: fake.sdk.connected == 0)
        fake.faults.rate_limited(times=1, reset_in_seconds=reset_in_seconds)
        fake.requests.clear()
        async with looking(provider):
            await until(lambda: fake.requests.count() > 1)
    refused, following = fake.requests.all[:2]
    assert (refused.status, following.status) == (429, 200)
    assert following.at - refused.at >= 0.9


async def test_a_limit_of_one_route_leaves_the_others_alone(fake: FakeLaunchDarkly, tmp_path: Path) -> None:
    async with started(make_settings(fake, tmp_path, poll_seconds=0.01)) as provider:
        await known(provider)
        fake.limits.routes, fake.limits.window_seconds = {"list_flags": 7}, 30.0
        fake.sdk.down()
        async with looking(provider):
            await until(lambda: fake.requests.count("list_flags") > len(PAGES))
            fake.requests.clear()
            await provider.kill(kill_of(FLAGS[0], 1))
    assert fake.limits.refused == 0
    assert Counter(one.status for one in fake.requests.find("writes")) == {200: fake.requests.writes}
