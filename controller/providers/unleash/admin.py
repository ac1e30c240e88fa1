"""Unleash's admin API: one request at a time, and its failures in our words."""

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import aiohttp
import msgspec
import yarl
from msgspec import Struct

from controller.errors import NotFound, ProviderUnavailable, Refused, SettingsError
from controller.settings import UnleashProviderSettings, secret_file
from controller.telemetry import hide, without_secrets

LARGEST_ANSWER_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
SHOWN_CHARACTERS = 300
T = TypeVar("T")


class Complaint(Struct, frozen=True):
    """What Unleash says when it refuses."""

    name: str = ""
    message: str = ""
    details: tuple[Any, ...] = ()

    def __str__(self) -> str:
        first = self.details[0] if self.details else None
        detail = str(first.get("message", "")) if isinstance(first, Mapping) else ""
        said = " ".join(dict.fromkeys(filter(None, (self.message, detail))))
        return " ".join(without_secrets(said).split())[:SHOWN_CHARACTERS]


class Admin:
    """Raises NotFound, Refused when the request was understood and is not allowed, else ProviderUnavailable."""

    def __init__(self, name: str, settings: UnleashProviderSettings) -> None:
        self._name = name
        self._settings = settings
        self._address = _address(settings.url, f"providers.{name}.url")
        self._token = ""
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, kind: type[T], query: Mapping[str, str] | None = None) -> T:
        return self._decoded(await self._ask("GET", path, None, query), kind)

    async def post(self, path: str, body: object = None) -> None:
        await self._ask("POST", path, body)

    async def patch(self, path: str, operations: object) -> None:
        await self._ask("PATCH", path, operations)

    async def delete(self, path: str) -> None:
        await self._ask("DELETE", path, None)

    async def search(self, path: str, body: object, kind: type[T]) -> T:
        """A POST that only reads."""
        return self._decoded(await self._ask("POST", path, body), kind)

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    def _decoded(self, content: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(content, type=kind, strict=False)
        except msgspec.DecodeError as error:
            raise ProviderUnavailable(
                f"{self._where}: its answer is not what the admin API says: {error}"
            ) from error

    async def _ask(self, method: str, path: str, body: object, query: Mapping[str, str] | None = None) -> bytes:
        """The complete body of an answer that is no refusal."""
        headers = {"Authorization": await self._login(), "Content-Type": "application/json"}
        data = None if body is None else msgspec.json.encode(body)
        url = self._address.joinpath(*path.strip("/").split("/")).with_query(query)
        try:
            async with (
                asyncio.timeout(self._settings.timeout_seconds),
                # A redirect would carry the token to wherever it points.
                self._http().request(method, url, data=data, headers=headers, allow_redirects=False) as response,
            ):
                content = await _read(response)
                status = response.status
        except TimeoutError as error:
            raise ProviderUnavailable(
                f"{self._where}: no answer within {self._settings.timeout_seconds:g} s"
            ) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise ProviderUnavailable(
                f"{self._where}: cannot connect: its certificate is not trusted", not_applied=True
            ) from error
        except aiohttp.ClientConnectorError as error:
            reason = error.strerror or "no host answers at this address"
            raise ProviderUnavailable(f"{self._where}: cannot connect: {reason}", not_applied=True) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Their text may hold a header; the type is enough. ValueError: a token with a newline in it.
            raise ProviderUnavailable(f"{self._where}: the connection broke ({type(error).__name__})") from error
        if not 200 <= status < 300:
            raise self._refusal(status, content, method)
        return content

    @property
    def _where(self) -> str:
        return f"{self._name} at {self._address}"

    def _refusal(self, status: int, content: bytes, method: str) -> Exception:
        complaint = _complaint(content)
        said = f": {complaint}" if str(complaint) else ""
        match status:
            case 401:
                return Refused(
                    f"{self._where} does not know the token in {self._settings.api_token_file} (HTTP 401){said}"
                )
            case 403:
                may = "read" if method == "GET" else "change this"
                return Refused(f"{self._where}: the token may not {may} (HTTP 403){said}")
            case 404:
                return NotFound(f"{self._where}: not found (HTTP 404){said}")
            case 429:
                return ProviderUnavailable(f"{self._where}: too many requests (HTTP 429){said}", not_applied=True)
            case _ if status >= 500:
                return ProviderUnavailable(f"{self._where} failed (HTTP {status}){said}")
        return Refused(f"{self._where} refused (HTTP {status}){said}")

    async def _login(self) -> str:
        """Read for every request, so that a rotated token counts at once; without the file the last one serves."""
        try:
            self._token = await asyncio.to_thread(secret_file, self._settings.api_token_file)
        except SettingsError as error:
            if not self._token:
                raise Refused(str(error)) from error
        hide(self._token)
        return self._token

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        return self._session


def _address(text: str, setting: str) -> yarl.URL:
    """Raises SettingsError, naming the setting but not the text: it may hold a password."""
    try:
        url = yarl.URL(text)
    except ValueError as error:
        raise SettingsError(f"{setting} is not an address; write one like https://unleash.example") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise SettingsError(
            f"{setting} must be an http or https address with a host, like https://unleash.example"
        )
    if url.user or url.password:
        raise SettingsError(f"{setting} holds a login; Unleash wants a token, in api_token_file")
    return url.with_query(None).with_fragment(None)


def _complaint(content: bytes) -> Complaint:
    try:
        return msgspec.json.decode(content, type=Complaint)
    except msgspec.DecodeError:
        return Complaint()  # a proxy in between speaks HTML: the status has to do


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        content += chunk
        if len(content) > LARGEST_ANSWER_BYTES:
            raise ProviderUnavailable(f"the answer is larger than {LARGEST_ANSWER_BYTES // 1024**2} MiB")
    return bytes(content)
