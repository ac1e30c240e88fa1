"""Many flags that share one policy: what is asked about them, and the counters their application exposes."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from controller.domain.evidence import QuantileQuestion, RatioQuestion

SHARES = {"0.05": 0.3, "0.1": 0.6, "0.25": 0.9, "0.5": 0.97, "1": 0.99, "+Inf": 1.0}


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class StoppedClock(SystemClock):
    """One moment, so that every query is about exactly the same samples."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)

    def now(self) -> datetime:
        return self._now


class Arm(Struct, frozen=True):
    flag: str
    variation: str
    window_seconds: float

    @property
    def labels(self) -> str:
        return f'service="checkout",flag="{self.flag}",variation="{self.variation}"'

    @property
    def ratio(self) -> RatioQuestion:
        return RatioQuestion(
            bad=f'http_requests_total{{{self.labels},code=~"5.."}}',
            total=f"http_requests_total{{{self.labels}}}",
            window_seconds=self.window_seconds,
        )

    @property
    def latency(self) -> QuantileQuestion:
        return QuantileQuestion(
            histogram=f"http_request_duration_seconds_bucket{{{self.labels}}}",
            quantile=0.95,
            window_seconds=self.window_seconds,
        )

    @property
    def alone(self) -> str:
        """Everything about this arm in one query of Prometheus' own functions."""
        window = f"[{self.window_seconds:g}s]"
        parts = {
            "bad": f"sum(increase({self.ratio.bad}{window}))",
            "total": f"sum(increase({self.ratio.total}{window}))",
            "quantile": f"histogram_quantile(0.95, sum by (le) (increase({self.latency.histogram}{window})))",
            "observed": f'sum(increase({self.latency.histogram[:-1]},le="+Inf"}}{window}))',
        }
        return " or ".join(f'label_replace({text}, "part", "{name}", "", "")' for name, text in parts.items())


def arms_of(flags: int, *, window_seconds: float) -> list[Arm]:
    names = (f"flag-{number}.x" for number in range(flags))
    return [Arm(name, variation, window_seconds) for name in names for variation in ("on", "off")]


def counters_of(arms: Sequence[Arm], elapsed: float) -> str:
    """Every third arm has no error series, every seventh no traffic, every eleventh does not exist."""
    lines = []
    for rank, arm in enumerate(arms):
        if rank % 11 == 0:
            continue
        served = 0.0 if rank % 7 == 0 else elapsed * (1 + rank % 13)
        lines.append(f'http_requests_total{{{arm.labels},code="200"}} {served!r}')
        if rank % 3:
            lines.append(f'http_requests_total{{{arm.labels},code="503"}} {served * (rank % 5) / 100!r}')
        lines += [
            f'http_request_duration_seconds_bucket{{{arm.labels},le="{le}"}} {served * share ** (1 + rank % 4)!r}'
            for le, share in SHARES.items()
        ]
    return "\n".join(lines) + "\n"
