"""What `make test-launchdarkly` drives a live account with, driven against the stand-in."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contracts.provider_cases import KILL, attempt, canary, off, pressed_on, seen, share, unknown, written
from tests.contracts.provider_edits import SEEN_EDITS, shows
from tests.contracts.provider_world import FLAG, Edit, Fault
from tests.live.launchdarkly_world import TAG, Account, LiveWorld, live_world
from tests.support.launchdarkly import PROJECT, SDK_KEYS, STAGING, WRITE_TOKEN, FakeLaunchDarkly
from tests.support.repository import ROOT


def account(fake: FakeLaunchDarkly) -> Account:
    return Account(WRITE_TOKEN, PROJECT, STAGING, SDK_KEYS[STAGING], fake.base_uri, fake.stream_uri)


@pytest.fixture
async def fake() -> AsyncIterator[FakeLaunchDarkly]:
    async with FakeLaunchDarkly() as fake:
        fake.create_flag(FLAG.key, tags=(TAG,))
        yield fake


@pytest.fixture
async def world(fake: FakeLaunchDarkly, tmp_path: Path) -> AsyncIterator[LiveWorld]:
    async with live_world(account(fake), tmp_path, throttled_seconds=0.3) as world:
        yield world


async def test_it_changes_the_given_environment_alone(world: LiveWorld, fake: FakeLaunchDarkly) -> None:
    before = fake.config(FLAG.key)
    await canary(world)
    assert fake.config(FLAG.key, STAGING).on
    await pressed_on(world)
    assert not fake.config(FLAG.key, STAGING).on
    assert fake.config(FLAG.key) == before


async def test_the_flag_is_put_back_whatever_was_done_to_it(
    world: LiveWorld, fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    for edit in SEEN_EDITS:
        before = await canary(world)
        await world.edit(edit)
        await seen(world, lambda one: shows(edit, before, one))  # noqa: B023
    await world.edit(Edit.ARCHIVED)
    await unknown(world)
    async with live_world(account(fake), tmp_path) as again:
        state = await seen(again)
        assert (off(state), state.foreign) == (True, ())


async def test_faults_and_held_writes_are_those_of_its_rest_api(world: LiveWorld) -> None:
    await canary(world)
    for fault in (Fault.AWAY, Fault.THROTTLED_UNTIL, Fault.CONFLICT):
        async with world.fault(fault):
            assert await attempt(world, share(10_000)) != "done"
    await written(world, share(1_000))
    async with world.held_write() as held:
        raising = asyncio.create_task(attempt(world, share(100_000)))
        await held.reached.wait()
        await world.provider.kill(KILL)
        held.let_go.set()
        await raising
    assert off(await pressed_on(world))


async def test_a_flag_that_was_not_given_to_it_is_left_alone(fake: FakeLaunchDarkly, tmp_path: Path) -> None:
    fake.flag(FLAG.key).tags = ["shop"]
    with pytest.raises(AssertionError, match="lacks the tag rampart-contract"):
        async with live_world(account(fake), tmp_path):
            raise AssertionError("nobody comes here")
    assert fake.requests.writes == 0


def test_without_an_account_one_sentence_says_what_is_missing() -> None:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("RAMPART_TEST_LD")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/live/launchdarkly.py"]
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    (sentence,) = [line for line in ended.stdout.splitlines() if "needs a LaunchDarkly account" in line]
    assert "RAMPART_TEST_LD_API_TOKEN, RAMPART_TEST_LD_PROJECT" in sentence
