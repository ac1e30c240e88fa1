"""The example policies: each catches its incidents and is quiet otherwise, and a wrong number in it is noticed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import replace

from controller.domain.rehearsal import Case, RolloutTest
from controller.manifests.loader import Manifest, load
from controller.rehearsal.running import Result, rehearse

POLICIES = Path(__file__).parents[2] / "policies"
TESTED = sorted(path.name.removesuffix(".test.yaml") for path in POLICIES.glob("*.test.yaml"))
WRITTEN = sorted(
    path.name.rsplit(".", 2)[0] for kind in ("policy", "rollout") for path in POLICIES.glob(f"*.{kind}.yaml")
)
RULE = re.compile(r"\s*- \{ id: (?P<id>[\w-]+), if: (?P<condition>[^,]+), .*\}")
FACTORS = {"limit": (10, 0.1), "floor": (10, 0.1), "for": (3,)}


class Wrong(Struct, frozen=True):
    """One number of one rule, changed by a factor: `line` becomes `changed`."""

    policy: str
    rule: str
    what: str
    line: str
    changed: str

    def __str__(self) -> str:
        return f"{self.policy}-{self.rule}-{self.what}"


EQUIVALENT = {
    "strict-payments-p99-slow-floor x10": "its other condition asks for a second anyway",
    "strict-payments-p99-slow-floor x0.1": "its other condition asks for a second anyway",
}


def manifests(changed: dict[str, str]) -> list[Manifest]:
    texts = {path.name: path.read_text() for path in sorted(POLICIES.glob("*.yaml"))} | changed
    return [manifest for name, text in texts.items() for manifest in load(text, name).documents]


def played(tested: str, changed: dict[str, str] | None = None, *, first: str = "") -> Iterator[Result]:
    """The tests of one policy or plan, those that speak of `first` before the others, noise last."""
    found = manifests(changed or {})
    others = [one for one in found if not isinstance(one.value, RolloutTest)]
    (own,) = [one for one in found if isinstance(one.value, RolloutTest) and one.name == tested]
    assert isinstance(own.value, RolloutTest)

    def urgency(case: Case) -> tuple[bool, bool]:
        return case.noise is not None, not any(first in text for text in case.expect)

    for case in sorted(own.value.spec.tests, key=urgency):
        alone = replace(own.value, spec=replace(own.value.spec, tests=[case]))
        yield from rehearse([replace(own, value=alone), *others])


@pytest.mark.parametrize("tested", TESTED)
def test_the_tests_of_every_example_pass_and_make_each_of_its_rules_act(tested: str) -> None:
    results = list(played(tested))
    assert [(one.test, one.findings) for one in results if not one.passed] == []
    policy = POLICIES / f"{tested}.policy.yaml"
    if policy.exists():
        rules = {f"{tested}/{found['id']}" for found in map(RULE.match, policy.read_text().splitlines()) if found}
        assert {rule for one in results for rule in one.fired} == rules
        assert len(rules) > 2


def test_every_policy_and_plan_has_tests() -> None:
    assert TESTED == WRITTEN


def wrong_numbers() -> Iterator[Wrong]:
    """Each limit and floor ten times too lax and ten times too strict, each `for` three times too long."""
    for path in sorted(POLICIES.glob("*.policy.yaml")):
        for line in path.read_text().splitlines():
            found = RULE.match(line)
            for what, begin, end in _numbers(found) if found else ():
                for factor in FACTORS[what]:
                    changed = f"{line[:begin]}{float(line[begin:end]) * factor:g}{line[end:]}"
                    shown = f"{what} {line[begin:end]}" if what == "limit" else what
                    policy = path.name.removesuffix(".policy.yaml")
                    yield Wrong(policy, found["id"] if found else "", f"{shown} x{factor:g}", line, changed)


def _numbers(rule: re.Match[str]) -> Iterator[tuple[str, int, int]]:
    """(what, begin, end) of the numbers that a factor changes. What belongs to a metric's name is none."""
    start, end = rule.span("condition")
    for number in re.finditer(r"(?<![\w.])\d+(?:\.\d+)?", rule.string):
        if start <= number.start() < end and float(number[0]):
            yield "limit", *number.span()
    for found in re.finditer(r"\b(?P<what>for|floor): (?P<number>\d+)", rule.string):
        yield found["what"], *found.span("number")


PLANTED = list(wrong_numbers())


def test_a_good_many_wrong_numbers_are_planted() -> None:
    assert len(PLANTED) > 50


@pytest.mark.parametrize("wrong", PLANTED, ids=str)
def test_a_wrong_number_in_a_rule_makes_a_test_of_its_policy_fail(wrong: Wrong) -> None:
    """But for those that change nothing: once a test notices one of them, it is equivalent no more."""
    name = f"{wrong.policy}.policy.yaml"
    text = (POLICIES / name).read_text()
    assert text.count(wrong.line) == 1
    results = played(wrong.policy, {name: text.replace(wrong.line, wrong.changed)}, first=f"by {wrong.rule}")
    noticed = any(not one.passed for one in results)
    assert noticed is (str(wrong) not in EQUIVALENT), f"noticed: {noticed}: {wrong.changed.strip()}"
