"""From what Unleash shows to what is wanted, in single requests: what lowers first, nothing that is so already."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from controller.providers.unleash.strategies import Shown, Strategy, same_rule, share_strategy


class Create(Struct, frozen=True):
    strategy: Strategy


class Patch(Struct, frozen=True):
    """`operations` are those of JSON Patch."""

    id: str
    operations: tuple[Mapping[str, Any], ...]


class Remove(Struct, frozen=True):
    id: str


Step = Create | Patch | Remove


def towards(shown: Shown, share: Strategy, rules: Mapping[str, Strategy]) -> list[Step]:
    """What takes people away first: on the way no more are exposed than before or in the end."""
    found = _found(shown, rules)
    gone = [Remove(one.id) for rule, one in shown.rules if found.get(rule) is not one]
    new = [Create(rule) for name, rule in rules.items() if name not in found]
    if not shown.shares:
        # Before anything goes: with its last strategy Unleash turns the flag off, foreign targeting and all.
        return [Create(share), *gone, *new]
    first, *twins = shown.shares
    kept = _patch(first, _edits(first, share))
    gone += [Remove(one.id) for one in twins]
    # One that somebody disabled is enabled first, for the same reason: a rule that goes may be the last.
    first_of_all = first.disabled or first.percent > share.percent
    return [*kept, *gone, *new] if first_of_all else [*gone, *kept, *new]


def down(shown: Shown, key: str) -> list[Step]:
    """Nobody through us, whatever it was.

    One strategy of ours stays, enabled: turning on a flag that has none gives it one for everybody.
    """
    gone: list[Step] = [Remove(one.id) for _, one in shown.rules]
    nobody = share_strategy(key, "user", 0)
    if not shown.shares:
        return [Create(nobody), *gone] if gone else []
    first, *twins = shown.shares
    gone += [Remove(one.id) for one in twins]
    return [*_patch(first, [*_rollout_edits(first, nobody, guarded=False), *_enabling(first)]), *gone]


def _found(shown: Shown, rules: Mapping[str, Strategy]) -> dict[str, Strategy]:
    """Of each rule the first strategy that serves exactly what it says."""
    found: dict[str, Strategy] = {}
    for name, one in shown.rules:
        if name in rules and name not in found and same_rule(one, rules[name]):
            found[name] = one
    return found


def _patch(strategy: Strategy, operations: Iterable[Mapping[str, Any]]) -> list[Step]:
    together = tuple(operations)
    return [Patch(strategy.id, together)] if together else []


def _edits(shown: Strategy, wanted: Strategy) -> Iterator[Mapping[str, Any]]:
    yield from _rollout_edits(shown, wanted, guarded=True)
    yield from _enabling(shown)
    if shown.disabled or not shown.percent:
        # While anybody is exposed, who is in a share does not change.
        for name in ("groupId", "stickiness"):
            if shown.parameters.get(name) != wanted.parameters[name]:
                yield _replace(f"/parameters/{name}", wanted.parameters[name])


def _rollout_edits(shown: Strategy, wanted: Strategy, *, guarded: bool) -> Iterator[Mapping[str, Any]]:
    """`guarded`: refused when it was changed since it was read, as by a kill. Only against what came before it:
    two at the same moment both pass.
    """
    before, after = shown.parameters.get("rollout"), wanted.parameters["rollout"]
    if before == after:
        return
    if guarded and before is not None:
        yield {"op": "test", "path": "/parameters/rollout", "value": before}
    yield _replace("/parameters/rollout", after)


def _enabling(shown: Strategy) -> Iterator[Mapping[str, Any]]:
    if shown.disabled:
        yield _replace("/disabled", False)


def _replace(path: str, value: object) -> Mapping[str, Any]:
    return {"op": "replace", "path": path, "value": value}
