"""Between the rows of the database and the values of the domain: documents are JSON texts."""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from controller.domain.audit import AuditEntry, AuditRow
from controller.domain.catalogue import ActiveKill, FlagConfig, Kill, PlanRevision, PolicyRevision, SdkKey, Token
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import Observations, Run

T = TypeVar("T")
Row = Any

_encoder = msgspec.json.Encoder()
_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (
        AuditEntry,
        FlagConfig,
        GuardrailPolicy,
        Kill,
        Observations,
        RolloutPlan,
        Run,
        SdkKey,
        Token,
    )
}


def document(value: msgspec.Struct) -> str:
    return _encoder.encode(value).decode()


def decode(kind: type[T], text: str) -> T:
    """Raises msgspec.DecodeError when the text is not a `kind`."""
    value: T = _decoders[kind].decode(text)
    return value


def decode_all(kind: type[T], rows: Iterable[Row]) -> list[T]:
    return [decode(kind, row["document"]) for row in rows]


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
    return ActiveKill(
        kill=decode(Kill, row["document"]), kill_epoch=row["kill_epoch"], confirmed_at=row["confirmed_at"]
    )


def audit_row(row: Row) -> AuditRow:
    return AuditRow(sequence=row["sequence"], previous=row["previous"], hash=row["hash"], body=row["body"])
