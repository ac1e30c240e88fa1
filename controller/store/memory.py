"""The store's promises without a database: for simulation and for tests of the engine.

Every method runs without an await inside, and appends its audit entry before it changes anything: so it
happens whole or not at all, as a transaction does. `now` is the model of database time, in seconds; faults are
laid around this class, not into it.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from controller.domain.audit import GENESIS_HASH, AuditEntry, AuditRow, canonical_body, link_hash
from controller.domain.catalogue import (
    Absent,
    ActiveKill,
    Applied,
    Barrier,
    Claim,
    FlagConfig,
    Head,
    Kill,
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
from controller.domain.freezes import OrganisationFreeze
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import RAISING, Observations, Run, ended_by_kill, transition
from controller.domain.selection import Raised
from controller.errors import Conflict, FreezeBegan, KillInForce, NotFound, RaisesBlocked, StaleLease

FURTHEST_SECONDS = 15 * 60.0

Revision = TypeVar("Revision", PlanRevision, PolicyRevision)
Secret = TypeVar("Secret", Token, SdkKey, Trigger)


class Row(Struct, kw_only=True):
    """A run and what is stored beside it."""

    run: Run
    observations: Observations = Observations()
    owner: str | None = None
    epoch: int = 0
    expires_at: float = 0.0
    due_at: float = 0.0


class KillRow(Struct, kw_only=True):
    kill: Kill
    epoch: int
    confirmed_at: datetime | None = None
    reset: bool = False


class ReplicaRow(Struct, kw_only=True):
    replica: Replica
    life: str
    seen_at: float
    valid_until: float


class BarrierRow(Struct, kw_only=True):
    barrier: Barrier
    released: bool = False


class MemoryStore:
    """Implements `ports.Store`. `life` is what a restart or a failover changes."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.life = "1"
        self.replicas: dict[str, ReplicaRow] = {}
        self.barriers: dict[str, BarrierRow] = {}
        self.leaders: dict[str, tuple[str, float]] = {}
        self.rows: dict[str, Row] = {}
        self.kills: dict[str, KillRow] = {}
        self.epochs: dict[FlagRef, int] = {}
        self.chain: list[AuditRow] = []
        self.sequences: dict[str, int] = {}
        self.frozen: dict[int, OrganisationFreeze] = {}
        self._announced: set[int] = set()
        self._plans: dict[str, list[PlanRevision]] = {}
        self._policies: dict[str, list[PolicyRevision]] = {}
        self._tokens: dict[str, Token] = {}
        self._sdk_keys: dict[str, SdkKey] = {}
        self._triggers: dict[str, Trigger] = {}
        self._flags: dict[tuple[str, str], FlagConfig] = {}

    async def unreadable(self) -> Sequence[Unreadable]:
        return ()  # nothing here was ever written as text

    # — what people applied —

    async def save_plan(self, plan: RolloutPlan, entry: AuditEntry) -> PlanRevision:
        revisions = self._plans.get(plan.metadata.name, [])
        if revisions and revisions[-1].plan == plan:
            return revisions[-1]
        self._append(entry)
        number = len(revisions) + 1
        saved = PlanRevision(plan=plan, revision=number, author=entry.actor, applied_at=entry.at)
        self._plans[plan.metadata.name] = [*revisions, saved]
        return saved

    async def save_policy(self, policy: GuardrailPolicy, entry: AuditEntry) -> PolicyRevision:
        revisions = self._policies.get(policy.metadata.name, [])
        if revisions and revisions[-1].policy == policy:
            return revisions[-1]
        self._append(entry)
        number = len(revisions) + 1
        saved = PolicyRevision(policy=policy, revision=number, author=entry.actor, applied_at=entry.at)
        self._policies[policy.metadata.name] = [*revisions, saved]
        return saved

    async def save_together(self, documents: Sequence[tuple[Applied, AuditEntry]]) -> Sequence[int]:
        chain, sequences = list(self.chain), dict(self.sequences)
        plans, policies, flags = dict(self._plans), dict(self._policies), dict(self._flags)
        try:
            return [await self._save(document, entry) for document, entry in documents]
        except Conflict:
            self.chain, self.sequences = chain, sequences
            self._plans, self._policies, self._flags = plans, policies, flags
            raise

    async def _save(self, document: Applied, entry: AuditEntry) -> int:
        match document:
            case RolloutPlan():
                return (await self.save_plan(document, entry)).revision
            case GuardrailPolicy():
                return (await self.save_policy(document, entry)).revision
            case FlagConfig():
                return (await self.save_flag_config(document, entry)).version

    async def plan(self, name: str, revision: int | None = None) -> PlanRevision | None:
        return _pick(self._plans.get(name, []), revision)

    async def plans(self) -> Sequence[PlanRevision]:
        return [self._plans[name][-1] for name in sorted(self._plans)]

    async def policy(self, name: str, revision: int | None = None) -> PolicyRevision | None:
        return _pick(self._policies.get(name, []), revision)

    async def policies(self) -> Sequence[PolicyRevision]:
        return [self._policies[name][-1] for name in sorted(self._policies)]

    # — runs —

    async def create_run(self, run: Run, entry: AuditEntry) -> Run:
        in_force = [row.kill.id for row in self._kills_of(run.flag) if not row.reset]
        if in_force:
            raise KillInForce(f"{run.flag} is killed ({', '.join(in_force)}); reset it first")
        last = self._last_run(run.flag)
        if last is not None and last.active:
            raise Conflict(f"{run.flag} is already turned by {last.id}; wait for its end or abandon it")
        self._require_revisions(run)
        number = 1 + max((row.run.number for row in self.rows.values() if row.run.plan == run.plan), default=0)
        created = replace(
            run,
            id=f"{run.plan}#{number}",
            number=number,
            kill_epoch=self.epochs.get(run.flag, 0),
            version=max(run.version, 1),
        )
        self._append(replace(_naming(created, entry), subject=created.id))
        self.rows[created.id] = Row(run=created, due_at=self._now())
        return created

    def _require_revisions(self, run: Run) -> None:
        if _pick(self._plans.get(run.plan, []), run.plan_revision) is None:
            raise NotFound(f"there is no plan {run.plan} revision {run.plan_revision}; apply it first")
        for name, revision in run.policy_revisions.items():
            if _pick(self._policies.get(name, []), revision) is None:
                raise NotFound(f"there is no policy {name} revision {revision}; apply it first")

    async def run(self, run_id: str) -> tuple[Run, Observations] | None:
        row = self.rows.get(run_id)
        return (row.run, row.observations) if row else None

    async def latest_run(self, plan: str) -> tuple[Run, Observations] | None:
        rows = [row for row in self.rows.values() if row.run.plan == plan]
        latest = max(rows, key=lambda row: row.run.number, default=None)
        return (latest.run, latest.observations) if latest else None

    async def latest_runs(self) -> Sequence[tuple[Run, Observations]]:
        latest = {row.run.plan: row for row in self.rows.values()}
        by_id = sorted(latest.values(), key=lambda row: row.run.id)
        newest_first = sorted(by_id, key=lambda row: row.run.created_at, reverse=True)
        return [(row.run, row.observations) for row in newest_first]

    async def claim_due(self, owner: str, *, limit: int, lease_seconds: float) -> Sequence[Claim]:
        now = self._now()
        due = [
            row
            for row in self.rows.values()
            if row.run.active and _come(row.due_at, now) and (row.owner == owner or _come(row.expires_at, now))
        ]
        claimed = sorted(due, key=lambda row: row.due_at)[:limit]
        for row in claimed:
            if row.owner != owner or row.expires_at <= now:
                row.epoch += 1
            row.owner, row.expires_at = owner, now + lease_seconds
        return [self._claim(row) for row in claimed]

    async def renew(self, owner: str, *, lease_seconds: float) -> None:
        now = self._now()
        for row in self.rows.values():
            if row.run.active and row.owner == owner and row.expires_at > now:
                row.expires_at = now + lease_seconds

    def _claim(self, row: Row) -> Claim:
        pinned = row.run.policy_revisions.items()
        return Claim(
            run=row.run,
            observations=row.observations,
            lease_epoch=row.epoch,
            plan=self._plans[row.run.plan][row.run.plan_revision - 1].plan,
            policies=tuple(self._policies[name][revision - 1].policy for name, revision in pinned),
        )

    async def commit(self, change: Transition) -> int:
        before, after = change.before, change.after
        row = self.rows.get(before.id)
        if row is None:
            raise Conflict(f"{before.id} is not in the database")
        if change.raises:
            self._require_raisable(after)
        if change.lease_epoch is not None and not self._leased(row, change.lease_epoch, change.lease_owner):
            raise StaleLease(f"this replica no longer holds {before.id}")
        if row.run.version != before.version:
            raise Conflict(f"{before.id} is at version {row.run.version}, not {before.version}")
        if change.raises and self._freeze_began(change):
            raise FreezeBegan("a freeze was added meanwhile; decide again in knowledge of it")
        sequence = self._append(_naming(after, change.entry))
        row.run = after
        row.due_at = self._now() + change.check_in_seconds
        if change.observations is not None:
            row.observations = change.observations
        return sequence

    async def check_raise(self, run: Run, lease_epoch: int, owner: str) -> None:
        row = self.rows.get(run.id)
        if row is None:
            raise Conflict(f"{run.id} is not in the database")
        self._require_raisable(run)
        if not self._leased(row, lease_epoch, owner):
            raise StaleLease(f"this replica no longer holds {run.id}")
        if row.run.version != run.version:
            raise Conflict(f"{run.id} is at version {row.run.version}, not {run.version}")

    def _require_raisable(self, run: Run) -> None:
        if self.epochs.get(run.flag, 0) != run.kill_epoch:
            raise KillInForce(f"{run.flag} was killed since {run.id} began; start a new run")
        obstacles = self._roll("").obstacles
        if obstacles:
            raise RaisesBlocked(f"no run may rise: {'; '.join(obstacles)}")

    def _leased(self, row: Row, epoch: int, owner: str | None) -> bool:
        """A failover to a past gives a number out twice, but not to the same owner."""
        return row.epoch == epoch and row.expires_at > self._now() and owner in (None, row.owner)

    async def committed(self, entry_id: str) -> int | None:
        return self.sequences.get(entry_id)

    async def note_once(self, entry: AuditEntry) -> None:
        if entry.id not in self.sequences:
            self._append(entry)

    async def save_observations(self, owner: str, batch: Sequence[tuple[Claim, Observations, float]]) -> None:
        for claim, observations, check_in_seconds in batch:
            row = self.rows.get(claim.run.id)
            if (
                row is not None
                and self._leased(row, claim.lease_epoch, owner)
                and row.run.version == claim.run.version
            ):
                row.observations = observations
                row.due_at = self._now() + check_in_seconds

    async def release(self, owner: str) -> None:
        for row in self.rows.values():
            if row.run.active and row.owner == owner:
                row.owner, row.expires_at = None, 0.0

    # — kills —

    async def record_kill(self, kill: Kill, entry: AuditEntry) -> bool:
        if kill.id in self.kills:
            return False
        run = self._last_run(kill.flag)
        ended = ended_by_kill(run, kill.id, at=kill.accepted_at, why=entry.reason) if run else None
        self._change(ended, entry)
        epoch = self.epochs[kill.flag] = self.epochs.get(kill.flag, 0) + 1
        self.kills[kill.id] = KillRow(kill=kill, epoch=epoch)
        return True

    async def confirm_kill(self, kill_id: str, at: datetime) -> None:
        row = self.kills.get(kill_id)
        if row is not None and row.confirmed_at is None:
            row.confirmed_at = at

    async def active_kills(self) -> Sequence[ActiveKill]:
        in_force = [row for row in self.kills.values() if not row.reset]
        return [
            ActiveKill(kill=row.kill, kill_epoch=row.epoch, confirmed_at=row.confirmed_at)
            for row in sorted(in_force, key=lambda row: (row.kill.flag, row.epoch))
        ]

    async def reset_among(self, kill_ids: Collection[str]) -> Collection[str]:
        return [kill_id for kill_id in kill_ids if kill_id in self.kills and self.kills[kill_id].reset]

    async def reset_kills(self, flag: FlagRef, kill_ids: Collection[str], entry: AuditEntry) -> Sequence[str]:
        known = self._kills_of(flag)
        unknown = sorted(set(kill_ids) - {row.kill.id for row in known})
        if unknown:
            raise Conflict(f"{flag} was never killed by {', '.join(unknown)}; read its kills and reset those")
        fresh = [row for row in known if not row.reset and row.kill.id in kill_ids]
        covered = [row.kill.id for row in fresh]
        if not covered:
            return covered
        run = self._last_run(flag)
        ended_by_these = run is not None and run.phase == "killed" and run.kill_id in covered
        self._change(transition(run, "reset") if run and ended_by_these else None, entry)
        for row in fresh:
            row.reset = True
        return covered

    def _kills_of(self, flag: FlagRef) -> list[KillRow]:
        return [row for row in self.kills.values() if row.kill.flag == flag]

    def _last_run(self, flag: FlagRef) -> Run | None:
        """The run that turned this flag last; an active one before all others."""
        runs = [row.run for row in self.rows.values() if row.run.flag == flag]
        return max(runs, key=lambda run: (run.active, run.created_at, run.number), default=None)

    def _change(self, after: Run | None, entry: AuditEntry) -> None:
        """The audit entry, and the run's change that it records, if any."""
        self._append(_naming(after, entry))
        if after is not None:
            self.rows[after.id].run = after

    # — freezes of the organisation —

    def _freeze_began(self, change: Transition) -> bool:
        newest = change.newest_freeze
        fresh = [one for one in self.frozen.values() if newest is not None and one.number > newest]
        return any(one.holds(change.entry.at) for one in fresh)

    def _standing_freeze(self, name: str, at: datetime) -> OrganisationFreeze | None:
        return next((one for one in self.frozen.values() if one.name == name and not one.is_over(at)), None)

    async def add_freeze(self, freeze: OrganisationFreeze, entry: AuditEntry) -> int | None:
        if self._standing_freeze(freeze.name, entry.at):
            return None
        number = self._append(entry)
        self.frozen[number] = replace(freeze, number=number)
        return number

    async def lift_freeze(self, freeze: OrganisationFreeze, entry: AuditEntry) -> bool:
        standing = self._standing_freeze(freeze.name, entry.at)
        if standing is None:
            return False
        self._append(entry)
        self.frozen[standing.number] = replace(freeze, number=standing.number)
        return True

    async def freezes(self) -> Sequence[OrganisationFreeze]:
        return [one for one in self.frozen.values() if one.lifted_at is None]

    async def latest_freezes(self) -> Sequence[OrganisationFreeze]:
        return list(self.frozen.values())[::-1]

    # — replicas —

    async def check_in(self, replica: Replica, *, life: str, valid_seconds: float, remembered: int) -> Roll:
        counted = life == self.life
        if counted:
            now = self._now()
            self.replicas[replica.name] = ReplicaRow(
                replica=replica, life=life, seen_at=now, valid_until=now + valid_seconds
            )
        known = self.chain[remembered - 1].hash if 0 < remembered <= len(self.chain) else None
        sequence, link = await self.audit_head()
        return replace(
            self._roll(replica.name), counted=counted, remembered=known, head=Head(sequence=sequence, hash=link)
        )

    def _roll(self, name: str) -> Roll:
        now = self._now()
        others = {other: row for other, row in self.replicas.items() if other != name}
        absent = [
            Absent(name=other, seen_at=datetime.fromtimestamp(row.seen_at, UTC))
            for other, row in sorted(others.items())
            if row.life != self.life or _come(row.valid_until, now)
        ]
        return Roll(
            life=self.life,
            counted=False,
            others=tuple(sorted(others)),
            versions=tuple(sorted({row.replica.version for row in others.values()})),
            absent=tuple(absent),
            barriers=tuple(row.barrier for row in self.barriers.values() if not row.released),
        )

    async def check_out(self, name: str) -> None:
        self.replicas.pop(name, None)

    async def raise_barrier(self, barrier: Barrier, entry: AuditEntry) -> bool:
        if barrier.id in self.barriers:
            return False
        self._append(entry)
        self.barriers[barrier.id] = BarrierRow(barrier=barrier)
        return True

    async def release_raises(self, entry: AuditEntry) -> Sequence[str]:
        roll = self._roll("")
        absent = [one.name for one in roll.absent]
        released = absent + [barrier.id for barrier in roll.barriers]
        if released:
            self._append(replace(entry, details={**entry.details, "released": released}))
        for name in absent:
            del self.replicas[name]
        for barrier in roll.barriers:
            self.barriers[barrier.id].released = True
        return released

    async def lead(self, task: str, owner: str, *, lease_seconds: float) -> bool:
        now = self._now()
        leader, until = self.leaders.get(task, (owner, now))
        if leader != owner and not _come(until, now):
            return False
        self.leaders[task] = (owner, now + lease_seconds)
        return True

    # — tokens, SDK keys, built-in flags —

    async def save_token(self, token: Token, entry: AuditEntry) -> None:
        self._save_secret("token", self._tokens, token, entry)

    async def save_sdk_key(self, key: SdkKey, entry: AuditEntry) -> None:
        self._save_secret("SDK key", self._sdk_keys, key, entry)

    async def save_trigger(self, trigger: Trigger, entry: AuditEntry) -> None:
        self._save_secret("trigger", self._triggers, trigger, entry)

    async def revoke_trigger(self, name: str, entry: AuditEntry) -> bool:
        return self._revoke(self._triggers, name, entry)

    async def triggers(self) -> Sequence[Trigger]:
        return [self._triggers[name] for name in sorted(self._triggers)]

    def _save_secret(self, kind: str, known: dict[str, Secret], secret: Secret, entry: AuditEntry) -> None:
        if known.get(secret.name) == secret:
            return
        if any(one.digest == secret.digest and one.name != secret.name for one in known.values()):
            raise Conflict(f"another {kind} has this secret; create one with a new secret")
        self._append(entry)
        known[secret.name] = secret

    async def revoke_token(self, name: str, entry: AuditEntry) -> bool:
        return self._revoke(self._tokens, name, entry)

    async def revoke_sdk_key(self, name: str, entry: AuditEntry) -> bool:
        return self._revoke(self._sdk_keys, name, entry)

    def _revoke(self, known: dict[str, Secret], name: str, entry: AuditEntry) -> bool:
        if name not in known:
            return False
        self._append(entry)
        del known[name]
        return True

    async def tokens(self) -> Sequence[Token]:
        return [self._tokens[name] for name in sorted(self._tokens)]

    async def sdk_keys(self) -> Sequence[SdkKey]:
        return [self._sdk_keys[name] for name in sorted(self._sdk_keys)]

    async def flag_configs(self) -> Sequence[FlagConfig]:
        return [self._flags[key] for key in sorted(self._flags)]

    async def flag_config(self, environment: str, key: str) -> FlagConfig | None:
        return self._flags.get((environment, key))

    async def save_flag_config(self, config: FlagConfig, entry: AuditEntry | None = None) -> FlagConfig:
        key = (config.environment, config.key)
        stored = self._flags.get(key)
        if stored == config:
            return config
        if stored is not None and stored.version >= config.version:
            raise Conflict(
                f"flag {config.key} in {config.environment} is at version {stored.version}, "
                f"so that version {config.version} cannot be saved"
            )
        if entry is not None:
            self._append(entry)
        self._flags[key] = config
        return config

    # — audit —

    async def audit(
        self, *, after: int = 0, limit: int = 1000, run: str | None = None, newest_first: bool = False
    ) -> Sequence[AuditRow]:
        rows = [row for row in self.chain if row.sequence > after and (run is None or _entry(row).run == run)]
        return (rows[::-1] if newest_first else rows)[:limit]

    async def raises_after(self, sequence: int) -> tuple[int, Sequence[Raised]]:
        entries = [_entry(row) for row in self.chain[sequence:]]
        rising = [(one, one.run) for one in entries if one.action in RAISING and one.run is not None]
        return len(self.chain), [_raised(one, self.rows[run].run) for one, run in rising]

    async def audit_head(self) -> tuple[int, bytes]:
        return (self.chain[-1].sequence, self.chain[-1].hash) if self.chain else (0, GENESIS_HASH)

    async def unannounced(self, limit: int) -> Sequence[tuple[int, AuditEntry]]:
        waiting = [row for row in self.chain if row.sequence not in self._announced]
        return [(row.sequence, _entry(row)) for row in waiting[:limit]]

    def is_unannounced(self, entry_id: str) -> bool:
        return entry_id in self.sequences and self.sequences[entry_id] not in self._announced

    def announced(self, entry_ids: Collection[str]) -> None:
        """For the notifications beside this: in a database it is one statement with theirs."""
        self._announced.update(self.sequences[one] for one in entry_ids)

    def note(self, entry: AuditEntry) -> None:
        """An audit entry of what is kept beside this."""
        self._append(entry)

    async def close(self) -> None:
        """Nothing is held open."""

    def _append(self, entry: AuditEntry) -> int:
        if entry.id in self.sequences:
            raise Conflict("this audit entry was recorded before; read the state again")
        sequence, previous = (self.chain[-1].sequence, self.chain[-1].hash) if self.chain else (0, GENESIS_HASH)
        body = canonical_body(entry)
        row = AuditRow(
            sequence=sequence + 1, previous=previous, hash=link_hash(previous, sequence + 1, body), body=body
        )
        self.chain.append(row)
        self.sequences[entry.id] = row.sequence
        return row.sequence


def _pick(revisions: Sequence[Revision], revision: int | None) -> Revision | None:
    """That revision, or the latest."""
    wanted = len(revisions) if revision is None else revision
    return next((one for one in revisions if one.revision == wanted), None)


def _entry(row: AuditRow) -> AuditEntry:
    return msgspec.json.decode(row.body, type=AuditEntry)


def _raised(entry: AuditEntry, run: Run) -> Raised:
    exposure = entry.details.get("to", {}).get("exposure")
    return Raised(flag=run.flag, plan=run.plan, run=run.id, action=entry.action, at=entry.at, exposure=exposure)


def _come(at: float, now: float) -> bool:
    """What lies further ahead than any poll or lease was written before the clock was set back."""
    return at <= now or at > now + FURTHEST_SECONDS


def _naming(run: Run | None, entry: AuditEntry) -> AuditEntry:
    return replace(entry, run=run.id if run else None, run_version=run.version if run else None)
