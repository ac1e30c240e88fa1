"""Many rollouts on one server, each a built-in flag with its plan, held at the first stage; and kills of them."""

import json
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tests.support import manifests
from tests.support.exposition import Exposition, Traffic
from tests.support.server import RampartServer, wait_until

FILES_PER_REQUEST = 100
STARTS_AT_ONCE = 4


def keys(count: int) -> list[str]:
    return [f"flag-{number:04}" for number in range(count)]


@contextmanager
def scraped(flags: Sequence[str]) -> Iterator[str]:
    """The address of healthy metrics for all these flags, from a process of their own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_expose, args=(list(flags), theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def _expose(flags: Sequence[str], pipe: Connection) -> None:
    app = Exposition({flag: {"on": Traffic(), "off": Traffic()} for flag in flags})
    pipe.send(app.url)
    pipe.recv()  # until we are killed


def apply_flags(server: RampartServer, flags: Iterable[str], *, client_side: bool = False) -> None:
    _apply(server, [(f"{key}.flag.yaml", manifests.flag(key, client_side=client_side)) for key in flags])


def apply_plans(server: RampartServer, flags: Iterable[str]) -> None:
    _apply(server, [(f"{key}.rollout.yaml", manifests.plan(key, bake="8h")) for key in flags])


def _apply(server: RampartServer, files: Sequence[tuple[str, str]]) -> None:
    for first in range(0, len(files), FILES_PER_REQUEST):
        some = files[first : first + FILES_PER_REQUEST]
        body = {"files": [{"name": name, "text": text} for name, text in some]}
        answer = server.request("POST", "/api/v1/manifests", body, timeout=120.0)
        assert answer.status == 200, answer.body.decode()[:2000]


def start(server: RampartServer, plans: Sequence[str]) -> None:
    with ThreadPoolExecutor(STARTS_AT_ONCE) as pool:
        list(pool.map(lambda plan: server.command(plan, "start"), plans))


def wait_progressing(server: RampartServer, plans: Sequence[str], *, seconds: float) -> None:
    """Until every run is at its first stage, seen to serve it, and remembered on disk as serving it."""

    def there() -> bool:
        now = {one["plan"]: one for one in server.call("GET", "plans")}
        return all(now[plan]["phase"] == "progressing" and now[plan]["observed_exposure"] for plan in plans)

    def remembered() -> bool:
        known = json.loads((server.data / "last-known.json").read_bytes())
        return bool(sum(flag["data"]["on"] for flag in known["flags"]) == len(plans))

    wait_until(there, seconds=seconds, every=0.5, what=f"{len(plans)} runs to be at their first stage")
    wait_until(remembered, every=0.2, what="the last known state to hold them")


class Kill(NamedTuple):
    """One kill as its caller sees it. Times are seconds of the monotonic clock."""

    key: str
    asked_at: float
    answered_at: float
    receipt: Any

    @property
    def id(self) -> str:
        return str(self.receipt["kill_id"])


def kill(server: RampartServer, key: str, reason: str = "INC-1", *, confirmed: bool = True) -> Kill:
    """`confirmed`: fails unless the answer says that it was read back as off."""
    path = f"/api/v1/environments/production/flags/{key}/kill"
    token = server.token
    asked_at = time.monotonic()
    answer = server.request("POST", path, {"reason": reason}, token=token)
    answered_at = time.monotonic()
    assert answer.status in ({200} if confirmed else {200, 202}), answer.body.decode()[:2000]
    return Kill(key, asked_at, answered_at, answer.json["kills"][0])
