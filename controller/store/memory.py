"""The store's promises without a database: for simulation and for tests of the engine.

Every method runs without an await inside, so it is as atomic as a transaction. `now` is the model of database
time, in seconds; faults are laid around this class, not into it.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from controller.domain.audit import GENESIS_HASH, AuditEntry, AuditRow, canonical_body, link_hash
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
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import Observations, Run, transition
from controller.errors import Conflict, KillInForce, StaleLease


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


class MemoryStore:
    """Implements `ports.Store`."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.rows: dict[str, Row] = {}
        self.kills: dict[str, KillRow] = {}
        self.epochs: dict[FlagRef, int] = {}
        self.chain: list[AuditRow] = []
        self._entries: dict[str, int] = {}
        self._announced: set[int] = set()
        self._plans: dict[str, list[PlanRevision]] = {}
        self._policies: dict[str, list[PolicyRevision]] = {}
        self._tokens: dict[str, Token] = {}
        self._sdk_keys: dict[str, SdkKey] = {}
        self._flags: dict[tuple[str, str], FlagConfig] = {}

    # — what people applied —

    async def save_plan(self, plan: RolloutPlan, entry: AuditEntry) -> PlanRevision:
        revisions = self._plans.setdefault(plan.metadata.name, [])
        if not revisions or revisions[-1].plan != plan:
            number = len(revisions) + 1
            revisions.append(PlanRevision(plan=plan, revision=number, author=entry.actor, applied_at=entry.at))
            self._append(entry)
        return revisions[-1]

    async def save_policy(self, policy: GuardrailPolicy, entry: AuditEntry) -> PolicyRevision:
        revisions = self._policies.setdefault(policy.metadata.name, [])
        if not revisions or revisions[-1].policy != policy:
            number = len(revisions) + 1
            revisions.append(
                PolicyRevision(policy=policy, revision=number, author=entry.actor, applied_at=entry.at)
            )
            self._append(entry)
        return revisions[-1]

    async def plan(self, name: str, revision: int | None = None) -> PlanRevision | None:
        return _pick(self._plans.get(name, []), revision)

    async def plans(self) -> Sequence[PlanRevision]:
        return [revisions[-1] for revisions in self._plans.values()]

    async def policy(self, name: str, revision: int | None = None) -> PolicyRevision | None:
        return _pick(self._policies.get(name, []), revision)

    async def policies(self) -> Sequence[PolicyRevision]:
        return [revisions[-1] for revisions in self._policies.values()]

    # — runs —

    async def create_run(self, run: Run, entry: AuditEntry) -> Run:
        if self._in_force(run.flag):
            raise KillInForce(f"{run.flag} is killed")
        if any(row.run.flag == run.flag and row.run.active for row in self.rows.values()):
            raise Conflict(f"{run.flag} already has an active run")
        number = 1 + max((row.run.number for row in self.rows.values() if row.run.plan == run.plan), default=0)
        run_id, epoch = f"{run.plan}#{number}", self.epochs.get(run.flag, 0)
        numbered = replace(run, id=run_id, number=number, kill_epoch=epoch, version=1)
        self.rows[run_id] = Row(run=numbered, due_at=self._now())
        self._append(replace(entry, run=run_id, run_version=1, subject=run_id))
        return numbered

    async def run(self, run_id: str) -> tuple[Run, Observations] | None:
        row = self.rows.get(run_id)
        return (row.run, row.observations) if row else None

    async def latest_run(self, plan: str) -> tuple[Run, Observations] | None:
        rows = [row for row in self.rows.values() if row.run.plan == plan]
        latest = max(rows, key=lambda row: row.run.number, default=None)
        return (latest.run, latest.observations) if latest else None

    async def latest_runs(self) -> Sequence[tuple[Run, Observations]]:
        latest = {row.run.plan: row for row in self.rows.values()}
        ordered = sorted(latest.values(), key=lambda row: row.run.created_at, reverse=True)
        return [(row.run, row.observations) for row in ordered]

    async def claim_due(self, owner: str, *, limit: int, lease_seconds: float) -> Sequence[Claim]:
        now, claims = self._now(), []
        due = [row for row in self.rows.values() if row.run.active and row.due_at <= now]
        for row in sorted(due, key=lambda row: row.due_at):
            if row.owner != owner and row.expires_at > now:
                continue
            if row.owner != owner or row.expires_at <= now:
                row.epoch += 1
            row.owner, row.expires_at = owner, now + lease_seconds
            claims.append(self._claim(row))
        return claims[:limit]

    async def renew(self, owner: str, *, lease_seconds: float) -> None:
        now = self._now()
        for row in self.rows.values():
            if row.owner == owner and row.expires_at > now:
                row.expires_at = now + lease_seconds

    def _claim(self, row: Row) -> Claim:
        run = row.run
        plan = _pick(self._plans[run.plan], run.plan_revision)
        policies = [_pick(self._policies[name], number) for name, number in run.policy_revisions.items()]
        if plan is None:
            raise Conflict(f"{run.id} is pinned to a plan revision that does not exist")
        return Claim(
            run=run,
            observations=row.observations,
            lease_epoch=row.epoch,
            plan=plan.plan,
            policies=tuple(one.policy for one in policies if one is not None),
        )

    async def commit(self, transition: Transition) -> int:
        row = self.rows.get(transition.before.id)
        if row is None or row.run.version != transition.before.version:
            raise Conflict(f"{transition.before.id} changed in the meantime")
        if transition.lease_epoch is not None and not self._leased(row, transition.lease_epoch):
            raise StaleLease(f"the lease of {transition.before.id} is no longer held")
        if transition.raises and self.epochs.get(row.run.flag, 0) != transition.after.kill_epoch:
            raise KillInForce(f"{row.run.flag} was killed in the meantime")
        row.run = transition.after
        row.due_at = self._now() + transition.check_in_seconds
        if transition.observations is not None:
            row.observations = transition.observations
        return self._append(transition.entry)

    def _leased(self, row: Row, epoch: int) -> bool:
        return row.epoch == epoch and row.expires_at > self._now()

    async def committed(self, entry_id: str) -> int | None:
        return self._entries.get(entry_id)

    async def save_observations(self, owner: str, batch: Sequence[tuple[Claim, Observations, float]]) -> None:
        for claim, observations, check_in_seconds in batch:
            row = self.rows[claim.run.id]
            if (
                row.owner == owner
                and self._leased(row, claim.lease_epoch)
                and row.run.version == claim.run.version
            ):
                row.observations = observations
                row.due_at = self._now() + check_in_seconds

    async def wake(self, run_id: str) -> None:
        if run_id in self.rows:
            self.rows[run_id].due_at = self._now()

    async def release(self, owner: str) -> None:
        for row in self.rows.values():
            if row.owner == owner:
                row.expires_at = 0.0

    # — kills —

    async def record_kill(self, kill: Kill, entry: AuditEntry) -> bool:
        if kill.id in self.kills:
            return False
        epoch = self.epochs[kill.flag] = self.epochs.get(kill.flag, 0) + 1
        self.kills[kill.id] = KillRow(kill=kill, epoch=epoch)
        rows = [row for row in self.rows.values() if row.run.flag == kill.flag]
        hit = max(rows, key=lambda row: (row.run.active, row.run.created_at, row.run.number), default=None)
        if hit is not None and (hit.run.active or hit.run.phase == "completed"):
            hit.run = transition(
                hit.run, "kill", exposure=0, audience=False, kill_id=kill.id, status=entry.reason,
                ended_at=kill.accepted_at,
            )  # fmt: skip
            entry = replace(entry, run=hit.run.id, run_version=hit.run.version)
        self._append(entry)
        return True

    async def confirm_kill(self, kill_id: str, at: datetime) -> None:
        if kill_id in self.kills:
            self.kills[kill_id].confirmed_at = at

    async def active_kills(self) -> Sequence[ActiveKill]:
        return [
            ActiveKill(kill=row.kill, kill_epoch=row.epoch, confirmed_at=row.confirmed_at)
            for row in self.kills.values()
            if not row.reset
        ]

    async def reset_kills(self, flag: FlagRef, kill_ids: Collection[str], entry: AuditEntry) -> Sequence[str]:
        named = [self.kills.get(kill_id) for kill_id in kill_ids]
        covered = [one for one in named if one is not None and one.kill.flag == flag]
        if len(covered) != len(named):
            raise Conflict(f"{flag} is not held by all of {', '.join(kill_ids)}")
        fresh = [one for one in covered if not one.reset]
        for one in fresh:
            one.reset = True
        ids = {one.kill.id for one in fresh}
        for row in self.rows.values():
            if row.run.phase == "killed" and row.run.kill_id in ids:
                row.run = transition(row.run, "reset")
                entry = replace(entry, run=row.run.id, run_version=row.run.version)
        if fresh:
            self._append(entry)
        return [one.kill.id for one in fresh]

    async def kill_epoch(self, flag: FlagRef) -> int:
        return self.epochs.get(flag, 0)

    def _in_force(self, flag: FlagRef) -> bool:
        return any(row.kill.flag == flag and not row.reset for row in self.kills.values())

    # — tokens, SDK keys, built-in flags —

    async def save_token(self, token: Token, entry: AuditEntry) -> None:
        self._tokens[token.name] = token
        self._append(entry)

    async def revoke_token(self, name: str, entry: AuditEntry) -> bool:
        known = self._tokens.pop(name, None) is not None
        if known:
            self._append(entry)
        return known

    async def tokens(self) -> Sequence[Token]:
        return list(self._tokens.values())

    async def save_sdk_key(self, key: SdkKey, entry: AuditEntry) -> None:
        self._sdk_keys[key.name] = key
        self._append(entry)

    async def revoke_sdk_key(self, name: str, entry: AuditEntry) -> bool:
        known = self._sdk_keys.pop(name, None) is not None
        if known:
            self._append(entry)
        return known

    async def sdk_keys(self) -> Sequence[SdkKey]:
        return list(self._sdk_keys.values())

    async def flag_configs(self) -> Sequence[FlagConfig]:
        return list(self._flags.values())

    async def flag_config(self, environment: str, key: str) -> FlagConfig | None:
        return self._flags.get((environment, key))

    async def save_flag_config(self, config: FlagConfig, entry: AuditEntry | None = None) -> FlagConfig:
        key = (config.environment, config.key)
        if key in self._flags and self._flags[key].version >= config.version:
            raise Conflict(f"{config.key} in {config.environment} has a newer version already")
        self._flags[key] = config
        if entry is not None:
            self._append(entry)
        return config

    # — audit —

    async def audit(
        self, *, after: int = 0, limit: int = 1000, run: str | None = None, newest_first: bool = False
    ) -> Sequence[AuditRow]:
        rows = [row for row in self.chain if row.sequence > after and (run is None or _entry(row).run == run)]
        return (rows[::-1] if newest_first else rows)[:limit]

    async def audit_head(self) -> tuple[int, bytes]:
        return (self.chain[-1].sequence, self.chain[-1].hash) if self.chain else (0, GENESIS_HASH)

    async def unannounced(self, limit: int) -> Sequence[tuple[int, AuditEntry]]:
        waiting = [row for row in self.chain if row.sequence not in self._announced]
        return [(row.sequence, _entry(row)) for row in waiting[:limit]]

    async def announced(self, sequences: Collection[int]) -> None:
        self._announced.update(sequences)

    async def close(self) -> None:
        """Nothing is held open."""

    def _append(self, entry: AuditEntry) -> int:
        sequence, previous = (self.chain[-1].sequence, self.chain[-1].hash) if self.chain else (0, GENESIS_HASH)
        body = canonical_body(entry)
        row = AuditRow(
            sequence=sequence + 1, previous=previous, hash=link_hash(previous, sequence + 1, body), body=body
        )
        self.chain.append(row)
        self._entries[entry.id] = row.sequence
        return row.sequence


Revision = TypeVar("Revision", PlanRevision, PolicyRevision)


def _pick(revisions: Sequence[Revision], revision: int | None) -> Revision | None:
    """That revision, or the latest."""
    wanted = len(revisions) if revision is None else revision
    return next((one for one in revisions if one.revision == wanted), None)


def _entry(row: AuditRow) -> AuditEntry:
    return msgspec.json.decode(row.body, type=AuditEntry)
