"""Telling other replicas over HTTP: at once, all of them, whatever one of them or the name service does."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest
import structlog
from aiohttp import web

from controller import peers
from controller.domain.catalogue import Kill, KillRecord, PeerAnswer
from controller.domain.plan import FlagRef
from controller.errors import SettingsError
from controller.peers import HttpPeers
from controller.settings import PeersSettings
from controller.telemetry import Metrics
from tests.support.server import free_port

SECRET = "of-all-replicas-0123456789"
START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
FLAG = FlagRef(provider="main", environment="production", key="checkout-v2")
DEADLINE_SECONDS = 10.0


def record(kill_id: str = "kill-1", **changed: Any) -> KillRecord:
    kill = Kill(id=kill_id, flag=FLAG, accepted_at=START, actor="dana", reason="INC-1")
    return KillRecord(kill=msgspec.structs.replace(kill, **changed))


class Peer:
    """Another replica as far as the wire goes. `reply` may be replaced by something worse."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[str] = []
        self.messages = 0
        self.secrets: set[str] = set()
        self.connections: set[Any] = set()
        self.reply: Callable[[web.Request, list[str]], Awaitable[web.StreamResponse]] = self.agree
        self.url = ""
        self._runner = web.AppRunner(self._application(), keepalive_timeout=5.0, shutdown_timeout=0.1)

    async def __aenter__(self) -> "Peer":
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_post(peers.ROUTE, self._hear)
        return application

    async def _hear(self, request: web.Request) -> web.StreamResponse:
        self.secrets.add(request.headers["Authorization"].removeprefix("Bearer "))
        self.connections.add(request.transport)
        ids = [one["kill"]["id"] for one in (await request.json())["kills"]]
        self.messages += 1
        return await self.reply(request, ids)

    async def agree(self, _: web.Request, ids: list[str]) -> web.StreamResponse:
        self.heard += ids
        return web.Response(body=msgspec.json.encode(PeerAnswer(replica=self.name, holds=tuple(ids))))

    async def hang(self, _: web.Request, __: list[str]) -> web.StreamResponse:
        await asyncio.sleep(DEADLINE_SECONDS)
        return web.Response()


@pytest.fixture
async def web_2() -> AsyncIterator[Peer]:
    async with Peer("web-2") as peer:
        yield peer


@pytest.fixture
async def web_3() -> AsyncIterator[Peer]:
    async with Peer("web-3") as peer:
        yield peer


Teller = Callable[..., HttpPeers]


@pytest.fixture
async def teller(tmp_path: Path) -> AsyncIterator[Teller]:
    """`teller(url, …)`: the peers of web-1, closed at the end."""
    opened: list[HttpPeers] = []
    (tmp_path / "secret").write_text(SECRET + "\n")

    def make(*urls: str, metrics: Metrics | None = None, **settings: Any) -> HttpPeers:
        chosen = PeersSettings(urls=list(urls), secret_file=str(tmp_path / "secret"), **settings)
        opened.append(HttpPeers(chosen, own="web-1", metrics=metrics or Metrics()))
        return opened[-1]

    yield make
    for one in opened:
        await one.close()


async def told(one: HttpPeers, *kills: KillRecord) -> list[str]:
    return [answer.replica async for answer in one.tell(kills or [record()])]


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = monotonic() + DEADLINE_SECONDS
    while not condition():
        assert monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.01)


async def test_every_replica_is_told_with_the_secret_and_answers(teller: Teller, web_2: Peer, web_3: Peer) -> None:
    assert sorted(await told(teller(web_2.url, web_3.url + "/"))) == ["web-2", "web-3"]
    assert web_2.heard == web_3.heard == ["kill-1"]
    assert web_2.secrets == {SECRET}


async def test_one_that_hangs_delays_the_answer_of_no_other(teller: Teller, web_2: Peer, web_3: Peer) -> None:
    web_2.reply = web_2.hang
    answers = teller(web_2.url, web_3.url, timeout_seconds=DEADLINE_SECONDS).tell([record()])
    async with asyncio.timeout(DEADLINE_SECONDS / 2):
        assert (await anext(answers)).replica == "web-3"


async def test_whoever_does_not_answer_in_time_is_missing(teller: Teller, web_2: Peer, web_3: Peer) -> None:
    web_2.reply = web_2.hang
    one = teller(web_2.url, web_3.url, timeout_seconds=0.2)
    assert await told(one) == ["web-3"]
    silent = next(seen for seen in one.sightings() if seen.address == web_2.url)
    assert silent.problem == "no answer within 0.2 s"


async def test_a_replica_does_not_count_itself_and_stops_telling_itself(teller: Teller, web_2: Peer) -> None:
    web_2.name = "web-1"
    one = teller(web_2.url)
    assert await told(one) == []
    assert await told(one) == []
    assert web_2.messages == 1
    assert one.sightings() == []


async def test_greetings_keep_a_connection_open_that_a_kill_then_takes(
    teller: Teller, web_2: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "GREET_SECONDS", 0.05)
    one = teller(web_2.url)
    one.start()
    await until(lambda: web_2.messages >= 3, "three greetings")
    assert await told(one) == ["web-2"]
    assert web_2.heard == ["kill-1"]
    assert len(web_2.connections) == 1


async def test_a_connection_that_the_other_side_closed_is_no_reason_to_miss_a_kill(
    teller: Teller, web_2: Peer
) -> None:
    one = teller(web_2.url)

    async def break_off(request: web.Request, _: list[str]) -> web.StreamResponse:
        assert request.transport is not None
        web_2.reply = web_2.agree
        request.transport.abort()
        return web.Response()

    assert await told(one) == ["web-2"]
    web_2.reply = break_off
    assert await told(one, record("kill-2")) == ["web-2"]
    assert web_2.heard == ["kill-1", "kill-2"]


async def redirect(_: web.Request, __: list[str]) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect("/elsewhere")


async def refuse(_: web.Request, __: list[str]) -> web.StreamResponse:
    raise web.HTTPUnauthorized


async def garble(_: web.Request, __: list[str]) -> web.StreamResponse:
    return web.Response(body=b'{"replica": 7}')


async def flood(request: web.Request, _: list[str]) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 65536)


@pytest.mark.parametrize(
    ("reply", "result", "problem"),
    [
        (redirect, "refused", "answers 307: it is not a replica, or too busy"),
        (refuse, "refused", "answers 401: it has another secret"),
        (garble, "garbled", "answers as no replica does (ValidationError)"),
        (flood, "garbled", "answers with more than any replica would"),
    ],
)
async def test_what_is_no_answer_of_a_replica_is_told_and_counted(
    teller: Teller, web_2: Peer, reply: Any, result: str, problem: str
) -> None:
    metrics = Metrics()
    one = teller(web_2.url, metrics=metrics)
    web_2.reply = reply
    assert await told(one) == []
    assert [seen.problem for seen in one.sightings()] == [problem]
    assert f'rampart_peer_requests_total{{result="{result}"}} 1.0' in metrics.render().decode()


async def test_where_nothing_listens_is_told(teller: Teller) -> None:
    one = teller(f"http://127.0.0.1:{free_port()}", "http://rampart.invalid:8400")
    assert await told(one) == []
    problems = [seen.problem for seen in one.sightings()]
    assert problems == [
        "cannot be reached: nothing listens there",
        "cannot be reached: the name service does not know it",
    ]


async def test_many_kills_go_in_several_messages_and_each_arrives(teller: Teller, web_2: Peer) -> None:
    kills = [record(f"kill-{number}") for number in range(250)]
    held = [kill_id async for answer in teller(web_2.url).tell(kills) for kill_id in answer.holds]
    assert held == web_2.heard == [one.kill.id for one in kills]
    assert web_2.messages == 3


async def test_long_kills_go_in_messages_that_the_door_takes(teller: Teller, web_2: Peer) -> None:
    kills = [record(f"kill-{number}", reason="x" * 300_000) for number in range(4)]
    assert await told(teller(web_2.url), *kills) == ["web-2"] * 4


async def test_proxies_of_the_environment_are_not_asked(
    teller: Teller, web_2: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert await told(teller(web_2.url)) == ["web-2"]


async def test_silence_is_logged_when_it_begins_and_when_it_ends(teller: Teller, web_2: Peer) -> None:
    one = teller(web_2.url)
    with structlog.testing.capture_logs() as logs:
        for reply in (refuse, refuse, refuse, web_2.agree, web_2.agree):
            web_2.reply = reply
            await told(one)
    assert [line["event"] for line in logs] == ["peer_silent", "peer_answers"]
    assert SECRET not in str(logs)


# — the name service —


class Names:
    """`getaddrinfo` of a name service that can be changed and taken away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses = ["127.0.0.1"]
        self.asked = 0
        self.away = False
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.look_up)
        monkeypatch.setattr(peers, "NAMES_KEPT_SECONDS", 0.0)

    async def look_up(self, host: str, *_: Any, **__: Any) -> list[Any]:
        assert host == "rampart-headless"
        self.asked += 1
        if self.away:
            raise socket.gaierror(socket.EAI_AGAIN, "no name service")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in self.addresses]


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    monkeypatch.setattr(peers, "GREET_SECONDS", 0.02)
    return Names(monkeypatch)


def addresses(one: HttpPeers) -> list[str]:
    return [seen.address for seen in one.sightings()]


async def test_replicas_that_the_name_service_lists_are_told(teller: Teller, names: Names, web_2: Peer) -> None:
    port = web_2.url.rpartition(":")[2]
    one = teller(dns=f"rampart-headless:{port}")
    one.start()
    await until(lambda: addresses(one) == [web_2.url], "the address")
    assert await told(one) == ["web-2"]


async def test_a_kill_needs_no_name_service(teller: Teller, names: Names, web_2: Peer) -> None:
    port = web_2.url.rpartition(":")[2]
    one, other = teller(dns=f"rampart-headless:{port}"), teller(f"http://rampart-headless:{port}")
    one.start()
    other.start()
    await until(lambda: web_2.messages >= 2 and bool(addresses(one)), "greetings of both")
    names.away = True
    asked = names.asked
    await until(lambda: names.asked > asked + 2, "a name service that fails")
    for transport in web_2.connections:
        transport.abort()
    assert await told(one) == ["web-2"]
    assert await told(other) == ["web-2"]


async def test_an_address_that_answers_is_told_though_it_is_listed_no_more(
    teller: Teller, names: Names, web_2: Peer
) -> None:
    """Not ready is not gone: with the database down no replica is ready, and that is when a kill needs them."""
    port = web_2.url.rpartition(":")[2]
    names.addresses = ["127.0.0.1", "127.0.0.2"]
    one = teller(dns=f"rampart-headless:{port}")
    one.start()
    await until(lambda: len(addresses(one)) == 2 and one.sightings()[0].problem == "", "both addresses")
    names.addresses = ["127.0.0.3"]
    await until(lambda: len(addresses(one)) == 2 and "127.0.0.3" in str(addresses(one)), "the new list")
    assert sorted(addresses(one)) == [web_2.url, f"http://127.0.0.3:{port}"]
    assert await told(one) == ["web-2"]


# — settings —


async def test_without_a_secret_nobody_is_told(web_2: Peer) -> None:
    one = HttpPeers(PeersSettings(), own="web-1", metrics=Metrics())
    one.start()
    assert await told(one) == []
    assert one.secret_digest == b""
    await one.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"urls": ["http://web-2:8400"]}, "peers.secret_file is missing"),
        ({"dns": "rampart-headless:8400"}, "peers.secret_file is missing"),
        ({"secret_file": "absent"}, "cannot read the secret file"),
        ({"secret_file": "short"}, "at least 16"),
        ({"secret_file": "two lines"}, "in one line"),
        ({"secret_file": "good", "urls": ["web-2:8400"]}, "peers.urls must be http or https"),
        ({"secret_file": "good", "urls": ["http://dana:pw@web-2:8400"]}, "without a login"),
        ({"secret_file": "good", "dns": "rampart-headless"}, "peers.dns must be a name and a port"),
        ({"secret_file": "good", "dns": "http://rampart-headless:8400"}, "peers.dns must be a name and a port"),
    ],
)
def test_settings_that_cannot_work_say_what_to_do(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    for name, text in (("short", "abc"), ("two lines", "0123456789\n0123456789"), ("good", SECRET)):
        (tmp_path / name).write_text(text)
    if "secret_file" in settings:
        settings = settings | {"secret_file": str(tmp_path / settings["secret_file"])}
    with pytest.raises(SettingsError, match=message) as raised:
        HttpPeers(PeersSettings(**settings), own="web-1", metrics=Metrics())
    assert "0123456789" not in str(raised.value)
    assert "pw" not in str(raised.value)
