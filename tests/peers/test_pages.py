"""The pages for people in a real Chromium: desk and phone, with JavaScript and without, in light and dark."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.peers.pages import walk
from tests.peers.pages.chromium import Chromium, Look, Visitor, running_chromium
from tests.peers.pages.world import (
    DANA,
    DONE,
    GATED,
    GATED_ONE,
    HEALTHY,
    KILLED,
    KIM,
    LONG,
    NEW,
    PAUSED,
    PEOPLE,
    SAM,
    SHOWN,
    VIV,
    World,
    fill,
    measured_by,
    shop_of,
    world_of,
)
from tests.support.postgres import Frozen
from tests.support.prometheus import running_prometheus

pytestmark = pytest.mark.timeout(300)

LOOKS = [
    Look("desktop", True, "light"),
    Look("phone", True, "dark"),
    Look("desktop", False, "dark"),
    Look("phone", False, "light"),
]
PRESSED = "pressed"
WALKED = {look: f"walk-{look}" for look in LOOKS}
TAP_PIXELS = 44
KILL_PIXELS = 64
PAGE_BYTES = 30_000
MOST_TABS = 12

PAGES = {
    "list": (KIM, "/"),
    "list, some": (KIM, "/?state=paused"),
    "list, none": (KIM, "/?q=no-such-thing"),
    "one that goes on": (KIM, f"/rollouts/{HEALTHY}"),
    "one at a gate": (KIM, f"/rollouts/{GATED_ONE}"),
    "one that is paused": (KIM, f"/rollouts/{PAUSED}"),
    "one that was killed": (KIM, f"/rollouts/{KILLED}"),
    "one that is done": (VIV, f"/rollouts/{DONE}"),
    "a new one": (DANA, f"/rollouts/{NEW}"),
    "phone: goes on": (KIM, f"/r/{HEALTHY}"),
    "phone: at a gate": (KIM, f"/r/{GATED_ONE}"),
    "phone: paused": (KIM, f"/r/{PAUSED}"),
    "phone: killed": (KIM, f"/r/{KILLED}"),
    "phone: read only": (VIV, f"/r/{HEALTHY}"),
    "phone: new": (SAM, f"/r/{NEW}"),
    "kill: why": (SAM, f"/r/{HEALTHY}/kill"),
    "kill: what came of it": (SAM, f"/r/{KILLED}/killed"),
    "raised": (SAM, "/raised?within=24h"),
    "raised, kill several": (SAM, f"/raised/kill?plan={HEALTHY}&plan={GATED_ONE}"),
    "pause: why": (KIM, f"/r/{HEALTHY}/order/pause"),
    "reset: why": (KIM, f"/r/{KILLED}/order/reset"),
    "approvals": (KIM, "/approvals"),
    "no such page": (KIM, "/r/nothing-of-ours"),
}


class Examined(NamedTuple):
    """One page as one browser had it."""

    page: str
    javascript: bool
    violations: list[str]
    overflow: int
    small: list[str]
    said: list[str]
    size: int

    def __str__(self) -> str:
        return f"{self.page}{'' if self.javascript else ', without JavaScript'}"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with running_chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    walked = list(WALKED.values())
    with shop_of([*SHOWN, *walked]) as app, world_of(tmp_path_factory.mktemp("world"), app) as world:
        world.apply(dict.fromkeys(walked, GATED))
        fill(world)
        yield world


def enter(chromium: Chromium, world: World, stack: ExitStack, person: str, look: Look) -> Visitor:
    visitor = stack.enter_context(chromium.visitor(world.server.url, look))
    visitor.log_in(world.secrets[person])
    return visitor


# — every page —


@pytest.fixture(scope="module")
def examined(chromium: Chromium, world: World) -> list[Examined]:
    """Each page once with JavaScript and once without, and there at both sizes and in both schemes."""
    found, pressed = [], world.trigger(HEALTHY)
    with ExitStack() as stack:
        for javascript in (True, False):
            look = Look("desktop", javascript, "light")
            stranger = stack.enter_context(chromium.visitor(world.server.url, look))
            visitors = {name: enter(chromium, world, stack, name, look) for name in PEOPLE}
            found.append(examine(stranger, "login", "/login"))
            found.append(examine(stranger, "an address that kills", pressed))
            found += [examine(visitors[person], name, path) for name, (person, path) in PAGES.items()]
    return found


def examine(visitor: Visitor, name: str, path: str) -> Examined:
    visitor.open(path)
    size = len(visitor.source)
    violations = visitor.violations()
    overflow = visitor.overflow()
    return Examined(name, visitor.look.javascript, violations, overflow, small(visitor), [*visitor.said], size)


def small(visitor: Visitor) -> list[str]:
    """What is too small for a thumb. Links within a text are as high as their line, as WCAG allows."""
    found = []
    for one in visitor.targets():
        least = KILL_PIXELS if "kill for everyone" in one["name"].lower() else TAP_PIXELS
        if not one["inline"] and one["height"] < least - 0.5:
            found.append(f"{one['name']} is {one['height']:.0f} px high")
    return found


def test_no_page_breaks_a_rule_of_wcag_at_any_size_or_in_any_scheme(examined: list[Examined]) -> None:
    assert {str(one): one.violations for one in examined if one.violations} == {}


def test_no_page_must_be_scrolled_sideways_on_a_phone(examined: list[Examined]) -> None:
    assert {str(one): one.overflow for one in examined if one.overflow > 0} == {}


def test_everything_to_tap_is_large_enough_for_a_thumb(examined: list[Examined]) -> None:
    assert {str(one): one.small for one in examined if one.small} == {}


def test_the_console_stays_silent(examined: list[Examined]) -> None:
    expected = "no such page"
    assert {str(one): one.said for one in examined if one.said and one.page != expected} == {}


def test_no_page_but_the_list_is_larger_than_a_phone_in_a_cellar_can_load(examined: list[Examined]) -> None:
    assert {str(one): one.size for one in examined if one.size > PAGE_BYTES} == {}


# — people —


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_a_rollout_is_watched_approved_paused_resumed_killed_and_reset(
    chromium: Chromium, world: World, look: Look
) -> None:
    flag = WALKED[look]
    with ExitStack() as stack:
        dana, kim, sam, viv = (enter(chromium, world, stack, one, look) for one in (DANA, KIM, SAM, VIV))
        viv.open(f"/r/{flag}")
        viv.see("Never started")
        walk.order(dana, flag, "Start", text="release 2.14")
        viv.see("waits for approval")
        assert world.serves_staff(flag)

        card = walk.inbox(dana, flag)
        assert card.get_by_role("button").count() == 0, "the author of a plan does not approve it"
        assert "second person" in card.inner_text()
        walk.approve(kim, flag, "looked at it")
        world.wait(flag, "to be at half", stage=1, confirmed=True)
        viv.see("50 %")

        walk.order(kim, flag, "Pause", text="latency looks odd", choice="latency")
        assert world.server.status(flag)["phase"] == "paused"
        viv.see("Paused", "latency looks odd")
        walk.order(kim, flag, "Resume", text="it was the network")
        assert world.server.status(flag)["phase"] == "progressing"
        viv.see("Progressing")

        walk.kill(sam, flag)
        assert walk.ticked(sam) == walk.TICKS
        viv.see("Killed", "INC-4821")
        assert world.server.status(flag)["phase"] == "killed"
        assert [one["actor"] for one in world.kills(flag)] == [SAM]
        assert not world.serves_staff(flag)

        walk.order(kim, flag, "Reset the kill", text="mended")
        assert world.kills(flag) == []
        assert not world.serves_staff(flag), "a reset turns nothing on"
        if look.javascript:
            assert viv.streams() == 1, "one stream for the tab, whatever changed"


def test_the_keyboard_reaches_the_kill_and_keeps_its_place_while_the_page_changes(
    chromium: Chromium, world: World
) -> None:
    with ExitStack() as stack:
        sam = enter(chromium, world, stack, SAM, Look("phone", True, "light"))
        page = sam.open(f"/r/{HEALTHY}")
        for _ in range(MOST_TABS):
            page.keyboard.press("Tab")
            if "KILL" in sam.focused():
                break
        assert "KILL" in sam.focused()
        world.by(KIM, "POST", f"plans/{HEALTHY}/pause", {"note": "to see the page change"})
        sam.see("to see the page change")
        page.get_by_role("link", name="PAUSE").wait_for(state="detached")
        assert "KILL" in sam.focused()
        page.keyboard.press("Enter")
        page.wait_for_url("**/kill")
        world.by(KIM, "POST", f"plans/{HEALTHY}/resume", {"note": "seen"})


# — at three in the morning —


class Blind(NamedTuple):
    """`address` kills `PRESSED`."""

    world: World
    address: str


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Blind]:
    """Rollouts in the middle of it, and then neither PostgreSQL nor Prometheus answers."""
    folder = tmp_path_factory.mktemp("blind")
    flags = [PRESSED, *WALKED.values()]
    with shop_of(flags) as app, ExitStack() as prometheus:
        url = prometheus.enter_context(running_prometheus(folder / "prometheus", [f"127.0.0.1:{app.port}"]))
        with world_of(folder, app, measured_by(url)) as world:
            world.apply(dict.fromkeys(flags, LONG))
            world.start(*flags)
            for flag in flags:
                world.wait(flag, "to be at its second stage", stage=1, confirmed=True)
            address = world.trigger(PRESSED)
            with Frozen(world.server.postmaster):
                prometheus.close()
                yield Blind(world, address)


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_a_kill_needs_neither_postgresql_nor_prometheus(chromium: Chromium, blind: Blind, look: Look) -> None:
    flag, world = WALKED[look], blind.world
    assert world.serves_staff(flag)
    with ExitStack() as stack:
        sam = enter(chromium, world, stack, SAM, look)
        sam.open(f"/r/{flag}")
        sam.see("This is what was last known", "10 %")
        walk.kill(sam, flag)
        assert walk.ticked(sam) == walk.TICKS
        assert not world.serves_staff(flag)
        sam.open(f"/r/{flag}")
        sam.see("Killed", "INC-4821", "This is what was last known")
        sam.open("/")
        sam.see(flag, "kills work")
        assert sam.violations() == []


def test_an_address_that_kills_needs_no_token_no_database_and_no_script(chromium: Chromium, blind: Blind) -> None:
    assert blind.world.serves_staff(PRESSED)
    with chromium.visitor(blind.world.server.url, Look("phone", False, "dark")) as anybody:
        page = anybody.open(blind.address)
        page.get_by_label("Why?").fill("INC-4821")
        walk.press(anybody, page.get_by_role("button", name="KILL"))
        anybody.see("read back as off at")
        assert not blind.world.serves_staff(PRESSED)
        assert anybody.violations() == []
