"""The one place where a decision becomes words: CLI, API, dashboard, notifications and audit all use this text."""

from controller.domain.evidence import Verdict
from controller.domain.quantities import duration_text


def quantity(number: float | None, unit: str) -> str:
    """0.0123, "ratio" → `1.23 %`; 0.402, "seconds" → `402 ms`; None → `–`."""
    if number is None:
        return "–"
    if unit == "ratio":
        return f"{_digits(number * 100)} %"
    if unit == "seconds":
        return f"{_digits(number * 1000)} ms" if abs(number) < 1 else f"{_digits(number)} s"
    return f"{_digits(number)} {unit}".rstrip()


def _digits(number: float) -> str:
    return f"{number:.3g}" if abs(number) < 999.5 else f"{number:.0f}"


def breach_text(verdict: Verdict, breached_seconds: float) -> str:
    """`checkout errors-high: error_rate 5.1 % against a limit of 1 % for 5m (baseline 0.2 %, 4120 requests)`."""
    facts = [f"baseline {quantity(verdict.baseline, verdict.unit)}"] if verdict.baseline is not None else []
    if verdict.sample is not None:
        facts.append(f"{verdict.sample:.0f} requests")
    lasting = f" for {duration_text(breached_seconds)}" if breached_seconds else ""
    context = f" ({', '.join(facts)})" if facts else ""
    value, limit = quantity(verdict.value, verdict.unit), quantity(verdict.limit, verdict.unit)
    return f"{verdict.id}: {verdict.metric} {value} against a limit of {limit}{lasting}{context}"


def unknown_text(verdict: Verdict) -> str:
    label = {"too_few": "too few requests", "no_data": "no data", "error": "cannot be measured"}
    return f"{verdict.id}: {label.get(verdict.outcome, verdict.outcome)}: {verdict.detail}"
