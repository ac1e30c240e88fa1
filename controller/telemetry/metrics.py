"""Rampart's own Prometheus series. Every name is here or in `runs`; docs/metrics.md explains them."""

import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import get_args

import prometheus_client
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

from controller import __version__
from controller.domain.alerts import AlertOutcome
from controller.domain.catalogue import UnreadableKind
from controller.domain.notification import Backlog, NotificationResult
from controller.domain.rollout import Action, Cause
from controller.domain.status import RunStatus
from controller.telemetry.exposition import Counts, Family, RunPages
from controller.telemetry.kills import KilledFlag, KilledFlags
from controller.telemetry.runs import FAMILIES, run_lines

log = structlog.get_logger()

MAX_RUNS = 5_000
MAX_COUNTS = 20_000
FORGET_RUN_AFTER_SECONDS = 900.0
"""A run that moved to another replica is not announced here; what was not seen for so long is not ours."""

KILL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
TICK_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

DECISIONS = Family(
    "decisions_total", "counter", "Committed decisions.", ("rollout", "environment", "action", "cause")
)
QUARANTINED = Family(
    "rollout_quarantined",
    "gauge",
    "1 while ticks of the run fail: nothing of it is judged.",
    ("rollout", "environment"),
)
FAILED_TICKS = Family("tick_failures_total", "counter", "Ticks of a run that ended in an error.", ("rollout",))
AWAITED: tuple[tuple[Action, Cause], ...] = (
    ("pause", "policy"), ("kill", "policy"), ("pause", "drift"), ("lower", "drift"),
)  # fmt: skip
"""Decisions that are alerted on: at 0 from the first tick of a run, so that the first one is an increase."""


class Metrics:
    """One registry of its own. Label values are names from settings and plans, or of closed sets; never text."""

    def __init__(self) -> None:
        # The creation time of each counter would double the series for nobody's use.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        info = Gauge("rampart_build_info", "This version; always 1.", ["version", "python"], registry=registry)
        info.labels(__version__, platform.python_version()).set(1)
        self._declare_engine(registry)
        self._declare_dependencies(registry)
        self._decisions = Counts(DECISIONS, MAX_COUNTS)
        self._failed_ticks = Counts(FAILED_TICKS, MAX_COUNTS)
        self._runs = RunPages(FAMILIES, MAX_RUNS)
        self._quarantined = RunPages((QUARANTINED,), MAX_RUNS)
        self._killed = KilledFlags(tuple)
        self._waiting: set[str] = set()
        self._seen_at: dict[str, float] = {}
        self._latest_tick = 0.0

    def _declare_engine(self, registry: CollectorRegistry) -> None:
        self._kills = Counter("rampart_kills_total", "Kills read back as off.", ["cause"], registry=registry)
        for cause in ("policy", "user", "alert"):
            self._kills.labels(cause)  # known from the start, so that the first kill is an increase
        self._kill_latency = Histogram(
            "rampart_kill_latency_seconds", "From accepting a kill to reading it back as off at the provider.",
            buckets=KILL_BUCKETS, registry=registry,
        )  # fmt: skip
        self._kill_unconfirmed = Gauge(
            "rampart_kill_unconfirmed_seconds", "Age of the oldest unconfirmed kill; 0 when there is none.",
            registry=registry,
        )  # fmt: skip
        self._tick_lag = Histogram(
            "rampart_tick_lag_seconds", "How late a tick began.", buckets=TICK_BUCKETS, registry=registry
        )
        self._tick_duration = Histogram(
            "rampart_tick_duration_seconds", "How long a tick took.", buckets=TICK_BUCKETS, registry=registry
        )
        self._last_tick = Gauge(
            "rampart_last_tick_timestamp_seconds", "When runs were last looked for, or first were to be.",
            registry=None,
        )  # fmt: skip
        self._raises_blocked = Gauge(
            "rampart_raises_blocked", "Reasons why no rollout may rise now, whatever its evidence.",
            registry=registry,
        )  # fmt: skip
        self._audit_head = Gauge(
            "rampart_audit_head_sequence", "Latest audit sequence; a fall means lost entries.", registry=None
        )
        self._unknown_yet = {self._last_tick, self._audit_head}
        self._approvals = Gauge(
            "rampart_approvals_pending", "Runs held here that wait for somebody's approval.", registry=registry
        )
        self._quarantines = Gauge(
            "rampart_quarantined", "Runs whose ticks fail, of those held here.", registry=registry
        )
        self._runs_shown = Gauge("rampart_runs", "Runs with series of their own here.", registry=registry)
        self._runs_hidden = Counter(
            "rampart_runs_without_series_total", "Ticks of runs left out because there are too many.",
            registry=registry,
        )  # fmt: skip

    def _declare_dependencies(self, registry: CollectorRegistry) -> None:
        self._source_requests = Counter(
            "rampart_source_requests_total", "Batches of questions to a source.", ["source", "result"],
            registry=registry,
        )  # fmt: skip
        self._source_success = Gauge(
            "rampart_source_last_success_timestamp_seconds", "When a source last answered.", ["source"],
            registry=registry,
        )  # fmt: skip
        self._provider_requests = Counter(
            "rampart_provider_requests_total", "Requests to a provider.", ["provider", "operation", "result"],
            registry=registry,
        )  # fmt: skip
        self._provider_deliveries = Histogram(
            "rampart_provider_delivery_seconds", "From the answer to a write to a connected SDK showing it.",
            ["provider", "environment"], buckets=KILL_BUCKETS, registry=registry,
        )  # fmt: skip
        self._unreadable = Gauge(
            "rampart_unreadable_documents", "Documents in the database that cannot be read.", ["kind"],
            registry=registry,
        )  # fmt: skip
        for kind in get_args(UnreadableKind):
            self._unreadable.labels(kind).set(0)
        self._circuits = Gauge(
            "rampart_circuit_open", "1 while a dependency does not answer and is asked less often, else 0.",
            ["dependency_kind", "name"], registry=registry,
        )  # fmt: skip
        self._peer_requests = Counter(
            "rampart_peer_requests_total", "Messages to other replicas.", ["result"], registry=registry
        )
        self._replicas = Gauge(
            "rampart_replicas", "Registered replicas, this one included.", ["state"], registry=registry
        )
        self._manifests = Gauge(
            "rampart_manifests_in_force", "1 while what the folder of manifests holds was applied, else 0.",
            ["folder"], registry=registry,
        )  # fmt: skip
        self._manifests_loaded = Gauge(
            "rampart_manifests_last_load_timestamp_seconds", "When the folder of manifests was last loaded.",
            ["folder"], registry=registry,
        )  # fmt: skip
        self._notifications = Counter(
            "rampart_notifications_total", "Attempts to tell a channel, and what became of messages.",
            ["channel", "result"], registry=registry,
        )  # fmt: skip
        self._notifications_waiting = Gauge(
            "rampart_notifications_waiting", "Messages that a channel has not taken yet.", ["channel"],
            registry=registry,
        )  # fmt: skip
        self._notification_oldest = Gauge(
            "rampart_notification_oldest_waiting_seconds", "How long the oldest of them has been waiting.",
            ["channel"], registry=registry,
        )  # fmt: skip
        self._dead_letters = Gauge(
            "rampart_notification_dead_letters", "Messages given up, until a person sends or discards them.",
            ["channel"], registry=registry,
        )  # fmt: skip
        self._alerts = Counter(
            "rampart_alerts_received_total", "Alerts that others told us of, once for each rollout they name.",
            ["outcome"], registry=registry,
        )  # fmt: skip
        for outcome in get_args(AlertOutcome):
            self._alerts.labels(outcome)
        self._declare_events(registry)
        self._declare_fronts(registry)

    def _declare_fronts(self, registry: CollectorRegistry) -> None:
        labels = ["provider", "environment"]
        self._front_connected = Gauge(
            "rampart_front_connected", "1 while flags come from the server we stand in front of, else 0.", labels,
            registry=registry,
        )  # fmt: skip
        self._front_changed = Gauge(
            "rampart_front_last_change_timestamp_seconds", "When something last came from that server.", labels,
            registry=registry,
        )  # fmt: skip
        self._front_overlaid = Gauge(
            "rampart_front_overlaid_flags", "Flags served as killed that are not shown so by that server yet.",
            labels, registry=registry,
        )  # fmt: skip
        self._front_streams = Gauge(
            "rampart_front_streams", "Streams of SDKs that are open here.", labels, registry=registry
        )
        self._front_events = Counter(
            "rampart_front_event_deliveries_total", "Deliveries of events by SDKs, on their way to that server.",
            [*labels, "result"], registry=registry,
        )  # fmt: skip

    def _declare_events(self, registry: CollectorRegistry) -> None:
        self._event_deliveries = Counter(
            "rampart_event_deliveries_total", "Deliveries of events by SDKs.", ["result"], registry=registry
        )
        self._events = Counter(
            "rampart_events_total", "Events of SDKs that were read, repeated deliveries included.", ["kind"],
            registry=registry,
        )  # fmt: skip
        self._events_unassigned = Counter(
            "rampart_events_unassigned_total", "Events that could not be assigned to a variation of a flag.",
            ["reason"], registry=registry,
        )  # fmt: skip
        self._events_held = Gauge(
            "rampart_events_held", "Numbers counted from events that are not in the database yet.",
            registry=registry,
        )  # fmt: skip

    # — what happened —

    def raises_blocked(self, obstacles: int) -> None:
        self._raises_blocked.set(obstacles)

    def replicas(self, *, present: int, absent: int) -> None:
        self._replicas.labels("present").set(present)
        self._replicas.labels("absent").set(absent)

    def decision(self, rollout: str, environment: str, action: Action, cause: Cause) -> None:
        self._decisions.add(rollout, environment, action, cause)

    def kill(self, accepted_to_provider_seconds: float, cause: str) -> None:
        self._kills.labels(cause).inc()
        self._kill_latency.observe(accepted_to_provider_seconds)

    def alert_received(self, outcome: AlertOutcome) -> None:
        self._alerts.labels(outcome).inc()

    def kills_in_force(self, killed: Callable[[], Collection[KilledFlag]]) -> None:
        """`killed` is asked whenever the series are read: no kill waits for them to be shown."""
        self._killed = KilledFlags(killed)

    def kill_unconfirmed(self, seconds: float) -> None:
        self._kill_unconfirmed.set(seconds)

    def ticks_begin(self, at: datetime) -> None:
        """From here on runs are to be looked for: one that never gets to it is as late as one that stopped."""
        self._know(self._last_tick, at.timestamp())

    def _know(self, gauge: Gauge, number: float) -> None:
        """A gauge that has no series before its number is known: 0 would be a time in 1970, or a lost log."""
        gauge.set(number)
        if gauge in self._unknown_yet:
            self._unknown_yet.remove(gauge)
            self.registry.register(gauge)

    def tick(self, *, lag_seconds: float, duration_seconds: float, at: datetime) -> None:
        self._tick_lag.observe(lag_seconds)
        self._tick_duration.observe(duration_seconds)
        self._latest_tick = at.timestamp()
        self._know(self._last_tick, self._latest_tick)

    def tick_failed(self, rollout: str) -> None:
        self._failed_ticks.add(rollout)

    def source_request(self, source: str, result: str) -> None:
        self._source_requests.labels(source, result).inc()

    def source_answered(self, source: str, at: datetime) -> None:
        self._source_success.labels(source).set(at.timestamp())

    def provider_request(self, provider: str, operation: str, result: str) -> None:
        self._provider_requests.labels(provider, operation, result).inc()

    def provider_delivered(self, provider: str, environment: str, seconds: float) -> None:
        self._provider_deliveries.labels(provider, environment).observe(seconds)

    def unreadable(self, counts: Mapping[UnreadableKind, int]) -> None:
        for kind in get_args(UnreadableKind):
            self._unreadable.labels(kind).set(counts.get(kind, 0))

    def circuit(self, kind: str, name: str, *, is_open: bool) -> None:
        self._circuits.labels(kind, name).set(is_open)

    def manifests(self, folder: str, *, in_force: bool) -> None:
        self._manifests.labels(folder).set(in_force)

    def manifests_loaded(self, folder: str, at: datetime) -> None:
        self._manifests_loaded.labels(folder).set(at.timestamp())

    def peer_request(self, result: str) -> None:
        self._peer_requests.labels(result).inc()

    def notification(self, channel: str, result: NotificationResult, amount: int = 1) -> None:
        self._notifications.labels(channel, result).inc(amount)

    def notifications_left(self, backlog: Collection[Backlog], channels: Collection[str]) -> None:
        """What is left to `channels` and to those in `backlog`; of any other nothing is known here."""
        for gauge in (self._notifications_waiting, self._notification_oldest, self._dead_letters):
            gauge.clear()
        known = {one.channel: one for one in backlog}
        for name in sorted({*channels, *known}):
            left = known.get(name, Backlog(channel=name))
            for result in get_args(NotificationResult):
                self._notifications.labels(name, result)  # known from the start, so that the first is an increase
            self._notifications_waiting.labels(name).set(left.waiting)
            self._notification_oldest.labels(name).set(left.oldest_waiting_seconds)
            self._dead_letters.labels(name).set(left.dead)

    def event_delivery(self, result: str, amount: int = 1) -> None:
        self._event_deliveries.labels(result).inc(amount)

    def events(self, kinds: Mapping[str, int], unassigned: Mapping[str, int]) -> None:
        """`kinds` and the reasons in `unassigned` are of closed sets."""
        for kind, amount in kinds.items():
            self._events.labels(kind).inc(amount)
        for reason, amount in unassigned.items():
            self._events_unassigned.labels(reason).inc(amount)

    def events_held(self, numbers: int) -> None:
        self._events_held.set(numbers)

    def front_connected(self, provider: str, environment: str, *, connected: bool) -> None:
        self._front_connected.labels(provider, environment).set(connected)

    def front_changed(self, provider: str, environment: str, at: datetime) -> None:
        self._front_changed.labels(provider, environment).set(at.timestamp())

    def front_overlaid(self, provider: str, environment: str, count: Callable[[], int]) -> None:
        """`count` is asked whenever the series are read."""
        self._front_overlaid.labels(provider, environment).set_function(count)

    def front_streams(self, provider: str, environment: str, count: Callable[[], int]) -> None:
        self._front_streams.labels(provider, environment).set_function(count)

    def front_events(self, provider: str, environment: str, result: str, amount: int) -> None:
        """`result` is of a closed set."""
        self._front_events.labels(provider, environment, result).inc(amount)

    def audit_head(self, sequence: int) -> None:
        """As the database has it, also when that is lower than before: Prometheus then shows the cut tail."""
        self._know(self._audit_head, sequence)

    # — runs —

    def run_seen(self, status: RunStatus) -> None:
        """Called at each tick of an active run; replaces what was shown of it."""
        if status.id not in self._runs:
            for action, cause in AWAITED:
                self._decisions.add(status.plan, status.flag.environment, action, cause, amount=0)
        if self._runs.put(status.id, run_lines(status)):
            self._seen_at[status.id] = self._latest_tick
            if status.approval is not None:
                self._waiting.add(status.id)
            else:
                self._waiting.discard(status.id)
        else:
            self._runs_hidden.inc()

    def quarantined(self, run_id: str, rollout: str, environment: str) -> None:
        """What else was shown of the run is from before: it goes away."""
        self.run_ended(run_id)
        self._quarantined.put(run_id, [QUARANTINED.line((rollout, environment), 1)])

    def released(self, run_id: str) -> None:
        self._quarantined.drop(run_id)

    def run_ended(self, run_id: str) -> None:
        self._runs.drop(run_id)
        self._seen_at.pop(run_id, None)
        self._waiting.discard(run_id)

    def render(self) -> bytes:
        """Everything, in the Prometheus text format."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """The same, each family whole in one piece of some milliseconds, for whoever must not stop for longer."""
        forgotten = self._latest_tick - FORGET_RUN_AFTER_SECONDS
        for run_id in [run_id for run_id, at in self._seen_at.items() if at < forgotten]:
            self.run_ended(run_id)
        self._runs_shown.set(len(self._runs))
        self._quarantines.set(len(self._quarantined))
        self._approvals.set(len(self._waiting))
        yield generate_latest(self.registry)
        for part in (self._decisions, self._failed_ticks, self._killed):
            yield part.render().encode()
        for pages in (self._quarantined, self._runs):
            for piece in pages.pieces():
                yield piece.encode()
