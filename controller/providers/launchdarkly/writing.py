"""What we want of a flag → the instructions of a semantic patch, given the flag as it is.

All of a patch happens, or nothing. The REST API takes variations by `_id`. What is as it should be already is not
written again: no instructions means there is nothing to do.

Weights are written at 0 and 100 %, too, and in the order in which they are listed already: who is in a share then
stays in every larger one.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from controller.domain.flag import SetShare
from controller.domain.plan import Serve
from controller.domain.quantities import FULL_EXPOSURE
from controller.errors import Refused
from controller.providers.launchdarkly import rules
from controller.providers.launchdarkly.model import KEY, USER, Config, RestFlag, Rule, Served

Instruction = dict[str, Any]

TURN_ON: Instruction = {"kind": "turnFlagOn"}
TURN_OFF: Instruction = {"kind": "turnFlagOff"}


def share(flag: RestFlag, config: Config, change: SetShare) -> list[Instruction]:
    """Default rule and our rules as asked; on/off and everything that is not ours stay. Raises Refused."""
    fallback, rollout = index_of(flag, change.serve.fallback), index_of(flag, change.serve.rollout)
    listed = _listed(config.fallthrough)
    order = listed if {fallback, rollout} <= set(listed) else [fallback, rollout]
    weights = dict.fromkeys(order, 0) | {fallback: FULL_EXPOSURE - change.exposure, rollout: change.exposure}
    attribute = KEY if change.bucket_by == USER else change.bucket_by
    instructions = []
    if not _serves(config.fallthrough, weights, attribute):
        instructions.append(_by_weight(flag, weights, USER, attribute))
    return instructions + _our_rules(flag, config, change, flag.variations[rollout].id_)


def kill(flag: RestFlag, config: Config, serve: Serve | None) -> list[Instruction]:
    """The fallback for everybody. Off, and should anybody turn it on, still nobody is exposed.

    A fallback that is not among the variations any more is no obstacle: the off-variation is served then.
    """
    instructions: list[Instruction] = []
    turns_off = serve is None or serve.kill == "off"
    if turns_off and config.on:
        instructions.append(TURN_OFF)
    fallback = _fallback(flag, config, serve)
    if fallback is not None:
        if turns_off and config.off_variation != fallback:
            instructions.append({"kind": "updateOffVariation", "variationId": flag.variations[fallback].id_})
        instructions += _nobody(flag, config.fallthrough, fallback)
    ours = [rule for rule in config.rules or () if rules.is_ours(rule)]
    return instructions + [_removal(rule) for rule in ours]


def index_of(flag: RestFlag, name: str) -> int:
    """Raises Refused when the flag has no variation of that name."""
    labels = flag.labels
    if name not in labels:
        raise Refused(f'the flag {flag.key} has no variation "{name}", it has {", ".join(labels)}')
    return labels.index(name)


def _fallback(flag: RestFlag, config: Config, serve: Serve | None) -> int | None:
    """None when nothing is known that could be served instead; turning it off is all that can be done then."""
    labels, off = flag.labels, config.off_variation
    if serve is not None and serve.fallback in labels:
        return labels.index(serve.fallback)
    return off if off is not None and 0 <= off < len(labels) else None


def _nobody(flag: RestFlag, served: Served, fallback: int) -> list[Instruction]:
    rollout = served.rollout
    if rollout is None:
        same = served.variation == fallback
        return [] if same else [_default({"variationId": flag.variations[fallback].id_})]
    weights = dict.fromkeys(_listed(served), 0) | {fallback: FULL_EXPOSURE}
    if not rollout.experimental and _serves(served, weights, rollout.attribute, rollout.kind_of_context):
        return []
    return [_by_weight(flag, weights, rollout.kind_of_context, rollout.attribute)]


def _listed(served: Served) -> list[int]:
    return [one.variation for one in served.rollout.variations] if served.rollout is not None else []


def _serves(served: Served, weights: dict[int, int], attribute: str, kind: str = USER) -> bool:
    rollout = served.rollout
    if rollout is None or (rollout.kind_of_context, rollout.attribute) != (kind, attribute):
        return False
    return [(one.variation, one.weight) for one in rollout.variations] == list(weights.items())


def _by_weight(flag: RestFlag, weights: dict[int, int], kind: str, attribute: str) -> Instruction:
    by_id = {flag.variations[index].id_: weight for index, weight in weights.items()}
    return _default({"rolloutContextKind": kind, "rolloutBucketBy": attribute, "rolloutWeights": by_id})


def _default(served: Instruction) -> Instruction:
    return {"kind": "updateFallthroughVariationOrRollout", **served}


def _our_rules(flag: RestFlag, config: Config, change: SetShare, variation_id: str) -> list[Instruction]:
    """Ours come after those of others: whoever is kept out by a rule of somebody else stays out."""
    ids = [one.id_ for one in flag.variations]
    wanted = {rules.description(rule, variation_id): rule for rule in change.audience}
    instructions: list[Instruction] = []
    for present in config.rules or ():
        if not rules.is_ours(present):
            continue
        if rules.name_if_intact(present, ids) is not None and present.description in wanted:
            del wanted[present.description]
            continue
        instructions.append(_removal(present))
    for description, rule in wanted.items():
        clauses: Sequence[Any] = msgspec.to_builtins(rules.clauses(rule))
        added = {"description": description, "variationId": variation_id, "clauses": clauses}
        instructions.append({"kind": "addRule", **added})
    return instructions


def _removal(rule: Rule) -> Instruction:
    return {"kind": "removeRule", "ruleId": rule.identity}
