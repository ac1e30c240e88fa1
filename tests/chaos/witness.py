"""Looks at what SDKs are served, by every replica, all the time: a flag that is promised off must be off."""

import contextlib
import http.client
import threading
import time
from typing import Any

import msgspec

from tests.chaos.cluster import Cluster, Replica
from tests.chaos.ledger import Ledger, Promise

LOOK_SECONDS = 0.7
FULL = 100_000


def exposure(data: dict[str, Any]) -> int:
    """What share an SDK would give the rollout variation, in thousandths of a percent."""
    if not data["on"]:
        return 0
    off, default = data["offVariation"], data["fallthrough"]
    if "rollout" not in default:
        return 0 if default["variation"] == off else FULL
    weights: list[dict[str, int]] = default["rollout"]["variations"]
    return FULL - sum(one["weight"] for one in weights if one["variation"] == off)


def exposes(data: dict[str, Any]) -> bool:
    audience = any(rule.get("variation") != data["offVariation"] for rule in data["rules"])
    return bool(data["on"]) and (exposure(data) > 0 or audience)


def served(replica: Replica, sdk_key: str, *, seconds: float = 3.0) -> dict[str, Any] | None:
    """Every flag as this replica gives it to SDKs; None when it gives none."""
    connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=seconds)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/sdk/latest-all", headers={"Authorization": sdk_key})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return None
    flags: dict[str, Any] = msgspec.json.decode(body)["flags"] if response.status == 200 else {}
    return flags or None


class Witness:
    """One thread per replica. What it saw broken is in the ledger."""

    def __init__(self, cluster: Cluster, ledger: Ledger) -> None:
        self._cluster = cluster
        self._ledger = ledger
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.looks = 0

    def start(self) -> None:
        for replica in self._cluster.replicas:
            thread = threading.Thread(
                target=self._look, args=(replica,), name=f"witness-{replica.number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=10)

    def _look(self, replica: Replica) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            promised = [one for one in self._ledger.in_force() if one.confirmed or one.through == replica.number]
            flags = served(replica, self._cluster.sdk_key) if promised else None
            if flags is None:
                continue
            self.looks += 1
            for promise in promised:
                if exposes(flags[promise.flag]) and self._ledger.still_in_force(promise):
                    self._ledger.breaks(_told(promise, replica, flags[promise.flag]))


def _told(promise: Promise, replica: Replica, data: dict[str, Any]) -> str:
    ago = time.monotonic() - promise.answered_at
    sure = "confirmed" if promise.confirmed else "accepted"
    return (
        f"replica {replica.number} served {promise.flag} at {exposure(data) / 1000:g} % {ago:.2f} s after "
        f"{promise.kill_id} was answered as {sure} by replica {promise.through}"
    )
