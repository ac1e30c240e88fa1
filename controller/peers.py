"""The other replicas over HTTP: told of kills directly, so that a kill needs neither database nor name service.

Each address is greeted every two seconds with a message that holds no kills. That keeps a connection open, so that
a kill need not wait for one, and shows early who does not answer or does not know our secret.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from time import monotonic

import aiohttp
import msgspec
import structlog
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct

from controller.access import digest
from controller.domain.catalogue import KillRecord, PeerAnswer
from controller.errors import SettingsError, Unavailable
from controller.settings import PeersSettings, secret_file
from controller.telemetry import Metrics, hide

log = structlog.get_logger()

ROUTE = "/api/v1/peers/kills"
GREET_SECONDS = 2.0
"""Less than the five seconds after which the other side closes an idle connection."""

NAMES_KEPT_SECONDS = 10.0
KILLS_PER_MESSAGE = 100
MESSAGE_BYTES = 512 * 1024
ANSWER_BYTES = 64 * 1024
SHORTEST_SECRET = 16

_answers = msgspec.json.Decoder(PeerAnswer)
_REFUSED = {
    400: "it does not understand the messages of this version",
    401: "it has another secret",
    404: "it has no secret",
    413: "the message is too large for it",
    429: "too many wrong secrets came from here",
}


class PeerSilent(Unavailable):
    """No answer that counts. `result` is one of a closed set, for the metrics."""

    def __init__(self, result: str, message: str) -> None:
        super().__init__(message)
        self.result = result


class Sighting(Struct, frozen=True):
    """What came of the latest message to one address. `problem` is empty when `replica` answered."""

    address: str
    replica: str = ""
    problem: str = "not asked yet"


class HttpPeers:
    """`ports.Peers`. Without a secret there are no peers."""

    def __init__(self, settings: PeersSettings, *, own: str, metrics: Metrics) -> None:
        """`own` is this replica's name: addresses that turn out to be ours are not told. Raises SettingsError."""
        self._own = own
        self._metrics = metrics
        self._timeout = settings.timeout_seconds
        self._secret = shared_secret(settings)
        self.secret_digest = digest(self._secret) if self._secret else b""
        self._names = KeptNames()
        self._directory = Directory(settings, self._names)
        self._sightings: dict[yarl.URL, Sighting] = {}
        self._session: aiohttp.ClientSession | None = None
        self._greeting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Greet the others from now on."""
        if self._secret:
            self._greeting = asyncio.create_task(self._greet_forever())

    def sightings(self) -> list[Sighting]:
        """Every address that is known, with what came of the latest message to it; without our own."""
        seen = [self._sightings.get(url, Sighting(shown(url))) for url in self._directory.addresses()]
        return [one for one in seen if one.replica != self._own]

    async def tell(self, kills: Sequence[KillRecord]) -> AsyncIterator[PeerAnswer]:
        """All at the same time; the answers as they come. Never raises: who is silent is missing."""
        if not self._secret or not kills:
            return
        messages = list(_messages(self._own, kills))
        others = [url for url in self._directory.addresses() if not self._is_own(url)]
        telling = [asyncio.create_task(self._tell(url, messages)) for url in others]
        for told in asyncio.as_completed(telling):
            for answer in await told:
                if answer.replica != self._own:
                    yield answer

    async def close(self) -> None:
        if self._greeting is not None:
            self._greeting.cancel()
            await asyncio.wait([self._greeting])
        await self._names.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _is_own(self, url: yarl.URL) -> bool:
        seen = self._sightings.get(url)
        return seen is not None and seen.replica == self._own

    # — greeting —

    async def _greet_forever(self) -> None:
        while True:
            try:
                await self._directory.refresh(answering=self._answering())
                await asyncio.gather(*(self._tell(url, [_message(self._own, [])]) for url in self._known()))
            except Exception:
                log.exception("peers_not_greeted")
            await asyncio.sleep(GREET_SECONDS)

    def _answering(self) -> set[yarl.URL]:
        return {url for url, seen in self._sightings.items() if not seen.problem}

    def _known(self) -> list[yarl.URL]:
        """All addresses; what was seen of others is forgotten."""
        known = self._directory.addresses()
        self._sightings = {url: seen for url, seen in self._sightings.items() if url in known}
        return known

    # — one peer —

    async def _tell(self, url: yarl.URL, messages: Sequence[bytes]) -> list[PeerAnswer]:
        """The answers to the messages up to the first that fails."""
        answers: list[PeerAnswer] = []
        try:
            for message in messages:
                answers.append(await self._say(url, message))
        except PeerSilent as silent:
            self._metrics.peer_request(silent.result)
            self._note(Sighting(shown(url), problem=str(silent)), url)
        else:
            self._metrics.peer_request("ok")
            self._note(Sighting(shown(url), replica=answers[-1].replica, problem=""), url)
        return answers

    def _note(self, seen: Sighting, url: yarl.URL) -> None:
        before = self._sightings.get(url)
        self._sightings[url] = seen
        if before == seen:
            return
        if seen.problem:
            log.warning("peer_silent", address=seen.address, problem=seen.problem)
        else:
            log.info("peer_answers", address=seen.address, replica=seen.replica)

    async def _say(self, url: yarl.URL, message: bytes) -> PeerAnswer:
        """One message and its answer. Raises PeerSilent."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(url, message)
        except PeerSilent:
            raise
        except TimeoutError:
            raise PeerSilent("timeout", f"no answer within {self._timeout:g} s") from None
        except aiohttp.ClientConnectionError as error:
            raise PeerSilent("unreachable", f"cannot be reached: {_why(error)}") from error
        except (aiohttp.ClientError, msgspec.MsgspecError) as error:
            raise PeerSilent("garbled", f"answers as no replica does ({type(error).__name__})") from error
        except Exception as error:
            log.exception("peer_not_told", address=shown(url))
            raise PeerSilent("failed", f"cannot be told ({type(error).__name__})") from error

    async def _exchange(self, url: yarl.URL, message: bytes) -> PeerAnswer:
        try:
            return await self._post(url, message)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                raise
            # The other side closed a connection that was kept open; a new one may do, and twice told does no harm.
            return await self._post(url, message)

    async def _post(self, url: yarl.URL, message: bytes) -> PeerAnswer:
        async with self._opened().post(url, data=message, allow_redirects=False) as response:
            if response.status != 200:
                why = _REFUSED.get(response.status, "it is not a replica, or too busy")
                raise PeerSilent("refused", f"answers {response.status}: {why}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > ANSWER_BYTES:
                    raise PeerSilent("garbled", "answers with more than any replica would")
            return _answers.decode(body)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0, keepalive_timeout=60.0, resolver=self._names, use_dns_cache=False
            )
            headers = {"Authorization": f"Bearer {self._secret}", "Content-Type": "application/json"}
            self._session = aiohttp.ClientSession(
                connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )  # fmt: skip
        return self._session


# — where they are —


class Directory:
    """Addresses as the settings name them, and as the name service lists them at the moment."""

    def __init__(self, settings: PeersSettings, names: "KeptNames") -> None:
        self._urls = tuple(dict.fromkeys(_peer_url(text) for text in settings.urls))
        self._service = _service(settings.dns) if settings.dns else None
        self._names = names
        self._listed: tuple[yarl.URL, ...] = ()

    def addresses(self) -> list[yarl.URL]:
        return list(dict.fromkeys((*self._urls, *self._listed)))

    async def refresh(self, *, answering: set[yarl.URL]) -> None:
        """Ask anew. An address that answers is kept though it is listed no more: the list may be of ready ones."""
        if self._service is None:
            return
        host, port = self._service
        try:
            found = await self._names.resolve(host, port, socket.AF_UNSPEC)
        except OSError:
            return  # logged by whoever looked it up; what was listed before stays
        listed = [yarl.URL.build(scheme="http", host=one["host"], port=port, path=ROUTE) for one in found]
        kept = [url for url in self._listed if url in answering]
        self._listed = tuple(dict.fromkeys((*listed, *kept)))


class KeptNames(AbstractResolver):
    """Answers of the name service, kept while it is away and renewed behind the back of whoever asks."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, list[tuple[int, str]]]] = {}
        self._renewing: dict[str, asyncio.Task[None]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Waits only for the first answer there ever was. Raises OSError when there is none yet."""
        if host not in self._found:
            await self._look_up(host)
        at, found = self._found[host]
        if monotonic() - at > NAMES_KEPT_SECONDS and host not in self._renewing:
            self._renewing[host] = asyncio.create_task(self._renew(host))
        wanted = [one for one in found if family in (socket.AF_UNSPEC, one[0])]
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST
            )
            for kind, address in wanted
        ]

    async def close(self) -> None:
        for task in self._renewing.values():
            task.cancel()

    async def _renew(self, host: str) -> None:
        try:
            await self._look_up(host)
        except OSError as error:
            log.warning("peer_name_kept", host=host, error=str(error))
            self._found[host] = (monotonic(), self._found[host][1])
        finally:
            del self._renewing[host]

    async def _look_up(self, host: str) -> None:
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        found = [(int(info[0]), str(info[4][0])) for info in infos]
        self._found[host] = (monotonic(), list(dict.fromkeys(found)))


# — messages —


def _messages(own: str, kills: Sequence[KillRecord]) -> Iterator[bytes]:
    """As few as their bounds allow."""
    encoded = [msgspec.json.encode(kill) for kill in kills]
    batch: list[bytes] = []
    for one in encoded:
        if batch and (len(batch) >= KILLS_PER_MESSAGE or sum(map(len, batch)) + len(one) > MESSAGE_BYTES):
            yield _message(own, batch)
            batch = []
        batch.append(one)
    if batch:
        yield _message(own, batch)


def _message(own: str, encoded: Sequence[bytes]) -> bytes:
    return msgspec.json.encode({"from": own, "kills": [msgspec.Raw(one) for one in encoded]})


def shown(url: yarl.URL) -> str:
    return str(url.origin())


def _why(error: aiohttp.ClientConnectionError) -> str:
    """In a few words: the error's own text names addresses and objects of the library."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name service does not know it"
    if isinstance(error, aiohttp.ClientSSLError):
        return "no secure connection comes about; is its certificate good?"
    if isinstance(error, aiohttp.ClientConnectorError):
        refused = isinstance(error.os_error, ConnectionRefusedError)
        return "nothing listens there" if refused else "no connection comes about"
    return "the connection broke"


# — settings —


def shared_secret(settings: PeersSettings) -> str:
    """The secret of all replicas; empty when this one neither tells nor listens. Raises SettingsError."""
    if not settings.secret_file:
        if settings.urls or settings.dns:
            raise SettingsError(
                "peers.secret_file is missing: write one secret into a file at every replica "
                "(openssl rand -hex 32) and name the file there"
            )
        return ""
    secret = secret_file(settings.secret_file)
    hide(secret)
    if len(secret) < SHORTEST_SECRET or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise SettingsError(
            f"what is in peers.secret_file ({settings.secret_file}) is no secret: at least {SHORTEST_SECRET} "
            "letters and digits in one line, the same at every replica; make one with openssl rand -hex 32"
        )
    return secret


def _peer_url(text: str) -> yarl.URL:
    try:
        url = yarl.URL(text)
    except ValueError as error:
        raise SettingsError("peers.urls holds something that is no address") from error
    if url.scheme not in {"http", "https"} or not url.host or url.user or url.password or url.query_string:
        raise SettingsError(
            "peers.urls must be http or https addresses without a login, like http://rampart-1:8400"
        )
    return url.with_fragment(None).with_path(url.path.rstrip("/") + ROUTE)


def _service(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
        raise SettingsError('peers.dns must be a name and a port, like "rampart-headless:8400"')
    return host.strip("[]"), int(port)
