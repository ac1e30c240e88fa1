"""Numbers found in an answer by the settings' paths (JMESPath), or one sentence why not. Pure.

What stands where a number should is never made into one: a text, a list, true or a second result is a failure,
and null is silence.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult
from msgspec import Struct

from controller.errors import SettingsError, SourceUnavailable
from controller.sources.json_request import GARBLED, Json

TimeUnit = Literal["seconds", "milliseconds", "rfc3339"]
UNITS: Mapping[TimeUnit, float] = {"seconds": 1.0, "milliseconds": 1000.0}
MOST_AHEAD_SECONDS = 60.0
"""A point may be from the future by that much. By more, its time was read in a wrong unit, and never grows old."""

KINDS_OF_JSON: Mapping[type, str] = {str: "a text", bool: "true or false", list: "a list", dict: "an object"}


class Path(Struct, frozen=True):
    """`setting` is where it is written, for whoever has to correct it."""

    setting: str
    text: str
    compiled: ParsedResult

    def search(self, document: Json) -> Json:
        try:
            found: Json = self.compiled.search(document)
        except (JMESPathError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise SourceUnavailable(f"{self.setting} does not fit the answer: {error}") from error
        return found


class Paths(Struct, frozen=True, kw_only=True):
    """Where everything is in an answer. `value` and `time` are looked for in the one result."""

    results: Path
    value: Path
    time: Path | None
    time_unit: TimeUnit
    error: Path | None


class Found(Struct, frozen=True):
    """`value` None is silence. `results`: how many there were where one was expected."""

    value: float | None = None
    age_seconds: float | None = None
    results: int = 1


def path(text: str, setting: str) -> Path:
    """Raises SettingsError."""
    try:
        return Path(setting, text, jmespath.compile(text))
    except JMESPathError as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"{setting} is no path (JMESPath): {reason}") from error


def found(body: bytes, paths: Paths, *, now: float, countable: bool) -> Found:
    """`now` in Unix seconds; `countable`: the number is a count. Raises SourceUnavailable."""
    document = _decoded(body)
    complaint = paths.error.search(document) if paths.error else None
    if complaint:
        raise SourceUnavailable(f"it answered with an error: {_text(complaint)}")
    results = paths.results.search(document)
    if results is None:
        raise SourceUnavailable(f"the answer has nothing at {paths.results.setting} ({paths.results.text})")
    several = results if isinstance(results, list) else [results]
    if len(several) != 1:
        return Found(results=max(1, len(several)))
    value = _number(paths.value.search(several[0]), paths.value)
    if countable and value is not None and value < 0:
        raise SourceUnavailable(f"{paths.value.setting} gives {value:g}, and a count is never less than 0")
    return Found(value, _age(several[0], paths, now))


def refusal(status: int, content_type: str, body: bytes, error: Path | None) -> str:
    """Why an answer with an HTTP status other than 200 is none."""
    try:
        document = _decoded(body)
    except SourceUnavailable:
        return f"answered HTTP {status} with {content_type}; is a proxy or log-in page in front of it?"
    reason = (error and _complaint(document, error)) or _complaint(document, USUAL_ERRORS)
    return f"answered HTTP {status}" + (f": {reason}" if reason else "")


def _complaint(document: Json, error: Path) -> str:
    """Empty when there is none, or none where it was looked for."""
    try:
        found = error.search(document)
    except SourceUnavailable:
        return ""
    return _text(found) if found else ""


def _decoded(body: bytes) -> Json:
    try:
        document: Json = msgspec.json.decode(body)
    except GARBLED as error:
        kind = (
            "HTML: is a proxy or log-in page in front of it?"
            if body.lstrip()[:1] == b"<"
            else "cut off or garbled"
        )
        raise SourceUnavailable(f"the answer is not complete JSON ({kind}, {len(body)} bytes)") from error
    return document


def _number(value: Json, where: Path) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = KINDS_OF_JSON.get(type(value), "something else")
        raise SourceUnavailable(f"{where.setting} gives {kind} where one number is needed: {_text(value)}")
    try:
        return float(value)
    except OverflowError as error:
        raise SourceUnavailable(f"{where.setting} gives a number beyond all bounds") from error


def _age(result: Json, paths: Paths, now: float) -> float | None:
    if paths.time is None:
        return None
    at = _moment(paths.time.search(result), paths.time, paths.time_unit)
    if at is None or math.isnan(at):
        return None
    if at - now > MOST_AHEAD_SECONDS:
        raise SourceUnavailable(
            f"{paths.time.setting} gives a time {at - now:.0f} s from now; is time_unit right ({paths.time_unit})?"
        )
    return max(0.0, now - at)


def _moment(value: Json, where: Path, unit: TimeUnit) -> float | None:
    """Unix seconds."""
    if unit != "rfc3339":
        number = _number(value, where)
        return None if number is None else number / UNITS[unit]
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise SourceUnavailable(
            f"{where.setting} gives no time as 2026-11-21T09:00:00Z: {_text(value)}"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _text(value: Json) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


USUAL_ERRORS = path("errors[0].message || errors[0] || error.message || error || message || Message", "errors")
"""Where APIs usually tell what they did not like."""
WHOLE = path("@", "results")
