"""One request to a receiver over HTTP: guarded, never redirected, sent once, and answered in our terms.

Taken is 2xx. Not now (Unavailable) is no answer, 408, 409, 425, 429 and 5xx. Anything else is never
(Undeliverable). The text of either holds what the receiver said, and neither its address nor a secret.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import quote, quote_plus

import aiohttp
import msgspec
import yarl

from controller import __version__
from controller.channels.guard import AddressRefused, connector
from controller.channels.names import OwnResolver
from controller.domain.telling import one_line, shortened
from controller.errors import SettingsError, Unavailable, Undeliverable
from controller.settings import secret_file
from controller.telemetry import hide

NOT_NOW = frozenset({408, 409, 425, 429})
LONGEST_AGAIN_SECONDS = 3600.0
"""A receiver that wants to be left alone for longer is asked each hour nevertheless."""

READ_BYTES = 4096
READ_SECONDS = 1.0
SHOWN_CHARACTERS = 200
# Anything shorter is no secret, and hiding it would make holes in every sentence.
SHORTEST_SECRET = 8
# In an address, words are shorter than tokens.
TELLING_CHARACTERS = 12


class Outbound:
    """`channel` is the name in the settings, for what people are told to mend."""

    def __init__(self, channel: str, *, allow_private: bool, timeout_seconds: float) -> None:
        self._channel = channel
        self._allow_private = allow_private
        self._timeout_seconds = timeout_seconds
        self._resolver = OwnResolver(channel)
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, url: yarl.URL, body: bytes, headers: Mapping[str, str], *, secrets: Iterable[str] = ()
    ) -> None:
        """Returns once it was taken. Raises Unavailable, Undeliverable. No log shows `secrets` from then on."""
        told = {form for secret in secrets for form in _forms(secret)}
        for secret in told:
            hide(secret)
        with self._in_words():
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._connected().post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                status = response.status
                if status // 100 == 2:
                    return  # whatever else it says: it was taken
                said = await _beginning(response)
        raise _problem(status, _shown(said, told), _again_in(response.headers))

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None
        await self._resolver.close()

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=connector(self._resolver, allow_private=self._allow_private),
                cookie_jar=aiohttp.DummyCookieJar(),
                # What it says is cut and shown, never unpacked.
                auto_decompress=False,
                headers={
                    "User-Agent": f"Rampart/{__version__}",
                    "Accept-Encoding": "identity",
                    "Content-Type": "application/json",
                },
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise Unavailable(f"no answer within {self._timeout_seconds:g} s") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unavailable("cannot connect: its certificate is not trusted") from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, AddressRefused):
                raise Undeliverable(self._refused()) from error
            raise Unavailable(f"cannot connect: {error.strerror or 'its name leads nowhere'}") from error
        except aiohttp.InvalidURL as error:
            raise Undeliverable("the address of the receiver is none") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Their text may hold the address or a header; the type is enough. ValueError: a header with a newline.
            raise Unavailable(f"the connection broke ({type(error).__name__})") from None

    def _refused(self) -> str:
        if self._allow_private:
            return "nothing was sent: its address belongs to no receiver (link-local, multicast or a cloud's own)"
        return (
            "nothing was sent: its address is private. If the receiver stands in your own network, set "
            f"allow_private = true in [channels.{self._channel}]"
        )


def address(text: str, setting: str) -> yarl.URL:
    """Raises SettingsError, naming the setting but not the text: it may hold a secret."""
    try:
        url = yarl.URL(text)
        usable = url.scheme in {"http", "https"} and bool(url.host) and url.port is not None
    except ValueError as error:
        raise SettingsError(f"{setting} is not an address; write one like https://host/path") from error
    if not usable:
        raise SettingsError(f"{setting} must be an http or https address with a host, like https://host/path")
    return url


async def secrets_of(*files: str) -> list[str]:
    """Read for every message, so that a secret can be exchanged without a restart. Raises Unavailable."""
    try:
        found = [await asyncio.to_thread(secret_file, file) for file in files]
    except (SettingsError, UnicodeDecodeError) as error:
        why = str(error) if isinstance(error, SettingsError) else "a secret file is no text"
        raise Unavailable(why) from None
    for file, secret in zip(files, found, strict=True):
        if not secret:
            raise Unavailable(f"the secret file {file} is empty")
    return found


async def secret_address(file: str) -> tuple[yarl.URL, list[str]]:
    """The address in the file, and what of it must not be shown. Raises Unavailable."""
    (text,) = await secrets_of(file)
    try:
        url = address(text, f"what stands in {file}")
    except SettingsError as error:
        raise Unavailable(str(error)) from None
    telling_parts = [part for part in url.parts if len(part) >= TELLING_CHARACTERS]
    return url, [text, url.raw_path_qs, *telling_parts, *secrets_in(url)]


def secrets_in(url: yarl.URL) -> list[str]:
    """Of an address that stands in the settings themselves: what is often a token."""
    return [str(url), *(text for text in url.query.values() if len(text) >= TELLING_CHARACTERS)]


def _problem(status: int, said: str, again_in: float | None) -> Unavailable | Undeliverable:
    says = f": {said}" if said else ""
    if status == HTTPStatus.GONE:
        return Undeliverable(f"the receiver asks to be left alone (410){says}")
    if status // 100 == 3:
        return Undeliverable(
            f"it answered with a redirect ({status}), which is not followed: name the address itself"
        )
    if status in NOT_NOW or status >= 500:
        return Unavailable(f"it answered {status}{says}", again_in=again_in)
    return Undeliverable(f"it refused the message ({status}){says}")


def _again_in(headers: Mapping[str, str]) -> float | None:
    """Seconds. A date is compared with the receiver's own clock, or means nothing."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_AGAIN_SECONDS)
    try:
        until, now = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("Date", ""))
        return min(max((until - now).total_seconds(), 0.0), LONGEST_AGAIN_SECONDS)
    except (ValueError, TypeError):
        return None


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Of the words to an error. They may stay away: its status says enough."""
    found = bytearray()
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(READ_SECONDS):
            while len(found) < READ_BYTES and (chunk := await response.content.readany()):
                found += chunk
    return bytes(found[:READ_BYTES])


def _forms(secret: str) -> set[str]:
    """As it is, and as a receiver would repeat it within an address or within JSON."""
    if len(secret) < SHORTEST_SECRET:
        return set()
    return {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        msgspec.json.encode(secret).decode()[1:-1],
    }


def _shown(said: bytes, secrets: Iterable[str]) -> str:
    # A receiver may echo what it was sent, so secrets go out before the text is cut.
    text = said.decode("utf-8", "replace")
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    return shortened(one_line(text), SHOWN_CHARACTERS)
