"""The samples of one scraped target, in memory, for as long as they may be asked for. Times are monotonic seconds.

Successful scrapes are numbered, and a series keeps only its values with the number of the first: it has to be
in every scrape to go on. One that was missing is stale at once, and starts a new run when it comes back.
"""

from array import array
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from controller.sources.extrapolation import Stretch

# Expired values are cut off when this share of the retention has gathered, not one by one.
SLACK = 0.1

Labels = tuple[tuple[str, str], ...]
Identity = tuple[str, Labels]


class Run:
    """Values of consecutive scrapes, the first of them in scrape number `first`."""

    __slots__ = ("first", "values")

    def __init__(self, first: int) -> None:
        self.first = first
        self.values = array("d")

    @property
    def end(self) -> int:
        return self.first + len(self.values)


class Series:
    """One series. `resets` are scrape numbers, `added_back` what the counter had lost in all up to each."""

    __slots__ = ("added_back", "labels", "last_value", "resets", "runs")

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels
        self.runs: deque[Run] = deque()
        self.last_value = float("nan")
        self.resets = array("q")
        self.added_back = array("d")

    def append(self, number: int, value: float) -> None:
        if not self.runs or self.runs[-1].end != number:
            self.runs.append(Run(number))
        self.runs[-1].values.append(value)
        if value < self.last_value:
            self.resets.append(number)
            self.added_back.append((self.added_back[-1] if self.added_back else 0.0) + self.last_value)
        self.last_value = value

    def correction(self, number: int) -> float:
        position = bisect_right(self.resets, number)
        return self.added_back[position - 1] if position else 0.0

    def forget(self, before: int) -> None:
        while self.runs and self.runs[0].end <= before:
            self.runs.popleft()
        if self.runs and self.runs[0].first < before:
            del self.runs[0].values[: before - self.runs[0].first]
            self.runs[0].first = before
        # The last of the old resets stays: the later sums contain it.
        expired = bisect_right(self.resets, before) - 1
        if expired > 0:
            del self.resets[:expired]
            del self.added_back[:expired]


class SampleMemory:
    def __init__(self, instance: str, *, every_seconds: float, retention_seconds: float) -> None:
        self._instance = instance
        self._retention = retention_seconds
        self._slack = max(1, round(SLACK * retention_seconds / every_seconds))
        self._times = array("d")
        self._oldest = 0
        self._by_identity: dict[Identity, Series] = {}
        self._by_metric: dict[str, list[Series]] = defaultdict(list)
        self.answering = False
        self.refused: frozenset[str] = frozenset()

    @property
    def series_count(self) -> int:
        return len(self._by_identity)

    @property
    def newest_at(self) -> float | None:
        """When the last successful scrape began."""
        return self._times[-1] if self._times else None

    def series(self, metric: str) -> Sequence[Series]:
        return self._by_metric.get(metric, ())

    def record(self, at: float, samples: Iterable[tuple[Identity, float]], *, room: int) -> None:
        """One successful scrape. At most `room` new series are taken; the metrics of others are `refused`."""
        number = self._oldest + len(self._times)
        self._times.append(at)
        self.answering = True
        refused: set[str] = set()
        for identity, value in samples:
            series = self._by_identity.get(identity)
            if series is None:
                if room <= 0:
                    refused.add(identity[0])
                    continue
                room -= 1
                series = self._add(identity)
            series.append(number, value)
        self.refused = frozenset(refused)
        self._forget(at - self._retention)

    def record_failure(self) -> None:
        """A scrape that failed makes every series of the target stale."""
        self.answering = False

    def newest_sample_at(self, series: Series) -> float | None:
        """None when the series is stale."""
        live = self.answering and series.runs and series.runs[-1].end == self._oldest + len(self._times)
        return self._times[-1] if live else None

    def stretch(self, series: Series, start: float, end: float) -> Stretch | None:
        """The samples of a series in (start, end]; None when there are none."""
        low = self._oldest + bisect_right(self._times, start)
        high = self._oldest + bisect_right(self._times, end)
        parts = [
            (max(low, run.first), min(high, run.end), run)
            for run in series.runs
            if run.end > low and run.first < high
        ]
        if not parts:
            return None
        first, _, oldest = parts[0]
        _, beyond, newest = parts[-1]
        first_value, last_value = oldest.values[first - oldest.first], newest.values[beyond - 1 - newest.first]
        return Stretch(
            first_at=self._times[first - self._oldest],
            last_at=self._times[beyond - 1 - self._oldest],
            count=sum(stop - begin for begin, stop, _ in parts),
            first_value=first_value,
            growth=last_value - first_value + series.correction(beyond - 1) - series.correction(first),
        )

    def covered_seconds(self, start: float, end: float, longest_gap: float) -> float:
        """How much of (start, end] lies between scrapes at most `longest_gap` apart; the end counts as one."""
        position = bisect_right(self._times, start)
        moments = [*self._times[max(0, position - 1) :], end]
        return sum(
            min(later, end) - max(earlier, start)
            for earlier, later in pairwise(moments)
            if earlier < end and later - earlier <= longest_gap
        )

    def _add(self, identity: Identity) -> Series:
        metric, labels = identity
        own = dict(labels)
        if "instance" in own:
            own["exported_instance"] = own["instance"]
        series = Series({**own, "instance": self._instance})
        self._by_identity[identity] = series
        self._by_metric[metric].append(series)
        return series

    def _forget(self, before: float) -> None:
        # The sample just before the limit stays, so that the longest window is covered from its start.
        expired = bisect_right(self._times, before) - 1
        if expired < self._slack:
            return
        del self._times[:expired]
        self._oldest += expired
        for series in self._by_identity.values():
            series.forget(self._oldest)
        kept = {identity: series for identity, series in self._by_identity.items() if series.runs}
        if len(kept) < len(self._by_identity):
            self._by_identity = kept
            self._by_metric = defaultdict(list)
            for (metric, _), series in kept.items():
                self._by_metric[metric].append(series)
