"""What was asked of the fake, so that a test can count it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Request:
    """`route` is the name of the endpoint (`rest.ROUTES`); `status` 0: it was cut off without an answer.

    `at`: seconds since 1970, by the clock of the account.
    """

    method: str
    route: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    at: float
    status: int = 0

    @property
    def write(self) -> bool:
        """Whether it asks for a change. A dry run asks for none."""
        return self.method != "GET" and self.query.get("dryRun", "false").lower() != "true"

    def fits(self, on: str) -> bool:
        """`any`, `reads`, `writes`, or the name of a route."""
        return on in ("any", self.route) or (on == "writes" and self.write) or (on == "reads" and not self.write)


class Requests:
    def __init__(self) -> None:
        self.all: list[Request] = []

    def count(self, on: str = "any", *, method: str = "", path: str = "", since: float = 0.0) -> int:
        return len(self.find(on, method=method, path=path, since=since))

    def find(self, on: str = "any", *, method: str = "", path: str = "", since: float = 0.0) -> list[Request]:
        return [
            one
            for one in self.all
            if one.fits(on)
            and (not method or one.method == method)
            and (not path or one.path == path)
            and one.at >= since
        ]

    @property
    def writes(self) -> int:
        return self.count("writes")

    def by_route(self) -> dict[tuple[str, str], int]:
        """(method, route) → how often."""
        found: dict[tuple[str, str], int] = {}
        for one in self.all:
            found[one.method, one.route] = found.get((one.method, one.route), 0) + 1
        return found

    def clear(self) -> None:
        self.all.clear()
