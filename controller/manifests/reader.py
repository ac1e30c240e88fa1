"""YAML text to nodes with positions, safe against hostile files.

One pass over the parser's events, which needs no recursion, stops at the first excess of depth or size and never
expands anything: the common parsers crash on 100 KB of `[`, and a 300-byte alias bomb becomes megabytes. Scalars
mean what YAML 1.2 says, only plainer: `off`, `no`, `22:00`, `0010` and dates are text.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, Literal, Protocol

import yaml
from msgspec import Struct, field

from controller.manifests.problem import Edit, Problem, Span
from controller.manifests.rulebook import RULES
from controller.manifests.rulebook.rule import Severity

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 5_000
MAX_DOCUMENTS = 100
MAX_PROBLEMS = 100
LONGEST_SHOWN = 400

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# Without leading zeros, unlike YAML 1.2: 0010 is a code that somebody wants to keep.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+\Z|0o[0-7]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

UNREADABLE = object()
"""The value of a scalar whose problem has been reported."""

INTEGER_LIMIT = 2**63


class Mark(Protocol):
    """A 0-based place, as the parser gives it."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...
    @property
    def index(self) -> int: ...


# A tree without cycles: the garbage collector need not walk thousands of nodes while a hostile file is read.
class Node(Struct, kw_only=True, eq=False, gc=False):
    """A value and where it stands; `owner` is the span of the key it belongs to, its own without one.

    `text` is what a scalar was written as; `keys` are the spans of a map's keys.

    `exact` says that the characters of `text` stand in the file one by one from `span.column` + `quote` on, so
    that an offset in the text is an offset in the line.
    """

    kind: Literal["scalar", "list", "map"]
    span: Span
    owner: Span
    value: Any = None
    text: str = ""
    exact: bool = False
    quote: int = 0
    items: list["Node"] = field(default_factory=lambda: _NO_ITEMS)
    entries: dict[str, "Node"] = field(default_factory=lambda: _NO_ENTRIES)
    keys: dict[str, Span] = field(default_factory=lambda: _NO_KEYS)

    def part(self, offset: int, length: int) -> Span:
        """The span of some characters of a scalar's text; of the whole scalar when they cannot be located."""
        if not self.exact:
            return self.span
        return Span(self.span.line, self.span.column + self.quote + offset, length)

    def replaced(self, text: str, offset: int = 0, length: int | None = None) -> Edit | None:
        """The edit that puts `text` for some characters of a scalar's text; None when they cannot be located."""
        if not (self.exact and text):
            return None
        return Edit(self.part(offset, len(self.text) if length is None else length), text)


# Shared by all scalars, which have neither items nor entries.
_NO_ITEMS: list[Node] = []
_NO_ENTRIES: dict[str, Node] = {}
_NO_KEYS: dict[str, Span] = {}


class Source(Struct, frozen=True):
    """One file's name and lines, and the problems made from them."""

    file: str
    lines: tuple[str, ...]

    def problem(
        self,
        span: Span,
        code: str,
        message: str,
        help: str = "",  # noqa: A002
        severity: Severity | None = None,
        fix: Edit | None = None,
    ) -> Problem:
        """The severity is the rule's own unless another is given."""
        line = self.lines[span.line - 1] if span.line <= len(self.lines) else ""
        return Problem(
            file=self.file,
            line=span.line,
            column=span.column,
            length=span.length,
            code=code,
            message=message,
            help=help,
            severity=severity or RULES[code].severity,
            source_line=line[:LONGEST_SHOWN] if span.column <= LONGEST_SHOWN else "",
            fix=fix,
        )


class Read(Struct, frozen=True):
    """The documents of one file as nodes, and what was wrong on the way."""

    source: Source
    documents: list[Node]
    problems: list[Problem]


class _Stop(Exception):
    """Reading ends here: nothing that follows can be trusted."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def read(text: bytes | str, file: str) -> Read:
    """Never raises: whatever is wrong with the text is in `problems`."""
    source = Source(file, ())
    try:
        decoded = _decoded(text, source)
        source = Source(file, tuple(_LINE_BREAK.split(decoded)))
        _refuse_unprintable(decoded, source)
    except _Stop as stop:
        return Read(source, [], [stop.problem])
    builder = _Builder(source)
    try:
        for event in _events(decoded, source):
            builder.take(event)
    except _Stop as stop:
        builder.problems.append(stop.problem)
        # What half a document lacks may stand in its other half.
        builder.documents[-1:] = []
    return Read(source, builder.documents, builder.problems)


def line_starts(text: str) -> list[int]:
    """The offset of every line's first character."""
    return [0, *(found.end() for found in _LINE_BREAK.finditer(text))]


def _decoded(text: bytes | str, source: Source) -> str:
    size = len(text) if isinstance(text, bytes) or len(text) > MAX_BYTES else len(text.encode(errors="replace"))
    if size > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES // 1024} KiB"
        raise _Stop(source.problem(Span(1, 1), "R000", message, "split it into several"))
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        column = error.start - text.rfind(b"\n", 0, error.start)
        problem = source.problem(Span(line, column), "R000", "the file is not UTF-8 text", "save it as UTF-8")
        raise _Stop(problem) from error


def _refuse_unprintable(text: str, source: Source) -> None:
    found = _UNPRINTABLE.search(text)
    if found is None:
        return
    before = _LINE_BREAK.split(text[: found.start()])
    span = Span(len(before), len(before[-1]) + 1)
    message = f"the character U+{ord(found.group()):04X} cannot stand in a YAML file"
    raise _Stop(source.problem(span, "R000", message, "remove it"))


def _events(text: str, source: Source) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        span = Span(*_position(error.problem_mark or error.context_mark))
        context = f" {error.context}" if error.context else ""
        problem = source.problem(span, "R000", f"not YAML: {error.problem}{context}", _syntax_help(source, span))
        raise _Stop(problem) from error


def _syntax_help(source: Source, span: Span) -> str:
    line = source.lines[span.line - 1] if span.line <= len(source.lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "indent with spaces; YAML does not allow tabs"
    if "%" in line[span.column - 1 : span.column] or "@" in line[span.column - 1 : span.column]:
        return "put the value in quotes"
    return "check the quotes, brackets, colons and indentation here and on the line before"


class _Open(Struct):
    """A list or map whose end has not come yet; `key` waits for its value."""

    node: Node
    key: str | None = None
    key_span: Span = Span(1, 1)
    ignore_value: bool = False


class _Builder:
    def __init__(self, source: Source) -> None:
        self.documents: list[Node] = []
        self.problems: list[Problem] = []
        self._source = source
        self._open: list[_Open] = []
        self._nodes = 0
        self._starts = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._refuse_references(event)
                self._add(self._scalar(event), event)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._refuse_references(event)
                self._begin(event)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._end(event)
            case yaml.AliasEvent():
                self._stop(event, "aliases are not allowed", "write the value out")
            case yaml.DocumentStartEvent():
                self._starts += 1
                if self._starts > MAX_DOCUMENTS:
                    self._stop(event, f"more than {MAX_DOCUMENTS} documents in one file", "split the file")

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        if len(self._open) >= MAX_DEPTH:
            self._stop(event, f"nested deeper than {MAX_DEPTH} levels")
        kind: Literal["list", "map"] = "list" if isinstance(event, yaml.SequenceStartEvent) else "map"
        span = _span(event)
        node = Node(kind=kind, span=span, owner=span, items=[], entries={}, keys={})
        self._add(node, event)
        self._open.append(_Open(node))

    def _end(self, event: yaml.CollectionEndEvent) -> None:
        node, (line, column) = self._open.pop().node, _position(event.end_mark)
        if line != node.span.line:
            return
        whole = Span(line, node.span.column, max(column - node.span.column, 1))
        node.owner = whole if node.owner == node.span else node.owner
        node.span = whole

    def _refuse_references(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.anchor is not None:
            self._stop(event, "anchors are not allowed", "write the value out where it is needed")
        if event.tag is not None:
            self._stop(event, "tags are not allowed", "remove the tag; quotes make text, nothing else is needed")

    def _stop(self, event: yaml.Event, message: str, help_text: str = "") -> None:
        raise _Stop(self._source.problem(_span(event), "R000", message, help_text))

    def _report(self, span: Span, code: str, message: str, help_text: str = "") -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            raise _Stop(
                self._source.problem(span, "R000", f"more than {MAX_PROBLEMS} problems; reading stops here")
            )
        self.problems.append(self._source.problem(span, code, message, help_text))

    def _add(self, node: Node, event: yaml.Event) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(event, f"more than {MAX_NODES} values in one file", "split the file")
        if not self._open:
            self.documents.append(node)
            return
        parent = self._open[-1]
        if parent.node.kind == "list":
            parent.node.items.append(node)
        elif parent.key is None:
            self._take_key(parent, node)
        else:
            if not parent.ignore_value:
                parent.node.entries[parent.key] = node
                parent.node.keys[parent.key] = node.owner = parent.key_span
            parent.key = None

    def _take_key(self, parent: _Open, node: Node) -> None:
        parent.key, parent.key_span, parent.ignore_value = node.text, node.span, False
        if node.kind != "scalar":
            self._report(
                node.span, "R003", "a key must be text, not a list or a map", "write one word and a colon"
            )
            parent.ignore_value = True
        elif node.text in parent.node.entries:
            message = f'key "{node.text[:60]}" appears twice; the first value would be lost'
            first = parent.node.keys[node.text].line
            self._report(node.span, "R001", message, f"keep one of them; the first is on line {first}")
            parent.ignore_value = True

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        span, text = _span(event), event.value
        one_line = _position(event.start_mark)[0] == _position(event.end_mark)[0]
        quote = 0 if event.implicit[0] else 1
        exact = one_line and span.length == len(text) + 2 * quote
        node = Node(kind="scalar", span=span, owner=span, text=text, exact=exact, quote=quote)
        node.value = self._resolved(text, span) if event.implicit[0] else text
        return node

    def _resolved(self, text: str, span: Span) -> object:
        if text in _NULL:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        number: float | int
        if _HEXADECIMAL.match(text):
            number = int(text[2:], 16 if text[1] == "x" else 8) if len(text) < 40 else INTEGER_LIMIT
        elif _INTEGER.match(text):
            number = int(text) if len(text) < 40 else INTEGER_LIMIT
        elif _FLOAT.match(text):
            number = float(text)
        elif _NOT_FINITE.match(text):
            number = math.nan
        else:
            return text
        if not math.isfinite(number) or abs(number) > INTEGER_LIMIT - 1:
            message = f"{text[:40]} is not a finite number of ordinary size"
            self._report(span, "R003", message, "write a number, or quote it")
            return UNREADABLE
        return number


def _span(event: yaml.Event) -> Span:
    (line, column), (end_line, end_column) = _position(event.start_mark), _position(event.end_mark)
    return Span(line, column, max(end_column - column, 1) if end_line == line else 1)


def _position(mark: Mark | None) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)
