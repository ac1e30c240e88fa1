"""`python -m tests.chaos.soak`: rollouts again and again under mild faults without end, and what memory does.

Three real replicas on a real PostgreSQL. Two of them are never ended and are measured; the third is killed now and
then. Nothing is asserted about how fast things recover: `tests.chaos` does that.
"""

import argparse
import contextlib
import http.client
import json
import math
import os
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from random import Random

import msgspec
from msgspec import Struct

from controller import __version__
from tests.chaos.cluster import REPLICAS, Cluster, Replica
from tests.chaos.database import AWAY
from tests.chaos.faults import FAULTS
from tests.chaos.faults.scene import Fault, Recoveries, Scene
from tests.chaos.history import History
from tests.chaos.ledger import Ledger
from tests.chaos.people import People
from tests.support.server import wait_until

MEASURED = (0, 1)
"""Replicas that live from the beginning to the end. The other one may be killed."""

SAMPLE_SECONDS = 5.0
WARM_UP_MINUTES = 15.0
IN_USE = "in use"
RESIDENT = "resident"
READ_SECONDS = 60.0
DAY_MINUTES = 1_440
TOLERATED_GROWTH_PER_DAY = 0.05
CENSUS_SECONDS = 30.0
STREAMS_PER_REPLICA = 4
LOOK_SECONDS = 1.0
BREAKING = 3
PAUSE_SECONDS = (1.0, 5.0)

SETTINGS = {
    "RAMPART_DATABASE__TIMEOUT_SECONDS": "5.0",
    "RAMPART_ENGINE__POLL_SECONDS": "0.5",
}
"""Laid over the chaos cluster's: nothing here has to be fast, and the machine is to have time for other things."""

CHAOS_FAULTS = {
    "connections reset": 30, "latency": 20, "black hole": 12, "half-open": 12, "refused": 12, "partition": 4,
    "peers cut": 12, "peers reset": 12, "kill while cut off": 6, "backends terminated": 30, "backend killed": 6,
    "PostgreSQL restarted": 8, "PostgreSQL away": 5, "PostgreSQL frozen": 6, "read-only": 5,
    "serialization failures": 5, "pools exhausted": 6, "counters reset": 3, "metrics unavailable": 5,
    "metrics empty": 4, "metrics garbled": 4, "metrics not-finite": 4, "metrics hanging": 4, "metrics half": 4,
    "kill in a crowd": 20, "commands at once": 20,
}  # fmt: skip
"""By weight. None of them ends a replica."""


class Sample(Struct, frozen=True, kw_only=True):
    """One look at one process. `series` is how many lines its /metrics has, 0 when that did not answer.

    `heap` is what its allocators hold and what of it is in use (`census.heap_kib`), empty when it did not say.
    """

    replica: int
    minutes: float
    rss_kib: int
    anonymous_kib: int
    threads: int
    descriptors: int
    series: int
    heap: dict[str, int]

    @property
    def in_use_kib(self) -> int:
        return sum(size for name, size in self.heap.items() if name.endswith("in_use"))


class Trend(Struct, frozen=True, kw_only=True):
    """A line through the samples after the warm-up: KiB, and KiB per minute with a 95 % interval.

    `of` what: only what is in use tells growth. The resident size keeps the height of every wave.
    """

    replica: int
    of: str
    samples: int
    slope: float
    low: float
    high: float
    first_quarter: float
    last_quarter: float
    growth_per_day: float
    flat: bool


class Report(Struct, frozen=True, kw_only=True):
    version: str
    seed: int
    rollouts: int
    minutes: float
    warm_up_minutes: float
    began_at: str
    trends: list[Trend]
    samples: list[Sample]
    faults: dict[str, int]
    unrecovered: list[str]
    runs: int
    transitions: int
    audit_rows: int
    kills: int
    answers: dict[str, int]
    streams: int
    problems: list[str]
    census: dict[str, dict[str, object]]

    @property
    def passed(self) -> bool:
        return not self.problems and all(trend.flat for trend in self.trends if trend.of == IN_USE)


# — what is measured —


class Meter:
    """Looks at the measured processes every few seconds, in a thread of its own."""

    def __init__(self, replicas: Sequence[Replica], folder: Path, keep: Callable[[list[Sample]], None]) -> None:
        self._replicas = replicas
        self._folder = folder
        self._keep = keep
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="meter", daemon=True)
        self._began = time.monotonic()
        self.samples: list[Sample] = []

    def start(self) -> None:
        self._began = time.monotonic()
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(timeout=15)

    def _measure(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            minutes = (time.monotonic() - self._began) / 60
            self.samples += [
                sampled(replica, self._folder, minutes) for replica in self._replicas if replica.alive()
            ]
            self._keep(self.samples)


def sampled(replica: Replica, folder: Path, minutes: float) -> Sample:
    assert replica.process is not None
    process = Path(f"/proc/{replica.process.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    page = replica.asked("GET", "/metrics", seconds=3.0)
    return Sample(
        replica=replica.number,
        minutes=round(minutes, 3),
        rss_kib=int(status["VmRSS"].split()[0]),
        anonymous_kib=int(status["RssAnon"].split()[0]),
        threads=int(status["Threads"]),
        descriptors=len(list((process / "fd").iterdir())),
        series=sum(line[:1] != b"#" for line in page.body.splitlines()) if page is not None else 0,
        heap=msgspec.convert(told(replica, folder, "heap"), dict[str, int]),
    )


def trend(replica: int, of: str, samples: Sequence[tuple[float, float]]) -> Trend:
    """`samples` are (minutes, KiB) of one replica, after the warm-up.

    Neighbours are alike, and the usual standard error would take them for independent and be too sure. So it is
    inflated for the autocorrelation of the residuals (AR(1), its bias corrected). On noise without a slope, three
    in a hundred such intervals lie above zero (2.5 should), six when the noise is nearly a random walk.
    """
    at = [minutes for minutes, _ in samples]
    sizes = [size for _, size in samples]
    line = statistics.linear_regression(at, sizes)
    slope = line.slope
    residuals = [size - (line.intercept + slope * minute) for minute, size in zip(at, sizes, strict=True)]
    margin = _margin(at, residuals)
    quarter = len(sizes) // 4
    growth = slope * DAY_MINUTES / statistics.median(sizes)
    return Trend(
        replica=replica,
        of=of,
        samples=len(samples),
        slope=slope,
        low=slope - margin,
        high=slope + margin,
        first_quarter=statistics.median(sizes[:quarter]),
        last_quarter=statistics.median(sizes[-quarter:]),
        growth_per_day=growth,
        flat=slope - margin <= 0 or growth < TOLERATED_GROWTH_PER_DAY,
    )


def _margin(at: Sequence[float], residuals: Sequence[float]) -> float:
    """Half the width of the slope's 95 % interval."""
    count = len(at)
    squares = sum(one * one for one in residuals)
    if not squares:
        return 0.0
    alike = sum(one * next_ for one, next_ in pairwise(residuals)) / squares
    alike = min(max(alike + (2 + 4 * alike) / count, 0.0), 0.99)
    centre = statistics.fmean(at)
    spread = sum((minute - centre) ** 2 for minute in at)
    error = math.sqrt(squares / (count - 2) / spread * (1 + alike) / (1 - alike))
    freedom = max(2.0, count * (1 - alike) / (1 + alike) - 2)
    student = 1.96 + 2.4 / freedom + 3.5 / freedom**2  # Student's t at 97.5 %, within 1 % from five degrees on
    return student * error


def told(replica: Replica, folder: Path, what: str) -> dict[str, object]:
    """A `census` of what lives in the process now, or only its `heap`. Empty when it does not say in time."""
    assert replica.process is not None
    file = folder / f"{what}-{replica.process.pid}.json"
    file.unlink(missing_ok=True)
    replica.signal(signal.SIGUSR1 if what == "heap" else signal.SIGUSR2)
    try:
        wait_until(file.exists, seconds=CENSUS_SECONDS, what=f"a {what}")
    except AssertionError:
        return {}
    found: dict[str, object] = json.loads(file.read_text())
    return found


# — who is connected —


class Clients:
    """SDKs on streams that come and go, one of them that never reads, and somebody who looks at rollouts."""

    def __init__(self, cluster: Cluster, chance: Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.opened = 0

    def start(self) -> None:
        for number in MEASURED:
            replica = self._cluster.replicas[number]
            for index in range(STREAMS_PER_REPLICA):
                self._thread(self._listen, replica, index > 0)
            self._thread(self._look, replica)

    def _thread(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _listen(self, replica: Replica, reads: bool) -> None:
        request = (
            f"GET /all HTTP/1.1\r\nHost: localhost\r\nAuthorization: {self._cluster.sdk_key}\r\n\r\n".encode()
        )
        while not self._ended.wait(1.0):
            until = time.monotonic() + self._chance.uniform(20, 90)
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", replica.port), 5) as link:
                link.sendall(request)
                link.settimeout(2.0)
                self.opened += 1
                while time.monotonic() < until and not self._ended.is_set():
                    if not reads:
                        self._ended.wait(1.0)
                        continue
                    with contextlib.suppress(TimeoutError):
                        if not link.recv(65_536):
                            break

    def _look(self, replica: Replica) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            flag = self._chance.choice(self._cluster.flags)
            path = self._chance.choice(
                [f"plans/{flag}/status", f"plans/{flag}/status", "audit?limit=100", "plans", "kills", "raises"]
            )
            replica.asked("GET", f"/api/v1/{path}")


# — what goes wrong —


class Trouble:
    """One fault after the other. To be used in the main thread: PostgreSQL ends with the one that started it."""

    def __init__(self, cluster: Cluster, people: People, history: History, seed: int) -> None:
        self._cluster = cluster
        self._scene = Scene(cluster=cluster, people=people, history=history, chance=Random(f"{seed} faults"))
        self._broken: list[str] = []
        own = [
            Fault("flags break", self._flags_break, 6, "60 % errors of three flags, those of before are mended"),
            Fault("replica killed", self._replica_killed, 5, "kill -9 of the one that is not measured"),
            Fault("replica restarted", self._replica_restarted, 3, "SIGTERM of the one that is not measured"),
        ]
        self._faults = [fault for fault in FAULTS if fault.name in CHAOS_FAULTS] + own
        self._weights = [CHAOS_FAULTS.get(fault.name, fault.weight) for fault in self._faults]
        self.counts: Counter[str] = Counter()
        self.unrecovered: list[str] = []

    def strike(self) -> str:
        """What was done; a cluster that did not recover in time is mended and noted."""
        chance = self._scene.chance
        fault = chance.choices(self._faults, self._weights)[0]
        self.counts[fault.name] += 1
        try:
            fault.act(self._scene)
        except (AssertionError, OSError, http.client.HTTPException, *AWAY) as error:
            self.unrecovered.append(f"{fault.name}: {type(error).__name__}: {error}"[:600])
            self._mend()
        self._release()
        time.sleep(chance.uniform(*PAUSE_SECONDS))
        return fault.name

    def _flags_break(self, _: Scene) -> Recoveries:
        for flag in self._broken:
            self._cluster.shop.mends(flag)
        self._broken = self._scene.chance.sample(self._cluster.flags, BREAKING)
        for flag in self._broken:
            self._cluster.shop.breaks(flag)
        return {}

    def _replica_killed(self, scene: Scene) -> Recoveries:
        victim = self._victim()
        victim.kill()
        scene.wait(0.0, 6.0)
        victim.start(wait_ready=False)
        return scene.ticking()

    def _replica_restarted(self, scene: Scene) -> Recoveries:
        victim = self._victim()
        victim.stop()
        scene.wait(0.0, 6.0)
        victim.start(wait_ready=False)
        return scene.ticking()

    def _victim(self) -> Replica:
        return next(one for one in self._cluster.replicas if one.number not in MEASURED)

    def _mend(self) -> None:
        self._cluster.heal()
        if self._cluster.postgres.ended():
            self._cluster.postgres.start()
        if not self._victim().alive():
            self._victim().start(wait_ready=False)

    def _release(self) -> None:
        """A person looks when something blocks raises for good."""
        with contextlib.suppress(AssertionError, *AWAY):
            if self._cluster.barriers():
                self.counts["(raises released by hand)"] += 1
                self._cluster.release_raises()


# — one soak —


class Soak:
    def __init__(
        self, folder: Path, *, seed: int, rollouts: int, minutes: float, warm_up: float, json_file: str
    ) -> None:
        self._folder = folder
        self._seed = seed
        self._minutes = minutes
        self._warm_up = warm_up
        self._json_file = json_file
        self._cluster = Cluster(folder, [f"flag-{number:03}" for number in range(rollouts)], mount=False)
        self._ledger = Ledger()
        self._history = History(self._cluster.sql)
        self._people = People(self._cluster, self._ledger, Random(f"{seed} people"))
        self._clients = Clients(self._cluster, Random(f"{seed} clients"))
        self._trouble = Trouble(self._cluster, self._people, self._history, seed)
        self._census: dict[str, dict[str, object]] = {}
        self._problems: list[str] = []
        self._began_at = ""

    def run(self) -> Report:
        with ExitStack() as ends:
            ends.callback(self._cluster.close)
            self._cluster.start()
            self._say(f"{len(self._cluster.flags)} rollouts applied on {REPLICAS} replicas")
            self._people.start()
            ends.callback(self._people.close)
            self._clients.start()
            ends.callback(self._clients.close)
            measured = [self._cluster.replicas[number] for number in MEASURED]
            meter = Meter(measured, self._folder, self._keep)
            meter.start()
            ends.callback(meter.close)
            self._began_at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            self._last(measured, meter)
            meter.close()
            self._count("end", measured)
            self._people.rest()
            self._judge()
            return self._report(meter.samples)

    def _last(self, measured: Sequence[Replica], meter: Meter) -> None:
        began = time.monotonic()
        read_at = began
        pids = [replica.process.pid for replica in measured if replica.process]
        while (minutes := (time.monotonic() - began) / 60) < self._warm_up + self._minutes:
            if not self._census and minutes >= self._warm_up / 2:  # what the count itself takes is none of ours
                self._count("warm", measured)
            name = self._trouble.strike()
            if time.monotonic() - read_at > READ_SECONDS:
                read_at = time.monotonic()
                self._read()
                sizes = ", ".join(f"{one.rss_kib} KiB" for one in meter.samples[-len(measured) :])
                faults = sum(self._trouble.counts.values())
                self._say(f"{minutes:.1f} min: {sizes}; {len(self._history)} rows, {faults} faults, last: {name}")
        assert pids == [replica.process.pid for replica in measured if replica.process and replica.alive()]

    def _read(self) -> None:
        try:
            self._history.read()
        except AssertionError as error:
            self._problems.append(str(error)[:1000])
        except AWAY:
            pass  # the next reading begins where this one ended

    def _count(self, when: str, measured: Sequence[Replica]) -> None:
        with ThreadPoolExecutor(len(measured)) as pool:
            found = pool.map(lambda replica: told(replica, self._folder, "census"), measured)
        self._census |= {f"{when} {replica.number}": one for replica, one in zip(measured, found, strict=True)}

    def _judge(self) -> None:
        self._cluster.heal()
        wait_until(self._cluster.postgres.answers, seconds=30, what="PostgreSQL")
        self._history.read()
        self._problems += self._history.problems()

    def _keep(self, samples: list[Sample]) -> None:
        if self._json_file and len(samples) % (12 * len(MEASURED)) == 0:
            Path(self._json_file).with_suffix(".samples").write_bytes(msgspec.json.encode(samples))

    def _report(self, samples: list[Sample]) -> Report:
        return Report(
            version=__version__,
            seed=self._seed,
            rollouts=len(self._cluster.flags),
            minutes=self._minutes,
            warm_up_minutes=self._warm_up,
            began_at=self._began_at,
            trends=self._trends([one for one in samples if one.minutes >= self._warm_up]),
            samples=samples,
            faults=dict(self._trouble.counts.most_common()),
            unrecovered=self._trouble.unrecovered,
            runs=self._cluster.sql.value("SELECT count(*) FROM runs"),
            transitions=self._history.transitions(),
            audit_rows=len(self._history),
            kills=self._cluster.sql.value("SELECT count(*) FROM kills"),
            answers=dict(self._ledger.answers),
            streams=self._clients.opened,
            problems=self._problems,
            census=self._census,
        )

    def _trends(self, samples: Sequence[Sample]) -> list[Trend]:
        trends = []
        for number in MEASURED:
            mine = [one for one in samples if one.replica == number]
            trends.append(trend(number, IN_USE, [(one.minutes, one.in_use_kib) for one in mine if one.heap]))
            trends.append(trend(number, RESIDENT, [(one.minutes, one.rss_kib) for one in mine]))
        return trends

    def _say(self, line: str) -> None:
        _print(f"{time.strftime('%H:%M:%S')} {line}")


def summary(report: Report) -> str:
    lines = [
        f"{'replica':>7} {'memory':<9} {'samples':>8} {'KiB/min':>9} {'95 % interval':>19} {'first quarter':>14} "
        f"{'last quarter':>13} {'per day':>8}  verdict"
    ]
    for one in report.trends:
        between = f"{one.low:.1f} to {one.high:.1f}"
        lines.append(
            f"{one.replica:>7} {one.of:<9} {one.samples:>8} {one.slope:>9.1f} {between:>19} "
            f"{one.first_quarter / 1024:>10.1f} MiB {one.last_quarter / 1024:>9.1f} MiB "
            f"{one.growth_per_day:>8.0%}  {'flat' if one.flat else 'RISING'}"
        )
    for number in MEASURED:
        mine = [sample for sample in report.samples if sample.replica == number]
        lines.append(
            f"replica {number}: descriptors {_range([s.descriptors for s in mine])}, "
            f"threads {_range([s.threads for s in mine])}, series {_range([s.series for s in mine if s.series])}"
        )
    lines += [
        f"{report.minutes:g} min after {report.warm_up_minutes:g} min of warm-up, from {report.began_at}; "
        f"{report.rollouts} rollouts, {REPLICAS} replicas of which "
        f"{len(MEASURED)} measured; seed {report.seed}; Rampart {report.version}",
        f"{report.runs} runs, {report.transitions} transitions, {report.kills} kills, "
        f"{report.audit_rows} audit rows, {report.streams} streams opened",
        f"{sum(report.faults.values())} faults: " + ", ".join(f"{name} {n}" for name, n in report.faults.items()),
        "answers: " + ", ".join(f"{name} {count}" for name, count in sorted(report.answers.items())),
        *_grown(report),
        *(f"not recovered in time: {one}" for one in report.unrecovered),
        *(f"BROKEN: {problem}" for problem in report.problems),
    ]
    if not report.problems:
        lines.append("The audit chain is whole; no transition was duplicated, no stage skipped.")
    return "\n".join(lines)


def _range(values: Sequence[int]) -> str:
    return f"{values[0]} at first, {min(values)} to {max(values)}, {values[-1]} at last" if values else "unknown"


def _grown(report: Report) -> list[str]:
    """What there is more of at the end than after the warm-up, in each measured process."""
    lines = []
    for number in MEASURED:
        before, after = report.census.get(f"warm {number}"), report.census.get(f"end {number}")
        if not before or not after or "error" in before or "error" in after:
            lines.append(f"replica {number} was not counted: {before}, {after}"[:300])
            continue
        lines.append(
            f"replica {number}: {before['blocks']} blocks and {before['tasks']} tasks after the warm-up, "
            f"{after['blocks']} and {after['tasks']} at the end"
        )
        for what in ("containers", "types"):
            old, new = before[what], after[what]
            assert isinstance(old, dict)
            assert isinstance(new, dict)
            more = sorted(((n - old.get(k, 0), k) for k, n in new.items() if n > old.get(k, 0)), reverse=True)
            lines.append(f"  more {what}: " + (", ".join(f"{k} +{n} = {new[k]}" for n, k in more[:12]) or "none"))
    return lines


def main() -> int:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="rampart-soak-"))
    os.environ.update(SETTINGS)
    _take_censuses(folder)
    soak = Soak(
        folder,
        seed=options.seed,
        rollouts=options.rollouts,
        warm_up=options.warm_up,
        minutes=options.minutes,
        json_file=options.json,
    )
    report = soak.run()
    _print(summary(report))
    if options.json:
        Path(options.json).write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    if report.passed and not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        _print(f"Logs are in {folder}")
    return 0 if report.passed else 1


def _take_censuses(folder: Path) -> None:
    """From here on every Python process that is started answers SIGUSR2 with a census."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text("import tests.chaos.census\n")
    os.environ["PYTHONPATH"] = f"{folder / 'site'}:{Path.cwd()}"
    os.environ["CENSUS_FOLDER"] = str(folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long memory is measured (default: 30)")
    parser.add_argument(
        "--warm-up", type=float, default=WARM_UP_MINUTES, metavar="MINUTES",
        help=f"before that, until every rollout has run a few times (default: {WARM_UP_MINUTES:g})",
    )  # fmt: skip
    parser.add_argument("--rollouts", type=int, default=500, help="default: 500")
    parser.add_argument("--seed", type=int, default=1, help="what happens, when and to whom (default: 1)")
    parser.add_argument("--json", default="", metavar="FILE", help="write the report there, with every sample")
    parser.add_argument("--keep", action="store_true", help="keep data and logs of a soak that passed")
    return parser.parse_args()


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
