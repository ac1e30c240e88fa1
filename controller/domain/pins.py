"""What a run is pinned to, by fingerprint: its audit rows say which texts it followed, not only their numbers.

A fingerprint is SHA-256 over the document as JSON with sorted keys and no white space, without the fields that
have their default value. So a later version that knows more fields finds the same fingerprint.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct

from controller.domain.catalogue import PlanRevision, PolicyRevision
from controller.domain.plan import Document

_encoder = msgspec.json.Encoder(order="sorted")


class Pin(Struct, frozen=True, kw_only=True):
    """One revision; `sha256` is the fingerprint of its document, in hex."""

    name: str
    revision: int
    sha256: str


class Pins(Struct, frozen=True, kw_only=True):
    """In the audit row with which a run begins, and in each with which it moves to other revisions."""

    plan: Pin
    policies: tuple[Pin, ...]


def pins(plan: PlanRevision, policies: Mapping[str, PolicyRevision]) -> Pins:
    """`policies` by name."""
    return Pins(
        plan=Pin(name=plan.plan.metadata.name, revision=plan.revision, sha256=fingerprint(plan.plan)),
        policies=tuple(
            Pin(name=name, revision=one.revision, sha256=fingerprint(one.policy))
            for name, one in sorted(policies.items())
        ),
    )


def fingerprint(document: Document) -> str:
    return text_fingerprint(as_written(document))


def text_fingerprint(written: Mapping[str, Any]) -> str:
    """The same of a document that is there as plain values, as `as_written` gives it."""
    return hashlib.sha256(_encoder.encode(written)).hexdigest()


def as_written(value: Any) -> Any:
    """A document without what it leaves to defaults, as plain values that decode to the same document."""
    match value:
        case Struct():
            tag = {value.__struct_config__.tag_field: value.__struct_config__.tag}
            present = {one.encode_name: getattr(value, one.name) for one in _deviating(value)}
            return {key: as_written(inner) for key, inner in (tag | present).items() if key is not None}
        case dict():
            return {key: as_written(inner) for key, inner in value.items()}
        case list() | tuple():
            return [as_written(inner) for inner in value]
    return value


def _deviating(document: Struct) -> list[msgspec.structs.FieldInfo]:
    return [one for one in msgspec.structs.fields(document) if getattr(document, one.name) != _default(one)]


def _default(info: msgspec.structs.FieldInfo) -> Any:
    return info.default_factory() if info.default_factory is not NODEFAULT else info.default
