"""What machines ask: is the loop alive, is this replica ready, its series, its version; and `doctor`."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter
from litestar.response import Stream

from controller import __version__
from controller.api.authentication import needs
from controller.api.bodies import Liveness, Readiness, Version
from controller.api.problems import PROBLEM_JSON, Problem, answer
from controller.domain.quantities import NAME_PATTERN
from controller.domain.status import Check
from controller.facade import Caller, Served

NAME = NAME_PATTERN.strip("^$")
Plans = Annotated[
    str | None,
    QueryParameter(
        pattern=f"^{NAME}(,{NAME})*$",
        max_length=8000,
        description="names, separated by commas; all, if none is given",
    ),
]

METRICS_MEDIA_TYPE = "text/plain; version=0.0.4"
NOT_READY = {503: ResponseSpec(Problem, media_type=PROBLEM_JSON, description="Not ready; `reasons` say why")}


@get("/healthz", summary="The event loop answers", tags=["health"])
async def healthz() -> Liveness:
    return Liveness(status="ok")


@get("/readyz", summary="This replica can do its work", responses=NOT_READY, tags=["health"])
async def readyz(request: Request[Any, Any, Any], engine: Served) -> Response[Readiness] | Response[Problem]:
    reasons = list(engine.readiness())
    if not reasons:
        return Response(Readiness(ready=True))
    return answer(request, 503, "not-ready", "Not ready", "; ".join(reasons), reasons=reasons)


def metrics_handler(**access: Any) -> Any:
    @get(
        "/metrics",
        summary="Our own series for Prometheus",
        media_type=METRICS_MEDIA_TYPE,
        tags=["health"],
        **access,
    )
    async def metrics(engine: Served) -> Stream:
        return Stream(_in_turns(engine.metrics_pieces()), media_type=METRICS_MEDIA_TYPE)

    return metrics


async def _in_turns(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A thousand rollouts have megabytes of series: kills and streams come first, between every two pieces."""
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


@get("/version", summary="The version of this server")
async def version() -> Version:
    return Version(version=__version__)


@get("/doctor", summary="Check every dependency", **needs("read"))
async def doctor(engine: Served, plans: Plans = None) -> list[Check]:
    return await engine.doctor.examine(plans.split(",") if plans else [])


@post("/doctor/test-messages", status_code=200, summary="Send each channel a test message", **needs("operate"))
async def send_test_messages(engine: Served, actor: Caller) -> list[Check]:
    return await engine.doctor.send_test(actor.name)


OPEN_METRICS = metrics_handler()
PROTECTED_METRICS = metrics_handler(**needs("read"))
