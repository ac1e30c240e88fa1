"""Reaching the server, being known to it, and being told no."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli.connection import Connection, Unreachable
from tests.cli.answers import COMPLETED, SUMMARY, kill, run
from tests.cli.conftest import Rampart
from tests.cli.stub_server import TOKEN, Reply, StubServer, problem


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("refused", 422, 4),
        ("forbidden", 403, 4),
        ("unauthenticated", 401, 4),
        ("conflict", 409, 5),
        ("kill-in-force", 409, 5),
        ("not-found", 404, 2),
        ("malformed", 400, 2),
        ("too-large", 413, 2),
        ("unavailable", 503, 3),
        ("busy", 503, 3),
        ("too-many-attempts", 429, 3),
        ("internal", 500, 3),
    ],
)
def test_each_kind_of_problem_has_its_exit_code(
    rampart_process: Rampart, server: StubServer, kind: str, status: int, code: int
) -> None:
    server.answers("POST", "plans/checkout-v2/start", problem(kind, status, "that is how it is"))
    told = rampart_process("start", "checkout-v2")
    assert told.returncode == code
    assert told.stdout == ""
    assert told.stderr.startswith("error: that is how it is\n")


def test_what_is_in_the_way_is_shown_as_bullets(rampart: Rampart, server: StubServer) -> None:
    refusal = problem("refused", 422, "cannot advance now", blocks=["bake: 48m of 2h", "schedule: until 09:00"])
    server.answers("POST", "plans/checkout-v2/advance", refusal)
    told = rampart("advance", "checkout-v2")
    assert told.stderr == "error: cannot advance now\n  - bake: 48m of 2h\n  - schedule: until 09:00\n"


def test_a_wrong_field_is_named(rampart: Rampart, server: StubServer) -> None:
    wrong = [{"path": "name", "message": "must match a pattern"}]
    server.answers("POST", "sdk-keys", problem("malformed", 400, "the body is wrong", problems=wrong))
    told = rampart("sdk-key", "create", "shop", "--environment", "production")
    assert told.returncode == 2
    assert "  - name: must match a pattern" in told.stderr


def test_an_unreachable_server_is_named_with_what_to_try(rampart: Rampart) -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    told = rampart("list", "--url", url)
    assert told.returncode == 3
    assert url in told.stderr
    assert "rampart serve" in told.stderr
    assert "RAMPART_URL" in told.stderr


def test_an_unknown_host_is_unreachable(rampart: Rampart) -> None:
    told = rampart("list", "--url", "http://rampart.invalid:8400")
    assert told.returncode == 3
    assert "Traceback" not in told.stderr


def test_something_else_that_answers_is_not_taken_for_rampart(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "plans", Reply(b"<html>Welcome to nginx!</html>", 404))
    told = rampart("list")
    assert told.returncode == 3
    assert "not as Rampart does" in told.stderr


def test_an_answer_that_is_not_understood_is_no_traceback(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "plans", {"plans": "none"})
    told = rampart("list")
    assert told.returncode == 3
    assert "rampart version" in told.stderr


def test_a_redirect_is_not_followed_with_the_token(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "plans", Reply(None, 302, headers={"Location": "https://elsewhere.example/"}))
    told = rampart("list")
    assert told.returncode == 3
    assert "https://elsewhere.example/" in told.stderr
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "url", ["rampart:8400", "ftp://rampart", "http://", "http://host:port", "http://user:secret@host"]
)
def test_a_url_that_is_none_is_a_usage_error(rampart: Rampart, url: str) -> None:
    told = rampart("list", "--url", url)
    assert told.returncode == 2
    assert "Traceback" not in told.stderr


def test_the_token_comes_from_a_file_when_the_variable_is_unset(
    rampart: Rampart, server: StubServer, tmp_path: Path
) -> None:
    server.answers("GET", "plans", [SUMMARY])
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert rampart("list", RAMPART_TOKEN="", RAMPART_TOKEN_FILE=str(tmp_path / "token")).returncode == 0
    assert server.asked[0].token == TOKEN


def test_on_the_servers_own_machine_its_admin_token_is_found(
    rampart: Rampart, server: StubServer, tmp_path: Path
) -> None:
    server.answers("GET", "plans", [SUMMARY])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.token").write_text(TOKEN)
    (tmp_path / "rampart.toml").write_text('data_dir = "./data"')
    assert rampart("list", RAMPART_TOKEN="").returncode == 0
    assert server.asked[0].token == TOKEN


def test_without_a_token_the_refusal_says_where_to_put_one(rampart: Rampart) -> None:
    told = rampart("list", RAMPART_TOKEN="")
    assert told.returncode == 4
    assert "RAMPART_TOKEN_FILE" in told.stderr


def test_a_token_file_that_is_not_there_is_named(rampart: Rampart) -> None:
    told = rampart("list", RAMPART_TOKEN="", RAMPART_TOKEN_FILE="/nowhere/token")
    assert told.returncode == 2
    assert "/nowhere/token" in told.stderr


def test_a_mangled_token_is_refused_without_being_shown(rampart: Rampart, server: StubServer) -> None:
    told = rampart("list", RAMPART_TOKEN="rampart_top\nsecret")
    assert told.returncode == 2
    assert "secret" not in told.stderr
    assert server.asked == []


def test_a_broken_settings_file_is_a_sentence(rampart: Rampart, tmp_path: Path) -> None:
    (tmp_path / "rampart.toml").write_text("data_dir = 3 = 4")
    told = rampart("list", RAMPART_TOKEN="")
    assert told.returncode == 2
    assert told.stderr.startswith("error: settings: rampart.toml")


def test_a_connection_that_died_while_idle_is_opened_anew_for_a_question(
    rampart: Rampart, server: StubServer
) -> None:
    server.answers("GET", "plans/checkout-v2/status", run(), Reply(None, hangs=True), COMPLETED)
    server.released.set()
    told = rampart("wait", "checkout-v2", "--for", "completed")
    assert told.returncode == 0
    assert len(server.asked) == 3


def test_a_server_that_hangs_is_not_waited_for_twice(server: StubServer) -> None:
    server.answers("GET", "plans", [SUMMARY], Reply(None, hangs=True))
    connection = Connection(server.url, timeout=0.3, environ={"RAMPART_TOKEN": TOKEN})
    connection.get("plans")
    with pytest.raises(Unreachable, match="no answer within"):
        connection.get("plans")
    assert len(server.asked) == 2


def test_a_request_that_changes_something_is_never_sent_twice(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "kills", [kill()])
    server.answers("POST", "flags/checkout-v2/reset", Reply(None, hangs=True))
    server.released.set()
    assert rampart("reset", "checkout-v2", "--yes").returncode == 3
    assert [asked.method for asked in server.asked] == ["GET", "POST"]


def test_control_characters_of_an_answer_never_reach_the_terminal(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "plans/checkout-v2/status", run(reason="quiet\x1b]0;owned\x07\x1b[2J"))
    shown = rampart("status", "checkout-v2").stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "quiet" in shown


def test_a_reader_that_leaves_early_causes_no_traceback(
    rampart: Rampart, server: StubServer, environment: dict[str, str]
) -> None:
    server.answers("GET", "plans", [SUMMARY] * 5000)
    with subprocess.Popen(
        [sys.executable, "-m", "controller", "list"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.readline()
        listing.stdout.close()
        assert listing.stderr.read() == ""
