"""All pages, wired. They are no part of the API, and not in its description."""

from typing import Any

from litestar import Response, Router
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.types import ControllerRouterHandler

from controller import errors
from controller.admission import budget_of, read_in_time
from controller.web import actions, pages, raised
from controller.web.pages import AnyRequest
from controller.web.site import Site

PAGES_AT_ONCE = 64
STOPS_AT_ONCE = 64
MAX_FORM_BYTES = 64 * 1024


class Pages(Site):
    def handlers(self) -> list[ControllerRouterHandler]:
        """What stops has a budget of its own: a crowd that looks is not in the way of who kills."""

        def served() -> Site:
            return self

        # Functions: Litestar copies what it is given for each route, a method with all that it is bound to.
        def on_error(request: AnyRequest, error: errors.RampartError) -> Response[Any]:
            return self.on_error(request, error)

        def on_http_error(request: AnyRequest, error: HTTPException) -> Response[Any]:
            return self.on_http_error(request, error)

        def on_unexpected(request: AnyRequest, error: Exception) -> Response[Any]:
            return self.on_unexpected(request, error)

        shared: dict[str, Any] = {
            "dependencies": {"site": Provide(served, sync_to_thread=False)},
            "exception_handlers": {
                errors.RampartError: on_error,
                HTTPException: on_http_error,
                Exception: on_unexpected,
            },
            "request_max_body_size": MAX_FORM_BYTES,
            "include_in_schema": False,
        }
        looking, stopping = budget_of(PAGES_AT_ONCE), budget_of(STOPS_AT_ONCE)
        return [
            Router(
                "/",
                route_handlers=[*pages.HANDLERS, raised.raised, *actions.HANDLERS],
                middleware=[looking],
                **shared,
            ),
            Router(
                "/",
                route_handlers=[*pages.STOPPING, *raised.STOPS, *actions.STOPS],
                middleware=[stopping],
                **shared,
            ),
            Router("/", route_handlers=[pages.stream], middleware=[read_in_time], **shared),
            Router("/", route_handlers=[pages.asset], **shared),
        ]

    def close(self) -> None:
        """At shutdown: every stream ends."""
        self.live.close()
