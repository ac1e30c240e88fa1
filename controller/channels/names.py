"""What host names lead to, asked in a thread of each channel's own.

A name server that hangs holds up the thread that asks it, whatever deadline the caller has. The threads that the
process shares are needed by kills.
"""

import asyncio
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult


class OwnResolver(AbstractResolver):
    def __init__(self, channel: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"resolve-{channel}")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        )
        return [
            ResolveResult(
                hostname=host, host=str(target[0]), port=int(target[1]), family=kind, proto=protocol, flags=0
            )
            for kind, _, protocol, _, target in found
        ]

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


async def connected(found: Iterable[ResolveResult]) -> socket.socket:
    """To the first of them that answers. Raises OSError."""
    problem: OSError = OSError("the name leads nowhere")
    for one in found:
        sock = socket.socket(one["family"], socket.SOCK_STREAM, one["proto"])
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (one["host"], one["port"]))
        except OSError as error:
            problem = error
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise problem
