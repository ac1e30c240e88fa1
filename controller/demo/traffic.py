"""The visitors of the toy shop: whom the flags are asked for, how requests fare, and what is measured of them.

No request travels the network and none waits: its duration is drawn and recorded. Only the gate is real.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from random import Random
from typing import Annotated

from ldclient import Context
from msgspec import Meta, Struct
from prometheus_client import CollectorRegistry, Counter, Histogram

STAFF_DOMAIN = "@acme.example"
ONE_OF_THE_STAFF_IN = 100
TICK_SECONDS = 0.05
# A machine that stood still does not make up for more than this: the crowd is gone.
CATCH_UP_SECONDS = 0.5
# Durations are lognormal; this much spread puts the 95th percentile at 2.3 times the median.
SPREAD = 0.5
P95_OVER_MEDIAN = math.exp(1.6449 * SPREAD)
BUCKETS = (
    *(0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.1, 0.125, 0.15, 0.18, 0.22, 0.27),
    *(0.33, 0.4, 0.48, 0.58, 0.7, 0.85, 1.0, 1.25, 1.6, 2.0),
)
LABELS = ("service", "flag", "variation", "environment", "cohort")

Share = Annotated[float, Meta(ge=0, le=1)]


class Behaviour(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How requests behind one flag fare. The first two hold for both variations: faults of the whole shop.

    `extra_error_rate` and `latency_factor` are what the rollout variation adds.
    """

    error_rate: Share = 0.0005
    p95_seconds: Annotated[float, Meta(gt=0)] = 0.12
    extra_error_rate: Share = 0.0
    latency_factor: Annotated[float, Meta(gt=0)] = 1.0

    def draw(self, random: Random, *, rollout: bool) -> tuple[int, float]:
        """Status code and duration in seconds of one request."""
        p95, errors = self.p95_seconds, self.error_rate
        if rollout:
            p95, errors = p95 * self.latency_factor, errors + self.extra_error_rate
        seconds = p95 / P95_OVER_MEDIAN * math.exp(SPREAD * random.gauss(0.0, 1.0))
        return (500 if random.random() < errors else 200), seconds


class Shopper(Struct, frozen=True):
    """`cohort` is `always` for the staff, who see a release from its first stage on, else `share`."""

    context: Context
    cohort: str


def shopper(key: str, email: str) -> Shopper:
    context = Context.builder(key).set("email", email).build()
    return Shopper(context, "always" if email.endswith(STAFF_DOMAIN) else "share")


def population(size: int, first: int = 0) -> list[Shopper]:
    """Visitors number `first` and up; every hundredth belongs to the staff."""
    numbers = range(first, first + size)
    domains = ("@mail.example", STAFF_DOMAIN)
    return [shopper(f"user-{n}", f"user-{n}{domains[n % ONE_OF_THE_STAFF_IN == 0]}") for n in numbers]


class Series(Struct, frozen=True):
    """The counters and the histogram of one flag, variation and cohort; both codes exist from the start."""

    by_code: Mapping[int, Counter]
    durations: Histogram

    def record(self, code: int, seconds: float) -> None:
        self.by_code[code].inc()
        self.durations.observe(seconds)


class Meter:
    """`http_requests_total` and `http_request_duration_seconds`, once per flag that a request is behind."""

    def __init__(self, service: str, environment: str) -> None:
        self.registry = CollectorRegistry()
        self._place = (service, environment)
        self._requests = Counter("http_requests", "Requests answered.", (*LABELS, "code"), registry=self.registry)
        self._durations = Histogram(
            "http_request_duration_seconds",
            "How long requests took.",
            LABELS,
            registry=self.registry,
            buckets=BUCKETS,
        )
        self._series: dict[tuple[str, str, str], Series] = {}

    def series(self, flag: str, variation: str, cohort: str) -> Series:
        key = (flag, variation, cohort)
        if key not in self._series:
            service, environment = self._place
            values = (service, flag, variation, environment, cohort)
            self._series[key] = Series(
                {code: self._requests.labels(*values, str(code)) for code in (200, 500)},
                self._durations.labels(*values),
            )
        return self._series[key]


class Traffic:
    """A steady stream of visits in a fixed pseudo-random order: each asks every flag, and makes some requests.

    `serves` answers which variation of a flag a context gets now. What a request behind one flag suffers does
    not touch the others: each flag gates a feature of its own.
    """

    def __init__(
        self,
        *,
        flags: Sequence[str],
        shoppers: Sequence[Shopper],
        serves: Callable[[str, Context], str],
        meter: Meter,
        rollout_variation: str,
        requests_per_visit: int,
        seed: int,
    ) -> None:
        self.behaviours = dict.fromkeys(flags, Behaviour())
        self._random = Random(seed)  # noqa: S311 - repeatable on purpose
        order = list(shoppers)
        self._random.shuffle(order)
        self._shoppers = cycle(order)
        self._serves = serves
        self._meter = meter
        self._rollout_variation = rollout_variation
        self._requests_per_visit = requests_per_visit

    def visit(self) -> None:
        visitor = next(self._shoppers)
        for flag in self.behaviours:
            variation = self._serves(flag, visitor.context)
            for _ in range(self._requests_per_visit):
                self.request(flag, variation, visitor.cohort)

    def request(self, flag: str, variation: str, cohort: str) -> tuple[int, float]:
        """One request behind `flag`, recorded: its status code and its duration in seconds."""
        rollout = variation == self._rollout_variation
        code, seconds = self.behaviours[flag].draw(self._random, rollout=rollout)
        self._meter.series(flag, variation, cohort).record(code, seconds)
        return code, seconds

    async def keep_coming(self, visits_per_second: float) -> None:
        """Until cancelled. Visits of a tick are counted from the clock, so the rate holds on a busy machine."""
        clock = asyncio.get_running_loop().time
        done_until = clock()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            done_until = max(done_until, clock() - CATCH_UP_SECONDS)
            due = int((clock() - done_until) * visits_per_second)
            for _ in range(due):
                self.visit()
            done_until += due / visits_per_second
