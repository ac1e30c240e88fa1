"""One course of faults: start the cluster, strike again and again, and look at everything in between."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random

from msgspec.structs import replace

from controller import __version__
from tests.chaos.cluster import LEASE_SECONDS, REPLICAS, Cluster
from tests.chaos.database import AWAY
from tests.chaos.faults.postgres import DISK_FULL
from tests.chaos.faults.scene import Fault, Scene
from tests.chaos.history import History
from tests.chaos.ledger import Ledger
from tests.chaos.people import People
from tests.chaos.plans import QUICK
from tests.chaos.report import Outcome, Report
from tests.chaos.witness import Witness, exposes, exposure, served
from tests.support.server import wait_until

CALM_EVERY = 50
"""After so many faults everybody rests for a moment, and everything is compared."""

CONVERGENCE_SECONDS = 2 * QUICK.every + LEASE_SECONDS
TOO_MANY = 10
"""After so many failures the rest of the course would only say the same again."""

Say = Callable[[str], None]


class Course:
    def __init__(self, folder: Path, *, seed: int, rollouts: int, say: Say, mount: bool = True) -> None:
        """`mount`: a small file system, where we may; a disk that is full has to be a small one."""
        self._seed = seed
        self._say = say
        self.cluster = Cluster(folder, [f"flag-{number:03}" for number in range(rollouts)], mount=mount)
        self._ledger = Ledger()
        self._history = History(self.cluster.sql)
        self._people = People(self.cluster, self._ledger, Random(f"{seed} people"))
        self._witness = Witness(self.cluster, self._ledger)
        self._outcomes: list[Outcome] = []
        self._problems: list[str] = []

    def run(self, strikes: Sequence[Sequence[Fault]]) -> Report:
        began = time.monotonic()
        with ExitStack() as ends:
            ends.callback(self.cluster.close)
            self.cluster.start()
            self._people.start()
            ends.callback(self._people.close)
            self._witness.start()
            ends.callback(self._witness.close)
            self._warm_up()
            self._strike_all(strikes)
        return self._report(sum(map(len, strikes)), time.monotonic() - began)

    def _strike_all(self, strikes: Sequence[Sequence[Fault]]) -> None:
        step, steps = 0, sum(map(len, strikes))
        try:
            for together in strikes:
                self._strike(step + 1, together, steps)
                before, step = step, step + len(together)
                if step // CALM_EVERY > before // CALM_EVERY:
                    self._compare(step)
                if self._failures() >= TOO_MANY:
                    self._say("too many failures; the rest is left out")
                    break
        except KeyboardInterrupt:
            self._say("interrupted; the rest is left out")
            self.cluster.restore()
        self._compare(step)

    def _warm_up(self) -> None:
        rising = (
            "SELECT count(*) FROM runs WHERE phase = 'progressing' AND (state->>'confirmed_exposure')::bigint > 0"
        )
        some = len(self.cluster.flags) // 2
        wait_until(lambda: self.cluster.sql.value(rising) >= some, seconds=120, every=0.2, what="rollouts to rise")
        self._say(f"{len(self.cluster.flags)} rollouts on {REPLICAS} replicas; PostgreSQL " + self._disk())

    def _disk(self) -> str:
        ground = self.cluster.ground
        return "has a small disk of its own" if ground.small else f"has no small disk: {ground.why_not_small}"

    # — one fault, or a few at once —

    def _strike(self, first: int, faults: Sequence[Fault], steps: int) -> None:
        if len(faults) == 1:
            outcomes = [self._outcome(first, faults[0])]  # in this thread, because processes it starts end with it
        else:
            with ThreadPoolExecutor(len(faults)) as at_once:
                outcomes = list(at_once.map(self._outcome, range(first, first + len(faults)), faults))
        problem = self._aftermath()
        if problem:
            outcomes[-1] = replace(outcomes[-1], problem=outcomes[-1].problem or problem)
        if any(outcome.problem for outcome in outcomes):
            self.cluster.restore()
        self._outcomes += outcomes
        for one in outcomes:
            told = ", ".join(f"{name or 'recovered'} {seconds:.2f} s" for name, seconds in one.recoveries.items())
            told = one.problem or one.late or one.left_out or told or "nothing to do"
            self._say(f"{one.step}/{steps} {one.fault}: {told}")

    def _outcome(self, step: int, fault: Fault) -> Outcome:
        if fault.name == DISK_FULL and not self.cluster.ground.small:
            return Outcome(step=step, fault=fault.name, left_out=self.cluster.ground.why_not_small)
        scene = Scene(
            cluster=self.cluster, people=self._people, history=self._history,
            chance=Random(f"{self._seed} {step} {fault.name}"),
        )  # fmt: skip
        try:
            recoveries = dict(fault.act(scene))
        except Exception as error:  # noqa: BLE001 - whatever it was, the table must say so and the course go on
            return Outcome(step=step, fault=fault.name, problem=_told(error))
        late = ""
        if fault.limit is not None and recoveries.get("", 0.0) > fault.limit:
            late = f"after {recoveries['']:.2f} s, promised within {fault.limit:g} s"
        return Outcome(step=step, fault=fault.name, recoveries=recoveries, late=late)

    def _aftermath(self) -> str:
        """What the database says after a fault that it must never say; empty when all is well."""
        try:
            self._history.read()
            barriers = self.cluster.barriers()
            if barriers:  # a failover has released its own
                self.cluster.release_raises()
        except (AssertionError, *AWAY) as error:
            return _told(error)
        return f"raises were blocked: {'; '.join(barriers)}" if barriers else ""

    def _failures(self) -> int:
        return len(self._problems) + sum(bool(one.problem) for one in self._outcomes)

    # — everything compared —

    def _compare(self, step: int) -> None:
        self._people.rest()
        try:
            self._history.read()
            found = self._history.problems()
            found += self._agreement()
            found += self._missing_kills()
        except (AssertionError, *AWAY) as error:
            found = [_told(error)]
        found += self._ledger.broken
        self._ledger.broken.clear()
        self._problems += [f"step {step}: {one}" for one in found]
        self._say(f"all compared: {len(self._history)} audit rows, {self._ledger.total()} kills answered")
        for one in found:
            self._say(f"BROKEN: {one}")
        self._people.go_on()

    def _agreement(self) -> list[str]:
        """What is still not the same everywhere when it should be."""
        deadline = time.monotonic() + CONVERGENCE_SECONDS
        while (found := self._disagreements()) and time.monotonic() < deadline:
            time.sleep(0.3)
        return found

    def _missing_kills(self) -> list[str]:
        stored = {row["id"] for row in self.cluster.sql.rows("SELECT id FROM kills WHERE reset_at IS NULL")}
        return [
            f"{one.kill_id} of {one.flag}, answered by replica {one.through} and never reset, is not in force"
            for one in self._ledger.in_force()
            if one.kill_id not in stored
        ]

    def _disagreements(self) -> list[str]:
        """Flags that a replica serves otherwise than they are stored, or that are stored too high."""
        shown = {replica.number: served(replica, self.cluster.sdk_key) for replica in self.cluster.replicas}
        found = [f"replica {number} serves nothing" for number, flags in shown.items() if flags is None]
        for row in self.cluster.sql.rows(STORED):
            stored = json.loads(row["data"])
            share = 0 if row["killed"] or not exposes(stored) else exposure(stored)
            if row["committed"] is not None and share > row["committed"]:
                found.append(f"{row['key']} is stored at {share}, committed is {row['committed']}")
            for number, flags in shown.items():
                if flags is not None and exposure(flags[row["key"]]) != share:
                    found.append(
                        f"replica {number} serves {row['key']} at {exposure(flags[row['key']])}, not {share}"
                    )
        return found

    def _report(self, planned: int, seconds: float) -> Report:
        return Report(
            seed=self._seed,
            planned=planned,
            version=__version__,
            replicas=REPLICAS,
            rollouts=len(self.cluster.flags),
            lease_seconds=LEASE_SECONDS,
            seconds=seconds,
            outcomes=self._outcomes,
            transitions=self._history.transitions(),
            audit_rows=len(self._history),
            lost=self._history.lost,
            kills_answered=self._ledger.total(),
            looks=self._witness.looks,
            answers=dict(self._ledger.answers),
            problems=self._problems,
        )


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:3000]


# Under a kill a flag is off, whatever is stored. `committed` is null when no run turns it any more.
STORED = """
SELECT f.key, f.document->>'data' AS data,
    EXISTS (SELECT FROM kills k WHERE k.key = f.key AND k.reset_at IS NULL) AS killed,
    (SELECT (r.state->>'exposure')::bigint FROM runs r WHERE r.key = f.key AND r.active) AS committed
FROM flag_configs f
"""
