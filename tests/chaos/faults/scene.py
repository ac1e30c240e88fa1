"""Where a fault strikes, and what every kind of fault has in common."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random

from msgspec import Struct

from tests.chaos import plans
from tests.chaos.cluster import Cluster, Replica
from tests.chaos.database import AWAY
from tests.chaos.history import History
from tests.chaos.people import People
from tests.chaos.witness import exposes, served

CLIMBING = """
SELECT plan FROM runs WHERE phase = 'progressing' AND (state->>'confirmed_exposure')::bigint > 0
AND (state->>'exposure')::bigint < $1 ORDER BY plan
"""

Recoveries = Mapping[str, float]
"""Seconds by what was measured; the empty name is what the table is about. Empty: there was nothing to strike."""


class Scene(Struct, kw_only=True):
    """A running cluster, and the chance that decides the details."""

    cluster: Cluster
    people: People
    history: History
    chance: Random

    @property
    def replica(self) -> Replica:
        return self.chance.choice(self.cluster.replicas)

    def others(self, replica: Replica) -> list[Replica]:
        return [one for one in self.cluster.replicas if one is not replica]

    def wait(self, least: float, most: float) -> None:
        """As long as a fault lasts."""
        time.sleep(self.chance.uniform(least, most))

    def ticking(self, *replicas: Replica) -> Recoveries:
        """From now, when it is over, until these replicas, or all, are ready and have looked for runs."""
        began = time.monotonic()
        self.cluster.wait_ticking(replicas or self.cluster.replicas)
        return {"": time.monotonic() - began}

    @contextmanager
    def climbing_flag(self, *, below: int = 100_001, quick: bool = False) -> Iterator[str | None]:
        """A flag whose run is climbing, if there is one; people leave it alone for the time of the block."""
        found: list[str] = []
        with contextlib.suppress(*AWAY):
            found = [row["plan"] for row in self.cluster.sql.rows(CLIMBING, below, seconds=3.0)]
        found = [flag for flag in found if plans.pace(flag) is plans.QUICK] if quick else found
        if not found:
            yield None
            return
        flag = self.chance.choice(found)
        with self.people.leave_alone(flag):
            yield flag

    def off_everywhere(self, flag: str) -> bool:
        shown = [served(replica, self.cluster.sdk_key) for replica in self.cluster.replicas]
        return all(one is not None and not exposes(one[flag]) for one in shown)


Act = Callable[[Scene], Recoveries]


class Fault(Struct, frozen=True):
    """`weight`: its share of the schedule. `limit`: the most a recovery may take, in seconds, if promised.

    `act` raises AssertionError when the cluster did not recover in time, or did what it must not. `alone`: not
    together with others, because they would meddle with what is measured, or because it starts processes.
    """

    name: str
    act: Act
    weight: int
    does: str
    limit: float | None = None
    alone: bool = True
