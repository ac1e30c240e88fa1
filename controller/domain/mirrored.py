"""A flag of LaunchDarkly's as its SDKs are sent it: shown by us in its place, and killed before its owner knows.

Nothing is read into it: fields that are not known here are passed on as they came.
"""

import json
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from controller.domain.catalogue import FlagConfig
from controller.domain.sdkflag import Data


def mirrored_flag(environment: str, key: str, data: Data) -> FlagConfig:
    """Variations have no names there: each is called by its value, and by its place when two are the same."""
    variations: dict[str, Any] = {}
    for index, value in enumerate(data.get("variations") or []):
        name = json.dumps(value, ensure_ascii=False)
        variations[f"{name} ({index})" if name in variations else name] = value
    return FlagConfig(environment=environment, key=key, version=version_of(data), variations=variations, data=data)


def version_of(data: Mapping[str, Any]) -> int:
    version = data.get("version")
    return version if isinstance(version, int) and not isinstance(version, bool) else 0


def killed(config: FlagConfig, *, leave_on: bool) -> FlagConfig:
    """What SDKs are to be told of it until its owner says the same; the version stays.

    With `leave_on` the default rule serves the off-variation, and so does every rule that served anything else:
    which of them are ours is not said here, and one too many is given back as soon as the owner has the kill.
    """
    data, off = config.data, config.data.get("offVariation")
    if not leave_on or off is None:
        return replace(config, data={**data, "on": False})
    given = data.get("rules")
    rules = [rule for rule in given if _serves_only(rule, off)] if isinstance(given, list) else []
    return replace(config, data={**data, "fallthrough": {"variation": off}, "rules": rules})


def is_killed(config: FlagConfig, *, leave_on: bool) -> bool:
    """Whether its owner serves already what a kill would: then there is nothing to lay over it."""
    data = config.data
    if not data.get("on"):
        return True
    off = data.get("offVariation")
    return leave_on and off is not None and _serves_only(data.get("fallthrough") or {}, off)


def _serves_only(served: Any, variation: int) -> bool:
    """False too for what cannot be read: it is taken for something else."""
    if not isinstance(served, Mapping):
        return False
    rollout = served.get("rollout")
    if not rollout:
        return served.get("variation") == variation
    shares = rollout.get("variations") if isinstance(rollout, Mapping) else None
    if not isinstance(shares, list) or not all(isinstance(share, Mapping) for share in shares):
        return False
    return all(share.get("variation") == variation for share in shares if share.get("weight"))


def newer_segment(present: Data | None, segment: Data) -> Data:
    """The segment as it may be served after `present`: an SDK passes over a version that is not higher."""
    if present is None or version_of(segment) > version_of(present):
        return segment
    raised = {**segment, "version": version_of(present)}
    return present if raised == present else {**segment, "version": version_of(present) + 1}
