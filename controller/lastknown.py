"""The last known state on disk: what a cold start without a database needs to serve SDKs and to kill.

Digests, never secrets. One file, replaced atomically; an unreadable one is reported and counts as absent.
"""

import os
import socket
import uuid
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from controller.domain.alerts import AlertAction, most_allowed
from controller.domain.catalogue import FlagConfig, SdkKey, Token, Trigger
from controller.domain.plan import FlagRef, RolloutPlan, Serve
from controller.domain.selection import Raised

log = structlog.get_logger()


class KnownFlag(Struct, frozen=True, kw_only=True):
    """A flag that a plan names, what the plan serves, and the most that alerts may do to it."""

    plan: str
    flag: FlagRef
    serve: Serve
    alerts: AlertAction = "pause"
    owner: str = ""
    labels: dict[str, str] = {}

    @staticmethod
    def of(plan: RolloutPlan) -> "KnownFlag":
        about, spec = plan.metadata, plan.spec
        return KnownFlag(
            plan=about.name,
            flag=spec.flag,
            serve=spec.serve,
            alerts=most_allowed(plan),
            owner=about.owner,
            labels=about.labels,
        )


class LastKnown(Struct, frozen=True, kw_only=True):
    tokens: list[Token] = []
    sdk_keys: list[SdkKey] = []
    triggers: list[Trigger] = []
    flags: list[FlagConfig] = []
    known: list[KnownFlag] = []
    raised: list[Raised] = []
    replicas: list[str] = []


def load(path: Path) -> LastKnown | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=LastKnown)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        log.error("last_known_unreadable", path=str(path), error=str(error))
        return None


def save(path: Path, state: LastKnown) -> None:
    """Raises OSError: the caller decides whether that matters now."""
    fresh = path.with_suffix(".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(state))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def replica_name(path: Path) -> str:
    """The name of this data directory among the replicas, made at its first start. Raises OSError."""
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.write_text(f"{socket.gethostname()}-{uuid.uuid4().hex[:6]}\n")
        fresh.replace(path)
    return path.read_text().strip()
