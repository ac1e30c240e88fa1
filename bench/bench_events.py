"""Events of a real SDK: counted exactly? And how many a second, beside merely parsing them?

    python -m bench.bench_events [--events 1000000] [--copies 10] [--users 20000]

Bodies are made by LaunchDarkly's Python SDK, each for several deliveries with ids of their own, as from as many
servers that do the same. They are sent to two replicas on one PostgreSQL, every delivery twice; what is in the
database is compared with what the SDK itself answered. Then the same bodies are parsed, and counted, on one core:
that is what a replica spends on them beside HTTP and the database.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from controller.delivery.event_bodies import ALL, events
from controller.delivery.event_counts import count, wanted
from controller.delivery.flag_history import FlagHistory
from controller.domain.tally import NO_BUCKET
from controller.store.embedded import EmbeddedPostgres
from controller.store.events import PostgresEvents
from controller.store.migrations import migrate
from controller.store.postgres import PostgresStore
from tests.support.sdk_door import FLAG, make_board, make_flag, make_key, raised
from tests.support.tracking import WATCHES, Delivered, Truth, deliver, event_door, record

ROUNDS = 3
COUNTED = """
SELECT event, variation, sum(count)::bigint AS count FROM event_counts
WHERE bucket = $1 AND event <> 'contexts' GROUP BY event, variation ORDER BY event, variation
"""


async def exactness(folder: Path, arguments: argparse.Namespace) -> tuple[bool, list[Delivered]]:
    embedded = EmbeddedPostgres(folder)
    dsn = await embedded.start()
    await migrate(dsn)
    store = PostgresStore(dsn)
    await store.connect()
    replicas = [PostgresEvents(store.connections, replica=name) for name in ("a", "b")]
    await replicas[0].watch(WATCHES, from_seconds=-3600)
    async with event_door(replicas[0]) as here, event_door(replicas[1]) as there:
        began = time.perf_counter()
        deliveries, kinds, truth = await asyncio.to_thread(
            record, here.url, events=arguments.events // arguments.copies, users=arguments.users
        )
        print(f"recorded {sum(kinds.values()):,} events in {len(deliveries):,} deliveries: {dict(kinds)},")
        print(f"  {sum(len(one.body) for one in deliveries) / 1e6:.0f} MB, {time.perf_counter() - began:.0f} s")
        sent = [
            Delivered(f"{one.payload_id}-{n}", one.body) for one in deliveries for n in range(arguments.copies)
        ]
        began = time.perf_counter()
        # From the other end the second time: each comes to the other replica, too.
        statuses = await deliver([here, there], [*sent, *reversed(sent)])
        seconds = time.perf_counter() - began
    number = arguments.copies * sum(kinds.values())
    print(f"{number:,} events in {len(sent):,} deliveries, each sent twice, to two replicas in one process:")
    print(f"  {2 * number / seconds:,.0f} events/s, answers {dict(statuses)}")
    exact = await _compare(store, truth, arguments.copies)
    await store.close()
    await embedded.stop()
    return exact, deliveries


async def _compare(store: PostgresStore, truth: Truth, copies: int) -> bool:
    expected = Counter({what: copies * number for what, number in truth.events.items()})
    rows = await store.connections.fetch(COUNTED, NO_BUCKET)
    found = Counter({(row["event"], row["variation"]): row["count"] for row in rows})
    for (event, variation), number in sorted(expected.items()):
        same = "=" if found[event, variation] == number else "≠"
        print(f"  {event:12} {variation:4} {number:>9,} {same} {found[event, variation]:>9,}")
    return found == expected


def per_core(deliveries: list[Delivered]) -> None:
    board = make_board()
    history = FlagHistory(board)
    board.load([raised(make_flag(version=1), 50_000)], [])
    view, asked, now = history.view(FLAG.environment), wanted(WATCHES), time.time()
    key, number = make_key(), 0
    for name in ["parse only", "parse and count"] * ROUNDS:
        number, began = 0, time.process_time()
        for one in deliveries:
            read = ALL.decode(one.body) if name == "parse only" else events(one.body)[0]
            number += len(read)
            if name != "parse only":
                count(read, key, asked, view, now)
        print(f"  {name:16} {number / (time.process_time() - began):>12,.0f} events/s of one core")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--users", type=int, default=20_000)
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        exact, deliveries = asyncio.run(exactness(Path(folder), arguments))
    per_core(deliveries)
    print("exact" if exact else "NOT exact")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
