"""What people see of triggers on the command line."""

from typing import Any

from tests.cli.answers import NOW
from tests.cli.conftest import Rampart
from tests.cli.stub_server import StubServer

FLAG = {"provider": "main", "environment": "production", "key": "checkout-v2"}


def made(**values: Any) -> dict[str, Any]:
    one = {"name": "pager", "flag": FLAG, "created_at": NOW, "created_by": "dana"}
    return {**one, "path": "/k/rampart_secret", "url": "", **values}


def test_the_address_alone_is_on_stdout_and_how_to_use_it_beside(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", "triggers", made(url="https://rampart.example/k/rampart_secret"))
    told = rampart("trigger", "create", "checkout-v2", "--environment", "production", "--name", "pager")
    assert told.returncode == 0
    assert told.stdout == "https://rampart.example/k/rampart_secret\n"
    assert "can kill main/production/checkout-v2, and nothing else" in told.stderr
    assert "rampart trigger revoke pager" in told.stderr
    assert server.bodies("triggers") == [{"flag": "checkout-v2", "environment": "production", "name": "pager"}]


def test_without_a_public_url_the_address_begins_where_the_command_went(
    rampart: Rampart, server: StubServer
) -> None:
    server.answers("POST", "triggers", made())
    told = rampart("trigger", "create", "checkout-v2", "--environment", "production")
    assert told.stdout == f"{server.url}/k/rampart_secret\n"
    assert "server.public_url" in told.stderr


def test_the_list_shows_what_each_kills_and_revoking_says_so(rampart: Rampart, server: StubServer) -> None:
    listed = {key: value for key, value in made().items() if key not in ("path", "url")}
    server.answers("GET", "triggers", [listed])
    told = rampart("trigger")
    assert "pager    main/production/checkout-v2" in told.stdout
    server.answers("DELETE", "triggers/pager", None)
    assert rampart("trigger", "revoke", "pager").stderr == "revoked pager\n"
