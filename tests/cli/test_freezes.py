"""What people see of freezes on the command line."""

import json
from datetime import timedelta
from typing import Any

from controller.domain.freezes import FreezeStatus
from tests.cli.answers import NOW
from tests.cli.conftest import Rampart
from tests.cli.stub_server import StubServer


def status(**values: Any) -> FreezeStatus:
    return FreezeStatus(
        **{
            "name": "black-friday",
            "state": "holds",
            "starts_at": NOW,
            "ends_at": NOW + timedelta(days=2),
            "timezone": "UTC",
            "environments": [],
            "labels": {},
            "reason": "the shop is full",
            "added_by": "dana",
            "added_at": NOW,
            "plans": ["checkout-v2", "search-v3"],
            **values,
        }
    )


def test_a_freeze_is_added_with_what_was_given_and_shown_with_what_it_covers(
    rampart: Rampart, server: StubServer
) -> None:
    server.answers("POST", "freezes", status(labels={"tier": "1"}, environments=["production"]))
    told = rampart(
        "freeze", "add", "black-friday", "--to", "2026-12-01T08:00", "--timezone", "Europe/Berlin",
        "--environment", "production", "--selector", "tier=1,team=checkout", "-m", "the shop is full",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert server.bodies("freezes") == [
        {
            "name": "black-friday",
            "to": "2026-12-01T08:00",
            "timezone": "Europe/Berlin",
            "environments": ["production"],
            "labels": {"tier": "1", "team": "checkout"},
            "reason": "the shop is full",
        }
    ]
    assert "black-friday: what has tier=1 in production is frozen from" in told.stdout
    assert "covers 2 plans now: checkout-v2, search-v3" in told.stdout
    assert "rampart freeze lift black-friday" in told.stderr


def test_a_selector_that_is_none_is_wrong_usage(rampart: Rampart, server: StubServer) -> None:
    told = rampart("freeze", "add", "x", "--for", "2h", "--selector", "tier", "-m", "why")
    assert told.returncode == 2
    assert "write tier=1,team=checkout" in told.stderr
    assert server.bodies("freezes") == []


def test_a_freeze_without_a_reason_is_wrong_usage(rampart: Rampart, server: StubServer) -> None:
    assert rampart("freeze", "add", "x", "--for", "2h").returncode == 2
    assert rampart("freeze", "lift", "x").returncode == 2


def test_the_list_shows_state_span_and_why(rampart: Rampart, server: StubServer) -> None:
    lifted = status(name="older", state="lifted", lifted_by="kim", lifted_at=NOW)
    server.answers("GET", "freezes", [status(), lifted])
    told = rampart("freeze", "list", "--all")
    assert told.returncode == 0
    assert "black-friday  holds" in told.stdout
    assert "lifted by kim" in told.stdout
    assert "the shop is full (dana)" in told.stdout
    assert server.asked[-1].query == {"all": "true"}


def test_the_list_is_shown_without_a_subcommand_and_says_when_there_is_none(
    rampart: Rampart, server: StubServer
) -> None:
    server.answers("GET", "freezes", [])
    assert rampart("freeze").stdout == "no freeze holds or is to come\n"


def test_lifting_says_what_may_rise_again(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", "freezes/black-friday/lift", status(state="lifted", lifted_at=NOW, lifted_by="dana"))
    told = rampart("freeze", "lift", "black-friday", "-m", "over")
    assert told.returncode == 0
    assert told.stdout.startswith("lifted black-friday; 2 plans may rise again")
    assert server.bodies("freezes/black-friday/lift") == [{"note": "over"}]


def test_a_program_gets_what_the_api_says(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "freezes", [status()])
    assert json.loads(rampart("freeze", "list", "-o", "json").stdout)[0]["name"] == "black-friday"
