"""Looking at rollouts, driving them, and waiting for them."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from controller.domain.status import ReportLine, RunReport, StageTimes
from tests.cli.answers import COMPLETED, EXPLANATION, FLAG, KILLED, NEVER_STARTED, NOW, PAUSED, SUMMARY, kill, run
from tests.cli.conftest import Rampart
from tests.cli.stub_server import Reply, StubServer, problem
from tests.cli.terminal import Terminal

STATUS = "plans/checkout-v2/status"


def test_status_shows_stage_exposure_countdown_and_each_rule(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", STATUS, run())
    shown = rampart("status", "checkout-v2").stdout.splitlines()
    assert "▶ PROGRESSING   stage 2/4 early   10 % → 50 % in 1h 12m  (needs approval)" in shown[0]
    assert any("desired 10 %   provider 10 % ✔ read back" in line for line in shown)
    assert any("2 early 10 % ▶ 48m/2h" in line for line in shown)
    [p95] = [line for line in shown if line.startswith("p95-2x")]
    cells = ["702 ms", "> 620 ms (2x)", "310 ms", "41 210 req", "1m 15s of 5m", "step back", "✖ breach"]
    positions = [p95.index(cell) for cell in cells]
    assert positions == sorted(positions)
    [jump] = [line for line in shown if line.startswith("errors-jump")]
    assert "too few requests: 42 requests of at least 200" in jump
    assert any("bake: 48m of 2h baked (earliest 2026-11-18 15:12:00 UTC" in line for line in shown)


@pytest.mark.parametrize(
    ("on_kill", "told"), [("off", "a kill switches it off, too"), ("fallthrough", "a kill leaves it alone")]
)
def test_status_shows_what_the_provider_tells_beside_the_share(
    rampart: Rampart, server: StubServer, on_kill: str, told: str
) -> None:
    beside = run(
        foreign=["rule eu-only"], on_kill=on_kill, changed_by="erin", changed_at=NOW, delivered_seconds=0.31
    )
    server.answers("GET", STATUS, beside)
    shown = rampart("status", "checkout-v2").stdout
    assert "last changed by erin 2026-11-18 14:00:00 UTC   reached SDKs after 310 ms" in shown
    assert f"not ours, and {told}: rule eu-only" in shown


def test_status_of_a_killed_run_says_who_and_why(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", STATUS, KILLED)
    told = rampart("status", "checkout-v2")
    assert told.returncode == 0
    assert "✖ KILLED" in told.stdout
    assert "provider off ✔" in told.stdout
    assert "by on-call" in told.stdout
    assert "INC-4821 5xx at checkout" in told.stdout


def test_a_killed_run_is_off_only_when_the_kill_was_read_back(rampart: Rampart, server: StubServer) -> None:
    """The latest tick of the run saw the flag as it was before the kill, or not confirmed: it proves nothing."""
    before = replace(KILLED, observed_exposure=10_000, observed_enabled=True)
    server.answers("GET", STATUS, before, replace(before, kills=[kill(confirmed_at=None)]))
    assert "provider off ✔ read back 2026-11-18 14:00:02 UTC" in rampart("status", "checkout-v2").stdout
    unconfirmed = rampart("status", "checkout-v2").stdout
    assert "provider ✖ UNCONFIRMED" in unconfirmed
    assert "provider off" not in unconfirmed


def test_what_could_not_be_read_is_unknown_and_not_off(rampart: Rampart, server: StubServer) -> None:
    unread = run(observed_exposure=None, observed_enabled=None, observed_at=None, confirmed=False)
    server.answers("GET", STATUS, unread)
    shown = rampart("status", "checkout-v2").stdout
    assert "provider ? unknown" in shown
    assert "provider off" not in shown


def test_a_difference_between_desired_and_observed_stands_out(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", STATUS, run(observed_exposure=25_000))
    assert "provider 25 % ≠ differs" in rampart("status", "checkout-v2").stdout


def test_json_is_exactly_what_the_api_answers(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", STATUS, run())
    shown = rampart("status", "checkout-v2", "-o", "json").stdout
    assert json.loads(shown) == msgspec.to_builtins(run())
    assert list(json.loads(shown)) == list(msgspec.to_builtins(run()))


def test_a_run_can_be_named_by_its_number(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", STATUS, KILLED)
    assert rampart("status", "checkout-v2#2").returncode == 0
    assert server.asked[0].query == {"run": "2"}


def test_list_shows_one_line_a_plan(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "plans", [SUMMARY, NEVER_STARTED])
    _, first, second = rampart("list").stdout.splitlines()
    assert first.split()[:3] == ["checkout-v2", "production", "checkout-v2"]
    assert "▶ PROGRESSING  2/4 early" in first
    assert second.endswith("never started")


def test_explain_prints_the_servers_text(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "plans/checkout-v2/explain", EXPLANATION)
    assert rampart("explain", "checkout-v2").stdout.startswith(EXPLANATION.text)


@pytest.mark.parametrize("verb", ["start", "advance", "pause", "resume", "step-back", "approve", "abandon"])
def test_a_command_sends_its_note_and_shows_the_run(rampart: Rampart, server: StubServer, verb: str) -> None:
    server.answers("POST", f"plans/checkout-v2/{verb}", run())
    told = rampart(verb, "checkout-v2", "-m", "release 2.14")
    assert told.returncode == 0
    assert server.bodies(f"plans/checkout-v2/{verb}") == [{"note": "release 2.14"}]
    assert told.stdout.startswith("checkout-v2#3")


@pytest.mark.parametrize(
    ("goal", "seen", "code"),
    [
        ("completed", COMPLETED, 0),
        ("completed", PAUSED, 10),
        ("completed", KILLED, 11),
        ("paused", PAUSED, 0),
        ("paused", KILLED, 11),
        ("killed", KILLED, 0),
        ("killed", COMPLETED, 1),
        ("completed", run(phase="abandoned"), 1),
        ("stage=early", run(), 0),
        ("stage=canary", run(), 0),
        ("stage=half", COMPLETED, 0),
        ("stage=half", KILLED, 11),
    ],
)
def test_wait_ends_with_the_code_of_what_it_saw(
    rampart_process: Rampart, server: StubServer, goal: str, seen: object, code: int
) -> None:
    server.answers("GET", STATUS, seen)
    assert rampart_process("wait", "checkout-v2", "--for", goal).returncode == code


def test_wait_goes_on_until_the_stage_was_read_back(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", STATUS, run(confirmed=False), run())
    assert rampart("wait", "checkout-v2", "--for", "stage=early").returncode == 0
    assert len(server.asked) == 2
    assert server.asked[1].query == {"run": "3"}


def test_wait_gives_up_after_its_timeout_and_says_where_the_run_is(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", STATUS, run())
    told = rampart("wait", "checkout-v2", "--for", "completed", "--timeout", "1s")
    assert told.returncode == 3
    assert "not reached within 1s; checkout-v2#3 is progressing at 10 %" in told.stderr


@pytest.mark.parametrize("goal", ["done", "stage=", "stage=nope"])
def test_waiting_for_what_cannot_be_is_a_usage_error(rampart: Rampart, server: StubServer, goal: str) -> None:
    server.answers("GET", STATUS, run())
    assert rampart("wait", "checkout-v2", "--for", goal).returncode == 2


def test_wait_outlives_a_server_that_is_away_for_a_moment(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", STATUS, run(), problem("unavailable", 503, "the database does not answer"), COMPLETED)
    told = rampart("wait", "checkout-v2", "--for", "completed")
    assert told.returncode == 0
    assert "unreachable, retrying: the database does not answer" in told.stderr
    assert "reachable again" in told.stderr


def test_a_watch_without_a_terminal_writes_a_line_for_each_change(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", STATUS, run(), run(), KILLED)
    told = rampart("status", "checkout-v2", "--watch")
    assert told.returncode == 11
    assert len(told.stdout.splitlines()) == 2
    assert "\x1b" not in told.stdout


def test_a_watch_as_json_is_one_answer_a_line(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", STATUS, run(), COMPLETED)
    told = rampart("status", "checkout-v2", "--watch", "-o", "json")
    assert told.returncode == 0
    assert [json.loads(line)["phase"] for line in told.stdout.splitlines()] == ["progressing", "completed"]


def test_a_watch_draws_in_place_says_when_the_server_is_lost_and_ends_with_the_run(
    terminal: Callable[..., Terminal], server: StubServer
) -> None:
    lost = problem("busy", 503, "restarting")
    server.answers("GET", STATUS, run(), lost, PAUSED, KILLED)
    screen = terminal("status", "checkout-v2", "--watch")
    screen.see("▶ PROGRESSING")
    screen.see("unreachable, retrying")
    screen.see("⏸ PAUSED")
    assert screen.exit_code() == 11
    before, after = screen.shown.split("\x1b[?1049l")
    assert before.startswith("\x1b[?1049h")
    assert "✖ KILLED" in after


def test_ctrl_c_ends_a_watch_and_gives_the_terminal_back(
    terminal: Callable[..., Terminal], server: StubServer
) -> None:
    server.answers("GET", STATUS, run())
    screen = terminal("status", "checkout-v2", "--watch")
    screen.see("▶ PROGRESSING")
    screen.interrupt()
    assert screen.exit_code() == 130
    assert "\x1b[?25h\x1b[?1049l" in screen.shown
    assert "Traceback" not in screen.shown


def test_colours_are_for_terminals_that_want_them(
    terminal: Callable[..., Terminal], rampart: Rampart, server: StubServer
) -> None:
    server.answers("GET", "plans", [SUMMARY])
    coloured, plain = terminal("list"), terminal("list", NO_COLOR="1")
    assert (coloured.exit_code(), plain.exit_code()) == (0, 0)
    assert "\x1b[" in coloured.shown
    assert "\x1b[" not in plain.shown
    assert "\x1b[" not in rampart("list").stdout


def test_an_old_locale_does_not_break_the_output(rampart_process: Rampart, server: StubServer) -> None:
    server.answers("GET", "plans", Reply([SUMMARY]))
    assert rampart_process("list", PYTHONIOENCODING="latin-1", PYTHONUTF8="0").returncode == 0


# — beside what people did —


def times(name: str, exposure: int, rampart: datetime | None, people: datetime | None) -> StageTimes:
    return StageTimes(name=name, exposure=exposure, rampart_at=rampart, people_at=people)


def told(minutes: int, column: Any, text: str, exposure: int | None = None) -> ReportLine:
    return ReportLine(
        at=NOW + timedelta(minutes=minutes), column=column, action="observe", text=text, exposure=exposure
    )


OBSERVED = RunReport(
    run="checkout-v2#3",
    plan="checkout-v2",
    flag=FLAG,
    mode="observe",
    phase="progressing",
    stages=[times("canary", 1_000, NOW, NOW), times("early", 10_000, NOW + timedelta(minutes=35), None)],
    lines=[
        told(0, "people", "the flag is at 1 % to begin with, last changed by erin", 1_000),
        told(0, "rampart", "would have started at 1 % (canary)", 1_000),
        told(20, "people", "people changed the flag from 1 % to 5 %, last changed by erin", 5_000),
        told(35, "rampart", "would have advanced from 1 % to 10 % (early)", 10_000),
        told(36, "rampart", "would have been paused by web/errors-high"),
    ],
)


def test_a_report_shows_where_rampart_and_people_stood_at_each_moment(
    rampart: Rampart, server: StubServer
) -> None:
    server.answers("GET", "plans/checkout-v2/report", OBSERVED)
    shown = rampart("report", "checkout-v2#3").stdout.splitlines()
    assert shown[2:5] == [
        "STAGE   EXPOSURE  RAMPART WOULD HAVE       PEOPLE DID",
        "canary  1 %       2026-11-18 14:00:00 UTC  2026-11-18 14:00:00 UTC",
        "early   10 %      2026-11-18 14:35:00 UTC  –",
    ]
    stood = [line[len("2026-11-18 14:00:00 UTC") :].strip() for line in shown[7:]]
    assert stood == [
        "–        1 %     the flag is at 1 % to begin with, last changed by erin",
        "1 %      1 %     would have started at 1 % (canary)",
        "1 %      5 %     people changed the flag from 1 % to 5 %, last changed by erin",
        "10 %     5 %     would have advanced from 1 % to 10 % (early)",
        "10 %     5 %     would have been paused by web/errors-high",
    ]


def test_a_report_of_a_run_that_acts_says_who_did_what(rampart: Rampart, server: StubServer) -> None:
    acting = replace(
        OBSERVED, mode="enforce", lines=[told(0, "rampart", "started", 1_000), told(1, "people", "paused")]
    )
    server.answers("GET", "plans/checkout-v2/report", acting)
    shown = rampart("report", "checkout-v2").stdout.splitlines()
    assert shown[2].split() == ["STAGE", "EXPOSURE", "REACHED"]
    assert shown[-2:] == [
        "2026-11-18 14:00:00 UTC  Rampart  1 %       started",
        "2026-11-18 14:01:00 UTC  people             paused",
    ]


def test_a_flag_is_adopted_by_its_key_and_the_plan_is_named(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", "flags/checkout/adopt", run())
    done = rampart("adopt", "checkout", "--environment", "production", "-m", "by hand until now")
    assert "taken over; follow it: rampart status checkout-v2 --watch" in done.stderr
    assert server.bodies("flags/checkout/adopt") == [{"note": "by hand until now", "environment": "production"}]


def test_status_of_a_plan_that_observes_shows_both_and_no_difference(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", STATUS, run(mode="observe", observed_exposure=5_000))
    shown = rampart("status", "checkout-v2").stdout
    assert "exposure  Rampart would serve 10 %   people 5 %, read " in shown
    assert "differs" not in shown
