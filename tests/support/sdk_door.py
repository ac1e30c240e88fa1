"""The server-SDK door behind a real uvicorn, and real LaunchDarkly SDKs connected to it."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import ldclient
import uvicorn
from ldclient.config import Config
from litestar import Litestar

from controller.access import key_digest
from controller.delivery import Doors, SdkKeyBook
from controller.delivery.connections import Connection
from controller.delivery.event_book import EventBook
from controller.delivery.fronts import Front
from controller.delivery.streaming import Streams
from controller.delivery.turns import Turns
from controller.domain.catalogue import FlagConfig, Kill, KillRecord, SdkKey, SdkKeyKind
from controller.domain.flag import FlagSpec, SetShare
from controller.domain.plan import AttributeMatch, AudienceRule, FlagRef, Serve
from controller.domain.sdkflag import new_flag, turned_on, with_share
from controller.ports import Clock
from controller.snapshot import FlagBoard, VersionClock

NOW = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)
FLAG = FlagRef(provider="main", environment="production", key="checkout-v2")
SERVE = Serve(rollout="on", fallback="off")
STAFF = AudienceRule(name="staff", match={"email": AttributeMatch(ends_with="@acme.example")})
KEY = "sdk-production-0123456789"
STAGING_KEY = "sdk-staging-0123456789"
MOBILE_KEY = "mob-production-0123456789"
CLIENT_ID = "5f0123456789abcdef012345"


class SteppedClock:
    """Stands still until a test moves it; the wall clock may be moved back, too."""

    def __init__(self) -> None:
        self.wall = NOW
        self.elapsed = 0.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.elapsed

    def jump(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)


def make_board(clock: SteppedClock | None = None, floor: int = 0) -> FlagBoard:
    return FlagBoard(VersionClock(clock=clock or SteppedClock(), floor=floor, reserve=reserve_nothing))


async def reserve_nothing(_: int) -> bool:
    return True


def make_flag(
    key: str = FLAG.key, version: int = 1, *, environment: str = FLAG.environment, client_side: bool = False
) -> FlagConfig:
    return new_flag(FlagSpec(environment=environment, key=key, client_side=client_side), version)


def raised(config: FlagConfig, exposure: int, *audience: AudienceRule) -> FlagConfig:
    """The flag on, at `exposure`, two versions later."""
    flag = FlagRef(provider="main", environment=config.environment, key=config.key)
    change = SetShare(
        flag=flag, serve=SERVE, exposure=exposure, audience=audience, bucket_by="user", comment="test"
    )
    return turned_on(with_share(config, change, config.version + 1), config.version + 2)


def make_kill(kill_id: str = "kill-1", flag: FlagRef = FLAG) -> Kill:
    return Kill(id=kill_id, flag=flag, accepted_at=NOW, actor="dana", reason="INC-1")


def make_record(kill_id: str = "kill-1", flag: FlagRef = FLAG, serve: Serve | None = None) -> KillRecord:
    return KillRecord(kill=make_kill(kill_id, flag), serve=serve)


def make_key(secret: str = KEY, environment: str = "production", *, kind: SdkKeyKind = "server") -> SdkKey:
    return SdkKey(
        name=f"{environment}-{kind}",
        digest=key_digest(kind, secret),
        kind=kind,
        environment=environment,
        created_at=NOW,
        created_by="dana",
    )


class Door:
    """A board, its keys and a server for them, in the event loop of the test."""

    def __init__(
        self,
        board: FlagBoard | None = None,
        *,
        port: int = 0,
        origins: Collection[str] = ("*",),
        event_book: EventBook | None = None,
        clock: Clock | None = None,
        turns: Turns | None = None,
        fronts: Collection[Front] = (),
        **limits: Any,
    ) -> None:
        self.board = board or make_board()
        self.keys = SdkKeyBook(key for front in fronts for key in front.keys)
        clock = clock or SteppedClock()
        self.doors = Doors(
            self.board,
            self.keys,
            clock,
            origins=origins,
            streams=Streams(clock, **limits),
            client_streams=Streams(clock, **limits),
            turns=turns,
            event_book=event_book,
            fronts=fronts,
        )
        self.streams, self.client_streams = self.doors.streams, self.doors.client_streams
        self.events = self.doors.events
        self.port = port
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open_up(self, *configs: FlagConfig, kills: tuple[KillRecord, ...] = ()) -> None:
        self.keys.load(
            [
                make_key(),
                make_key(STAGING_KEY, "staging"),
                make_key(MOBILE_KEY, kind="mobile"),
                make_key(CLIENT_ID, kind="client"),
            ]
        )
        self.board.load(configs, kills)

    async def start(self) -> None:
        app = self.doors.before(Litestar(openapi_config=None))
        config = uvicorn.Config(
            app, host="127.0.0.1", port=self.port, http=Connection, lifespan="off", log_config=None,
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        server = self._server = _Server(config)
        self._serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        self.port = server.servers[0].sockets[0].getsockname()[1]

    @property
    def connections(self) -> int:
        """Open ones, whatever they are for."""
        assert self._server is not None
        return len(self._server.server_state.connections)

    async def stop(self) -> None:
        self.board.close()
        if self._server and self._serving:
            self._server.should_exit = True
            await self._serving

    @asynccontextmanager
    async def client(self, key: str = KEY, *, wait_seconds: float = 5.0, **options: Any) -> AsyncIterator[Any]:
        """A connected SDK; it may be uninitialised after `wait_seconds`."""
        config = Config(
            **{
                "sdk_key": key,
                "base_uri": self.url,
                "stream_uri": self.url,
                "events_uri": self.url,
                "initial_reconnect_delay": 0.05,
                "send_events": False,
                "diagnostic_opt_out": True,
                **options,
            }
        )
        client = await asyncio.to_thread(ldclient.LDClient, config, wait_seconds)
        try:
            yield client
        finally:
            await asyncio.to_thread(client.close)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The test runner keeps its own."""
        yield


@asynccontextmanager
async def running_door(*configs: FlagConfig, **limits: Any) -> AsyncIterator[Door]:
    """Open, with these flags."""
    door = Door(**limits)
    door.open_up(*configs)
    await door.start()
    try:
        yield door
    finally:
        await door.stop()


async def until(condition: Callable[[], object], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def user(key: str, **attributes: str) -> ldclient.Context:
    builder = ldclient.Context.builder(key)
    for name, value in attributes.items():
        builder.set(name, value)
    return builder.build()
