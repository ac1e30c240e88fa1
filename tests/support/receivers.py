"""Receivers of messages that take, lose, delay and refuse: over HTTP and over SMTP, in the test's own event loop.

`receiver.fault` is how every delivery is answered from now on; `receiver.script` says it for the next ones, one by
one, before that. `seen` holds every delivery that arrived whole, `taken` those that were acknowledged.
"""

import asyncio
import json
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from enum import Enum
from typing import Any

from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from msgspec import Struct

RETRY_AFTER_SECONDS = 7
HUGE_BYTES = 8 * 1024 * 1024
PLAIN_TEXT = {"Content-Type": "text/plain; charset=utf-8"}


class Fault(Enum):
    """`SLOW`: no answer before the fault is over. `RESET`: the connection is cut. `LOST`: as if it had been taken,
    but the answer gets lost. `BUSY`: come back in `RETRY_AFTER_SECONDS` (SMTP cannot say when). `REFUSED`: for
    good. `ENDED`: for good, and do not come again. `REDIRECT`: to `moved_to`. `GARBAGE`: not the protocol at all.
    `HUGE`: an error whose text never ends.
    """

    SLOW = "slow"
    BROKEN = "broken"
    RESET = "reset"
    LOST = "lost"
    BUSY = "busy"
    REFUSED = "refused"
    ENDED = "ended"
    REDIRECT = "redirect"
    GARBAGE = "garbage"
    HUGE = "huge"


class Received(Struct, frozen=True):
    """One delivery. Over SMTP `path` is the recipients, separated by commas, and `headers` are the mail's."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def mail(self) -> EmailMessage:
        return message_from_bytes(self.body, policy=policy.default)


class Receiver(ABC):
    """What both kinds have in common. `port` stays the same while it is away. It refuses with `words`."""

    def __init__(self, words: str = "no such thing") -> None:
        self.port = 0
        self.words = words
        self.seen: list[Received] = []
        self.taken: list[Received] = []
        self.fault: Fault | None = None
        self.script: deque[Fault | None] = deque()
        self.arrived = asyncio.Event()
        """Something was seen."""
        self.over = asyncio.Event()
        """Set it to let go of what `SLOW` holds; it is cut off then."""

    def next_fault(self, received: Received) -> Fault | None:
        self.seen.append(received)
        self.arrived.set()
        fault = self.script.popleft() if self.script else self.fault
        if fault in (None, Fault.LOST):
            self.taken.append(received)
        return fault

    @abstractmethod
    async def come(self) -> None:
        """Listen, at the same port as before."""

    @abstractmethod
    async def go(self) -> None:
        """Nobody listens at the port any more."""

    def heal(self) -> None:
        self.fault = None
        self.script.clear()
        self.over.set()
        self.over = asyncio.Event()


class HttpReceiver(Receiver):
    """Takes with `takes` (202 is how PagerDuty does), whatever the path; a busy one says `retry_after`."""

    def __init__(self, *, takes: int = 200, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.takes = takes
        self.retry_after = str(RETRY_AFTER_SECONDS)
        self._tls = tls
        self.moved_to = ""
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}" if self._tls else f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator["HttpReceiver"]:
        await self.come()
        try:
            yield self
        finally:
            await self.go()

    async def come(self) -> None:
        app = web.Application(client_max_size=4 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=self._tls)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def go(self) -> None:
        self.over.set()
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner, self.over = None, asyncio.Event()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        received = Received(request.path_qs, dict(request.headers), await request.read())
        match self.next_fault(received):
            case None:
                return web.Response(status=self.takes, text="ok")
            case Fault.SLOW:
                await self.over.wait()
                return cut(request)
            case Fault.RESET | Fault.LOST:
                return cut(request)
            case Fault.BROKEN:
                return web.Response(status=500, text="something broke")
            case Fault.BUSY:
                return web.Response(status=429, headers={"Retry-After": self.retry_after}, text="slower")
            case Fault.REFUSED:
                return web.Response(status=400, text=self.words)
            case Fault.ENDED:
                return web.Response(status=410, text=self.words)
            case Fault.REDIRECT:
                return web.Response(status=307, headers={"Location": self.moved_to or self.url + "/elsewhere"})
            case Fault.GARBAGE:
                return raw(request, b"\x00\x01 this is not HTTP \xff\r\n\r\n" * 10)
            case Fault.HUGE:
                return await endless(request)
        raise AssertionError("every fault is answered above")


async def endless(request: web.Request) -> web.StreamResponse:
    """Until the other side hangs up."""
    response = web.StreamResponse(status=500, headers=PLAIN_TEXT)
    await response.prepare(request)
    while True:
        await response.write(b"endless " * 8192)


def cut(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


def raw(request: web.Request, answer: bytes) -> web.StreamResponse:
    transport = request.transport
    assert isinstance(transport, asyncio.Transport)
    transport.write(answer)
    transport.close()
    return web.Response(status=502)


def abort(session: SMTP) -> None:
    if isinstance(session.transport, asyncio.WriteTransport):
        session.transport.abort()


SMTP_ANSWERS = {
    None: "250 OK",
    Fault.BROKEN: "451 something broke",
    Fault.BUSY: "421 slower",
    Fault.REDIRECT: "551 user not local",
    Fault.GARBAGE: "\x01this is not SMTP",
}


class SmtpReceiver(Receiver):
    """A mail server. Whoever is in `refused` is answered with that line when named as a recipient.

    With `tls` it offers STARTTLS, or speaks TLS from the start when `implicit`. `logins` that are named are asked
    for. It is `silent_at_the_end`: QUIT stays without an answer.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
        logins: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.refused: dict[str, str] = {}
        self.logged_in: list[str] = []
        self.silent_at_the_end = False
        self._tls = tls
        self._implicit = implicit
        self._logins = logins
        self._server: asyncio.Server | None = None
        self._sessions: set[SMTP] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["SmtpReceiver"]:
        await self.come()
        try:
            yield self
        finally:
            await self.go()

    async def come(self) -> None:
        loop = asyncio.get_running_loop()
        context = self._tls if self._implicit else None
        self._server = await loop.create_server(
            self._session, "127.0.0.1", self.port, ssl=context, reuse_address=True
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def go(self) -> None:
        self.over.set()
        if self._server is not None:
            self._server.close()
        for session in self._sessions:
            abort(session)
        self._sessions.clear()
        self._server, self.over = None, asyncio.Event()

    def _session(self) -> SMTP:
        session = SMTP(
            self,
            hostname="receiver.test",
            tls_context=None if self._implicit else self._tls,
            require_starttls=self._tls is not None and not self._implicit,
            authenticator=self._authenticate if self._logins else None,
            auth_required=bool(self._logins),
            auth_require_tls=False,
            loop=asyncio.get_running_loop(),
        )
        self._sessions.add(session)
        return session

    def _authenticate(self, server: SMTP, session: Session, envelope: Envelope, kind: str, login: Any) -> Any:
        user, password = login.login.decode(), login.password.decode()
        good = self._logins is not None and self._logins.get(user) == password
        if good:
            self.logged_in.append(user)
        return AuthResult(success=good, handled=False)

    async def handle_RCPT(  # noqa: N802 (called by aiosmtpd by this name)
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.silent_at_the_end:
            await self.over.wait()
        return "221 Bye"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        body = envelope.content
        assert isinstance(body, bytes)
        mail = message_from_bytes(body, policy=policy.default)
        received = Received(",".join(envelope.rcpt_tos), {name: str(text) for name, text in mail.items()}, body)
        fault = self.next_fault(received)
        if fault is Fault.SLOW:
            await self.over.wait()
        if fault in (Fault.SLOW, Fault.RESET, Fault.LOST):
            abort(server)
            return "451 cut"
        if fault is Fault.HUGE:
            return "451-endless\r\n" * (HUGE_BYTES // 13) + "451 end"
        if fault in (Fault.REFUSED, Fault.ENDED):
            return f"550 {self.words}"
        return SMTP_ANSWERS[fault]
