"""Secrets are shown once; the server is asked how it is."""

import json

import pytest

from controller import __version__
from controller.domain.status import Check
from tests.cli.answers import NOW
from tests.cli.conftest import Rampart
from tests.cli.stub_server import Reply, StubServer, problem

TOKEN_VIEW = {
    "name": "ci",
    "scopes": ["read", "operate"],
    "environments": [],
    "created_at": NOW,
    "created_by": "admin",
    "expires_at": None,
}
KEY_VIEW = {
    "name": "shop",
    "kind": "server",
    "environment": "production",
    "client_side_id": None,
    "created_at": NOW,
    "created_by": "admin",
}
SECRET = "rampart_only-once"


def test_the_secret_alone_is_on_stdout(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", "tokens", Reply({**TOKEN_VIEW, "secret": SECRET}, 201))
    told = rampart(
        *["token", "create", "ci", "--scope", "read", "--scope", "operate"],
        *["--environment", "production", "--expires", "30d"],
    )
    assert told.stdout == f"{SECRET}\n"
    assert SECRET not in told.stderr
    assert "shown once" in told.stderr
    wanted = {"name": "ci", "scopes": ["read", "operate"], "environments": ["production"], "expires_in": "30d"}
    assert server.bodies("tokens") == [wanted]


def test_a_token_without_limits_is_asked_for_as_such(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", "tokens", Reply({**TOKEN_VIEW, "secret": SECRET}, 201))
    shown = rampart("token", "create", "ci", "--scope", "read", "-o", "json").stdout
    assert json.loads(shown)["secret"] == SECRET
    assert server.bodies("tokens") == [{"name": "ci", "scopes": ["read"], "environments": [], "expires_in": None}]


@pytest.mark.parametrize(
    "wrong", [["--scope", "everything"], ["--scope", "read", "--expires", "soon"], ["--expires", "30d"]]
)
def test_a_wrong_scope_or_lifetime_is_a_usage_error(
    rampart: Rampart, server: StubServer, wrong: list[str]
) -> None:
    assert rampart("token", "create", "ci", *wrong).returncode == 2
    assert server.asked == []


def test_tokens_are_listed_and_revoked(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "tokens", [TOKEN_VIEW])
    server.answers("DELETE", "tokens/ci", Reply(None, 204))
    assert rampart("token").stdout == rampart("token", "list").stdout
    assert rampart("token", "-o", "json").stdout.startswith("[")
    told = rampart("token", "revoke", "ci")
    assert (told.returncode, told.stderr) == (0, "revoked ci\n")
    assert json.loads(rampart("token", "revoke", "ci", "-o", "json").stdout) is None


def test_sdk_keys_are_created_listed_and_revoked(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", "sdk-keys", Reply({**KEY_VIEW, "secret": "sdk-once"}, 201))
    server.answers("GET", "sdk-keys", [KEY_VIEW])
    server.answers("DELETE", "sdk-keys/shop", Reply(None, 204))
    assert rampart("sdk-key", "create", "shop", "--environment", "production").stdout == "sdk-once\n"
    assert server.bodies("sdk-keys") == [{"name": "shop", "environment": "production", "kind": "server"}]
    assert "production" in rampart("sdk-key", "list").stdout
    assert rampart("sdk-key", "revoke", "shop").returncode == 0


def test_a_client_side_id_is_shown_again_because_it_is_no_secret(rampart: Rampart, server: StubServer) -> None:
    view = {**KEY_VIEW, "name": "web", "kind": "client", "client_side_id": "0123456789abcdef01234567"}
    server.answers("POST", "sdk-keys", Reply({**view, "secret": view["client_side_id"]}, 201))
    server.answers("GET", "sdk-keys", [KEY_VIEW, view])
    created = rampart("sdk-key", "create", "web", "--environment", "production", "--kind", "client")
    assert created.stdout == "0123456789abcdef01234567\n"
    assert "public" in created.stderr
    shop, web = rampart("sdk-key", "list").stdout.splitlines()[1:]
    assert ("server" in shop, "secret" in shop) == (True, True)
    assert ("client" in web, "0123456789abcdef01234567" in web) == (True, True)


def test_doctor_says_what_to_do_and_exits_with_one(rampart: Rampart, server: StubServer) -> None:
    server.answers(
        "GET",
        "doctor",
        [
            Check(name="database", state="ok", detail="answers in 2 ms"),
            Check(name="channels", state="warn", detail="none is configured", fix="add [channels.NAME]"),
            Check(name="source prod-prometheus", state="fail", detail="connection refused", fix="check its url"),
        ],
    )
    told = rampart("doctor")
    assert told.returncode == 1
    assert told.stdout.splitlines() == [
        "✔ database: answers in 2 ms",
        "! channels: none is configured",
        "    → add [channels.NAME]",
        "✖ source prod-prometheus: connection refused",
        "    → check its url",
        "",
        "1 ok, 1 warned of, 1 failed",
    ]


def test_a_risk_alone_is_no_failure_of_the_doctor(rampart: Rampart, server: StubServer) -> None:
    risk = Check(name="channels", state="warn", detail="none is configured", fix="add [channels.NAME]")
    server.answers("GET", "doctor", [risk])
    told = rampart("doctor", "checkout-v2", "search", "-o", "json")
    assert told.returncode == 0
    assert json.loads(told.stdout)[0]["fix"] == "add [channels.NAME]"
    assert server.asked[-1].query == {"plans": "checkout-v2,search"}


def test_a_test_message_is_sent_only_when_asked_for(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "doctor", [Check(name="database", state="ok", detail="answers")])
    server.answers(
        "POST", "doctor/test-messages", [Check(name="channel oncall", state="fail", detail="401", fix="log in")]
    )
    assert "oncall" not in rampart("doctor").stdout
    told = rampart("doctor", "--send-test")
    assert "✖ channel oncall: 401" in told.stdout
    assert told.returncode == 1


def test_version_shows_both_sides(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "version", {"version": "0.9.9"})
    assert rampart("version").stdout == f"rampart {__version__}\nserver  0.9.9\n"
    alone = rampart("version", "-o", "json", "--url", "http://127.0.0.1:1")
    assert alone.returncode == 0
    assert json.loads(alone.stdout) == {"client": __version__, "server": None}


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_settings_that_are_wrong_stop_the_server_with_a_sentence(rampart: Rampart, command: str) -> None:
    told = rampart(command, "--config", "/nowhere/rampart.toml")
    assert told.returncode == 2
    assert told.stderr == "error: settings: settings file /nowhere/rampart.toml does not exist\n"


def test_a_health_check_needs_no_token_and_asks_no_more_than_it_must(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "healthz", {"status": "ok"})
    told = rampart("healthz", RAMPART_TOKEN="")
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    assert [asked.path for asked in server.asked] == ["healthz"]


def test_a_server_that_is_not_ready_fails_a_health_check_and_says_why(
    rampart: Rampart, server: StubServer
) -> None:
    server.answers("GET", "readyz", problem("not-ready", 503, "no flags are known yet"))
    told = rampart("healthz", "--ready")
    assert told.returncode == 3
    assert "no flags are known yet" in told.stderr


def test_a_server_that_is_not_there_fails_a_health_check(rampart: Rampart) -> None:
    assert rampart("healthz", "--url", "http://127.0.0.1:9").returncode == 3
