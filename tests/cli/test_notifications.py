"""What people see of messages that were not delivered, and how they send them again."""

import json
from collections.abc import Callable

import pytest

from controller.domain.message import Message
from controller.domain.notification import Backlog, DeadLetter, LettersChanged
from tests.cli.answers import NOW
from tests.cli.conftest import Rampart
from tests.cli.stub_server import StubServer, problem
from tests.cli.terminal import Terminal

TOLD = Message(
    id="e1",
    sequence=41,
    event="killed",
    at=NOW,
    environment="production",
    flag="main/production/checkout-v2",
    actor="rampart",
    cause="policy",
    reason="error_rate 12 % is above 10 %",
    rollout="checkout-v2",
)
LETTER = DeadLetter(
    id="17", channel="oncall", died_at=NOW, attempts=1, why="410: the address is gone", message=TOLD
)
UNREADABLE = DeadLetter(id="18", channel="team", died_at=NOW, attempts=0, why="it cannot be read: …", message=None)
WELL = [Backlog(channel="oncall"), Backlog(channel="team", waiting=1, oldest_waiting_seconds=2.0)]
ILL = [
    Backlog(channel="oncall", dead=1),
    Backlog(channel="team", waiting=3, oldest_waiting_seconds=600.0, dead=1, why="answered 503"),
]


def test_where_nothing_is_dead_a_table_says_so(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "notifications", WELL)
    server.answers("GET", "notifications/dead", [])
    told = rampart("notifications")
    assert told.returncode == 0
    assert told.stdout.splitlines()[1:] == [
        "oncall   none          none",
        "team     none          1, the oldest for 2s",
    ]
    assert told.stderr == ""


def test_a_dead_letter_is_shown_with_what_it_says_why_it_is_dead_and_what_to_do(
    rampart: Rampart, server: StubServer
) -> None:
    server.answers("GET", "notifications", ILL)
    server.answers("GET", "notifications/dead", [LETTER, UNREADABLE])
    told = rampart("notifications", "list")
    assert told.returncode == 1
    assert "17  to oncall: checkout-v2 killed in production, 2026-11-18 14:00" in told.stdout
    assert "error_rate 12 % is above 10 %" in told.stdout
    assert "given up after 1 attempt: 410: the address is gone" in told.stdout
    assert "18  to team: a message that cannot be read" in told.stdout
    assert "3, the oldest for 10m: answered 503" in told.stdout
    assert "rampart notifications redeliver" in told.stderr


def test_a_program_gets_channels_and_letters(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "notifications", ILL)
    server.answers("GET", "notifications/dead", [LETTER])
    told = rampart("notifications", "-o", "json")
    assert told.returncode == 1
    shown = json.loads(told.stdout)
    assert [one["channel"] for one in shown["channels"]] == ["oncall", "team"]
    assert shown["dead"][0]["message"]["reason"] == "error_rate 12 % is above 10 %"
    assert told.stderr == ""


def test_more_than_a_page_of_dead_letters_is_read_to_its_end(
    rampart: Rampart, server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.cli.notifications.PAGE", 1)
    server.answers("GET", "notifications", ILL)
    server.answers("GET", "notifications/dead", [LETTER], [UNREADABLE], [])
    assert len(json.loads(rampart("notifications", "-o", "json").stdout)["dead"]) == 2
    pages = [asked.query["after"] for asked in server.asked if asked.path == "notifications/dead"]
    assert pages == ["0", "17", "18"]


def test_only_of_one_channel_and_none_of_that_name(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "notifications", ILL)
    server.answers("GET", "notifications/dead", [LETTER])
    told = rampart("notifications", "list", "--channel", "oncall")
    assert "team" not in told.stdout
    assert server.asked[-1].query["channel"] == "oncall"
    assert rampart("notifications", "list", "--channel", "onkall").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (["17", "18"], {"ids": ["17", "18"], "channel": None, "everything": False, "note": ""}),
        (
            ["--channel", "oncall", "-m", "back"],
            {"ids": [], "channel": "oncall", "everything": False, "note": "back"},
        ),
        (["--all"], {"ids": [], "channel": None, "everything": True, "note": ""}),
    ],
)
def test_dead_letters_are_sent_again(
    rampart: Rampart, server: StubServer, arguments: list[str], body: dict[str, object]
) -> None:
    server.answers("POST", "notifications/dead/redeliver", LettersChanged(ids=["17", "18"]))
    told = rampart("notifications", "redeliver", *arguments)
    assert (told.returncode, told.stdout) == (0, "2 dead letters will be tried again\n")
    assert server.bodies("notifications/dead/redeliver") == [body]


@pytest.mark.parametrize("verb", ["redeliver", "discard"])
@pytest.mark.parametrize("arguments", [[], ["--all", "17"], ["--all", "--channel", "oncall"], ["zero"], ["0"]])
def test_which_ones_must_be_said(rampart: Rampart, server: StubServer, verb: str, arguments: list[str]) -> None:
    assert rampart("notifications", verb, *arguments, *(["--yes"] if verb == "discard" else [])).returncode == 2
    assert server.asked == []


def test_without_a_terminal_a_discard_needs_its_reason(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", "notifications/dead/discard", LettersChanged(ids=["17"]))
    told = rampart("notifications", "discard", "17")
    assert (told.returncode, server.asked) == (2, [])
    assert "-m" in told.stderr
    told = rampart("notifications", "discard", "17", "-m", "switched off")
    assert (told.returncode, told.stdout) == (0, "discarded 1 dead letter\n")


@pytest.mark.parametrize(("typed", "sent"), [("y", True), ("n", False)])
def test_on_a_terminal_a_discard_asks_once(
    terminal: Callable[..., Terminal], server: StubServer, typed: str, sent: bool
) -> None:
    server.answers("POST", "notifications/dead/discard", LettersChanged(ids=["17"]))
    shown = terminal("notifications", "discard", "17")
    shown.see("Forget these dead letters?")
    shown.type(f"{typed}\n")
    assert shown.exit_code() == (0 if sent else 1)
    assert bool(server.bodies("notifications/dead/discard")) is sent


def test_ids_that_are_dead_no_more_are_told_as_the_server_tells_it(rampart: Rampart, server: StubServer) -> None:
    server.answers(
        "POST", "notifications/dead/redeliver", problem("not-found", 404, "no dead letter has the id 9")
    )
    told = rampart("notifications", "redeliver", "9")
    assert told.returncode != 0
    assert "no dead letter has the id 9" in told.stderr
