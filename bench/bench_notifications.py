"""Whether receivers of messages that fail delay kills, how fast messages go out, and whether any is lost.

    python -m bench.bench_notifications [--kills 120] [--json dist/bench_notifications.json]

One server with a channel of each kind: webhook, Slack, PagerDuty, mail. Kills come in blocks, by turns with
receivers that take everything and with receivers that hang, answer 500, cut the connection, lose the answer or
answer 410: so both see the same machine. Between two kills the floor is measured: one durable commit on another
PostgreSQL, one raw HTTP call. In the middle of the last faults the server is ended with SIGKILL and started
again. Then the receivers are well: every kill must have been told to every channel, or be a dead letter. Exit
code 1 when the median of kills under faults is above 1.5 times that without, or a message is missing.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.bench_kill import Floor, floor_of, summary, timed
from tests.support import fleet, manifests
from tests.support.receivers import Fault, HttpReceiver, Received, Receiver, SmtpReceiver
from tests.support.server import RampartServer, wait_until

TARGET_RATIO = 1.5
BLOCKS = 6
LETTERS = 100
PAUSE_SECONDS = (0.02, 0.12)
FAULTS = [Fault.SLOW, Fault.BROKEN, Fault.RESET, Fault.LOST, Fault.ENDED]
KINDS = ("hook", "chat", "pager", "mail")
MARK = re.compile(r"mark-(\d+)-mark")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


# — the receivers, in a process of their own —


def receive(pipe: Connection) -> None:
    asyncio.run(_receive(pipe))


async def _receive(pipe: Connection) -> None:
    """Takes "ill", "gone" and "well", answers "heard"; the first message out is the port of each."""
    chance = random.Random(7)
    async with AsyncExitStack() as stack:
        receivers: dict[str, Receiver] = {
            "hook": await stack.enter_async_context(HttpReceiver().open()),
            "chat": await stack.enter_async_context(HttpReceiver().open()),
            "pager": await stack.enter_async_context(HttpReceiver(takes=202).open()),
            "mail": await stack.enter_async_context(SmtpReceiver().open()),
        }
        pipe.send({name: one.port for name, one in receivers.items()})
        while True:
            order = await asyncio.to_thread(pipe.recv)
            if order == "heard":
                pipe.send({name: list(_marks(one.taken)) for name, one in receivers.items()})
                continue
            for one in receivers.values():
                one.heal()
                if order == "ill":
                    one.fault = Fault.BROKEN
                    one.script.extend(chance.choices(FAULTS, k=500))
                if order == "gone":
                    one.fault = Fault.ENDED
            pipe.send(order)


def _marks(taken: Sequence[Received]) -> Iterator[int]:
    """Of all messages; what only ends an incident has none."""
    for received in taken:
        text = received.body.decode(errors="replace")
        if "MIME-Version" in text:
            plain = received.mail.get_body(("plain",))
            text = str(plain.get_content()) if plain else ""
        if found := MARK.search(text):
            yield int(found[1])


class Receivers:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.ports: dict[str, int] = pipe.recv()

    def are(self, health: str) -> None:
        self._pipe.send(health)
        self._pipe.recv()

    def heard(self) -> dict[str, list[int]]:
        self._pipe.send("heard")
        found: dict[str, list[int]] = self._pipe.recv()
        return found


@contextmanager
def receivers() -> Iterator[Receivers]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=receive, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Receivers(ours)
    finally:
        process.kill()
        process.join()


def settings(folder: Path, ports: dict[str, int], source: str) -> str:
    def written(name: str, text: str) -> str:
        (folder / name).write_text(text)
        return str(folder / name)

    address = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    local = "allow_private = true\ntimeout_seconds = 2.0\n"
    return f"""
[sources.app]
kind = "scrape"
targets = ["{source}"]
[channels.hook]
kind = "webhook"
url = "{address["hook"]}"
secret_files = ["{written("hook.secret", SECRET)}"]
{local}
[channels.chat]
kind = "slack"
url_file = "{written("chat.url", address["chat"] + "/services/T0/B0/key")}"
{local}
[channels.pager]
kind = "pagerduty"
url = "{address["pager"]}"
routing_key_file = "{written("pager.key", "R" * 32)}"
{local}
[channels.mail]
kind = "email"
host = "127.0.0.1"
port = {ports["mail"]}
security = "none"
sender = "rampart@acme.example"
to = ["oncall@acme.example"]
timeout_seconds = 2.0
"""


# — measuring —


class Kills:
    """All of them, numbered: a number is the mark by which a message is known."""

    def __init__(self, server: RampartServer, floor: Floor, flags: Sequence[str]) -> None:
        self._server, self._floor = server, floor
        self._flags = iter(flags)
        self._moments = random.Random(7)
        self.count = 0
        self.commits: list[float] = []
        self.calls: list[float] = []

    def block(self, count: int) -> list[float]:
        """Milliseconds to the answer of each."""
        found = []
        for _ in range(count):
            self.commits.append(timed(self._floor.commit))
            self.calls.append(timed(self._floor.call))
            time.sleep(self._moments.uniform(*PAUSE_SECONDS))
            self.count += 1
            one = fleet.kill(self._server, next(self._flags), f"mark-{self.count}-mark")
            found.append((one.answered_at - one.asked_at) * 1000)
        return found


def measure(server: RampartServer, floor: Floor, told: Receivers, count: int) -> dict[str, Any]:
    flags = fleet.keys(count * 2 + LETTERS)
    server.apply(a_policy=manifests.policy())
    fleet.apply_flags(server, flags)
    notify = "".join(f"    - {{ to: {name}, events: [killed] }}\n" for name in KINDS)
    plans = [(f"{key}.rollout.yaml", manifests.plan(key, bake="8h") + f"  notify:\n{notify}") for key in flags]
    fleet._apply(server, plans)
    kills, well, ill = Kills(server, floor, flags), list[float](), list[float]()
    each = max(count // BLOCKS, 1)
    for _ in range(BLOCKS):
        told.are("well")
        well += kills.block(each)
        told.are("ill")
        ill += kills.block(each)
    waiting = left(server, "waiting")
    server.kill()
    server.start()
    told.are("well")
    began = time.monotonic()
    wait_until(lambda: not left(server, "waiting"), seconds=400, every=0.1, what="all messages to be told")
    return (
        {
            "rows": {
                "floor: one durable commit": summary(kills.commits),
                "floor: one raw HTTP call": summary(kills.calls),
                "kill → answer, receivers well": summary(well),
                "kill → answer, receivers ill": summary(ill),
            },
            "waiting_at_the_crash": waiting,
            "drained_in_s": round(time.monotonic() - began, 1),
        }
        | account(server, told, kills.count)
        | {"redelivered_per_second": throughput(server, told, kills)}
    )


def left(server: RampartServer, what: str) -> int:
    return sum(one[what] for one in server.call("GET", "notifications"))


def account(server: RampartServer, told: Receivers, kills: int) -> dict[str, Any]:
    """Of each channel: told, told again, dead and missing."""
    found: dict[str, Any] = {}
    wanted = set(range(1, kills + 1))
    for name, marks in told.heard().items():
        letters = server.call("GET", f"notifications/dead?channel={name}&limit=1000")
        dead = {int(MARK.findall(one["message"]["reason"])[0]) for one in letters}
        heard = Counter(marks)
        found[name] = {
            "told": len(wanted & heard.keys()),
            "told_again": sum(heard.values()) - len(heard),
            "dead": len(dead),
            "missing": len(wanted - heard.keys() - dead),
        }
    return {"channels": found}


def throughput(server: RampartServer, told: Receivers, kills: Kills) -> float:
    """Messages in a second, over all channels, when many dead letters are sent again at once."""
    told.are("gone")
    kills.block(LETTERS)
    wait_until(lambda: not left(server, "waiting"), seconds=120, every=0.1, what="the letters to be dead")
    told.are("well")
    dead = left(server, "dead")
    server.call("POST", "notifications/dead/redeliver", {"everything": True})
    wait_until(
        lambda: left(server, "waiting") < dead, seconds=20, every=0.01, what="the round that begins with them"
    )
    began, begun_with = time.monotonic(), left(server, "waiting")
    wait_until(lambda: not left(server, "waiting"), seconds=120, every=0.02, what="the letters to be told")
    return round(begun_with / (time.monotonic() - began), 1)


def show(report: dict[str, Any]) -> None:
    print(f"\n{'':34}{'p50':>9}{'p99':>9}{'max':>9}  ms")
    for name, row in report["rows"].items():
        print(f"{name:34}{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}{row['max_ms']:9.2f}  n={row['n']:.0f}")
    print(json.dumps({name: value for name, value in report.items() if name != "rows"}, indent=1))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=120)
    options.add_argument("--json", type=Path, default=Path("dist/bench_notifications.json"))
    asked = options.parse_args()
    before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="notifications-") as name, receivers() as told:
        folder = Path(name)
        (folder / "floor").mkdir()
        with floor_of(folder / "floor") as floor, fleet.scraped(["nobody"]) as source:
            server = RampartServer(folder, settings(folder, told.ports, source))
            try:
                server.start()
                report = measure(server, floor, told, asked.kills)
            finally:
                server.stop()
    rows = report["rows"]
    ratio = rows["kill → answer, receivers ill"]["p50_ms"] / rows["kill → answer, receivers well"]["p50_ms"]
    report["ratio_of_medians"] = round(ratio, 2)
    report["conditions"] = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": [before, os.getloadavg()],
    }
    show(report)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    missing = sum(one["missing"] for one in report["channels"].values())
    print(f"median under faults: {ratio:.2f} times that without (at most {TARGET_RATIO}); missing: {missing}")
    return int(ratio > TARGET_RATIO or missing > 0)


if __name__ == "__main__":
    sys.exit(main())
