"""Flags: the manifest of a built-in flag, what a provider shows, and what we may ask of it."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from controller.domain.plan import ApiVersion, AudienceRule, Document, FlagRef, Metadata, Serve
from controller.domain.quantities import Key, Name


class FlagSpec(Document, frozen=True):
    """A flag of the built-in provider in one environment. Variations are name → JSON value, in a fixed order.

    `client_side`: browsers and apps may see it. What they see, everybody can read.
    """

    environment: Name
    key: Key
    variations: Annotated[dict[str, Any], Meta(min_length=2)] = field(
        default_factory=lambda: {"on": True, "off": False}
    )
    off: str = "off"
    client_side: bool = False


class Flag(Document, frozen=True, tag_field="kind", tag="Flag"):
    api_version: ApiVersion
    metadata: Metadata
    spec: FlagSpec


class FlagState(Struct, frozen=True, kw_only=True, tag="state"):
    """What a provider showed when it was read. Never built from an assumption.

    `exposure` is the rollout variation's share of the default rule, in thousandths of a percent, whether or
    not the flag is on. `audience` names those of our `always` rules that were found. `foreign` describes
    rules, targets or prerequisites that are not ours. `off_serves` is the variation an off flag serves.
    `bucketing` stands for all that decides who is in a share (order of variations, salt, seed, attribute):
    while it stays the same, a larger share holds everybody of a smaller one. `changed_by` and `changed_at` are
    the latest change, when the provider tells. `delivered_seconds`: how long it took to reach a connected SDK.
    """

    enabled: bool
    exposure: int
    audience: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    off_serves: str | None = None
    version: int = 0
    bucketing: str = ""
    changed_by: str = ""
    changed_at: datetime | None = None
    delivered_seconds: float | None = None

    @property
    def effective_exposure(self) -> int:
        return self.exposure if self.enabled else 0


class Unknown(Struct, frozen=True, tag="unknown"):
    """The provider could not be read; `why` says so. Unknown is not off."""

    why: str


Observation = FlagState | Unknown


class SetShare(Struct, frozen=True, kw_only=True):
    """Absolute and idempotent: weights of the default rule and our audience rules; on/off is left alone."""

    flag: FlagRef
    serve: Serve
    exposure: int
    audience: tuple[AudienceRule, ...]
    bucket_by: str
    comment: str


class TurnOn(Struct, frozen=True, kw_only=True):
    """Only a start does this, after weights and rules were read back."""

    flag: FlagRef
    comment: str


FlagChange = SetShare | TurnOn


class FlagKill(Struct, frozen=True, kw_only=True):
    """Off for everybody, weights to zero, our audience rules removed. Unconditional and idempotent.

    `serve` is None when no plan is known for the flag: its off-variation is served then.
    """

    flag: FlagRef
    kill_id: str
    serve: Serve | None
    comment: str


class ProviderLimits(Struct, frozen=True, kw_only=True):
    """What a provider can represent: exposure step in thousandths of a percent, audience rules, settling time."""

    granularity: int = 1
    audience: bool = True
    settle_seconds: float = 5.0
