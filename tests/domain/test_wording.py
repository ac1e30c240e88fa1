"""Decisions in words."""

import pytest
from msgspec.structs import replace

from controller.domain.evidence import Outcome, Verdict
from controller.domain.wording import breach_text, quantity, unknown_text

VERDICT = Verdict(
    policy="web", rule="errors-high", then="pause", enforced=True, outcome="breach", detail="nothing came back",
    condition="error_rate > 1%", metric="error_rate", unit="ratio", value=0.0512, limit=0.01, baseline=0.002,
    sample=4120.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (0.0123, "ratio", "1.23 %"),
        (0.402, "seconds", "402 ms"),
        (1.5, "seconds", "1.5 s"),
        (12345.6, "items", "12346 items"),
        (0.0, "ratio", "0 %"),
        (None, "ratio", "–"),
        (3.0, "", "3"),
        (0.999, "seconds", "999 ms"),
        (1.0, "seconds", "1 s"),
        (-0.5, "seconds", "-500 ms"),
        (-1500.4, "items", "-1500 items"),
        (999.4, "items", "999 items"),
        (1000.0, "items", "1000 items"),
        (0.9999, "seconds", "1000 ms"),
        (12.345, "ratio", "1234 %"),
    ],
)
def test_quantities_are_shown_in_the_unit_people_think_in(number: float | None, unit: str, text: str) -> None:
    assert quantity(number, unit) == text


def test_a_breach_names_value_limit_time_baseline_and_sample() -> None:
    assert breach_text(VERDICT, 300) == (
        "web/errors-high: error_rate 5.12 % against a limit of 1 % for 5m (baseline 0.2 %, 4120 requests)"
    )


def test_an_unknown_says_what_is_missing() -> None:
    assert unknown_text(VERDICT) == "web/errors-high: breach: nothing came back"


def test_a_breach_says_nothing_of_what_is_not_known() -> None:
    bare = replace(VERDICT, baseline=None, sample=None)
    assert breach_text(bare, 0) == "web/errors-high: error_rate 5.12 % against a limit of 1 %"
    assert breach_text(replace(bare, sample=0.0), 1) == (
        "web/errors-high: error_rate 5.12 % against a limit of 1 % for 1s (0 requests)"
    )
    assert breach_text(replace(bare, baseline=0.0, value=None), 0) == (
        "web/errors-high: error_rate – against a limit of 1 % (baseline 0 %)"
    )


@pytest.mark.parametrize(
    ("outcome", "label"),
    [
        ("too_few", "too few requests"),
        ("no_data", "no data"),
        ("error", "cannot be measured"),
        ("inconclusive", "inconclusive"),
    ],
)
def test_every_kind_of_unknown_has_its_words(outcome: Outcome, label: str) -> None:
    told = unknown_text(replace(VERDICT, outcome=outcome))
    assert told == f"web/errors-high: {label}: nothing came back"
