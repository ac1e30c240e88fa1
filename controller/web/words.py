"""States, numbers and times as pages show them. Never by colour alone: an icon, a word, a class for the style."""

import re
from datetime import datetime
from typing import NamedTuple

from controller.domain.quantities import duration_text, exposure_text
from controller.domain.status import RuleStatus
from controller.domain.wording import quantity

_COMPARISON = re.compile(r"(?P<operator>[<>]=?)\s*(?:(?P<multiple>[\d.]+x) baseline|\S+)(?P<rest>.*)", re.DOTALL)

_UNIT = re.compile(r"(?<=\d) (?=%|m?s\b)")


class Sign(NamedTuple):
    icon: str
    word: str
    look: str


STATES: dict[str, Sign] = {
    "killed": Sign("✖", "Killed", "bad"),
    "paused": Sign("‖", "Paused", "warn"),
    "progressing": Sign("▶", "Progressing", "go"),
    "pending": Sign("◌", "Waiting to start", "idle"),
    "completed": Sign("✔", "Completed", "good"),
    "abandoned": Sign("■", "Abandoned", "idle"),
    "never": Sign("○", "Never started", "idle"),
    "unknown": Sign("?", "Unknown", "warn"),
}
"""In the order in which they want to be looked at."""

VERDICTS: dict[str, Sign] = {
    "pass": Sign("✔", "ok", "good"),
    "breach": Sign("✖", "breach", "bad"),
    "too_few": Sign("◌", "too few requests", "warn"),
    "no_data": Sign("?", "no data", "warn"),
    "error": Sign("!", "not measurable", "warn"),
    "inconclusive": Sign("~", "inconclusive", "warn"),
    "not_applicable": Sign("–", "not applicable", "idle"),
}


def clock(at: datetime) -> str:
    return f"{at:%H:%M:%S} UTC"


def moment(at: datetime, now: datetime) -> str:
    """With the day only when it is another one."""
    return f"{at:%H:%M:%S} UTC" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M} UTC"


def age(at: datetime, now: datetime) -> str:
    """Coarse, so that a page that shows nothing new is not sent anew every second."""
    passed = (now - at).total_seconds()
    if passed < 60:
        return "less than a minute ago"
    return f"{duration_text(passed - passed % 60)} ago"


def shortly(total_seconds: float) -> str:
    """`in a moment`, `in 40s`, `in 12m`."""
    if total_seconds < 1:
        return "in a moment"
    if total_seconds < 60:
        return f"in {duration_text(max(10.0, total_seconds // 10 * 10))}"
    return f"in {duration_text(total_seconds - total_seconds % 60)}"


def limit_text(rule: RuleStatus) -> str:
    """`> 1 %`, `> 620 ms (2x baseline)`; the condition while no limit is known."""
    found = _COMPARISON.search(rule.condition)
    if found is None or rule.limit is None:
        return rule.condition
    multiple = f" ({found['multiple']} baseline)" if found["multiple"] else ""
    return f"{found['operator']} {quantity(rule.limit, rule.unit)}{multiple}{found['rest']}"


def sample_text(sample: float | None) -> str:
    return "–" if sample is None else f"{sample:,.0f}".replace(",", " ")


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def unbroken(text: str) -> str:
    """Keeps a number and its unit on one line."""
    return _UNIT.sub("\N{NO-BREAK SPACE}", text)


FILTERS = {
    "exposure": exposure_text,
    "quantity": quantity,
    "duration": duration_text,
    "clock": clock,
    "moment": moment,
    "age": age,
    "shortly": shortly,
    "limit": limit_text,
    "sample": sample_text,
    "shortened": shortened,
    "unbroken": unbroken,
}
