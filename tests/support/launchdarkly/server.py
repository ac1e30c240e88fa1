"""LaunchDarkly on this machine: its REST API and what SDKs connect to, over the same flags, on a port each."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from aiohttp import web

from tests.support.launchdarkly.account import Environment, Member, Project, Token
from tests.support.launchdarkly.faults import Faults
from tests.support.launchdarkly.flags import Config, Flag
from tests.support.launchdarkly.ledger import Ledger
from tests.support.launchdarkly.limits import Limits
from tests.support.launchdarkly.person import Person
from tests.support.launchdarkly.requests import Requests
from tests.support.launchdarkly.rest import RestApi
from tests.support.launchdarkly.sdk_side import SdkSide

T = TypeVar("T")

PROJECT = "shop"
PRODUCTION, STAGING = "production", "staging"
SDK_KEYS = {PRODUCTION: "sdk-production-0123456789", STAGING: "sdk-staging-0123456789"}
WRITE_TOKEN = "api-writes-0123456789"
READ_TOKEN = "api-reads-0123456789"
BYPASS_TOKEN = "api-bypasses-approvals-0123456789"
BOOLEAN = {"on": True, "off": False}


class Site:
    """One port that can be closed and opened again."""

    def __init__(self, make: Callable[[], web.Application]) -> None:
        self._make = make
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        self._runner = web.AppRunner(self._make(), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class FakeLaunchDarkly:
    """An async context manager. It has the project `shop`, two environments and three tokens.

    `faults` and `limits` are of the REST API, `requests` is what was asked of it; `sdk` is the side of the SDKs.
    """

    def __init__(self) -> None:
        self.ledger = Ledger(self._changed)
        self.requests = Requests()
        self.faults = Faults(self.ledger.now)
        self.limits = Limits(self.ledger.now)
        self.sdk = SdkSide(self.ledger)
        self.rest_site = Site(RestApi(self.ledger, self.requests, self.faults, self.limits).app)
        self.sdk_site = Site(self.sdk.app)
        self.add_project(PROJECT, SDK_KEYS)
        self.add_token(Token("rampart-writer", WRITE_TOKEN))
        self.add_token(Token("rampart-reader", READ_TOKEN, role="reader"))
        self.add_token(Token("rampart-bypass", BYPASS_TOKEN, bypass=True))

    async def __aenter__(self) -> Self:
        await self.rest_site.start()
        await self.sdk_site.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.faults.clear()
        self.sdk.thaw()
        self.sdk.down()
        await self.rest_site.stop()
        await self.sdk_site.stop()

    @property
    def base_uri(self) -> str:
        """Of the REST API. The SDK's option of that name is `polling_uri` here."""
        return self.rest_site.uri

    @property
    def stream_uri(self) -> str:
        return self.sdk_site.uri

    @property
    def events_uri(self) -> str:
        return self.sdk_site.uri

    @property
    def polling_uri(self) -> str:
        return self.sdk_site.uri

    # — what is in it —

    def add_project(self, key: str, sdk_keys: Mapping[str, str]) -> Project:
        """`sdk_keys`: environment → its key for server-side SDKs."""
        environments = {one: Environment(one, sdk_key, f"mob-{one}") for one, sdk_key in sdk_keys.items()}
        project = self.ledger.projects[key] = Project(key, environments)
        return project

    def add_token(self, token: Token) -> Token:
        self.ledger.tokens[token.secret] = token
        return token

    def revoke_token(self, secret: str) -> None:
        """401 from now on."""
        self.ledger.tokens.pop(secret)

    def create_flag(
        self,
        key: str,
        variations: Mapping[str, Any] = BOOLEAN,
        *,
        project: str = PROJECT,
        serves: str | None = None,
        tags: tuple[str, ...] = (),
    ) -> Flag:
        """Off everywhere. Its last variation is the off-variation; `serves`, or the first, is for all when on."""
        flag = self.ledger.create_flag(project, key, variations)
        flag.tags = list(tags)
        if serves is not None:
            index = flag.index(flag.variation(serves)["_id"])
            for config in flag.environments.values():
                config.fallthrough = {"variation": index}
        return flag

    def flag(self, key: str, project: str = PROJECT) -> Flag:
        """As it is now. A change makes a new one."""
        return self.ledger.flag(project, key)

    def config(self, key: str, environment: str = PRODUCTION, project: str = PROJECT) -> Config:
        return self.flag(key, project).environments[environment]

    def environment(self, key: str = PRODUCTION, project: str = PROJECT) -> Environment:
        return self.ledger.environment(project, key)

    def person(self, key: str, *, environment: str = PRODUCTION, project: str = PROJECT) -> Person:
        member = self.ledger.members.setdefault(key, Member(key))
        return Person(member, self.ledger, project, environment)

    def _changed(self, project: str, flag: Flag) -> None:
        self.sdk.publish(project, flag)


@contextmanager
def launchdarkly_in_thread() -> Iterator[FakeLaunchDarkly]:
    """For tests without an event loop, such as those of `rampart serve` as a process.

    Flags may be changed from the test's thread; what waits (`faults.hold`) belongs to the loop of the fake.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="launchdarkly", daemon=True)
    thread.start()
    fake = asyncio.run_coroutine_threadsafe(_entered(), loop).result(10)
    try:
        yield fake
    finally:
        asyncio.run_coroutine_threadsafe(fake.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _entered() -> FakeLaunchDarkly:
    return await FakeLaunchDarkly().__aenter__()
