"""Faults of replicas."""

import contextlib
import signal
import time

from controller.faultpoints import POINTS
from tests.chaos.cluster import LEASE_SECONDS, Replica
from tests.chaos.faults.scene import Act, Fault, Recoveries, Scene
from tests.support.server import wait_until

TAKEOVER_SECONDS = LEASE_SECONDS + 1.0
MISSED = "(lease_expires_at > clock_timestamp() OR next_check_at <= clock_timestamp())"
"""Still leased to it, or due and looked at by nobody. One that is not due yet is nobody's, and misses nothing."""


def replica_killed(scene: Scene) -> Recoveries:
    """kill -9; recovered when each run that it held has another owner."""
    victim, held = _holder(scene)
    victim.kill()
    return _taken_over(scene, victim, held, time.monotonic())


def _holder(scene: Scene) -> tuple[Replica, list[str]]:
    """A replica that holds runs, and those; one that holds none leaves nothing to take over."""
    for replica in scene.chance.sample(scene.cluster.replicas, len(scene.cluster.replicas)):
        if held := scene.cluster.leases_of(replica):
            return replica, held
    return replica, []


def replica_killed_at(point: str) -> Act:
    def act(scene: Scene) -> Recoveries:
        victim = scene.replica
        victim.stop()
        passing = scene.chance.randint(1, 3 if point.startswith("journal") else 30)
        victim.start(env={"RAMPART_FAULT": f"{point}:{passing}:self"}, wait_ready=False)
        with contextlib.suppress(AssertionError):  # it may die before that
            victim.wait_ready()
            scene.cluster.deal_leases_anew()

        def struck() -> bool:
            if victim.alive() and point.startswith("journal") and scene.cluster.leases_of(victim):
                with scene.climbing_flag() as flag:
                    _ = flag and scene.people.kill(flag, victim, "to be written down")
            return not victim.alive()

        wait_until(struck, seconds=60, every=0.02, what=f"replica {victim.number} to die at {point}")
        died = time.monotonic()
        victim.kill()
        return _taken_over(scene, victim, scene.cluster.leases_of(victim), died)

    return act


def _taken_over(scene: Scene, victim: Replica, held: list[str], died: float) -> Recoveries:
    owner = victim.name.replace("_", r"\_") + "/%"
    query = "SELECT count(*) FROM runs WHERE active AND id = ANY($1::text[]) AND lease_owner LIKE $2 AND " + MISSED
    wait_until(
        lambda: scene.cluster.sql.value(query, held, owner) == 0, seconds=30, every=0.02,
        what=f"the {len(held)} runs of replica {victim.number} to be taken over",
    )  # fmt: skip
    taken = time.monotonic() - died
    victim.start()
    scene.cluster.wait_ticking()
    scene.cluster.wait_raises_allowed()
    scene.cluster.deal_leases_anew()
    return {"": taken} if held else {}


def replica_restarted(scene: Scene) -> Recoveries:
    victim, held = _holder(scene)
    code = victim.stop()
    assert code == 0, f"replica {victim.number} ended with {code}: {victim.tail(1000)}"
    return _taken_over(scene, victim, held, time.monotonic())


def replica_suspended(scene: Scene) -> Recoveries:
    """It wakes up with leases, decisions and reads that are all too old."""
    victim = scene.replica
    victim.signal(signal.SIGSTOP)
    scene.wait(LEASE_SECONDS + 0.5, LEASE_SECONDS + 4.0)
    victim.signal(signal.SIGCONT)
    return scene.ticking()


def all_killed(scene: Scene) -> Recoveries:
    """Every replica at once; measured from the first start until all of them tick."""
    for replica in scene.cluster.replicas:
        replica.kill()
    began = time.monotonic()
    for replica in scene.cluster.replicas:
        replica.start(wait_ready=False)
    scene.cluster.wait_ticking()
    scene.cluster.wait_raises_allowed()
    return {"": time.monotonic() - began}


def all_killed_and_postgres(scene: Scene) -> Recoveries:
    for replica in scene.cluster.replicas:
        replica.kill()
    scene.cluster.postgres.end(signal.SIGQUIT)
    began = time.monotonic()
    for replica in scene.cluster.replicas:
        replica.start(wait_ready=False)
    time.sleep(1.0)  # they come up without a database
    scene.cluster.postgres.start()
    scene.cluster.wait_ticking()
    scene.cluster.wait_raises_allowed()
    return {"": time.monotonic() - began}


FAULTS = (
    Fault("replica killed", replica_killed, 20, "kill -9, until others hold its runs", TAKEOVER_SECONDS),
    *(
        Fault(
            f"killed at {point}", replica_killed_at(point), 1, "kill -9 there, until taken over", TAKEOVER_SECONDS
        )
        for point in POINTS
    ),
    Fault("replica restarted", replica_restarted, 8, "SIGTERM, until taken over", TAKEOVER_SECONDS),
    Fault("replica suspended", replica_suspended, 10, "SIGSTOP beyond its lease, then SIGCONT"),
    Fault("all replicas killed", all_killed, 1, "kill -9 of all, until all tick again"),
    Fault("everything killed", all_killed_and_postgres, 1, "PostgreSQL, too, which starts last"),
)
