"""A flag in LaunchDarkly's two spellings: as its REST API shows it, and as SDKs evaluate it.

Both name variations by index. Only the REST API knows their names and `_id`s and the descriptions of rules. What
is not listed here is of no concern to us and left out; a field of another type than expected is an error.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

KEY = "key"
USER = "user"


class Clause(Struct, frozen=True, rename="camel"):
    op: str
    values: list[Any]
    attribute: str = ""
    context_kind: str | None = None
    negate: bool | None = None


class Weight(Struct, frozen=True, rename="camel"):
    """In thousandths of a percent. `untracked` is how SDKs spell `_untracked`."""

    variation: int
    weight: int
    untracked: bool = False
    untracked_: bool = field(default=False, name="_untracked")


class Rollout(Struct, frozen=True, rename="camel"):
    variations: list[Weight]
    bucket_by: str | None = None
    context_kind: str | None = None
    seed: int | None = None
    kind: str | None = None
    experiment_allocation: Any = None

    @property
    def kind_of_context(self) -> str:
        return self.context_kind or USER

    @property
    def attribute(self) -> str:
        return self.bucket_by or KEY

    @property
    def experimental(self) -> bool:
        """LaunchDarkly itself is running an experiment or a release on it."""
        measured = self.experiment_allocation is not None or self.kind == "experiment"
        return measured or self.seed is not None or any(one.untracked or one.untracked_ for one in self.variations)


class Served(Struct, frozen=True, rename="camel"):
    """One variation, or several by weight."""

    variation: int | None = None
    rollout: Rollout | None = None


class Rule(Struct, frozen=True, rename="camel"):
    """The REST API spells the id `_id`, SDKs get it as `id`, and no description."""

    clauses: list[Clause] = []
    id: str = ""
    id_: str = field(default="", name="_id")
    description: str | None = None
    variation: int | None = None
    rollout: Rollout | None = None
    disabled: bool | None = None

    @property
    def identity(self) -> str:
        return self.id_ or self.id


class Target(Struct, frozen=True, rename="camel"):
    variation: int
    values: list[str] = []
    context_kind: str | None = None


class Prerequisite(Struct, frozen=True):
    key: str
    variation: int


class Config(Struct, frozen=True, rename="camel"):
    """The flag in one environment. `off_variation` None: applications get their own default while it is off."""

    on: bool
    version: int
    salt: str = ""
    fallthrough: Served = Served()
    off_variation: int | None = None
    targets: list[Target] | None = None
    context_targets: list[Target] | None = None
    rules: list[Rule] | None = None
    prerequisites: list[Prerequisite] | None = None
    last_modified: int | None = None

    @property
    def complete(self) -> bool:
        """Not one of those summaries that lists may hold, without rules and what is served."""
        return self.fallthrough.variation is not None or self.fallthrough.rollout is not None

    @property
    def live_rules(self) -> Sequence[Rule]:
        return [rule for rule in self.rules or () if not rule.disabled]

    @property
    def all_targets(self) -> dict[tuple[str, int], list[str]]:
        """Keys by context kind and variation. Those of users are listed apart, with empty places kept for them."""
        found: dict[tuple[str, int], list[str]] = {}
        for one in [*(self.targets or ()), *(self.context_targets or ())]:
            if one.values:
                found.setdefault((one.context_kind or USER, one.variation), []).extend(sorted(one.values))
        return found


class Variation(Struct, frozen=True):
    value: Any
    id_: str = field(name="_id")
    name: str | None = None

    @property
    def label(self) -> str:
        """What a plan calls it: its name, or without one its value as JSON."""
        return self.name or msgspec.json.encode(self.value).decode()


class RestFlag(Struct, frozen=True, rename="camel"):
    key: str
    variations: list[Variation]
    archived: bool = False
    environments: dict[str, Config] = {}

    @property
    def labels(self) -> list[str]:
        return [one.label for one in self.variations]


class Page(Struct, frozen=True, rename="camel"):
    items: list[RestFlag]
    total_count: int | None = None


class Person(Struct, frozen=True, rename="camel"):
    email: str = ""
    first_name: str = ""
    last_name: str = ""


class Named(Struct, frozen=True):
    name: str = ""


class AuditItem(Struct, frozen=True):
    """`date` in milliseconds of Unix time."""

    date: int
    comment: str | None = None
    member: Person | None = None
    token: Named | None = None
    app: Named | None = None

    @property
    def actor(self) -> str:
        if self.member is not None:
            full = f"{self.member.first_name} {self.member.last_name}".strip()
            return self.member.email or full
        if self.token is not None:
            return f"the token {self.token.name}"
        return f"the app {self.app.name}" if self.app is not None else ""


class AuditPage(Struct, frozen=True):
    items: list[AuditItem]


class Release(Struct, frozen=True):
    """One that LaunchDarkly carries out itself."""

    kind: str = ""
    status: str = ""


class Releases(Struct, frozen=True):
    items: list[Release]


class Complaint(Struct, frozen=True):
    """The body of every answer that says no."""

    code: str = ""
    message: str = ""


def essence(config: Config) -> tuple[object, ...]:
    """What decides who gets what, the same whether the REST API or an SDK tells it. Equal: both agree."""
    return (
        config.on,
        config.off_variation,
        _served(config.fallthrough),
        tuple((rule.identity, *_rule(rule)) for rule in config.live_rules),
        tuple(sorted((kind, variation, tuple(keys)) for (kind, variation), keys in config.all_targets.items())),
        tuple((one.key, one.variation) for one in config.prerequisites or ()),
    )


def _rule(rule: Rule) -> tuple[object, ...]:
    return (tuple(map(clause_text, rule.clauses)), _served(Served(rule.variation, rule.rollout)))


def clause_text(clause: Clause) -> str:
    """In one form, whatever was left out because it is usual."""
    parts = [clause.context_kind or USER, clause.attribute, clause.op, bool(clause.negate), clause.values]
    return msgspec.json.encode(parts, order="deterministic").decode()


def _served(served: Served) -> tuple[object, ...]:
    rollout = served.rollout
    if rollout is None:
        return (served.variation,)
    weights = tuple((one.variation, one.weight) for one in rollout.variations)
    return (rollout.kind_of_context, rollout.attribute, rollout.seed, weights)
