"""The pages for people, read without a browser: one connection, one session."""

import http.client
import re
from urllib.parse import urlencode

from tests.support.server import Answer, RampartServer

HIDDEN = re.compile(r'<input[^>]*type="hidden"[^>]*>')


def _attribute(tag: str, name: str) -> str:
    found = re.search(rf'\b{name}="([^"]*)"', tag)
    return found[1] if found else ""


def hidden_fields(html: str) -> dict[str, str]:
    tags = HIDDEN.findall(html)
    return {_attribute(tag, "name"): _attribute(tag, "value") for tag in tags}


class Reader:
    """Not thread-safe; each thread has its own."""

    def __init__(self, server: RampartServer) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30.0)
        self._cookies: dict[str, str] = {}

    def log_in(self, secret: str) -> None:
        fields = hidden_fields(self.get("/login").body.decode())
        answer = self.post("/login", **fields, token=secret)
        assert answer.status == http.client.SEE_OTHER, f"{answer.status} {answer.body.decode()[:2000]}"

    def get(self, path: str) -> Answer:
        return self._ask("GET", path, None, {})

    def post(self, path: str, **fields: str) -> Answer:
        return self._ask("POST", path, urlencode(fields), {"Content-Type": "application/x-www-form-urlencoded"})

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Answer:
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        self._connection.request(method, path, body, headers | ({"Cookie": cookies} if cookies else {}))
        response = self._connection.getresponse()
        for cookie in response.headers.get_all("Set-Cookie") or []:
            name, _, rest = cookie.partition("=")
            self._cookies[name] = rest.partition(";")[0]
        return Answer(response.status, response.read())
