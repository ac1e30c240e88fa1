"""A TCP proxy whose network can be made as bad as it gets, for one way between two parts."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Direction = Literal["up", "down"]
BOTH: frozenset[Direction] = frozenset({"up", "down"})
CHUNK = 65_536
LINGER_NOT = struct.pack("ii", 1, 0)
"""Closing a socket with this option set sends RST, not FIN."""


class Network:
    """One event loop in a thread of its own, in which all proxies live."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def close(self) -> None:
        with contextlib.suppress(CancelledError):
            self.run(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class Proxy:
    """Listens on a loopback port and leads to `target`. Every method may be called from any thread.

    What is held back by `hold` is not lost but late, as over TCP: it is delivered when the network heals, unless
    the connection was given up by then.
    """

    def __init__(self, network: Network, target: int) -> None:
        self.target = target
        self.port = 0
        self._network = network
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._latency = 0.0
        self._open: dict[Direction, asyncio.Event] = {}
        network.run(self._begin())

    # — faults —

    def delay(self, seconds: float) -> None:
        """Each chunk, in each direction, takes so much longer."""
        self._latency = seconds

    def hold(self, directions: frozenset[Direction] = BOTH) -> None:
        """A black hole, or with one direction a half-open connection. New connections are accepted, and mute."""
        self._network.run(self._hold(directions))

    def reset(self) -> int:
        """RST on every open connection, to both sides; returns how many there were."""
        return self._network.run(self._reset())

    def refuse(self) -> None:
        """Nobody listens any more, and what was open is reset."""
        self._network.run(self._refuse())

    def lead_to(self, target: int) -> None:
        """From now on to another port; what was open is reset."""
        self.target = target
        self.reset()

    def heal(self) -> None:
        self._latency = 0.0
        self._network.run(self._heal())

    def close(self) -> None:
        self._network.run(self._end())

    # — in the network's event loop —

    async def _begin(self) -> None:
        for direction in BOTH:
            self._open[direction] = asyncio.Event()
        await self._heal()

    async def _hold(self, directions: frozenset[Direction]) -> None:
        for direction in directions:
            self._open[direction].clear()

    async def _heal(self) -> None:
        for event in self._open.values():
            event.set()
        if self._server is None:
            # The same port as before, so that whoever knows the address finds it again.
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _reset(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset()

    async def _end(self) -> None:
        await self._refuse()
        for event in self._open.values():
            event.set()  # what was held back has nowhere to go, and its task ends

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(reader, writer)
        self._links.add(link)
        try:
            # A handshake needs both directions.
            await self._passable("up")
            await self._passable("down")
            await link.connect(self.target)
            pumps = [asyncio.ensure_future(self._pump(link, way)) for way in BOTH]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
        except OSError:
            link.reset()  # the target refuses, and so do we
        finally:
            self._links.discard(link)
            link.close()

    async def _passable(self, direction: Direction) -> None:
        await self._open[direction].wait()
        if self._latency:
            await asyncio.sleep(self._latency)

    async def _pump(self, link: "_Link", direction: Direction) -> None:
        reader, writer = link.way(direction)
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._passable(direction)
                writer.write(data)
                await writer.drain()
            # The end, too, arrives only where something can arrive.
            await self._passable(direction)


class _Link:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._near = (reader, writer)
        self._far: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self, port: int) -> None:
        self._far = await asyncio.open_connection("127.0.0.1", port)

    def way(self, direction: Direction) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert self._far is not None
        near, far = self._near, self._far
        return (near[0], far[1]) if direction == "up" else (far[0], near[1])

    def reset(self) -> None:
        for _, writer in filter(None, (self._near, self._far)):
            sock: socket.socket | None = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            writer.transport.abort()

    def close(self) -> None:
        for _, writer in filter(None, (self._near, self._far)):
            writer.close()
