"""The red button: it acts at once, tells the truth about what is not yet known, and is undone on purpose only."""

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from controller.domain.plan import FlagRef
from tests.cli.answers import FLAG, NOW, kill, receipt, run
from tests.cli.conftest import Rampart
from tests.cli.stub_server import Reply, StubServer, problem
from tests.cli.terminal import Terminal

KILL, RESET, STATUS = "flags/checkout-v2/kill", "flags/checkout-v2/reset", "plans/checkout-v2/status"


def test_a_kill_shows_its_three_ticks(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", KILL, {"kills": [receipt()]})
    told = rampart("kill", "checkout-v2", "-m", "INC-4821")
    assert told.returncode == 0
    assert (
        "✔ accepted 14:00:00 UTC   ✔ provider updated 14:00:01 UTC   ✔ read back off 14:00:02 UTC" in told.stdout
    )
    assert "(2.1 s)" in told.stdout
    assert "rampart reset checkout-v2" in told.stderr
    assert server.bodies(KILL) == [{"reason": "INC-4821"}]


def test_without_a_terminal_a_kill_asks_nothing_but_the_kill(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", KILL, {"kills": [receipt()]})
    assert rampart("kill", "checkout-v2", "-m", "INC-4821").returncode == 0
    assert [asked.path for asked in server.asked] == [KILL]


def test_an_unconfirmed_kill_never_claims_off(rampart: Rampart, server: StubServer) -> None:
    waiting = receipt(provider_updated_at=None, confirmed_at=None, replicas=[])
    server.answers("POST", KILL, Reply({"kills": [waiting]}, 202))
    told = rampart("kill", "checkout-v2", "-m", "INC-4821")
    assert told.returncode == 0
    assert "✔ accepted" in told.stdout
    assert "UNCONFIRMED — being retried" in told.stdout
    assert "read back off" not in told.stdout
    assert "rampart status checkout-v2 --watch" in told.stderr


def test_one_unconfirmed_flag_among_others_stands_out(rampart: Rampart, server: StubServer) -> None:
    other = FlagRef(provider="main", environment="staging", key="checkout-v2")
    server.answers("POST", KILL, Reply({"kills": [receipt(), receipt(flag=other, confirmed_at=None)]}, 202))
    shown = rampart("kill", "checkout-v2", "-m", "INC-4821").stdout
    assert shown.count("✔ accepted") == 2
    assert shown.count("UNCONFIRMED") == 1
    assert shown.index("main/staging/checkout-v2") < shown.index("UNCONFIRMED")


def test_a_kill_that_is_not_on_disk_says_so(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", KILL, {"kills": [receipt(durable=False)]})
    assert "journal could not be written" in rampart("kill", "checkout-v2", "-m", "x").stdout


def test_environment_and_provider_are_passed_on(rampart: Rampart, server: StubServer) -> None:
    path = "environments/production/flags/checkout-v2/kill"
    server.answers("POST", path, {"kills": [receipt()]})
    told = rampart(
        "kill", "checkout-v2", "--environment", "production", "--provider", "main", "-m", "x", "-o", "json"
    )
    assert server.bodies(path) == [{"reason": "x", "provider": "main"}]
    assert json.loads(told.stdout)["kills"][0]["kill_id"] == "k-7f3a"


@pytest.mark.parametrize("more", [[], ["--yes"]])
def test_without_a_terminal_a_kill_needs_its_reason(rampart: Rampart, server: StubServer, more: list[str]) -> None:
    told = rampart("kill", "checkout-v2", *more)
    assert told.returncode == 2
    assert '-m "why"' in told.stderr
    assert server.asked == []


def test_a_kill_that_never_left_says_that_nothing_was_killed(rampart: Rampart) -> None:
    told = rampart("kill", "checkout-v2", "-m", "x", "--url", "http://127.0.0.1:1")
    assert told.returncode == 3
    assert "NOTHING WAS KILLED" in told.stderr


def test_a_kill_without_an_answer_is_not_called_dead_or_done(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", KILL, Reply(None, hangs=True))
    server.released.set()
    told = rampart("kill", "checkout-v2", "-m", "x")
    assert told.returncode == 3
    assert "NOTHING" not in told.stderr
    assert "send it again" in told.stderr
    assert len(server.asked) == 1


def test_on_a_terminal_it_asks_once_and_shows_what_is_at_stake(
    terminal: Callable[..., Terminal], server: StubServer
) -> None:
    server.answers("GET", STATUS, run())
    server.answers("POST", KILL, {"kills": [receipt()]})
    screen = terminal("kill", "checkout-v2", "-m", "INC-4821")
    screen.see("now progressing at 10 %")
    screen.see("Continue? [y/N]")
    assert server.bodies(KILL) == []
    screen.type("y\n")
    assert screen.exit_code() == 0
    assert server.bodies(KILL) == [{"reason": "INC-4821"}]


@pytest.mark.parametrize("answer", ["n\n", "\n"])
def test_no_is_no(terminal: Callable[..., Terminal], server: StubServer, answer: str) -> None:
    server.answers("GET", STATUS, run())
    screen = terminal("kill", "checkout-v2", "-m", "INC-4821")
    screen.see("[y/N]")
    screen.type(answer)
    assert screen.exit_code() == 1
    assert "nothing was killed" in screen.shown
    assert server.bodies(KILL) == []


def test_without_a_reason_the_one_question_is_the_reason(
    terminal: Callable[..., Terminal], server: StubServer
) -> None:
    server.answers("GET", STATUS, run())
    server.answers("POST", KILL, {"kills": [receipt()]})
    screen = terminal("kill", "checkout-v2")
    screen.see("Why?")
    screen.type("5xx at checkout\n")
    assert screen.exit_code() == 0
    assert "[y/N]" not in screen.shown
    assert server.bodies(KILL) == [{"reason": "5xx at checkout"}]


def test_yes_with_a_reason_asks_nothing(terminal: Callable[..., Terminal], server: StubServer) -> None:
    server.answers("POST", KILL, {"kills": [receipt()]})
    screen = terminal("kill", "checkout-v2", "--yes", "-m", "INC-4821")
    assert screen.exit_code() == 0
    assert [asked.path for asked in server.asked] == [KILL]


def test_a_database_that_is_down_does_not_stand_in_the_way_of_a_kill(
    terminal: Callable[..., Terminal], server: StubServer
) -> None:
    server.answers("GET", STATUS, Reply(None, hangs=True))
    server.answers("POST", KILL, {"kills": [receipt()]})
    screen = terminal("kill", "checkout-v2", "-m", "INC-4821")
    screen.see("what is exposed now is unknown")
    screen.type("y\n")
    assert screen.exit_code() == 0


def test_a_reset_names_exactly_the_kills_it_showed(rampart: Rampart, server: StubServer) -> None:
    elsewhere = kill(kill_id="k-other", flag=replace(FLAG, key="search-v3"), run="search-v3#1")
    second = kill(kill_id="k-second", accepted_at=NOW + timedelta(minutes=1))
    server.answers("GET", "kills", [kill(), second, elsewhere])
    server.answers("POST", RESET, [kill(), second])
    told = rampart("reset", "checkout-v2", "-m", "fixed in 2.14.1")
    assert told.returncode == 0
    assert server.bodies(RESET) == [{"kill_ids": ["k-7f3a", "k-second"], "note": "fixed in 2.14.1"}]
    assert "k-second" in told.stderr
    assert "the flag is still off" in told.stderr


def test_a_reset_can_name_one_kill(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "kills", [kill(), kill(kill_id="k-second")])
    server.answers("POST", RESET, [kill(kill_id="k-second")])
    rampart("reset", "checkout-v2", "--kill-id", "k-second", "--yes")
    assert server.bodies(RESET) == [{"kill_ids": ["k-second"], "note": ""}]


def test_a_plan_whose_flag_has_another_key_finds_its_kill(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "kills", [kill(run=None)])
    server.answers("GET", "plans/new-checkout/status", run(plan="new-checkout"))
    server.answers("POST", "flags/new-checkout/reset", [kill(run=None)])
    assert rampart("reset", "new-checkout", "--yes").returncode == 0
    assert server.bodies("flags/new-checkout/reset") == [{"kill_ids": ["k-7f3a"], "note": ""}]


def test_with_nothing_in_force_a_reset_does_nothing(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "kills", [])
    told = rampart("reset", "checkout-v2", "--yes", "-o", "json")
    assert (told.returncode, told.stdout) == (0, "[]\n")
    assert "no kill is in force" in told.stderr
    assert server.bodies(RESET) == []


def test_a_kill_id_that_is_not_in_force_is_a_conflict(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "kills", [kill()])
    told = rampart("reset", "checkout-v2", "--kill-id", "k-gone", "--yes")
    assert told.returncode == 5
    assert "k-gone" in told.stderr


def test_without_a_terminal_a_reset_needs_consent(rampart: Rampart, server: StubServer) -> None:
    assert rampart("reset", "checkout-v2").returncode == 2
    assert server.asked == []


def test_a_reset_on_a_terminal_asks(terminal: Callable[..., Terminal], server: StubServer) -> None:
    server.answers("GET", "kills", [kill()])
    screen = terminal("reset", "checkout-v2", "-m", "fixed")
    screen.see("Release them? The flag stays off. [y/N]")
    screen.type("n\n")
    assert screen.exit_code() == 1
    assert server.bodies(RESET) == []


def test_a_start_under_a_kill_is_a_conflict(rampart: Rampart, server: StubServer) -> None:
    detail = "main/production/checkout-v2 is killed (k-7f3a); reset it first: rampart reset checkout-v2"
    server.answers("POST", "plans/checkout-v2/start", problem("kill-in-force", 409, detail))
    told = rampart("start", "checkout-v2")
    assert told.returncode == 5
    assert "rampart reset checkout-v2" in told.stderr


@pytest.mark.parametrize(
    ("on_kill", "whom", "told"),
    [
        ("off", "everybody", "a kill switches it off, too"),
        ("fallthrough", "everybody but whom these serve", "a kill leaves it alone"),
    ],
)
def test_a_dry_run_says_what_a_kill_takes_along_and_kills_nothing(
    rampart: Rampart, server: StubServer, on_kill: str, whom: str, told: str
) -> None:
    server.answers("GET", "plans/checkout-v2/status", run(foreign=["rule eu-only"], on_kill=on_kill))
    shown = rampart("kill", "checkout-v2", "--dry-run")
    assert shown.returncode == 0
    assert shown.stdout.splitlines() == [
        f"kill checkout-v2 in production: now progressing at 10 %; {whom} gets the fallback, the `always` "
        "audience included",
        f"  not ours, and {told}: rule eu-only",
    ]
    assert [asked.method for asked in server.asked] == ["GET"]
