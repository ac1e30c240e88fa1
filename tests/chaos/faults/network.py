"""Faults of the network: between a replica and the database, and between replicas."""

import time

from tests.chaos.cluster import PRESENCE_SECONDS, REPLICAS, Replica
from tests.chaos.faults.scene import Fault, Recoveries, Scene
from tests.chaos.proxy import Proxy
from tests.support.server import wait_until


def connections_reset(scene: Scene) -> Recoveries:
    victims = scene.chance.sample(scene.cluster.replicas, scene.chance.randint(1, REPLICAS))
    for replica in victims:
        replica.way.reset()
    return scene.ticking(*victims)


def latency(scene: Scene) -> Recoveries:
    victim = scene.replica
    victim.way.delay(scene.chance.uniform(0.02, 0.3))
    scene.wait(0.5, 1.5)
    victim.way.heal()
    return scene.ticking(victim)


def black_hole(scene: Scene) -> Recoveries:
    victim = scene.replica
    victim.way.hold()
    scene.wait(0.3, 3.5)
    victim.way.heal()
    return scene.ticking(victim)


def half_open(scene: Scene) -> Recoveries:
    victim = scene.replica
    victim.way.hold(frozenset({scene.chance.choice(("up", "down"))}))
    scene.wait(0.3, 3.5)
    victim.way.heal()
    return scene.ticking(victim)


def refused(scene: Scene) -> Recoveries:
    victim = scene.replica
    victim.way.refuse()
    scene.wait(0.2, 2.0)
    victim.way.heal()
    return scene.ticking(victim)


def partition(scene: Scene) -> Recoveries:
    """The others take its runs over, and nothing rises meanwhile."""
    victim = scene.replica
    victim.way.hold()
    _cut_from_peers(scene, victim)
    scene.wait(PRESENCE_SECONDS + 0.5, PRESENCE_SECONDS + 2.0)
    scene.cluster.heal()
    return scene.ticking()


def peers_cut(scene: Scene) -> Recoveries:
    victim = scene.replica
    ways = _cut_from_peers(scene, victim)
    scene.wait(0.5, 2.0)
    for way in ways:
        way.heal()
    return scene.ticking(victim)


def peers_reset(scene: Scene) -> Recoveries:
    for way in scene.cluster.peer_ways.values():
        way.reset()
    return scene.ticking()


def kill_while_cut_off(scene: Scene) -> Recoveries:
    """It is in force where it was accepted, and claimed nowhere else, until the others were heard."""
    victim = scene.replica
    with scene.climbing_flag() as flag:
        if flag is None:
            return {}
        victim.way.hold()
        _cut_from_peers(scene, victim)
        receipt = scene.people.kill(flag, victim, "cut off")
        assert receipt is not None, f"replica {victim.number}, cut off, did not accept a kill"
        kill_id = receipt["kill_id"]
        assert receipt["durable"], f"{kill_id} was not written down"
        assert receipt.get("confirmed_at") is None, f"{kill_id} was called confirmed by a replica that is cut off"
        scene.wait(0.5, 2.5)
        began = time.monotonic()
        scene.cluster.heal()
        scene.ticking()
        wait_until(lambda: scene.off_everywhere(flag), seconds=20, what=f"{flag} to be off everywhere")
        return {"": time.monotonic() - began}


def _cut_from_peers(scene: Scene, victim: Replica) -> list[Proxy]:
    ways = [way for pair, way in scene.cluster.peer_ways.items() if victim.number in pair]
    for way in ways:
        way.hold()
    return ways


FAULTS = (
    Fault("connections reset", connections_reset, 420, "RST on a replica's connections", alone=False),
    Fault("latency", latency, 120, "20 to 300 ms more for each packet", alone=False),
    Fault("black hole", black_hole, 80, "everything is swallowed for up to 3.5 s", alone=False),
    Fault("half-open", half_open, 80, "one direction is dead for up to 3.5 s", alone=False),
    Fault("refused", refused, 80, "nobody listens for up to 2 s", alone=False),
    Fault("partition", partition, 4, "no database, no peers, beyond lease and check-in"),
    Fault("peers cut", peers_cut, 80, "a replica and the others do not reach each other", alone=False),
    Fault("peers reset", peers_reset, 80, "RST on all connections between replicas", alone=False),
    Fault("kill while cut off", kill_while_cut_off, 15, "through a replica that reaches nobody"),
)
