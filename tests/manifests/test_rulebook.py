"""Every rule of the rulebook does what it says: its bad example fires it, its good example is clean."""

import re
from datetime import date

import pytest

from controller.manifests.lint import lint
from controller.manifests.problem import Problem, render
from controller.manifests.rulebook import RULES, Rule
from controller.manifests.rulebook.handbook import explained, page
from tests.manifests.examples import file_of
from tests.manifests.surroundings import SHIPPED, SURROUNDINGS
from tests.support.repository import ROOT

TODAY = date(2026, 11, 21)
OTHERS = [(path.name, path.read_bytes()) for path in sorted(SHIPPED.glob("*.policy.yaml"))]


def findings(rule: Rule, example: str) -> list[Problem]:
    file, text = file_of(rule, example)
    others = [other for other in OTHERS if other[0] != file]
    if rule.server:
        return lint([(file, text)], SURROUNDINGS, TODAY)
    return [problem for problem in lint([(file, text), *others], today=TODAY) if problem.file == file]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_bad_example_of_a_rule_fires_it(rule: Rule) -> None:
    found = [problem for problem in findings(rule, rule.bad) if problem.code == rule.code]
    assert found, file_of(rule, rule.bad)[1].decode()
    assert found[0].severity == ("error" if rule.code == "R054" and rule.server else rule.severity)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_good_example_of_a_rule_has_no_finding_at_all(rule: Rule) -> None:
    assert [render(problem) for problem in findings(rule, rule.good)] == []


def test_the_page_about_rules_is_current() -> None:
    stale = "docs/lint.md is stale; run `rampart lint --rules -o markdown > docs/lint.md`"
    assert (ROOT / "docs" / "lint.md").read_text() == page(), stale


def test_the_page_tells_of_every_rule_and_its_links_lead_somewhere() -> None:
    headings = set(re.findall(r"^### (R\d{3} [a-z-]+)$", page(), re.MULTILINE))
    assert headings == {f"{rule.code} {rule.name}" for rule in RULES.values()}
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\(#([a-z0-9-]+)\)", page())) == anchors


def test_codes_and_names_are_unique_and_there_are_more_than_sixty() -> None:
    assert len({rule.name for rule in RULES.values()}) == len(RULES) >= 60


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_is_explained_with_both_examples_and_how_to_allow_it(rule: Rule) -> None:
    text = explained(rule)
    for example in (rule.bad, rule.good):
        assert all(f"  {line}".rstrip() in text for line in example.splitlines())
    assert (f"allow {rule.code}" in text) == (rule.severity != "error")
    assert rule.what.endswith(".")
    assert rule.why.endswith((".", "?"))
