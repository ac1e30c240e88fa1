"""Names of receivers are looked up where nobody else waits."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import ResolveResult
from msgspec.structs import replace

from controller.channels import build
from controller.channels.names import OwnResolver, connected
from controller.errors import Unavailable
from controller.settings import ChannelSettings, EmailChannelSettings, SlackChannelSettings
from tests.contracts.channels_contract import KILLED
from tests.contracts.test_channels import WallClock, written
from tests.support.receivers import HttpReceiver

HANGS = "hangs.example"


class NameServer:
    """Answers nobody who asks for HANGS before it is `over`. `held` are the threads that waited for it."""

    def __init__(self) -> None:
        self.over, self.reached = threading.Event(), threading.Event()
        self.held: list[str] = []
        self._real = socket.getaddrinfo

    def asked(self, host: str, *rest: Any, **more: Any) -> Any:
        if host != HANGS:
            return self._real(host, *rest, **more)
        self.held.append(threading.current_thread().name)
        self.reached.set()
        self.over.wait(60)
        raise socket.gaierror("no such name")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    names = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", names.asked)
    yield names
    names.over.set()


def settings(kind: str, folder: Path) -> ChannelSettings:
    if kind == "email":
        return EmailChannelSettings(
            host=HANGS, sender="r@acme.example", to=["a@acme.example"], timeout_seconds=0.2
        )
    return SlackChannelSettings(url_file=written(folder / "address", f"https://{HANGS}/in"))


@pytest.mark.parametrize("kind", ["email", "slack"])
async def test_a_name_server_that_hangs_takes_one_thread_of_the_channel_and_none_that_a_kill_needs(
    tmp_path: Path, hanging: NameServer, kind: str
) -> None:
    channel = build("oncall", settings(kind, tmp_path), WallClock())
    messages = [replace(KILLED, id=str(number)) for number in range(4)]
    told = [asyncio.create_task(channel.announce(message)) for message in messages]
    assert await asyncio.to_thread(hanging.reached.wait, 20)
    assert not any(one.done() for one in told)
    hanging.over.set()
    failed = await asyncio.gather(*told, return_exceptions=True)
    assert {type(one) for one in failed} == {Unavailable}
    assert hanging.held == ["resolve-oncall_0"] * 4
    await channel.close()


async def test_a_connection_is_made_to_the_first_address_that_answers() -> None:
    async with HttpReceiver().open() as receiver, HttpReceiver().open() as away:
        closed = away.port
        await away.go()
        found = await OwnResolver("oncall").resolve("127.0.0.1", receiver.port)
        dead = ResolveResult(hostname="x", host="127.0.0.1", port=closed, family=socket.AF_INET, proto=0, flags=0)
        sock = await connected([dead, *found])
        assert sock.getpeername() == ("127.0.0.1", receiver.port)
        sock.close()
        with pytest.raises(ConnectionRefusedError):
            await connected([dead])
        with pytest.raises(OSError, match="leads nowhere"):
            await connected([])
