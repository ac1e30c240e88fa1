"""What this replica holds in memory: the kills in force, and the flags, plans and replicas that a kill must know.

Only bookkeeping. Nothing here waits, so nobody sees a kill half accepted or half let go.
"""

from collections import deque
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from controller.domain.catalogue import Kill, KillRecord
from controller.domain.plan import FlagRef, Serve
from controller.domain.status import KillReceipt, KillStatus
from controller.errors import KillInForce, NotFound
from controller.held import Held
from controller.lastknown import KnownFlag
from controller.ports import Clock
from controller.snapshot import Overlay

RELEASED_KEPT = 10_000
"""How many reset kills are remembered, so that a late word of one does not bring it back."""


class KillBook:
    """`others` are the names of all other registered replicas: they must know of a kill, too.

    `informed`: plans were learnt once, from the database or the disk. Before that an unknown one may well exist.
    """

    def __init__(self, *, clock: Clock, providers: Collection[str], overlay: Overlay | None = None) -> None:
        """`providers` are the names that the settings give them. `overlay`: over flags of theirs served here."""
        self._clock = clock
        self._overlay = overlay
        self._providers = providers
        self.others: frozenset[str] = frozenset()
        self._known: dict[FlagRef, list[KnownFlag]] = {}
        self._flags: frozenset[FlagRef] = frozenset()
        self.informed = False
        self._held: dict[str, Held] = {}
        self._of_flag: dict[FlagRef, dict[str, Held]] = {}
        self._released: dict[str, None] = {}
        self._changes = 0
        self._latest: dict[FlagRef, int] = {}
        self._automatic: deque[datetime] = deque(maxlen=1000)

    # — what a kill must know —

    def learn(self, known: Iterable[KnownFlag], flags: Iterable[FlagRef] = ()) -> None:
        """The flags that plans name, and others that can be killed by their bare key."""
        self._known, self.informed = {}, True
        for entry in known:
            self._known.setdefault(entry.flag, []).append(entry)
        self._flags = frozenset(flags)

    def meet(self, others: Iterable[str]) -> None:
        """No kill is called confirmed while one of these replicas may still raise its flag."""
        self.others = frozenset(others)

    def known(self) -> list[KnownFlag]:
        return [entry for of_flag in self._known.values() for entry in of_flag]

    def plans_of(self, flag: FlagRef) -> list[KnownFlag]:
        return list(self._known.get(flag, ()))

    def rollout_of(self, kill: Kill) -> str:
        """The plan of the run that it ended, or else the only one that names its flag; empty when in doubt."""
        if kill.run is not None:
            return kill.run.partition("#")[0]
        plans = {entry.plan for entry in self._known.get(kill.flag, ())}
        return plans.pop() if len(plans) == 1 else ""

    def serve(self, flag: FlagRef) -> Serve | None:
        """What the plans of the flag serve; None when none names it, or they do not agree on the variations.

        Where one of them wants it off once it is killed, it goes off.
        """
        serves = [entry.serve for entry in self._known.get(flag, ())]
        if not serves or len({(serve.rollout, serve.fallback) for serve in serves}) > 1:
            return None
        return min(serves, key=lambda serve: serve.kill != "off")

    def match(self, key: str, environment: str | None, provider: str | None) -> list[FlagRef]:
        """Every known flag of that key or plan; an unknown one too when there is no doubt which is meant.

        Raises NotFound.
        """

        def fits(flag: FlagRef) -> bool:
            return environment in (None, flag.environment) and provider in (None, flag.provider)

        matches = {e.flag for e in self.known() if key in (e.flag.key, e.plan) and fits(e.flag)}
        matches |= {flag for flag in self._flags if flag.key == key and fits(flag)}
        if matches:
            return sorted(matches)
        providers = [provider] if provider else list(self._providers)
        if environment is None or len(providers) != 1 or providers[0] not in self._providers:
            raise NotFound(
                f'no plan and no flag is called "{key}"'
                + (f" in {environment}" if environment else "")
                + "; to kill a flag that no plan names give its environment and provider"
            )
        return [FlagRef(provider=providers[0], environment=environment, key=key)]

    def knows(self, flag: FlagRef) -> bool:
        """Whether a plan names it, or it is a built-in one."""
        return flag in self._known or flag in self._flags

    def require_provider(self, flag: FlagRef) -> None:
        """Raises NotFound."""
        if flag.provider not in self._providers:
            raise NotFound(f'the settings know no provider "{flag.provider}", so that nothing can turn {flag} off')

    # — what is in force —

    def __contains__(self, kill_id: str) -> bool:
        return kill_id in self._held

    def get(self, kill_id: str) -> Held | None:
        return self._held.get(kill_id)

    def in_force(self) -> list[Held]:
        return list(self._held.values())

    def active(self) -> list[KillStatus]:
        return [held.status() for held in self._held.values()]

    def holds(self, flag: FlagRef) -> list[str]:
        """The ids of the kills that hold the flag. Asked for every run at every tick."""
        return list(self._of_flag.get(flag, ()))

    def holding(self, flag: FlagRef) -> list[Held]:
        return list(self._of_flag.get(flag, {}).values())

    def kills_of(self, flag: FlagRef) -> list[KillStatus]:
        return [held.status() for held in self.holding(flag)]

    def receipts(self, flag: FlagRef) -> list[KillReceipt]:
        """How far each kill of the flag has come by now."""
        return [held.receipt(self.others) for held in self.holding(flag)]

    def automatic_kills(self, within_seconds: float) -> int:
        since = self._clock.now() - timedelta(seconds=within_seconds)
        return sum(at >= since for at in self._automatic)

    # — a kill comes and goes —

    def take_up(self, records: Iterable[KillRecord], *, merged: Collection[str]) -> None:
        """Every kill of the journal; they count as unconfirmed until read back. `merged` the database once had.

        From here on nothing rises against them. One that the database once had may have been reset while this
        replica was away, and a new run begun: the provider is told of it once the database says it is in force.
        """
        for record in records:
            if record.kill.id not in self._held:
                held = self.hold(record)
                held.durable, held.doubtful = True, record.kill.id in merged

    def hold(self, record: KillRecord) -> Held:
        """From here on the kill is in force."""
        held = Held(record=record, since=self._clock.monotonic())
        if self._overlay is not None:
            held.covered_by = self._overlay.cover(held.kill.flag, held.kill.id, record.serve)
        self._change(held.kill.flag)
        self._released.pop(held.kill.id, None)
        self._held[held.kill.id] = held
        self._of_flag.setdefault(held.kill.flag, {})[held.kill.id] = held
        if held.record.cause != "user":
            self._automatic.append(held.kill.accepted_at)
        return held

    def release(self, held: Held) -> None:
        """From here on the kill is not in force any more, and no late word of it brings it back."""
        self._change(held.kill.flag)
        self._held.pop(held.kill.id, None)
        of_flag = self._of_flag.get(held.kill.flag, {})
        of_flag.pop(held.kill.id, None)
        if not of_flag:
            self._of_flag.pop(held.kill.flag, None)
        if self._overlay is not None:
            self._overlay.uncover(held.kill.flag, held.kill.id)
        self._released[held.kill.id] = None
        if len(self._released) > RELEASED_KEPT:
            del self._released[next(iter(self._released))]

    def was_released(self, kill_id: str) -> bool:
        return kill_id in self._released

    def put_last(self, held: Held) -> None:
        """What waits last in line is not in the way of the others."""
        if held.kill.id in self._held:
            self._held[held.kill.id] = self._held.pop(held.kill.id)

    # — who decided before —

    def mark(self) -> int:
        """A moment: whoever reads or decides after it knows of the kills and resets up to it."""
        return self._changes

    def changed(self, flag: FlagRef, *, since: int) -> bool:
        """Whether the flag was killed or reset after the mark `since`."""
        return self._latest.get(flag, 0) > since

    def permit_write(self, flag: FlagRef, *, since: int) -> None:
        """Raises KillInForce when the flag is held, and when it was killed or reset after the mark `since`.

        What was read before then may be of a run that the kill ended, though nothing holds the flag any more.
        """
        if self.holds(flag):
            raise KillInForce(f"{flag} is killed ({', '.join(self.holds(flag))}); reset it first")
        if self.changed(flag, since=since):
            raise KillInForce(f"{flag} was killed or reset after this write was decided; look again")

    def _change(self, flag: FlagRef) -> None:
        self._changes += 1
        self._latest[flag] = self._changes
