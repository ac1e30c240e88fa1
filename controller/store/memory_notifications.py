"""The NotificationStore's promises without a database: for simulation and for tests of the engine."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from controller.domain.audit import AuditEntry
from controller.domain.notification import Backlog, DeadLetter, Letters, Owed, Shed, Waiting
from controller.store.memory import MemoryStore
from controller.store.notifications import OF_A_THREAD, TOO_MANY


class Letter(Struct, kw_only=True):
    """A row."""

    id: int
    sequence: int
    owed: Owed
    taken_at: float
    attempts: int = 0
    why: str = ""
    died_at: float | None = None


class MemoryNotifications:
    """Beside a MemoryStore, with its audit log. `now` is the model of database time, in seconds."""

    def __init__(self, store: MemoryStore, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._next_id = 1
        self.letters: dict[tuple[str, str], Letter] = {}

    async def take(self, entry_ids: Collection[str], owed: Sequence[Owed]) -> None:
        fresh = {one for one in entry_ids if self._store.is_unannounced(one)}
        for one in sorted(owed, key=lambda one: (self._store.sequences.get(one.message.id, 0), one.channel)):
            key = (one.channel, one.message.id)
            if one.message.id in fresh and key not in self.letters:
                sequence = self._store.sequences[one.message.id]
                self.letters[key] = Letter(id=self._next_id, sequence=sequence, owed=one, taken_at=self._now())
                self._next_id += 1
        self._store.announced(fresh)

    async def waiting(self, channel: str, *, resting: Collection[str], limit: int) -> Sequence[Waiting]:
        places: Counter[str] = Counter()
        found = []
        for letter in self._waiting(channel):
            places[letter.owed.thread] += 1
            if letter.owed.thread not in resting and places[letter.owed.thread] <= OF_A_THREAD:
                found.append(self._seen(letter))
        return found[:limit]

    def _waiting(self, channel: str | None = None) -> list[Letter]:
        alive = [one for one in self.letters.values() if one.died_at is None]
        of_channel = [one for one in alive if channel in (None, one.owed.channel)]
        return sorted(of_channel, key=lambda one: one.sequence)

    def _dead(self) -> list[Letter]:
        return sorted((one for one in self.letters.values() if one.died_at is not None), key=lambda one: one.id)

    def _seen(self, letter: Letter) -> Waiting:
        waited = self._now() - letter.taken_at
        return Waiting(
            thread=letter.owed.thread,
            message=letter.owed.message,
            waited_seconds=waited,
            attempts=letter.attempts,
        )

    async def told(self, channel: str, message_ids: Collection[str]) -> None:
        for message_id in message_ids:
            self.letters.pop((channel, message_id), None)

    async def failed(self, channel: str, message_id: str, why: str) -> None:
        letter = self.letters.get((channel, message_id))
        if letter is not None and letter.died_at is None:
            letter.attempts, letter.why = letter.attempts + 1, why

    async def bury(self, channel: str, message_id: str, why: str) -> None:
        letter = self.letters.get((channel, message_id))
        if letter is not None and letter.died_at is None:
            letter.attempts += 1
            self._die(letter, why)

    async def give_up(self, channel: str, *, older_than_seconds: float, why: str) -> int:
        before = self._now() - older_than_seconds
        late = [one for one in self._waiting(channel) if one.taken_at < before]
        for letter in late:
            self._die(letter, why)
        return len(late)

    def _die(self, letter: Letter, why: str) -> None:
        letter.why, letter.died_at = why, self._now()

    async def backlog(self) -> Sequence[Backlog]:
        found = []
        for channel in sorted({one.owed.channel for one in self.letters.values()}):
            waiting = self._waiting(channel)
            found.append(
                Backlog(
                    channel=channel,
                    waiting=len(waiting),
                    oldest_waiting_seconds=max((self._now() - one.taken_at for one in waiting), default=0.0),
                    dead=len([one for one in self._dead() if one.owed.channel == channel]),
                    why=next((one.why for one in waiting if one.why), ""),
                )
            )
        return found

    async def shed(self, *, waiting: int, dead: int) -> Sequence[Shed]:
        given_up: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        for channel in {one.owed.channel for one in self.letters.values()}:
            for letter in self._waiting(channel)[::-1][waiting:]:
                self._die(letter, TOO_MANY)
                given_up[channel] += 1
            of_channel = [one for one in self._dead() if one.owed.channel == channel]
            for letter in sorted(of_channel, key=lambda one: one.sequence, reverse=True)[dead:]:
                del self.letters[channel, letter.owed.message.id]
                dropped[channel] += 1
        names = sorted({*given_up, *dropped})
        return [Shed(channel=name, given_up=given_up[name], dropped=dropped[name]) for name in names]

    async def dead(self, *, channel: str | None = None, after: int = 0, limit: int = 100) -> Sequence[DeadLetter]:
        found = [one for one in self._dead() if one.id > after and channel in (None, one.owed.channel)]
        return [
            DeadLetter(
                id=str(one.id),
                channel=one.owed.channel,
                died_at=datetime.fromtimestamp(one.died_at or 0.0, UTC),
                attempts=one.attempts,
                why=one.why,
                message=one.owed.message,
            )
            for one in found[:limit]
        ]

    async def redeliver(self, letters: Letters, entry: AuditEntry) -> Sequence[str]:
        meant = self._meant(letters, entry)
        for letter in meant:
            letter.died_at, letter.attempts, letter.why, letter.taken_at = None, 0, "", self._now()
        return [str(one.id) for one in meant]

    async def discard(self, letters: Letters, entry: AuditEntry) -> Sequence[str]:
        meant = self._meant(letters, entry)
        for letter in meant:
            del self.letters[letter.owed.channel, letter.owed.message.id]
        return [str(one.id) for one in meant]

    def _meant(self, letters: Letters, entry: AuditEntry) -> list[Letter]:
        """Audited, when there are any."""
        meant = [
            one
            for one in self._dead()
            if (letters.ids is None or str(one.id) in letters.ids) and letters.channel in (None, one.owed.channel)
        ]
        if meant:
            messages = [f"{one.owed.channel}: {one.owed.message.id}" for one in meant]
            self._store.note(replace(entry, details={**entry.details, "messages": messages}))
        return meant
