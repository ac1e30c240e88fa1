"""One flag of a flagd document: what it serves, and what we do to it. Every operation returns a new value.

flagd knows neither on nor off: a flag serves its `defaultVariant` unless its `targeting` says otherwise. So a flag
is on here when its targeting is in place, and off when it has none; what turning on will bring waits beside it,
parked. `"state": "DISABLED"` would not be off: applications are then served whatever their code gives as default.

Targeting is a chain of branches: those of other people first, then ours (each begins with its name), then the
default rule, which is ours as long as Rampart moves the flag: `fractional`, the rollout variation listed first.
An evaluator takes hash × sum of weights, and walks the weights in their order: while the sum stays the same and
the rollout comes first, a larger share holds everybody of a smaller one.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from controller.domain.flag import FlagState, Observation, SetShare, Unknown
from controller.domain.plan import AttributeMatch, AudienceRule, RolloutPlan, Serve
from controller.domain.quantities import FULL_EXPOSURE, exposure_text

OURS = "rampart:"
FALLBACK = "rampart.fallback"
"""In the flag's metadata, which evaluators read only if all of it is flat: what everybody else gets."""

KEY_NAMES = ("user", "key")
"""What plans call the identity of a context."""

SHOWN_CHARACTERS = 100

Json = Any


class Found(NamedTuple):
    """A flag as the document has it, and the targeting that is parked for it."""

    definition: Mapping[str, Json]
    parked: Json = None


class Branch(NamedTuple):
    """If `condition` holds, `result` is served: a variation, or what is evaluated further."""

    condition: Json
    result: Json


class DefaultRule(NamedTuple):
    """`exposure`: everything that is not the fallback. `bucketing`: empty when nothing is bucketed."""

    exposure: int
    bucketing: str = ""
    foreign: tuple[str, ...] = ()


# — reading —


def state_of(found: Found, known: str | None = None) -> Observation:
    """What applications are served. `known`: the fallback as this process knows it, whatever the flag says."""
    definition = found.definition
    if why := unreadable(definition):
        return Unknown(why)
    fallback, default = fallback_of(found, known), variation(definition["defaultVariant"])
    enabled = _is_on(found, fallback)
    branches, rest = taken_apart(definition.get("targeting") or (None if enabled else found.parked))
    rule = _default_rule(rest, definition, fallback)
    strange = [f'defaultVariant is "{default}"'] if default != fallback and branches else []
    return FlagState(
        enabled=enabled,
        exposure=rule.exposure,
        audience=tuple(name for one in branches if (name := _intact(one)) and variation(one.result) != fallback),
        foreign=(*_foreign(branches), *strange, *rule.foreign),
        off_serves=default,
        bucketing=rule.bucketing,
    )


def unreadable(definition: Mapping[str, Json]) -> str:
    """Why nobody can say what applications are served; empty when it can be said."""
    if not isinstance(definition.get("variants"), dict):
        return "its definition has no variants"
    if definition.get("state") != "ENABLED":
        return f"its state is {_text(definition.get('state'))}: applications get the default of their own code"
    default = variation(definition.get("defaultVariant"))
    if default not in definition["variants"]:
        return f"its defaultVariant is {_text(default)}: applications get the default of their own code"
    return ""


def fallback_of(found: Found, known: str | None = None) -> str | None:
    """What everybody else gets: as known, as once written, or what the flag serves by default."""
    definition = found.definition
    written = _metadata(definition).get(FALLBACK)
    for name in (known, written, variation(definition.get("defaultVariant"))):
        if name in definition["variants"]:
            return str(name)
    return None


def variation(value: Json) -> str | None:
    """As evaluators take it: true and false are the names of variations, too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) and value else None


def taken_apart(targeting: Json) -> tuple[list[Branch], Json]:
    """The branches, and what is left for everybody else: None is the defaultVariant."""
    branches: list[Branch] = []
    rest = targeting or None
    while (args := _arguments(rest, "if")) is not None and len(args) > 1 and not _is_guard(args):
        branches.append(Branch(args[0], args[1]))
        rest = {"if": args[2:]} if len(args) > 3 else (args[2] if len(args) == 3 else None)
    return branches, rest


def put_together(branches: Iterable[Branch], rest: Json) -> Json:
    """Nested: evaluators need not understand an `if` of more than three arguments."""
    for branch in reversed(list(branches)):
        rest = {"if": [branch.condition, branch.result, rest]}
    return rest


def _is_on(found: Found, fallback: str | None) -> bool:
    default = variation(found.definition.get("defaultVariant"))
    return bool(found.definition.get("targeting")) or default != fallback


def _arguments(node: Json, operator: str) -> list[Json] | None:
    if isinstance(node, dict) and len(node) == 1 and isinstance(node.get(operator), list):
        found: list[Json] = node[operator]
        return found
    return None


def _is_guard(args: list[Json]) -> bool:
    """`if` there is something to be hashed, then `fractional`: one default rule, not a branch."""
    return (
        len(args) in (2, 3)
        and isinstance(args[0], dict)
        and "var" in args[0]
        and _arguments(args[1], "fractional") is not None
    )


def _default_rule(rest: Json, definition: Mapping[str, Json], fallback: str | None) -> DefaultRule:
    """What is not understood counts as everybody: it must never pass for nobody."""
    default = variation(definition["defaultVariant"])
    guard = _arguments(rest, "if")
    if guard is not None and _is_guard(guard):
        otherwise = default if guard[2:] in ([], [None]) else variation(guard[2])
        rest = guard[1] if otherwise == fallback else rest
    if args := _arguments(rest, "fractional"):
        return _split(args, definition["variants"], fallback) or _not_understood(rest)
    served = default if rest is None else variation(rest)
    if served is None:
        return _not_understood(rest)
    return DefaultRule(0 if served == fallback else FULL_EXPOSURE)


def _not_understood(rest: Json) -> DefaultRule:
    return DefaultRule(FULL_EXPOSURE, foreign=(f"a default rule that cannot be read: {_text(rest)}",))


def _split(args: list[Json], variants: Mapping[str, Json], fallback: str | None) -> DefaultRule | None:
    """None when a weight or a variation is itself calculated."""
    listed = args if isinstance(args[0], list) else args[1:]
    by = "flag key and targetingKey" if listed is args else _text(args[0])
    weights = [(variation(one[0]), _weight(one)) for one in listed if isinstance(one, list) and one]
    total = sum(weight or 0 for _, weight in weights)
    if len(weights) != len(listed) or total <= 0 or any(name is None or one is None for name, one in weights):
        return None
    others = [(name, weight or 0) for name, weight in weights if name != fallback]
    shares = [(name, -(-FULL_EXPOSURE * weight // total)) for name, weight in others]
    third = [f'variation "{name}" for {exposure_text(share)}' for name, share in shares if share][1:]
    exposed = -(-FULL_EXPOSURE * sum(weight for _, weight in others) // total)
    order = ", ".join(f"{name} {_text(variants.get(name or ''))}" for name, _ in weights)
    return DefaultRule(exposed, f"{by}: {order}", tuple(third))


def _weight(one: list[Json]) -> int | None:
    if len(one) == 1:
        return 1
    given = one[1]
    return max(0, given) if isinstance(given, int) and not isinstance(given, bool) else None


# — our rules, and those of other people —


def _label(branch: Branch) -> str:
    """How a branch of ours begins; empty for those of other people."""
    args = _arguments(branch.condition, "and")
    return args[0] if args and isinstance(args[0], str) and args[0].startswith(OURS) else ""


def _intact(branch: Branch) -> str | None:
    """The name of a rule of ours that is as we wrote it."""
    args = _arguments(branch.condition, "and")
    name, _, digest = _label(branch).removeprefix(OURS).partition("#")
    return name if args and name and digest == _digest(args[1:]) else None


def _foreign(branches: Iterable[Branch]) -> list[str]:
    found = []
    for one in branches:
        if not (label := _label(one)):
            found.append(f"if {_text(one.condition)} then {_text(one.result)}")
        elif _intact(one) is None:
            found.append(f"the rule {label.partition('#')[0]}, changed by hand")
    return found


def _digest(clauses: list[Json]) -> str:
    return hashlib.sha256(json.dumps(clauses, sort_keys=True).encode()).hexdigest()[:8]


def _text(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= SHOWN_CHARACTERS:
        return text
    # Two long ones that begin alike are still told apart.
    return f"{text[:SHOWN_CHARACTERS]}… #{hashlib.sha256(text.encode()).hexdigest()[:8]}"


# — writing —


def with_share(found: Found, change: SetShare) -> Found:
    """Weights and rules of ours as asked; other people's branches stay, and on/off does, too.

    Raises ValueError when the flag is not one that can be raised.
    """
    definition, serve = found.definition, change.serve
    if why := unreadable(definition):
        raise ValueError(why)
    for name in (serve.rollout, serve.fallback):
        if name not in definition["variants"]:
            raise ValueError(f'it has no variation "{name}", it has {", ".join(definition["variants"])}')
    enabled = _is_on(found, fallback_of(found, serve.fallback))
    branches, _ = taken_apart(definition.get("targeting") or (None if enabled else found.parked))
    ours = [_branch(rule, serve.rollout) for rule in change.audience]
    targeting = put_together([*_of_others(branches), *ours], _weights(serve, change.exposure, change.bucket_by))
    return _placed(found, targeting, serve.fallback, on=enabled)


def turned_on(found: Found) -> Found:
    """What was parked is in place. Raises ValueError when there is nothing, or nobody knows what is served."""
    if why := unreadable(found.definition):
        raise ValueError(why)
    if found.definition.get("targeting"):
        return found
    if not found.parked:
        raise ValueError("no share was ever set that could be turned on")
    return Found({**found.definition, "targeting": found.parked})


def killed(found: Found, serve: Serve | None, known: str | None = None) -> Found:
    """The fallback for everybody, by `defaultVariant` alone; other people's branches wait, parked.

    With `serve.kill: fallthrough` they stay in place if the flag is on. Raises ValueError when nobody can say what
    the fallback is.
    """
    fallback = _fallback_of_kill(found, serve, known)
    branches, _ = taken_apart(found.definition.get("targeting") or found.parked)
    others = _of_others(branches)
    stays_on = (
        serve is not None
        and serve.kill == "fallthrough"
        and bool(found.definition.get("targeting"))
        and found.definition.get("state") == "ENABLED"
    )
    enabled = Found({**found.definition, "state": "ENABLED"}, found.parked)
    return _placed(enabled, put_together(others, fallback) if others else None, fallback, on=stays_on)


def _fallback_of_kill(found: Found, serve: Serve | None, known: str | None) -> str:
    variants = found.definition.get("variants")
    if not variants or not isinstance(variants, dict):
        raise ValueError("its definition has no variants")
    named = fallback_of(found, serve.fallback if serve else known)
    negative = [str(name) for name, value in variants.items() if value is False]
    if named is not None:
        return named
    if len(negative) == 1:
        return negative[0]
    raise ValueError(
        "nobody can say which variation is its fallback: it has no defaultVariant, and no plan names one"
    )


def _placed(found: Found, targeting: Json, fallback: str, *, on: bool) -> Found:
    definition = {
        **found.definition,
        "defaultVariant": fallback,
        "targeting": targeting if on else None,
        "metadata": {**_metadata(found.definition), FALLBACK: fallback},
    }
    if definition["targeting"] is None:
        del definition["targeting"]
    return Found(definition, None if on else targeting)


def _metadata(definition: Mapping[str, Json]) -> dict[str, Json]:
    found = definition.get("metadata")
    return dict(found) if isinstance(found, dict) else {}


def _of_others(branches: Iterable[Branch]) -> list[Branch]:
    # They stay before ours: whoever is kept out by a rule of somebody else stays out.
    return [one for one in branches if not _label(one)]


def _branch(rule: AudienceRule, rollout: str) -> Branch:
    clauses = [_clause(attribute, match) for attribute, match in rule.match.items()]
    return Branch({"and": [f"{OURS}{rule.name}#{_digest(clauses)}", *clauses]}, rollout)


def _clause(attribute: str, match: AttributeMatch) -> Json:
    """Raises ValueError unless the attribute is matched in exactly one way."""
    value = {"var": _attribute(attribute)}
    asked: list[Json] = []
    if match.ends_with is not None:
        asked.append({"ends_with": [value, match.ends_with]})
    if match.starts_with is not None:
        asked.append({"starts_with": [value, match.starts_with]})
    if match.contains is not None:
        asked.append({"in": [match.contains, value]})
    if match.in_ is not None:
        asked.append({"in": [value, match.in_]})
    if len(asked) != 1:
        raise ValueError(f"the attribute {attribute} must be matched in exactly one way, not {len(asked)}")
    return asked[0]


def _attribute(name: str) -> str:
    return "targetingKey" if name == "key" else name


def _weights(serve: Serve, exposure: int, bucket_by: str) -> Json:
    """Whoever has nothing to be hashed waits for 100 %: they would all fall into one bucket, perhaps the first."""
    attribute = {"var": "targetingKey" if bucket_by in KEY_NAMES else bucket_by}
    weights = [[serve.rollout, exposure], [serve.fallback, FULL_EXPOSURE - exposure]]
    split = {"fractional": [{"cat": [{"var": "$flagd.flagKey"}, attribute]}, *weights]}
    return split if exposure == FULL_EXPOSURE else {"if": [attribute, split, serve.fallback]}


# — what does not fit —


def objections(found: Found, plan: RolloutPlan) -> list[str]:
    """Why the plan cannot move this flag."""
    definition, serve = found.definition, plan.spec.serve
    if why := unreadable(definition):
        return [why]
    variants, default = definition["variants"], variation(definition["defaultVariant"])
    wrong = [name for name in (serve.rollout, serve.fallback) if name not in variants]
    if wrong:
        return [f'it has no variation "{name}", it has {", ".join(variants)}' for name in wrong]
    against = []
    if serve.rollout == serve.fallback:
        against.append(f'serve: rollout and fallback are both "{serve.rollout}"')
    if default != serve.fallback:
        against.append(f'its defaultVariant is "{default}", the plan\'s fallback is "{serve.fallback}"')
    return [*against, *_against_default_rule(found, plan), *_against_audience(plan)]


def _against_default_rule(found: Found, plan: RolloutPlan) -> list[str]:
    """It would be replaced, so that all it does must be what the plan's own would do at that share."""
    if plan.spec.mode == "observe":
        return []
    serve, bucket_by = plan.spec.serve, plan.spec.audience.bucket_by
    _, rest = taken_apart(found.definition.get("targeting") or found.parked)
    rule = _default_rule(rest, found.definition, serve.fallback)
    own = _default_rule(_weights(serve, 0, bucket_by), found.definition, serve.fallback)
    if rule.foreign:
        return [f"Rampart would replace {one}" for one in rule.foreign]
    if 0 < rule.exposure < FULL_EXPOSURE and rule.bucketing != own.bucketing:
        return [f"it is split by {rule.bucketing}; the plan would split it anew, by {own.bucketing}"]
    return []


def _against_audience(plan: RolloutPlan) -> list[str]:
    against = []
    for rule in plan.spec.audience.always:
        try:
            _branch(rule, plan.spec.serve.rollout)
        except ValueError as error:
            against.append(f"audience rule {rule.name}: {error}")
    return against
