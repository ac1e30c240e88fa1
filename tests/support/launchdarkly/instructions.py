"""The instructions of a semantic patch, one function each, on a draft of the flag.

Documentation: docs/api/feature-flags/patch-feature-flag. All of them are made or none (docs/api#updates-using-
semantic-patch): the caller works on a copy, and the first that is refused ends it. One that finds everything as
asked already is no error.

Not documented, and chosen here: weights have to add up to 100 %; an empty list of clauses is refused. What a
rollout lists after a map of weights is not documented either, and decides who is in a share: see `Quirks`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.launchdarkly.errors import invalid, not_found
from tests.support.launchdarkly.flags import Config, Flag
from tests.support.launchdarkly.identity import new_uuid

Json = dict[str, Any]

FULL = 100_000
OPERATORS = {
    "in", "endsWith", "startsWith", "matches", "contains", "lessThan", "lessThanOrEqual", "greaterThan",
    "greaterThanOrEqual", "before", "after", "segmentMatch", "semVerEqual", "semVerLessThan", "semVerGreaterThan",
}  # fmt: skip


@dataclass
class Quirks:
    """A rollout lists variations in the order of the flag, or of the map; with those of weight 0, or without."""

    map_order: bool = False
    drop_zero: bool = False


class Draft:
    """A copy of a flag that may be changed, with the environment that the patch names, and the other flags."""

    def __init__(
        self, flag: Flag, environment: str | None, flags: dict[str, Flag], now: int, quirks: Quirks
    ) -> None:
        self.flag = flag
        self.environment = environment
        self.flags = flags
        self.now = now
        self.quirks = quirks

    @property
    def config(self) -> Config:
        if self.environment is None:
            raise invalid("environmentKey is missing, and an instruction needs it")
        if self.environment not in self.flag.environments:
            raise not_found(f"there is no environment {self.environment!r}")
        return self.flag.environments[self.environment]

    def index(self, instruction: Json, name: str = "variationId") -> int:
        """Of the variation that the instruction names by `_id`."""
        try:
            return self.flag.index(_field(instruction, name))
        except ValueError:
            raise invalid(f"{name} {instruction[name]!r} is no variation of this flag") from None

    def rule(self, instruction: Json) -> Json:
        for rule in self.config.rules:
            if rule["_id"] == _field(instruction, "ruleId"):
                if "experimentAllocation" in rule.get("rollout", {}):
                    # docs/home/releases/guarded-rollouts: the rule of a running one cannot be edited.
                    raise invalid(f"rule {rule['_id']} is part of a release that is running")
                return rule
        raise invalid(f"there is no rule {instruction['ruleId']!r}")

    def clause(self, instruction: Json) -> Json:
        for clause in self.rule(instruction)["clauses"]:
            if clause["_id"] == _field(instruction, "clauseId"):
                found: Json = clause
                return found
        raise invalid(f"there is no clause {instruction['clauseId']!r}")


Change = Callable[[Draft, Json], None]

# Part of an instruction's kind → action; the first that fits counts. So many from the top concern an environment.
ACTIONS = (
    ("turnFlag", "updateOn"),
    ("TrackEvents", "updateTrackEvents"),
    ("updateFallthrough", "updateFallthrough"),
    ("updateOffVariation", "updateOffVariation"),
    ("Target", "updateTargets"),
    ("Prerequisite", "updatePrerequisites"),
    ("Rule", "updateRules"),
    ("Clause", "updateRules"),
    ("Variation", "updateFlagVariations"),
    ("archiveFlag", "updateGlobalArchived"),
    ("restoreFlag", "updateGlobalArchived"),
    ("deleteFlag", "deleteFlag"),
    ("Name", "updateName"),
    ("Tags", "updateTags"),
)
ENVIRONMENT_ACTIONS = 8


def carry_out(draft: Draft, instructions: Sequence[Json]) -> None:
    """Raises ApiError at the first that cannot be carried out."""
    if not instructions:
        raise invalid("instructions are missing")
    for instruction in instructions:
        kind = _field(instruction, "kind")
        if kind not in KINDS:
            raise invalid(f"unknown instruction kind {kind!r}")
        KINDS[kind](draft, instruction)


def action_of(instruction: Json) -> str:
    """What a role has to allow. Documentation: docs/home/account/roles/role-actions."""
    kind = str(instruction.get("kind")) if isinstance(instruction, dict) else ""
    for part, action in ACTIONS:
        if part in kind:
            return action
    return "updateFlag"


def touches_environment(instruction: Json) -> bool:
    return action_of(instruction) in {action for _, action in ACTIONS[:ENVIRONMENT_ACTIONS]}


def _field(instruction: Json, name: str) -> Any:
    if not isinstance(instruction, dict) or name not in instruction:
        raise invalid(f"an instruction lacks {name}")
    return instruction[name]


# — on and off, and what is served —


def _turn(on: bool) -> Change:
    def change(draft: Draft, _: Json) -> None:
        draft.config.on = on

    return change


def _served(draft: Draft, instruction: Json) -> Json:
    """One variation or a rollout, by index, from what was given by `_id`."""
    if "variationId" in instruction and "rolloutWeights" in instruction:
        raise invalid("variationId and rolloutWeights exclude each other")
    if "variationId" in instruction:
        return {"variation": draft.index(instruction)}
    weights = _field(instruction, "rolloutWeights")
    if not isinstance(weights, dict) or not all(type(one) is int and 0 <= one <= FULL for one in weights.values()):
        raise invalid("rolloutWeights maps variation ids to whole numbers from 0 to 100000")
    by_index = {draft.index({"variationId": key}): weight for key, weight in weights.items()}
    if sum(by_index.values()) != FULL:
        raise invalid(f"rolloutWeights add up to {sum(by_index.values())} instead of {FULL}")
    order = list(by_index) if draft.quirks.map_order else sorted(by_index)
    listed = [index for index in order if by_index[index] or not draft.quirks.drop_zero]
    rollout: Json = {
        "variations": [{"variation": index, "weight": by_index[index]} for index in listed],
        "contextKind": instruction.get("rolloutContextKind", "user"),
    }
    if "rolloutBucketBy" in instruction:
        rollout["bucketBy"] = instruction["rolloutBucketBy"]
    return {"rollout": rollout}


def _update_fallthrough(draft: Draft, instruction: Json) -> None:
    if "experimentAllocation" in draft.config.fallthrough.get("rollout", {}):
        raise invalid("the default rule is part of a release that is running")
    draft.config.fallthrough = _served(draft, instruction)


def _update_off_variation(draft: Draft, instruction: Json) -> None:
    draft.config.off_variation = draft.index(instruction)


def _update_track_events(draft: Draft, instruction: Json) -> None:
    draft.config.track_events = bool(_field(instruction, "trackEvents"))


def _update_track_events_fallthrough(draft: Draft, instruction: Json) -> None:
    draft.config.track_events_fallthrough = bool(_field(instruction, "trackEvents"))


# — rules —


def _new_clauses(instruction: Json) -> list[Json]:
    clauses = _field(instruction, "clauses")
    if not isinstance(clauses, list) or not clauses:
        raise invalid("clauses is an empty list")
    return [_new_clause(clause) for clause in clauses]


def _new_clause(clause: Json) -> Json:
    if _field(clause, "op") not in OPERATORS:
        raise invalid(f"unknown operator {clause['op']!r}")
    if not isinstance(_field(clause, "values"), list):
        raise invalid("values of a clause is a list")
    return {
        "_id": new_uuid(),
        "attribute": _field(clause, "attribute"),
        "op": clause["op"],
        "values": clause["values"],
        "contextKind": clause.get("contextKind", "user"),
        "negate": bool(clause.get("negate", False)),
    }


def _new_rule(draft: Draft, instruction: Json) -> Json:
    rule: Json = {
        "_id": new_uuid(),
        "clauses": _new_clauses(instruction),
        "trackEvents": bool(instruction.get("trackEvents", False)),
        **_served(draft, instruction),
    }
    return rule | {name: instruction[name] for name in ("description", "ref") if name in instruction}


def _add_rule(draft: Draft, instruction: Json) -> None:
    rules = draft.config.rules
    rule = _new_rule(draft, instruction)
    before = instruction.get("beforeRuleId")
    ids = [one["_id"] for one in rules]
    if before is not None and before not in ids:
        raise invalid(f"there is no rule {before!r}")
    rules.insert(len(rules) if before is None else ids.index(before), rule)


def _remove_rule(draft: Draft, instruction: Json) -> None:
    if any(rule["_id"] == _field(instruction, "ruleId") for rule in draft.config.rules):
        draft.config.rules.remove(draft.rule(instruction))


def _reorder_rules(draft: Draft, instruction: Json) -> None:
    by_id = {rule["_id"]: rule for rule in draft.config.rules}
    wanted = _field(instruction, "ruleIds")
    if sorted(wanted) != sorted(by_id):
        raise invalid("ruleIds are not those of the rules of this flag")
    draft.config.rules = [by_id[one] for one in wanted]


def _replace_rules(draft: Draft, instruction: Json) -> None:
    for rule in draft.config.rules:
        draft.rule({"ruleId": rule["_id"]})
    draft.config.rules = [_new_rule(draft, rule) for rule in _field(instruction, "rules")]


def _update_rule_served(draft: Draft, instruction: Json) -> None:
    rule = draft.rule(instruction)
    served = _served(draft, instruction)
    rule.pop("variation", None)
    rule.pop("rollout", None)
    rule |= served


def _update_rule_field(name: str) -> Change:
    def change(draft: Draft, instruction: Json) -> None:
        draft.rule(instruction)[name] = _field(instruction, name)

    return change


def _add_clauses(draft: Draft, instruction: Json) -> None:
    draft.rule(instruction)["clauses"] += _new_clauses(instruction)


def _remove_clauses(draft: Draft, instruction: Json) -> None:
    rule, gone = draft.rule(instruction), _field(instruction, "clauseIds")
    rule["clauses"] = [clause for clause in rule["clauses"] if clause["_id"] not in gone]


def _update_clause(draft: Draft, instruction: Json) -> None:
    clause = draft.clause(instruction)
    clause.update(_new_clause(_field(instruction, "clause")) | {"_id": clause["_id"]})


def _add_values(draft: Draft, instruction: Json) -> None:
    values = draft.clause(instruction)["values"]
    values += [value for value in _field(instruction, "values") if value not in values]


def _remove_values(draft: Draft, instruction: Json) -> None:
    clause, gone = draft.clause(instruction), _field(instruction, "values")
    clause["values"] = [value for value in clause["values"] if value not in gone]


# — individual targets —


def _add_targets(draft: Draft, instruction: Json) -> None:
    kind, index = instruction.get("contextKind", "user"), draft.index(instruction)
    values = _field(instruction, "values")
    for target in draft.config.targets:
        taken = set(values) & set(target["values"])
        if target["contextKind"] == kind and target["variation"] != index and taken:
            raise invalid(f"already targeted in another variation: {', '.join(sorted(taken))}")
    for target in draft.config.targets:
        if (target["contextKind"], target["variation"]) == (kind, index):
            target["values"] += [value for value in values if value not in target["values"]]
            return
    draft.config.targets.append({"contextKind": kind, "variation": index, "values": list(values)})


def _remove_targets(draft: Draft, instruction: Json) -> None:
    kind, index = instruction.get("contextKind", "user"), draft.index(instruction)
    for target in draft.config.targets:
        if (target["contextKind"], target["variation"]) == (kind, index):
            gone = _field(instruction, "values")
            target["values"] = [value for value in target["values"] if value not in gone]
    _drop_empty_targets(draft)


def _replace_targets(*kinds: str) -> Change:
    """Of all context kinds, or only of those named."""

    def change(draft: Draft, instruction: Json) -> None:
        draft.config.targets = [one for one in draft.config.targets if kinds and one["contextKind"] not in kinds]
        for target in _field(instruction, "targets"):
            _add_targets(draft, target)
        _drop_empty_targets(draft)

    return change


def _clear_targets(*kinds: str) -> Change:
    def change(draft: Draft, instruction: Json) -> None:
        index = draft.index(instruction)
        draft.config.targets = [
            one
            for one in draft.config.targets
            if one["variation"] != index or (kinds and one["contextKind"] not in kinds)
        ]

    return change


def _drop_empty_targets(draft: Draft) -> None:
    draft.config.targets = [one for one in draft.config.targets if one["values"]]


# — prerequisites —


def _prerequisite(draft: Draft, instruction: Json) -> Json:
    key = _field(instruction, "key")
    if key == draft.flag.key or key not in draft.flags:
        raise invalid(f"{key!r} cannot be a prerequisite")
    try:
        return {"key": key, "variation": draft.flags[key].index(_field(instruction, "variationId"))}
    except ValueError:
        raise invalid(f"variationId is no variation of {key!r}") from None


def _add_prerequisite(draft: Draft, instruction: Json) -> None:
    added = _prerequisite(draft, instruction)
    draft.config.prerequisites = [one for one in draft.config.prerequisites if one["key"] != added["key"]] + [
        added
    ]


def _update_prerequisite(draft: Draft, instruction: Json) -> None:
    if all(one["key"] != _field(instruction, "key") for one in draft.config.prerequisites):
        raise invalid(f"{instruction['key']!r} is no prerequisite")
    _add_prerequisite(draft, instruction)


def _remove_prerequisite(draft: Draft, instruction: Json) -> None:
    key = _field(instruction, "key")
    draft.config.prerequisites = [one for one in draft.config.prerequisites if one["key"] != key]


def _replace_prerequisites(draft: Draft, instruction: Json) -> None:
    draft.config.prerequisites = [_prerequisite(draft, one) for one in _field(instruction, "prerequisites")]


# — variations: these hold in all environments —


def _add_variation(draft: Draft, instruction: Json) -> None:
    added = {"_id": new_uuid(), "value": _field(instruction, "value")}
    draft.flag.variations.append(added | {n: instruction[n] for n in ("name", "description") if n in instruction})


def _update_variation(draft: Draft, instruction: Json) -> None:
    variation = draft.flag.variations[draft.index(instruction)]
    variation |= {name: instruction[name] for name in ("name", "value", "description") if name in instruction}


def _remove_variation(draft: Draft, instruction: Json) -> None:
    """Only the last one, and only when nothing serves it: indices would move, and mean something else."""
    index = draft.index(instruction)
    used = {index for config in draft.flag.environments.values() for index in _indices_in(config)}
    if index in used or index != len(draft.flag.variations) - 1:
        raise invalid("the variation is in use")
    draft.flag.variations.pop(index)


def _indices_in(config: Config) -> set[int]:
    served = [config.fallthrough, *config.rules]
    found = {one["variation"] for one in [*served, *config.targets] if "variation" in one}
    found |= {one["variation"] for each in served for one in each.get("rollout", {}).get("variations", ())}
    return found | ({config.off_variation} if config.off_variation is not None else set())


def _update_default_variation(draft: Draft, instruction: Json) -> None:
    """The fields are written in capitals in the example of the documentation and without in its text."""
    values = [one["value"] for one in draft.flag.variations]
    for name, target in (("onVariationValue", "on_variation"), ("offVariationValue", "off_variation")):
        value = instruction.get(name, instruction.get(name[0].upper() + name[1:]))
        if value is None:
            continue
        if value not in values:
            raise invalid(f"{name} is not the value of a variation")
        setattr(draft.flag, target, values.index(value))


# — settings and life of the flag, in all environments —


def _set(name: str, value: Any) -> Change:
    def change(draft: Draft, _: Json) -> None:
        setattr(draft.flag, name, value)

    return change


def _set_to_value(name: str) -> Change:
    def change(draft: Draft, instruction: Json) -> None:
        setattr(draft.flag, name, _field(instruction, "value"))

    return change


def _add_tags(draft: Draft, instruction: Json) -> None:
    draft.flag.tags = sorted({*draft.flag.tags, *_field(instruction, "values")})


def _remove_tags(draft: Draft, instruction: Json) -> None:
    draft.flag.tags = sorted({*draft.flag.tags} - {*_field(instruction, "values")})


def _add_custom_properties(draft: Draft, instruction: Json) -> None:
    key = _field(instruction, "key")
    draft.flag.custom_properties[key] = {
        "name": instruction.get("name", key), "value": list(_field(instruction, "values")),
    }  # fmt: skip


def _client_side(on: bool) -> Change:
    def change(draft: Draft, instruction: Json) -> None:
        names = {"usingMobileKey": "mobile", "usingEnvironmentId": "client_side"}
        if _field(instruction, "value") not in names:
            raise invalid("value is usingMobileKey or usingEnvironmentId")
        setattr(draft.flag, names[instruction["value"]], on)

    return change


def _archive(draft: Draft, _: Json) -> None:
    """Refused while another flag depends on it. Its key stays taken."""
    if any(_depends(other, draft.flag.key) for other in draft.flags.values()):
        raise invalid("the flag is a prerequisite of other flags")
    draft.flag.archived_at = draft.flag.archived_at or draft.now


def _depends(other: Flag, key: str) -> bool:
    return any(one["key"] == key for config in other.environments.values() for one in config.prerequisites)


def _deprecate(draft: Draft, _: Json) -> None:
    draft.flag.deprecated_at = draft.flag.deprecated_at or draft.now


KINDS: dict[str, Change] = {
    "turnFlagOn": _turn(True),
    "turnFlagOff": _turn(False),
    "updateFallthroughVariationOrRollout": _update_fallthrough,
    "updateOffVariation": _update_off_variation,
    "updateTrackEvents": _update_track_events,
    "updateTrackEventsFallthrough": _update_track_events_fallthrough,
    "addRule": _add_rule,
    "removeRule": _remove_rule,
    "reorderRules": _reorder_rules,
    "replaceRules": _replace_rules,
    "updateRuleVariationOrRollout": _update_rule_served,
    "updateRuleDescription": _update_rule_field("description"),
    "updateRuleTrackEvents": _update_rule_field("trackEvents"),
    "addClauses": _add_clauses,
    "removeClauses": _remove_clauses,
    "updateClause": _update_clause,
    "addValuesToClause": _add_values,
    "removeValuesFromClause": _remove_values,
    "addTargets": _add_targets,
    "removeTargets": _remove_targets,
    "replaceTargets": _replace_targets(),
    "clearTargets": _clear_targets(),
    "addUserTargets": _add_targets,
    "removeUserTargets": _remove_targets,
    "replaceUserTargets": _replace_targets("user"),
    "clearUserTargets": _clear_targets("user"),
    "addPrerequisite": _add_prerequisite,
    "updatePrerequisite": _update_prerequisite,
    "removePrerequisite": _remove_prerequisite,
    "replacePrerequisites": _replace_prerequisites,
    "addVariation": _add_variation,
    "updateVariation": _update_variation,
    "removeVariation": _remove_variation,
    "updateDefaultVariation": _update_default_variation,
    "updateName": _set_to_value("name"),
    "updateDescription": _set_to_value("description"),
    "addTags": _add_tags,
    "removeTags": _remove_tags,
    "addCustomProperties": _add_custom_properties,
    "replaceCustomProperties": _add_custom_properties,
    "makeFlagTemporary": _set("temporary", True),
    "makeFlagPermanent": _set("temporary", False),
    "turnOnClientSideAvailability": _client_side(True),
    "turnOffClientSideAvailability": _client_side(False),
    "archiveFlag": _archive,
    "restoreFlag": _set("archived_at", None),
    "deprecateFlag": _deprecate,
    "restoreDeprecatedFlag": _set("deprecated_at", None),
    "deleteFlag": _set("deleted", True),
}
