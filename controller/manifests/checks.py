"""What every check is given, and the rule by which it runs: only when everything it reads is sound."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from typing import Generic, TypeVar

from msgspec import Struct

from controller.domain.flag import Flag, FlagSpec
from controller.domain.plan import PlanSpec, RolloutPlan
from controller.domain.policy import GuardrailPolicy, PolicySpec
from controller.domain.rehearsal import RehearsalSpec
from controller.manifests.loader import Manifest
from controller.manifests.problem import Problem

SpecT = TypeVar("SpecT", PlanSpec, PolicySpec, FlagSpec, RehearsalSpec)


class Surroundings(Struct, frozen=True, kw_only=True):
    """What the server knows. `sources` and `providers` are name → kind, `groups` name → members."""

    sources: Mapping[str, str]
    providers: Mapping[str, str]
    channels: frozenset[str]
    groups: Mapping[str, list[str]]
    policies: Mapping[str, GuardrailPolicy]


class Context(Struct, frozen=True, kw_only=True):
    """`policies` are those that can be looked into; `declared` also names the ones with mistakes of their own.

    Without `today` nothing is said about what is over.
    """

    surroundings: Surroundings | None
    policies: Mapping[str, GuardrailPolicy]
    declared: frozenset[str]
    flags: Mapping[tuple[str, str], Flag]
    plans: Mapping[str, RolloutPlan]
    today: date | None


class Check(Struct, Generic[SpecT], frozen=True):
    """`reads` are the parts of `spec` it looks at, as in YAML."""

    run: Callable[[Manifest, SpecT, Context], Iterator[Problem]]
    reads: frozenset[str]


def reading(*parts: str) -> frozenset[str]:
    return frozenset(parts)


def run_checks(
    checks: Iterable[Check[SpecT]], manifest: Manifest, spec: SpecT, context: Context
) -> Iterator[Problem]:
    for check in checks:
        if not check.reads & manifest.unsound:
            yield from check.run(manifest, spec, context)
