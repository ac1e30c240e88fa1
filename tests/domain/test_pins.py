"""A fingerprint says which text a run followed: every change of meaning changes it, nothing else does."""

import hashlib
from typing import Any

import msgspec
import pytest

from controller.domain.catalogue import PlanRevision, PolicyRevision
from controller.domain.pins import Pin, Pins, as_written, fingerprint, pins, text_fingerprint
from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from tests.support.rollouts import NOW, PLAN, POLICY, make_plan, make_policy


@pytest.mark.parametrize(
    "spec",
    [
        {"serve": {"rollout": "new", "fallback": "off"}},
        {"stages": [{"name": "all", "exposure": "100%", "bake": "1h"}]},
        {"mode": "observe"},
        {"audience": {"always": []}},
    ],
)
def test_another_plan_has_another_fingerprint(spec: dict[str, Any]) -> None:
    assert fingerprint(make_plan(**spec)) != fingerprint(make_plan())


def test_another_limit_is_another_policy() -> None:
    rules = [{**rule, "if": rule["if"].replace("10%", "11%")} for rule in POLICY["spec"]["rules"]]
    assert fingerprint(make_policy(rules=rules)) != fingerprint(make_policy())


def test_a_default_that_is_spelled_out_changes_no_fingerprint() -> None:
    spelled = {"mode": "enforce", "schedule": {"timezone": "UTC"}, "notify": []}
    assert fingerprint(make_plan(**spelled)) == fingerprint(make_plan())


def test_the_order_of_keys_changes_no_fingerprint() -> None:
    turned = dict(reversed(PLAN.items())) | {"spec": dict(reversed(PLAN["spec"].items()))}
    assert fingerprint(msgspec.convert(turned, RolloutPlan)) == fingerprint(make_plan())


def test_what_is_left_to_defaults_is_not_written_out() -> None:
    assert as_written(make_plan()) == PLAN
    assert "every" not in as_written(make_policy(every="15s"))["spec"]
    assert as_written(make_policy(every="16s"))["spec"]["every"] == "16s"


def test_what_is_written_out_reads_back_as_the_same_document() -> None:
    plan, policy = make_plan(), make_policy()
    assert msgspec.convert(as_written(plan), RolloutPlan) == plan
    assert msgspec.convert(as_written(policy), GuardrailPolicy) == policy


def test_a_fingerprint_is_the_hash_of_the_sorted_json_without_white_space() -> None:
    assert text_fingerprint({"b": 1, "a": ["é"]}) == hashlib.sha256('{"a":["é"],"b":1}'.encode()).hexdigest()
    assert fingerprint(make_plan()) == text_fingerprint(as_written(make_plan()))


def test_a_run_is_pinned_to_its_plan_and_to_its_policies_by_name() -> None:
    plan, web, other = make_plan(), make_policy(), make_policy(every="16s")
    pinned = pins(
        PlanRevision(plan=plan, revision=3, author="dana", applied_at=NOW),
        {
            "web": PolicyRevision(policy=web, revision=2, author="dana", applied_at=NOW),
            "db": PolicyRevision(policy=other, revision=7, author="dana", applied_at=NOW),
        },
    )
    assert pinned == Pins(
        plan=Pin(name="checkout-v2", revision=3, sha256=fingerprint(plan)),
        policies=(
            Pin(name="db", revision=7, sha256=fingerprint(other)),
            Pin(name="web", revision=2, sha256=fingerprint(web)),
        ),
    )
