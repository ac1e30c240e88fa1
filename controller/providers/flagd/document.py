"""A flagd document as text: one flag is read and replaced in it, and every other character stays as it is."""

import json
from collections.abc import Collection, Mapping
from json import JSONDecodeError, JSONDecoder
from typing import Any, NamedTuple

from controller.providers.flagd.definition import Found, Json

PARKED = "rampart.parked."
"""How an entry of `$evaluators` begins that holds the targeting of a flag that is off. Nothing refers to it."""

BLANK = " \t\n\r"
LINE_CHARACTERS = 100


class Unreadable(Exception):
    """What is wrong with the document, in words for whoever edits it."""


class Member(NamedTuple):
    """`"key": value` of an object; all are positions in the text, `end` is where the value ends."""

    key: str
    at: int
    value_at: int
    end: int


class Document:
    """Immutable. `text` is exactly what was read, but for the flags that were replaced."""

    def __init__(self, text: str, root: Mapping[str, Json]) -> None:
        self.text = text
        self._root = root

    @classmethod
    def read(cls, raw: bytes) -> "Document":
        """Raises Unreadable: half a document, none, or one that evaluators would not take."""
        try:
            text = raw.decode()
            root = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_number)
        except JSONDecodeError as error:
            raise Unreadable(
                f"it is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
            ) from error
        except UnicodeDecodeError as error:
            raise Unreadable("it is not UTF-8") from error
        except ValueError as error:
            raise Unreadable(str(error)) from error
        if not isinstance(root, dict) or not isinstance(root.get("flags"), dict):
            raise Unreadable("its `flags` is not an object of flags by their keys")
        if not isinstance(root.get("$evaluators", {}), dict):
            raise Unreadable("its `$evaluators` is not an object")
        return cls(text, root)

    def flag(self, key: str) -> Found | None:
        definition = self._root["flags"].get(key)
        if definition is None:
            return None
        # Anything but an object has no variants, and whoever looks is told so.
        return Found(
            definition if isinstance(definition, dict) else {}, self._root.get("$evaluators", {}).get(PARKED + key)
        )

    @property
    def keys(self) -> Collection[str]:
        return list(self._root["flags"])

    def with_flags(self, changed: Mapping[str, Found]) -> "Document":
        """All of these flags must be there. Where nothing differs nothing is written anew."""
        before = {key: self._there(key) for key in changed}
        flags = {key: one.definition for key, one in changed.items() if one.definition != before[key].definition}
        parked = {PARKED + key: one.parked for key, one in changed.items() if one.parked != before[key].parked}
        root = {**self._root, "flags": {**self._root["flags"], **flags}}
        evaluators = {**root.pop("$evaluators", {}), **parked}
        left = {name: one for name, one in evaluators.items() if one is not None or name not in parked}
        text = _with_values(self.text, flags) if flags else self.text
        for name, targeting in parked.items():
            text = _without_member(text, ("$evaluators", name)) if targeting is None else text
            text = text if targeting is None else _with_member(text, ("$evaluators", name), targeting)
        if parked and not left:
            text = _without_member(text, ("$evaluators",))
        return Document(text, {**root, "$evaluators": left} if left else root)

    def _there(self, key: str) -> Found:
        found = self.flag(key)
        if found is None:
            raise KeyError(key)
        return found


class Draft:
    """A document, and changes to it that are written together."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._changed: dict[str, Found] = {}

    def flag(self, key: str) -> Found | None:
        return self._changed.get(key) or self._document.flag(key)

    def put(self, key: str, found: Found) -> None:
        self._changed[key] = found

    def document(self) -> Document:
        return self._document.with_flags(self._changed)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            # Evaluators differ in which of the two they take.
            raise ValueError(f'the key "{key}" is there twice in the same object')
        found[key] = value
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# — the text —


def _members(text: str, start: int) -> tuple[list[Member], int]:
    """The members of the object that begins at `start`, and where it ends. The text is known to be JSON."""
    decoder, found = JSONDecoder(), []
    at = _skip(text, start + 1)
    while text[at] != "}":
        key, end = decoder.raw_decode(text, at)
        value_at = _skip(text, _skip(text, end) + 1)
        _, value_end = decoder.raw_decode(text, value_at)
        found.append(Member(key, at, value_at, value_end))
        at = _skip(text, value_end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found, at + 1


def _skip(text: str, at: int) -> int:
    while text[at] in BLANK:
        at += 1
    return at


def _find(text: str, path: tuple[str, ...]) -> tuple[int, list[Member], Member | None]:
    """Where the innermost object of `path` begins, its members, and that one of them which is meant."""
    start = _skip(text, 0)
    *outer, last = path
    for key in outer:
        (start,) = [one.value_at for one in _members(text, start)[0] if one.key == key]
    members, _ = _members(text, start)
    return start, members, next((one for one in members if one.key == last), None)


def _with_values(text: str, flags: Mapping[str, Json]) -> str:
    """In one walk through the text, however many they are."""
    (start,) = [one.value_at for one in _members(text, _skip(text, 0))[0] if one.key == "flags"]
    pieces, end = [], 0
    for member in _members(text, start)[0]:
        if member.key in flags:
            pieces += [text[end : member.value_at], _written(flags[member.key], text, member.at)]
            end = member.end
    return "".join([*pieces, text[end:]])


def _with_member(text: str, path: tuple[str, ...], value: Json) -> str:
    """Replaced, or added at the end of an object, which is added itself when it is missing."""
    if len(path) > 1 and _find(text, path[:1])[2] is None:
        return _with_member(text, path[:1], {path[1]: value})
    start, members, member = _find(text, path)
    if member is not None:
        return text[: member.value_at] + _written(value, text, member.at) + text[member.end :]
    if not members:
        end = _members(text, start)[1]
        return f"{text[:start]}{_written({path[-1]: value}, text, start)}{text[end:]}"
    last = members[-1]
    gap = _blank_before(text, last.at)
    added = f",{gap}{_json(path[-1])}: {_written(value, text, last.at)}"
    return text[: last.end] + added + text[last.end :]


def _without_member(text: str, path: tuple[str, ...]) -> str:
    """With the comma that goes with it. One that is not there was never in the way."""
    start, members, member = _find(text, path)
    if member is None:
        return text
    place = members.index(member)
    if place:
        return text[: members[place - 1].end] + text[member.end :]
    if len(members) > 1:
        return text[: member.at] + text[members[1].at :]
    return f"{text[:start]}{{}}{text[_members(text, start)[1] :]}"


def _blank_before(text: str, at: int) -> str:
    begin = at
    while begin and text[begin - 1] in BLANK:
        begin -= 1
    return text[begin:at]


def _written(value: Json, text: str, at: int) -> str:
    """As the rest of the document is laid out: on lines, indented as at position `at`, or all on one line."""
    if "\n" not in text.strip(BLANK):
        return _json(value)
    line = text.rfind("\n", 0, at) + 1
    indent = text[line : _skip(text, line)] if _skip(text, line) <= at else ""
    return _on_lines(value, _unit(text), indent)


def _on_lines(value: Json, unit: str, indent: str) -> str:
    """What fits on a line stays on one, so that a person can read it."""
    flat = _json(value)
    if not value or not isinstance(value, dict | list) or len(indent) + len(flat) <= LINE_CHARACTERS:
        return flat
    deeper = indent + unit
    if isinstance(value, dict):
        parts = [f"{_json(key)}: {_on_lines(one, unit, deeper)}" for key, one in value.items()]
    else:
        parts = [_on_lines(one, unit, deeper) for one in value]
    begin, end = ("{", "}") if isinstance(value, dict) else ("[", "]")
    return begin + ",".join(f"\n{deeper}{part}" for part in parts) + f"\n{indent}{end}"


def _json(value: Json) -> str:
    """Readable, unless it holds half a character, which only an escape can."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def _unit(text: str) -> str:
    """What one level is indented by: how far the first line within the outermost object is."""
    first = text.find("\n", text.find("{"))
    blank = text[first + 1 : _skip(text, first + 1)].rpartition("\n")[2]
    return blank or "  "
