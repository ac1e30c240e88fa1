"""The half of helm/rampart/values.schema.json that comes from controller/settings.py. `make schema` writes it.

What the chart decides itself is taken out, so that saying it in `settings` is refused instead of overruled.
"""

import json
import sys
from typing import Any

import msgspec

from controller.settings import Settings
from tests.support.repository import ROOT

FILE = ROOT / "helm" / "rampart" / "values.schema.json"

DECIDED_BY_THE_CHART = {
    "Settings": {"data_dir", "peers"},
    "ServerSettings": {"bind", "manifests", "public_url"},
    "DatabaseSettings": {"url", "url_file", "listen_url", "listen_url_file", "pooled", "bin_dir"},
}


def definitions() -> dict[str, Any]:
    """Name → schema, as they stand under `$defs`. None of them is without a use."""
    found: dict[str, Any] = msgspec.json.schema(Settings)["$defs"]
    del found["PeersSettings"]
    for name, schema in found.items():
        for decided in DECIDED_BY_THE_CHART.get(name, set()):
            del schema["properties"][decided]
    plain = {name: _plain(schema) for name, schema in sorted(found.items())}
    return {name: schema for name, schema in plain.items() if name == "Settings" or _used(name, plain)}


def _plain(schema: Any) -> Any:
    """Without what says nothing to Helm; of several kinds the named one, so that errors are about it alone."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "discriminator" in schema:
        return _by_kind(schema["discriminator"]["mapping"])
    return {
        key: _properties(value) if key == "properties" else _plain(value)
        for key, value in schema.items()
        if key not in ("title", "default") and not (key == "required" and not value)
    }


def _properties(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(schema) for name, schema in properties.items()}


def _by_kind(mapping: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": sorted(mapping)}},
        "allOf": [
            {"if": {"required": ["kind"], "properties": {"kind": {"const": kind}}}, "then": {"$ref": reference}}
            for kind, reference in mapping.items()
        ],
    }


def _used(name: str, schemas: dict[str, Any]) -> bool:
    return any(f'"#/$defs/{name}"' in json.dumps(schema) for other, schema in schemas.items() if other != name)


def document() -> str:
    """values.schema.json as it should be: all of it, with the definitions of today."""
    schema = json.loads(FILE.read_text())
    schema["$defs"] = definitions()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(document())
    sys.stdout.write(f"wrote {FILE.relative_to(ROOT)}\n")
