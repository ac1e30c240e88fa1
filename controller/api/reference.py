"""The table of routes in docs/api.md. Make it anew: python -m controller.api.reference docs/api.md"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from litestar.handlers import HTTPRouteHandler

from controller.api import ALERTS, HEALTH, KILLS, OPEN, PREFIX, PROTECTED
from controller.api.health import OPEN_METRICS

BEGIN, END = "<!-- routes: generated -->", "<!-- end of routes -->"


def updated(page: str) -> str:
    """The page with its table made anew. Raises ValueError when the page has no place for it."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{route_table()}\n{END}{after}"


def route_table() -> str:
    rows = [*_rows(PREFIX, [*PROTECTED, *KILLS, *ALERTS, *OPEN]), *_rows("", [*HEALTH, OPEN_METRICS])]
    return "\n".join(["| route | scope | what it does |", "|---|---|---|", *rows])


def _rows(prefix: str, handlers: Sequence[HTTPRouteHandler]) -> list[str]:
    return [_row(prefix, handler) for handler in sorted(handlers, key=_place)]


def _row(prefix: str, handler: HTTPRouteHandler) -> str:
    scopes = " or ".join(f"`{scope}`" for scope in handler.opt.get("scopes", ())) or "open"
    return f"| `{_method(handler)} {prefix}{_path(handler)}` | {scopes} | {handler.summary} |"


def _method(handler: HTTPRouteHandler) -> str:
    return "/".join(sorted(handler.http_methods))


def _path(handler: HTTPRouteHandler) -> str:
    return re.sub(r":\w+}", "}", min(handler.paths))


def _place(handler: HTTPRouteHandler) -> tuple[str, str]:
    return _path(handler), _method(handler)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(updated(target.read_text()))
