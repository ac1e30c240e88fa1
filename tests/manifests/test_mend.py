"""`lint --fix` writes what can only have been meant, leaves the rest alone, and never makes a file worse."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.manifests.lint import lint
from controller.manifests.mend import edited, mend
from controller.manifests.problem import Edit, Problem, Span, meant
from controller.manifests.rulebook import RULES
from tests.manifests.examples import file_of
from tests.manifests.surroundings import SHIPPED
from tests.manifests.test_broken import FILES

POLICY = (SHIPPED / "web-service.policy.yaml").read_text().replace("error_rate > 10%", "error_rate >= 10%")
PLAN = (SHIPPED / "checkout-v2.rollout.yaml").read_text()
FLAG = (SHIPPED / "checkout-v2.flag.yaml").read_text()
NAMES = ("web-service.policy.yaml", "checkout-v2.rollout.yaml", "checkout-v2.flag.yaml")
SLIPS = [
    ("R002", "staleAfter: 1m", "stale_after: 1m"),
    ("R002", "  window: 5m", "  windw: 5m"),
    ("R002", "  noData: ", "  nodata: "),
    ("R003", "quantile: 0.95", 'quantile: "0.95"'),
    ("R003", "requests: 200 }", "requests: '200' }"),
    ("R003", "then: step_back", "then: step-back"),
    ("R003", "for: 2m, then: kill", "for: 2m, then: Kill"),
    ("R004", "kind: GuardrailPolicy", "kind: GuardRailPolicy"),
    ("R010", "if: error_rate > 1%", "if: eror_rate > 1%"),
    ("R010", "if: error_rate >= 10% and", "if: error_rate => 10% and"),
    ("R031", "timezone: Europe/Berlin", "timezone: europe/berlin"),
    ("R053", 'service="$service",environment', 'service="$servce",environment'),
    ("R053", "with: { service: checkout }", "with: { servcie: checkout }"),
    ("R054", "policy: web-service", "policy: web-servcie"),
    ("R072", 'rollout: "on", fallback: "off"', 'rollout: "on", fallback: "offf"'),
    ("R072", 'off: "off"  ', 'off: "Off"  '),
    ("R115", 'variation="$variation",cohort="share",code', 'variation=~"$variation",cohort="share",code'),
    ("R129", "unit: seconds", "unit: sec"),
]


def files(*texts: str) -> list[tuple[str, bytes]]:
    return [(name, text.encode()) for name, text in zip(NAMES, texts, strict=True)]


def errors(problems: list[Problem]) -> int:
    return sum(problem.severity == "error" for problem in problems)


@pytest.mark.parametrize(
    ("code", "right", "slip"), SLIPS, ids=[f"{code} {slip.strip()}" for code, _, slip in SLIPS]
)
def test_a_slip_is_mended_to_the_letter(code: str, right: str, slip: str) -> None:
    sound = files(POLICY, PLAN, FLAG)
    broken = [(name, content.replace(right.encode(), slip.encode(), 1)) for name, content in sound]
    assert broken != sound
    assert code in {problem.code for problem in lint(broken)}
    mended = mend(broken)
    assert mended.files == sound
    assert mended.count >= 1


def test_every_rule_that_promises_a_fix_is_shown_to_have_one() -> None:
    assert {code for code, _, _ in SLIPS} == {rule.code for rule in RULES.values() if rule.fix}


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_mending_a_broken_file_makes_nothing_worse_and_is_done_in_one_go(path: Path) -> None:
    before = [(path.name, path.read_bytes())]
    after = mend(before)
    assert errors(lint(after.files)) <= errors(lint(before))
    assert len(after.files[0][1].splitlines()) == len(before[0][1].splitlines())
    assert mend(after.files).count == 0
    if not after.count:
        assert after.files == before


@pytest.mark.parametrize("code", RULES)
def test_a_good_example_is_left_alone(code: str) -> None:
    good = [file_of(RULES[code], RULES[code].good)]
    assert mend(good).files == good


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("p95", ["p99", "p50"]),
        ("latency_p9", ["latency_p95", "latency_p99"]),
        ("rate", ["gate", "date"]),
        ("an", ["and"]),
        ("of", ["on", "off"]),
        ("something", ["else"]),
        ("a-b", ["a_b", "ab"]),
    ],
)
def test_what_could_be_meant_in_two_ways_is_not_guessed(word: str, known: list[str]) -> None:
    assert meant(word, known) == ""


@given(st.data())
def test_slips_at_random_places_never_make_more_errors(data: st.DataObject) -> None:
    texts = [POLICY, PLAN, FLAG]
    which = data.draw(st.integers(0, 2))
    text = texts[which]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 2))
        change = data.draw(st.sampled_from(["drop", "double", "swap", "replace"]))
        one, two, rest = text[at], text[at + 1], text[at + 2 :]
        text = (
            text[:at]
            + {"drop": two, "double": one + one + two, "swap": two + one, "replace": "x" + two}[change]
            + rest
        )
    texts[which] = text
    before = files(*texts)
    after = mend(before)
    assert errors(lint(after.files)) <= errors(lint(before))
    assert mend(after.files).files == after.files
    assert [content.count(b"#") for _, content in after.files] == [content.count(b"#") for _, content in before]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_stay(line_end: str, mark: str) -> None:
    text = mark + POLICY.replace("then: step_back", "then: step-back").replace("\n", line_end)
    [(_, content)] = mend([("web-service.policy.yaml", text.encode())]).files
    assert content.decode() == mark + POLICY.replace("\n", line_end)


def test_edits_are_placed_by_line_and_column() -> None:
    text = "äb: c\nd: e\n"
    assert edited(text, [Edit(Span(1, 1, 2), "x"), Edit(Span(2, 4, 1), "yy")]) == "x: c\nd: yy\n"
