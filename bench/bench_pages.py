"""How long the pages for people take, and how large they are, beside a thousand live rollouts.

    python -m bench.bench_pages [--rollouts 1000] [--requests 200] [--json dist/bench_pages.json]

All rollouts are at their first stage and judged every 15 seconds, as the shipped policies have it, by the same
process, on a real PostgreSQL. One browser's connection is kept open, as a browser does; every page is asked for in
turn, and beside it, in the same round, the floor: /healthz, which the same server answers without any work. `of
us` is the page without its floor.

The server may answer the same question of the same second from memory, so the list is also asked for alone, with
more than that second between (`read anew`); this is what the target is held against.

Then four readers load the list without pause while the floor is measured again: what the list costs everybody
else. Exit code 1 when the p99 of the list is above 150 ms, or a page too large.
"""

import argparse
import http.client
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.bench_kill import prepare
from tests.support import fleet
from tests.support.pages import Reader
from tests.support.server import RampartServer

LIST_MS = 150.0
LIST_BYTES = 100_000
PAGE_BYTES = 30_000
ANEW_SECONDS = 1.2
ANEW_REQUESTS = 60
READERS = 4
FLOOR = "floor: /healthz"
ANEW = "list, first page, read anew"


def pages_of(flags: Sequence[str]) -> dict[str, str]:
    one = flags[len(flags) // 2]
    return {
        "list, first page": "/",
        "list, last page": f"/?page={max(1, len(flags) // 100)}",
        "list, one found": f"/?q={one}",
        "one rollout": f"/rollouts/{one}",
        "phone page": f"/r/{one}",
        "raised lately": "/raised?within=24h",
        "approvals": "/approvals",
        FLOOR: "/healthz",
    }


def measure(reader: Reader, pages: dict[str, str], requests: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Milliseconds of each request, and the most bytes that were answered."""
    took: dict[str, list[float]] = {name: [] for name in pages}
    sizes: dict[str, int] = {}
    for _ in range(requests):
        for name, path in pages.items():
            milliseconds, size = timed(reader, path)
            took[name].append(milliseconds)
            sizes[name] = max(sizes.get(name, 0), size)
    return took, sizes


def timed(reader: Reader, path: str) -> tuple[float, int]:
    began = time.monotonic()
    answer = reader.get(path)
    took = (time.monotonic() - began) * 1000
    assert answer.status == http.client.OK, f"{path}: {answer.status}"
    return took, len(answer.body)


def read_anew(reader: Reader) -> list[float]:
    took = []
    for _ in range(ANEW_REQUESTS):
        time.sleep(ANEW_SECONDS)
        took.append(timed(reader, "/")[0])
    return took


def beside_readers(server: RampartServer, reader: Reader, requests: int) -> tuple[list[float], int]:
    """The floor while others load the list, and how many lists they loaded."""
    ended, lists = threading.Event(), [0] * READERS

    def read_on(number: int) -> None:
        other = Reader(server)
        other.log_in(server.token)
        while not ended.is_set():
            other.get("/")
            lists[number] += 1

    threads = [threading.Thread(target=read_on, args=(number,)) for number in range(READERS)]
    for thread in threads:
        thread.start()
    floor: list[float] = []
    try:
        for _ in range(requests):
            floor.append(timed(reader, "/healthz")[0])
            time.sleep(0.01)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    return floor, sum(lists)


def summary(milliseconds: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    values = {"p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(milliseconds)}
    return {name: round(value, 2) for name, value in values.items()}


def run(asked: argparse.Namespace) -> dict[str, Any]:
    flags = fleet.keys(asked.rollouts)
    with tempfile.TemporaryDirectory(prefix="pages-") as name, fleet.scraped(flags) as url:
        settings = f'[sources.app]\nkind = "scrape"\ntargets = ["{url}"]\nevery_seconds = 5.0\n'
        server = RampartServer(Path(name), settings)
        try:
            facts = prepare(server, flags, every="15s", window="30s")
            reader = Reader(server)
            reader.log_in(server.token)
            pages = pages_of(flags)
            measure(reader, pages, 3)
            took, sizes = measure(reader, pages, asked.requests)
            anew = read_anew(reader)
            floor, lists = beside_readers(server, reader, asked.requests)
        finally:
            server.stop()
    rows = {name: summary(values) | {"bytes": sizes[name]} for name, values in took.items()}
    rows[ANEW] = summary(anew)
    rows[f"{FLOOR}, beside {READERS} readers of the list"] = summary(floor)
    return {"rows": rows, "facts": facts | {"lists_loaded_by_readers": lists}}


def show(report: dict[str, Any]) -> None:
    floor = report["rows"][FLOOR]["p50_ms"]
    print(f"{'':48}{'p50':>9}{'p99':>9}{'max':>9}{'of us':>9}  ms{'bytes':>10}")
    for name, row in report["rows"].items():
        ours = row["p50_ms"] - floor
        print(
            f"{name:48}{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}{row['max_ms']:9.2f}{ours:9.2f}"
            f"    {row.get('bytes', ''):>10}"
        )
    print(f"\n{json.dumps(report['conditions'])}\n{json.dumps(report['facts'])}")


def failures(rows: dict[str, Any]) -> list[str]:
    first = rows[ANEW]
    found = []
    if first["p99_ms"] > LIST_MS:
        found.append(f"the list took {first['p99_ms']} ms at p99 (target {LIST_MS:g} ms)")
    for name, row in rows.items():
        most = LIST_BYTES if name.startswith(("list", "raised")) else PAGE_BYTES
        if row.get("bytes", 0) > most:
            found.append(f"{name} has {row['bytes']} bytes (target {most})")
    return found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rollouts", type=int, default=1000)
    options.add_argument("--requests", type=int, default=200)
    options.add_argument("--json", type=Path, default=Path("dist/bench_pages.json"))
    asked = options.parse_args()
    conditions = {
        "rollouts": asked.rollouts,
        "requests": asked.requests,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_average_before": os.getloadavg(),
    }
    report = run(asked)
    report["conditions"] = conditions | {"load_average_after": os.getloadavg()}
    show(report)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    found = failures(report["rows"])
    print("\n".join(found) or f"the list within {LIST_MS:g} ms and {LIST_BYTES} bytes, pages within {PAGE_BYTES}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
