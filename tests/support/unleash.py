"""A real Unleash server on a loopback port, its data in a PostgreSQL of ours, and people who work with it."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import aiohttp

from tests.support.repository import ROOT
from tests.support.server import free_port, wait_until

SERVER = ROOT / "tests" / "peers" / "unleash" / "node_modules" / "unleash-server" / "dist" / "server.js"
ADMIN_TOKEN = "*:*.0123456789abcdef0123456789abcdef"
SDK_TOKEN = "default:production.0123456789abcdef0123456789abcdef"
READY_SECONDS = 60.0
STOP_SECONDS = 10.0
PASSWORD = "a-Password-only-for-tests-1!"
ADMIN, EDITOR, VIEWER = 1, 2, 3
"""Unleash's own roles."""


@contextmanager
def running_unleash(directory: Path, dsn: str) -> Iterator[str]:
    """Start Unleash on the empty database `dsn`, reached through a unix socket; yields its address."""
    node = shutil.which("node")
    if node is None or not SERVER.is_file():
        raise RuntimeError("these tests need an Unleash server: tests/peers/install.sh")
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    logfile = directory / "unleash.log"
    with logfile.open("wb") as output:
        process = subprocess.Popen(
            [node, str(SERVER)], env=_environment(address, port, dsn), cwd=directory, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: _ready(process, address, logfile), seconds=READY_SECONDS, what="Unleash")
        yield address
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(address: str, port: int, dsn: str) -> dict[str, str]:
    found = urlsplit(dsn)
    options = dict(one.split("=", 1) for one in found.query.split("&"))
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "NODE_ENV": "production",
        "DATABASE_HOST": unquote(options["host"]),
        "DATABASE_PORT": options["port"],
        "DATABASE_NAME": found.path.lstrip("/"),
        "DATABASE_USERNAME": found.username or "",
        "DATABASE_PASSWORD": "unused",
        "DATABASE_SSL": "false",
        "HTTP_HOST": "127.0.0.1",
        "HTTP_PORT": str(port),
        "UNLEASH_URL": address,
        "LOG_LEVEL": "warn",
        "CHECK_VERSION": "false",
        "SEND_TELEMETRY": "false",
        "INIT_ADMIN_API_TOKENS": ADMIN_TOKEN,
        "INIT_CLIENT_API_TOKENS": SDK_TOKEN,
        "INIT_BACKEND_API_TOKENS": SDK_TOKEN,
    }


def _ready(process: subprocess.Popen[bytes], address: str, logfile: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"Unleash ended:\n{logfile.read_text(errors='replace')[-3000:]}")
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=1) as answer:
            return bool(json.load(answer)["health"] == "GOOD")
    except (OSError, ValueError):
        return False


class Answer(NamedTuple):
    status: int
    json: Any


class Person:
    """Somebody who is logged in. The paths are those below /api/admin."""

    def __init__(self, url: str, token: str, session: aiohttp.ClientSession) -> None:
        self._url = f"{url}/api/admin"
        self._headers = {"Authorization": token}
        self._session = session

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        async with self._session.request(
            method, f"{self._url}/{path}", json=body, headers=self._headers
        ) as response:
            text = await response.text()
            return Answer(response.status, json.loads(text) if text else None)

    async def do(self, method: str, path: str, body: object = None) -> Any:
        answer = await self.ask(method, path, body)
        assert answer.status < 300, answer
        return answer.json


@asynccontextmanager
async def person(url: str, token: str) -> AsyncIterator[Person]:
    async with aiohttp.ClientSession() as session:
        yield Person(url, token, session)


async def hire(url: str, name: str, role: int) -> str:
    """A new account with a role of Unleash's; returns a token with which its changes bear its name."""
    account = {"username": name, "name": name, "rootRole": role, "sendEmail": False, "password": PASSWORD}
    async with person(url, ADMIN_TOKEN) as admin:
        await admin.do("POST", "user-admin", account)
    deadline = time.monotonic() + READY_SECONDS
    while (token := await _own_token(url, name)) is None:
        assert time.monotonic() < deadline, f"{name} cannot log in"
    return token


async def _own_token(url: str, name: str) -> str | None:
    """None when the session is not known yet: Unleash stores it beside its answer to the login."""
    wanted = {"description": "tests", "expiresAt": "2099-01-01T00:00:00Z"}
    # Of a host without a name only an unsafe jar keeps the cookie of the login.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        login = {"username": name, "password": PASSWORD}
        async with session.post(f"{url}/auth/simple/login", json=login) as answer:
            assert answer.status == 200, await answer.text()
        async with session.post(f"{url}/api/admin/user/tokens", json=wanted) as answer:
            return str((await answer.json())["secret"]) if answer.status == 201 else None


class Flag:
    """One flag in one environment, as people work on it."""

    def __init__(self, someone: Person, key: str, environment: str = "production") -> None:
        self._someone = someone
        self.key = key
        self._feature = f"projects/default/features/{key}"
        self._here = f"{self._feature}/environments/{environment}"

    async def make(self) -> None:
        """Off and without strategies, whatever there was under its name.

        One that was here before is emptied: Unleash 7.6.5 ends itself when a flag is deleted that was archived a
        moment ago, because it still writes the archiving into the flag's history.
        """
        made = await self._someone.ask("POST", "projects/default/features", {"name": self.key})
        if made.status == 201:
            return
        await self._someone.ask("POST", f"archive/revive/{self.key}")
        for strategy in await self.strategies():
            await self._someone.do("DELETE", f"{self._here}/strategies/{strategy['id']}")
        await self.turn("off")

    async def archive(self) -> None:
        await self._someone.do("DELETE", self._feature)

    async def turn(self, way: str) -> None:
        await self._someone.do("POST", f"{self._here}/{way}")

    async def strategies(self) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = (await self._someone.do("GET", self._here))["strategies"]
        return found

    async def add(self, **strategy: Any) -> str:
        made = await self._someone.do("POST", f"{self._here}/strategies", {"name": "flexibleRollout", **strategy})
        return str(made["id"])

    async def set(self, title: str, path: str, value: object) -> None:
        """One field of the strategy with that title."""
        (found,) = [one["id"] for one in await self.strategies() if one["title"] == title]
        operation = {"op": "replace", "path": path, "value": value}
        await self._someone.do("PATCH", f"{self._here}/strategies/{found}", [operation])

    async def everything(self) -> Any:
        """Of this environment; None once it is archived."""
        answer = await self._someone.ask("GET", self._here)
        return answer.json
