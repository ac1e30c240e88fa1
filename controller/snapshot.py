"""The flags as SDKs see them: in memory, overlaid with kills, and never with a version that goes back.

`FlagBoard` holds what is stored and shows what may be served. It needs no store to serve or to kill.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import msgspec
import structlog

from controller.domain.catalogue import FlagConfig, Kill
from controller.domain.plan import FlagRef
from controller.domain.sdkflag import Data, exposes_less, killed, same_but_version, with_version
from controller.ports import Clock

log = structlog.get_logger()

QUEUED_FRAMES = 256
"""How far a subscriber may fall behind before it is cut off; it gets everything again when it comes back."""

RESERVED_AHEAD_MS = 10_000
"""A version issued by a kill should be below the reservation already, because a kill waits for no disk."""


class Place(NamedTuple):
    """Where a flag is on the board. All built-in providers share one."""

    environment: str
    key: str


def place_of(flag: FlagRef) -> Place:
    return Place(flag.environment, flag.key)


class VersionClock:
    """Versions are milliseconds since 1970, or one more than the last, whichever is higher.

    `floor` is the highest version that may have been issued before this process started, and `reserve` makes
    sure that a version and all below it lie under the floor of every later process. It may wait for a disk.
    """

    def __init__(self, *, clock: Clock, floor: int, reserve: Callable[[int], Awaitable[bool]]) -> None:
        self._clock = clock
        self._last = floor
        self._reserve = reserve

    def next(self, above: int = 0) -> int:
        """Higher than `above` and than every version before. Never waits."""
        self._last = max(self._last + 1, above + 1, self._milliseconds())
        return self._last

    async def secure(self) -> bool:
        """Reserve what was issued, and some more for kills to come. False: the disk did not take it."""
        return await self._reserve(max(self._last, self._milliseconds()) + RESERVED_AHEAD_MS)

    def _milliseconds(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


class Snapshot(NamedTuple):
    """All flags of an environment as one JSON body, and its entity tag."""

    body: bytes
    etag: str


class Subscription:
    """Frames for one stream, the snapshot first. Ends when the board closes or the reader falls behind."""

    def __init__(self, first: bytes) -> None:
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED_FRAMES)
        self._frames.put_nowait(first)
        self.fell_behind = False

    def offer(self, frame: bytes) -> bool:
        """False: there is no room, and the stream has been ended."""
        # One place is left for the end.
        if self._frames.qsize() < QUEUED_FRAMES - 1:
            self._frames.put_nowait(frame)
            return True
        self.fell_behind = True
        while not self._frames.empty():
            self._frames.get_nowait()
        self.end()
        return False

    def end(self) -> None:
        """What is queued is still delivered. May be called twice."""
        if not self._frames.full():
            self._frames.put_nowait(None)

    async def frame(self) -> bytes | None:
        """The next frame, or None at the end."""
        return await self._frames.get()


class Watcher(Protocol):
    """Told of every change of what is shown, at once and before anything else happens. Waits for nothing."""

    def changed(self, environment: str, key: str, before: FlagConfig | None) -> None:
        """`before` is what was shown until now."""

    def closed(self) -> None:
        """Streams are to end."""


class FlagBoard:
    """Everything happens at once in the event loop, so whoever reads sees no kill half applied."""

    def __init__(self, versions: VersionClock) -> None:
        self.versions = versions
        self._ready = False
        self.revision = 0  # counts changes of what is stored
        self._stored: dict[Place, FlagConfig] = {}
        self._put_at: dict[Place, int] = {}
        self._kills: defaultdict[Place, set[str]] = defaultdict(set)
        self._shown: defaultdict[str, dict[str, FlagConfig]] = defaultdict(dict)
        self._data: defaultdict[str, dict[str, Data]] = defaultdict(dict)
        self._served: defaultdict[Place, int] = defaultdict(int)
        self._snapshots: dict[str, Snapshot] = {}
        self._subscribers: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._watchers: list[Watcher] = []
        self._closed = False

    # — what is stored, and what holds it down —

    def load(self, configs: Iterable[FlagConfig], kills: Iterable[Kill], *, asked_at: int = 0) -> list[FlagConfig]:
        """Take up what a store or the last known state holds, kills first; ready from then on.

        A flag that is missing from `configs` stays: a short answer is no deletion, only an archived flag is.
        `asked_at` is the board's revision before the store was asked. A flag that is older there than what was
        here by then was forgotten by a failover, and the lower of the two wins: returned are those that expose
        less here, to be stored again as `restored`.
        """
        for kill in kills:
            self.hold_down(kill.flag, kill.id)
        lower_here = []
        for config in configs:
            place = Place(config.environment, config.key)
            present = self._stored.get(place)
            if present is None or present.version <= config.version or self._put_at[place] > asked_at:
                self.put(config)
            elif exposes_less(present, config):
                lower_here.append(present)
            else:
                self._store(place, config)
        self._ready = True
        return lower_here

    @property
    def ready(self) -> bool:
        """Whether what is shown may be served: before, a kill or a flag may be missing from it."""
        return self._ready

    def hold_back(self) -> None:
        """What was loaded may be old: not ready until the next load, or until somebody serves it anyway."""
        self._ready = False

    def serve_anyway(self) -> None:
        """Nothing newer can be had for now, and what there is is better than nothing."""
        self._ready = True

    def restored(self, config: FlagConfig) -> FlagConfig:
        """The same flag above every version that was stored or served of it."""
        return with_version(config, self.versions.next(above=self._highest(Place(config.environment, config.key))))

    def put(self, config: FlagConfig) -> None:
        """Show a newer config of a flag; under a kill, killed. What is not newer is ignored."""
        place = Place(config.environment, config.key)
        present = self._stored.get(place)
        if present is None or config.version > present.version:
            self._store(place, config)

    def _store(self, place: Place, config: FlagConfig) -> None:
        self.revision += 1
        self._stored[place], self._put_at[place] = config, self.revision
        self._show(place)

    def hold_down(self, flag: FlagRef, kill_id: str) -> None:
        """From here on the flag is shown killed, whatever `put` brings. Waits for nothing."""
        place = place_of(flag)
        if kill_id in self._kills[place]:
            return
        self._kills[place].add(kill_id)
        config = self._stored.get(place)
        if config is not None and not config.archived:
            # Sent even if the flag looked killed before: an SDK may have heard otherwise from elsewhere.
            self._publish(place, killed(config, self.versions.next(above=self._highest(place))))

    def lift(self, flag: FlagRef, kill_id: str) -> None:
        """Stop holding the flag down for this kill. What is stored shows again unless another kill holds it."""
        place = place_of(flag)
        self._kills[place].discard(kill_id)
        if not self._kills[place]:
            del self._kills[place]
            if place in self._stored:
                self._show(place)

    # — what is shown —

    def holds(self, flag: FlagRef) -> list[str]:
        """The ids of the kills that hold the flag down."""
        return sorted(self._kills.get(place_of(flag), ()))

    def shown(self, flag: FlagRef) -> FlagConfig | None:
        """The flag as SDKs see it now."""
        return self._shown.get(flag.environment, {}).get(flag.key)

    def flags(self, environment: str) -> Mapping[str, FlagConfig]:
        """All flags as SDKs see them now, by key. Not a copy: it changes with the board."""
        return self._shown[environment]

    def data(self, environment: str) -> Mapping[str, Data]:
        """The same as the JSON that server-side SDKs get."""
        return self._data[environment]

    def version(self, environment: str, key: str) -> int:
        """The highest version of the flag that was ever served."""
        return self._served[Place(environment, key)]

    def stored(self, flag: FlagRef) -> FlagConfig | None:
        """The flag as it is below its kills."""
        return self._stored.get(place_of(flag))

    def configs(self) -> list[FlagConfig]:
        """Every flag as stored, for the last known state."""
        return list(self._stored.values())

    def next_version(self, flag: FlagRef) -> int:
        """For a write of this flag: above all that was stored or served of it."""
        return self.versions.next(above=self._highest(place_of(flag)))

    def snapshot(self, environment: str) -> Snapshot:
        """Made when first asked for after a change, and shared."""
        present = self._snapshots.get(environment)
        if present is None:
            body = msgspec.json.encode({"flags": self._data[environment], "segments": {}})
            present = Snapshot(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
            self._snapshots[environment] = present
        return present

    def _show(self, place: Place) -> None:
        config = self._stored[place]
        present = self._shown[place.environment].get(place.key)
        if config.archived:
            if present is not None:
                self._withdraw(place)
            return
        if self._kills.get(place):
            config = killed(config, config.version)
        if present is not None and same_but_version(present, config):
            # Nothing an SDK could notice, but a version below the stored one would hide the next change.
            if config.version > present.version:
                self._publish(place, config)
            return
        if config.version <= self._served[place]:
            config = with_version(config, self.versions.next(above=self._highest(place)))
        self._publish(place, config)

    def _highest(self, place: Place) -> int:
        stored = self._stored.get(place)
        return max(self._served[place], stored.version if stored else 0)

    def _publish(self, place: Place, config: FlagConfig) -> None:
        before = self._shown[place.environment].get(place.key)
        self._served[place] = config.version
        self._shown[place.environment][place.key] = config
        self._data[place.environment][place.key] = config.data
        self._send(place.environment, "patch", {"path": f"/flags/{place.key}", "data": config.data})
        self._tell(place, before)

    def _withdraw(self, place: Place) -> None:
        version = self._served[place] = self.versions.next(above=self._highest(place))
        before = self._shown[place.environment].pop(place.key)
        del self._data[place.environment][place.key]
        self._send(place.environment, "delete", {"path": f"/flags/{place.key}", "version": version})
        self._tell(place, before)

    # — who listens —

    def watch(self, watcher: Watcher) -> None:
        """From here on, for good."""
        self._watchers.append(watcher)
        if self._closed:
            watcher.closed()

    def subscribe(self, environment: str) -> Subscription:
        body = self.snapshot(environment).body
        subscription = Subscription(b'event: put\ndata: {"path":"/","data":%s}\n\n' % body)
        self._subscribers[environment].add(subscription)
        if self._closed:
            subscription.end()
        return subscription

    def unsubscribe(self, environment: str, subscription: Subscription) -> None:
        self._subscribers[environment].discard(subscription)

    @contextmanager
    def listening(self, environment: str) -> Iterator[Subscription]:
        subscription = self.subscribe(environment)
        try:
            yield subscription
        finally:
            self.unsubscribe(environment, subscription)

    def close(self) -> None:
        """End all streams, each after what is queued for it."""
        self._closed = True
        for subscribers in self._subscribers.values():
            for subscription in subscribers:
                subscription.end()
        for watcher in self._watchers:
            watcher.closed()

    def _tell(self, place: Place, before: FlagConfig | None) -> None:
        for watcher in self._watchers:
            watcher.changed(place.environment, place.key, before)

    def _send(self, environment: str, event: str, data: object) -> None:
        """Encoded once, shared by all. The put of an earlier subscriber holds its place in the queue."""
        self._snapshots.pop(environment, None)
        subscribers = self._subscribers[environment]
        if not subscribers:
            return
        frame = b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(data))
        slow = [one for one in subscribers if not one.offer(frame)]
        if slow:
            log.warning("streams_too_slow", environment=environment, ended=len(slow))
            subscribers.difference_update(slow)
