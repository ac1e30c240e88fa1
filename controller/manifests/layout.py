"""`fmt`: the usual layout of a manifest. It says the same before and after, comments included.

Keys come in the documented order, two spaces indent a level, inline maps read `{ a: b, c: d }`, inline maps under
each other have their columns aligned, and one blank line at most separates things. Quotes, the order of free maps
and lists, and whether something stands in one line or several stay the author's.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from msgspec import inspect as types

from controller.manifests.loader import KINDS
from controller.manifests.outline import Comment, Item, Section, Tree, Unformattable, comments, outline
from controller.manifests.reader import read
from controller.manifests.structure import plain

WIDTH = 120
WIDEST_PADDING = 12
"""Columns that differ by more are not aligned: the gap would be harder to read over than the difference."""
LEAST_COLUMNS = 2
"""Of columns that line up; one alone is a gap and no table."""
ROUNDS = 4

ORDER: Mapping[str, tuple[str, ...]] = {
    "PlanSpec": ("flag", "serve", "mode", "audience", "stages", "guardrails", "schedule", "notify", "alerts"),
    "PolicySpec": (
        *("params", "source", "language", "every", "window", "staleAfter", "baseline"),
        *("metrics", "rules", "minSample", "noData", "queryError"),
    ),
    "Rule": ("id", "if", "floor", "for", "then", "mode", "evenIfControlFails"),
    "Metric": ("quantile", "unit", "bad", "total", "histogram", "query"),
}
"""Where the usual order is another than that of the types."""
ENVELOPE = ("apiVersion", "kind", "metadata", "spec")
TOGETHER = (("bad", "total"), ("minSample", "noData", "queryError"))
"""Keys that are read as one: their values stand under each other."""
AS_WRITTEN = ("RolloutTest",)
"""Kinds whose keys tell a story in the author's order."""


def formatted(text: str) -> str:
    """The text in the usual layout. Raises Unformattable when it has to stay as it is."""
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    before = text.removeprefix(mark).replace("\r\n", "\n")
    found = read(before, "")
    if not (found.documents or found.problems):
        return before.rstrip() + "\n" if before.strip() else before
    now = before
    for _ in range(ROUNDS):
        after = "".join(line + "\n" for line in _lines(outline(now)))
        _compare(now, after)
        if after == now:
            return after
        now = after
    raise Unformattable("its layout does not settle")


def _compare(before: str, after: str) -> None:
    """Whatever this module gets wrong must never reach a file."""
    if _said(before) != _said(after):
        raise Unformattable("laid out anew it would say something else")
    if _told(comments(before)) != _told(comments(after)):
        raise Unformattable("a comment would be lost")


def _said(text: str) -> str:
    # As text, so that 1 and true and 1.0 are three things; the order of keys is not meaning.
    return repr([_sorted(plain(node)) for node in read(text, "").documents])


def _sorted(value: object) -> object:
    match value:
        case dict():
            return sorted((key, _sorted(item)) for key, item in value.items())
        case list():
            return [_sorted(item) for item in value]
        case _:
            return value


def _told(found: Iterable[Comment]) -> Counter[str]:
    return Counter(comment.text for comment in found)


def _lines(sections: Sequence[Section]) -> list[str]:
    lines: list[str] = []
    for index, section in enumerate(sections):
        if index:
            lines.append("---")
        lines += _text_lines(section.header, 0, first=not lines or lines[-1] == "---")
        if section.root.kind == "scalar":
            lines += section.root.raw
        else:
            _ordered(section.root, _type_of(section.root))
            lines += _block(section.root, 0)
        lines += _text_lines(section.footer, 0, first=False)
        while lines and not lines[-1]:
            lines.pop()
    return lines


# — order —


def _type_of(root: Tree) -> types.Type | None:
    kind = next((item.value.raw[0] for item in root.items if item.name == "kind" and item.value.raw), "")
    return types.type_info(KINDS[kind]) if kind in KINDS and kind not in AS_WRITTEN else None


def _ordered(tree: Tree, wanted: types.Type | None) -> None:
    """Sorts the keys of every map whose keys are known, here and below. What is unknown comes last, as written."""
    while isinstance(wanted, types.Metadata | types.UnionType):
        wanted = wanted.type if isinstance(wanted, types.Metadata) else _other_than_none(wanted)
    children: dict[str, types.Type] = {}
    if tree.kind == "map" and isinstance(wanted, types.StructType):
        names = [one.encode_name for one in wanted.fields]
        order = ENVELOPE if wanted.tag_field else ORDER.get(wanted.cls.__name__, tuple(names))
        first, last = (tree.items[0], tree.items[-1]) if tree.items else (None, None)
        tree.items.sort(key=lambda item: order.index(item.name) if item.name in order else len(order))
        _without_gap(tree, first)
        if last is not None and last is not tree.items[-1]:
            # What closed the map still does.
            tree.items[-1].foot, last.foot = [*tree.items[-1].foot, *last.foot], []
        children = {one.encode_name: one.type for one in wanted.fields}
    for item in tree.items:
        below = children.get(item.name)
        if isinstance(wanted, types.DictType):
            below = wanted.value_type
        if isinstance(wanted, types.ListType | types.VarTupleType):
            below = wanted.item_type
        _ordered(item.value, below)


def _without_gap(tree: Tree, first: Item | None) -> None:
    """A blank line before what has become the first key now separates the key that was the first."""
    if first is not None and first is not tree.items[0] and tree.items[0].head[:1] == [""]:
        tree.items[0].head = tree.items[0].head[1:]
        if first.head[:1] != [""]:
            first.head = ["", *first.head]


def _other_than_none(wanted: types.UnionType) -> types.Type:
    return next(one for one in wanted.types if not isinstance(one, types.NoneType))


# — blocks —


def _block(tree: Tree, indent: int) -> list[str]:
    lines: list[str] = []
    inline = _aligned(tree, indent) if tree.kind == "list" else {}
    widths = _together(tree) if tree.kind == "map" else {}
    for index, item in enumerate(tree.items):
        lines += _text_lines(item.head, indent, first=index == 0)
        if tree.kind == "map":
            key = f"{item.key}:"
            lines += _entry(f"{' ' * indent}{key:<{widths.get(index, 0)}}", item, indent)
        elif index in inline:
            lines.append(_with_tail(f"{' ' * indent}- {inline[index]}", item))
        else:
            lines += _list_item(item, indent)
        lines += _text_lines(item.foot, indent, first=False)
    return lines


def _together(tree: Tree) -> dict[int, int]:
    """Index → width of the keys that are read as one and stand directly under each other in one line each."""
    widths: dict[int, int] = {}
    for names in TOGETHER:
        found = [(index, item) for index, item in enumerate(tree.items) if item.name in names]
        short = all(item.value.one_line and (item.value.flow or not item.value.items) for _, item in found)
        joined = all(not item.head for _, item in found[1:]) and all(not item.foot for _, item in found[:-1])
        if short and joined and found and found[-1][0] - found[0][0] == len(found) - 1:
            widest = max(len(item.key) for _, item in found) + 1
            widths |= {index: widest for index, _ in found}
    return widths


def _list_item(item: Item, indent: int) -> list[str]:
    value = item.value
    if value.kind == "scalar" or not value.items or _inline(value, indent + 2) is not None:
        return _entry(f"{' ' * indent}-", item, indent)
    first = value.items[0]
    above, first.head = _text_lines(first.head, indent, first=True), []
    # The dash takes the place of the first line's indentation.
    below = _block(value, indent + 2)
    if item.tail:
        above.append(" " * indent + item.tail)
    return [*above, f"{' ' * indent}- {below[0].lstrip(' ')}", *below[1:]]


def _entry(prefix: str, item: Item, indent: int) -> list[str]:
    """A key or dash with its value, in one line or several."""
    value = item.value
    if value.kind == "scalar":
        return _scalar(prefix, item, indent)
    inline = _inline(value, len(prefix) + 1)
    if inline is not None:
        return [_with_tail(f"{prefix} {inline}", item)]
    return [_with_tail(prefix, item), *_block(value, indent + 2)]


def _scalar(prefix: str, item: Item, indent: int) -> list[str]:
    first, *rest = item.value.raw
    begin = f"{prefix} {first}".rstrip()
    if not rest:
        return [_with_tail(begin, item)]
    below = [f"{' ' * (indent + 2)}{line}".rstrip() if line.strip() else "" for line in rest]
    if item.value.block_scalar:
        below = [" " * (indent + 2) + line if line else "" for line in rest]
        return [_with_tail(begin, item), *below]
    return [begin, *below[:-1], _with_tail(below[-1], item)]


def _with_tail(line: str, item: Item) -> str:
    """The comment stays in its column, so that comments under each other do, and two spaces off at least."""
    return f"{line:<{max(item.tail_column - 2, 0)}}  {item.tail}" if item.tail else line


def _text_lines(texts: Sequence[str], indent: int, *, first: bool) -> list[str]:
    """Comments, with one blank line at most between them and none where a block begins."""
    lines = [f"{' ' * indent}{text}" if text else "" for text, _ in groupby(texts) for text in _once(text, _)]
    while first and lines and not lines[0]:
        lines.pop(0)
    return lines


def _once(text: str, group: Iterable[str]) -> list[str]:
    return list(group) if text else [""]


# — in one line —


def _inline(tree: Tree, column: int) -> str | None:
    """The value in one line, if it stands in one already or is a short inline one; None if it needs several."""
    if not tree.flow and tree.kind != "scalar":
        return None
    text = _text(tree)
    if text is None or (not tree.one_line and column + len(text) > WIDTH):
        return None
    return text


def _text(tree: Tree) -> str | None:
    if tree.kind == "scalar":
        return (tree.raw[0] or "null") if tree.one_line else None
    parts = []
    for item in tree.items:
        value = _text(item.value)
        if value is None or item.head or item.tail or item.foot:
            return None
        parts.append(f"{item.key}: {value}" if tree.kind == "map" else value)
    if not parts:
        return "{}" if tree.kind == "map" else "[]"
    joined = ", ".join(parts)
    return f"{{ {joined} }}" if tree.kind == "map" else f"[{joined}]"


def _aligned(tree: Tree, indent: int) -> dict[int, str]:
    """Index → text of the inline maps of a list; those directly under each other are in columns."""
    texts: dict[int, str] = {}
    run: list[tuple[int, Item]] = []
    for index, item in enumerate(tree.items):
        if run and (item.head or run[-1][1].foot or not _is_row(item, indent)):
            texts |= _columns(run, indent)
            run = []
        if _is_row(item, indent):
            run.append((index, item))
    return texts | _columns(run, indent)


def _is_row(item: Item, indent: int) -> bool:
    value = item.value
    return value.kind == "map" and bool(value.items) and _inline(value, indent + 2) is not None


def _columns(run: Sequence[tuple[int, Item]], indent: int) -> dict[int, str]:
    rows = [[(one.name, f"{one.key}: {_text(one.value)}") for one in item.value.items] for _, item in run]
    widths: list[int] = []
    while len(rows) > 1 and (width := _width(rows, len(widths))) is not None:
        widths.append(width)
    if len(widths) < LEAST_COLUMNS and any(len(row) > len(widths) + 1 for row in rows):
        widths = []
    texts = {index: _row(row, widths) for (index, _), row in zip(run, rows, strict=True)}
    if any(indent + 2 + len(text) > WIDTH for text in texts.values()):
        texts = {index: _row(row, []) for (index, _), row in zip(run, rows, strict=True)}
    return texts


def _width(rows: Sequence[Sequence[tuple[str, str]]], column: int) -> int | None:
    """How wide a column is; None when it, or one before it, is not in every row or not the same key."""
    if any(len(row) <= column for row in rows) or len({row[column][0] for row in rows}) > 1:
        return None
    widths = [len(row[column][1]) for row in rows if len(row) > column + 1]
    return max(widths) if widths and max(widths) - min(widths) <= WIDEST_PADDING else None


def _row(row: Sequence[tuple[str, str]], widths: Sequence[int]) -> str:
    text = "{ "
    for index, (_, cell) in enumerate(row):
        last = index == len(row) - 1
        padded = f"{cell}," if index >= len(widths) else f"{cell + ',':<{widths[index] + 1}}"
        text += cell if last else padded + " "
    return text + " }"
