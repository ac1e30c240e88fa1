"""Counts what each flag did to the requests of a service, by OpenTelemetry's names. Copy this file into it.

    metrics = FlagMetrics(service="checkout", environment="production")
    client = ldclient.LDClient(Config(sdk_key, hooks=[metrics]))

    with metrics.request() as request:                          # around the handling of one request
        enabled = client.variation("checkout-v2", user, False)  # as before
        request.code = 200                                      # what is answered; 500 unless it is said

Needs opentelemetry-api, with an SDK and an exporter that the service sets up, and launchdarkly-server-sdk. In
Prometheus they are feature_flag_requests_total and feature_flag_request_duration_seconds, which
policies/otel-service.policy.yaml reads.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ldclient.evaluation import EvaluationDetail
from ldclient.hook import EvaluationSeriesContext, Hook, Metadata
from opentelemetry import metrics

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
        self, *, service: str, environment: str, variations: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        # Attributes of the resource do not become labels of every series, so that these two are repeated here.
        self._where = {"service.name": service, "deployment.environment.name": environment}
        self._variations = variations or {}
        self._current: ContextVar[Request | None] = ContextVar("flag_metrics_request", default=None)
        self._seen: set[tuple[str, str, str]] = set()
        meter = metrics.get_meter("flag_metrics")
        self._requests = meter.create_counter(
            "feature_flag.requests", unit="{request}", description="Requests, once per flag they used"
        )
        self._seconds = meter.create_histogram(
            "feature_flag.request.duration",
            unit="s",
            description="Duration of a request, once per flag it used",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )

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
        if request is not None and flag not in request.used and len(request.used) < FLAGS_PER_REQUEST:
            request.used[flag] = (variation, cohort)

    def _count(self, request: Request, seconds: float) -> None:
        for flag, (variation, cohort) in request.used.items():
            if (flag, variation, cohort) not in self._seen:
                if len(self._seen) >= COMBINATIONS:
                    continue
                self._seen.add((flag, variation, cohort))
            labels = {
                **self._where,
                "feature_flag.key": flag,
                "feature_flag.result.variant": variation,
                "cohort": cohort,
            }
            # The class of the code is enough for a rate of errors, and there are five of them.
            self._requests.add(1, {**labels, "http.response.status_code": f"{request.code // 100}xx"})
            self._seconds.record(seconds, labels)

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
