"""A flag of LaunchDarkly → what a provider shows of it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from controller.domain.flag import FlagState
from controller.domain.quantities import FULL_EXPOSURE, exposure_text
from controller.providers.launchdarkly import rules
from controller.providers.launchdarkly.model import Config, RestFlag, Rule, Served, clause_text


def our_rules(flag: RestFlag, config: Config) -> dict[str, str]:
    """Names of our rules by their id, of those that say what we wrote."""
    ids = [one.id_ for one in flag.variations]
    named = ((rule.identity, rules.name_if_intact(rule, ids)) for rule in config.rules or ())
    return {identity: name for identity, name in named if name is not None}


def state_of(config: Config, labels: Sequence[str], ours: Mapping[str, str]) -> FlagState:
    """`labels` are the names of the variations, `ours` the names of our rules by their id.

    Everything that is not the off-variation counts as exposure. A plan's fallback is the off-variation (any other
    plan is refused), so this is the rollout variation's share, and a third variation that somebody serves shows
    up as too much instead of as nothing.
    """
    off = config.off_variation
    exposing = [rule for rule in config.live_rules if rule.identity in ours and rule.variation != off]
    return FlagState(
        enabled=config.on,
        exposure=FULL_EXPOSURE - _default_weight(config.fallthrough, off),
        audience=tuple(dict.fromkeys(ours[rule.identity] for rule in exposing)),
        foreign=tuple(_foreign(config, labels, ours)),
        off_serves=None if off is None else label(labels, off),
        version=config.version,
        bucketing=_bucketing(config, labels),
        changed_at=None if config.last_modified is None else moment(config.last_modified),
    )


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def running_release(config: Config) -> str | None:
    """Where LaunchDarkly itself runs an experiment or a release on this flag."""
    if config.fallthrough.rollout is not None and config.fallthrough.rollout.experimental:
        return "on its default rule"
    under_way = [rule for rule in config.live_rules if rule.rollout is not None and rule.rollout.experimental]
    return f"on its rule {_called(under_way[0])}" if under_way else None


def own_release(key: str, where: str) -> str:
    return (
        f"LaunchDarkly itself runs a release or an experiment on {key}, {where}: let it end, or stop it there, "
        "and try again"
    )


def _default_weight(served: Served, variation: int | None) -> int:
    if variation is None:
        return 0
    if served.rollout is None:
        return FULL_EXPOSURE if served.variation == variation else 0
    return sum(one.weight for one in served.rollout.variations if one.variation == variation)


def _bucketing(config: Config, labels: Sequence[str]) -> str:
    """Empty while one variation is served to everybody: then nothing decides who is in a share."""
    rollout = config.fallthrough.rollout
    if rollout is None or len(rollout.variations) <= 1:
        return ""
    order = ", ".join(label(labels, one.variation) for one in rollout.variations)
    seed = f"seed {rollout.seed}" if rollout.seed is not None else f"salt {rules.digest(config.salt)}"
    return f"{order} by {rollout.kind_of_context} {rollout.attribute}, {seed}"


def _foreign(config: Config, labels: Sequence[str], ours: Mapping[str, str]) -> Iterator[str]:
    """Everything that is not ours. The digits in brackets change when its content does."""
    for rule in config.live_rules:
        if rule.identity not in ours:
            yield f"rule {_called(rule)} [{_content(rule)}]"
    for (kind, variation), keys in sorted(config.all_targets.items()):
        whom = f"{len(keys)} individual target{'s' if len(keys) > 1 else ''} of kind {kind}"
        yield f"{whom} for {label(labels, variation)} [{rules.digest(*keys)}]"
    for one in config.prerequisites or ():
        yield f"prerequisite {one.key}, variation {one.variation}"
    if (where := running_release(config)) is not None:
        yield f"a release or experiment of LaunchDarkly {where}"
    listed = config.fallthrough.rollout.variations if config.fallthrough.rollout is not None else []
    served = [one for one in listed if one.variation != config.off_variation and one.weight]
    for third in served[1:]:
        yield f"variation {label(labels, third.variation)} for {exposure_text(third.weight)}"


def _called(rule: Rule) -> str:
    return f'"{rule.description}"' if rule.description else rule.identity


def _content(rule: Rule) -> str:
    rollout = rule.rollout
    weights = [(one.variation, one.weight) for one in rollout.variations] if rollout is not None else []
    return rules.digest(*map(clause_text, rule.clauses), repr((rule.variation, weights)))


def label(labels: Sequence[str], variation: int) -> str:
    return labels[variation] if 0 <= variation < len(labels) else f"number {variation}"
