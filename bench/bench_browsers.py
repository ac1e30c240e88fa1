"""How soon a kill is at thousands of browsers, and for how long it holds the server up.

    python -m bench.bench_browsers [--browsers 2000] [--flags 50] [--kills 20]

Each browser is a raw socket with a stream for a context of its own. Measured from the kill on the board to the
patch at the first and the last of them; beside it how late a timer of the server was at worst meanwhile, which is
what another kill would have waited. Then the other way there is: a `ping`, and each asks for all its flags.
"""

import argparse
import asyncio
import base64
import itertools
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

import structlog
import uvicorn
import uvloop
from litestar import Litestar

from bench.bench_delivery import AnnouncedServer
from controller.delivery import Doors, SdkKeyBook
from controller.domain.plan import FlagRef
from tests.support.sdk_door import CLIENT_ID, SteppedClock, make_board, make_flag, make_key, raised

KILL_ID = "kill-bench"
PROBE_SECONDS = 0.001


def serve(flags: int, pipe: Connection) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    uvloop.run(_serve(flags, pipe))


async def _serve(flags: int, pipe: Connection) -> None:
    board, keys = make_board(), SdkKeyBook()
    keys.load([make_key(CLIENT_ID, kind="client")])
    board.load([raised(make_flag(f"flag-{n}", client_side=True), 50_000) for n in range(flags)], [])
    app = Doors(board, keys, SteppedClock()).before(Litestar(openapi_config=None))
    config = uvicorn.Config(app, port=0, http="httptools", lifespan="off", log_config=None, access_log=False)
    server = AnnouncedServer(config, pipe)
    lateness = Lateness()

    def on_command() -> None:
        verb, key = pipe.recv()
        flag = FlagRef(provider="main", environment="production", key=key)
        match verb:
            case "kill":
                lateness.worst = 0.0
                pipe.send(time.monotonic_ns())
                board.hold_down(flag, KILL_ID)
            case "lift":
                board.lift(flag, KILL_ID)
            case "late":
                pipe.send(lateness.worst)
            case "stop":
                board.close()
                server.should_exit = True

    loop = asyncio.get_running_loop()
    loop.add_reader(pipe.fileno(), on_command)
    probe = asyncio.create_task(lateness.watch())
    await server.serve()
    probe.cancel()


class Lateness:
    """`worst`: the most that a timer came too late, in milliseconds."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def watch(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(PROBE_SECONDS)
            self.worst = max(self.worst, (time.monotonic() - began - PROBE_SECONDS) * 1000)


class Awaited:
    """Until `left` frames with `words` in them have come."""

    def __init__(self, words: bytes, left: int) -> None:
        self.words = words
        self.left = left
        self.first = 0
        self.last = 0
        self.done = asyncio.Event()

    def came(self) -> None:
        self.last = time.monotonic_ns()
        self.first = self.first or self.last
        self.left -= 1
        if self.left == 0:
            self.done.set()


class Browsers:
    """All streams; what they await changes from kill to kill."""

    def __init__(self, port: int, path: Callable[[int], str]) -> None:
        self._port = port
        self._path = path
        self._awaited = Awaited(b"", 0)
        self._tasks: list[asyncio.Task[None]] = []

    def await_frames(self, words: bytes) -> Awaited:
        self._awaited = Awaited(words, len(self._tasks))
        return self._awaited

    async def connect(self, count: int, first_words: bytes) -> None:
        self._awaited = Awaited(first_words, count)
        gate = asyncio.Semaphore(100)
        self._tasks = [asyncio.create_task(self._listen(n, gate)) for n in range(count)]
        await self._awaited.done.wait()

    async def _listen(self, number: int, gate: asyncio.Semaphore) -> None:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(f"GET {self._path(number)} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            left = await self._frames(reader, b"")
        while left is not None:
            left = await self._frames(reader, left)
        writer.close()

    async def _frames(self, reader: asyncio.StreamReader, left: bytes) -> bytes | None:
        """Take in the next frames; what is left of them, or None at the end."""
        data = left
        while b"\n\n" not in data:
            more = await reader.read(1 << 16)
            if not more:
                return None
            data += more
        *frames, rest = data.split(b"\n\n")
        for frame in frames:
            if self._awaited.words in frame:
                self._awaited.came()
        return rest


def context(number: int) -> str:
    return base64.urlsafe_b64encode(b'{"kind":"user","key":"u%d"}' % number).decode().rstrip("=")


async def measure(port: int, pipe: Connection, asked: argparse.Namespace) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"first browser": [], "last browser": [], "worst hold-up": []}
    browsers = Browsers(port, lambda n: f"/eval/{CLIENT_ID}/{context(n)}")
    await browsers.connect(asked.browsers, b"event: put")
    for number in range(asked.kills):
        key = f"flag-{number % asked.flags}"
        awaited = browsers.await_frames(b'"key":"%s"' % key.encode())
        pipe.send(("kill", key))
        killed = await asyncio.to_thread(pipe.recv)
        await awaited.done.wait()
        pipe.send(("late", ""))
        found["worst hold-up"].append(await asyncio.to_thread(pipe.recv))
        found["first browser"].append((awaited.first - killed) / 1e6)
        found["last browser"].append((awaited.last - killed) / 1e6)
        lifted = browsers.await_frames(b'"key":"%s"' % key.encode())
        pipe.send(("lift", key))
        await lifted.done.wait()
    found["last browser, if each asked after a ping"] = [await ask_all(port, asked.browsers) for _ in range(3)]
    pipe.send(("stop", ""))
    return found


async def ask_all(port: int, browsers: int) -> float:
    """Milliseconds for all of them to be answered, over open connections."""
    numbers = itertools.count()

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (number := next(numbers)) < browsers:
            path = f"/sdk/evalx/{CLIENT_ID}/contexts/{context(number)}"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)

    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(min(browsers, 200))]
    began = time.monotonic_ns()
    await asyncio.gather(*(ask(reader, writer) for reader, writer in opened))
    took = (time.monotonic_ns() - began) / 1e6
    for _, writer in opened:
        writer.close()
    return took


def row(name: str, milliseconds: Sequence[float]) -> dict[str, object]:
    middle, worst = statistics.median(milliseconds), max(milliseconds)
    return {"what": name, "p50_ms": round(middle, 1), "max_ms": round(worst, 1), "n": len(milliseconds)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--browsers", type=int, default=2000)
    options.add_argument("--flags", type=int, default=50)
    options.add_argument("--kills", type=int, default=20)
    asked = options.parse_args()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(asked.flags, theirs))
    server.start()
    try:
        found = uvloop.run(measure(ours.recv(), ours, asked))
    finally:
        server.join(timeout=10)
        if server.is_alive():
            server.kill()
    print(json.dumps({"browsers": asked.browsers, "flags": asked.flags, "cpus": os.cpu_count()}))
    for name, milliseconds in found.items():
        print(json.dumps(row(name, milliseconds)))


if __name__ == "__main__":
    main()
