"""The flags as SDKs see them: in memory, overlaid with kills, and never with a version that goes back.

`FlagBoard` holds what is stored and shows what may be served. It needs no store to serve or to kill.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import msgspec
import structlog

from controller.domain import mirrored
from controller.domain.catalogue import FlagConfig, KillRecord
from controller.domain.plan import FlagRef, Serve
from controller.domain.sdkflag import Data, exposes_less, killed, same_but_version, with_version
from controller.ports import Clock

log = structlog.get_logger()

QUEUED_FRAMES = 256
"""How far a subscriber may fall behind before it is cut off; it gets everything again when it comes back."""

RESERVED_AHEAD_MS = 10_000
"""A version issued by a kill should be below the reservation already, because a kill waits for no disk."""


PATCHES_AT_ONCE = 64
"""Changed by one message of another provider. Of more than these, streams are told everything once instead."""


class Place(NamedTuple):
    """Where a flag is on the board. All built-in providers share one environment of that name."""

    environment: str
    key: str


def mirror_of(provider: str, environment: str) -> str:
    """Where the flags of another provider's environment are on the board: no name holds a slash."""
    return f"{provider}/{environment}"


class Mirror:
    """An environment of another provider. `known` from its first flags on; `segments` belong to them.

    `lingering` are flags whose kill was reset before the other side was seen to have it: they stay as the kill
    left them (True: on, by the fallback alone) until everything has come anew.
    """

    def __init__(self, resync: Callable[[], None]) -> None:
        self.known = False
        self.segments: dict[str, Data] = {}
        self.lingering: dict[str, bool] = {}
        self.resync = resync


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

    def segments_changed(self, environment: str) -> None:
        """Any flag of the environment may serve something else from now on."""

    def closed(self) -> None:
        """Streams are to end."""


class FlagBoard:
    """Everything happens at once in the event loop, so whoever reads sees no kill half applied."""

    def __init__(self, versions: VersionClock, *, others: Collection[str] = ()) -> None:
        """`others` are the providers whose flags are not ours: what is killed of theirs is none of our own."""
        self.versions = versions
        self._ready = False
        self.revision = 0  # counts changes of what is stored
        self._others = frozenset(others)
        self._mirrors: dict[str, Mirror] = {}
        self._stored: dict[Place, FlagConfig] = {}
        self._put_at: dict[Place, int] = {}
        self._kills: defaultdict[Place, dict[str, bool]] = defaultdict(dict)
        self._shown: defaultdict[str, dict[str, FlagConfig]] = defaultdict(dict)
        self._data: defaultdict[str, dict[str, Data]] = defaultdict(dict)
        self._served: defaultdict[Place, int] = defaultdict(int)
        self._snapshots: dict[str, Snapshot] = {}
        self._subscribers: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._watchers: list[Watcher] = []
        self._unsent: list[bytes] | None = None
        self._closed = False

    def _place_of(self, flag: FlagRef) -> Place:
        if flag.provider in self._others:
            return Place(mirror_of(flag.provider, flag.environment), flag.key)
        return Place(flag.environment, flag.key)

    # — what is stored, and what holds it down —

    def load(
        self, configs: Iterable[FlagConfig], kills: Iterable[KillRecord], *, asked_at: int = 0
    ) -> list[FlagConfig]:
        """Take up what a store or the last known state holds, kills first; ready from then on.

        A flag that is missing from `configs` stays: a short answer is no deletion, only an archived flag is.
        `asked_at` is the board's revision before the store was asked. A flag that is older there than what was
        here by then was forgotten by a failover, and the lower of the two wins: returned are those that expose
        less here, to be stored again as `restored`.
        """
        for record in kills:
            self.hold_down(record.kill.flag, record.kill.id, record.serve)
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

    def hold_down(self, flag: FlagRef, kill_id: str, serve: Serve | None = None) -> None:
        """From here on the flag is shown killed, whatever `put` brings. Waits for nothing.

        Does nothing for a flag that is not shown here at all: nobody would ever lift that.
        """
        place = self._place_of(flag)
        if flag.provider in self._others and place.environment not in self._mirrors:
            return
        if kill_id in self._kills[place]:
            return
        self._kills[place][kill_id] = serve is not None and serve.kill == "fallthrough"
        config = self._stored.get(place)
        if config is None or config.archived:
            return
        if place.environment in self._mirrors:
            self._show(place)
        else:
            # Sent even if the flag looked killed before: an SDK may have heard otherwise from elsewhere.
            leave_on = self._leave_on(place)
            self._publish(place, killed(config, self._above(place), leave_on=leave_on))

    def lift(self, flag: FlagRef, kill_id: str) -> None:
        """Stop holding the flag down for this kill. What is stored shows again unless another kill holds it."""
        place = self._place_of(flag)
        leave_on = self._leave_on(place)
        self._kills[place].pop(kill_id, None)
        if self._kills[place]:
            return
        del self._kills[place]
        if place not in self._stored:
            return
        mirror = self._mirrors.get(place.environment)
        if mirror and not mirrored.is_killed(self._stored[place], leave_on=leave_on):
            # What we know of the flag may be older than the kill: it would come back by itself.
            mirror.lingering[place.key] = leave_on
            mirror.resync()
        self._show(place)

    def _leave_on(self, place: Place) -> bool:
        """Whether every kill of the flag leaves it on, with the fallback by default."""
        return all(self._kills.get(place, {"none": False}).values())

    # — flags of other providers, as applications are told of them there —

    def mirror(self, provider: str, environment: str, resync: Callable[[], None]) -> str:
        """From here on the environment is shown, too: under the name that is returned, as soon as it is known.

        `resync` asks for everything anew: what comes then counts, whatever was killed before.
        """
        name = mirror_of(provider, environment)
        self._mirrors[name] = Mirror(resync)
        return name

    def knows(self, environment: str) -> bool:
        """Whether there is something to serve of the environment."""
        return environment not in self._mirrors or self._mirrors[environment].known

    def mirrors(self, flag: FlagRef) -> bool:
        """Whether the flag is one of another provider's, and applications are shown it here."""
        return self._place_of(flag).environment in self._mirrors

    def take_everything(
        self, environment: str, configs: Mapping[str, FlagConfig], segments: Mapping[str, Data]
    ) -> None:
        """All there is of a mirrored environment: what is missing is gone, whatever the versions say."""
        mirror = self._mirrors[environment]
        mirror.lingering = {}
        with self._together(environment):
            self._take_segments(environment, segments)
            for place in [one for one in self._stored if one.environment == environment]:
                if place.key not in configs:
                    self.drop(environment, place.key)
            for key, config in configs.items():
                self._stored[Place(environment, key)] = config
                self._show(Place(environment, key))
        mirror.known = True

    def take(self, config: FlagConfig) -> None:
        """One flag of a mirrored environment. What is not newer is ignored, as SDKs do."""
        place = Place(config.environment, config.key)
        present = self._stored.get(place)
        if present is None or config.version > present.version:
            self._stored[place] = config
            self._show(place)

    def drop(self, environment: str, key: str, version: int = 0) -> None:
        """One flag of a mirrored environment is gone."""
        place = Place(environment, key)
        if self._stored.pop(place, None) is not None:
            self._mirrors[environment].lingering.pop(key, None)
            self._withdraw(place, version)

    def take_segment(self, environment: str, key: str, segment: Data) -> None:
        self._take_segments(environment, {**self._mirrors[environment].segments, key: segment})

    def drop_segment(self, environment: str, key: str) -> None:
        segments = self._mirrors[environment].segments
        self._take_segments(environment, {one: segment for one, segment in segments.items() if one != key})

    def _take_segments(self, environment: str, segments: Mapping[str, Data]) -> None:
        mirror = self._mirrors[environment]
        before = mirror.segments
        after = {key: mirrored.newer_segment(before.get(key), segment) for key, segment in segments.items()}
        if after == before:
            return
        mirror.segments = after
        for key in before.keys() | after.keys():
            if key not in after:
                version = before[key].get("version", 0) + 1
                self._send(environment, "delete", {"path": f"/segments/{key}", "version": version})
            elif after[key] != before.get(key):
                self._send(environment, "patch", {"path": f"/segments/{key}", "data": after[key]})
        for watcher in self._watchers:
            watcher.segments_changed(environment)

    @contextmanager
    def _together(self, environment: str) -> Iterator[None]:
        """What is sent meanwhile arrives as one, when it is so much that streams could not hold it."""
        self._unsent = []
        try:
            yield
        finally:
            frames, self._unsent = self._unsent, None
            if len(frames) > PATCHES_AT_ONCE:
                frames = [self._everything(environment)]
            for frame in frames:
                self._offer(environment, frame)

    def overlaid(self, environment: str) -> int:
        """How many flags of a mirrored environment are shown otherwise than they are there."""
        lingering = self._mirrors[environment].lingering
        held = {place.key for place in self._kills if place.environment == environment}
        return sum(self._is_overlaid(Place(environment, key)) for key in held | lingering.keys())

    def _is_overlaid(self, place: Place) -> bool:
        config, shown = self._stored.get(place), self._shown[place.environment].get(place.key)
        return config is not None and shown is not None and not same_but_version(config, shown)

    def mirror_contents(self, environment: str) -> tuple[dict[str, Data], dict[str, Data]]:
        """Flags and segments as a start without the other provider needs them, by key."""
        mirror = self._mirrors[environment]
        flags = {one.key: one.data for one in self._stored.values() if one.environment == environment}
        for key in mirror.lingering:
            flags[key] = self._data[environment][key]
        return flags, dict(mirror.segments)

    # — what is shown —

    def holds(self, flag: FlagRef) -> list[str]:
        """The ids of the kills that hold the flag down."""
        return sorted(self._kills.get(self._place_of(flag), ()))

    def shown(self, flag: FlagRef) -> FlagConfig | None:
        """The flag as SDKs see it now."""
        place = self._place_of(flag)
        return self._shown.get(place.environment, {}).get(place.key)

    def flags(self, environment: str) -> Mapping[str, FlagConfig]:
        """All flags as SDKs see them now, by key. Not a copy: it changes with the board."""
        return self._shown[environment]

    def segments(self, environment: str) -> Mapping[str, Data]:
        """The groups of contexts that flags of a mirrored environment refer to; our own refer to none."""
        mirror = self._mirrors.get(environment)
        return mirror.segments if mirror else {}

    def data(self, environment: str) -> Mapping[str, Data]:
        """The same as the JSON that server-side SDKs get."""
        return self._data[environment]

    def version(self, environment: str, key: str) -> int:
        """The highest version of the flag that was ever served."""
        return self._served[Place(environment, key)]

    def stored(self, flag: FlagRef) -> FlagConfig | None:
        """The flag as it is below its kills."""
        return self._stored.get(self._place_of(flag))

    def configs(self) -> list[FlagConfig]:
        """Every flag of our own as stored, for the last known state."""
        return [one for place, one in self._stored.items() if place.environment not in self._mirrors]

    def next_version(self, flag: FlagRef) -> int:
        """For a write of this flag: above all that was stored or served of it."""
        return self.versions.next(above=self._highest(self._place_of(flag)))

    def snapshot(self, environment: str) -> Snapshot:
        """Made when first asked for after a change, and shared."""
        present = self._snapshots.get(environment)
        if present is None:
            body = msgspec.json.encode({"flags": self._data[environment], "segments": self.segments(environment)})
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
        config = self._held(place, config)
        if present is not None and same_but_version(present, config):
            # Nothing an SDK could notice, but a version below the stored one would hide the next change.
            if config.version > present.version:
                self._publish(place, config)
            return
        if config.version <= self._served[place]:
            config = with_version(config, self._above(place))
        self._publish(place, config)

    def _held(self, place: Place, config: FlagConfig) -> FlagConfig:
        """What may be shown of it: the same, or killed."""
        mirror = self._mirrors.get(place.environment)
        if mirror is None:
            held = bool(self._kills.get(place))
            return killed(config, config.version, leave_on=self._leave_on(place)) if held else config
        leave_on = self._leave_on(place) if self._kills.get(place) else mirror.lingering.get(place.key)
        if leave_on is None or mirrored.is_killed(config, leave_on=leave_on):
            return config
        return mirrored.killed(config, leave_on=leave_on)

    def _highest(self, place: Place) -> int:
        stored = self._stored.get(place)
        return max(self._served[place], stored.version if stored else 0)

    def _above(self, place: Place) -> int:
        """A version above all of this flag. Of a mirrored one it stays close to what it is there."""
        highest = self._highest(place)
        return highest + 1 if place.environment in self._mirrors else self.versions.next(above=highest)

    def _publish(self, place: Place, config: FlagConfig) -> None:
        before = self._shown[place.environment].get(place.key)
        self._served[place] = config.version
        self._shown[place.environment][place.key] = config
        self._data[place.environment][place.key] = config.data
        self._send(place.environment, "patch", {"path": f"/flags/{place.key}", "data": config.data})
        self._tell(place, before)

    def _withdraw(self, place: Place, version: int = 0) -> None:
        version = self._served[place] = max(version, self._above(place))
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
        subscription = Subscription(self._everything(environment))
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

    def _everything(self, environment: str) -> bytes:
        return b'event: put\ndata: {"path":"/","data":%s}\n\n' % self.snapshot(environment).body

    def _send(self, environment: str, event: str, data: object) -> None:
        """Encoded once, shared by all. The put of an earlier subscriber holds its place in the queue."""
        self._snapshots.pop(environment, None)
        if not self._subscribers[environment]:
            return
        frame = b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(data))
        if self._unsent is None:
            self._offer(environment, frame)
        else:
            self._unsent.append(frame)

    def _offer(self, environment: str, frame: bytes) -> None:
        subscribers = self._subscribers[environment]
        slow = [one for one in subscribers if not one.offer(frame)]
        if slow:
            log.warning("streams_too_slow", environment=environment, ended=len(slow))
            subscribers.difference_update(slow)


class Overlay:
    """Kills laid over the flags of other providers, where applications are shown them here. Waits for nothing."""

    def __init__(self, board: FlagBoard, replica: str) -> None:
        self._board = board
        self._replica = replica

    def cover(self, flag: FlagRef, kill_id: str, serve: Serve | None) -> tuple[str, ...]:
        """From here on whoever reads the flag here has it killed. Returns by whom that is: nobody, or this one."""
        if not self._board.mirrors(flag):
            return ()
        self._board.hold_down(flag, kill_id, serve)
        return () if self._board.shown(flag) is None else (self._replica,)

    def uncover(self, flag: FlagRef, kill_id: str) -> None:
        if self._board.mirrors(flag):
            self._board.lift(flag, kill_id)
