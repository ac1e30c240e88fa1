"""Asking over HTTP on a source's behalf: as whom, how much of an answer is taken, and what goes wrong in words."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from urllib.parse import quote, quote_plus

import aiohttp
import msgspec
import structlog
import yarl

from controller.errors import SourceUnavailable
from controller.settings import secret_file
from controller.sources import addresses
from controller.sources.addresses import Address
from controller.telemetry import hide

CHUNK_BYTES = 256 * 1024
SHOWN_CHARACTERS = 400
REASONS_LOGGED = 3
# Anything shorter is no secret, and hiding it would make holes in every sentence.
SHORTEST_SECRET = 4

log = structlog.get_logger()


def hidden(secrets: Iterable[str]) -> tuple[str, ...]:
    """Those that are long enough to be secrets, however they are written; no log line shows them from now on."""
    telling = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _forms(secret)}
    for secret in telling:
        hide(secret)
    return tuple(sorted(telling, key=len, reverse=True))


def _forms(secret: str) -> set[str]:
    """As it is, and as a server would repeat it within an address or within JSON."""
    in_address = {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    as_sent = yarl.URL.build(query={"s": secret}).raw_query_string.removeprefix("s=")
    in_json = msgspec.json.encode(secret).decode()[1:-1]
    return {secret, as_sent, in_json} | in_address


def authorization(
    address: Address, *, username: str, password_file: str, bearer_token_file: str
) -> tuple[dict[str, str], list[str]]:
    """The header, if any, and what of it is secret. Raises SettingsError when a file cannot be read."""
    if bearer_token_file:
        token = secret_file(bearer_token_file)
        return {"Authorization": f"Bearer {token}"}, [token]
    user = username or address.user
    if not user:
        return {}, []
    password = secret_file(password_file) if password_file else address.password
    login = addresses.basic_login(user, password)
    return {"Authorization": login}, [password, login.removeprefix("Basic ")]


@contextmanager
def told_in_words(timeout_seconds: float) -> Iterator[None]:
    """What breaks within becomes SourceUnavailable, with text that holds neither the address nor what was sent."""
    try:
        yield
    except TimeoutError as error:
        raise SourceUnavailable(f"no answer within {timeout_seconds:g} s") from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise SourceUnavailable("cannot connect: its certificate is not trusted") from error
    except aiohttp.ClientConnectorError as error:
        reason = error.strerror or "no host answers at this address"
        raise SourceUnavailable(f"cannot connect: {reason}") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # Their text may hold the address or a header; the type is enough. ValueError: a header with a newline.
        raise SourceUnavailable(f"the connection broke ({type(error).__name__})") from error


async def content(response: aiohttp.ClientResponse, *, most_bytes: int) -> bytes:
    """Raises SourceUnavailable as soon as there is more."""
    found = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        found += chunk
        if len(found) > most_bytes:
            raise SourceUnavailable(f"the answer is larger than {most_bytes // 1024**2} MiB")
    return bytes(found)


def clock_of(response: aiohttp.ClientResponse) -> float | None:
    """The server's time by its Date header (Unix seconds), which HTTP lets it leave out."""
    try:
        return parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return None


def shown(reason: str, secrets: Iterable[str]) -> str:
    # A server may echo what it was sent, so secrets go out before the text is cut.
    for secret in secrets:
        reason = reason.replace(secret, "…")
    line = " ".join(reason.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"


class Complaints:
    """Logs only what changed: the same failure comes back every tick."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._last: set[str] = set()

    def are(self, reasons: set[str]) -> None:
        if reasons and reasons != self._last:
            log.warning("source_failed", source=self._source, reasons=sorted(reasons)[:REASONS_LOGGED])
        elif self._last and not reasons:
            log.info("source_recovered", source=self._source)
        self._last = reasons
