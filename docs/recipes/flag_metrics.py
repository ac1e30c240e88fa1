"""Counts what each flag did to the requests of a service, for Rampart to judge. Copy this file into the service.

    metrics = FlagMetrics(service="checkout", environment="production")
    client = ldclient.LDClient(Config(sdk_key, hooks=[metrics]))

    with metrics.request() as request:                          # around the handling of one request
        enabled = client.variation("checkout-v2", user, False)  # as before
        request.code = 200                                      # what is answered; 500 unless it is said

Needs prometheus-client and launchdarkly-server-sdk. One counter and one histogram of their own, increased once for
every flag that the request evaluated, whatever number of times; the service's other metrics stay as they are.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ldclient.evaluation import EvaluationDetail
from ldclient.hook import EvaluationSeriesContext, Hook, Metadata
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

LABELS = ("service", "environment", "flag", "variation", "cohort", "code")
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FLAGS_PER_REQUEST = 50
COMBINATIONS = 1000
"""Of flag, variation and cohort. More are not counted: a mistake must not fill the memory of a Prometheus."""

ALWAYS_PREFIX = "rampart-always-"
BY_SHARE = frozenset({"FALLTHROUGH", "OFF", "PREREQUISITE_FAILED"})


class Request:
    """One request: what is to be answered, and which flags it used so far, each with variation and cohort."""

    def __init__(self) -> None:
        self.code = 500
        self.used: dict[str, tuple[str, str]] = {}


class FlagMetrics(Hook):
    """`variations` names the variations of a flag in their order, where they are neither booleans nor texts."""

    def __init__(
        self,
        *,
        service: str,
        environment: str,
        variations: Mapping[str, Sequence[str]] | None = None,
        counter: str = "http_requests",
        histogram: str = "http_request_duration_seconds",
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._where = (service, environment)
        self._variations = variations or {}
        self._current: ContextVar[Request | None] = ContextVar("flag_metrics_request", default=None)
        self._seen: set[tuple[str, str, str]] = set()
        self._requests = Counter(counter, "Requests, once per flag they used", LABELS, registry=registry)
        self._seconds = Histogram(
            histogram,
            "Seconds per request, once per flag it used",
            LABELS[:-1],
            registry=registry,
            buckets=BUCKETS,
        )
        self._left_out = Counter("flag_metrics_left_out", "Flags not counted: too many", registry=registry)

    @contextmanager
    def request(self) -> Iterator[Request]:
        """Around one request, in the thread or task that handles it, and in the tasks that this one begins."""
        request, began = Request(), time.perf_counter()
        token = self._current.set(request)
        try:
            yield request
        finally:
            self._current.reset(token)
            self._count(request, time.perf_counter() - began)

    def use(self, flag: str, variation: str, cohort: str) -> None:
        """The present request used a flag; called by the hook, or by you for flags of another SDK."""
        request = self._current.get()
        if request is None or flag in request.used:
            return
        if len(request.used) >= FLAGS_PER_REQUEST:
            self._left_out.inc()
            return
        request.used[flag] = (variation, cohort)

    def _count(self, request: Request, seconds: float) -> None:
        for flag, (variation, cohort) in request.used.items():
            if not self._has_room(flag, variation, cohort):
                self._left_out.inc()
                continue
            labels = (*self._where, flag, variation, cohort)
            # The class of the code is enough for a rate of errors, and there are five of them.
            self._requests.labels(*labels, f"{request.code // 100}xx").inc()
            self._seconds.labels(*labels).observe(seconds)

    def _has_room(self, *combination: str) -> bool:
        if combination not in self._seen and len(self._seen) < COMBINATIONS:
            self._seen.add(combination)  # type: ignore[arg-type]
        return combination in self._seen

    # — LaunchDarkly's hook: called at every evaluation, so that no other code has to change —

    @property
    def metadata(self) -> Metadata:
        return Metadata(name="flag-metrics")

    def before_evaluation(self, series_context: EvaluationSeriesContext, data: dict[str, Any]) -> dict[str, Any]:
        return data

    def after_evaluation(
        self, series_context: EvaluationSeriesContext, data: dict[str, Any], detail: EvaluationDetail
    ) -> dict[str, Any]:
        # Without an index the SDK gave the caller's default: it knows no such flag, or no flags yet.
        if detail.variation_index is not None:
            self.use(series_context.key, self._name(series_context.key, detail), cohort_of(detail.reason))
        return data

    def _name(self, flag: str, detail: EvaluationDetail) -> str:
        if flag in self._variations:
            return self._variations[flag][detail.variation_index]
        if isinstance(detail.value, bool):
            return "on" if detail.value else "off"
        return detail.value if isinstance(detail.value, str) else str(detail.variation_index)


def cohort_of(reason: Mapping[str, Any]) -> str:
    """`share`: drawn by the flag's percentage. `always`: by the plan's always audience. `other`: by hand."""
    if reason.get("kind") in BY_SHARE:
        return "share"
    return "always" if str(reason.get("ruleId") or "").startswith(ALWAYS_PREFIX) else "other"
