"""How much a counter grew over a window, by the rules of PromQL's `increase`."""

from msgspec import Struct

# A sample nearer to the window's edge than this many average intervals: the series goes on beyond the edge.
NEAR = 1.1


class Stretch(Struct, frozen=True, kw_only=True):
    """The samples of one counter in a window: the first, the last, how many, and the growth between.

    `growth` has counter resets added back. Times in seconds.
    """

    first_at: float
    last_at: float
    count: int
    first_value: float
    growth: float


def increase(stretch: Stretch, start: float, end: float) -> float | None:
    """Growth over (start, end], extrapolated to the edges; None for fewer than two samples.

    Towards an edge farther away than a usual interval it is extended by half an interval, and never before
    the point where the counter would have been zero.
    """
    sampled = stretch.last_at - stretch.first_at
    if stretch.count < 2 or sampled <= 0:
        return None
    interval = sampled / (stretch.count - 1)
    before = _extension(stretch.first_at - start, interval)
    after = _extension(end - stretch.last_at, interval)
    if stretch.growth > 0 and stretch.first_value >= 0:
        before = min(before, sampled * (stretch.first_value / stretch.growth))
    return stretch.growth * ((sampled + before + after) / sampled)


def _extension(distance: float, interval: float) -> float:
    return distance if distance < interval * NEAR else interval / 2
