"""Faults that people make: everything at once, through every replica, and past Rampart."""

import time
from concurrent.futures import ThreadPoolExecutor

from tests.chaos.faults.scene import Fault, Recoveries, Scene
from tests.chaos.witness import exposure, served
from tests.support.server import wait_until

RAISE_BY_HAND = """
UPDATE flag_configs SET version = version + 1, document = jsonb_set(jsonb_set(jsonb_set(document::jsonb,
    '{version}', to_jsonb(version + 1)), '{data,version}', to_jsonb(version + 1)),
    '{data,fallthrough}', '{"variation": 0}')::json
WHERE key = $1
"""
HALTED = "SELECT phase IN ('paused', 'killed') FROM runs WHERE plan = $1 ORDER BY number DESC LIMIT 1"
COMMITTED = "SELECT (state->>'exposure')::bigint FROM runs WHERE plan = $1 ORDER BY number DESC LIMIT 1"


def kill_in_a_crowd(scene: Scene) -> Recoveries:
    """From the request until the flag is off everywhere, while others raise it through the other replicas."""
    victim = scene.replica
    with scene.climbing_flag() as flag:
        if flag is None:
            return {}
        began = time.monotonic()
        with ThreadPoolExecutor(4) as crowd:
            for other in scene.others(victim):
                for verb in ("advance", "resume"):
                    crowd.submit(scene.people.command, flag, verb, other)
            receipt = scene.people.kill(flag, victim, "in a crowd")
            assert receipt is not None, f"replica {victim.number} did not answer a kill"
            wait_until(
                lambda: scene.off_everywhere(flag), seconds=20, every=0.05, what=f"{flag} to be off everywhere"
            )
            seconds = time.monotonic() - began
        return {"": seconds}


def commands_at_once(scene: Scene) -> Recoveries:
    """Each is done once, or refused; the versions and the table of transitions show it."""
    with scene.climbing_flag() as flag:
        if flag is None:
            return {}
        began = time.monotonic()
        with ThreadPoolExecutor(6) as crowd:
            for replica in scene.cluster.replicas:
                for verb in scene.chance.sample(["pause", "resume", "advance", "step-back"], 2):
                    crowd.submit(scene.people.command, flag, verb, replica)
        return {"": time.monotonic() - began}


def flag_changed_by_hand(scene: Scene) -> Recoveries:
    """Lowered again and paused, unless a kill was faster."""
    cluster = scene.cluster
    with scene.climbing_flag(below=50_000, quick=True) as flag:
        if flag is None:
            return {}
        began = time.monotonic()
        cluster.sql.rows(RAISE_BY_HAND, flag)
        wait_until(
            lambda: cluster.sql.value(HALTED, flag), seconds=30, what=f"{flag}, raised by hand, to be paused"
        )
        wait_until(lambda: _as_committed(scene, flag), seconds=30, what=f"{flag}, raised by hand, to be lowered")
        return {"": time.monotonic() - began}


def _as_committed(scene: Scene, flag: str) -> bool:
    committed = scene.cluster.sql.value(COMMITTED, flag)
    shown = [served(replica, scene.cluster.sdk_key) for replica in scene.cluster.replicas]
    return all(one is not None and exposure(one[flag]) <= committed for one in shown)


FAULTS = (
    Fault("kill in a crowd", kill_in_a_crowd, 160, "while others raise the same flag", alone=False),
    Fault("commands at once", commands_at_once, 160, "six for one rollout, through all replicas", alone=False),
    Fault("flag changed by hand", flag_changed_by_hand, 10, "100 % written past Rampart", alone=False),
)
