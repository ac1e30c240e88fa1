"""Between the rows of the database and the values of the domain: documents are JSON texts."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from controller.domain.audit import AuditEntry, AuditRow
from controller.domain.catalogue import (
    Absent,
    ActiveKill,
    Barrier,
    FlagConfig,
    Head,
    Kill,
    PlanRevision,
    PolicyRevision,
    Roll,
    SdkKey,
    Token,
    Trigger,
)
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import Observations, Run
from controller.domain.selection import Raised

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T")
Row = Any

MANIFESTS_KEPT = 4096
"""Of each kind. The same texts come back with every tick and every look at the list; no value is ever changed."""

_encoder = msgspec.json.Encoder()
_decode: dict[type[Any], Callable[[str], Any]] = {
    kind: msgspec.json.Decoder(kind).decode
    for kind in (
        AuditEntry,
        Barrier,
        FlagConfig,
        GuardrailPolicy,
        Kill,
        Observations,
        RolloutPlan,
        Run,
        SdkKey,
        Token,
        Trigger,
    )
}
_decode |= {kind: lru_cache(MANIFESTS_KEPT)(_decode[kind]) for kind in (RolloutPlan, GuardrailPolicy)}


def document(value: msgspec.Struct) -> str:
    return _encoder.encode(value).decode()


def decode(kind: type[T], text: str) -> T:
    """Raises msgspec.DecodeError when the text is not a `kind`."""
    value: T = _decode[kind](text)
    return value


def is_document(value: msgspec.Struct, text: str) -> bool:
    """Whether the text is this value. One that cannot be read is another: applying again mends it."""
    try:
        return bool(decode(type(value), text) == value)
    except msgspec.DecodeError:
        return False


def flag_columns(flag: FlagRef) -> tuple[str, str, str]:
    return flag.provider, flag.environment, flag.key


def run_and_observations(row: Row) -> tuple[Run, Observations]:
    observations = decode(Observations, row["observations"]) if row["observations"] else Observations()
    return decode(Run, row["state"]), observations


def plan_revision(row: Row) -> PlanRevision:
    return PlanRevision(
        plan=decode(RolloutPlan, row["document"]),
        revision=row["revision"],
        author=row["author"],
        applied_at=row["applied_at"],
    )


def policy_revision(row: Row) -> PolicyRevision:
    return PolicyRevision(
        policy=decode(GuardrailPolicy, row["document"]),
        revision=row["revision"],
        author=row["author"],
        applied_at=row["applied_at"],
    )


def active_kill(row: Row) -> ActiveKill:
    """One that cannot be read is a kill all the same: what holds the flag down is in the columns."""
    try:
        kill = decode(Kill, row["document"])
    except msgspec.DecodeError as error:
        flag = FlagRef(provider=row["provider"], environment=row["environment"], key=row["key"])
        why = f"the document of this kill cannot be read: {error}"
        kill = Kill(
            id=row["id"], flag=flag, accepted_at=row["confirmed_at"] or LONG_AGO, actor="unknown", reason=why
        )
    return ActiveKill(kill=kill, kill_epoch=row["kill_epoch"], confirmed_at=row["confirmed_at"])


def roll(row: Row) -> Roll:
    return Roll(
        life=row["life"],
        counted=row["counted"],
        others=tuple(row["others"]),
        versions=tuple(row["versions"]),
        absent=_absent(row),
        barriers=_barriers(row),
        head=Head(sequence=row["sequence"], hash=row["hash"]),
        remembered=row["remembered"],
    )


def obstacles(row: Row) -> tuple[str, ...]:
    """Why nothing may rise, in words."""
    return Roll(life="", counted=False, absent=_absent(row), barriers=_barriers(row)).obstacles


def _absent(row: Row) -> tuple[Absent, ...]:
    columns = zip(row["absent"], row["absent_seen_at"], strict=True)
    return tuple(Absent(name=name, seen_at=seen_at) for name, seen_at in columns)


def _barriers(row: Row) -> tuple[Barrier, ...]:
    return tuple(decode(Barrier, text) for text in row["barriers"])


def raised(row: Row) -> Raised:
    return Raised(
        flag=FlagRef(provider=row["provider"], environment=row["environment"], key=row["key"]),
        plan=row["plan"],
        run=row["run"],
        action=row["action"],
        at=row["at"],
        exposure=row["exposure"],
    )


def audit_row(row: Row) -> AuditRow:
    return AuditRow(sequence=row["sequence"], previous=row["previous"], hash=row["hash"], body=row["body"])
