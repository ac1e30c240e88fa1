"""Faults of what is measured, and of the code that is rolled out."""

import time

from tests.chaos.faults.scene import Act, Fault, Recoveries, Scene
from tests.chaos.shop import ILLNESSES, Illness
from tests.support.server import wait_until

RAISED = "SELECT count(*) FROM audit WHERE sequence > $1 AND body::json->>'action' IN ('start', 'advance')"
ACTIVE = "SELECT count(*) FROM runs WHERE plan = $1 AND active"


def application(illness: Illness) -> Act:
    def act(scene: Scene) -> Recoveries:
        scene.cluster.shop.ails(illness)
        scene.wait(1.0, 4.0)
        scene.cluster.shop.ails("")
        return _rising(scene)

    return act


def counters_reset(scene: Scene) -> Recoveries:
    scene.cluster.shop.restarts()
    return _rising(scene)


def _rising(scene: Scene) -> Recoveries:
    """From now until some rollout rises again."""
    sql, began = scene.cluster.sql, time.monotonic()
    head = sql.value("SELECT sequence FROM audit_head")
    wait_until(lambda: sql.value(RAISED, head), seconds=60, every=0.1, what="a rollout to rise again")
    return {"": time.monotonic() - began}


def flag_breaks(scene: Scene) -> Recoveries:
    """From its first error until it is off everywhere."""
    cluster = scene.cluster
    with scene.climbing_flag(below=100_000, quick=True) as flag:  # one at 100 % may be completed first
        if flag is None:
            return {}
        began = time.monotonic()
        cluster.shop.breaks(flag)
        try:
            wait_until(
                lambda: not cluster.sql.value(ACTIVE, flag), seconds=40, what=f"{flag}, which breaks, to be killed"
            )
            wait_until(lambda: scene.off_everywhere(flag), seconds=20, what=f"{flag} to be off everywhere")
        finally:
            cluster.shop.mends(flag)
        return {"": time.monotonic() - began}


FAULTS = (
    *(Fault(f"metrics {ill}", application(ill), 2, "for up to 4 s; until a rollout rises") for ill in ILLNESSES),
    Fault("counters reset", counters_reset, 2, "the application restarts; until a rollout rises"),
    Fault("flag breaks", flag_breaks, 15, "60 % errors; until off everywhere", alone=False),
)
