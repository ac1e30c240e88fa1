"""LaunchDarkly's REST API: the few requests we make, each answered with what was decoded or with `Failed`."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import aiohttp
import msgspec
import yarl

from controller.errors import SettingsError
from controller.providers.launchdarkly.budget import Budget, Purpose
from controller.providers.launchdarkly.faults import Failed
from controller.providers.launchdarkly.model import (
    AuditItem,
    AuditPage,
    Complaint,
    Page,
    Release,
    Releases,
    RestFlag,
)
from controller.settings import LaunchDarklyProviderSettings, secret_file
from controller.telemetry import hide

API_VERSION = "20240415"
BETA = "beta"
SEMANTIC_PATCH = "application/json; domain-model=launchdarkly.semanticpatch"
PAGE_SIZE = 100
AUDITED = 10
OK = 200
UNAUTHORIZED = 401
THROTTLED = 429
AT_ONCE = 8
MAX_BODY_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
# Larger answers are decoded in a thread, so that the event loop stays free.
SMALL_BODY_BYTES = 64 * 1024
SHOWN_CHARACTERS = 300
UNDER_WAY = frozenset({"in_progress", "waiting", "pending"})

T = TypeVar("T")
Decode = Callable[[bytes], T]

FLAG = msgspec.json.Decoder(RestFlag)
PAGE = msgspec.json.Decoder(Page)
AUDIT = msgspec.json.Decoder(AuditPage)
RELEASES = msgspec.json.Decoder(Releases)
COMPLAINT = msgspec.json.Decoder(Complaint)
ANYTHING = msgspec.json.Decoder(dict[str, Any])
# What the decoder raises for bytes that are no JSON, no text, or nested too deeply.
GARBLED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class RestApi:
    """`heard` is told of every answer: operation and result. Kills have connections of their own."""

    def __init__(
        self,
        name: str,
        settings: LaunchDarklyProviderSettings,
        budget: Budget,
        heard: Callable[[str, str], None],
    ) -> None:
        self._settings = settings
        self._base = address(settings.base_uri, f"providers.{name}.base_uri") / "api/v2"
        self._budget = budget
        self._heard = heard
        self._token = _secret(settings.api_token_file)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.answers = False
        """Whether the latest request was answered at all."""

    # — reading —

    async def flag(self, key: str, environment: str, purpose: Purpose = "read") -> RestFlag:
        return await self._get(f"flags/{self._project}/{key}", {"env": environment}, FLAG.decode, purpose)

    async def page(self, environment: str, offset: int) -> Page:
        """At most a hundred flags of the project, in an order that does not change; whole, not as summaries."""
        asked = {
            "env": environment,
            "filter": f"filterEnv:{environment}",
            "summary": "0",
            "sort": "creationDate",
            "limit": str(PAGE_SIZE),
            "offset": str(offset),
        }
        return await self._get(f"flags/{self._project}", asked, PAGE.decode, "read")

    async def latest_changes(self, key: str) -> Sequence[AuditItem]:
        """Of the flag, newest first, in whatever environment: some concern all of them."""
        spec = f"proj/{self._project}:env/*:flag/{key}"
        page = await self._get("auditlog", {"spec": spec, "limit": str(AUDITED)}, AUDIT.decode, "read")
        return page.items

    async def releases(self, key: str, environment: str) -> Sequence[Release]:
        """Those that LaunchDarkly carries out itself and has not ended. The resource is a beta one."""
        path = f"projects/{self._project}/flags/{key}/environments/{environment}/releases"
        found = await self._get(path, {}, RELEASES.decode, "read", version=BETA)
        return [one for one in found.items if one.status in UNDER_WAY]

    async def look_at(self, environment: str) -> None:
        """Whether the token, the project and the environment are good. Raises Failed."""
        await self._get(f"projects/{self._project}/environments/{environment}", {}, ANYTHING.decode, "read")

    # — writing —

    async def patch(
        self,
        key: str,
        environment: str,
        instructions: Sequence[Mapping[str, Any]],
        comment: str,
        *,
        purpose: Purpose,
        dry_run: bool = False,
    ) -> RestFlag:
        """All of the instructions or none; the flag as it is then. Only a raise gives way to what is scheduled."""
        asked = {} if purpose == "raise" else {"ignoreConflicts": "true"}
        if dry_run:
            asked["dryRun"] = "true"
        body = {"environmentKey": environment, "comment": comment, "instructions": list(instructions)}
        path = f"flags/{self._project}/{key}"
        headers = {"Content-Type": SEMANTIC_PATCH}
        return await self._ask("PATCH", path, asked, FLAG.decode, purpose, headers, msgspec.json.encode(body))

    async def close(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    # — how —

    @property
    def _project(self) -> str:
        return self._settings.project

    async def _get(
        self,
        path: str,
        asked: Mapping[str, str],
        decode: Decode[T],
        purpose: Purpose,
        version: str = API_VERSION,
    ) -> T:
        headers = {"LD-API-Version": version}
        if purpose == "kill":
            return await self._ask("GET", path, asked, decode, purpose, headers)
        async with self._turns:
            return await self._ask("GET", path, asked, decode, purpose, headers)

    async def _ask(
        self,
        method: str,
        path: str,
        asked: Mapping[str, str],
        decode: Decode[T],
        purpose: Purpose,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> T:
        """Raises Failed, with text that holds neither the token nor what was sent."""
        route = f"{method} {path.split('/', maxsplit=1)[0]}"
        wait = self._budget.wait(purpose, route)
        if wait > 0:
            self._heard(_operation(method), "held_back")
            why = (
                "its rate limit is reached"
                if purpose == "kill"
                else "what its rate limit leaves is kept for kills"
            )
            raise Failed(f"not asked, {why}; again in {max(wait, 1):.0f} s", certain=True)
        try:
            with self._budget.sent():
                status, content = await self._exchange(method, path, asked, purpose, headers, body, route)
        except Failed:
            self.answers = False
            self._heard(_operation(method), "unreachable")
            raise
        self.answers = True
        self._heard(_operation(method), "ok" if status == OK else str(status))
        if status != OK:
            raise await self._refusal(status, content)
        try:
            if len(content) <= SMALL_BODY_BYTES:
                return decode(content)
            return await asyncio.to_thread(decode, content)
        except GARBLED as error:
            raise Failed(f"its answer could not be read: {error}") from error

    async def _exchange(
        self,
        method: str,
        path: str,
        asked: Mapping[str, str],
        purpose: Purpose,
        headers: Mapping[str, str],
        body: bytes | None,
        route: str,
    ) -> tuple[int, bytes]:
        login = {"LD-API-Version": API_VERSION, "Authorization": self._token, **headers}
        url = (self._base / path).with_query(asked)
        try:
            async with (
                asyncio.timeout(self._settings.timeout_seconds),
                # A redirect would carry the token to wherever it points.
                self._session(urgent=purpose == "kill").request(
                    method, url, data=body, headers=login, allow_redirects=False
                ) as response,
            ):
                self._budget.heard(route, response.status, response.headers)
                return response.status, await _content(response)
        except TimeoutError as error:
            raise Failed(f"no answer within {self._settings.timeout_seconds:g} s") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise Failed("cannot connect: its certificate is not trusted", certain=True) from error
        except aiohttp.ClientConnectorError as error:
            raise Failed(
                f"cannot connect: {error.strerror or 'no host answers at this address'}", certain=True
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Their text may hold the address or a header; the type is enough. ValueError: a token with a newline.
            raise Failed(f"the connection broke ({type(error).__name__})") from error

    def _session(self, *, urgent: bool) -> aiohttp.ClientSession:
        if urgent not in self._sessions:
            timeout = aiohttp.ClientTimeout(total=None)
            self._sessions[urgent] = aiohttp.ClientSession(timeout=timeout)
        return self._sessions[urgent]

    async def _refusal(self, status: int, content: bytes) -> Failed:
        if status == UNAUTHORIZED:
            # The token may have been replaced since we read it: the next request takes the new one.
            self._token = await asyncio.to_thread(_secret, self._settings.api_token_file, self._token)
        try:
            complaint = COMPLAINT.decode(content)
        except GARBLED:
            complaint = Complaint(message="something that is not JSON, as a proxy or a log-in page would")
        said = " ".join(complaint.message.split()).replace(self._token, "…")[:SHOWN_CHARACTERS]
        return Failed(said.rstrip("."), status=status, code=complaint.code, certain=status == THROTTLED)


def address(text: str, setting: str) -> yarl.URL:
    """Raises SettingsError, naming the setting but not the text: it may hold a password."""
    try:
        url = yarl.URL(text)
    except ValueError as error:
        raise SettingsError(f"{setting} is not an address; write one like https://app.launchdarkly.com") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise SettingsError(f"{setting} must be an http or https address, like https://app.launchdarkly.com")
    return url.with_query(None).with_fragment(None)


def _secret(path: str, otherwise: str | None = None) -> str:
    """Raises SettingsError when there is nothing to fall back on."""
    try:
        secret = secret_file(path)
    except SettingsError:
        if otherwise is None:
            raise
        return otherwise  # the refusal that made us look is told anyway
    hide(secret)
    return secret


def _operation(method: str) -> str:
    return "rest_write" if method == "PATCH" else "rest_read"


async def _content(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise Failed(f"its answer is larger than {MAX_BODY_BYTES // 1024**2} MiB")
    return bytes(content)
