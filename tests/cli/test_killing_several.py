"""Several flags killed by one command: shown first, asked once, told one by one."""

import json
from collections.abc import Callable

from controller.domain.plan import FlagRef
from controller.domain.selection import KillPreview, KillTarget
from controller.domain.status import KilledAndNot, NotKilled
from tests.cli.answers import FLAG, NOW, receipt
from tests.cli.conftest import Rampart
from tests.cli.stub_server import Reply, StubServer
from tests.cli.terminal import Terminal

SEARCH = FlagRef(provider="main", environment="production", key="search-v3")
FOUND = KillPreview(
    targets=[
        KillTarget(flag=FLAG, plans=["checkout-v2"], owner="team-checkout", phase="progressing", exposure=50_000),
        KillTarget(flag=SEARCH, plans=["search-v3"], owner="", raised_at=NOW),
    ]
)
DONE = KilledAndNot(kills=[receipt(), receipt(flag=SEARCH)])
NAMES = [{"provider": one.provider, "environment": one.environment, "key": one.key} for one in (FLAG, SEARCH)]


def test_what_was_shown_is_what_is_killed(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", "kills/preview", FOUND)
    server.answers("POST", "kills", DONE)
    told = rampart(
        "kill", "--selector", "tier=1,team=checkout", "--environment", "production", "-y", "-m", "INC-1"
    )
    assert told.returncode == 0, told.stderr
    assert server.bodies("kills/preview") == [
        {"labels": {"tier": "1", "team": "checkout"}, "environment": "production"}
    ]
    assert server.bodies("kills") == [{"reason": "INC-1", "flags": NAMES}]
    assert "main/production/checkout-v2  50 %                     progressing  team-checkout" in told.stderr
    assert "main/production/search-v3    never raised by Rampart" in told.stderr
    assert told.stdout.count("✔ accepted") == 2
    assert "2 flags killed" in told.stderr


def test_a_dry_run_shows_it_and_kills_nothing(rampart: Rampart, server: StubServer) -> None:
    doubt = "the database does not answer"
    server.answers("POST", "kills/preview", KillPreview(targets=FOUND.targets, killed=[], doubts=[doubt]))
    told = rampart("kill", "--raised-within", "30m", "--dry-run")
    assert told.returncode == 0
    assert "WOULD BE KILLED" in told.stdout
    assert f"careful: {doubt}" in told.stdout
    assert server.bodies("kills/preview") == [{"raised_within": "30m"}]
    assert server.bodies("kills") == []


def test_nothing_that_fits_is_a_finding(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", "kills/preview", KillPreview(targets=[], killed=FOUND.targets[:1]))
    told = rampart("kill", "--selector", "tier=9", "-y", "-m", "x")
    assert told.returncode == 1
    assert "killed already: main/production/checkout-v2" in told.stderr
    assert "nothing was killed" in told.stderr


def test_some_refused_is_told_for_each_and_by_the_exit_code(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", "kills/preview", FOUND)
    partly = KilledAndNot(kills=[receipt()], refused=[NotKilled(flag=SEARCH, why='lacks the scope "kill"')])
    server.answers("POST", "kills", Reply(partly, 207))
    told = rampart("kill", "--selector", "tier=1", "-y", "-m", "x")
    assert told.returncode == 4
    assert "✔ accepted" in told.stdout
    assert 'NOT KILLED main/production/search-v3: lacks the scope "kill"' in told.stdout


def test_without_a_terminal_it_needs_its_reason_and_shows_nothing_before(
    rampart: Rampart, server: StubServer
) -> None:
    told = rampart("kill", "--selector", "tier=1", "-y")
    assert told.returncode == 2
    assert server.asked == []


def test_a_name_and_a_selection_are_not_both_meant_and_one_of_them_is(
    rampart: Rampart, server: StubServer
) -> None:
    assert rampart("kill", "checkout-v2", "--selector", "tier=1", "-m", "x").returncode == 2
    told = rampart("kill", "-m", "x")
    assert told.returncode == 2
    assert "--selector or --raised-within" in told.stderr
    assert rampart("kill", "--raised-within", "soon", "-m", "x").returncode == 2
    assert server.asked == []


def test_on_a_terminal_it_shows_what_is_hit_and_asks_once(
    terminal: Callable[..., Terminal], server: StubServer
) -> None:
    server.answers("POST", "kills/preview", FOUND)
    server.answers("POST", "kills", DONE)
    screen = terminal("kill", "--raised-within", "30m")
    screen.see("team-checkout")
    screen.see("Why?")
    assert server.bodies("kills") == []
    screen.type("INC-1\n")
    assert screen.exit_code() == 0
    assert server.bodies("kills")[0]["reason"] == "INC-1"


def test_a_program_gets_what_the_api_says(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", "kills/preview", FOUND)
    server.answers("POST", "kills", DONE)
    told = rampart("kill", "--selector", "tier=1", "-y", "-m", "x", "-o", "json")
    assert len(json.loads(told.stdout)["kills"]) == 2
