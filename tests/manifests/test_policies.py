"""The shipped policies and plans: clean, bindable, and acting in the order their comments promise."""

from pathlib import Path

import msgspec
import pytest

from controller.domain.binding import Guardrail, bind
from controller.domain.judge import Side, judge
from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.manifests.lint import lint
from controller.manifests.loader import load
from controller.manifests.problem import render
from tests.manifests.surroundings import SHIPPED, SURROUNDINGS

FILES = sorted(SHIPPED.glob("*.yaml"))
ALL = [(path.name, path.read_bytes()) for path in FILES]
DOCUMENTS = [manifest.value for name, text in ALL for manifest in load(text, name).documents]
POLICIES = {one.metadata.name: one for one in DOCUMENTS if isinstance(one, GuardrailPolicy)}
PLANS = [one for one in DOCUMENTS if isinstance(one, RolloutPlan)]


def test_all_together_are_lint_clean_offline() -> None:
    assert [render(problem) for problem in lint(ALL)] == []


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_each_alone_is_lint_clean_where_its_names_are_known(path: Path) -> None:
    assert [render(problem) for problem in lint([(path.name, path.read_bytes())], SURROUNDINGS)] == []


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_each_names_the_schema_that_editors_check_it_with(path: Path) -> None:
    kind = type(load(path.read_bytes(), path.name).documents[0].value).__name__
    assert f"# yaml-language-server: $schema=../docs/schema/{kind.lower()}.json\n" in path.read_text()


@pytest.mark.parametrize("plan", PLANS, ids=[plan.metadata.name for plan in PLANS])
def test_every_plan_binds_to_its_policies(plan: RolloutPlan) -> None:
    for use in plan.spec.guardrails:
        guardrail = bind(use, POLICIES[use.policy], plan)
        for metric in guardrail.metrics:
            assert "$" not in msgspec.json.encode(guardrail.question(metric, plan.spec.serve.rollout)).decode()


def web_service() -> Guardrail:
    plan = next(plan for plan in PLANS if plan.metadata.name == "checkout-v2")
    return bind(plan.spec.guardrails[0], POLICIES["web-service"], plan)


def breached(*, errors: float, p95: float, control_errors: float = 0.0, control_p95: float = 0.1) -> list[str]:
    """What the breached rules of web-service do, in the order in which their `for` is over."""
    treated = {"error_rate": Side(value=errors, sample=4000), "latency_p95": Side(value=p95, sample=4000)}
    control = {
        "error_rate": Side(value=control_errors, sample=4000),
        "latency_p95": Side(value=control_p95, sample=4000),
    }
    verdicts = judge(web_service(), treated=treated, control=control, baseline=control, before=control)
    rules = sorted((one.for_seconds, one.then) for one in verdicts if one.outcome == "breach")
    return [then for _, then in rules]


def test_five_percent_of_errors_pause_and_never_kill() -> None:
    assert breached(errors=0.05, p95=0.1) == ["pause"]


def test_one_request_in_eight_failing_kills_before_it_pauses() -> None:
    assert breached(errors=0.125, p95=0.1) == ["kill", "pause"]


def test_errors_in_both_arms_pause_and_do_not_kill() -> None:
    assert breached(errors=0.3, p95=0.1, control_errors=0.3) == ["pause"]


def test_three_times_the_latency_kills_before_it_steps_back() -> None:
    assert breached(errors=0.0, p95=0.31) == ["kill", "step_back"]


def test_twice_the_latency_steps_back() -> None:
    assert breached(errors=0.0, p95=0.25) == ["step_back"]


def test_a_multiple_of_next_to_nothing_is_no_breach() -> None:
    assert breached(errors=0.0, p95=0.019, control_p95=0.002) == []
