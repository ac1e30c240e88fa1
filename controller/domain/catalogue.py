"""Records that the store keeps beside runs: revisions, claims, transitions, kills, tokens, built-in flags."""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from controller.domain.audit import GENESIS_HASH, AuditEntry
from controller.domain.plan import FlagRef, RolloutPlan, Serve
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import Observations, Run

Scope = Literal["read", "author", "operate", "kill", "approve", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "author", "operate", "kill", "approve", "admin")


class PlanRevision(Struct, frozen=True, kw_only=True):
    """A plan as applied. Revisions count up from 1 and never change; an unchanged apply makes none."""

    plan: RolloutPlan
    revision: int
    author: str
    applied_at: datetime


class PolicyRevision(Struct, frozen=True, kw_only=True):
    policy: GuardrailPolicy
    revision: int
    author: str
    applied_at: datetime


class Claim(Struct, frozen=True, kw_only=True):
    """A run this replica holds until its lease ends, with what it is pinned to."""

    run: Run
    observations: Observations
    lease_epoch: int
    plan: RolloutPlan
    policies: tuple[GuardrailPolicy, ...]


class Transition(Struct, frozen=True, kw_only=True):
    """One guarded change of a run: `before` must still be the stored version.

    `lease_epoch` None is a person's command: no lease needed. `lease_owner` is who claimed it: after a failover to
    a past an epoch is given out twice. `raises` makes the commit check that the flag's kill epoch is still
    `after.kill_epoch`. `newest_freeze` is the newest freeze of the organisation that a start or an advance was
    decided in knowledge of; None: no freeze stands against it. `check_in_seconds` is when the next tick is due.
    """

    before: Run
    after: Run
    entry: AuditEntry
    raises: bool
    newest_freeze: int | None = None
    lease_epoch: int | None = None
    lease_owner: str | None = None
    observations: Observations | None = None
    check_in_seconds: float = 0.0


class Kill(Struct, frozen=True, kw_only=True):
    """A kill as accepted, the same in journal and database."""

    id: str
    flag: FlagRef
    accepted_at: datetime
    actor: str
    reason: str
    cause: Literal["policy", "user"] = "user"
    run: str | None = None
    version: int = 0


class KillRecord(Struct, frozen=True, kw_only=True, tag="kill"):
    """An accepted kill, with all that its audit row will say: what journals keep and replicas tell each other."""

    kill: Kill
    serve: Serve | None = None
    details: dict[str, Any] = {}

    @property
    def cause(self) -> Literal["policy", "user", "alert"]:
        """An alert is told by the details: replicas of a version without that cause must hear the kill, too."""
        return "alert" if "alert" in self.details else self.kill.cause


class PeerAnswer(Struct, frozen=True, kw_only=True):
    """What another replica made of the kills it was told: `holds` are in force there, by id.

    `writing` are those of them that it may still raise against: a write of its own for the flag is on its way to
    the provider, or its journal does not hold the kill yet.
    """

    replica: str
    holds: tuple[str, ...] = ()
    writing: tuple[str, ...] = ()


class ActiveKill(Struct, frozen=True, kw_only=True):
    kill: Kill
    kill_epoch: int
    confirmed_at: datetime | None = None


class Replica(Struct, frozen=True, kw_only=True):
    """One data directory, and so one kill journal. `version` is of the program that runs on it now."""

    name: str
    version: str


class Head(Struct, frozen=True, kw_only=True):
    """The end of the audit log as somebody saw it."""

    sequence: int = 0
    hash: bytes = GENESIS_HASH


class Barrier(Struct, frozen=True, kw_only=True):
    """History was lost: nothing rises until a person has looked. `id` is the same for all who notice the same."""

    id: str
    reason: str
    raised_at: datetime


class Absent(Struct, frozen=True, kw_only=True):
    """A registered replica whose kills may be missing in the database. `seen_at` is database time."""

    name: str
    seen_at: datetime


class Roll(Struct, frozen=True, kw_only=True):
    """The answer to a check-in.

    `life` names the present life of the database server: it changes with every restart, failover and restore.
    `counted` says whether the check-in was for that life. `others` are all other registered replicas, `absent`
    those of them that are silent or have not merged into this life. `head` is the audit log's end, and
    `remembered` its hash at the sequence the caller asked about, None when there is no such row.
    """

    life: str
    counted: bool
    others: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    absent: tuple[Absent, ...] = ()
    barriers: tuple[Barrier, ...] = ()
    head: Head = Head()
    remembered: bytes | None = None

    @property
    def obstacles(self) -> tuple[str, ...]:
        """Why nothing may rise, each in words; empty when it may."""
        silent = tuple(
            f"replica {one.name} has not checked in since {one.seen_at:%Y-%m-%d %H:%M:%S} UTC, "
            "and its journal may hold kills"
            for one in self.absent
        )
        return silent + tuple(barrier.reason for barrier in self.barriers)


class DatabaseCondition(Struct, frozen=True, kw_only=True):
    """What the database says of itself. `schema` is its latest migration; `now` is its clock."""

    now: datetime
    version: str
    schema: str
    audit_head: int
    read_only: bool
    fsync: bool
    synchronous_commit: str
    connections: int
    max_connections: int


class Token(Struct, frozen=True, kw_only=True):
    """`digest` is SHA-256 of the secret. Empty `environments` means all of them."""

    name: str
    digest: bytes
    scopes: tuple[Scope, ...]
    created_at: datetime
    created_by: str
    environments: tuple[str, ...] = ()
    expires_at: datetime | None = None


SdkKeyKind = Literal["server", "mobile", "client"]


class SdkKey(Struct, frozen=True, kw_only=True):
    """A server key opens all flags of its environment. The others open those that are meant for clients.

    `client_side_id` is the key itself where it is no secret: every browser shows it.
    """

    name: str
    digest: bytes
    environment: str
    created_at: datetime
    created_by: str
    kind: SdkKeyKind = "server"
    client_side_id: str | None = None


class Trigger(Struct, frozen=True, kw_only=True):
    """An address that kills this flag. `digest` is SHA-256 of its secret part."""

    name: str
    digest: bytes
    flag: FlagRef
    created_at: datetime
    created_by: str


UnreadableKind = Literal["plan", "policy", "run", "token", "sdk_key", "trigger", "flag", "revision"]


class Unreadable(Struct, frozen=True, kw_only=True):
    """A document in the database that this version cannot read, by its name there.

    `flag` is the one that an active run may be turning, else None.
    """

    kind: UnreadableKind
    name: str
    why: str
    flag: FlagRef | None = None


class FlagConfig(Struct, frozen=True, kw_only=True):
    """A built-in flag in one environment, as LaunchDarkly's server-side SDKs read it (`data`)."""

    environment: str
    key: str
    version: int
    variations: dict[str, Any]
    data: dict[str, Any]
    archived: bool = False


Applied = RolloutPlan | GuardrailPolicy | FlagConfig
"""What an apply stores, each with its audit entry."""
