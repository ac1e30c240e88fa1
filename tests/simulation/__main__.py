"""`python -m tests.simulation --seeds 2000`: worlds under faults; `--seed N` replays one and tells its story."""

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.races import Race
from tests.simulation.world import Report, World, simulate

YEAR_SECONDS = 365.25 * 86400
CHUNK = 50


def main() -> int:
    arguments = _arguments()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets depends on it, and the order of sets may decide who is asked first.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        return subprocess.call([sys.executable, "-m", "tests.simulation", *sys.argv[1:]], env=environment)
    kind = Race if arguments.races else World
    if arguments.seed is not None:
        return _replay(arguments.seed, kind)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    return _many(seeds, arguments.workers, kind, 60 * arguments.minutes, until_broken=arguments.until_broken)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many worlds (default 2000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no more worlds after so many minutes")
    parser.add_argument("--until-broken", action="store_true", help="stop at the first violation")
    parser.add_argument("--races", action="store_true", help="kill against other commands at the same moment")
    parser.add_argument("--seed", type=int, help="replay this one and tell everything that happens in it")
    return parser.parse_args()


def _replay(seed: int, kind: type[World]) -> int:
    report = simulate(seed, telling=True, kind=kind)
    print("\n".join(report.story))
    print(f"seed {seed}, {report.simulated_seconds:.0f} s, fingerprint {report.fingerprint}")
    print(report.violation or "every promise was kept")
    return 1 if report.violation else 0


def _worlds(seeds: list[int], kind: type[World]) -> list[Report]:
    return [simulate(seed, kind=kind) for seed in seeds]


def _many(seeds: range, workers: int, kind: type[World], seconds: float, *, until_broken: bool) -> int:
    began, total = time.monotonic(), Total()
    chunks = [list(seeds[first : first + CHUNK]) for first in range(0, len(seeds), CHUNK)]
    with ProcessPoolExecutor(workers) as pool:
        for reports in pool.map(_worlds, chunks, itertools.repeat(kind)):
            total.add(reports)
            if sys.stderr.isatty():
                print(f"\r{total.worlds} of {len(seeds)}", end="", file=sys.stderr)
            if time.monotonic() - began > seconds or (until_broken and total.broken):
                pool.shutdown(wait=False, cancel_futures=True)
                break
    seeds = seeds[: total.worlds]
    total.show(seeds, time.monotonic() - began, "--races " if kind is Race else "")
    return 1 if total.broken else 0


class Total:
    """What all worlds together did."""

    def __init__(self) -> None:
        self.worlds = self.commits = self.kills = self.completed = 0
        self.seconds = 0.0
        self.faults: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        self.broken: list[Report] = []

    def add(self, reports: Iterable[Report]) -> None:
        for report in reports:
            self.worlds += 1
            self.seconds += report.simulated_seconds
            self.commits += report.commits
            self.kills += report.kills
            self.completed += report.completed
            self.faults.update(report.faults)
            self.checks.update(report.checks)
            if report.violation:
                self.broken.append(report)

    def show(self, seeds: range, took: float, options: str) -> None:
        print(f"commit {_commit()}, seeds {seeds.start} to {seeds.stop - 1}, {took:.0f} s of real time")
        print(
            f"{self.worlds} worlds of 3 replicas, {self.seconds / YEAR_SECONDS:.3f} simulated years, "
            f"{self.commits} commits, {self.kills} kills, {self.completed} rollouts completed"
        )
        print(f"\n{sum(self.faults.values()):>12} faults")
        for fault, count in self.faults.most_common():
            print(f"{count:>12} {fault}")
        print(f"\n{sum(self.checks.values()):>12} checks")
        for promise, count in sorted(self.checks.items()):
            print(f"{count:>12} {promise}")
        print(f"\n{len(self.broken):>12} violations")
        for report in self.broken[:20]:
            print(f"seed {report.seed}: {report.violation}")
            print(f"  replay: python -m tests.simulation {options}--seed {report.seed}")


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
