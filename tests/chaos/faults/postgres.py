"""Faults of PostgreSQL."""

import asyncio
import contextlib
import os
import signal
import time

import asyncpg

from tests.chaos.cluster import Cluster
from tests.chaos.database import AWAY, SESSION
from tests.chaos.faults.scene import Fault, Recoveries, Scene
from tests.support.server import wait_until

RESTART_SECONDS = 2.0
DISK_FULL = "disk full"
OURS = "application_name LIKE 'rampart%' AND datname = current_database()"
RECORDED = "SELECT true FROM kills WHERE id = $1"
STANDBY_LACKS = 5
"""At least so many audit rows."""


def backends_terminated(scene: Scene) -> Recoveries:
    scene.cluster.sql.rows(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
    return scene.ticking()


def backend_killed(scene: Scene) -> Recoveries:
    """SIGKILL of one backend: PostgreSQL throws all of them out and recovers from its log."""
    pids = [row["pid"] for row in scene.cluster.sql.rows(f"SELECT pid FROM pg_stat_activity WHERE {OURS}")]
    if not pids:
        return {}
    os.kill(scene.chance.choice(pids), signal.SIGKILL)
    wait_until(lambda: not _answers(scene.cluster), seconds=30, every=0.005, what="PostgreSQL to notice")
    return _since_it_answered(scene)


def _answers(cluster: Cluster) -> bool:
    with contextlib.suppress(*AWAY):
        return bool(cluster.sql.value("SELECT true", seconds=1.0))
    return False


def postgres_restarted(scene: Scene) -> Recoveries:
    scene.cluster.postgres.end(signal.SIGQUIT)
    scene.cluster.postgres.start(wait=False)
    return _since_it_answered(scene)


def postgres_away(scene: Scene) -> Recoveries:
    scene.cluster.postgres.end(signal.SIGQUIT)
    scene.wait(1.0, 6.0)
    scene.cluster.postgres.start(wait=False)
    return _since_it_answered(scene)


def _since_it_answered(scene: Scene) -> Recoveries:
    answered = scene.cluster.postgres.wait_answers()
    scene.cluster.wait_ticking()
    ticking = time.monotonic() - answered
    scene.cluster.wait_raises_allowed()
    return {"": ticking, "raises allowed": time.monotonic() - answered}


def postgres_frozen(scene: Scene) -> Recoveries:
    with scene.cluster.postgres.frozen():
        scene.wait(0.5, 4.0)
    return scene.ticking()


def read_only(scene: Scene) -> Recoveries:
    with scene.cluster.postgres.configured("default_transaction_read_only", "on"):
        scene.wait(0.5, 3.0)
    return scene.ticking()


def serialization_failures(scene: Scene) -> Recoveries:
    with scene.cluster.postgres.configured("default_transaction_isolation", "serializable"):
        scene.wait(1.0, 3.0)
    return scene.ticking()


def disk_full(scene: Scene) -> Recoveries:
    assert scene.cluster.ground.small
    with scene.cluster.ground.full():
        scene.wait(2.0, 4.0)
    if scene.cluster.postgres.ended():  # it gives up when it cannot write its log
        scene.cluster.postgres.start(wait=False)
    return _since_it_answered(scene)


def head_locked(scene: Scene) -> Recoveries:
    """All pools fill up, and everything runs into its timeout."""
    seconds = scene.chance.uniform(1.0, 4.0)

    async def hold() -> None:
        connection = await asyncpg.connect(scene.cluster.postgres.dsn, server_settings=SESSION)
        async with connection.transaction():
            await connection.execute("LOCK TABLE audit_head IN EXCLUSIVE MODE")
            await asyncio.sleep(seconds)
        await connection.close()

    asyncio.run(hold())
    return scene.ticking()


def failover(scene: Scene) -> Recoveries:
    """To a standby that lacks the last commits: nothing rises until a person has released it."""
    cluster = scene.cluster
    with cluster.lagging_standby() as (standby, hold):
        scene.history.read()
        hold()
        rows = len(scene.history)
        killed = _killed_meanwhile(scene)
        wait_until(
            lambda: _head(cluster) >= rows + STANDBY_LACKS, seconds=20, what="commits that the standby will lack"
        )
        scene.history.read()
        answered = cluster.fail_over_to(standby)
    cluster.wait_ticking()
    ticking = time.monotonic() - answered
    for kill_id in killed:
        assert cluster.sql.value(RECORDED, kill_id), f"{kill_id}, lost with the primary, was not recorded again"
    lost = scene.history.rewind()
    assert lost, "the standby lacked nothing"
    wait_until(cluster.barriers, seconds=20, what="raises to be blocked, since history was lost")
    cluster.release_raises()
    cluster.wait_raises_allowed()
    return {"": ticking, "raises allowed": time.monotonic() - answered}


def _killed_meanwhile(scene: Scene) -> list[str]:
    """A kill that the dying primary records and the standby will lack, if there is a flag to kill."""
    with scene.climbing_flag() as flag:
        receipt = scene.people.kill(flag, scene.replica, "just before the failover") if flag else None
    if receipt is None:
        return []
    kill_id: str = receipt["kill_id"]
    wait_until(lambda: scene.cluster.sql.value(RECORDED, kill_id), seconds=20, what=f"{kill_id} to be recorded")
    return [kill_id]


def _head(cluster: Cluster) -> int:
    return int(cluster.sql.value("SELECT sequence FROM audit_head"))


FAULTS = (
    Fault("backends terminated", backends_terminated, 200, "pg_terminate_backend on all of them", alone=False),
    Fault("backend killed", backend_killed, 15, "SIGKILL: all are thrown out", RESTART_SECONDS),
    Fault("PostgreSQL restarted", postgres_restarted, 25, "immediate shutdown, and start", RESTART_SECONDS),
    Fault("PostgreSQL away", postgres_away, 8, "immediate shutdown, start 1 to 6 s later", RESTART_SECONDS),
    Fault("PostgreSQL frozen", postgres_frozen, 12, "SIGSTOP of all its processes for up to 4 s"),
    Fault("failover", failover, 3, "to a standby that lacks the last commits"),
    Fault("read-only", read_only, 10, "default_transaction_read_only for up to 3 s"),
    Fault(DISK_FULL, disk_full, 3, "no byte is free for up to 4 s"),
    Fault("serialization failures", serialization_failures, 10, "all is serializable for up to 3 s"),
    Fault("pools exhausted", head_locked, 12, "the lock that commits need is held for up to 4 s"),
)
