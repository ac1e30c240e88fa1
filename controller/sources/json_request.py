"""One question as one HTTP request: the `{{names}}` in the settings' texts, filled in. Pure."""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import Struct

from controller.errors import Invalid, SettingsError

Kind = Literal["counter", "sample", "quantile", "raw"]
Json = object
Values = Mapping[str, Json]

MOMENTS = frozenset({"from", "to", "from_ms", "to_ms", "from_iso", "to_iso", "window"})
IN_QUERIES = MOMENTS | {"text", "quantile", "percent"}
IN_REQUESTS = MOMENTS | {"query", "query_json", "quantile", "percent"}
PLACEHOLDER = re.compile(r"\{\{\s*(\w*)\s*\}\}")
GARBLED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Ask(Struct, frozen=True, kw_only=True, cache_hash=True):
    """One number to be had. `text` is the policy's; `quantile` is 0 where none is asked for."""

    kind: Kind
    text: str
    window_seconds: float
    quantile: float = 0.0


def moments(at: float, window_seconds: float) -> Values:
    """`at` in Unix seconds. Whole seconds, because that is what most of these APIs take."""
    window = max(1, round(window_seconds))
    until = int(at)
    since = until - window
    return {
        "from": since, "to": until, "window": window,
        "from_ms": since * 1000, "to_ms": until * 1000,
        "from_iso": _iso(since), "to_iso": _iso(until),
    }  # fmt: skip


def query_of(template: str, ask: Ask, values: Values) -> str:
    return filled(template, {**values, **_of(ask), "text": ask.text})


def request_values(query: str, ask: Ask, values: Values) -> Values:
    return {**values, **_of(ask), "query": query}


def filled(template: str, values: Values) -> str:
    """Raises Invalid as `_value` does."""
    return PLACEHOLDER.sub(lambda found: str(_value(found[1], values)), template)


def filled_json(tree: Json, values: Values) -> Json:
    """All texts within. One that is nothing but a placeholder becomes the value itself: numbers stay numbers."""
    match tree:
        case str():
            whole = PLACEHOLDER.fullmatch(tree)
            return _value(whole[1], values) if whole else filled(tree, values)
        case dict():
            return {key: filled_json(value, values) for key, value in tree.items()}
        case list():
            return [filled_json(value, values) for value in tree]
        case _:
            return tree


def check_template(text: str, known: Collection[str], setting: str) -> str:
    """The text itself. Raises SettingsError for a name that nothing would fill in."""
    for name in PLACEHOLDER.findall(text):
        if name not in known:
            raise SettingsError(f"{setting} has {{{{{name}}}}}, which is none of {', '.join(sorted(known))}")
    return text


def body_template(text: str, setting: str) -> Json:
    """None for no body. Raises SettingsError when it is no JSON: the names stand within its texts."""
    if not text.strip():
        return None
    check_template(text, IN_REQUESTS, setting)
    try:
        return msgspec.json.decode(text)
    except GARBLED as error:
        raise SettingsError(
            f'{setting} is no JSON ({error}); names stand in quotes, as in "{{{{from}}}}"'
        ) from error


def _of(ask: Ask) -> Values:
    percent = round(ask.quantile * 100, 9)
    return {"quantile": ask.quantile, "percent": int(percent) if percent.is_integer() else percent}


def _value(name: str, values: Values) -> Json:
    """Raises Invalid when the text of the policy should be JSON and is none."""
    if name != "query_json":
        return values[name]
    try:
        return msgspec.json.decode(str(values["query"]))
    except GARBLED as error:
        raise Invalid(f"the policy's text is no JSON, as this source asks for: {error}") from error


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
