"""Flags and segments as LaunchDarkly's server-side SDKs are sent them, so far as evaluation reads them.

A type that is not as here makes the flag malformed. Null stands for "absent" everywhere, as in the SDKs.
"""

from typing import Any

from msgspec import Struct


class Written(Struct, frozen=True, rename="camel"):
    pass


class WeightedVariation(Written, frozen=True, kw_only=True):
    """`weight` in thousandths of a percent."""

    variation: int
    weight: int
    untracked: bool | None = None


class Rollout(Written, frozen=True, kw_only=True):
    variations: list[WeightedVariation]
    kind: str | None = None
    context_kind: str | None = None
    bucket_by: str | None = None
    seed: int | None = None


class Serves(Written, frozen=True, kw_only=True):
    variation: int | None = None
    rollout: Rollout | None = None


class Clause(Written, frozen=True, kw_only=True):
    op: str
    values: list[Any]
    attribute: str | None = None
    context_kind: str | None = None
    negate: bool | None = None


class Rule(Serves, frozen=True, kw_only=True):
    clauses: list[Clause]
    id: str | None = None
    track_events: bool | None = None


class Target(Written, frozen=True, kw_only=True):
    variation: int
    values: list[str]
    context_kind: str | None = None


class Prerequisite(Written, frozen=True, kw_only=True):
    key: str
    variation: int


class FlagFace(Written, frozen=True, kw_only=True):
    """What an off flag needs: read apart, so that off is served whatever the rest is like."""

    version: int | None = None
    deleted: bool | None = None
    on: bool | None = None
    variations: list[Any] | None = None
    off_variation: int | None = None
    track_events: bool | None = None


class FlagBody(Written, frozen=True, kw_only=True):
    salt: str | None = None
    prerequisites: list[Prerequisite] | None = None
    targets: list[Target] | None = None
    context_targets: list[Target] | None = None
    rules: list[Rule] | None = None
    fallthrough: Serves | None = None
    track_events_fallthrough: bool | None = None


class SegmentTarget(Written, frozen=True, kw_only=True):
    values: list[str]
    context_kind: str | None = None


class SegmentRule(Written, frozen=True, kw_only=True):
    clauses: list[Clause]
    weight: int | None = None
    bucket_by: str | None = None
    rollout_context_kind: str | None = None


class Segment(Written, frozen=True, kw_only=True):
    deleted: bool | None = None
    salt: str | None = None
    included: list[str] | None = None
    excluded: list[str] | None = None
    included_contexts: list[SegmentTarget] | None = None
    excluded_contexts: list[SegmentTarget] | None = None
    rules: list[SegmentRule] | None = None
    unbounded: bool | None = None
    unbounded_context_kind: str | None = None
    generation: int | None = None
