"""The door for Alertmanager: what it takes, and what it answers so that the right things are sent again."""

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.exceptions import ValidationException

from controller.api.alerts import alert_of
from controller.api.bodies import AlertsBody
from controller.api.decoding import decode
from controller.domain.catalogue import SCOPES
from tests.api.fake_engine import FakeEngine

PATH = "/api/v1/alerts"
SENT: dict[str, Any] = {
    "version": "4",
    "groupKey": '{}/{rampart_rollout="checkout-v2"}:{}',
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "rampart",
    "groupLabels": {"rampart_rollout": "checkout-v2"},
    "commonLabels": {},
    "commonAnnotations": {},
    "externalURL": "http://alertmanager.example:9093",
    "notification_reason": "a field of a later version",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "HighErrors", "rampart_rollout": "checkout-v2"},
            "annotations": {"summary": "7 % of requests fail", "runbook_url": "http://runbooks.example"},
            "startsAt": "2026-11-20T12:00:00.123456789Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://user:geheim@prometheus.example:9090/graph?token=geheim",
            "fingerprint": "1c4f1d4d1c4f1d4d",
            "of_a_later_version": [1, 2],
        }
    ],
}
"""As Alertmanager sends it."""

anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=10,
)


def changed(**fields: Any) -> dict[str, Any]:
    """With these fields of its alert; `...` is left out."""
    body = deepcopy(SENT)
    body["alerts"][0] |= fields
    body["alerts"][0] = {name: value for name, value in body["alerts"][0].items() if value is not ...}
    return body


async def test_alerts_are_taken_as_alertmanager_sends_them_and_each_is_answered(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    answer = await client.post(PATH, json=SENT, headers=engine.headers("kill"))
    assert answer.status_code == 200
    (result,) = answer.json()["results"]
    assert (result["outcome"], result["rollout"], result["fingerprint"]) == (
        "paused", "checkout-v2", "1c4f1d4d1c4f1d4d",
    )  # fmt: skip
    ((alert, actor),) = engine.alerts.received
    assert (alert.firing, alert.starts_at) == (True, datetime(2026, 11, 20, 12, 0, 0, 123457, tzinfo=UTC))
    assert alert.text == "alert HighErrors of prometheus.example: 7 % of requests fail"
    assert actor.name == "kill"
    await client.post(PATH, json=changed(status="resolved"), headers=engine.headers("kill"))
    assert [one.firing for one, _ in engine.alerts.received] == [True, False]


async def test_of_the_address_that_an_alert_came_from_only_the_host_is_kept(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    answer = await client.post(PATH, json=SENT, headers=engine.headers("kill"))
    assert "geheim" not in answer.text
    assert "geheim" not in repr(engine.alerts.received)
    for url in ("http://[::1", "not an address", "", "javascript:alert(1)"):
        assert (await client.post(PATH, json=changed(generatorURL=url), headers=engine.headers("kill"))).is_success


async def test_only_what_could_not_be_done_is_answered_so_that_it_is_sent_again(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    for outcome in ("no_match", "repeated", "forbidden", "resolved", "already_paused"):
        engine.alerts.failure = outcome
        assert (await client.post(PATH, json=SENT, headers=engine.headers("operate"))).status_code == 200
    engine.alerts.failure = "unable"
    answer = await client.post(PATH, json=SENT, headers=engine.headers("operate"))
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert answer.json()["results"][0]["outcome"] == "unable"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "alerts"),
        ({"alerts": "all"}, "alerts"),
        (changed(status="red"), "status"),
        (changed(startsAt=...), "startsAt"),
        (changed(startsAt="yesterday"), "startsAt"),
        (changed(startsAt="2026-11-20T12:00:00"), "startsAt"),
        (changed(fingerprint=...), "fingerprint"),
        (changed(fingerprint=""), "fingerprint"),
        (changed(labels={"alertname": 1}), "labels"),
        ({"alerts": SENT["alerts"] * 1001}, "alerts"),
    ],
)
async def test_a_malformed_body_is_refused_naming_the_field_and_changes_nothing(
    engine: FakeEngine, client: httpx.AsyncClient, body: dict[str, Any], path: str
) -> None:
    answer = await client.post(PATH, json=body, headers=engine.headers("kill"))
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert path in answer.json()["detail"]
    assert engine.alerts.received == []


async def test_a_body_that_is_too_large_is_refused(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    body = changed(annotations={"summary": "x" * 2**20})
    assert (await client.post(PATH, json=body, headers=engine.headers("kill"))).status_code == 413
    assert engine.alerts.received == []


async def test_alerts_need_a_token_that_may_stop_something(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    for scope in SCOPES:
        answer = await client.post(PATH, json=SENT, headers=engine.headers(scope))
        assert answer.status_code == (200 if scope in ("operate", "kill", "admin") else 403)


hostile = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["firing", "resolved"]) | anything,
        "startsAt": st.datetimes(timezones=st.timezones()).map(datetime.isoformat) | anything,
        "fingerprint": st.text(max_size=250) | anything,
    },
    optional={
        "labels": st.dictionaries(st.text(max_size=300), st.text(max_size=300) | anything, max_size=4) | anything,
        "annotations": st.dictionaries(st.just("summary") | st.text(max_size=9), st.text(), max_size=2) | anything,
        "generatorURL": st.text(max_size=50) | anything,
        "unknown": anything,
    },
)


@given(st.fixed_dictionaries({"alerts": st.lists(hostile, max_size=3) | anything}) | anything)
def test_any_body_is_taken_or_refused_and_what_is_taken_can_be_told(body: Any) -> None:
    try:
        taken = decode(msgspec.json.encode(body), AlertsBody)
    except ValidationException:
        return
    for alert in map(alert_of, taken.alerts):
        assert alert.text.isprintable()
        assert len(alert.identity("checkout-v2#1")) == 32
