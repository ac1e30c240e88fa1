"""Flags and segments readied for evaluation: everything that does not depend on the context is done once."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from controller.domain.evaluation import model
from controller.domain.evaluation.bucketing import FULL_WEIGHT, hashed, prefix_of
from controller.domain.evaluation.contexts import DEFAULT_KIND, Context
from controller.domain.evaluation.operators import SEGMENT_MATCH, Patterns, Test, read_test
from controller.domain.evaluation.references import Reference, look_up, read_reference

T = TypeVar("T")
_BY_KEY: Reference = ("key",)
_BY_KIND: Reference = ("kind",)


class MalformedFlag(Exception):
    """A flag, or something that it refers to, cannot be evaluated; says why."""


class Bucketing(Struct, frozen=True):
    """How contexts are divided: by the hash of an attribute of one kind."""

    kind: str
    reference: Reference
    prefix: bytes

    def bucket_of(self, context: Context) -> float | None:
        """None for a context without this kind."""
        part = context.parts.get(self.kind)
        return None if part is None else hashed(self.prefix, look_up(self.reference, part))


class Share(Struct, frozen=True):
    """Everybody whose bucket is below `end` and in no share before. `tracked`: measured in an experiment."""

    end: float
    variation: int
    tracked: bool


class Division(Struct, frozen=True):
    bucketing: Bucketing
    shares: tuple[Share, ...]

    def serve(self, context: Context) -> tuple[int, bool]:
        """The variation, and whether this context takes part in an experiment."""
        at = self.bucketing.bucket_of(context)
        if at is None:
            # The first share even if it is empty. In our own flags that is the fallback, never what is raised.
            return self.shares[0].variation, False
        # Weights may add up to less than everything; whoever is beyond them gets the last variation.
        share = next((one for one in self.shares if at < one.end), self.shares[-1])
        return share.variation, share.tracked


Served = int | Division | None
"""One variation for everybody, a division of them, or nothing that could be served."""


class ReadiedClause(Struct, frozen=True):
    """`segments` are the keys of a clause that asks for segments, and None for every other."""

    kind: str
    reference: Reference | None
    test: Test
    negate: bool
    segments: tuple[str, ...] | None

    def matches(self, context: Context) -> bool:
        """Never for a context without the attribute, also when the clause is negated."""
        if self.reference is None:
            raise MalformedFlag("a clause has an attribute reference that refers to nothing")
        if self.reference == _BY_KIND:
            return any(map(self.test, context.parts)) is not self.negate
        part = context.parts.get(self.kind)
        value = None if part is None else look_up(self.reference, part)
        if value is None:
            return False
        found = any(map(self.test, value)) if isinstance(value, list | tuple) else self.test(value)
        return found is not self.negate


class ReadiedRule(Struct, frozen=True):
    id: str | None
    clauses: tuple[ReadiedClause, ...]
    served: Served
    track_events: bool


class KeyList(Struct, frozen=True):
    kind: str
    keys: frozenset[str]

    def has(self, context: Context) -> bool:
        part = context.parts.get(self.kind)
        return part is not None and part["key"] in self.keys


class ReadiedTarget(Struct, frozen=True):
    list: KeyList
    variation: int


class ReadiedBody(Struct, frozen=True):
    prerequisites: tuple[model.Prerequisite, ...]
    targets: tuple[ReadiedTarget, ...]
    rules: tuple[ReadiedRule, ...]
    fallthrough: Served
    track_fallthrough: bool


class ReadiedSegmentRule(Struct, frozen=True):
    """`share` of those that match the clauses are in the segment; None for all of them.

    `bucketing` is None when it is by an attribute reference that refers to nothing.
    """

    clauses: tuple[ReadiedClause, ...]
    share: float | None
    bucketing: Bucketing | None

    def takes(self, context: Context) -> bool:
        if self.share is None:
            return True
        if self.bucketing is None:
            raise MalformedFlag("a segment is divided by an attribute reference that refers to nothing")
        return (self.bucketing.bucket_of(context) or 0.0) < self.share


class ReadiedSegment(Struct, frozen=True):
    included: tuple[KeyList, ...]
    excluded: tuple[KeyList, ...]
    rules: tuple[ReadiedSegmentRule, ...]
    unbounded: bool
    unbounded_kind: str
    generation: int | None


def read_as(data: Mapping[str, Any], type_: type[T]) -> T:
    try:
        return msgspec.convert(data, type_)
    except msgspec.ValidationError as error:
        raise MalformedFlag(str(error)) from error


def ready_body(key: str, data: Mapping[str, Any], patterns: Patterns) -> ReadiedBody:
    body = read_as(data, model.FlagBody)
    salt = body.salt or ""
    rules = [
        ReadiedRule(rule.id, _clauses(rule.clauses, patterns), _served(rule, key, salt), bool(rule.track_events))
        for rule in body.rules or ()
    ]
    return ReadiedBody(
        prerequisites=tuple(body.prerequisites or ()),
        targets=tuple(_targets(body.targets or [], body.context_targets or [])),
        rules=tuple(rules),
        fallthrough=_served(body.fallthrough, key, salt) if body.fallthrough else None,
        track_fallthrough=bool(body.track_events_fallthrough),
    )


def ready_segment(key: str, data: Mapping[str, Any], patterns: Patterns) -> ReadiedSegment | None:
    """None when it was deleted."""
    segment = read_as(data, model.Segment)
    if segment.deleted:
        return None
    return ReadiedSegment(
        included=_key_lists(segment.included, segment.included_contexts),
        excluded=_key_lists(segment.excluded, segment.excluded_contexts),
        rules=tuple(_segment_rule(rule, key, segment.salt or "", patterns) for rule in segment.rules or ()),
        unbounded=bool(segment.unbounded),
        unbounded_kind=segment.unbounded_context_kind or DEFAULT_KIND,
        generation=segment.generation,
    )


def _served(written: model.Serves, key: str, salt: str) -> Served:
    rollout = written.rollout
    if written.variation is not None or rollout is None:
        return written.variation
    experiment = rollout.kind == "experiment"
    shares, end = [], 0.0
    for one in rollout.variations:
        # Added up one by one as SDKs do: floats that are rounded otherwise would divide otherwise.
        end += one.weight / FULL_WEIGHT
        shares.append(Share(end, one.variation, experiment and not one.untracked))
    by = None if experiment else rollout.bucket_by
    bucketing = _bucketing(by, rollout.context_kind, prefix_of(key, salt, rollout.seed))
    return Division(bucketing, tuple(shares)) if shares and bucketing else None


def _bucketing(by: str | None, kind: str | None, prefix: bytes) -> Bucketing | None:
    reference = read_reference(by, literal=not kind) if by else _BY_KEY
    return None if reference is None else Bucketing(kind or DEFAULT_KIND, reference, prefix)


def _clauses(written: Sequence[model.Clause], patterns: Patterns) -> tuple[ReadiedClause, ...]:
    return tuple(_clause(clause, patterns) for clause in written)


def _clause(written: model.Clause, patterns: Patterns) -> ReadiedClause:
    segments = None
    if written.op == SEGMENT_MATCH:
        segments = tuple(value for value in written.values if isinstance(value, str))
    return ReadiedClause(
        kind=written.context_kind or DEFAULT_KIND,
        reference=read_reference(written.attribute or "", literal=not written.context_kind),
        test=read_test(written.op, written.values, patterns),
        negate=bool(written.negate),
        segments=segments,
    )


def _targets(of_users: Sequence[model.Target], of_kinds: Sequence[model.Target]) -> list[ReadiedTarget]:
    """Targets of kinds give the order; those of users among them only stand for the list in the other place."""
    if not of_kinds:
        return [ReadiedTarget(KeyList(DEFAULT_KIND, frozenset(one.values)), one.variation) for one in of_users]
    targets = []
    for target in of_kinds:
        kind, values = target.context_kind or DEFAULT_KIND, target.values
        if kind == DEFAULT_KIND:
            values = next((one.values for one in of_users if one.variation == target.variation), [])
        targets.append(ReadiedTarget(KeyList(kind, frozenset(values)), target.variation))
    return targets


def _key_lists(users: list[str] | None, others: list[model.SegmentTarget] | None) -> tuple[KeyList, ...]:
    lists = [KeyList(DEFAULT_KIND, frozenset(users or ()))]
    lists += [KeyList(one.context_kind or DEFAULT_KIND, frozenset(one.values)) for one in others or ()]
    return tuple(one for one in lists if one.keys)


def _segment_rule(written: model.SegmentRule, key: str, salt: str, patterns: Patterns) -> ReadiedSegmentRule:
    return ReadiedSegmentRule(
        clauses=_clauses(written.clauses, patterns),
        share=None if written.weight is None else written.weight / FULL_WEIGHT,
        bucketing=_bucketing(written.bucket_by, written.rollout_context_kind, prefix_of(key, salt, None)),
    )
