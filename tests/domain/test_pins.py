"""A fingerprint says which text a run followed: every change of meaning changes it, nothing else does."""

from typing import Any

import msgspec
import pytest

from controller.domain.pins import as_written, fingerprint
from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from tests.support.rollouts import PLAN, POLICY, make_plan, make_policy


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
