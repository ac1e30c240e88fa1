"""What an apply would change, key by key, in the words of the YAML."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from controller.domain.status import Change
from controller.manifests.loader import Document
from controller.manifests.structure import Path, path_text

IDENTITIES = ("name", "id", "policy", "to")
"""The keys by which the items of a list are recognised, in this order."""


def diff(before: Document | None, after: Document) -> list[Change]:
    """Changes in the order of the document; one with an empty path for a new document."""
    kind, name = type(after).__name__, after.metadata.name
    if before is None:
        return [Change(kind=kind, name=name, path="", before=None, after=_plain(after), note="new")]
    return [
        Change(kind=kind, name=name, path=path_text(path), before=old, after=new, note=_note(path, old, new))
        for path, old, new in _compared(_plain(before), _plain(after), ())
    ]


def _plain(document: Document) -> Any:
    return _without_absent(msgspec.to_builtins(document))


def _without_absent(value: Any) -> Any:
    """An optional key that is not set is absent, as in the YAML."""
    if isinstance(value, Mapping):
        return {key: _without_absent(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_absent(item) for item in value]
    return value


def _compared(old: Any, new: Any, path: Path) -> Iterator[tuple[Path, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _compared(old.get(key), new.get(key), (*path, key))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _compared_lists(old, new, path)
    elif old != new or type(old) is not type(new):
        yield path, old, new


def _compared_lists(old: list[Any], new: list[Any], path: Path) -> Iterator[tuple[Path, Any, Any]]:
    """Items that are recognised are compared with each other wherever they stand; the rest as a whole."""
    old_by, new_by = _by_identity(old), _by_identity(new)
    if old_by is None or new_by is None:
        if old != new:
            yield path, old, new
        return
    for name, (index, item) in old_by.items():
        if name not in new_by:
            yield (*path, index), item, None
    for name, (index, item) in new_by.items():
        if name in old_by:
            yield from _compared(old_by[name][1], item, (*path, index))
        else:
            yield (*path, index), None, item
    kept = [name for name in old_by if name in new_by]
    reordered = [name for name in new_by if name in old_by]
    if kept != reordered:
        yield path, kept, reordered


def _by_identity(items: list[Any]) -> dict[str, tuple[int, Any]] | None:
    """name → (index, item), or None when the items have no names or share one."""
    found: dict[str, tuple[int, Any]] = {}
    for index, item in enumerate(items):
        key = next((key for key in IDENTITIES if isinstance(item, Mapping) and key in item), None)
        if key is None or item[key] in found:
            return None
        found[item[key]] = (index, item)
    return found


def _note(path: Path, old: Any, new: Any) -> str:
    is_rule = path[:2] == ("spec", "rules")
    if is_rule and len(path) == 3 and new is None:
        return f"removes a {old['then']} rule"
    if is_rule and len(path) == 3 and old is None:
        return f"adds a {new['then']} rule"
    if path[:2] == ("spec", "guardrails") and len(path) == 3 and new is None:
        return "removes all rules of this policy"
    return "order" if isinstance(old, list) and isinstance(new, list) and _same_items(old, new) else ""


def _same_items(old: list[Any], new: list[Any]) -> bool:
    return len(old) == len(new) and all(item in new for item in old)
