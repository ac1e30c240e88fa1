"""The store beside its floor: `python -m bench.bench_store [repetitions]`.

The floor is a bare durable UPDATE of one row on the same server and over the same kind of pool; a commit does
that, checks three guards and writes the audit log. Floor and commit alternate. Prints one JSON document.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from controller.domain.rollout import Observations
from controller.store.connections import Connections
from controller.store.embedded import EmbeddedPostgres
from controller.store.migrations import migrate
from controller.store.postgres import PostgresStore
from tests.store.samples import change, started

WRITERS = 8
SECONDS = 2.0
RUNS = 1000
CLAIMS = 10


async def rate(writers: Sequence[Callable[[], Awaitable[object]]]) -> tuple[float, list[float]]:
    """Calls per second of all writers together, and the milliseconds of each call."""
    ends_at = time.perf_counter() + SECONDS
    latencies: list[float] = []

    async def write(once: Callable[[], Awaitable[object]]) -> None:
        while time.perf_counter() < ends_at:
            began = time.perf_counter()
            await once()
            latencies.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(write(once) for once in writers))
    return len(latencies) / SECONDS, latencies


def committer(store: PostgresStore, name: str) -> Callable[[], Awaitable[object]]:
    run = None

    async def once() -> None:
        nonlocal run
        run = run or await started(store, name)
        step = change(run, "pause" if run.phase == "progressing" else "resume", raises=run.phase == "paused")
        await store.commit(step)
        run = step.after

    return once


def summary(rates: list[float], latencies: list[float]) -> dict[str, float]:
    centiles = statistics.quantiles(latencies, n=100)
    return {
        "per_second": round(statistics.median(rates)),
        "per_second_spread": round(max(rates) - min(rates)),
        "p50_ms": round(centiles[49], 3),
        "p99_ms": round(centiles[98], 3),
    }


async def commits(store: PostgresStore, pool: Connections, repetitions: int) -> dict[str, object]:
    await pool.execute("CREATE TABLE floor (id int PRIMARY KEY, n bigint NOT NULL)")
    await pool.execute("INSERT INTO floor SELECT n, 0 FROM generate_series(0, $1::int) AS n", WRITERS)
    result: dict[str, object] = {}
    for writers in (1, WRITERS):
        kinds: dict[str, list[Callable[[], Awaitable[object]]]] = {
            "floor": [
                lambda row=row: pool.execute("UPDATE floor SET n = n + 1 WHERE id = $1", row)  # type: ignore[misc]
                for row in range(writers)
            ],
            "commit": [committer(store, f"plan-{writers}-{number}") for number in range(writers)],
        }
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        latencies: dict[str, list[float]] = {kind: [] for kind in kinds}
        for once in kinds["commit"]:
            await once()
        for _ in range(repetitions):
            for kind, calls in kinds.items():
                per_second, measured = await rate(calls)
                rates[kind].append(per_second)
                latencies[kind] += measured
        result[f"{writers}_writers"] = {kind: summary(rates[kind], latencies[kind]) for kind in kinds}
    return result


async def claims(store: PostgresStore) -> dict[str, object]:
    for number in range(RUNS):
        await started(store, f"due-{number}")
    claiming: list[float] = []
    saving: list[float] = []
    for _ in range(CLAIMS):
        began = time.perf_counter()
        claimed = await store.claim_due("bench", limit=2 * RUNS, lease_seconds=60)
        claiming.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        await store.save_observations("bench", [(claim, Observations(bake=1.0), 0.0) for claim in claimed])
        saving.append((time.perf_counter() - began) * 1000)
    return {
        "runs": len(claimed),
        "claim_due_p50_ms": round(statistics.median(claiming), 1),
        "claim_due_max_ms": round(max(claiming), 1),
        "save_observations_p50_ms": round(statistics.median(saving), 1),
    }


async def main(repetitions: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        embedded = EmbeddedPostgres(Path(directory))
        dsn = await embedded.start()
        await migrate(dsn)
        store = PostgresStore(dsn, pool_size=WRITERS, timeout_seconds=30.0)
        pool = Connections(pool_size=WRITERS, timeout_seconds=30.0)
        await store.connect()
        await pool.open(dsn)
        figures = {
            "repetitions": repetitions,
            "load_average": os.getloadavg(),
            "commits": await commits(store, pool, repetitions),
            "claims": await claims(store),
        }
        await pool.close()
        await store.close()
        await embedded.stop()
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
