"""The published JSON Schemas say what the types say."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller.manifests.loader import KINDS
from controller.manifests.schema import schema_for

FOLDER = Path(__file__).parents[2] / "docs" / "schema"


def objects(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [schema, *schema["$defs"].values()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_schema_is_current(kind: str) -> None:
    published = json.loads((FOLDER / f"{kind.lower()}.json").read_text())
    assert published == json.loads(msgspec.json.encode(schema_for(kind))), (
        "docs/schema is stale; run `rampart schema --write`"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_object_accepts_unknown_keys_and_every_key_is_explained(kind: str) -> None:
    for one in objects(schema_for(kind)):
        assert one["additionalProperties"] is False
        assert all(field["description"] for field in one["properties"].values()), one["title"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_names_its_dialect_and_has_a_title(kind: str) -> None:
    schema = schema_for(kind)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"].startswith("Rampart")
    assert schema["properties"]["kind"]["enum"] == [kind]
