"""In front of LaunchDarkly: real SDKs get its flags and kills from us, and what was known while it is away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.front import (
    CLIENT_SIDE_ID,
    ENVIRONMENT,
    MOBILE_KEY,
    FrontDoors,
    in_front_of,
    running_front,
    settings_of,
)
from tests.support.launchdarkly import PRODUCTION, SDK_KEYS, FakeLaunchDarkly
from tests.support.sdk_door import until, user

KEY = SDK_KEYS[PRODUCTION]
FLAG = "checkout"


@pytest.fixture
async def fake() -> AsyncIterator[FakeLaunchDarkly]:
    """With one flag, on for half of all users."""
    async with FakeLaunchDarkly() as fake:
        fake.create_flag(FLAG)
        dana = fake.person("dana")
        dana.share(FLAG, 100_000)
        dana.turn_on(FLAG)
        yield fake


async def known(door: FrontDoors) -> None:
    await until(lambda: door.board.knows(ENVIRONMENT))


async def serves(client: Any, value: bool, key: str = FLAG) -> None:
    await until(lambda: client.variation(key, user("ana"), None) is value)


# — flags —


async def test_an_sdk_with_its_own_key_gets_flags_changes_and_deletions(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    async with in_front_of(fake, tmp_path) as door, door.client(KEY) as client:
        await serves(client, True)
        fake.person("dana").turn_off(FLAG)
        await serves(client, False)
        fake.create_flag("search")
        await until(lambda: client.variation("search", user("ana"), "none") is False)
        fake.person("dana").archive("search")
        await until(lambda: client.variation("search", user("ana"), "none") == "none")


async def test_versions_are_those_of_the_other_side_while_nothing_is_killed(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    async with in_front_of(fake, tmp_path) as door:
        await known(door)
        fake.person("dana").share(FLAG, 10_000)
        await until(lambda: door.shown(FLAG)["version"] == fake.config(FLAG).version)


async def test_a_browser_and_an_app_get_what_segments_say(fake: FakeLaunchDarkly, tmp_path: Path) -> None:
    fake.create_flag("beta")
    dana = fake.person("dana")
    dana.patch("beta", {"kind": "turnOnClientSideAvailability", "value": "usingEnvironmentId"})
    dana.patch("beta", {"kind": "turnOnClientSideAvailability", "value": "usingMobileKey"})
    dana.serve("beta", "off")
    dana.add_rule("beta", "on", "", "testers", op="segmentMatch")
    dana.turn_on("beta")
    fake.environment().segments["testers"] = {"key": "testers", "version": 1, "included": ["ana"], "salt": "s"}
    async with in_front_of(fake, tmp_path) as door, aiohttp.ClientSession() as session:
        await known(door)

        async def asked(path: str, headers: dict[str, str] | None = None) -> Any:
            context = {"kind": "user", "key": "ana"}
            async with session.request("REPORT", door.url + path, json=context, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                return (await answer.json())["beta"]["value"]

        assert await asked(f"/sdk/evalx/{CLIENT_SIDE_ID}/context") is True
        assert await asked("/msdk/evalx/context", {"Authorization": MOBILE_KEY}) is True
        fake.environment().segments["testers"] = {"key": "testers", "version": 2, "included": [], "salt": "s"}
        fake.sdk.cut()
        await until(lambda: door.board.segments(ENVIRONMENT)["testers"]["version"] == 2)
        assert await asked(f"/sdk/evalx/{CLIENT_SIDE_ID}/context") is False


async def test_nobody_is_told_that_flags_or_keys_do_not_exist_before_they_came(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    fake.sdk.down()
    async with in_front_of(fake, tmp_path) as door, aiohttp.ClientSession() as session:
        async with session.get(f"{door.url}/all", headers={"Authorization": KEY}) as answer:
            assert answer.status == 503
        async with session.get(f"{door.url}/all", headers={"Authorization": "sdk-unknown"}) as answer:
            assert answer.status == 401
        fake.sdk.up()
        await known(door)
        async with session.get(f"{door.url}/sdk/latest-all", headers={"Authorization": KEY}) as answer:
            assert list((await answer.json())["flags"]) == [FLAG]


# — kills —


async def test_a_kill_reaches_sdks_though_launchdarkly_has_not_heard_of_it(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    async with in_front_of(fake, tmp_path) as door, door.client(KEY) as client:
        await serves(client, True)
        assert door.kill(FLAG) == ("eu-1",)
        await serves(client, False)
        assert fake.config(FLAG).on
        assert door.series("overlaid_flags") == 1


async def test_the_overlay_is_gone_when_launchdarkly_shows_the_kill(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    async with in_front_of(fake, tmp_path) as door, door.client(KEY) as client:
        await serves(client, True)
        door.kill(FLAG)
        fake.person("rampart").turn_off(FLAG)
        await until(lambda: door.series("overlaid_flags") == 0)
        await serves(client, False)


async def test_after_a_reset_people_raise_at_launchdarkly_and_sdks_follow(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    async with in_front_of(fake, tmp_path) as door, door.client(KEY) as client:
        await serves(client, True)
        door.kill(FLAG)
        fake.person("rampart").turn_off(FLAG)
        await until(lambda: door.series("overlaid_flags") == 0)
        door.reset(FLAG)
        await serves(client, False)
        fake.person("dana").turn_on(FLAG)
        await serves(client, True)


async def test_a_flag_whose_stream_hung_while_it_was_killed_and_reset_does_not_come_back(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    async with in_front_of(fake, tmp_path) as door, door.client(KEY) as client:
        await serves(client, True)
        seen = []
        client.flag_tracker.add_listener(lambda _: seen.append(client.variation(FLAG, user("ana"), None)))
        door.kill(FLAG)
        await serves(client, False)
        fake.sdk.freeze()
        fake.person("rampart").turn_off(FLAG)
        connects = len(fake.sdk.connects)
        door.reset(FLAG)
        await until(lambda: len(fake.sdk.connects) > connects)
        fake.sdk.thaw()
        await until(lambda: door.series("overlaid_flags") == 0)
        assert door.shown(FLAG)["version"] >= fake.config(FLAG).version
        assert True not in seen


# — LaunchDarkly away, Rampart started again —


async def test_a_start_without_launchdarkly_serves_what_was_known(fake: FakeLaunchDarkly, tmp_path: Path) -> None:
    async with in_front_of(fake, tmp_path) as door:
        await known(door)
    fake.sdk.down()
    async with in_front_of(fake, tmp_path) as door, door.client(KEY) as client:
        await serves(client, True)
        assert door.series("connected") == 0
        door.kill(FLAG)
        await serves(client, False)
        fake.sdk.up()
        fake.person("rampart").turn_off(FLAG)
        await until(lambda: door.series("overlaid_flags") == 0)
        assert door.series("connected") == 1


async def test_a_flag_that_was_killed_and_reset_stays_off_over_a_restart_without_launchdarkly(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    async with in_front_of(fake, tmp_path) as door:
        await known(door)
        fake.sdk.down()
        door.kill(FLAG)
        door.reset(FLAG)
        await door.front.save()
    async with in_front_of(fake, tmp_path) as door, door.client(KEY) as client:
        assert client.variation(FLAG, user("ana"), None) is False


async def test_what_was_kept_of_another_environment_is_not_served(fake: FakeLaunchDarkly, tmp_path: Path) -> None:
    async with in_front_of(fake, tmp_path) as door:
        await known(door)
        await until((tmp_path / "front" / "ld" / "production.json").exists)
    fake.sdk.down()
    fake.environment().sdk_key = SDK_KEYS[PRODUCTION] = KEY + "-another"
    try:
        async with in_front_of(fake, tmp_path) as door:
            assert not door.board.knows(ENVIRONMENT)
    finally:
        SDK_KEYS[PRODUCTION] = KEY


async def test_a_file_that_cannot_be_read_is_none(fake: FakeLaunchDarkly, tmp_path: Path) -> None:
    path = tmp_path / "front" / "ld" / "production.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"origin": "half')
    async with in_front_of(fake, tmp_path) as door:
        await known(door)


async def test_no_key_of_an_application_is_on_disk_or_among_our_own(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    async with in_front_of(fake, tmp_path) as door:
        await known(door)
        await until((tmp_path / "front" / "ld" / "production.json").exists)
        kept = b"".join(path.read_bytes() for path in (tmp_path / "front").rglob("*.json"))
        assert KEY.encode() not in kept
        assert MOBILE_KEY.encode() not in kept
        assert not [key for key in door.keys.all() if key.environment == ENVIRONMENT]


# — events —


async def test_events_of_an_sdk_arrive_at_launchdarkly_as_they_were_sent(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    async with in_front_of(fake, tmp_path) as door:
        async with door.client(KEY, send_events=True, diagnostic_opt_out=False) as client:
            await serves(client, True)
            client.track("bought", user("ana"), None, 12.5)
            client.flush()
            await until(lambda: any(one["kind"] == "custom" for one in fake.sdk.events))
        await until(lambda: door.series("event_deliveries_total", result="forwarded"))
    paths = {one.path for one in fake.sdk.deliveries}
    assert paths == {"/bulk", "/diagnostic"}
    sent = next(one.headers for one in fake.sdk.deliveries if one.path == "/bulk")
    headers = {name.lower(): value for name, value in sent.items()}
    assert headers["authorization"] == KEY
    assert headers["x-launchdarkly-event-schema"]
    assert headers["x-launchdarkly-payload-id"]
    assert "PythonClient" in headers["user-agent"]


async def posted(door: FrontDoors, body: Any) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{door.url}/bulk", json=body, headers={"Authorization": KEY}) as answer,
    ):
        return answer.status


async def test_an_application_does_not_notice_that_events_find_nobody(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    fake.sdk.events_status = 503
    async with in_front_of(fake, tmp_path) as door:
        await known(door)
        assert await posted(door, []) == 202
        await until(lambda: door.series("event_deliveries_total", result="failed") == 1)
        fake.sdk.events_status = 400
        assert await posted(door, []) == 202
        await until(lambda: door.series("event_deliveries_total", result="refused") == 1)
    assert not fake.sdk.deliveries


class Recorder:
    """Takes events at any path. The first answers are those of `statuses`."""

    def __init__(self, *statuses: int) -> None:
        self.arrived: list[tuple[str, str | None, bytes]] = []
        self._statuses = list(statuses)

    async def take(self, request: web.Request) -> web.Response:
        self.arrived.append((request.path, request.headers.get("Authorization"), await request.read()))
        return web.Response(status=self._statuses.pop(0) if self._statuses else 202)


@asynccontextmanager
async def recording_behind(
    fake: FakeLaunchDarkly, folder: Path, *statuses: int
) -> AsyncIterator[tuple[FrontDoors, Recorder]]:
    recorder, app = Recorder(*statuses), web.Application()
    app.router.add_post("/{path:.*}", recorder.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    events_uri = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with running_front(settings_of(folder, stream_uri=fake.stream_uri, events_uri=events_uri)) as door:
        await known(door)
        yield door, recorder
    await runner.cleanup()


async def test_events_of_browsers_and_apps_go_where_they_were_sent_to(
    fake: FakeLaunchDarkly, tmp_path: Path
) -> None:
    async with recording_behind(fake, tmp_path) as (door, recorder), aiohttp.ClientSession() as session:
        await session.post(f"{door.url}/events/bulk/{CLIENT_SIDE_ID}", data=b"[1]")
        await session.post(f"{door.url}/mobile", data=b"[2]", headers={"Authorization": MOBILE_KEY})
        await until(lambda: len(recorder.arrived) == 2)
    browser, app = sorted(recorder.arrived)
    assert browser == (f"/events/bulk/{CLIENT_SIDE_ID}", None, b"[1]")
    assert app == ("/mobile", MOBILE_KEY, b"[2]")


async def test_a_delivery_that_found_nobody_is_tried_once_more(fake: FakeLaunchDarkly, tmp_path: Path) -> None:
    async with recording_behind(fake, tmp_path, 503) as (door, recorder):
        assert await posted(door, []) == 202
        await until(lambda: door.series("event_deliveries_total", result="forwarded") == 1)
        assert [body for _, _, body in recorder.arrived] == [b"[]", b"[]"]


async def test_events_beyond_what_is_kept_are_dropped_and_counted(
    fake: FakeLaunchDarkly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.delivery.forwarding.MAX_WAITING_BYTES", 10)
    async with in_front_of(fake, tmp_path) as door:
        await known(door)
        assert await posted(door, [{"kind": "custom", "key": "too long for the room there is"}]) == 202
        assert door.series("event_deliveries_total", result="dropped") == 1
    assert not fake.sdk.deliveries
