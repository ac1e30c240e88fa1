"""The Store on PostgreSQL. Every method is one short transaction; the statements are in queries.sql.

Two rules keep it correct: locks are taken in the order applies, flag, manifest, run, kill, audit head; and
whatever must hold for a change is checked by the statement that makes it.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from controller.domain.audit import AuditEntry, AuditRow, canonical_body
from controller.domain.catalogue import (
    ActiveKill,
    Applied,
    Barrier,
    Claim,
    DatabaseCondition,
    FlagConfig,
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
from controller.domain.rollout import Observations, Run, ended_by_kill, transition
from controller.domain.selection import Raised
from controller.errors import Conflict, FreezeBegan, KillInForce, NotFound, RaisesBlocked, Refused, StaleLease
from controller.store import rows
from controller.store.connections import Connection, Connections
from controller.store.documents import Documents, Pin
from controller.store.freezes import PostgresFreezes
from controller.store.queries import SQL

PLAN = "RolloutPlan"
POLICY = "GuardrailPolicy"
UNREADABLE_RETRY_SECONDS = 60.0
RAISES_LOOKED_THROUGH = 20_000
HEAD_LOST = "the audit log has lost its head row; restore the database from a backup"

T = TypeVar("T")

_log = structlog.get_logger()


class PostgresStore:
    """`connect` first. `timeout_seconds` bounds every call; after it the call raises StoreUnavailable.

    `pooled`: the DSN leads through a transaction pooler.
    """

    def __init__(
        self, dsn: str = "", *, pool_size: int = 8, timeout_seconds: float = 5.0, pooled: bool = False
    ) -> None:
        self._dsn = dsn
        self._database = Connections(pool_size=pool_size, timeout_seconds=timeout_seconds, pooled=pooled)
        self._documents = Documents()
        self._freezes = PostgresFreezes(self._database)

    async def connect(self, dsn: str = "") -> None:
        """Succeeds without a database, too: calls raise StoreUnavailable until there is one.

        `dsn` is for a server whose address is known only once it was started.
        """
        await self._database.open(dsn or self._dsn)

    @property
    def connections(self) -> Connections:
        """For what is kept beside this in the same database."""
        return self._database

    async def close(self) -> None:
        await self._database.close()

    async def unreadable(self) -> Sequence[Unreadable]:
        return self._documents.unreadable()

    def recall(
        self,
        tokens: Iterable[Token],
        sdk_keys: Iterable[SdkKey],
        flags: Iterable[FlagConfig],
        triggers: Iterable[Trigger] = (),
    ) -> None:
        """What was last read before this process began: used for those that cannot be read now."""
        self._documents.recall("token", {token.name: token for token in tokens})
        self._documents.recall("sdk_key", {key.name: key for key in sdk_keys})
        self._documents.recall("trigger", {trigger.name: trigger for trigger in triggers})
        self._documents.recall("flag", {f"{flag.environment}/{flag.key}": flag for flag in flags})

    # — what people applied —

    async def save_plan(self, plan: RolloutPlan, entry: AuditEntry) -> PlanRevision:
        row = await self._database.transact(lambda connection: _save_manifest(connection, plan, entry))
        return PlanRevision(plan=plan, revision=row[0], author=row[1], applied_at=row[2])

    async def save_policy(self, policy: GuardrailPolicy, entry: AuditEntry) -> PolicyRevision:
        row = await self._database.transact(lambda connection: _save_manifest(connection, policy, entry))
        return PolicyRevision(policy=policy, revision=row[0], author=row[1], applied_at=row[2])

    async def save_together(self, documents: Sequence[tuple[Applied, AuditEntry]]) -> Sequence[int]:
        """Every manifest is locked before the first audit entry locks the head: nobody waits in a circle."""

        async def save(connection: Connection) -> Sequence[int]:
            await connection.execute(SQL["lock_applies"])
            manifests = (one for one, _ in documents if not isinstance(one, FlagConfig))
            for kind, name in sorted((_kind(one), one.metadata.name) for one in manifests):
                await connection.fetchval(SQL["lock_manifest"], kind, name)
            return [await _save(connection, document, entry) for document, entry in documents]

        return await self._database.transact(save)

    async def plan(self, name: str, revision: int | None = None) -> PlanRevision | None:
        row = await self._database.fetchrow(SQL["revision"], PLAN, name, revision)
        with _readable(f"the plan {name}"):
            return rows.plan_revision(row) if row else None

    async def plans(self) -> Sequence[PlanRevision]:
        found = await self._database.fetch(SQL["latest_revisions"], PLAN)
        return self._documents.read("plan", found, rows.plan_revision)

    async def policy(self, name: str, revision: int | None = None) -> PolicyRevision | None:
        row = await self._database.fetchrow(SQL["revision"], POLICY, name, revision)
        with _readable(f"the policy {name}"):
            return rows.policy_revision(row) if row else None

    async def policies(self) -> Sequence[PolicyRevision]:
        found = await self._database.fetch(SQL["latest_revisions"], POLICY)
        return self._documents.read("policy", found, rows.policy_revision)

    # — runs —

    async def create_run(self, run: Run, entry: AuditEntry) -> Run:
        """Sets id, number and kill epoch, and version 1 unless it has one: the creation is its first audit row."""

        async def create(connection: Connection) -> Run:
            flag = rows.flag_columns(run.flag)
            kill_epoch = await connection.fetchval(SQL["lock_flag"], *flag)
            kills = await connection.fetch(SQL["kills_of_flag"], *flag)
            in_force = [row["id"] for row in kills if row["in_force"]]
            if in_force:
                raise KillInForce(f"{run.flag} is killed ({', '.join(in_force)}); reset it first")
            active = await connection.fetchval(SQL["active_run_of_flag"], *flag)
            if active:
                raise Conflict(f"{run.flag} is already turned by {active}; wait for its end or abandon it")
            await connection.fetchval(SQL["lock_manifest"], PLAN, run.plan)
            await _require_revisions(connection, run)
            number = await connection.fetchval(SQL["next_run_number"], run.plan)
            created = replace(
                run,
                id=f"{run.plan}#{number}",
                number=number,
                kill_epoch=kill_epoch,
                version=max(run.version, 1),
            )
            await _add_run(connection, created, entry)
            return created

        return await self._database.transact(create)

    async def run(self, run_id: str) -> tuple[Run, Observations] | None:
        row = await self._database.fetchrow(SQL["run"], run_id)
        with _readable(f"the run {run_id}"):
            return rows.run_and_observations(row) if row else None

    async def latest_run(self, plan: str) -> tuple[Run, Observations] | None:
        row = await self._database.fetchrow(SQL["latest_run"], plan)
        with _readable(f"the latest run of {plan}"):
            return rows.run_and_observations(row) if row else None

    async def latest_runs(self) -> Sequence[tuple[Run, Observations]]:
        found = await self._database.fetch(SQL["latest_runs"])
        return self._documents.read("run", found, rows.run_and_observations)

    async def claim_due(self, owner: str, *, limit: int, lease_seconds: float) -> Sequence[Claim]:
        """The epoch stays while one owner renews in time. A run that cannot be read is logged and put off."""
        claimed = await self._database.fetch(SQL["claim_due"], owner, limit, lease_seconds)
        runs: dict[str, tuple[Run, Observations, int]] = {}
        unreadable: dict[str, str] = {}
        for row in claimed:
            try:
                runs[row["id"]] = (*rows.run_and_observations(row), row["lease_epoch"])
            except msgspec.DecodeError as error:
                unreadable[row["id"]] = str(error)
        held = [run for run, _, _ in runs.values()]
        plans = await self._pinned(RolloutPlan, {_plan_pin(run) for run in held})
        policies = await self._pinned(GuardrailPolicy, {pin for run in held for pin in _policy_pins(run)})
        claims = []
        for run, observations, lease_epoch in runs.values():
            try:
                claims.append(_claim(run, observations, lease_epoch, plans, policies))
            except NotFound as error:
                unreadable[run.id] = str(error)
        if unreadable:
            _log.error("runs_unreadable", runs=unreadable, retry_in_seconds=UNREADABLE_RETRY_SECONDS)
            await self._database.execute(SQL["postpone"], list(unreadable), UNREADABLE_RETRY_SECONDS)
        return claims

    async def _pinned(self, kind: type[T], pins: Collection[Pin]) -> dict[Pin, T]:
        found = await self._database.fetch(SQL["pinned_revisions"], *_columns(pins)) if pins else []
        documents: dict[Pin, T] = {}
        for row in found:
            pin = (row["kind"], row["name"], row["revision"])
            document = self._documents.pinned(pin, row["document"], lambda text: rows.decode(kind, text))
            if document is not None:  # else whoever is pinned to it is treated as one whose revision is missing
                documents[pin] = document
        return documents

    async def renew(self, owner: str, *, lease_seconds: float) -> None:
        await self._database.execute(SQL["renew"], owner, lease_seconds)

    async def commit(self, change: Transition) -> int:
        after, flag = change.after, change.before.flag
        entry = replace(change.entry, run=after.id, run_version=after.version)
        try:
            sequence: int | None = await self._database.fetchval(
                SQL["commit"],
                *rows.flag_columns(flag),
                change.raises,
                after.kill_epoch,
                after.phase,
                after.version,
                rows.document(after),
                change.check_in_seconds,
                after.id,
                change.before.version,
                change.lease_epoch,
                None if change.observations is None else rows.document(change.observations),
                entry.id,
                canonical_body(entry),
                change.lease_owner,
                change.newest_freeze,
                entry.at,
            )
        except FreezeBegan:
            raise
        except RaisesBlocked:
            sequence = None
        if sequence is None:
            kill_epoch = after.kill_epoch if change.raises else None
            await self._require(change.before, kill_epoch, change.lease_epoch, change.lease_owner)
            # Nothing is in the way any more, and it did not happen: a replica was absent for a moment.
            raise RaisesBlocked("no run may rise: a replica had not checked in; it has by now")
        return sequence

    async def check_raise(self, run: Run, lease_epoch: int, owner: str) -> None:
        await self._require(run, run.kill_epoch, lease_epoch, owner)

    async def _require(self, run: Run, kill_epoch: int | None, lease_epoch: int | None, owner: str | None) -> None:
        """The guards of a commit, each with its own error. `kill_epoch` is given for a raise."""
        row = await self._database.fetchrow(SQL["guards"], run.id, lease_epoch, owner)
        if row is None:
            raise Conflict(f"{run.id} is not in the database")
        if kill_epoch is not None:
            if row["kill_epoch"] != kill_epoch:
                raise KillInForce(
                    f"{run.flag} was killed since {run.id} began; reset the kill and start a new run"
                )
            obstacles = rows.obstacles(row)
            if obstacles:
                raise RaisesBlocked(f"no run may rise: {'; '.join(obstacles)}")
        if not row["held"]:
            raise StaleLease(f"this replica no longer holds {run.id}")
        if row["version"] != run.version:
            raise Conflict(
                f"{run.id} is at version {row['version']}, not {run.version}; somebody changed it first"
            )

    async def committed(self, entry_id: str) -> int | None:
        sequence: int | None = await self._database.fetchval(SQL["committed"], entry_id)
        return sequence

    async def note_once(self, entry: AuditEntry) -> None:
        with suppress(Conflict):  # it is there
            await self._database.fetchval(SQL["append_audit"], entry.id, canonical_body(entry), None, None)

    async def save_observations(self, owner: str, batch: Sequence[tuple[Claim, Observations, float]]) -> None:
        if not batch:
            return
        await self._database.execute(
            SQL["save_observations"],
            owner,
            [claim.run.id for claim, _, _ in batch],
            [claim.lease_epoch for claim, _, _ in batch],
            [claim.run.version for claim, _, _ in batch],
            [rows.document(observations) for _, observations, _ in batch],
            [check_in_seconds for _, _, check_in_seconds in batch],
        )

    async def release(self, owner: str) -> None:
        await self._database.execute(SQL["release"], owner)

    # — kills —

    async def record_kill(self, kill: Kill, entry: AuditEntry) -> bool:
        """The audit row names the run only when the kill ended one."""

        async def record(connection: Connection) -> bool:
            flag = rows.flag_columns(kill.flag)
            await connection.fetchval(SQL["lock_flag"], *flag)
            if await connection.fetchval(SQL["kill_known"], kill.id):
                return False
            await connection.execute(SQL["add_kill"], kill.id, *flag, rows.document(kill))
            row = await connection.fetchrow(SQL["lock_run_of_flag"], *flag)
            try:
                run = rows.decode(Run, row["state"]) if row else None
            except msgspec.DecodeError as error:
                await _end_unreadable(connection, row, entry, error)
                return True
            ended = ended_by_kill(run, kill.id, at=kill.accepted_at, why=entry.reason) if run else None
            await _change(connection, ended, entry)
            return True

        return await self._database.transact(record)

    async def confirm_kill(self, kill_id: str, at: datetime) -> None:
        await self._database.execute(SQL["confirm_kill"], kill_id, at)

    async def active_kills(self) -> Sequence[ActiveKill]:
        return [rows.active_kill(row) for row in await self._database.fetch(SQL["active_kills"])]

    async def reset_among(self, kill_ids: Collection[str]) -> Collection[str]:
        return [row["id"] for row in await self._database.fetch(SQL["reset_among"], list(kill_ids))]

    async def reset_kills(self, flag: FlagRef, kill_ids: Collection[str], entry: AuditEntry) -> Sequence[str]:
        """No audit row when none of them was in force any more."""

        async def reset(connection: Connection) -> Sequence[str]:
            columns = rows.flag_columns(flag)
            await connection.fetchval(SQL["lock_flag"], *columns)
            known = {row["id"]: row["in_force"] for row in await connection.fetch(SQL["kills_of_flag"], *columns)}
            unknown = sorted(set(kill_ids) - set(known))
            if unknown:
                raise Conflict(f"{flag} was never killed by {', '.join(unknown)}; read its kills and reset those")
            covered = [kill_id for kill_id, in_force in known.items() if in_force and kill_id in kill_ids]
            if not covered:
                return covered
            run = _run_or_none(await connection.fetchrow(SQL["lock_run_of_flag"], *columns))
            await connection.execute(SQL["reset_kills"], covered, entry.at, entry.actor)
            ended_by_these = run is not None and run.phase == "killed" and run.kill_id in covered
            await _change(connection, transition(run, "reset") if run and ended_by_these else None, entry)
            return covered

        return await self._database.transact(reset)

    # — freezes of the organisation —

    async def add_freeze(self, freeze: OrganisationFreeze, entry: AuditEntry) -> int | None:
        return await self._freezes.add(freeze, entry)

    async def lift_freeze(self, freeze: OrganisationFreeze, entry: AuditEntry) -> bool:
        return await self._freezes.lift(freeze, entry)

    async def freezes(self) -> Sequence[OrganisationFreeze]:
        return await self._freezes.standing()

    async def latest_freezes(self) -> Sequence[OrganisationFreeze]:
        return await self._freezes.latest()

    # — replicas —

    async def check_in(self, replica: Replica, *, life: str, valid_seconds: float, remembered: int) -> Roll:
        row = await self._database.fetchrow(
            SQL["check_in"], replica.name, replica.version, life, valid_seconds, remembered
        )
        if row is None:
            raise NotFound(HEAD_LOST)
        return rows.roll(row)

    async def check_out(self, name: str) -> None:
        await self._database.execute(SQL["check_out"], name)

    async def raise_barrier(self, barrier: Barrier, entry: AuditEntry) -> bool:
        raised = await self._database.fetchval(
            SQL["raise_barrier"], barrier.id, rows.document(barrier), entry.id, canonical_body(entry)
        )
        return raised is not None

    async def release_raises(self, entry: AuditEntry) -> Sequence[str]:
        async def release(connection: Connection) -> Sequence[str]:
            absent = sorted(row["name"] for row in await connection.fetch(SQL["forget_absent"]))
            lowered = await connection.fetch(SQL["release_barriers"], entry.at, entry.actor)
            barriers = [row["id"] for row in sorted(lowered, key=lambda row: (row["raised_at"], row["id"]))]
            released = absent + barriers
            if released:
                named = replace(entry, details={**entry.details, "released": released})
                await _change(connection, None, named)
            return released

        return await self._database.transact(release)

    async def lead(self, task: str, owner: str, *, lease_seconds: float) -> bool:
        return await self._database.fetchval(SQL["lead"], task, owner, lease_seconds) is not None

    async def migrations_applied(self) -> Sequence[str]:
        return [row["name"] for row in await self._database.fetch(SQL["migrations_applied"])]

    async def condition(self) -> DatabaseCondition:
        row = await self._database.fetchrow(SQL["condition"])
        if row is None or row["audit_head"] is None:
            raise NotFound(HEAD_LOST)
        return DatabaseCondition(**dict(row))

    # — tokens, SDK keys, built-in flags —

    async def save_token(self, token: Token, entry: AuditEntry) -> None:
        """A token of the same name is replaced."""
        await self._save_secret("save_token", token, entry)

    async def save_sdk_key(self, key: SdkKey, entry: AuditEntry) -> None:
        """A key of the same name is replaced."""
        await self._save_secret("save_sdk_key", key, entry)

    async def save_trigger(self, trigger: Trigger, entry: AuditEntry) -> None:
        """A trigger of the same name is replaced."""
        await self._save_secret("save_trigger", trigger, entry)

    async def _save_secret(self, query: str, secret: Token | SdkKey | Trigger, entry: AuditEntry) -> None:
        values = (secret.name, secret.digest, rows.document(secret))
        await self._database.fetchval(SQL[query], *values, entry.id, canonical_body(entry))

    async def revoke_token(self, name: str, entry: AuditEntry) -> bool:
        revoked = await self._database.fetchval(SQL["revoke_token"], name, entry.id, canonical_body(entry))
        return revoked is not None

    async def revoke_sdk_key(self, name: str, entry: AuditEntry) -> bool:
        revoked = await self._database.fetchval(SQL["revoke_sdk_key"], name, entry.id, canonical_body(entry))
        return revoked is not None

    async def revoke_trigger(self, name: str, entry: AuditEntry) -> bool:
        revoked = await self._database.fetchval(SQL["revoke_trigger"], name, entry.id, canonical_body(entry))
        return revoked is not None

    async def triggers(self) -> Sequence[Trigger]:
        found = await self._database.fetch(SQL["triggers"])
        return self._documents.read("trigger", found, lambda row: rows.decode(Trigger, row["document"]))

    async def tokens(self) -> Sequence[Token]:
        found = await self._database.fetch(SQL["tokens"])
        return self._documents.read("token", found, lambda row: rows.decode(Token, row["document"]))

    async def sdk_keys(self) -> Sequence[SdkKey]:
        found = await self._database.fetch(SQL["sdk_keys"])
        return self._documents.read("sdk_key", found, lambda row: rows.decode(SdkKey, row["document"]))

    async def flag_configs(self) -> Sequence[FlagConfig]:
        found = await self._database.fetch(SQL["flag_configs"])
        return self._documents.read("flag", found, lambda row: rows.decode(FlagConfig, row["document"]))

    async def flag_config(self, environment: str, key: str) -> FlagConfig | None:
        document = await self._database.fetchval(SQL["flag_config"], environment, key)
        with _readable(f"the flag {key} in {environment}"):
            return rows.decode(FlagConfig, document) if document else None

    async def save_flag_config(self, config: FlagConfig, entry: AuditEntry | None = None) -> FlagConfig:
        """Saving what is there changes nothing; other content under the same version is a Conflict, too."""
        await _save_flag(self._database, config, entry)
        return config

    # — audit —

    async def audit(
        self, *, after: int = 0, limit: int = 1000, run: str | None = None, newest_first: bool = False
    ) -> Sequence[AuditRow]:
        query = "audit_newest_first" if newest_first else "audit_oldest_first"
        return [rows.audit_row(row) for row in await self._database.fetch(SQL[query], after, limit, run)]

    async def audit_head(self) -> tuple[int, bytes]:
        row = await self._database.fetchrow(SQL["audit_head"])
        if row is None:
            raise NotFound(HEAD_LOST)
        return row["sequence"], row["hash"]

    async def raises_after(self, sequence: int) -> tuple[int, Sequence[Raised]]:
        found = await self._database.fetch(SQL["raises_after"], sequence, RAISES_LOOKED_THROUGH)
        if not found:
            raise NotFound(HEAD_LOST)
        return found[0]["head"], [rows.raised(row) for row in found if row["run"] is not None]

    async def unannounced(self, limit: int) -> Sequence[tuple[int, AuditEntry]]:
        found = await self._database.fetch(SQL["unannounced"], limit)
        return [(row["sequence"], rows.decode(AuditEntry, row["body"])) for row in found]


def _kind(manifest: RolloutPlan | GuardrailPolicy) -> str:
    return PLAN if isinstance(manifest, RolloutPlan) else POLICY


async def _save(connection: Connection, document: Applied, entry: AuditEntry) -> int:
    if isinstance(document, FlagConfig):
        await _save_flag(connection, document, entry)
        return document.version
    return (await _save_manifest(connection, document, entry))[0]


async def _save_manifest(
    connection: Connection, manifest: RolloutPlan | GuardrailPolicy, entry: AuditEntry
) -> tuple[int, str, datetime]:
    kind, name = _kind(manifest), manifest.metadata.name
    latest = await connection.fetchval(SQL["lock_manifest"], kind, name)
    present = await connection.fetchrow(SQL["revision"], kind, name, latest)
    # Compared as values: a default that a later version spells out is no change.
    if present and rows.is_document(manifest, present["document"]):
        return present["revision"], present["author"], present["applied_at"]
    added = (kind, name, latest + 1, rows.document(manifest), entry.actor, entry.at)
    await connection.fetchval(SQL["add_revision"], *added, entry.id, canonical_body(entry))
    return latest + 1, entry.actor, entry.at


async def _save_flag(database: "Connection | Connections", config: FlagConfig, entry: AuditEntry | None) -> None:
    body = (entry.id, canonical_body(entry)) if entry else (None, None)
    values = (config.environment, config.key, config.version, rows.document(config))
    saved = await database.fetchval(SQL["save_flag_config"], *values, *body)
    if saved is None:
        present = await database.fetchval(SQL["flag_config"], config.environment, config.key)
        stored = rows.decode(FlagConfig, present)
        if stored != config:
            raise Conflict(
                f"flag {config.key} in {config.environment} is at version {stored.version}, "
                f"so that version {config.version} cannot be saved"
            )


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Raises Refused when the database holds something else than a document of ours."""
    try:
        yield
    except msgspec.DecodeError as error:
        raise Refused(
            f"{what} cannot be read from the database: {error}; it was written by a newer version, or damaged. "
            "Kills work all the same"
        ) from error


def _run_or_none(row: rows.Row | None) -> Run | None:
    """A run that cannot be read is not changed; whoever asks for it is told."""
    try:
        return rows.decode(Run, row["state"]) if row else None
    except msgspec.DecodeError:
        return None


async def _end_unreadable(
    connection: Connection, row: rows.Row, entry: AuditEntry, error: msgspec.DecodeError
) -> None:
    """By its columns, so that nothing can raise it any more; its document stays as it is."""
    _log.error("unreadable_run_killed", run=row["id"], error=str(error))
    version = None
    if row["active"] or row["phase"] == "completed":
        version = await connection.fetchval(SQL["end_unreadable_run"], row["id"])
    named = replace(entry, run=row["id"] if version else None, run_version=version)
    await connection.fetchval(SQL["append_audit"], named.id, canonical_body(named), named.run, named.run_version)


def _plan_pin(run: Run) -> Pin:
    return PLAN, run.plan, run.plan_revision


def _policy_pins(run: Run) -> list[Pin]:
    return [(POLICY, name, revision) for name, revision in run.policy_revisions.items()]


def _columns(pins: Collection[Pin]) -> tuple[list[str], list[str], list[int]]:
    return [pin[0] for pin in pins], [pin[1] for pin in pins], [pin[2] for pin in pins]


def _spelled(pins: Iterable[Pin]) -> str:
    return ", ".join(f"{kind} {name} revision {revision}" for kind, name, revision in pins)


def _claim(
    run: Run,
    observations: Observations,
    lease_epoch: int,
    plans: dict[Pin, RolloutPlan],
    policies: dict[Pin, GuardrailPolicy],
) -> Claim:
    """Raises NotFound when something that the run is pinned to is not among the documents."""
    try:
        return Claim(
            run=run,
            observations=observations,
            lease_epoch=lease_epoch,
            plan=plans[_plan_pin(run)],
            policies=tuple(policies[pin] for pin in _policy_pins(run)),
        )
    except KeyError as missing:
        raise NotFound(f"{run.id} is pinned to {_spelled(missing.args)}, which cannot be read") from missing


async def _require_revisions(connection: Connection, run: Run) -> None:
    wanted = {_plan_pin(run), *_policy_pins(run)}
    found = await connection.fetch(SQL["pinned_revisions"], *_columns(wanted))
    missing = wanted - {(row["kind"], row["name"], row["revision"]) for row in found}
    if missing:
        raise NotFound(f"there is no {_spelled(sorted(missing))}; apply it first")


async def _add_run(connection: Connection, run: Run, entry: AuditEntry) -> None:
    named = replace(entry, subject=run.id, run=run.id, run_version=run.version)
    await connection.fetchval(
        SQL["add_run"],
        run.id,
        run.plan,
        run.number,
        *rows.flag_columns(run.flag),
        run.phase,
        run.version,
        rows.document(run),
        run.created_at,
        named.id,
        canonical_body(named),
    )


async def _change(connection: Connection, run: Run | None, entry: AuditEntry) -> None:
    """The audit entry, and the run's change that it records, if any; the run is locked."""
    if run:
        await connection.execute(SQL["change_run"], run.id, run.phase, run.version, rows.document(run))
    named = replace(entry, run=run.id if run else None, run_version=run.version if run else None)
    await connection.fetchval(SQL["append_audit"], named.id, canonical_body(named), named.run, named.run_version)
