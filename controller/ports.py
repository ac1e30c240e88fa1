"""What varies, and what the engine asks of it. One page; everything behind it is a plug.

A plug reports what it saw or did. It never judges, never retries a raise, never invents a missing value.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from controller.domain.audit import AuditEntry, AuditRow
from controller.domain.catalogue import (
    ActiveKill,
    Applied,
    Barrier,
    Claim,
    FlagConfig,
    Kill,
    KillRecord,
    PeerAnswer,
    PlanRevision,
    PolicyRevision,
    Replica,
    Roll,
    SdkKey,
    Token,
    Transition,
    Trigger,
    Unreadable,
)
from controller.domain.evidence import Question, Reading
from controller.domain.flag import FlagChange, FlagKill, Observation, ProviderLimits
from controller.domain.freezes import OrganisationFreeze
from controller.domain.message import Message
from controller.domain.notification import Backlog, DeadLetter, Letters, Owed, Shed, Waiting
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import Observations, Run
from controller.domain.selection import Raised
from controller.domain.tally import Counted, Delivery, Watch


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC wall time: for schedules, records and people."""

    def monotonic(self) -> float:
        """Seconds that never jump: for everything that is accumulated or compared."""


class MetricSource(Protocol):
    """Where measurements come from."""

    async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
        """A Reading for every question, also when nothing answered. Never raises for the source's faults."""

    async def close(self) -> None: ...


class FlagProvider(Protocol):
    """Whose flags we turn."""

    @property
    def limits(self) -> ProviderLimits: ...

    async def objections(self, plan: RolloutPlan) -> Sequence[str]:
        """Why this provider cannot represent the plan; empty when it can. Never raises for its faults."""

    async def observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        """What the provider shows now, for each flag asked. Never raises: a failure is Unknown."""

    async def apply(self, change: FlagChange) -> None:
        """Make it so. Idempotent. Raises ProviderUnavailable when the outcome is unknown, Refused when refused."""

    async def kill(self, kill: FlagKill) -> Sequence[str]:
        """Serve the fallback to everyone. Returns whom it reached. Needs no store. Raises ProviderUnavailable."""

    async def settle_kill(self, kill: FlagKill) -> None:
        """A reset is about to cover this kill: leave the flag off by ordinary means, still held down."""

    async def forget_kill(self, kill: FlagKill) -> None:
        """A reset covers this kill: stop holding the flag down. Writes nothing, so that no new run is hit."""

    async def close(self) -> None: ...


class Channel(Protocol):
    """Who is told."""

    @property
    def resolves(self) -> bool:
        """It keeps incidents open until they end: it is also told of what ends (`message.ENDS`) an event it was
        to be told of, with `Message.only_ends` set when the plan did not ask for that itself.
        """

    async def announce(self, message: Message) -> None:
        """One attempt. Raises Unavailable when it should be tried again, not before `again_in` seconds where it
        has one, and Undeliverable when that is of no use.
        """

    async def close(self) -> None: ...


class Peers(Protocol):
    """The other replicas, asked directly: the way for kills that needs no database."""

    def tell(self, kills: Sequence[KillRecord]) -> AsyncIterator[PeerAnswer]:
        """The answers as they come, until the time is over. Never raises: who is silent is missing."""

    async def close(self) -> None: ...


class Disk(Protocol):
    """One append-only file that survives a crash of the process."""

    def read(self) -> bytes:
        """Everything written so far; the last line may be torn. Raises OSError."""

    def rewrite(self, content: bytes) -> None:
        """Replace the content atomically, and be ready to append. Raises OSError."""

    async def append(self, line: bytes) -> bool:
        """True once the line is on disk. Lines keep their order. A failure is reported, never raised."""

    def close(self) -> None: ...


class Timers(Protocol):
    """Calls work again and again, each never twice at once; one that is late runs once, not as often as missed."""

    def every(self, seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """`work` handles its own failures."""

    def now(self, name: str) -> None:
        """Run it once more as soon as possible: something happened that it waits for."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Store(Protocol):
    """The database. Each method is one short transaction; none calls another system.

    Any method raises StoreUnavailable when the database did not answer in time; the outcome is then unknown.
    """

    async def unreadable(self) -> Sequence[Unreadable]:
        """What the latest reads of all plans, policies, runs, tokens, keys and flags could not read.

        Each of them was left out there, or stands as it was last read; a run is never that.
        """

    # — what people applied —
    async def save_plan(self, plan: RolloutPlan, entry: AuditEntry) -> PlanRevision:
        """A new revision, by `entry.actor` at `entry.at`; the present one, unaudited, when nothing changed."""

    async def save_policy(self, policy: GuardrailPolicy, entry: AuditEntry) -> PolicyRevision: ...
    async def save_together(self, documents: Sequence[tuple[Applied, AuditEntry]]) -> Sequence[int]:
        """All of them or none; each as if saved alone. Returns revisions, of flags their versions, in that order.

        Raises Conflict as `save_flag_config` does, and nothing was saved.
        """

    async def plan(self, name: str, revision: int | None = None) -> PlanRevision | None: ...
    async def plans(self) -> Sequence[PlanRevision]: ...
    async def policy(self, name: str, revision: int | None = None) -> PolicyRevision | None: ...
    async def policies(self) -> Sequence[PolicyRevision]: ...

    # — runs —
    async def create_run(self, run: Run, entry: AuditEntry) -> Run:
        """Numbers the run. Raises Conflict when the flag has an active run, KillInForce when it is killed."""

    async def run(self, run_id: str) -> tuple[Run, Observations] | None: ...
    async def latest_run(self, plan: str) -> tuple[Run, Observations] | None: ...
    async def latest_runs(self) -> Sequence[tuple[Run, Observations]]:
        """The latest run of every plan, newest first."""

    async def claim_due(self, owner: str, *, limit: int, lease_seconds: float) -> Sequence[Claim]:
        """Take or renew the lease of runs whose check is due. Not those leased to others."""

    async def renew(self, owner: str, *, lease_seconds: float) -> None:
        """Prolong every lease of `owner` that has not ended; called well before they do."""

    async def commit(self, transition: Transition) -> int:
        """State, audit entry and outbox together; returns the audit sequence.

        Guarded by run version, by lease epoch and owner (when given) and, for a raise, by the flag's kill epoch,
        the presence of every registered replica, and that no freeze holds that is newer than those it was decided
        with, in the same statement. Raises Conflict, StaleLease, KillInForce or RaisesBlocked; nothing has
        happened then. After StoreUnavailable the outcome is unknown: ask `committed`.
        """

    async def check_raise(self, run: Run, lease_epoch: int, owner: str) -> None:
        """Whether a raise that was committed may still be written again. Raises what `commit` would."""

    async def committed(self, entry_id: str) -> int | None:
        """The audit sequence of that entry, or None when it never happened."""

    async def note_once(self, entry: AuditEntry) -> None:
        """An audit entry of something that changed nothing. One with an id that is already there adds nothing."""

    async def save_observations(self, owner: str, batch: Sequence[tuple[Claim, Observations, float]]) -> None:
        """Observations and seconds until the next check, for claims whose epoch still holds."""

    async def release(self, owner: str) -> None:
        """Give up all leases of `owner`, at shutdown."""

    # — kills —
    async def record_kill(self, kill: Kill, entry: AuditEntry) -> bool:
        """Kill, epoch, audit row, and the end of the run it hits; False: this kill id is already there."""

    async def confirm_kill(self, kill_id: str, at: datetime) -> None: ...
    async def active_kills(self) -> Sequence[ActiveKill]: ...
    async def reset_among(self, kill_ids: Collection[str]) -> Collection[str]:
        """Those of these kills that were reset. One that is not there at all was not: the database forgot it."""

    async def reset_kills(self, flag: FlagRef, kill_ids: Collection[str], entry: AuditEntry) -> Sequence[str]:
        """Returns the ids that were in force and are covered. Raises Conflict when one named is unknown."""

    # — freezes of the organisation —
    async def add_freeze(self, freeze: OrganisationFreeze, entry: AuditEntry) -> int | None:
        """Its number; None, and nothing happened, when one of that name is not over at `entry.at`."""

    async def lift_freeze(self, freeze: OrganisationFreeze, entry: AuditEntry) -> bool:
        """Store the one of that name that is not over at `entry.at` as given; False when there is none."""

    async def freezes(self) -> Sequence[OrganisationFreeze]:
        """Those that hold or are to come."""

    async def latest_freezes(self) -> Sequence[OrganisationFreeze]:
        """The newest first, those that are over or were lifted included; not all of a long history."""

    # — replicas —
    async def check_in(self, replica: Replica, *, life: str, valid_seconds: float, remembered: int) -> Roll:
        """All kills of that replica's journal are in this life of the database; register it, or refresh it.

        Changes nothing when the database lives another life by now (`Roll.counted`). Valid on database time.
        """

    async def check_out(self, name: str) -> None:
        """The replica stops with everything merged: nobody waits for it."""

    async def raise_barrier(self, barrier: Barrier, entry: AuditEntry) -> bool:
        """Block all raises, audited. False: this barrier was raised before, whether released since or not."""

    async def release_raises(self, entry: AuditEntry) -> Sequence[str]:
        """A person takes it on: forget the absent replicas and lower the barriers, audited when there were any.

        Returns what was released, by name.
        """

    async def lead(self, task: str, owner: str, *, lease_seconds: float) -> bool:
        """Take or keep the lease of a task that one replica at a time does, such as announcing."""

    # — tokens, SDK keys, built-in flags —
    async def save_token(self, token: Token, entry: AuditEntry) -> None: ...
    async def revoke_token(self, name: str, entry: AuditEntry) -> bool: ...
    async def tokens(self) -> Sequence[Token]: ...
    async def save_sdk_key(self, key: SdkKey, entry: AuditEntry) -> None: ...
    async def revoke_sdk_key(self, name: str, entry: AuditEntry) -> bool: ...
    async def sdk_keys(self) -> Sequence[SdkKey]: ...
    async def save_trigger(self, trigger: Trigger, entry: AuditEntry) -> None: ...
    async def revoke_trigger(self, name: str, entry: AuditEntry) -> bool: ...
    async def triggers(self) -> Sequence[Trigger]: ...
    async def flag_configs(self) -> Sequence[FlagConfig]: ...
    async def flag_config(self, environment: str, key: str) -> FlagConfig | None: ...
    async def save_flag_config(self, config: FlagConfig, entry: AuditEntry | None = None) -> FlagConfig:
        """Insert or update; the version never goes down, a lower one is a Conflict."""

    # — audit —
    async def audit(
        self, *, after: int = 0, limit: int = 1000, run: str | None = None, newest_first: bool = False
    ) -> Sequence[AuditRow]: ...
    async def audit_head(self) -> tuple[int, bytes]: ...
    async def raises_after(self, sequence: int) -> tuple[int, Sequence[Raised]]:
        """What was raised after that row, oldest first, and the present last row. Not all of a long history."""

    async def unannounced(self, limit: int) -> Sequence[tuple[int, AuditEntry]]:
        """The oldest that `NotificationStore.take` was not called for."""

    async def close(self) -> None: ...


class EventStore(Protocol):
    """What applications reported, counted, for all replicas. Times are the database's. Raises StoreUnavailable."""

    async def count(self, deliveries: Sequence[Delivery]) -> int:
        """Add up those that were not counted before, and say how many these were. All of it or nothing."""

    async def counted(
        self, events: Collection[tuple[str, str]], *, window_seconds: float, contexts: bool
    ) -> Sequence[Counted]:
        """What happened of these (flag, event) in the window; in one moment, so that parts fit their whole.

        Nothing is said of the time before all that is watched of the flag was counted, and of that up to the
        latest gap. With `contexts` it is whom it happened to, and no counts.
        """

    async def watch(self, watches: Collection[Watch], *, from_seconds: float) -> None:
        """Somebody asks for these. What nobody asked for before counts from so many seconds on."""

    async def watches(self) -> Collection[Watch]: ...
    async def note_gap(self, environment: str, missed: int) -> None:
        """So many deliveries up to now were not counted, or not all of them."""

    async def forget(self, *, counts_seconds: float, deliveries_seconds: float) -> None:
        """Delete what is older: counts and what nobody asked for, and the deliveries that were counted."""


class NotificationStore(Protocol):
    """What channels have to be told yet, and what they could not be told, for all replicas.

    A message of a channel is known by its own id. Times are the database's. Raises StoreUnavailable.
    """

    async def take(self, entry_ids: Collection[str], owed: Sequence[Owed]) -> None:
        """These audit entries count as announced, and what is owed for them waits: all of it or nothing.

        Of entries that were taken before nothing is owed again.
        """

    async def waiting(self, channel: str, *, resting: Collection[str], limit: int) -> Sequence[Waiting]:
        """In order: the oldest few of each thread that is not in `resting`."""

    async def told(self, channel: str, message_ids: Collection[str]) -> None:
        """The channel has taken them: they are forgotten."""

    async def failed(self, channel: str, message_id: str, why: str) -> None:
        """It waits on, with one attempt more."""

    async def bury(self, channel: str, message_id: str, why: str) -> None:
        """From now on it is a dead letter."""

    async def give_up(self, channel: str, *, older_than_seconds: float, why: str) -> int:
        """What waits for longer is dead letters from now on. Returns how many these are."""

    async def backlog(self) -> Sequence[Backlog]:
        """Of every channel for which something waits or is dead."""

    async def shed(self, *, waiting: int, dead: int) -> Sequence[Shed]:
        """No more than so many of a channel are kept: the oldest that wait die, the oldest dead are dropped."""

    async def dead(self, *, channel: str | None = None, after: int = 0, limit: int = 100) -> Sequence[DeadLetter]:
        """By id, from the one behind `after` on."""

    async def redeliver(self, letters: Letters, entry: AuditEntry) -> Sequence[str]:
        """They wait again as if they had just been taken; audited. Returns the ids of those that were there."""

    async def discard(self, letters: Letters, entry: AuditEntry) -> Sequence[str]:
        """They are forgotten; audited. Returns the ids of those that were there."""
