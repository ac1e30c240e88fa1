"""What channels are told."""

from typing import Any

import pytest

from controller.domain.audit import AuditEntry
from controller.domain.evidence import Verdict
from controller.domain.message import EVENTS, message
from tests.support.rollouts import NOW, make_plan

PLAN = make_plan()
VERDICT = Verdict(
    policy="web",
    rule="p95-3x",
    then="kill",
    enforced=True,
    outcome="breach",
    detail="0.61 s is above 3x baseline",
    condition="latency_p95 > 3x baseline",
    metric="latency_p95",
    unit="seconds",
    value=0.61,
    limit=0.6,
    baseline=0.2,
    sample=4100,
)


def entry(action: str, **details: Any) -> AuditEntry:
    return AuditEntry(
        id="1", at=NOW, actor="rampart", action=action, cause="policy", subject="checkout-v2#3",
        environment="production", reason="because", run="checkout-v2#3", flag="main/production/checkout-v2",
        details=details,
    )  # fmt: skip


def test_a_message_carries_the_numbers_of_the_rule_that_decided_and_the_page_to_act_on() -> None:
    facts = {"rule": VERDICT.id, "verdicts": [VERDICT]}
    told = message(7, entry("kill", **facts), PLAN, "https://rampart.example/")
    assert told is not None
    assert told.cited is not None
    assert (told.cited.value, told.cited.limit, told.cited.baseline, told.cited.sample) == (0.61, 0.6, 0.2, 4100)
    assert (told.event, told.exposure, told.link) == ("killed", 0, "https://rampart.example/r/checkout-v2")


@pytest.mark.parametrize(("public_url", "plan"), [("", PLAN), ("https://rampart.example", None)])
def test_without_a_page_there_is_no_link(public_url: str, plan: Any) -> None:
    told = message(7, entry("pause"), plan, public_url)
    assert told is not None
    assert told.link == ""


@pytest.mark.parametrize(("action", "observed"), [("pause", True), ("advance", True), ("kill", False)])
def test_what_a_plan_that_only_observes_did_not_do_is_marked(action: str, observed: bool) -> None:
    told = message(7, entry(action), make_plan(mode="observe"), "")
    assert told is not None
    assert told.observed is observed


@pytest.mark.parametrize("action", ["confirm", "observe", "create_token"])
def test_what_is_no_event_is_told_to_nobody(action: str) -> None:
    assert action not in EVENTS
    assert message(7, entry(action), PLAN, "") is None
