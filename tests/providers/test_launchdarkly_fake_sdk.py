"""The real Python SDK follows the stand-in for LaunchDarkly, as it would follow LaunchDarkly."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import aiohttp
import pytest

from tests.support.launchdarkly import PRODUCTION, SDK_KEYS, STAGING, FakeLaunchDarkly, Person
from tests.support.launchdarkly.sdk_client import App, sdk_app
from tests.support.sdk_door import until

FLAG = "checkout-v2"


@pytest.fixture
async def fake() -> AsyncIterator[FakeLaunchDarkly]:
    async with FakeLaunchDarkly() as fake:
        fake.create_flag(FLAG)
        yield fake


@pytest.fixture
def dana(fake: FakeLaunchDarkly) -> Person:
    return fake.person("dana")


@pytest.fixture
async def app(fake: FakeLaunchDarkly) -> AsyncIterator[App]:
    async with sdk_app(fake) as app:
        assert app.client.is_initialized()
        yield app


async def test_it_serves_the_share_that_was_set_and_a_larger_one_keeps_everybody(app: App, dana: Person) -> None:
    dana.share(FLAG, 0)
    dana.turn_on(FLAG)
    seen: list[set[str]] = []
    for exposure, likely in ((10_000, range(60, 141)), (50_000, range(430, 571)), (100_000, range(1000, 1001))):
        dana.share(FLAG, exposure)
        await until(partial(shows, app, likely))
        seen.append(app.exposed(FLAG))
    assert seen[0] < seen[1] < seen[2]


def shows(app: App, likely: range) -> bool:
    return len(app.exposed(FLAG)) in likely


async def test_the_other_order_of_variations_is_the_same_share_of_other_users(app: App, dana: Person) -> None:
    dana.turn_on(FLAG)
    dana.share(FLAG, 10_000)
    await until(lambda: len(app.exposed(FLAG)) < 200)
    before = app.exposed(FLAG)
    dana.swap_order(FLAG)
    await until(lambda: app.exposed(FLAG) != before)
    assert not before & app.exposed(FLAG)


async def test_staff_rules_and_targets_come_before_the_share(app: App, dana: Person) -> None:
    dana.turn_on(FLAG)
    dana.share(FLAG, 0)
    dana.add_rule(FLAG, "on", "email", "@acme.example", op="endsWith")
    dana.add_targets(FLAG, "on", "qa-1")
    dana.add_targets(FLAG, "on", "phone-1", kind="device")
    await until(lambda: app.value(FLAG, "qa-1") is True)
    assert app.value(FLAG, "kim", email="kim@acme.example") is True
    assert app.value(FLAG, "eve", email="eve@acme.example.evil") is False


async def test_a_kill_reaches_everybody_whatever_the_rules_say(app: App, dana: Person) -> None:
    dana.turn_on(FLAG)
    dana.add_targets(FLAG, "on", "qa-1")
    await until(lambda: app.value(FLAG, "qa-1") is True)
    dana.turn_off(FLAG)
    await until(lambda: app.value(FLAG, "qa-1") is False)
    assert app.exposed(FLAG) == set()


async def test_a_prerequisite_holds_it_back(fake: FakeLaunchDarkly, app: App, dana: Person) -> None:
    fake.create_flag("payments")
    dana.patch(
        FLAG,
        {"kind": "addPrerequisite", "key": "payments", "variationId": fake.flag("payments").variations[0]["_id"]},
    )
    dana.turn_on(FLAG)
    dana.turn_on("payments")
    await until(lambda: app.value(FLAG) is True)
    dana.turn_off("payments")
    await until(lambda: app.value(FLAG) is False)


async def test_of_a_release_of_its_own_the_measured_share_gets_the_target(app: App, dana: Person) -> None:
    dana.start_release(FLAG, on_default_rule=True, allocation=20_000)
    await until(lambda: 100 < len(app.exposed(FLAG)) < 300)


async def test_an_archived_or_deleted_flag_is_unknown_to_applications(
    fake: FakeLaunchDarkly, app: App, dana: Person
) -> None:
    await until(lambda: app.value(FLAG) is False)
    dana.archive(FLAG)
    await until(lambda: app.value(FLAG) == "default")
    dana.restore(FLAG)
    await until(lambda: app.value(FLAG) is False)
    dana.delete(FLAG)
    await until(lambda: app.value(FLAG) == "default")
    assert FLAG not in fake.ledger.project("shop").flags


async def test_an_environment_sees_its_own_changes_only(fake: FakeLaunchDarkly, app: App) -> None:
    async with sdk_app(fake, SDK_KEYS[STAGING]) as staging:
        fake.person("dana", environment=STAGING).turn_on(FLAG)
        await until(lambda: staging.value(FLAG) is True)
    assert app.value(FLAG) is False
    assert fake.config(FLAG).version == 1


async def test_a_stream_that_is_down_leaves_the_last_value_and_comes_back(
    fake: FakeLaunchDarkly, app: App, dana: Person
) -> None:
    fake.sdk.down()
    await until(lambda: fake.sdk.connected == 0)
    dana.turn_on(FLAG)
    await until(lambda: len(fake.sdk.connects) > 1)
    assert app.value(FLAG) is False
    fake.sdk.up()
    await until(lambda: app.value(FLAG) is True)


async def test_a_frozen_stream_stays_open_and_tells_nothing(
    fake: FakeLaunchDarkly, app: App, dana: Person
) -> None:
    fake.sdk.freeze()
    dana.turn_on(FLAG)
    async with sdk_app(fake, wait_seconds=0.2) as late:
        assert not late.client.is_initialized()
    assert (app.value(FLAG), fake.sdk.connected > 0) == (False, True)
    fake.sdk.thaw()
    await until(lambda: app.value(FLAG) is True)


async def test_a_change_can_be_late(fake: FakeLaunchDarkly, app: App, dana: Person) -> None:
    fake.sdk.lag_seconds = 0.3
    started = asyncio.get_running_loop().time()
    dana.turn_on(FLAG)
    await until(lambda: app.value(FLAG) is True)
    assert asyncio.get_running_loop().time() - started >= 0.3


async def test_a_key_that_is_unknown_is_turned_away(fake: FakeLaunchDarkly) -> None:
    async with sdk_app(fake, "sdk-unknown", wait_seconds=0.5) as app:
        assert not app.client.is_initialized()
    assert fake.sdk.connected == 0


async def test_events_arrive_with_their_headers(fake: FakeLaunchDarkly) -> None:
    async with sdk_app(fake, send_events=True) as app:
        app.value(FLAG, "user-7")
        app.client.flush()
        await until(lambda: any(event["kind"] == "summary" for event in fake.sdk.events))
    delivery = next(one for one in fake.sdk.deliveries if one.path == "/bulk")
    assert delivery.headers["Authorization"] == SDK_KEYS[PRODUCTION]
    assert "X-LaunchDarkly-Payload-ID" in delivery.headers


async def test_the_same_can_be_polled_and_an_unchanged_answer_is_short(
    fake: FakeLaunchDarkly, dana: Person
) -> None:
    headers = {"Authorization": SDK_KEYS[PRODUCTION]}
    async with aiohttp.ClientSession(fake.polling_uri) as session:
        async with session.get("/sdk/latest-all", headers=headers) as answer:
            assert set((await answer.json())["flags"]) == {FLAG}
            headers["If-None-Match"] = answer.headers["ETag"]
        for expected in (304, 200):
            async with session.get("/sdk/latest-all", headers=headers) as answer:
                assert answer.status == expected
            dana.turn_on(FLAG)
