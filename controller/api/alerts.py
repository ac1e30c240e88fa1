"""Where an Alertmanager sends its alerts. It retries on 5xx only, and drops what is answered with 4xx.

What it sends grows with its versions: unlike everywhere else, fields that are not known here are passed over.
"""

from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

from litestar import Response, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from msgspec import Meta, Struct, field

from controller.api.authentication import needs
from controller.api.decoding import JsonBody
from controller.api.problems import RETRY_AFTER_SECONDS
from controller.domain.alerts import Alert, AlertResult
from controller.facade import Caller, Served

MAX_ALERTS = 1000

Fingerprint = Annotated[str, Meta(min_length=1, max_length=200)]
Status = Annotated[str, Meta(pattern="^(firing|resolved)$")]


class SentAlert(Struct, frozen=True, rename="camel", kw_only=True):
    """One alert, in the words of Alertmanager's webhook. `startsAt` and `fingerprint` say which firing it is."""

    status: Status
    starts_at: Annotated[datetime, Meta(tz=True)]
    fingerprint: Fingerprint
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    generator_url: str = field(default="", name="generatorURL")


class AlertsBody(Struct, frozen=True, kw_only=True):
    """What an Alertmanager sends for one group of alerts."""

    alerts: Annotated[list[SentAlert], Meta(max_length=MAX_ALERTS)]


class AlertsAnswer(Struct, frozen=True, kw_only=True):
    """One result for each alert and rollout that it names."""

    results: list[AlertResult]


UNABLE = {503: ResponseSpec(AlertsAnswer, description="Not everything could be done; send it again")}


@post(
    "/alerts",
    status_code=200,
    responses=UNABLE,
    dto=JsonBody[AlertsBody],
    return_dto=None,
    summary="Take alerts of an Alertmanager: pause or kill the rollouts that their labels name",
    **needs("operate", "kill"),
)
async def receive_alerts(engine: Served, actor: Caller, data: JSONBody[AlertsBody]) -> Response[AlertsAnswer]:
    results = await engine.alerts.receive([_alert(one) for one in data.alerts], actor)
    unable = any(result.outcome == "unable" for result in results)
    return Response(
        AlertsAnswer(results=results),
        status_code=503 if unable else 200,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)} if unable else None,
    )


def _alert(sent: SentAlert) -> Alert:
    return Alert(
        fingerprint=sent.fingerprint,
        starts_at=sent.starts_at,
        firing=sent.status == "firing",
        labels=sent.labels,
        summary=sent.annotations.get("summary", ""),
        origin=_host(sent.generator_url),
    )


def _host(url: str) -> str:
    """The host alone: the rest of an address may hold a secret."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


HANDLERS = [receive_alerts]
