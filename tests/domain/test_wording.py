"""Decisions in words."""

import pytest

from controller.domain.evidence import Verdict
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
