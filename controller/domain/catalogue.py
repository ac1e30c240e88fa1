"""Records that the store keeps beside runs: revisions, claims, transitions, kills, tokens, built-in flags."""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from controller.domain.audit import AuditEntry
from controller.domain.plan import FlagRef, RolloutPlan
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

    `lease_epoch` None is a person's command: no lease needed. `raises` makes the commit check that the flag's
    kill epoch is still `after.kill_epoch`. `check_in_seconds` is when the next tick is due.
    """

    before: Run
    after: Run
    entry: AuditEntry
    raises: bool
    lease_epoch: int | None = None
    observations: Observations | None = None
    check_in_seconds: float = 0.0


class Kill(Struct, frozen=True, kw_only=True):
    """A kill as accepted, the same in journal and database. `serve_*` None: the off-variation."""

    id: str
    flag: FlagRef
    accepted_at: datetime
    actor: str
    reason: str
    cause: Literal["policy", "user"] = "user"
    run: str | None = None
    version: int = 0


class ActiveKill(Struct, frozen=True, kw_only=True):
    kill: Kill
    kill_epoch: int
    confirmed_at: datetime | None = None


class Token(Struct, frozen=True, kw_only=True):
    """`digest` is SHA-256 of the secret. Empty `environments` means all of them."""

    name: str
    digest: bytes
    scopes: tuple[Scope, ...]
    created_at: datetime
    created_by: str
    environments: tuple[str, ...] = ()
    expires_at: datetime | None = None


class SdkKey(Struct, frozen=True, kw_only=True):
    name: str
    digest: bytes
    environment: str
    created_at: datetime
    created_by: str


class FlagConfig(Struct, frozen=True, kw_only=True):
    """A built-in flag in one environment, as LaunchDarkly's server-side SDKs read it (`data`)."""

    environment: str
    key: str
    version: int
    variations: dict[str, Any]
    data: dict[str, Any]
    archived: bool = False
