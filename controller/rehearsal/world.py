"""The synthetic series of one rehearsal, and what they answer: by the arithmetic of the source that scrapes."""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from controller.domain.evidence import QuantileQuestion, QueryQuestion, Question, RatioQuestion, Reading
from controller.domain.quantities import FULL_EXPOSURE, exposure
from controller.errors import Invalid
from controller.rehearsal.lot import Lot
from controller.rehearsal.script import SIDES, Script, Side, Track
from controller.sources import coalescing, recollection, selectors
from controller.sources.coalescing import BUCKET_LABEL
from controller.sources.sample_memory import Identity, SampleMemory

BAD, TOTAL, BUCKETS = "rehearsed_bad", "rehearsed_total", "rehearsed_bucket"
LONGEST_GAP = 2.0
"""In intervals. No scrape is ever missed here: what is missing is missing in a scrape."""


class Counters:
    """One metric on one side, as a target that counts it would expose it."""

    def __init__(self, track: Track, side: Side, lot: Lot | None) -> None:
        self._track = track
        self._side: Side = side
        self._lot = lot
        self._labels = (("metric", track.name), ("side", side))
        self._total = 0.0
        self._bad = 0.0
        self._buckets = [0.0] * (len(track.bounds) + 1)
        self._shares: tuple[float, tuple[float, ...]] = (math.nan, ())

    def level(self, moment: float) -> float | None:
        if self._side == "control" and moment < 0:
            return self._track.before
        return self._track.levels(self._side).at(moment)

    def grow(self, moment: float, requests: float, level: float) -> None:
        """By the requests that came since the last scrape, which began at `moment`."""
        if self._lot is not None:
            requests = self._lot.arrivals(requests * self._lot.wander(moment))
            level *= self._lot.wander(moment)
        self._total += requests
        if self._track.declared.shape == "ratio":
            self._bad += self._lot.among(requests, level) if self._lot else requests * level
        else:
            self._spread_out(requests, level)

    def samples(self) -> Iterator[tuple[Identity, float]]:
        if self._track.declared.shape == "ratio":
            yield (BAD, self._labels), self._bad
            yield (TOTAL, self._labels), self._total
            return
        below = 0.0
        for bound, count in zip((*self._track.bounds, math.inf), self._buckets, strict=True):
            below += count
            le = "+Inf" if bound == math.inf else repr(bound)
            yield (BUCKETS, ((BUCKET_LABEL, le), *self._labels)), below

    def _spread_out(self, requests: float, level: float) -> None:
        """Over the buckets, as an exponential distribution with this quantile does."""
        left, rest = requests, 1.0
        for index, share in enumerate(self._shares_of(level)):
            count = self._lot.among(left, share / rest if rest > 0 else 1.0) if self._lot else requests * share
            self._buckets[index] += count
            left -= count
            rest -= share
        self._buckets[-1] += left

    def _shares_of(self, level: float) -> tuple[float, ...]:
        if self._shares[0] != level:
            above = math.log(1 - (self._track.declared.quantile or 0.5))
            below = [1 - math.exp(above * bound / level) if level > 0 else 1.0 for bound in self._track.bounds]
            shares = [later - earlier for earlier, later in zip([0.0, *below], below, strict=False)]
            self._shares = (level, tuple(shares))
        return self._shares[1]


Kept = tuple[float, Reading]
"""A reading, and until when it will be the same."""
NOTHING_KEPT: Kept = (-math.inf, Reading(query=""))


class Asked(Struct, frozen=True, kw_only=True):
    """A question of the policy's, and what is asked in its place: itself, when its series are given raw."""

    track: Track
    side: Side
    window: float
    instead: Question
    raw: bool


class World:
    """`measure` asks, `expose` shares the traffic out anew. Times in seconds from the start of the run."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._interval = script.interval
        self._raw = [(_identity(one.selector), one.samples) for one in script.raw]
        raw_metrics = frozenset(metric for (metric, _), _ in self._raw)
        self._asked = dict(_questions(script, raw_metrics))
        longest = max(one.window for one in self._asked.values())
        self._memory = SampleMemory(
            "rehearsal", every_seconds=self._interval, retention_seconds=longest + 2 * self._interval
        )
        self._counters = [
            (side, Counters(track, side, _lot(script, track, side)))
            for side in SIDES
            for track in {one.track.name: one.track for one in self._asked.values() if _counted(one)}.values()
        ]
        self._kept_scrapes = math.ceil(longest / self._interval) + 2
        self._next = -self._kept_scrapes
        self._exposure = 0
        self._exposed_since = -math.inf
        self._was_exposed = False
        self._kept: dict[tuple[Question, float], Kept] = {}

    def expose(self, share: int, moment: float) -> None:
        """From `moment` on this share of the traffic gets the rollout."""
        if share != self._exposure:
            self._scrape_until(moment)
            self._exposure, self._exposed_since = share, moment
            self._was_exposed = self._was_exposed or share > 0
            self._kept.clear()

    def measure(self, questions: Sequence[Question], now: float) -> list[tuple[Question, Reading]]:
        """In the order asked. A reading that cannot have changed is the very same value as before."""
        if any(
            one.verb == "source fails" and one.start <= now < (one.until or 0.0) for one in self._script.events
        ):
            return [(one, Reading(query="", failure="it does not answer (as the test says)")) for one in questions]
        phase = now % self._interval
        kept = {one: self._kept.get((one, phase), NOTHING_KEPT) for one in questions}
        fresh = [one for one, (valid_until, _) in kept.items() if now > valid_until]
        if fresh:
            self._scrape_until(now)
            for question, reading in self._recalled(fresh, now):
                kept[question] = self._kept[question, phase] = self._valid_until(question, now), reading
        return [(one, kept[one][1]) for one in questions]

    # — counting —

    def _scrape_until(self, now: float) -> None:
        """What no window reaches back to any more is left out."""
        last = math.floor(now / self._interval)
        for number in range(max(self._next, last - self._kept_scrapes), last + 1):
            self._scrape(number)
        self._next = last + 1

    def _scrape(self, number: int) -> None:
        """Counters have grown since the scrape before by what went on at that time."""
        moment, began = number * self._interval, (number - 1) * self._interval
        samples: list[tuple[Identity, float]] = []
        for side, counters in self._counters:
            if side == "rollout" and not self._was_exposed:
                continue
            requests, level = self._requests(side, began), counters.level(began)
            if requests is None or level is None:
                continue
            counters.grow(began, requests * self._interval, level)
            samples += counters.samples()
        for identity, values in self._raw:
            value = _sample(values, number)
            if value is not None:
                samples.append((identity, value))
        self._memory.record(moment, samples, room=sys.maxsize)

    def _requests(self, side: Side, moment: float) -> float | None:
        """Per second; None when nothing is exposed that counts them."""
        if side == "rollout" and self._exposure == 0:
            return 0.0
        if side in self._script.requests:
            return self._script.requests[side].at(moment)
        share = self._exposure if side == "rollout" else FULL_EXPOSURE - self._exposure
        traffic = self._script.traffic.at(moment)
        return None if traffic is None else traffic * share / FULL_EXPOSURE

    # — answering —

    def _recalled(self, questions: Sequence[Question], now: float) -> Iterator[tuple[Question, Reading]]:
        instead = {self._asked[one].instead: one for one in questions}
        plan = coalescing.plan(list(instead), flags_per_query=sys.maxsize)
        answers: dict[coalescing.Key, coalescing.Found | coalescing.Failure] = {}
        for batch in plan.batches:
            answers |= recollection.answer(batch, [self._memory], now, longest_gap=LONGEST_GAP * self._interval)
        for raw in plan.raw:
            level = self._level_of_query(self._asked[instead[raw]], now)
            answers[raw] = [] if level is None else [("", level)]
        for asked, reading in coalescing.readings(plan, answers).items():
            question = instead[asked]
            yield question, replace(reading, query=coalescing.console_query(question))

    def _level_of_query(self, asked: Asked, now: float) -> float | None:
        return asked.track.levels(asked.side).at(now)

    def _valid_until(self, question: Question, now: float) -> float:
        """Until when it will show what it shows now, because nothing moves in all of its window; else `now`."""
        asked, script = self._asked[question], self._script
        if asked.raw or script.case.noise is not None:
            return now
        levels = [asked.track.levels(asked.side), script.requests.get(asked.side, script.traffic)]
        since = max(*(one.unchanged_since(now) for one in levels), self._exposed_since)
        if asked.side == "control" and asked.track.before != asked.track.control.pieces[0].first:
            since = max(since, 0.0)
        if since + asked.window + 2 * self._interval > now:
            return now
        return min(one.unchanged_until(now) for one in levels)


def _questions(script: Script, raw_metrics: frozenset[str]) -> Iterator[tuple[Question, Asked]]:
    serve = script.plan.spec.serve
    for track in script.tracks:
        guardrail = track.guardrail
        spans = {guardrail.window_seconds}
        if guardrail.baseline:
            spans.add(guardrail.baseline.before_seconds)
        for side in SIDES:
            variation = serve.rollout if side == "rollout" else serve.fallback
            for window in spans:
                question = guardrail.question(track.metric, variation, window)
                raw = bool(_metrics_of(question) & raw_metrics)
                instead = question if raw else _synthetic(question, track, side, window)
                yield question, Asked(track=track, side=side, window=window, instead=instead, raw=raw)


def _synthetic(question: Question, track: Track, side: Side, window: float) -> Question:
    labels = f'{{metric="{track.name}",side="{side}"}}'
    match question:
        case RatioQuestion():
            return RatioQuestion(bad=BAD + labels, total=TOTAL + labels, window_seconds=window)
        case QuantileQuestion(quantile=quantile):
            return QuantileQuestion(histogram=BUCKETS + labels, quantile=quantile, window_seconds=window)
        case QueryQuestion():
            return question


def _metrics_of(question: Question) -> frozenset[str]:
    """The series that it selects by name; none when it is in a language that nobody here can read."""
    with suppress(Invalid):
        return _selected(question)
    return frozenset()


def _selected(question: Question) -> frozenset[str]:
    match question:
        case RatioQuestion(bad=bad, total=total):
            return frozenset({selectors.parse(bad).metric, selectors.parse(total).metric})
        case QuantileQuestion(histogram=histogram):
            return frozenset({selectors.parse(histogram).metric})
        case QueryQuestion():
            return frozenset()


def _counted(asked: Asked) -> bool:
    return not asked.raw and asked.track.declared.shape != "query"


def _lot(script: Script, track: Track, side: Side) -> Lot | None:
    noise = script.case.noise
    if noise is None:
        return None
    return Lot(noise.seed, f"{track.name}/{side}", exposure(noise.spread) / FULL_EXPOSURE)


def _identity(text: str) -> Identity:
    """Raises Invalid unless it names one series: a metric and labels with their values."""
    selector = selectors.parse(text)
    if any(matcher.operator != "=" for matcher in selector.matchers):
        raise Invalid(f'a series has labels with values, as in up{{job="shop"}}; not {text}')
    return selector.metric, tuple((matcher.label, matcher.value) for matcher in selector.matchers)


def _sample(values: Sequence[float | None], number: int) -> float | None:
    """Before the start a series goes on as in its first step; after its end it is gone."""
    if number >= len(values):
        return None
    if number >= 0:
        return values[number]
    first, second = values[0], values[1] if len(values) > 1 else values[0]
    if first is None:
        return None
    return first + number * ((second if second is not None else first) - first)
