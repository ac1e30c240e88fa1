"""A built-in flag in the JSON of LaunchDarkly's server-side SDKs, and what we do to it.

Every operation is absolute and returns a new config; nothing in one that was handed out is changed in place.

Who gets what: an SDK hashes `<flag key>.<salt>.<attribute>` to a number in [0, 1) and walks the weights in
their listed order. So the salt never changes, and the fallback is always listed first: raising a share only
ever adds contexts, and a context that cannot be hashed (no user in it, no such attribute) is taken for the
first one listed, which must not be the new code.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from controller.domain.catalogue import FlagConfig, SdkKeyKind
from controller.domain.flag import FlagSpec, FlagState, SetShare
from controller.domain.plan import AttributeMatch, AudienceRule
from controller.domain.quantities import FULL_EXPOSURE, exposure_text

RULE_PREFIX = "rampart-always-"
CONTEXT_KIND = "user"

Data = dict[str, Any]


def new_flag(spec: FlagSpec, version: int) -> FlagConfig:
    """Off, and serving its off-variation by default too, so that turning it on alone exposes nobody."""
    names = list(spec.variations)
    off = names.index(spec.off)
    data = {
        "key": spec.key,
        "version": version,
        "on": False,
        "salt": _salt(spec.environment, spec.key),
        "variations": list(spec.variations.values()),
        "offVariation": off,
        "fallthrough": {"variation": off},
        "targets": [],
        "contextTargets": [],
        "rules": [],
        "prerequisites": [],
        "trackEvents": False,
        "trackEventsFallthrough": False,
        "debugEventsUntilDate": None,
        "deleted": False,
        **_availability(spec.client_side),
    }
    return FlagConfig(
        environment=spec.environment, key=spec.key, version=version, variations=dict(spec.variations), data=data
    )


def redefined(config: FlagConfig, spec: FlagSpec, version: int) -> FlagConfig:
    """New values, and new variations at the end; who gets which of the old ones stays as it is."""
    values = list(spec.variations.values())
    changed = _changed(config, version, variations=values, **_availability(spec.client_side))
    return replace(changed, variations=dict(spec.variations))


def opens(kind: SdkKeyKind, data: Mapping[str, Any]) -> bool:
    """Whether a key of that kind shows the flag."""
    match kind:
        case "server":
            return True
        case "mobile":
            return bool(data.get("clientSideAvailability", {}).get("usingMobileKey"))
        case "client":
            return bool(data.get("clientSideAvailability", {}).get("usingEnvironmentId"))


def with_share(config: FlagConfig, change: SetShare, version: int) -> FlagConfig:
    """Weights and audience rules as asked; on/off, salt and foreign rules stay.

    `change.bucket_by` is an attribute of the user context, and "user" means its key. Weights are kept at 0 and
    100 % too: a fixed variation there would still be right, but the next step would have no order to keep.
    Raises ValueError when the flag lacks one of the variations.
    """
    fallback, rollout = _index(config, change.serve.fallback), _index(config, change.serve.rollout)
    weights = [
        {"variation": fallback, "weight": FULL_EXPOSURE - change.exposure},
        {"variation": rollout, "weight": change.exposure},
    ]
    default = {
        "kind": "rollout",
        "contextKind": CONTEXT_KIND,
        "bucketBy": "key" if change.bucket_by == "user" else change.bucket_by,
        "variations": weights,
    }
    rules = _foreign_rules(config) + [_rule(rule, rollout) for rule in change.audience]
    return _changed(config, version, fallthrough={"rollout": default}, rules=rules)


def turned_on(config: FlagConfig, version: int) -> FlagConfig:
    return _changed(config, version, on=True)


def killed(config: FlagConfig, version: int, *, leave_on: bool = False) -> FlagConfig:
    """Off; and should anybody turn it on, the default rule and our rules still expose nobody.

    With `leave_on` it stays on if it is, so that rules and targets of other people go on.
    """
    off: int = config.data["offVariation"]
    default: Data = {"variation": off}
    rollout = config.data["fallthrough"].get("rollout")
    if rollout:
        listed = {one["variation"] for one in rollout["variations"]} - {off}
        weights = [{"variation": off, "weight": FULL_EXPOSURE}]
        weights += [{"variation": one, "weight": 0} for one in sorted(listed)]
        default = {"rollout": {**rollout, "variations": weights}}
    still_on = leave_on and config.data["on"]
    return _changed(config, version, on=still_on, fallthrough=default, rules=_foreign_rules(config))


def same_but_version(one: FlagConfig, other: FlagConfig) -> bool:
    return one == with_version(other, one.version)


def with_version(config: FlagConfig, version: int) -> FlagConfig:
    return _changed(config, version)


def state_of(config: FlagConfig) -> FlagState:
    """What SDKs are told. Everything that is not the off-variation counts as exposure.

    A plan's fallback is the off-variation here (any other plan is refused), so this is the rollout variation's
    share, and a third variation that somebody serves shows up as too much exposure instead of as nothing.
    """
    data = config.data
    off = data["offVariation"]
    return FlagState(
        enabled=data["on"],
        exposure=FULL_EXPOSURE - _default_weight(data, off),
        audience=tuple(rule["id"].removeprefix(RULE_PREFIX) for rule in data["rules"] if _exposes(rule, off)),
        foreign=tuple(_foreign(data)),
        off_serves=list(config.variations)[off],
        version=config.version,
        bucketing=_bucketing(data),
    )


def exposes_less(one: FlagConfig, other: FlagConfig) -> bool:
    """Whether fewer get the rollout variation of `one` than of `other`; an archived flag exposes nobody."""
    here, there = state_of(one), state_of(other)
    if one.archived or other.archived:
        return one.archived and not other.archived
    if here.effective_exposure != there.effective_exposure:
        return here.effective_exposure < there.effective_exposure
    return bool(there.enabled and there.audience) and not (here.enabled and here.audience)


def _availability(client_side: bool) -> Data:
    return {
        "clientSide": client_side,
        "clientSideAvailability": {"usingMobileKey": client_side, "usingEnvironmentId": client_side},
    }


def _salt(environment: str, key: str) -> str:
    # Not random: a flag made again after a lost database gives everybody the same as before.
    return hashlib.sha256(f"rampart/{environment}/{key}".encode()).hexdigest()[:32]


def _changed(config: FlagConfig, version: int, **fields: Any) -> FlagConfig:
    return replace(config, version=version, data={**config.data, **fields, "version": version})


def _index(config: FlagConfig, variation: str) -> int:
    names = list(config.variations)
    if variation not in names:
        raise ValueError(f'the flag {config.key} has no variation "{variation}", it has {", ".join(names)}')
    return names.index(variation)


def _rule(rule: AudienceRule, variation: int) -> Data:
    """One clause an attribute: all of them must match, as SDKs read a rule's clauses."""
    return {
        "id": RULE_PREFIX + rule.name,
        "variation": variation,
        "clauses": [_clause(attribute, match) for attribute, match in rule.match.items()],
        "trackEvents": False,
    }


def _clause(attribute: str, match: AttributeMatch) -> Data:
    operators: dict[str, Sequence[str] | None] = {
        "endsWith": None if match.ends_with is None else [match.ends_with],
        "startsWith": None if match.starts_with is None else [match.starts_with],
        "contains": None if match.contains is None else [match.contains],
        "in": match.in_,
    }
    asked = [(op, list(values)) for op, values in operators.items() if values is not None]
    if len(asked) != 1:
        raise ValueError(f"the attribute {attribute} must be matched in exactly one way, not {len(asked)}")
    op, values = asked[0]
    return {"contextKind": CONTEXT_KIND, "attribute": attribute, "op": op, "values": values, "negate": False}


def _is_ours(rule: Data) -> bool:
    return str(rule.get("id", "")).startswith(RULE_PREFIX)


def _exposes(rule: Data, off: int) -> bool:
    return _is_ours(rule) and rule.get("variation") != off


def _foreign_rules(config: FlagConfig) -> list[Data]:
    # Ours come after these: whoever is kept out by a rule of somebody else stays out.
    return [rule for rule in config.data["rules"] if not _is_ours(rule)]


def _default_weight(data: Data, variation: int) -> int:
    default = data["fallthrough"]
    if "rollout" not in default:
        return FULL_EXPOSURE if default.get("variation") == variation else 0
    return sum(one["weight"] for one in default["rollout"]["variations"] if one["variation"] == variation)


def _bucketing(data: Data) -> str:
    """Empty while the default rule divides nobody."""
    rollout = data["fallthrough"].get("rollout")
    if rollout is None:
        return ""
    order = ", ".join(str(one["variation"]) for one in rollout["variations"])
    attribute = f"{rollout.get('contextKind', CONTEXT_KIND)}.{rollout.get('bucketBy', 'key')}"
    divided = f"seed {rollout['seed']}" if rollout.get("seed") is not None else f"salt {data['salt']}"
    return f"{attribute} by {divided} in the order {order}"


def _foreign(data: Data) -> list[str]:
    found = [f"rule {rule.get('id') or 'without an id'}" for rule in data["rules"] if not _is_ours(rule)]
    targets = [*data.get("targets", []), *data.get("contextTargets", [])]
    found += [f"{_counted(one['values'])} of variation {one['variation']}" for one in targets if one["values"]]
    found += [f"prerequisite {one['key']}" for one in data.get("prerequisites", [])]
    return found + _third_variations(data)


def _counted(values: Sequence[Any]) -> str:
    return "1 individual target" if len(values) == 1 else f"{len(values)} individual targets"


def _third_variations(data: Data) -> list[str]:
    """Variations beside the off-variation and the one raised that the default rule serves."""
    listed = data["fallthrough"].get("rollout", {}).get("variations", [])
    served = [one for one in listed if one["variation"] != data["offVariation"] and one["weight"]]
    return [f"variation {one['variation']} for {exposure_text(one['weight'])}" for one in served[1:]]
