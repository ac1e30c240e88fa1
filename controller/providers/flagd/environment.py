"""The flags of one environment: the file they are in, what was read of it last, and the kills laid over it."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

import structlog
from msgspec.structs import replace

from controller.domain.flag import FlagKill, FlagState, Observation, Unknown
from controller.domain.plan import Serve
from controller.errors import ProviderUnavailable, RampartError, Refused
from controller.providers.flagd.definition import Found, killed, state_of
from controller.providers.flagd.document import Document, Draft, Unreadable
from controller.providers.flagd.file import FlagFile, Uncertain

log = structlog.get_logger()

ATTEMPTS = 10
"""How often a change is made again because somebody else replaced the file meanwhile."""

REMIND_SECONDS = 1.0

Edit = Callable[[Draft], None]


class Writer:
    """Takes all changes that wait into one replacement of the file."""

    def __init__(self, file: FlagFile) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flagd-write")
        self._waiting: list[tuple[Edit, asyncio.Future[None]]] = []
        self._working: asyncio.Task[None] | None = None

    async def change(self, edit: Edit) -> None:
        """`edit` runs in a thread, perhaps again, and may raise Refused. Raises ProviderUnavailable.

        Whoever stops waiting before it was begun takes it back.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((edit, done))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        await done

    async def _work(self) -> None:
        while self._waiting:
            taken = [(edit, done) for edit, done in self._waiting if not done.done()]
            self._waiting = []
            outcomes = await self._outcomes([edit for edit, _ in taken])
            for (_, done), error in zip(taken, outcomes, strict=True):
                if not done.done():
                    done.set_exception(error) if error else done.set_result(None)

    async def _outcomes(self, edits: Sequence[Edit]) -> Sequence[Exception | None]:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._written, edits)
        except Exception as error:  # noqa: BLE001 - raised again by everybody who waits for it
            return [error] * len(edits)

    def _written(self, edits: Sequence[Edit]) -> Sequence[Exception | None]:
        for _ in range(ATTEMPTS):
            before, document = self._read()
            draft = Draft(document)
            refused: list[Exception | None] = []
            for edit in edits:
                try:
                    edit(draft)
                    refused.append(None)
                except RampartError as error:
                    refused.append(error)
            if self._replaced(before, draft.document().text.encode()):
                return refused
        raise ProviderUnavailable(
            f"{self._file.path} was changed by somebody else each time it was to be written", not_applied=True
        )

    def _read(self) -> tuple[bytes, Document]:
        try:
            before = self._file.read()
            return before, Document.read(before)
        except OSError as error:
            raise ProviderUnavailable(cannot_be_read(self._file, error), not_applied=True) from error
        except Unreadable as error:
            # Half of it may be on its way from an editor; and whatever else is in it is not ours to throw away.
            raise ProviderUnavailable(f"{self._file.path} is left alone: {error}", not_applied=True) from error

    def _replaced(self, before: bytes, after: bytes) -> bool:
        try:
            return before == after or self._file.replace(before, after)
        except Uncertain as error:
            raise ProviderUnavailable(f"whether {self._file.path} stays written is unknown: {error}") from error
        except OSError as error:
            raise ProviderUnavailable(f"{self._file.path} cannot be written: {error}", not_applied=True) from error

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class Environment:
    """What happens on the event loop happens at once, so whoever is served sees no kill half laid over.

    Kills have a writer of their own: a raise that hangs on its way to the disk is not in front of them.
    """

    def __init__(self, file: FlagFile, holds: Callable[[str], Sequence[str]]) -> None:
        """`holds`: the ids of the kills in force of a flag, by its key."""
        self.file = file
        self._holds = holds
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="flagd-read")
        self._raises, self._lowers = Writer(self.file), Writer(self.file)
        self._raw = b""
        self._document: Document | None = None
        self._fallbacks: dict[str, str] = {}
        self._kills: dict[str, FlagKill] = {}
        self._seen: dict[str, tuple[Found, datetime | None]] = {}
        self._shown: bytes | None = None
        self._changed = asyncio.Event()
        self._reminder: asyncio.TimerHandle | None = None

    # — reading —

    async def look(self) -> tuple[Document, datetime]:
        """The document, and when the file was changed. Raises ProviderUnavailable; what was read last stays."""
        try:
            raw, at, document = await asyncio.get_running_loop().run_in_executor(self._reader, self._read)
        except OSError as error:
            raise ProviderUnavailable(cannot_be_read(self.file, error)) from error
        except Unreadable as error:
            raise ProviderUnavailable(f"{self.file.path} cannot be understood: {error}") from error
        if raw != self._raw:
            self._raw, self._document = raw, document
            self.refresh()
        return document, at

    def _read(self) -> tuple[bytes, datetime, Document]:
        raw, known = self.file.read(), self._document
        at = datetime.fromtimestamp(self.file.changed_at(), UTC)
        return raw, at, known if known is not None and raw == self._raw else Document.read(raw)

    async def observe(self, keys: Iterable[str]) -> Mapping[str, Observation]:
        """What the file says, whatever is laid over it: not everybody is served by us."""
        try:
            document, at = await self.look()
        except ProviderUnavailable as error:
            return {key: Unknown(str(error)) for key in keys}
        return {key: self._observation(key, document.flag(key), at) for key in keys}

    def _observation(self, key: str, found: Found | None, at: datetime) -> Observation:
        if found is None:
            self._seen.pop(key, None)
            return Unknown(self.not_here(key))
        before = self._seen.get(key)
        if before is None or before[0] != found:
            # Any flag in it may be what changed the file last: of one that is seen first nothing can be said.
            self._seen[key] = (found, at if before else None)
        state = state_of(found, self._fallbacks.get(key))
        if isinstance(state, FlagState):
            return replace(state, changed_at=self._seen[key][1])
        return Unknown(f"the flag {key} in {self.file.path}: {state.why}")

    def not_here(self, key: str) -> str:
        return f"there is no flag {key} in {self.file.path}"

    # — writing —

    async def change(self, key: str, make: Callable[[Found], Found], *, fallback: str | None = None) -> None:
        """Raises Refused while a kill holds the flag, and when it cannot be so; ProviderUnavailable."""

        def edit(draft: Draft) -> None:
            if held_by := self._holds(key):
                raise Refused(f"the flag {key} is killed", blocks=[f"{one} is in force" for one in held_by])
            found = draft.flag(key)
            if found is None:
                raise Refused(self.not_here(key))
            try:
                draft.put(key, make(found))
            except ValueError as error:
                raise Refused(f"the flag {key} in {self.file.path}: {error}") from error

        await self._raises.change(edit)
        if fallback is not None:
            self._fallbacks[key] = fallback
        await self._written()

    async def lower(self, kill: FlagKill) -> bool:
        """False: the flag is not in the file. Raises ProviderUnavailable."""
        there: list[bool] = []

        def edit(draft: Draft) -> None:
            found = draft.flag(kill.flag.key)
            there.append(found is not None)
            if found is None:
                return
            try:
                draft.put(kill.flag.key, self._killed(kill.flag.key, found, kill.serve))
            except ValueError as error:
                raise ProviderUnavailable(f"the flag {kill.flag.key} in {self.file.path}: {error}") from error

        await self._lowers.change(edit)
        await self._written()
        return there[-1]

    async def _written(self) -> None:
        """Serve it, and make sure that no watcher missed it."""
        await self.look()
        if self._reminder is not None:
            self._reminder.cancel()
        self._reminder = asyncio.get_running_loop().call_later(REMIND_SECONDS, self._remind)

    def _remind(self) -> None:
        reminding = asyncio.get_running_loop().run_in_executor(self._reader, self.file.remind)
        reminding.add_done_callback(_told)

    # — kills laid over —

    def hold_down(self, kill: FlagKill) -> None:
        """From here on the flag is served killed, whatever the file says. Waits for nothing."""
        if kill.serve is not None:
            self._fallbacks[kill.flag.key] = kill.serve.fallback
        self._kills[kill.kill_id] = kill
        self._lay_anew()

    def lift(self, kill: FlagKill) -> None:
        self._kills.pop(kill.kill_id, None)
        self._lay_anew()

    def _killed(self, key: str, found: Found, serve: Serve | None) -> Found:
        return killed(found, serve, self._fallbacks.get(key))

    # — serving —

    def shown(self) -> bytes | None:
        """The document as it may be served, in UTF-8; None as long as none was ever read."""
        if self._shown is None and self._document is not None:
            draft = Draft(self._document)
            for key in self._document.keys:
                for kill_id in self._holds(key):
                    self._lay(draft, key, self._kills.get(kill_id))
            self._shown = draft.document().text.encode()
        return self._shown

    def _lay(self, draft: Draft, key: str, kill: FlagKill | None) -> None:
        # What cannot be killed so stays: the kill itself says why, again and again.
        with suppress(ValueError):
            draft.put(key, self._killed(key, draft.flag(key) or Found({}), kill.serve if kill else None))

    def refresh(self) -> None:
        """Tell whoever is served if what is shown is another than before."""
        before, self._shown = self._shown, None
        if self.shown() == before:
            self._shown = before
        else:
            self._tell()

    def _lay_anew(self) -> None:
        """Once for all kills of this moment: by whoever is served next."""
        self._shown = None
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def changed(self) -> asyncio.Event:
        """Set as soon as what is shown is another."""
        return self._changed

    def close(self) -> None:
        if self._reminder is not None:
            self._reminder.cancel()
        for writer in (self._raises, self._lowers):
            writer.close()
        self._reader.shutdown(wait=False, cancel_futures=True)


def cannot_be_read(file: FlagFile, error: OSError) -> str:
    return f"{file.path} cannot be read: {error.strerror or error}"


def _told(reminding: "asyncio.Future[None]") -> None:
    if not reminding.cancelled() and (error := reminding.exception()) is not None:
        log.warning("flagd_file_not_touched", error=str(error))
