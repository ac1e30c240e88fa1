"""How soon a kill is at the SDKs: from the kill on the board to its frame at the last of many streams.

    python -m bench.bench_delivery [--streams 100] [--kills 200] [--flags 100]

Beside it, in the same run, the floor: one raw HTTP call over loopback to the same server process. The server
runs in a process of its own; streams are raw sockets, so that no client library is measured. Both processes
read one machine's monotonic clock.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import structlog
import uvicorn
import uvloop
from litestar import Litestar

from controller.delivery import Doors, SdkKeyBook
from controller.domain.plan import FlagRef
from tests.support.sdk_door import KEY, SteppedClock, make_board, make_flag, make_key, raised

KILL_ID = "kill-bench"


def serve(flags: int, pipe: Connection) -> None:
    """The door in a process of its own; it answers a kill with the moment before it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    uvloop.run(_serve(flags, pipe))


async def _serve(flags: int, pipe: Connection) -> None:
    board, keys = make_board(), SdkKeyBook()
    keys.load([make_key()])
    board.load([raised(make_flag(f"flag-{number}"), 50_000) for number in range(flags)], [])
    app = Doors(board, keys, SteppedClock()).before(Litestar(openapi_config=None))
    config = uvicorn.Config(app, port=0, http="httptools", lifespan="off", log_config=None, access_log=False)
    server = AnnouncedServer(config, pipe)

    def on_command() -> None:
        verb, key = pipe.recv()
        flag = FlagRef(provider="main", environment="production", key=key)
        match verb:
            case "kill":
                pipe.send(time.monotonic_ns())
                board.hold_down(flag, KILL_ID)
            case "lift":
                board.lift(flag, KILL_ID)
            case "stop":
                board.close()
                server.should_exit = True

    asyncio.get_running_loop().add_reader(pipe.fileno(), on_command)
    await server.serve()


class AnnouncedServer(uvicorn.Server):
    """Tells its port once it listens."""

    def __init__(self, config: uvicorn.Config, pipe: Connection) -> None:
        super().__init__(config)
        self._pipe = pipe

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._pipe.send(self.servers[0].sockets[0].getsockname()[1])


@dataclass
class Stream:
    """One raw connection. `arrived` gets the time of the frame that turns the awaited flag off."""

    awaited: bytes = b""
    arrived: asyncio.Future[int] = field(default_factory=asyncio.Future)
    buffer: bytearray = field(default_factory=bytearray)

    async def run(self, port: int, ready: asyncio.Event) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /all HTTP/1.1\r\nHost: bench\r\nAuthorization: {KEY}\r\n\r\n".encode())
        while data := await reader.read(1 << 16):
            now = time.monotonic_ns()
            self.buffer += data
            while (end := self.buffer.find(b"\n\n")) >= 0:
                frame = bytes(self.buffer[: end + 2])
                del self.buffer[: end + 2]
                if b"event: put" in frame:
                    ready.set()
                elif self._awaits(frame):
                    self.arrived.set_result(now)
        writer.close()

    def _awaits(self, frame: bytes) -> bool:
        return not self.arrived.done() and self.awaited in frame and b'"on":false' in frame


async def measure(port: int, pipe: Connection, streams: int, kills: int, flags: int) -> dict[str, list[float]]:
    loop = asyncio.get_running_loop()
    connected = [(Stream(), asyncio.Event()) for _ in range(streams)]
    running = [asyncio.create_task(stream.run(port, ready)) for stream, ready in connected]
    await asyncio.gather(*(ready.wait() for _, ready in connected))
    first, last, floor = [], [], []
    for number in range(kills):
        key = f"flag-{number % flags}"
        for stream, _ in connected:
            stream.awaited, stream.arrived = f'"/flags/{key}"'.encode(), loop.create_future()
        pipe.send(("kill", key))
        times = await asyncio.gather(*(stream.arrived for stream, _ in connected))
        killed = pipe.recv()
        first.append((min(times) - killed) / 1e6)
        last.append((max(times) - killed) / 1e6)
        pipe.send(("lift", key))
        await asyncio.sleep(0.01)
        floor.append(await raw_call(port))
    pipe.send(("stop", ""))
    await asyncio.gather(*running)
    return {"first stream": first, "last stream": last, "floor: one raw HTTP call": floor}


async def raw_call(port: int) -> float:
    """OPTIONS is answered without any work of ours. A new connection each time, as after a pause."""
    began = time.monotonic_ns()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"OPTIONS /all HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()
    return (time.monotonic_ns() - began) / 1e6


def row(name: str, milliseconds: Sequence[float]) -> dict[str, object]:
    cuts = statistics.quantiles(milliseconds, n=100)
    return {"what": name, "p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2), "n": len(milliseconds)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--streams", type=int, default=100)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--flags", type=int, default=100)
    asked = options.parse_args()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(asked.flags, theirs))
    server.start()
    try:
        found = uvloop.run(measure(ours.recv(), ours, asked.streams, asked.kills, asked.flags))
    finally:
        server.join(timeout=10)
        if server.is_alive():
            server.kill()
    print(json.dumps({"streams": asked.streams, "flags": asked.flags, "cpus": os.cpu_count()}))
    for name, milliseconds in found.items():
        print(json.dumps(row(name, milliseconds)))


if __name__ == "__main__":
    main()
