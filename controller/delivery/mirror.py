"""What LaunchDarkly tells an SDK of one environment, put on the board, and kept on disk for a start without it."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from controller.delivery.server_events import ServerEvent
from controller.delivery.upstream import Garbled
from controller.domain.catalogue import FlagConfig
from controller.domain.mirrored import mirrored_flag
from controller.domain.sdkflag import Data
from controller.ports import Clock
from controller.snapshot import FlagBoard

log = structlog.get_logger()

LARGE_BYTES = 128 * 1024
"""What is larger is read in a thread: a kill must not wait for it."""

SAVE_AGAIN_SECONDS = 10.0
SAVE_SECONDS = 0.5
"""How long changes are gathered before they are written down."""

FLAGS, SEGMENTS = "/flags/", "/segments/"


class Kept(Struct, frozen=True, kw_only=True):
    """The file: whose flags these are (`origin` gives nothing of the key away), as they were at `saved_at`."""

    origin: str
    saved_at: datetime
    flags: dict[str, Data]
    segments: dict[str, Data]


class Everything(Struct, frozen=True):
    flags: dict[str, Data] = {}
    segments: dict[str, Data] = {}


class Put(Struct, frozen=True):
    data: Everything


class Patch(Struct, frozen=True):
    path: str
    data: Data


class Delete(Struct, frozen=True):
    path: str
    version: int = 0


Message = Put | Patch | Delete
SHAPES: dict[str, type[Message]] = {"put": Put, "patch": Patch, "delete": Delete}


class Mirror:
    """One environment on the board. `changed` is told of whatever was taken up.

    Between `outdate` and `begin` nothing is taken up: it was on its way before everything was asked for anew.
    """

    def __init__(
        self,
        board: FlagBoard,
        environment: str,
        *,
        path: Path,
        origin: str,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self._outdated = False
        self._board = board
        self._environment = environment
        self._path = path
        self._origin = origin
        self._clock = clock
        self._changed = changed
        self._unsaved = asyncio.Event()
        self._saving = asyncio.Lock()
        self._keeping: asyncio.Task[None] | None = None

    # — the stream —

    def outdate(self) -> None:
        self._outdated = True
        self._unsaved.set()

    def begin(self) -> None:
        self._outdated = False

    async def take(self, event: ServerEvent) -> None:
        """Raises Garbled, and nothing was taken up then."""
        shape = SHAPES.get(event.kind)
        if shape is None:
            return  # what later servers say to later SDKs
        said = await self._read(event.data, shape)
        if self._outdated:
            return
        match said:
            case Put(data=everything):
                self._put(everything.flags, everything.segments)
            case Patch():
                self._patch(said)
            case Delete():
                self._delete(said)
        self._unsaved.set()
        self._changed()

    async def _read(self, data: bytes, shape: type[Message]) -> Message:
        try:
            if len(data) > LARGE_BYTES:
                return await asyncio.to_thread(_decoded, data, shape)
            return _decoded(data, shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Garbled(f"a message that is no {shape.__name__.lower()}: {error}") from error

    def _put(self, flags: Mapping[str, Data], segments: Mapping[str, Data]) -> None:
        configs = {key: self._config(key, data) for key, data in flags.items() if not data.get("deleted")}
        there = {key: segment for key, segment in segments.items() if not segment.get("deleted")}
        self._board.take_everything(self._environment, configs, there)

    def _patch(self, patch: Patch) -> None:
        if patch.path.startswith(FLAGS):
            self._board.take(self._config(patch.path.removeprefix(FLAGS), patch.data))
        elif patch.path.startswith(SEGMENTS):
            self._board.take_segment(self._environment, patch.path.removeprefix(SEGMENTS), patch.data)

    def _delete(self, delete: Delete) -> None:
        if delete.path.startswith(FLAGS):
            self._board.drop(self._environment, delete.path.removeprefix(FLAGS), delete.version)
        elif delete.path.startswith(SEGMENTS):
            self._board.drop_segment(self._environment, delete.path.removeprefix(SEGMENTS))

    def _config(self, key: str, data: Data) -> FlagConfig:
        return mirrored_flag(self._environment, key, data)

    # — the disk —

    def start(self) -> None:
        """Show what was known last, until the stream says what is true now."""
        kept = _load(self._path)
        if kept is not None and kept.origin == self._origin:
            self._put(kept.flags, kept.segments)
            log.info(
                "mirror_recalled", environment=self._environment, flags=len(kept.flags), saved_at=kept.saved_at
            )
        self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await self._unsaved.wait()
            await asyncio.sleep(SAVE_SECONDS)
            await self.save()
            if self._unsaved.is_set():
                await asyncio.sleep(SAVE_AGAIN_SECONDS)

    async def save(self) -> None:
        """Write down what changed, lowered where a kill was reset before it was seen to be done. Not fatal."""
        async with self._saving:
            if not (self._unsaved.is_set() and self._board.knows(self._environment)):
                return
            self._unsaved.clear()
            flags, segments = self._board.mirror_contents(self._environment)
            kept = Kept(origin=self._origin, saved_at=self._clock.now(), flags=flags, segments=segments)
            try:
                await asyncio.to_thread(_save, self._path, kept)
            except OSError as error:
                self._unsaved.set()
                log.error("mirror_not_saved", environment=self._environment, error=str(error))

    async def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
            await self.save()


def _decoded(data: bytes, shape: type[Message]) -> Message:
    return msgspec.json.decode(data, type=shape)


def origin_of(address: str, key: str) -> str:
    """Which environment of which account it is, without giving the key away."""
    return hashlib.sha256(f"{address}\0{key}".encode()).hexdigest()


def _load(path: Path) -> Kept | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("mirror_unreadable", path=str(path), error=str(error))
        return None


def _save(path: Path, kept: Kept) -> None:
    """Raises OSError. Replaced as a whole, so that no start finds half of it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(kept))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
