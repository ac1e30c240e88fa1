"""`make screenshots`: every page as a person sees it, taken from a real server in a real Chromium.

    python -m tests.peers.screenshots [--to docs/screenshots] [--only phone]

The rollouts, their numbers and their people are always the same; times of day and a few requests more or less are
not, so that a picture is only worth keeping when what it shows has changed.
"""

import argparse
import math
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.peers.pages import walk
from tests.peers.pages.chromium import Chromium, Look, Visitor, running_chromium
from tests.peers.pages.world import (
    DANA,
    DONE,
    GATED_ONE,
    HEALTHY,
    KILLED,
    KIM,
    NEW,
    PAUSED,
    SAM,
    SHOWN,
    World,
    fill,
    shop_of,
    world_of,
)  # fmt: skip
from tests.support.postgres import Frozen
from tests.support.repository import ROOT

CALM_SECONDS, WATCHED_SECONDS = 20.0, 6.0
SWING_SECONDS = 17.0
DESKTOP, DARK_DESKTOP = Look("desktop", True, "light"), Look("desktop", True, "dark")
PHONE, DARK_PHONE = Look("phone", True, "light"), Look("phone", True, "dark")
EVERYWHERE = (DESKTOP, DARK_DESKTOP, PHONE, DARK_PHONE)


class Shot(NamedTuple):
    """`person` None: nobody is logged in."""

    name: str
    path: str
    person: str | None
    looks: Sequence[Look]


CALM = (
    Shot("login", "/login", None, (DESKTOP, DARK_PHONE)),
    Shot("list", "/", KIM, EVERYWHERE),
    Shot("rollout", f"/rollouts/{HEALTHY}", KIM, (DESKTOP, DARK_DESKTOP, PHONE)),
    Shot("rollout-paused", f"/rollouts/{PAUSED}", KIM, (DESKTOP,)),
    Shot("rollout-new", f"/rollouts/{NEW}", DANA, (PHONE,)),
    Shot("phone", f"/r/{HEALTHY}", SAM, (PHONE, DARK_PHONE)),
    Shot("phone-paused", f"/r/{PAUSED}", KIM, (PHONE, DARK_PHONE)),
    Shot("phone-killed", f"/r/{KILLED}", KIM, (PHONE,)),
    Shot("phone-completed", f"/r/{DONE}", SAM, (PHONE,)),
    Shot("phone-gate", f"/r/{GATED_ONE}", KIM, (PHONE,)),
    Shot("approvals", "/approvals", KIM, (DESKTOP, PHONE)),
    Shot("raised", "/raised?within=24h", SAM, (DESKTOP, PHONE)),
    Shot("kill", f"/r/{HEALTHY}/kill", SAM, (PHONE, DARK_PHONE)),
    Shot("not-found", "/r/nothing-of-ours", SAM, (PHONE,)),
)


class Camera:
    def __init__(self, chromium: Chromium, world: World, folder: Path, only: str) -> None:
        self._chromium = chromium
        self._world = world
        self._folder = folder
        self._only = only

    def wanted(self, name: str) -> bool:
        return self._only in name

    @contextmanager
    def visitor(self, person: str | None, look: Look) -> Iterator[Visitor]:
        with self._chromium.visitor(self._world.server.url, look) as visitor:
            if person is not None:
                visitor.log_in(self._world.secrets[person])
            yield visitor

    def take(self, shots: Sequence[Shot]) -> None:
        for shot in shots:
            for look in shot.looks:
                if self.wanted(shot.name):
                    with self.visitor(shot.person, look) as visitor:
                        visitor.open(shot.path)
                        self.keep(visitor, shot.name)

    def keep(self, visitor: Visitor, name: str) -> None:
        if not self.wanted(name):
            return
        look = visitor.look
        device = [] if name.startswith(look.device) else [look.device]
        target = self._folder / f"{'-'.join([name, *device, look.scheme])}.png"
        visitor.page.evaluate("window.scrollTo(0, 0)")
        visitor.page.screenshot(path=target, full_page=True, animations="disabled")
        print(f"{target.name} {target.stat().st_size // 1000} kB", flush=True)  # noqa: T201 - a command


def lively(world: World, ended: threading.Event) -> None:
    """Curves of a real service are not straight."""
    moment = 0.0
    while not ended.wait(0.3):
        moment += 0.3
        for rank, flag in enumerate((HEALTHY, GATED_ONE, DONE, NEW)):
            swing = math.sin(moment / SWING_SECONDS * math.tau + rank) + 0.5 * math.sin(moment * 1.7 + rank)
            for shift, variation in enumerate(("on", "off")):
                world.app.flags[flag][variation].error_rate = 0.0031 + 0.0014 * swing - 0.0008 * shift


def after_a_kill(camera: Camera, world: World) -> None:
    """Sam kills what the others have looked at, and then everything else is taken away."""
    with camera.visitor(SAM, PHONE) as visitor:
        walk.kill(visitor, HEALTHY)
        walk.ticked(visitor)
        camera.keep(visitor, "kill-result")
    with camera.visitor(KIM, PHONE) as kim, camera.visitor(KIM, DESKTOP) as desk:
        seen = ((kim, f"/r/{GATED_ONE}", "database-away"), (desk, "/", "list-database-away"))
        for visitor, path, _ in seen:
            visitor.open(path)
        with Frozen(world.server.postmaster):
            for visitor, path, name in seen:
                visitor.open(path)
                visitor.see("was last known")
                camera.keep(visitor, name)
            walk.kill(kim, GATED_ONE)
            walk.ticked(kim)
            camera.keep(kim, "kill-result-database-away")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--to", type=Path, default=ROOT / "docs" / "screenshots")
    options.add_argument("--only", default="", help="part of the names of those to take")
    asked = options.parse_args()
    asked.to.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix="screenshots-") as place,
        shop_of(SHOWN) as app,
        world_of(Path(place), app, window="10s") as world,
        running_chromium() as chromium,
    ):
        swinging = threading.Thread(target=lively, args=(world, ended))
        swinging.start()
        try:
            fill(world, lambda: ended.wait(CALM_SECONDS))
            ended.wait(WATCHED_SECONDS)
            camera = Camera(chromium, world, asked.to, asked.only)
            camera.take(CALM)
            camera.take([Shot("trigger", world.trigger(HEALTHY), None, (PHONE,))])
            after_a_kill(camera, world)
        finally:
            ended.set()
            swinging.join()


if __name__ == "__main__":
    main()
