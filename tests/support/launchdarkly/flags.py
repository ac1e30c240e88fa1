"""A flag as LaunchDarkly keeps it, as its REST API shows it, and as its SDKs get it.

The REST API shows variations by index and is told them by `_id`. SDKs get everything by index.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.launchdarkly.identity import new_uuid

Json = dict[str, Any]


@dataclass
class Config:
    """The flag in one environment. `targets`: context kind, variation index and keys of each."""

    salt: str
    last_modified: int
    off_variation: int | None
    fallthrough: Json
    on: bool = False
    version: int = 1
    targets: list[Json] = field(default_factory=list)
    rules: list[Json] = field(default_factory=list)
    prerequisites: list[Json] = field(default_factory=list)
    track_events: bool = False
    track_events_fallthrough: bool = False

    @property
    def user_targets(self) -> list[Json]:
        return [{"variation": one["variation"], "values": one["values"], "contextKind": "user"}
                for one in self.targets if one["contextKind"] == "user"]  # fmt: skip

    @property
    def context_targets(self) -> list[Json]:
        """Other kinds. With any of them, empty ones keep the places of those in `targets` (SDKs need them)."""
        if all(one["contextKind"] == "user" for one in self.targets):
            return []
        return [one | {"values": []} if one["contextKind"] == "user" else one for one in self.targets]


@dataclass
class Flag:
    """`version` counts every change; each environment counts its own, and that is what SDKs compare."""

    key: str
    name: str
    variations: list[Json]
    created_at: int
    environments: dict[str, Config]
    version: int = 1
    description: str = ""
    tags: list[str] = field(default_factory=list)
    temporary: bool = True
    archived_at: int | None = None
    deprecated_at: int | None = None
    deleted: bool = False
    on_variation: int = 0
    off_variation: int = 1
    mobile: bool = False
    client_side: bool = False
    custom_properties: dict[str, Json] = field(default_factory=dict)

    @property
    def archived(self) -> bool:
        return self.archived_at is not None

    @property
    def boolean(self) -> bool:
        return [one["value"] for one in self.variations] == [True, False]

    def variation(self, name: str) -> Json:
        """By its name, or by its value in text: `true` for an unnamed one of a boolean flag."""
        for one in self.variations:
            if name in (one.get("name"), str(one["value"]).lower()):
                return one
        raise KeyError(name)

    def index(self, variation_id: str) -> int:
        return [one["_id"] for one in self.variations].index(variation_id)


def new_flag(key: str, variations: Mapping[str, Any], environments: Collection[str], now: int) -> Flag:
    """Off everywhere, with the first variation for everybody when on, as a flag made in the user interface."""
    listed = [{"_id": new_uuid(), "name": name, "value": value} for name, value in variations.items()]
    off = len(listed) - 1
    configs = {
        environment: Config(
            salt=secrets.token_hex(16), last_modified=now, off_variation=off, fallthrough={"variation": 0}
        )
        for environment in environments
    }
    return Flag(
        key=key, name=key.replace("-", " ").capitalize(), variations=listed, created_at=now,
        environments=configs, off_variation=off,
    )  # fmt: skip


# — the REST API: docs/api/feature-flags/get-feature-flag —


def rest_flag(flag: Flag, project: str, environments: Collection[str], *, summary: bool = False) -> Json:
    """Without `environments` that field is left out, as lists do unless they are filtered by environment.

    A summary leaves out rules, targets, prerequisites and what is served (docs/api#summary-and-detailed).
    """
    path = f"/api/v2/flags/{project}/{flag.key}"
    found: Json = {
        "_links": {
            "parent": {"href": f"/api/v2/flags/{project}", "type": "application/json"},
            "self": {"href": path, "type": "application/json"},
        },
        "name": flag.name,
        "kind": "boolean" if flag.boolean else "multivariate",
        "description": flag.description,
        "key": flag.key,
        "_version": flag.version,
        "creationDate": flag.created_at,
        "includeInSnippet": flag.client_side,
        "clientSideAvailability": {"usingMobileKey": flag.mobile, "usingEnvironmentId": flag.client_side},
        "variations": flag.variations,
        "temporary": flag.temporary,
        "tags": flag.tags,
        "goalIds": [],
        "experiments": {"baselineIdx": 0, "items": []},
        "customProperties": flag.custom_properties,
        "archived": flag.archived,
        "deprecated": flag.deprecated_at is not None,
        "defaults": {"onVariation": flag.on_variation, "offVariation": flag.off_variation},
    }
    if flag.archived_at is not None:
        found["archivedDate"] = flag.archived_at
    if flag.deprecated_at is not None:
        found["deprecatedDate"] = flag.deprecated_at
    if environments:
        found["environments"] = {
            key: _rest_config(flag, project, key, summary=summary)
            for key in flag.environments
            if key in environments
        }
    return found


def _rest_config(flag: Flag, project: str, environment: str, *, summary: bool) -> Json:
    config = flag.environments[environment]
    found: Json = {
        "on": config.on,
        "archived": flag.archived,
        "salt": config.salt,
        "sel": config.salt,
        "lastModified": config.last_modified,
        "version": config.version,
        "_site": {"href": f"/{project}/{environment}/features/{flag.key}", "type": "text/html"},
        "_environmentName": environment.capitalize(),
        "trackEvents": config.track_events,
        "trackEventsFallthrough": config.track_events_fallthrough,
    }
    if summary:
        return found | {"_summary": _summary(flag, config)}
    found |= {
        "targets": config.user_targets,
        "contextTargets": config.context_targets,
        "rules": config.rules,
        "fallthrough": config.fallthrough,
        "prerequisites": config.prerequisites,
    }
    return found if config.off_variation is None else found | {"offVariation": config.off_variation}


def _summary(flag: Flag, config: Config) -> Json:
    weights = {
        one["variation"]: one["weight"] for one in config.fallthrough.get("rollout", {}).get("variations", ())
    }
    variations: Json = {}
    for index in range(len(flag.variations)):
        one: Json = {
            "rules": sum(rule.get("variation") == index for rule in config.rules),
            "nullRules": 0,
            "targets": sum(len(each["values"]) for each in config.user_targets if each["variation"] == index),
            "contextTargets": sum(
                len(each["values"]) for each in config.context_targets if each["variation"] == index
            ),
        }
        if config.fallthrough.get("variation") == index:
            one["isFallthrough"] = True
        if config.off_variation == index:
            one["isOff"] = True
        if index in weights:
            one["rollout"] = weights[index]
        variations[str(index)] = one
    return {"variations": variations, "prerequisites": len(config.prerequisites)}


# — the SDKs —


def sdk_flag(flag: Flag, environment: str) -> Json:
    """What server-side SDKs evaluate. A rule that is disabled, and all names and `_id`s, stay at home."""
    config = flag.environments[environment]
    return {
        "key": flag.key,
        "version": config.version,
        "on": config.on,
        "salt": config.salt,
        "sel": config.salt,
        "variations": [one["value"] for one in flag.variations],
        "offVariation": config.off_variation,
        "fallthrough": _sdk_served(config.fallthrough),
        "targets": config.user_targets,
        "contextTargets": config.context_targets,
        "rules": [_sdk_rule(rule) for rule in config.rules if not rule.get("disabled")],
        "prerequisites": config.prerequisites,
        "trackEvents": config.track_events,
        "trackEventsFallthrough": config.track_events_fallthrough,
        "debugEventsUntilDate": None,
        "clientSide": flag.client_side,
        "clientSideAvailability": {"usingMobileKey": flag.mobile, "usingEnvironmentId": flag.client_side},
        "deleted": False,
    }


def sdk_flags(flags: Collection[Flag], environment: str) -> dict[str, Json]:
    """Without archived ones: code that still asks gets its own fallback value (docs/home/flags/archive)."""
    return {flag.key: sdk_flag(flag, environment) for flag in flags if not flag.archived}


def _sdk_rule(rule: Json) -> Json:
    clauses = [{name: value for name, value in clause.items() if name != "_id"} for clause in rule["clauses"]]
    return {"id": rule["_id"], "trackEvents": rule["trackEvents"], "clauses": clauses, **_sdk_served(rule)}


def _sdk_served(served: Json) -> Json:
    """One variation, or a rollout. One under experiment has a seed, and leaves some contexts untracked."""
    rollout = served.get("rollout")
    if rollout is None:
        return {"variation": served["variation"]}
    found: Json = {
        "kind": "experiment" if "experimentAllocation" in rollout else "rollout",
        "contextKind": rollout["contextKind"],
        "variations": _sdk_weights(rollout["variations"]),
    }
    for name in ("bucketBy", "seed"):
        if name in rollout:
            found[name] = rollout[name]
    return {"rollout": found}


def _sdk_weights(variations: Sequence[Json]) -> list[Json]:
    return [{name.removeprefix("_"): value for name, value in one.items()} for one in variations]
