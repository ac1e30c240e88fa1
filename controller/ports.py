"""What varies, and what the engine asks of it. One page; everything behind it is a plug.

A plug reports what it saw or did. It never judges, never retries a raise, never invents a missing value.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from controller.domain.audit import AuditEntry, AuditRow
from controller.domain.catalogue import (
    ActiveKill,
    Claim,
    FlagConfig,
    Kill,
    PlanRevision,
    PolicyRevision,
    SdkKey,
    Token,
    Transition,
)
from controller.domain.evidence import Question, Reading
from controller.domain.flag import FlagChange, FlagKill, Observation, ProviderLimits
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import Observations, Run


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC wall time: for schedules, records and people."""

    def monotonic(self) -> float:
        """Seconds that never jump: for everything that is accumulated or compared."""


class MetricSource(Protocol):
    """Where measurements come from."""

    @property
    def answers_queries(self) -> bool:
        """Whether raw `query:` metrics can be asked."""

    async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
        """A Reading for every question, also when nothing answered. Never raises for the source's faults."""

    async def close(self) -> None: ...


class FlagProvider(Protocol):
    """Whose flags we turn."""

    @property
    def limits(self) -> ProviderLimits: ...

    def objections(self, plan: RolloutPlan) -> Sequence[str]:
        """Why this provider cannot represent the plan; empty when it can."""

    async def observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        """What the provider shows now, for each flag asked. Never raises: a failure is Unknown."""

    async def apply(self, change: FlagChange) -> None:
        """Make it so. Idempotent. Raises ProviderUnavailable when the outcome is unknown, Refused when refused."""

    async def kill(self, kill: FlagKill) -> Sequence[str]:
        """Serve the fallback to everyone. Returns whom it reached. Needs no store. Raises ProviderUnavailable."""

    async def release_kill(self, kill: FlagKill) -> None:
        """A reset covers this kill: leave the flag off by ordinary means, then stop holding it down."""

    async def close(self) -> None: ...


class Channel(Protocol):
    """Who is told."""

    async def announce(self, entry: AuditEntry) -> None:
        """Raises Unavailable when it should be tried again."""

    async def close(self) -> None: ...


class Store(Protocol):
    """The database. Each method is one short transaction; none calls another system.

    Any method raises StoreUnavailable when the database did not answer in time; the outcome is then unknown.
    """

    # — what people applied —
    async def save_plan(self, plan: RolloutPlan, entry: AuditEntry) -> PlanRevision:
        """A new revision, by `entry.actor` at `entry.at`; the present one, unaudited, when nothing changed."""

    async def save_policy(self, policy: GuardrailPolicy, entry: AuditEntry) -> PolicyRevision: ...
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

        Guarded by run version, by lease epoch (when given) and, for a raise, by the flag's kill epoch in the
        same statement. Raises Conflict, StaleLease or KillInForce; nothing has happened then. After
        StoreUnavailable the outcome is unknown: ask `committed`.
        """

    async def committed(self, entry_id: str) -> int | None:
        """The audit sequence of that entry, or None when it never happened."""

    async def save_observations(self, owner: str, batch: Sequence[tuple[Claim, Observations, float]]) -> None:
        """Observations and seconds until the next check, for claims whose epoch still holds."""

    async def wake(self, run_id: str) -> None:
        """Make the run due now."""

    async def release(self, owner: str) -> None:
        """Give up all leases of `owner`, at shutdown."""

    # — kills —
    async def record_kill(self, kill: Kill, entry: AuditEntry) -> bool:
        """Kill, epoch, audit row, and the end of the run it hits; False: this kill id is already there."""

    async def confirm_kill(self, kill_id: str, at: datetime) -> None: ...
    async def active_kills(self) -> Sequence[ActiveKill]: ...
    async def reset_kills(self, flag: FlagRef, kill_ids: Collection[str], entry: AuditEntry) -> Sequence[str]:
        """Returns the ids that were in force and are covered. Raises Conflict when one named is unknown."""

    async def kill_epoch(self, flag: FlagRef) -> int: ...

    # — tokens, SDK keys, built-in flags —
    async def save_token(self, token: Token, entry: AuditEntry) -> None: ...
    async def revoke_token(self, name: str, entry: AuditEntry) -> bool: ...
    async def tokens(self) -> Sequence[Token]: ...
    async def save_sdk_key(self, key: SdkKey, entry: AuditEntry) -> None: ...
    async def revoke_sdk_key(self, name: str, entry: AuditEntry) -> bool: ...
    async def sdk_keys(self) -> Sequence[SdkKey]: ...
    async def flag_configs(self) -> Sequence[FlagConfig]: ...
    async def flag_config(self, environment: str, key: str) -> FlagConfig | None: ...
    async def save_flag_config(self, config: FlagConfig, entry: AuditEntry | None = None) -> FlagConfig:
        """Insert or update; the version never goes down, a lower one is a Conflict."""

    # — audit —
    async def audit(
        self, *, after: int = 0, limit: int = 1000, run: str | None = None, newest_first: bool = False
    ) -> Sequence[AuditRow]: ...
    async def audit_head(self) -> tuple[int, bytes]: ...
    async def unannounced(self, limit: int) -> Sequence[tuple[int, AuditEntry]]: ...
    async def announced(self, sequences: Collection[int]) -> None: ...

    async def close(self) -> None: ...
