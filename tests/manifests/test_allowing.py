"""What a comment allows is not found, and nothing else is hidden by it."""

from datetime import date

import pytest

from controller.manifests.lint import lint
from tests.manifests.surroundings import SHIPPED, SURROUNDINGS

PLAN = (SHIPPED / "checkout-v2.rollout.yaml").read_text()
SHORT = "    - { name: canary,   exposure: 1%,   bake: 30m, minTotal: { requests: 2000 } }"
LINE = SHORT.replace("30m", "9m")
OTHERS = [("web-service.policy.yaml", (SHIPPED / "web-service.policy.yaml").read_bytes())]


def codes(stage: str, **where: object) -> list[str]:
    assert SHORT in PLAN
    lines = [line for line in PLAN.splitlines() if not line.startswith(SHORT)]
    at = next(number for number, line in enumerate(lines) if line.startswith("    - { name: early"))
    text = "\n".join([*lines[:at], *stage.splitlines(), *lines[at:]])
    found = lint([("checkout-v2.rollout.yaml", text.encode()), *OTHERS], **where)  # type: ignore[arg-type]
    return [problem.code for problem in found]


def test_a_warning_is_there_until_it_is_allowed() -> None:
    assert codes(LINE) == ["R022"]


@pytest.mark.parametrize(
    "stage",
    [
        f"{LINE}   # rampart: allow R022 a kill within minutes is enough",
        f"    # rampart: allow R022\n{LINE}",
        f"    # rampart: allow R022 said here\n    # and more of it\n\n{LINE}",
        f"{LINE}   #rampart: allow R022",
    ],
)
def test_a_comment_in_its_line_or_alone_before_it_allows_a_warning(stage: str) -> None:
    assert codes(stage) == []
    assert codes(stage, surroundings=SURROUNDINGS) == []


def test_several_codes_are_allowed_at_once() -> None:
    few = LINE.replace("requests: 2000", "requests: 100")
    assert codes(few) == ["R022", "R205"]
    assert codes(f"{few}  # rampart: allow R022, R205") == []
    assert codes(f"{few}  # rampart: allow R205") == ["R022"]


def test_a_comment_elsewhere_allows_nothing_and_is_itself_found() -> None:
    assert codes(f"{LINE}\n    # rampart: allow R022") == ["R022", "R007"]


def test_an_error_cannot_be_allowed() -> None:
    wrong = LINE.replace("exposure: 1%, ", "exposure: 0%, ")
    assert "R020" in codes(f"{wrong}  # rampart: allow R020, R022")


def test_a_rule_that_does_not_exist_is_not_allowed_silently() -> None:
    assert codes(f"{SHORT}  # rampart: allow R999") == ["R007"]


def test_what_only_a_server_finds_may_be_allowed_beforehand() -> None:
    assert codes(f"{SHORT}  # rampart: allow R040") == []


def test_beside_a_server_there_are_no_notes() -> None:
    assert codes(f"{SHORT}  # rampart: allow R999", surroundings=SURROUNDINGS) == []


@pytest.mark.parametrize(
    ("today", "found"), [(date(2026, 11, 30), []), (date(2026, 12, 1), []), (date(2026, 12, 2), ["R210"])]
)
def test_a_freeze_is_over_on_the_day_after_it_ends(today: date, found: list[str]) -> None:
    assert codes(SHORT, today=today) == found


def test_without_a_date_nothing_is_over() -> None:
    assert codes(SHORT) == []
