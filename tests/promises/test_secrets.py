"""Canaries in every setting, token and key of a real server: none of them comes out anywhere (promise I17)."""

import http.client
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import manifests
from tests.support.server import RampartServer, free_port, wait_until

CANARIES = {
    name: f"canary-{name}-{os.urandom(8).hex()}" for name in ("bearer", "header", "password", "url", "target")
}

SETTINGS = """\
[sources.app]
kind = "prometheus"
url = "http://someone:{url}@127.0.0.1:{port}"
bearer_token_file = "{folder}/bearer"
[sources.app.headers]
X-Scope-OrgID = "{header}"
[sources.basic]
kind = "prometheus"
url = "http://127.0.0.1:{port}"
username = "someone"
password_file = "{folder}/password"
[sources.scraped]
kind = "scrape"
targets = ["http://someone:{target}@127.0.0.1:{port}/metrics"]
bearer_token_file = "{folder}/bearer"
every_seconds = 0.2
[server]
"""


class Told:
    """Everything that came out of the server, by where it came out."""

    def __init__(self, server: RampartServer) -> None:
        self.server = server
        self.texts: list[tuple[str, str]] = []

    def ask(self, method: str, path: str, body: object = None, token: str | None = "admin") -> Any:
        answer = self.server.request(method, path, body, token=token)
        self.texts.append((f"{method} {path} {answer.status}", answer.body.decode(errors="replace")))
        return answer

    def leaks(self, secrets: dict[str, str]) -> list[str]:
        texts = [*self.texts, ("the log", self.server.log.read_text(errors="replace"))]
        return [
            f"{name} in {where}" for name, secret in secrets.items() for where, text in texts if secret in text
        ]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RampartServer]:
    for name in ("bearer", "password"):
        (tmp_path / name).write_text(CANARIES[name])
    values = {"folder": tmp_path, "port": free_port(), **CANARIES}
    made = RampartServer(tmp_path, 'log_level = "debug"\n' + SETTINGS.format(**values).removesuffix("[server]\n"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.mark.timeout(90)
def test_no_secret_comes_out_of_a_server_anywhere(server: RampartServer) -> None:
    told = Told(server)
    made = server.call("POST", "tokens", {"name": "ci", "scopes": ["read"]})
    key = server.call("POST", "sdk-keys", {"name": "shop", "environment": "production"})
    secrets = {**CANARIES, "admin token": server.token, "token": made["secret"], "sdk key": key["secret"]}
    server.apply(
        a_policy=manifests.policy(), a_flag=manifests.flag("checkout"), a_rollout=manifests.plan("checkout")
    )
    trigger = server.call("POST", "triggers", {"flag": "checkout", "environment": "production"})
    secrets["trigger"] = trigger["path"].removeprefix("/k/")
    server.command("checkout", "start", note="go")
    wait_until(lambda: server.status("checkout")["rules"], what="the sources to have been asked")
    ask_everything(told, secrets)
    server.kill_flag("checkout")
    ask_everything(told, secrets)
    assert told.leaks(secrets) == []
    assert "http://" in server.log.read_text() or "source" in server.log.read_text()
    stored = [path for path in server.data.glob("*") if path.is_file() and path.name != "admin.token"]
    assert {path.name for path in stored} >= {"kills.journal", "last-known.json"}
    assert [
        (path.name, name)
        for path in stored
        for name, secret in secrets.items()
        if secret.encode() in path.read_bytes()
    ] == []


def ask_everything(told: Told, secrets: dict[str, str]) -> None:
    """Every route that answers, as somebody, as nobody, and with secrets where they do not belong."""
    document = told.ask("GET", "/api/v1/openapi.json").json
    gets = [path for path, methods in document["paths"].items() if "get" in methods]
    for path in gets:
        filled = re.sub(r"\{(\w+)\}", lambda name: {"run": "1", "revision": "1"}.get(name[1], "checkout"), path)
        told.ask("GET", filled)
        told.ask("GET", filled, token=None)
        told.ask("GET", filled, token=secrets["token"])
        told.ask("GET", filled, token=f"{secrets['admin token']}x"[1:])
    told.ask("GET", "/metrics")
    told.ask("POST", "/api/v1/tokens", {"name": "ci", "scopes": 1})
    told.ask("POST", "/api/v1/plans/checkout/start", {"note": 7}, token=secrets["token"])
    for path in (f"/k/{secrets['trigger']}", f"/k/{secrets['trigger']}/more", f"/k/{secrets['trigger']}x"):
        for method in ("GET", "PUT"):
            answer = told.server.request(method, path, token=None)
            told.texts.append((f"{method} of a trigger {answer.status}", answer.body.decode()))
    ask_raw(told, "GET", "/sdk/latest-all", secrets["sdk key"])
    ask_raw(told, "GET", "/sdk/latest-all", f"{secrets['sdk key']}wrong")


def ask_raw(told: Told, method: str, path: str, authorization: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", told.server.port, timeout=10)
    connection.request(method, path, headers={"Authorization": authorization})
    answer = connection.getresponse()
    told.texts.append((f"{method} {path} {answer.status} {answer.getheaders()}", answer.read().decode()))
    connection.close()
