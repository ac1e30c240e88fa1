"""A file as an outline that still has its comments, its blank lines and every scalar as it was written."""

import re
from collections.abc import Iterator
from typing import Literal

import yaml
from msgspec import Struct, field

from controller.manifests.reader import Mark, read

BLOCK_HEADER = re.compile(r"[|>][-+]?")


class Unformattable(Exception):
    """Why the file has to stay as it is: `str(error)`."""


# Built step by step and walked in both directions of the text, so neither frozen nor compared.
class Tree(Struct, eq=False):
    """A value. `raw` are the lines of a scalar as written, those of a block scalar without their indentation."""

    kind: Literal["scalar", "map", "list"]
    flow: bool = True
    one_line: bool = True
    raw: tuple[str, ...] = ()
    block_scalar: bool = False
    items: list["Item"] = field(default_factory=list)


class Item(Struct, eq=False):
    """A key with its value, or a value in a list. Lines and columns are 0-based and those of the file.

    `head` are the comments before it and "" for blank lines, `tail` the one behind it, `foot` those after it.
    """

    value: Tree
    line: int
    column: int
    end_line: int
    key: str = ""
    name: str = ""
    in_line: bool = False
    parent: "Item | None" = None
    head: list[str] = field(default_factory=list)
    tail: str = ""
    tail_column: int = 0
    foot: list[str] = field(default_factory=list)


class Comment(Struct, frozen=True):
    """`alone`: nothing but indentation, or the dash of a list, stands before it."""

    line: int
    column: int
    text: str
    alone: bool


class Section(Struct, eq=False):
    """One document: its root, the comments above all of it and those below."""

    root: Tree
    header: list[str]
    footer: list[str]


class Place(Struct, frozen=True):
    """Where something begins or ends; all three count from 0."""

    line: int
    column: int
    index: int


def _start(event: yaml.Event) -> Place:
    return _place(event.start_mark)


def _end(event: yaml.Event) -> Place:
    return _place(event.end_mark)


def _place(mark: Mark | None) -> Place:
    if mark is None:
        raise Unformattable("the parser lost its place")
    return Place(mark.line, mark.column, mark.index)


def outline(text: str) -> list[Section]:
    """Raises Unformattable for what cannot be read, or cannot be laid out anew without a risk."""
    found = read(text, "")
    if found.problems:
        first = found.problems[0]
        raise Unformattable(f"{first.line}:{first.column}: {first.code} {first.message}")
    return _Reader(text).sections()


def comments(text: str) -> list[Comment]:
    """All comments of a file that can be read."""
    return _Reader(text).comments


class _Reader:
    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self._text = text
        self._events = list(yaml.parse(text, Loader=yaml.CSafeLoader))
        self._position = 0
        self._all: list[Item] = []
        self.comments = list(self._comments())

    def sections(self) -> list[Section]:
        sections = []
        above = 0
        while self._position < len(self._events):
            event = self._next()
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            if event.version or event.tags:
                raise Unformattable("it has YAML directives")
            self._all = []
            root = self._tree(None, in_line=False)
            # Everything up to the next document's line of dashes belongs to this one.
            end = self._next_dashes()
            sections.append(self._attached(root, above, end))
            above = end
        return sections

    def _next(self) -> yaml.Event:
        event = self._events[self._position]
        self._position += 1
        return event

    def _next_dashes(self) -> int:
        starts = (
            _start(event).line
            for event in self._events[self._position :]
            if isinstance(event, yaml.DocumentStartEvent)
        )
        return next(starts, len(self.lines))

    # — values —

    def _tree(self, parent: Item | None, *, in_line: bool) -> Tree:
        event = self._next()
        if not isinstance(event, yaml.CollectionStartEvent):
            return self._scalar(event)
        kind: Literal["map", "list"] = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
        tree = Tree(kind, flow=bool(event.flow_style))
        end = self._matching_end()
        tree.one_line = tree.flow and _start(event).line == _end(end).line
        inside = in_line or tree.one_line
        while self._events[self._position] is not end:
            tree.items.append(self._item(tree, event, parent, inside=inside))
        self._position += 1
        return tree

    def _matching_end(self) -> yaml.Event:
        depth = 1
        for event in self._events[self._position :]:
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if not depth:
                return event
        raise Unformattable("it ends too early")

    def _item(self, tree: Tree, start: yaml.Event, parent: Item | None, *, inside: bool) -> Item:
        first = self._events[self._position]
        column = _start(first).column if tree.kind == "map" or tree.flow else _start(start).column
        item = Item(Tree("scalar"), _start(first).line, column, 0, in_line=inside, parent=parent)
        self._all.append(item)
        if tree.kind == "map":
            key = self._next()
            item.key = self._text[_start(key).index : _end(key).index]
            item.name = key.value if isinstance(key, yaml.ScalarEvent) else ""
            if _start(key).line != _end(key).line:
                raise Unformattable(f"the key on line {item.line + 1} has several lines")
        item.value = self._tree(item, in_line=inside)
        item.end_line = self._last_line(item.value)
        return item

    def _last_line(self, value: Tree) -> int:
        last = self._events[self._position - 1]
        if not value.block_scalar:
            return self._end_of_content(last)
        line = _start(last).line
        return line + len(value.raw) - 1

    @staticmethod
    def _end_of_content(event: yaml.Event) -> int:
        # Where a block ends the parser has already gone on to what follows it.
        return _end(event).line - (_end(event).column == 0 and _end(event).line > _start(event).line)

    def _scalar(self, event: yaml.Event) -> Tree:
        raw = self._text[_start(event).index : _end(event).index]
        if isinstance(event, yaml.ScalarEvent) and event.style in ("|", ">"):
            return Tree("scalar", raw=self._block_lines(event), block_scalar=True, one_line=False)
        lines = tuple(line.strip() for line in raw.split("\n"))
        return Tree("scalar", raw=lines, one_line=len(lines) == 1)

    def _block_lines(self, event: yaml.ScalarEvent) -> tuple[str, ...]:
        header_line = self.lines[_start(event).line][_start(event).column :]
        header = header_line.partition("#")[0].strip()
        if not BLOCK_HEADER.fullmatch(header):
            raise Unformattable(f"the text on line {_start(event).line + 1} states its own indentation")
        body = self.lines[_start(event).line + 1 : _end(event).line + bool(_end(event).column)]
        first = next((line for line in body if line.strip()), "")
        indent = len(first) - len(first.lstrip(" "))
        content = [line[indent:] for line in body]
        if not header.endswith("+"):
            while content and not content[-1].strip():
                content.pop()
        return (header, *content)

    # — comments and blank lines —

    def _comments(self) -> Iterator[Comment]:
        covered = self._covered()
        for number, line in enumerate(self.lines):
            for found in re.finditer(r"(?:^|(?<=[ \t]))#", line):
                if (number, found.start()) not in covered and number not in covered:
                    alone = not line[: found.start()].strip(" \t-")
                    yield Comment(number, found.start(), line[found.start() :].rstrip(), alone)
                    break

    def _covered(self) -> set[int | tuple[int, int]]:
        """Lines, and single places, that lie within scalars."""
        covered: set[int | tuple[int, int]] = set()
        for event in self._events:
            if not isinstance(event, yaml.ScalarEvent):
                continue
            start, end = _start(event), _end(event)
            if event.style in ("|", ">"):
                covered.update(range(start.line + 1, end.line + bool(end.column)))
                continue
            for number in range(start.line, end.line + 1):
                low = start.column if number == start.line else 0
                high = end.column if number == end.line else len(self.lines[number])
                covered.update((number, column) for column in range(low, high))
        return covered

    def _attached(self, root: Tree, above: int, end: int) -> Section:
        """Hands every comment and blank line between these lines to the item it is about."""
        section = Section(root, [], [])
        if not self._all:
            raise Unformattable("it has a document without keys")
        behind = {comment.line: comment for comment in self.comments if not comment.alone}
        alone = {comment.line: comment for comment in self.comments if comment.alone}
        for number in range(above, end):
            if number in behind:
                self._behind(behind[number])
        starts = sorted({item.line for item in self._all if not item.in_line or item.parent is None})
        occupied = self._occupied()
        pending: list[tuple[int, str]] = []
        for number in range(above, end):
            if number in alone:
                pending.append((alone[number].column, alone[number].text))
            elif not self.lines[number].strip() and number not in occupied:
                pending.append((-1, ""))
            if number in starts:
                self._before(self._outermost(number), pending, section)
                pending = []
        self._after(pending, section)
        return section

    def _occupied(self) -> set[int]:
        return {
            number for item in self._all for number in range(item.line, item.end_line + 1) if not item.value.items
        }

    def _outermost(self, line: int) -> Item:
        return next(item for item in self._all if item.line == line)

    def _behind(self, comment: Comment) -> None:
        starting = [item for item in self._all if item.line == comment.line and not item.in_line]
        earlier = [item for item in self._all if item.line < comment.line]
        if starting:
            target = starting[-1]
        elif earlier:
            target = earlier[-1]
        else:
            self._all[0].head.append(comment.text)
            return
        while target.in_line and target.parent is not None:
            target = target.parent
        if target.tail:
            target.foot.append(comment.text)
        else:
            target.tail, target.tail_column = comment.text, comment.column

    def _before(self, item: Item, pending: list[tuple[int, str]], section: Section) -> None:
        if item is self._all[0]:
            section.header = [text for _, text in pending]
            return
        previous = self._all[self._all.index(item) - 1]
        rest = list(pending)
        while True:
            index = next((at for at, (_, text) in enumerate(rest) if text), None)
            if index is None or rest[index][0] <= item.column:
                break
            self._owner(previous, rest[index][0]).foot += [text for _, text in rest[: index + 1]]
            rest = rest[index + 1 :]
        item.head = [text for _, text in rest] + item.head

    def _after(self, pending: list[tuple[int, str]], section: Section) -> None:
        rest = list(pending)
        while rest and any(text for _, text in rest):
            index = next(at for at, (_, text) in enumerate(rest) if text)
            column = rest[index][0]
            texts = [text for _, text in rest[: index + 1]]
            if column > 0 and not section.footer:
                self._owner(self._all[-1], column).foot += texts
            else:
                section.footer += texts
            rest = rest[index + 1 :]

    @staticmethod
    def _owner(item: Item, column: int) -> Item:
        """The item, or what holds it, that begins no further right than a comment after it."""
        while item.parent is not None and (item.column > column or item.in_line):
            item = item.parent
        return item
