"""The operations of JSON Patch that people use on a flag: replace and test, of names and of what is served.

Documentation: docs/api#updates-using-json-patch. `test` is the only compare-and-set that the API has.
"""

from collections.abc import Sequence
from typing import Any

from tests.support.launchdarkly.errors import ApiError, invalid
from tests.support.launchdarkly.flags import Flag

Json = dict[str, Any]

FLAG_FIELDS = {
    "name": "name",
    "description": "description",
    "temporary": "temporary",
    "version": "version",
    "_version": "version",
}
CONFIG_FIELDS = {
    "on": "on",
    "fallthrough": "fallthrough",
    "offVariation": "off_variation",
    "rules": "rules",
    "version": "version",
}
READ_ONLY = {"version", "_version"}


def carry_out(flag: Flag, operations: Sequence[Json]) -> None:
    """Changes `flag`. Raises ApiError: 409 for a test that fails, 400 for anything that is not understood."""
    for operation in operations:
        if not isinstance(operation, dict) or not {"op", "path"} <= set(operation):
            raise invalid("this is no JSON patch; a semantic patch needs its own content type")
        name, owner, field = _target(flag, operation["path"])
        if operation["op"] == "test":
            if getattr(owner, field) != operation.get("value"):
                raise ApiError(409, "optimistic_locking_error", f"{operation['path']} is not as tested")
        elif operation["op"] == "replace" and name not in READ_ONLY:
            setattr(owner, field, operation.get("value"))
        else:
            raise invalid(f"{operation['op']} of {operation['path']} is not possible")


def touches(operation: Json) -> str | None:
    """The environment that it changes."""
    parts = str(operation.get("path", "")).split("/")
    return (
        parts[2] if parts[1:2] == ["environments"] and len(parts) > 2 and operation.get("op") != "test" else None
    )


def _target(flag: Flag, path: str) -> tuple[str, object, str]:
    parts = path.removeprefix("/").split("/")
    if len(parts) == 1 and parts[0] in FLAG_FIELDS:
        return parts[0], flag, FLAG_FIELDS[parts[0]]
    if (
        len(parts) == 3
        and parts[0] == "environments"
        and parts[1] in flag.environments
        and parts[2] in CONFIG_FIELDS
    ):
        return parts[2], flag.environments[parts[1]], CONFIG_FIELDS[parts[2]]
    raise invalid(f"unknown path {path}")
