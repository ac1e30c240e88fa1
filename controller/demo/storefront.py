"""Shop processes from outside: open them, change how they behave, ask what their SDK serves."""

import http.client
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from controller.demo.processes import Child, free_port
from controller.errors import Unavailable

READY_SECONDS = 30.0
TIMEOUT_SECONDS = 10.0
USERS = 10_000


class Storefront(Child):
    """One shop. `index` keeps visitors and seeds of several shops apart. Call `wait_until_ready` after."""

    def __init__(
        self,
        index: int,
        *,
        stream_uri: str,
        sdk_key_file: Path,
        flags: Sequence[str],
        log: Path,
        port: int | None = None,
        options: Mapping[str, str | float] | None = None,
    ) -> None:
        self.port = port or free_port()
        wanted: dict[str, str | float] = {
            "port": self.port,
            "stream-uri": stream_uri,
            "sdk-key-file": str(sdk_key_file),
            "flags": ",".join(flags),
            "users": USERS,
            "first-user": index * USERS,
            "seed": index + 1,
            **(options or {}),
        }
        arguments = [f"--{name}={value}" for name, value in wanted.items()]
        super().__init__(f"shop {index + 1}", [sys.executable, "-m", "controller.demo.shop", *arguments], log)

    @property
    def address(self) -> str:
        """host:port, as a scrape target."""
        return f"127.0.0.1:{self.port}"

    def wait_until_ready(self) -> None:
        """Until the SDK has received its flags; visitors come from then on."""
        self.wait_until_answers(self.port, "/ready", seconds=READY_SECONDS)

    def behave(self, flag: str, **behaviour: float) -> None:
        """Replace the behaviour behind `flag`: fields of traffic.Behaviour, defaults for those not named."""
        self._request("PUT", f"/behaviour/{flag}", msgspec.json.encode(behaviour))

    def served(self) -> dict[str, dict[str, dict[str, int]]]:
        """flag → cohort (`share` or `always`) → variation → number of contexts, as the SDK evaluates now."""
        return msgspec.json.decode(self._request("GET", "/state"), type=dict[str, dict[str, dict[str, int]]])

    def visit(self, flag: str, user: str, email: str = "") -> dict[str, Any]:
        """One request of a person: which variation they got."""
        answer = self._request("GET", f"/{flag}?user={user}&email={email}", errors_are_answers=True)
        return msgspec.json.decode(answer, type=dict[str, Any])

    def _request(
        self, method: str, path: str, body: bytes | None = None, *, errors_are_answers: bool = False
    ) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the {self.name} did not answer {method} {path}: {error}") from error
        finally:
            connection.close()
        if answer.status >= http.client.BAD_REQUEST and not errors_are_answers:
            raise Unavailable(f"the {self.name} refused {method} {path}: {content.decode(errors='replace')}")
        return content
