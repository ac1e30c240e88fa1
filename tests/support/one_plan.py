"""One plan, driven by a real `rampart serve` wherever its flag may be: the plan never knows, and the SDK is real.

A `Place` is a flag back end with an application that reads it. `Shop` asks the application whom it serves what,
and shows the requests of these people to whoever scrapes.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from ldclient import Config, Context, LDClient

from tests.support import manifests
from tests.support.exposition import Exposition, Traffic
from tests.support.server import RampartServer, wait_until

KEY = "checkout"
USERS = 1_000
STAFF = "kim@acme.example"
EVERY_SECONDS = 0.2
REQUESTS_PER_SECOND = 20.0
"""Of each user: 1 % of them make the sample of a window of one second."""

Users = frozenset[int]


class Application(Protocol):
    """A process with a vendor's SDK in it."""

    def exposed(self) -> Users:
        """Of USERS those that are served the rollout. A new person has the default of the code: off."""

    def serves_staff(self) -> bool: ...


class Place(Protocol):
    name: str
    settings: str

    def application(self, server: RampartServer) -> Application:
        """Called once, when the server is up and the flag is there."""

    def kept(self, server: RampartServer) -> Any:
        """All that is kept of the flag there, and how often it was written if that is counted."""


# — applications —


class LaunchDarklyApplication:
    """LaunchDarkly's server SDK, here in a thread of its own."""

    def __init__(self, uri: str, key: str) -> None:
        config = Config(key, base_uri=uri, stream_uri=uri, events_uri=uri, send_events=False)
        self.client: Any = LDClient(config, start_wait=10)
        self._users = [Context.create(f"user-{number}") for number in range(USERS)]
        self._staff = Context.builder("kim").set("email", STAFF).build()

    def exposed(self) -> Users:
        return frozenset(n for n, user in enumerate(self._users) if self.client.variation(KEY, user, False))

    def serves_staff(self) -> bool:
        return bool(self.client.variation(KEY, self._staff, False))

    def close(self) -> None:
        self.client.close()


class SpokenApplication:
    """Another process that is asked a line of JSON at a time, as tests/peers/flagd/application.py is.

    `about_staff` is its question about one of the staff.
    """

    def __init__(self, command: Sequence[str | Path], about_staff: Mapping[str, Any]) -> None:
        self._about_staff = about_staff
        self._process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._one_at_a_time = threading.Lock()
        assert self._answer() == "ready"

    def exposed(self) -> Users:
        return frozenset(self._ask(ask="exposed", flag=KEY, users=USERS))

    def serves_staff(self) -> bool:
        found = self._ask(flag=KEY, **self._about_staff)
        return bool(found["value"] if isinstance(found, dict) else found)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _ask(self, **question: Any) -> Any:
        with self._one_at_a_time:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the application ended"
        return json.loads(line)


class Shop:
    """Lets people come again and again. `history` are those exposed, whenever it changed."""

    def __init__(self, application: Application, exposition: Exposition) -> None:
        self.application = application
        self.traffic = exposition.flags[KEY]
        self.history: list[Users] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_coming, name="shop", daemon=True)
        self._thread.start()

    def _keep_coming(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            exposed = self.application.exposed()
            self.traffic["on"].rate = REQUESTS_PER_SECOND * len(exposed)
            self.traffic["off"].rate = REQUESTS_PER_SECOND * (USERS - len(exposed))
            if not self.history or exposed != self.history[-1]:
                self.history.append(exposed)

    def close(self) -> None:
        self._over.set()
        self._thread.join(10)

    def serves_nobody(self) -> bool:
        return not self.application.exposed() and not self.application.serves_staff()


# — the story —


class Story:
    def __init__(self, server: RampartServer, place: Place, shop: Shop) -> None:
        self.server, self.place, self.shop = server, place, shop

    def plan(self, **spec: str) -> str:
        """The same text for every place, but for the provider's name."""
        text = manifests.plan(KEY).replace("provider: main", f"provider: {self.place.name}")
        return text + "".join(f"  {key}: {value}\n" for key, value in spec.items())

    def apply(self, **spec: str) -> None:
        self.server.apply(web_policy=manifests.policy(), checkout_rollout=self.plan(**spec))

    def ticks(self, seconds: float) -> None:
        """The server looked at the run again and again for so long."""
        until = time.time() + seconds

        def looked() -> bool:
            at = self.server.status(KEY)["observed_at"]
            return bool(at) and _seconds(at) > until

        wait_until(looked, seconds=30, every=0.2, what="ticks")

    def wait_stage(self, name: str) -> None:
        def reached() -> bool:
            status = self.server.status(KEY)
            current = [one["name"] for one in status["stages"] if one["state"] == "current"]
            assert status["phase"] in ("pending", "progressing"), status["reason"]
            return bool(status["confirmed"]) and current == [name]

        wait_until(reached, seconds=60, what=f"the stage {name}")

    def kill(self) -> None:
        body = {"reason": "INC-1", "provider": self.place.name}
        self.server.call("POST", f"environments/production/flags/{KEY}/kill", body)

    def wait_confirmed(self) -> None:
        def confirmed() -> bool:
            kills = self.server.call("GET", "kills")
            return bool(kills) and all(one["confirmed_at"] for one in kills)

        wait_until(confirmed, seconds=20, what="the kill to be confirmed")

    def reset(self) -> None:
        ids = [one["kill_id"] for one in self.server.call("GET", "kills")]
        body = {"kill_ids": ids, "note": "next", "provider": self.place.name}
        self.server.call("POST", f"environments/production/flags/{KEY}/reset", body)
        wait_until(lambda: not self.server.call("GET", "kills"), what="the kill to be released")

    # — what must come out —

    def is_watched_and_nothing_is_written(self) -> None:
        self.apply(mode="observe")
        before = self.place.kept(self.server)
        self.server.command(KEY, "start")
        self.ticks(2.0)
        self.server.command(KEY, "abandon")
        assert self.place.kept(self.server) == before
        assert self.shop.serves_nobody()

    def a_good_release_climbs_to_everybody(self) -> None:
        self.apply()
        self.shop.traffic["on"].error_rate = 0.001
        self.shop.history.clear()
        self.server.command(KEY, "start")
        self.wait_stage("canary")
        wait_until(self.shop.application.serves_staff, what="staff to be served")
        self.server.wait_phase(KEY, "completed", seconds=90)
        everybody = frozenset(range(USERS))
        wait_until(lambda: self.shop.application.exposed() == everybody, what="everybody to be served")
        let_out = [sorted(fewer - more) for fewer, more in pairwise(self.shop.history)]
        assert not any(let_out), "whoever was in a share is in every larger one"
        rises = [entry["details"]["to"]["exposure"] for entry in self._audited("start", "advance")][-4:]
        assert rises == [1_000, 10_000, 50_000, 100_000]

    def a_kill_serves_nobody(self) -> None:
        began = time.monotonic()
        self.kill()
        wait_until(self.shop.serves_nobody, seconds=20, every=0.01, what="the SDK to serve nobody")
        # For whoever runs this with -s.
        sys.stdout.write(f"{self.place.name}: nobody is served {time.monotonic() - began:.2f} s after the order\n")
        self.wait_confirmed()
        self.reset()
        assert self.shop.serves_nobody()

    def a_bad_release_is_killed(self) -> None:
        self.apply()
        self.shop.traffic["on"].error_rate = 0.001
        self.server.command(KEY, "start")
        self.wait_stage("canary")
        self.shop.traffic["on"].error_rate = 0.5
        self.server.wait_phase(KEY, "killed", seconds=60)
        (kill,) = self._audited("kill")[-1:]
        assert (kill["cause"], kill["details"]["rule"]) == ("policy", "quick/errors-jump")
        wait_until(self.shop.serves_nobody, seconds=20, what="the SDK to serve nobody")
        self.wait_confirmed()
        self.reset()

    def _audited(self, *actions: str) -> list[Any]:
        return [row["entry"] for row in self.server.audit() if row["entry"]["action"] in actions]


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


@contextmanager
def story(folder: Path, place: Place) -> Iterator[Story]:
    exposition = Exposition({KEY: {name: Traffic(rate=0.0) for name in ("on", "off")}})
    server = RampartServer(folder, manifests.scrape_settings(exposition.url) + place.settings)
    try:
        server.start()
        server.apply(checkout_flag=manifests.flag(KEY))
        application: Any = place.application(server)
        shop = Shop(application, exposition)
        try:
            yield Story(server, place, shop)
        finally:
            shop.close()
            application.close()
    finally:
        server.stop()
        exposition.close()
