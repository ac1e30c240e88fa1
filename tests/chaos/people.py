"""The people of the chaos cluster: they start, kill, reset, pause and resume through whatever replica answers."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from typing import Any

from tests.chaos.cluster import Cluster, Replica
from tests.chaos.database import AWAY
from tests.chaos.ledger import Ledger, Promise

AT_ONCE = 4
ROUND_SECONDS = 0.4
ACTS_PER_ROUND = 5
PATIENCE_SECONDS = (1.0, 6.0)
"""How long a kill is left in force, a paused run paused and an ended one ended: different each time."""

WHIMS_PER_ROUND = 0.6
"""How often somebody does something to a rollout that needs nothing."""

ANSWER_SECONDS = 5.0

RUNS = """
SELECT DISTINCT ON (r.plan) r.plan, r.phase, (f.document->'data'->>'on')::boolean AS on
FROM runs r JOIN flag_configs f ON f.key = r.key ORDER BY r.plan, r.number DESC
"""
KILLS = "SELECT key, id FROM kills WHERE reset_at IS NULL"


class People:
    """Keep every plan's rollout going, again and again, and now and then interfere."""

    def __init__(self, cluster: Cluster, ledger: Ledger, chance: Random) -> None:
        self._cluster = cluster
        self._ledger = ledger
        self._chance = chance
        self._busy: set[str] = set()
        self._since: dict[str, tuple[str, float]] = {}
        self._working = threading.Event()
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="person")
        self._thread = threading.Thread(target=self._live, name="people", daemon=True)
        self._left_alone: set[str] = set()
        self._patience = {flag: chance.uniform(*PATIENCE_SECONDS) for flag in cluster.flags}
        self._acts = 0

    def start(self) -> None:
        self._working.set()
        self._thread.start()

    def rest(self, *, seconds: float = 30.0) -> None:
        """Do nothing more until `go_on`; returns when the last request was answered."""
        self._working.clear()
        deadline = time.monotonic() + seconds
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.02)

    def go_on(self) -> None:
        self._working.set()

    def close(self) -> None:
        self._ended.set()
        self._working.set()
        self._thread.join(timeout=10)
        self._pool.shutdown(cancel_futures=True)

    @contextmanager
    def leave_alone(self, flag: str) -> Iterator[None]:
        """Nobody but the caller does anything with it for the time of the block."""
        self._left_alone.add(flag)
        try:
            yield
        finally:
            self._left_alone.discard(flag)

    # — one person, one act —

    def kill(self, flag: str, replica: Replica, reason: str = "INC-1") -> Any:
        """The receipt, when there was an answer."""
        path = f"/api/v1/environments/production/flags/{flag}/kill"
        answer = replica.asked("POST", path, {"reason": reason}, seconds=ANSWER_SECONDS)
        self._ledger.count("kill", answer.status if answer else None)
        if answer is None or answer.status not in (200, 202):
            return None
        for receipt in answer.json["kills"]:
            self._ledger.killed(
                Promise(
                    kill_id=receipt["kill_id"],
                    flag=flag,
                    through=replica.number,
                    answered_at=time.monotonic(),
                    durable=receipt["durable"],
                    confirmed=receipt.get("confirmed_at") is not None,
                )
            )
        return answer.json["kills"][0]

    def reset(self, flag: str, kill_ids: list[str], replica: Replica) -> bool:
        self._ledger.asks_reset(kill_ids)
        path = f"/api/v1/environments/production/flags/{flag}/reset"
        body = {"kill_ids": kill_ids, "note": "looked at"}
        answer = replica.asked("POST", path, body, seconds=ANSWER_SECONDS)
        self._ledger.count("reset", answer.status if answer else None)
        return answer is not None and answer.status == 200

    def command(self, plan: str, verb: str, replica: Replica) -> int | None:
        """The status of the answer, if there was one."""
        body = {"note": "chaos"}
        answer = replica.asked("POST", f"/api/v1/plans/{plan}/{verb}", body, seconds=ANSWER_SECONDS)
        self._ledger.count(verb, answer.status if answer else None)
        return answer.status if answer else None

    # — everybody —

    def _live(self) -> None:
        while not self._ended.is_set():
            self._working.wait()
            with contextlib.suppress(*AWAY):  # nobody can read now how the rollouts stand
                self._round()
            time.sleep(ROUND_SECONDS)

    def _round(self) -> None:
        runs = {row["plan"]: row for row in self._cluster.sql.rows(RUNS, seconds=3.0)}
        kills: dict[str, list[str]] = {}
        for row in self._cluster.sql.rows(KILLS, seconds=3.0):
            kills.setdefault(row["key"], []).append(row["id"])
        self._acts = 0
        for flag in self._chance.sample(self._cluster.flags, len(self._cluster.flags)):
            if flag not in self._busy and flag not in self._left_alone:
                run = runs.get(flag)
                # An ended run may have left its flag on; then it must go before the next begins.
                over = run is None or (run["phase"] in ("killed", "abandoned") and not run["on"])
                self._needs(flag, run["phase"] if run and not over else "", kills.get(flag, []))
        if self._chance.random() < WHIMS_PER_ROUND:
            self._whim(runs)

    def _needs(self, flag: str, phase: str, kills: list[str]) -> None:
        """What keeps this rollout from going on, done by somebody after a while."""
        state = f"{phase} {sorted(kills)}"
        known, since = self._since.get(flag, ("", 0.0))
        if state != known:
            self._since[flag], since = (state, time.monotonic()), time.monotonic()
        waited = time.monotonic() - since
        if phase in ("pending", "progressing") and not kills:
            return
        if waited < self._patience[flag] or self._acts >= ACTS_PER_ROUND:
            return
        if kills:
            self._do(flag, lambda replica: self.reset(flag, kills, replica))
        elif not phase:
            self._do(flag, lambda replica: self.command(flag, "start", replica))
        elif phase in ("completed", "abandoned", "killed"):
            self._do(flag, lambda replica: self.kill(flag, replica, "the next rollout begins at 0 %"))
        else:
            verb = self._chance.choices(["resume", "step-back", "abandon"], [8, 1, 1])[0]
            self._do(flag, lambda replica: self.command(flag, verb, replica))

    def _whim(self, runs: dict[str, Any]) -> None:
        going = [p for p, r in runs.items() if r["phase"] == "progressing" and p not in self._left_alone]
        if not going:
            return
        flag = self._chance.choice(going)
        verb = self._chance.choice(["pause", "advance", "advance", "step-back", "kill"])
        if verb == "kill":
            self._do(flag, lambda replica: self.kill(flag, replica, "a whim"))
        else:
            self._do(flag, lambda replica: self.command(flag, verb, replica))

    def _do(self, flag: str, act: Callable[[Replica], object]) -> None:
        if flag in self._busy:
            return
        self._busy.add(flag)
        self._acts += 1
        self._since.pop(flag, None)
        self._patience[flag] = self._chance.uniform(*PATIENCE_SECONDS)
        replica = self._chance.choice(self._cluster.replicas)

        def run() -> None:
            try:
                act(replica)
            finally:
                self._busy.discard(flag)

        self._pool.submit(run)
