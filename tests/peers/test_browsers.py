"""Web pages in a real Chromium; the SDKs of LaunchDarkly and OpenFeature know nothing but where Rampart is."""

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from controller.domain.evaluation import bucket
from tests.support import fleet, manifests
from tests.support.browser import Browser, Page, running_browser
from tests.support.postgres import Frozen
from tests.support.sdk_door import make_flag
from tests.support.server import RampartServer, serving, wait_until

pytestmark = pytest.mark.timeout(300)

REACT, REACT_NEW, OPENFEATURE = "launchdarkly_react_3", "launchdarkly_react_4", "openfeature_web"
SDKS = [REACT, REACT_NEW, OPENFEATURE]
STAGES = {"canary": 0.01, "early": 0.1, "half": 0.5, "everyone": 1.0}
CHECKOUT = "checkout"
FEATURES = [f"feature{number}" for number in range(22)]
MEASURED, UNMEASURED = FEATURES[:20], FEATURES[20:]
STAFF = {"user": "sam", "email": "sam@acme.example"}
AT_MOST_SECONDS = 5.0
"""Far above what a kill takes: this test shares its machine, and prints what it took."""


class World(NamedTuple):
    server: RampartServer
    browser: Browser
    client_side_id: str

    def visit(self, sdk: str, *, features: Sequence[str] = (), **visitor: str) -> Page:
        shown = {"features": ",".join(features)} if features else {"checkout": CHECKOUT}
        return self.browser.open(sdk, self.server.url, self.client_side_id, **shown, **visitor)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """All features are at their first stage, where staff has them; the checkout is not started."""
    flags = [CHECKOUT, *FEATURES]
    with (
        fleet.scraped(flags) as metrics,
        serving(
            tmp_path_factory.mktemp("server"),
            manifests.scrape_settings(metrics, every=0.5, database_seconds=10.0),
            wait_ready=False,
        ) as server,
        running_browser(tmp_path_factory.mktemp("site"), *SDKS) as browser,
    ):
        server.wait_ready(120)
        server.apply(a_policy=manifests.policy(every="500ms", window="2s", stale_after="2s"))
        fleet.apply_flags(server, flags, client_side=True)
        fleet.apply_plans(server, FEATURES)
        fleet.start(server, FEATURES)
        fleet.wait_progressing(server, FEATURES, seconds=120)
        yield World(server, browser, server.sdk_key(kind="client"))


def visitor_of(stage: str) -> str:
    """Somebody who is in from that stage on, and not before: the share grows from the upper end of the buckets."""
    ends = list(STAGES.values())
    end = STAGES[stage]
    begin = max((one for one in ends if one < end), default=0.0)
    salt = make_flag(CHECKOUT).data["salt"]
    return next(f"u{n}" for n in range(10_000) if begin < 1 - bucket(CHECKOUT, salt, f"u{n}") < end)


def all_show(pages: Sequence[Page], flag: str, on: bool) -> None:
    wait_until(
        lambda: [page.shows(flag) for page in pages] == [on] * len(pages),
        seconds=60,
        what=f"{flag} to show as {on} on all pages",
    )


def test_pages_follow_a_rollout_live_and_turn_back_on_a_kill(world: World, tmp_path: Path) -> None:
    server = world.server
    visitors = {stage: world.visit(REACT, user=visitor_of(stage)) for stage in STAGES}
    staff = world.visit(REACT, **STAFF)
    others = [world.visit(sdk, user=visitor_of("half")) for sdk in (REACT_NEW, OPENFEATURE)]
    pages = [staff, *visitors.values(), *others]
    all_show(pages, CHECKOUT, False)
    server.apply(the_plan=manifests.plan(CHECKOUT))
    server.command(CHECKOUT, "start")
    server.wait_phase(CHECKOUT, "completed", seconds=120)
    all_show(pages, CHECKOUT, True)
    for page in pages:
        assert [one.on for one in page.painted(CHECKOUT)] == [False, True], "nobody who was in fell out again"
    came_in = [page.painted(CHECKOUT)[-1].at for page in visitors.values()]
    assert came_in == sorted(came_in), "stage by stage"
    assert staff.painted(CHECKOUT)[-1].at < came_in[1], "staff with the first of them"
    half = visitors["half"].painted(CHECKOUT)[-1].at
    for page in others:
        assert abs(page.painted(CHECKOUT)[-1].at - half) < AT_MOST_SECONDS * 1000
    visitors["half"].screenshot(tmp_path / "on.png")
    server.kill_flag(CHECKOUT)
    all_show(pages, CHECKOUT, False)
    visitors["half"].screenshot(tmp_path / "killed.png")
    for page in pages:
        page.close()


def test_a_kill_is_on_the_screen_at_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    pages = {sdk: world.visit(sdk, features=MEASURED, **STAFF) for sdk in SDKS}
    for flag in MEASURED:
        all_show(list(pages.values()), flag, True)
    took: dict[str, list[float]] = {sdk: [] for sdk in SDKS}
    for flag in MEASURED:
        began = time.time()
        world.server.kill_flag(flag)
        all_show(list(pages.values()), flag, False)
        for sdk, page in pages.items():
            took[sdk].append(page.painted(flag)[-1].at - began * 1000)
    with capsys.disabled():
        for sdk, times in took.items():
            shown = f"p50 {statistics.median(times):.0f} ms, p99 (the worst) {max(times):.0f} ms"
            print(f"\nkill to repaint, {sdk}: {shown} ({len(times)} kills)", end="")  # noqa: T201
    assert max(map(max, took.values())) < AT_MOST_SECONDS * 1000
    for page in pages.values():
        page.close()


def test_a_kill_reaches_pages_without_a_database(world: World) -> None:
    killed, spared = UNMEASURED
    pages = [world.visit(sdk, features=UNMEASURED, **STAFF) for sdk in SDKS]
    with Frozen(world.server.postmaster):
        all_show(pages, killed, True)
        world.server.kill_flag(killed)
        all_show(pages, killed, False)
        newcomers = [world.visit(sdk, features=UNMEASURED, **STAFF) for sdk in SDKS]
        all_show(newcomers, killed, False)
        all_show([*pages, *newcomers], spared, True)
    world.server.wait_ready()
