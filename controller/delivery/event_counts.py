"""From the events of one delivery to counts: each outcome belongs to the variation that its context was served.

A custom event says whom it happened to, not what they were served. Buckets are deterministic, so that follows from
the flag as it was when it happened. When it does not follow, the event is counted without a variation.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from controller.delivery.event_bodies import CONTEXT, GARBLED, Event, Served
from controller.delivery.flag_history import State, Story, View, outermost
from controller.domain.catalogue import SdkKey
from controller.domain.evaluation import Context, Evaluation, NoContext, parse_context
from controller.domain.sdkflag import CONTEXT_KIND, RULE_PREFIX, opens
from controller.domain.tally import (
    ALWAYS,
    CHANGING,
    CONTEXTS,
    EVALUATIONS,
    OTHER,
    RESERVED,
    SHARE,
    UNKNOWN_EXPOSURE,
    Cell,
    Tally,
    Watch,
    bucket_of,
)

SLOW_SECONDS = 2.0
"""How long after a change of a flag an SDK may still serve what it was before."""

WRONG_CLOCK_SECONDS = 600.0
"""An event from the future was made at a time nobody knows: not long ago, it is taken."""

LATE_SECONDS = 3600.0

SETTLING_SECONDS = 30.0
"""How long after a change events of before it may be on their way."""

LATE, CHANGED, NOBODY, HIDDEN = "late", "changed", "nobody", "hidden"
"""Why an event has no variation: it came too late; the variation may have changed since; it is about no user, or
no context at all; attributes that the flag asks for were not sent with it."""

UNKEPT_KINDS = frozenset({"click", "pageview", "migration_op", "diagnostic", "diagnostic-init"})
KINDS = frozenset({"summary", "custom", "index", "identify", "feature", "debug"}) | UNKEPT_KINDS
SIGHTINGS = KINDS - UNKEPT_KINDS
NONE: frozenset[str] = frozenset()


class Arm(NamedTuple):
    """Whose numbers an event belongs to; without a variation `cohort` says why."""

    variation: str
    cohort: str
    exposure: int


class Person:
    """Whom an event is about. `context` is None when nothing can be told of them, `hash` is of a user's key.

    `hidden` are the attributes that were held back, by kind; None when only the keys are known.
    """

    __slots__ = ("context", "hash", "hidden", "present_arms")

    def __init__(self, context: Context | None, hidden: Mapping[str, Collection[str]] | None = None) -> None:
        self.context = context
        self.hidden = hidden
        user = context.parts.get(CONTEXT_KIND) if context else None
        self.hash = _hash(user["key"]) if user else None
        self.present_arms: dict[str, Arm] = {}

    def lacks(self, story: Story) -> bool:
        """Whether something that the flag asks for was not sent."""
        if self.hidden is None:
            return any(self.context and kind in self.context.parts for kind, _ in story.needs)
        return bool(self.hidden) and any(name in self.hidden.get(kind, ()) for kind, name in story.needs)


NOBODY_KNOWN = Person(None)


class Wanted(NamedTuple):
    """What is counted. `events` are flags by event, each with whether its contexts are, too."""

    evaluations: frozenset[str]
    contexts: tuple[str, ...]
    events: Mapping[str, Sequence[tuple[str, bool]]]


class Counts(NamedTuple):
    """What one delivery comes to. `kinds` are its events, `unassigned` those without a variation, by why."""

    tallies: dict[Cell, Tally]
    kinds: Counter[str]
    unassigned: Counter[str]


def wanted(watches: Collection[Watch]) -> Wanted:
    by_flag = {(one.flag, one.metric) for one in watches}
    suffix = f":{CONTEXTS}"
    events: dict[str, dict[str, bool]] = {}
    for flag, metric in sorted(by_flag):
        if metric not in RESERVED:
            flags = events.setdefault(metric.removesuffix(suffix), {})
            flags[flag] = flags.get(flag, False) or metric.endswith(suffix)
    return Wanted(
        evaluations=frozenset(flag for flag, metric in by_flag if metric == EVALUATIONS),
        contexts=tuple(sorted(flag for flag, metric in by_flag if metric == CONTEXTS)),
        events={event: tuple(flags.items()) for event, flags in events.items()},
    )


def count(events: Sequence[Event], key: SdkKey, asked: Wanted, view: View, arrived: float) -> Counts:
    """Of a delivery with `key`, which speaks only of the flags it opens; `arrived` in seconds since 1970."""
    counting = _Counting(key, asked, view, arrived)
    for event in events:
        counting.add(event)
    return Counts(counting.tallies, counting.kinds, counting.unassigned)


class _Counting:
    def __init__(self, key: SdkKey, asked: Wanted, view: View, arrived: float) -> None:
        self.tallies: dict[Cell, Tally] = {}
        self.kinds: Counter[str] = Counter()
        self.unassigned: Counter[str] = Counter()
        self._key = key
        self._asked = asked
        self._view = view
        self._arrived = arrived
        self._people: dict[bytes, Person] = {}

    def add(self, event: Event) -> None:
        self.kinds[event.kind if event.kind in KINDS else "unknown"] += 1
        if event.kind == "summary":
            self._add_summary(event)
        elif event.kind == "custom" and event.key in self._asked.events and event.key not in RESERVED:
            self._add_outcome(event)
        if event.kind in SIGHTINGS and self._asked.contexts:
            self._add_sighting(event)

    # — how often a flag was evaluated: the SDK says what it served —

    def _add_summary(self, event: Event) -> None:
        for flag in self._asked.evaluations & event.features.keys():
            story = self._story(flag)
            for counter in event.features[flag].counters if story else ():
                arm = _told(story, counter)
                if arm is not None:
                    self._tally(flag, EVALUATIONS, arm).count += counter.count

    # — what happened to whom —

    def _add_outcome(self, event: Event) -> None:
        person = self._person(event)
        for flag, contexts in self._asked.events[event.key]:
            arm = self._arm(flag, event, person)
            if arm is None:
                continue
            tally = self._tally(flag, event.key, arm)
            tally.count += 1
            if not arm.variation:
                self.unassigned[arm.cohort] += 1
                continue
            if contexts and person.hash is not None:
                tally.contexts.add(person.hash)
            if event.metric_value is not None:
                bucket = bucket_of(event.metric_value)
                tally.buckets[bucket] = tally.buckets.get(bucket, 0) + 1

    def _add_sighting(self, event: Event) -> None:
        person = self._person(event)
        if person.hash is None:
            return  # a summary of many, or somebody of a kind that the share does not know
        for flag in self._asked.contexts:
            if not _concerns(event, flag):
                continue
            arm = self._arm(flag, event, person)
            if arm is not None:
                tally = self._tally(flag, CONTEXTS, arm)
                tally.count += 1
                if arm.variation:
                    tally.contexts.add(person.hash)

    def _tally(self, flag: str, event: str, arm: Arm) -> Tally:
        cell = Cell(self._key.environment, flag, event, *arm)
        found = self.tallies.get(cell)
        if found is None:
            found = self.tallies[cell] = Tally()
        return found

    # — who was served what —

    def _story(self, flag: str) -> Story | None:
        story = self._view.story(flag)
        return story if story and opens(self._key.kind, story.data) else None

    def _person(self, event: Event) -> Person:
        raw = bytes(event.context)
        if not raw:
            return _of_keys(event.context_keys) if event.context_keys else NOBODY_KNOWN
        found = self._people.get(raw)
        if found is None:
            found = self._people[raw] = _of_context(raw)
        return found

    def _arm(self, flag: str, event: Event, person: Person) -> Arm | None:
        """What the flag served the person when it happened; None when there is no such flag."""
        story = self._story(flag)
        if story is None:
            return None
        since = self._happened_after(event)
        if since is None:
            return _unassigned(LATE)
        if since >= story.present.since and flag in person.present_arms:
            return person.present_arms[flag]
        if person.context is None or person.hash is None:
            return _unassigned(NOBODY)
        if person.lacks(story):
            return _unassigned(HIDDEN)
        if since >= story.present.since:
            arm = person.present_arms[flag] = _arm_of(flag, story, story.present, person.context)
            return arm
        changing = story.present.since > self._arrived - SETTLING_SECONDS
        return _past_arm(flag, story, person.context, since) or _unassigned(CHANGING if changing else CHANGED)

    def _happened_after(self, event: Event) -> float | None:
        """The earliest it may have happened, in seconds since 1970; None when it came too late."""
        created = (event.creation_date or event.start_date) / 1000
        if created > self._arrived + SLOW_SECONDS:
            return self._arrived - WRONG_CLOCK_SECONDS
        return created - SLOW_SECONDS if created > self._arrived - LATE_SECONDS else None


def _concerns(event: Event, flag: str) -> bool:
    """Some events are about one flag, or some; the others only say that somebody is there."""
    if event.kind in ("feature", "debug"):
        return event.key == flag
    return event.kind != "summary" or flag in event.features


def _told(story: Story | None, counter: Served) -> Arm | None:
    """None for what was no variation: the caller's own default."""
    if story is None or counter.variation is None or not 0 <= counter.variation < len(story.variations):
        return None
    exposure = story.exposure if counter.version == story.version else UNKNOWN_EXPOSURE
    return Arm(story.variations[counter.variation], "", exposure)


def _past_arm(flag: str, story: Story, context: Context, since: float) -> Arm | None:
    """The one of all states from then on; None when they differ, or are not known."""
    latest: Arm | None = None
    for state in story.states():
        arm = _arm_of(flag, story, state, context)
        if latest is not None and arm[:2] != latest[:2]:
            return None
        latest = arm
        if since >= state.since:
            return arm._replace(exposure=UNKNOWN_EXPOSURE)
    return None


def _arm_of(flag: str, story: Story, state: State, context: Context) -> Arm:
    answer = state.evaluator.evaluate(flag, context)
    if answer.variation is None:
        return _unassigned(NOBODY)  # every caller's own default
    return Arm(story.variations[answer.variation], _cohort(answer), story.exposure)


def _cohort(answer: Evaluation) -> str:
    kind = answer.reason["kind"]
    if kind == "RULE_MATCH":
        return ALWAYS if str(answer.reason.get("ruleId", "")).startswith(RULE_PREFIX) else OTHER
    return OTHER if kind == "TARGET_MATCH" else SHARE


def _unassigned(why: str) -> Arm:
    return Arm("", why, UNKNOWN_EXPOSURE)


def _of_context(raw: bytes) -> Person:
    try:
        data = CONTEXT.decode(raw)
        return Person(parse_context(data), _hidden(data))
    except (*GARBLED, NoContext):
        return NOBODY_KNOWN


def _of_keys(keys: Mapping[str, str]) -> Person:
    try:
        parts = {kind: {"key": key} for kind, key in keys.items()}
        return Person(parse_context({"kind": "multi", **parts}))
    except NoContext:
        return NOBODY_KNOWN


def _hidden(data: Mapping[str, Any]) -> Mapping[str, Collection[str]]:
    """What SDKs were told to keep to themselves: they send the names."""
    kind = data.get("kind", CONTEXT_KIND)
    parts = (
        {key: part for key, part in data.items() if isinstance(part, Mapping)} if kind == "multi" else {kind: data}
    )
    return {one: names for one, part in parts.items() if (names := _held_back(part))}


def _held_back(part: Mapping[str, Any]) -> frozenset[str]:
    meta = part.get("_meta")
    names = meta.get("redactedAttributes") if isinstance(meta, Mapping) else None
    return (
        frozenset(outermost(name) for name in names if isinstance(name, str)) if isinstance(names, list) else NONE
    )


def _hash(key: str) -> int:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)
