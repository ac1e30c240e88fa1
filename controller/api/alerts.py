"""Where an Alertmanager sends its alerts. It retries on 5xx only, and drops what is answered with 4xx.

What it sends grows with its versions: unlike everywhere else, fields that are not known here are passed over.
"""

from urllib.parse import urlsplit

from litestar import Response, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody

from controller.api.authentication import needs
from controller.api.bodies import AlertsAnswer, AlertsBody, SentAlert
from controller.api.decoding import JsonBody
from controller.api.problems import RETRY_AFTER_SECONDS
from controller.domain.alerts import Alert
from controller.facade import Caller, Served

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
    results = await engine.alerts.receive([alert_of(one) for one in data.alerts], actor)
    unable = any(result.outcome == "unable" for result in results)
    return Response(
        AlertsAnswer(results=results),
        status_code=503 if unable else 200,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)} if unable else None,
    )


def alert_of(sent: SentAlert) -> Alert:
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
