"""What a source is told to count before anybody asks."""

from msgspec.structs import replace

from controller.domain.evidence import QuantileQuestion, Question
from controller.domain.expected import expected
from controller.domain.plan import RolloutPlan
from tests.domain.test_binding import plan as unbound
from tests.domain.test_binding import policy

POLICY = policy()
POLICIES = {POLICY.metadata.name: POLICY}
SOURCE = POLICY.spec.source


def plan(**with_: str) -> RolloutPlan:
    one = unbound()
    (use,) = one.spec.guardrails
    return replace(one, spec=replace(one.spec, guardrails=[replace(use, with_=with_)]))


GOOD = plan(service="checkout")
BROKEN = plan(nobody="knows")


def questions(*plans: RolloutPlan, source: str = SOURCE) -> set[Question]:
    return expected(plans, POLICIES, source)


def test_all_that_a_plan_will_ask_of_the_source_is_expected_once() -> None:
    asked = questions(GOOD, GOOD)
    assert len(asked) == 1, "the one metric that a rule uses, of the variation that is rolled out"
    assert asked == questions(GOOD)


def test_what_is_asked_of_another_source_or_by_an_unknown_policy_is_not() -> None:
    assert questions(GOOD, source="another") == set()
    assert expected([GOOD], {}, SOURCE) == set()


def uses(*plans: RolloutPlan) -> RolloutPlan:
    together = [use for one in plans for use in one.spec.guardrails]
    return replace(plans[0], spec=replace(plans[0].spec, guardrails=together))


def test_a_guardrail_that_asks_nothing_here_hides_no_other_of_its_plan() -> None:
    (use,) = GOOD.spec.guardrails
    unknown = replace(GOOD, spec=replace(GOOD.spec, guardrails=[replace(use, policy="unknown")]))
    for first in (unknown, BROKEN):
        assert questions(uses(first, GOOD)) == questions(GOOD)
    assert questions(uses(GOOD, plan(service="search"))) == questions(GOOD) | questions(plan(service="search"))


def test_the_variation_that_is_rolled_out_is_asked_for() -> None:
    assert GOOD.spec.serve.rollout == "on"
    assert questions(GOOD) == {QuantileQuestion(histogram='h_bucket{v="on"}', quantile=0.95, window_seconds=300.0)}


def test_a_plan_that_cannot_be_bound_hides_no_other() -> None:
    assert questions(BROKEN, GOOD) == questions(GOOD)
    assert questions(BROKEN) == set()
