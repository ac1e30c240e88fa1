"""Does a node have the shape of a type? Every difference is reported with its place; what fits is converted.

The types are those of the domain, so that the YAML, its JSON Schema and the code cannot drift apart.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec import inspect as types

from controller.domain.plan import CLOCK_PATTERN, DAYS_PATTERN, LOCAL_TIME_PATTERN, AllowedWindow
from controller.domain.quantities import (
    DURATION_PATTERN,
    EXPOSURE_PATTERN,
    KEY_PATTERN,
    NAME_PATTERN,
    exposure,
    seconds,
)
from controller.domain.schedule import days_of
from controller.manifests.problem import Edit, Problem, Span, did_you_mean, meant, nearest
from controller.manifests.reader import MAX_PROBLEMS, UNREADABLE, Node, Source

Path = tuple[str | int, ...]

LONGEST_DURATION_SECONDS = 10 * 365 * 86400.0
"""Ten years: beyond it somebody meant another unit, and dates overflow."""


class Spelling(Struct, frozen=True):
    """A kind of text: what it is called, what to write, and what its pattern cannot check."""

    name: str
    example: str
    check: Callable[[str], object] | None = None


def _plausible(duration: str) -> None:
    if seconds(duration) > LONGEST_DURATION_SECONDS:
        raise ValueError("a duration is at most ten years")


def _days(days: str) -> None:
    try:
        days_of(AllowedWindow(days=days, from_="00:00", to="24:00"))
    except ValueError as error:
        raise ValueError(f'"{days}" is no list of days') from error


SPELLINGS: Mapping[str, Spelling] = {
    DURATION_PATTERN: Spelling("a duration", "30s, 5m, 2h or 1d", _plausible),
    EXPOSURE_PATTERN: Spelling("a share of contexts", "0.1%, 1% or 50%", exposure),
    NAME_PATTERN: Spelling("a name", 'lower-case letters, digits, "-", "_" and "."'),
    KEY_PATTERN: Spelling("a flag key", 'letters, digits, "-", "_" and "."'),
    DAYS_PATTERN: Spelling("days", "mon-thu or sat,sun", _days),
    CLOCK_PATTERN: Spelling("a time of day", '"09:00" or "24:00"'),
    LOCAL_TIME_PATTERN: Spelling("a date", "2026-11-26 or 2026-11-26T08:00", datetime.fromisoformat),
}


class Checked(Struct, frozen=True):
    """`value` is made of plain lists, dicts and scalars; `unsound` are the paths at which it does not fit.

    An unknown key is a problem and leaves the rest sound.
    """

    value: Any
    unsound: frozenset[Path]
    problems: list[Problem]


def check(node: Node, wanted: type[Struct], source: Source) -> Checked:
    walker = _Walker(source)
    try:
        value = walker.walk(node, types.type_info(wanted), ())
    except _TooManyProblems:
        return Checked(None, frozenset({("spec",)}), walker.problems)
    return Checked(value, frozenset(walker.unsound), walker.problems)


class _TooManyProblems(Exception):
    """The file is not what it claims to be; more findings would help nobody."""


class _Walker:
    def __init__(self, source: Source) -> None:
        self.problems: list[Problem] = []
        self.unsound: set[Path] = set()
        self._source = source

    def walk(self, node: Node, wanted: types.Type, path: Path) -> Any:
        if node.value is UNREADABLE:
            self.unsound.add(path)
            return None
        match wanted:
            case types.Metadata():
                return self.walk(node, wanted.type, path)
            case types.AnyType():
                return plain(node)
            case types.UnionType():
                return self._union(node, wanted, path)
            case types.StructType():
                return self._struct(node, wanted, path)
            case types.DictType():
                return self._dict(node, wanted, path)
            case types.ListType() | types.VarTupleType():
                return self._list(node, wanted, path)
            case _:
                return self._scalar(node, wanted, path)

    def wrong(self, path: Path, span: Span, message: str, help_text: str = "", fix: Edit | None = None) -> None:
        self.unsound.add(path)
        self._report(span, "R003", message, help_text, fix)

    def _report(self, span: Span, code: str, message: str, help_text: str, fix: Edit | None) -> None:
        self.problems.append(self._source.problem(span, code, message, help_text, fix=fix))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _TooManyProblems

    def _union(self, node: Node, wanted: types.UnionType, path: Path) -> Any:
        if node.kind == "scalar" and node.value is None:
            return None
        others = [one for one in wanted.types if not isinstance(one, types.NoneType)]
        return self.walk(node, others[0], path)

    def _struct(self, node: Node, wanted: types.StructType, path: Path) -> Any:
        if node.kind != "map":
            self.wrong(path, node.span, f"{_label(path)} must be a map of keys{_found(node)}", _keys_help(wanted))
            return None
        entries = self._known_entries(node, wanted, path)
        value: dict[str, Any] = {}
        if wanted.tag_field is not None:
            value[wanted.tag_field] = wanted.tag
        for field in wanted.fields:
            name = field.encode_name
            if name in entries:
                value[name] = self.walk(entries[name], field.type, (*path, name))
            elif field.required:
                self._missing(node, field, path)
        return value

    def _known_entries(self, node: Node, wanted: types.StructType, path: Path) -> dict[str, Node]:
        """A misspelt key counts as the one it was meant to be, so that it is reported once and hides nothing."""
        names = [field.encode_name for field in wanted.fields]
        tagged = [wanted.tag_field] if wanted.tag_field else []
        entries = {name: entry for name, entry in node.entries.items() if name in names}
        for name, entry in node.entries.items():
            if name in names or name in tagged:
                continue
            message = f'unknown key "{name[:60]}" in {_label(path)}'
            choices = [other for other in names if other not in node.entries] or names
            span, certain = node.keys[name], meant(name, choices)
            fix = Edit(span, certain) if certain not in node.entries and span.length == len(name) else None
            self._report(span, "R002", message, did_you_mean(name, choices), fix if certain else None)
            likely = nearest(name, [other for other in names if other not in entries])
            if likely:
                entries[likely] = entry
        return entries

    def _missing(self, node: Node, field: types.Field, path: Path) -> None:
        name = field.encode_name
        message = f'{_label(path)} lacks the key "{name}"'
        self.wrong((*path, name), node.owner, message, _write(field))

    def _dict(self, node: Node, wanted: types.DictType, path: Path) -> Any:
        if node.kind != "map":
            self.wrong(path, node.span, f"{_label(path)} must be a map of keys{_found(node)}")
            return None
        for name in node.entries:
            self._check_text(name, wanted.key_type, (*path, name), node.keys[name], "the key ")
        self._check_length(len(node.entries), wanted, path, node.span, "entries")
        return {name: self.walk(entry, wanted.value_type, (*path, name)) for name, entry in node.entries.items()}

    def _list(self, node: Node, wanted: types.ListType | types.VarTupleType, path: Path) -> Any:
        if node.kind != "list":
            self.wrong(
                path, node.span, f"{_label(path)} must be a list{_found(node)}", "write [a, b] or lines of - a"
            )
            return None
        self._check_length(len(node.items), wanted, path, node.span, "items")
        return [self.walk(item, wanted.item_type, (*path, index)) for index, item in enumerate(node.items)]

    def _check_length(
        self,
        length: int,
        wanted: types.ListType | types.VarTupleType | types.DictType,
        path: Path,
        span: Span,
        what: str,
    ) -> None:
        if wanted.min_length is not None and length < wanted.min_length:
            self.wrong(path, span, f"{_label(path)} needs at least {wanted.min_length} {what}, it has {length}")
        if wanted.max_length is not None and length > wanted.max_length:
            self.wrong(path, span, f"{_label(path)} may have at most {wanted.max_length} {what}, it has {length}")

    def _scalar(self, node: Node, wanted: types.Type, path: Path) -> Any:
        if node.kind != "scalar":
            self.wrong(path, node.span, f"{_label(path)} must be {_wanted(wanted)}{_found(node)}")
            return None
        match wanted:
            case types.StrType() if isinstance(node.value, str):
                self._check_text(node.value, wanted, path, node.span)
            case types.LiteralType() if node.value in wanted.values:
                pass
            case types.LiteralType():
                choices = [str(value) for value in wanted.values]
                message = f"{_label(path)} must be {_choice(choices)}{_found(node)}"
                fix = node.replaced(meant(node.text, choices))
                self.wrong(path, node.span, message, _closest(node.text, choices), fix)
            case types.BoolType() if isinstance(node.value, bool):
                pass
            case types.IntType() if isinstance(node.value, int) and not isinstance(node.value, bool):
                self._check_bounds(node.value, wanted, path, node.span)
            case types.FloatType() if isinstance(node.value, int | float) and not isinstance(node.value, bool):
                self._check_bounds(node.value, wanted, path, node.span)
            case _:
                message = f"{_label(path)} must be {_wanted(wanted)}{_found(node)}"
                self.wrong(path, node.span, message, _instead(node, wanted), _unquoted(node, wanted))
        return node.value

    def _check_text(self, text: str, wanted: types.Type, path: Path, span: Span, prefix: str = "") -> None:
        wanted = wanted.type if isinstance(wanted, types.Metadata) else wanted
        if not isinstance(wanted, types.StrType):
            return
        if wanted.min_length is not None and len(text) < wanted.min_length:
            self.wrong(path, span, f"{_label(path)} must not be empty")
        if wanted.pattern is None:
            return
        spelling = SPELLINGS[wanted.pattern]
        # A pattern's `$` also matches before a final line break.
        if not re.search(wanted.pattern, text) or "\n" in text:
            message = f'{prefix}"{text[:60]}" is not {spelling.name}'
            self.wrong(path, span, message, _respelt(text, wanted.pattern) or f"write {spelling.example}")
            return
        try:
            if spelling.check:
                spelling.check(text)
        except ValueError as error:
            self.wrong(path, span, f"{_label(path)}: {error}", f"write {spelling.example}")

    def _check_bounds(
        self, number: float, wanted: types.IntType | types.FloatType, path: Path, span: Span
    ) -> None:
        limits: list[tuple[bool, str]] = [
            (wanted.gt is not None and number <= wanted.gt, f"more than {wanted.gt}"),
            (wanted.ge is not None and number < wanted.ge, f"at least {wanted.ge}"),
            (wanted.lt is not None and number >= wanted.lt, f"less than {wanted.lt}"),
            (wanted.le is not None and number > wanted.le, f"at most {wanted.le}"),
        ]
        for broken, limit in limits:
            if broken:
                self.wrong(path, span, f"{_label(path)} must be {limit}, it is {number:g}")


def plain(node: Node) -> Any:
    """The node as lists, dicts and scalars. Recursion is bounded by the reader's depth."""
    match node.kind:
        case "map":
            return {name: plain(entry) for name, entry in node.entries.items()}
        case "list":
            return [plain(item) for item in node.items]
        case _:
            return None if node.value is UNREADABLE else node.value


def path_text(path: Path) -> str:
    """("spec", "stages", 1, "bake") → `spec.stages[1].bake`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _label(path: Path) -> str:
    return path_text(path) or "the document"


def _found(node: Node) -> str:
    if node.kind != "scalar":
        return f", not a {node.kind}"
    return ", it is empty" if node.value is None and not node.text else f', not "{node.text[:60]}"'


def _wanted(wanted: types.Type) -> str:
    match wanted:
        case types.StrType(pattern=str() as pattern):
            return SPELLINGS[pattern].name
        case types.StrType():
            return "text"
        case types.IntType():
            return "a whole number"
        case types.FloatType():
            return "a number"
        case types.BoolType():
            return "true or false"
        case types.LiteralType(values=values):
            return _choice([str(value) for value in values])
        case _:
            return "something else"


def _closest(text: str, choices: list[str]) -> str:
    close = nearest(text, choices)
    return f'did you mean "{close}"?' if close else ""


def _choice(choices: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))


def _instead(node: Node, wanted: types.Type) -> str:
    """What to write instead of a scalar of the wrong type."""
    match wanted:
        case types.StrType(pattern=str() as pattern) if node.value is not None:
            return _respelt(node.text, pattern) or f"write {SPELLINGS[pattern].example}"
        case types.StrType(pattern=str() as pattern):
            return f"write {SPELLINGS[pattern].example}"
        case types.StrType() if node.value is not None:
            return f'put it in quotes: "{node.text[:60]}"'
        case types.IntType() | types.FloatType() if isinstance(node.value, str) and _is_number(node.value):
            return "remove the quotes"
        case _:
            return ""


def _unquoted(node: Node, wanted: types.Type) -> Edit | None:
    number = isinstance(wanted, types.IntType | types.FloatType) and isinstance(node.value, str)
    if not (number and node.exact and _is_number(node.text) and node.text == node.text.strip()):
        return None
    return Edit(node.span, node.text)


def _respelt(text: str, pattern: str) -> str:
    """A number without its unit is the commonest slip; name the unit rather than guess it."""
    text = text.strip()
    if pattern == EXPOSURE_PATTERN and _is_number(text):
        return f"write {float(text):g}%"
    if pattern == DURATION_PATTERN and text.isdigit():
        return f"write {text}s, {text}m or {text}h"
    if pattern == NAME_PATTERN and re.search(NAME_PATTERN, text.lower().replace(" ", "-")):
        return f"write {text.lower().replace(' ', '-')}"
    return ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _write(field: types.Field) -> str:
    wanted = field.type.type if isinstance(field.type, types.Metadata) else field.type
    match wanted:
        case types.StrType(pattern=str() as pattern):
            return f"write {field.encode_name}: with {SPELLINGS[pattern].name}, as in {SPELLINGS[pattern].example}"
        case types.LiteralType(values=values):
            return f"write {field.encode_name}: {_choice([str(value) for value in values])}"
        case types.StructType():
            return f"write {field.encode_name}: with {_keys_help(wanted)}"
        case types.ListType() | types.DictType():
            return f"write {field.encode_name}: and below it at least one entry"
        case _:
            return f"write {field.encode_name}: with {_wanted(wanted)}"


def _keys_help(wanted: types.StructType) -> str:
    required = [field.encode_name for field in wanted.fields if field.required]
    optional = [field.encode_name for field in wanted.fields if not field.required]
    return f"the keys {', '.join(required)}" if required else f"any of the keys {', '.join(optional)}"
