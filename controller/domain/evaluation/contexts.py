"""Who asks: a context of one kind, of several, or a user as SDKs of before 2022 describe one."""

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

DEFAULT_KIND = "user"
MULTI_KIND = "multi"
LEGACY_ATTRIBUTES = ("name", "firstName", "lastName", "email", "country", "avatar", "ip")

Attributes = Mapping[str, Any]

_KIND = re.compile(r"[A-Za-z0-9._-]+")


class NoContext(ValueError):
    """What came is no context; says why not."""


class Context(Struct, frozen=True):
    """`parts` are the attributes by kind. Each has `key`, `kind` and `anonymous`, and none has `_meta`."""

    parts: Mapping[str, Attributes]

    @property
    def canonical_key(self) -> str:
        """One text for who this is: the key of a lone user, otherwise `kind:key` of every part, sorted by kind."""
        if len(self.parts) == 1 and DEFAULT_KIND in self.parts:
            return str(self.parts[DEFAULT_KIND]["key"])
        return ":".join(f"{kind}:{_escaped(self.parts[kind]['key'])}" for kind in sorted(self.parts))


def parse_context(data: Any) -> Context:
    """A context from its JSON. Raises NoContext, a ValueError, with what is wrong with it."""
    if not isinstance(data, Mapping):
        raise NoContext(f"a context is an object, not {_called(data)}")
    if "kind" not in data:
        return Context({DEFAULT_KIND: _legacy_user(data)})
    kind = data["kind"]
    if kind != MULTI_KIND:
        return Context({_checked_kind(kind): _part(kind, data)})
    parts = {_checked_kind(one): _part(one, part) for one, part in data.items() if one != "kind"}
    if not parts:
        raise NoContext('a context of the kind "multi" needs at least one context in it')
    return Context(parts)


def _part(kind: str, data: Any) -> Attributes:
    if not isinstance(data, Mapping):
        raise NoContext(f'the context of the kind "{kind}" is an object, not {_called(data)}')
    key = data.get("key")
    if not isinstance(key, str) or not key:
        raise NoContext(f'the context of the kind "{kind}" needs a key: a text that is not empty')
    name = data.get("name")
    if name is not None and not isinstance(name, str):
        raise NoContext(f'the name of the context of the kind "{kind}" is a text, not {_called(name)}')
    return _attributes(data, kind=kind, anonymous=_anonymous(data.get("anonymous")))


def _legacy_user(data: Attributes) -> Attributes:
    """Its own attributes are under `custom`; what else stands beside the known ones was never part of a user."""
    key, custom = data.get("key"), data.get("custom")
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise NoContext("a context needs a kind, and a user without one needs a key")
    if custom is not None and not isinstance(custom, Mapping):
        raise NoContext(f"the custom attributes of a user are an object, not {_called(custom)}")
    known = {name: data[name] for name in LEGACY_ATTRIBUTES if data.get(name) is not None}
    own = {**(custom or {}), **known, "key": str(key)}
    return _attributes(own, kind=DEFAULT_KIND, anonymous=_anonymous(data.get("anonymous")))


def _attributes(data: Attributes, *, kind: str, anonymous: bool) -> Attributes:
    return {name: value for name, value in data.items() if name != "_meta"} | {
        "kind": kind,
        "anonymous": anonymous,
    }


def _anonymous(value: Any) -> bool:
    if value is not None and not isinstance(value, bool):
        raise NoContext(f"anonymous is true or false, not {_called(value)}")
    return bool(value)


def _checked_kind(kind: Any) -> str:
    if not isinstance(kind, str):
        raise NoContext(f"the kind of a context is a text, not {_called(kind)}")
    if kind in ("kind", MULTI_KIND) or not _KIND.fullmatch(kind):
        raise NoContext(
            f'"{kind}" is no kind of context: letters, digits, ".", "_" and "-", but neither "kind" nor "multi"'
        )
    return kind


def _called(value: Any) -> str:
    names = {bool: "true or false", str: "a text", list: "a list", dict: "an object", type(None): "nothing"}
    return names.get(type(value), "a number")


def _escaped(key: str) -> str:
    return key.replace("%", "%25").replace(":", "%3A")
