"""Flags, segments and contexts of every shape that SDKs read, drawn from a seed: the same seed, the same zoo.

All of it can be loaded by every SDK. What is odd in it (cycles, variations that there are not, patterns that are
none, references to nothing) is odd in a way that an SDK finds out when it evaluates.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

Data = dict[str, Any]

KINDS = ("user", "org", "device")
KEYS = tuple(f"key-{number}" for number in range(60))
TEXTS = ("a", "b", "alpha", "alphabet", "beta", "Beta", "", "dana@acme.example", "kim@acme.example", "é", "日本")
PATTERNS = ("^a", "b$", "al.ha", "^[a-z]+$", "(acme|other)", "[0-9]{2,}", ".", "", "(unclosed", "*a", "[z-a]")
NUMBERS = (-1, 0, 1, 2, 3.5, 10, 10.25, 99, 1e6)
TIMES = (
    1_700_000_000_000,
    1_700_000_000_001,
    0,
    "2023-11-14T22:13:20Z",
    "2023-11-14T22:13:21Z",
    "2023-11-14T23:13:20.5+01:00",
    "2023-11-14T22:13:20.000001Z",
    "1999-12-31T23:59:59-08:00",
    "2023-11-14",
    "2023-11-14T22:13:20",
    "yesterday",
)
VERSIONS = (
    "1", "1.0", "1.0.0", "1.0.1", "1.2", "1.10.0", "2.0.0-rc.1", "2.0.0-rc.2", "2.0.0-rc.10", "2.0.0-alpha",
    "2.0.0", "2.0.0+build.5", "2-rc.1", "2.1-beta+x", "v1.0.0", "1.02.0", "1.0.0.0", "one", "",
)  # fmt: skip

ATTRIBUTES: dict[str, Sequence[Any]] = {
    "email": TEXTS,
    "plan": TEXTS,
    "age": NUMBERS,
    "joined": TIMES,
    "app": VERSIONS,
    "beta": (True, False),
    "/odd": TEXTS,
    "~tilde": NUMBERS,
}
NESTED = {"/address/city": "city", "/address/a~1b": "a/b", "/address/m~0n": "m~n"}
OPERATORS: dict[str, Sequence[Any]] = {
    "in": (*TEXTS, *NUMBERS, True, False),
    "startsWith": TEXTS,
    "endsWith": TEXTS,
    "contains": TEXTS,
    "matches": PATTERNS,
    "lessThan": NUMBERS,
    "lessThanOrEqual": NUMBERS,
    "greaterThan": NUMBERS,
    "greaterThanOrEqual": NUMBERS,
    "before": TIMES,
    "after": TIMES,
    "semVerEqual": VERSIONS,
    "semVerLessThan": VERSIONS,
    "semVerGreaterThan": VERSIONS,
    "sounds": TEXTS,
}
FITTING = {
    **dict.fromkeys(("in", "startsWith", "endsWith", "contains", "matches"), ("email", "plan", "key", "name")),
    **dict.fromkeys(("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"), ("age",)),
    **dict.fromkeys(("before", "after"), ("joined",)),
    **dict.fromkeys(("semVerEqual", "semVerLessThan", "semVerGreaterThan"), ("app",)),
}
VALUES = (True, False, "red", "green", "", 0, 1, 2.5, None, {"limit": 5}, [1, "two"])


class Zoo(NamedTuple):
    """Flags and segments by key."""

    flags: dict[str, Data]
    segments: dict[str, Data]
    contexts: list[Data]


def draw_zoo(seed: int, *, flags: int = 40, segments: int = 12, contexts: int = 50) -> Zoo:
    """Without segments, flags still ask for some that there are not."""
    keeper = _Keeper(Random(seed))
    return Zoo(
        flags={f"flag-{number}": keeper.flag(number) for number in range(flags)},
        segments={f"segment-{number}": keeper.segment(number) for number in range(segments)},
        contexts=[keeper.context() for _ in range(contexts)],
    )


class _Keeper:
    def __init__(self, random: Random) -> None:
        self.random = random

    def often(self, chance: float) -> bool:
        return self.random.random() < chance

    def one(self, among: Sequence[Any]) -> Any:
        return self.random.choice(among)

    def some(self, most: int, draw: Callable[[], Any], *, least: int = 0) -> list[Any]:
        return [draw() for _ in range(self.random.randint(least, most))]

    # — contexts —

    def context(self) -> Data:
        kinds = self.random.sample(KINDS, self.one((1, 1, 1, 2, 3)))
        if len(kinds) == 1 and self.often(0.6):
            kinds = ["user"]
        parts = {kind: self.part() for kind in kinds}
        if len(kinds) == 1:
            return {"kind": kinds[0], **parts[kinds[0]]}
        return {"kind": "multi", **parts}

    def part(self) -> Data:
        part: Data = {"key": self.one(KEYS)}
        for name, values in ATTRIBUTES.items():
            if self.often(0.6):
                part[name] = self.attribute(values)
        if self.often(0.5):
            part["address"] = {name: self.one(TEXTS) for name in NESTED.values()}
        if self.often(0.3):
            part["name"] = self.one(TEXTS)
        if self.often(0.3):
            part["anonymous"] = self.one((True, False))
        return part

    def attribute(self, values: Sequence[Any]) -> Any:
        if self.often(0.15):
            return self.some(3, lambda: self.one(values))
        if self.often(0.05):
            return self.one((None, "text", 7, True, {"an": "object"}))
        return self.one(values)

    # — flags —

    def flag(self, number: int) -> Data:
        variations = [self.one(VALUES) for _ in range(self.random.randint(2, 4))]
        count = len(variations)
        flag: Data = {
            "key": f"flag-{number}",
            "version": self.random.randint(1, 10_000),
            "on": self.often(0.93),
            "salt": self.one(("", "salt", "pepper")),
            "variations": variations,
            "offVariation": None if self.often(0.1) else self.index(count),
            "fallthrough": self.serves(count),
            "rules": self.some(4, lambda: self.rule(count)),
            "prerequisites": self.prerequisites(number),
            "trackEvents": self.often(0.1),
            "trackEventsFallthrough": self.often(0.1),
        }
        return flag | self.targets(count)

    def index(self, count: int) -> int:
        """Now and then one that there is not."""
        return self.one((-1, count)) if self.often(0.01) else self.random.randrange(count)

    def serves(self, count: int) -> Data:
        if self.often(0.4):
            return {"variation": self.index(count)}
        return {} if self.often(0.01) else {"rollout": self.rollout(count)}

    def rollout(self, count: int) -> Data:
        rollout: Data = {"variations": self.shares(count)}
        if self.often(0.3):
            rollout["kind"] = self.one(("experiment", "rollout"))
        if self.often(0.6):
            rollout["contextKind"] = self.one(KINDS)
        if self.often(0.4):
            rollout["bucketBy"] = self.one(("key", "email", "age", "beta", "missing", *NESTED))
        if self.often(0.2):
            rollout["seed"] = self.random.randint(0, 100)
        return rollout

    def shares(self, count: int) -> list[Data]:
        if self.often(0.02):
            return []
        cuts = sorted(self.cut() for _ in range(count - 1))
        if self.often(0.05):
            cuts = [cut // 2 for cut in cuts]
        ends = [*cuts, 100_000 if self.often(0.95) else max(cuts, default=0)]
        weights = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
        shares = [{"variation": self.index(count), "weight": weight} for weight in weights]
        return [{**share, "untracked": True} if self.often(0.2) else share for share in shares]

    def cut(self) -> int:
        return int(self.one((0, 100_000))) if self.often(0.1) else self.random.randint(0, 100_000)

    def prerequisites(self, number: int) -> list[Data]:
        def prerequisite() -> Data:
            other = (
                self.random.randrange(number + 3) if self.often(0.05) else self.random.randrange(max(number, 1))
            )
            return {"key": f"flag-{other}", "variation": self.random.randrange(2)}

        return self.some(2, prerequisite) if number and self.often(0.35) else []

    def targets(self, count: int) -> Data:
        users = [{"variation": index, "values": self.some(3, lambda: self.one(KEYS))} for index in range(count)]
        if self.often(0.6):
            return {}
        if self.often(0.4):
            return {"targets": users}
        kinds = [{"contextKind": "user", "variation": one["variation"], "values": []} for one in users]
        kinds += [
            {"contextKind": kind, "variation": self.index(count), "values": self.some(3, lambda: self.one(KEYS))}
            for kind in KINDS[1:]
        ]
        self.random.shuffle(kinds)
        return {"targets": users, "contextTargets": kinds}

    def rule(self, count: int) -> Data:
        rule = {
            "id": f"rule-{self.random.randrange(1000)}",
            "clauses": self.some(3, self.clause, least=0 if self.often(0.05) else 1),
            "trackEvents": self.often(0.1),
        }
        return rule | self.serves(count)

    def clause(self, segments: int = 14) -> Data:
        if self.often(0.15):
            values = self.some(2, lambda: f"segment-{self.random.randrange(segments)}", least=1)
            return {"attribute": "", "op": "segmentMatch", "values": values, "negate": self.often(0.2)}
        op = self.one(tuple(OPERATORS))
        clause = {
            "attribute": self.one(FITTING[op]) if op in FITTING and self.often(0.85) else self.any_attribute(),
            "op": op,
            "values": self.some(3, lambda: self.one(OPERATORS[op]), least=1),
            "negate": self.often(0.2),
        }
        return {**clause, "contextKind": self.one((*KINDS, "user", "user"))} if self.often(0.7) else clause

    def any_attribute(self) -> str:
        plain = ("key", "kind", "name", "anonymous", "missing", "address", "/key", "/odd", "/~1odd", "/~0tilde")
        broken = ("", "/", "/address//city", "/address/~2")
        return str(self.one(broken if self.often(0.01) else (*ATTRIBUTES, *NESTED, *plain)))

    # — segments —

    def segment(self, number: int) -> Data:
        def clause() -> Data:
            # Only of those before, but for a few: a cycle now and then is enough.
            return self.clause(number + 2 if self.often(0.05) else max(number, 1))

        def rule() -> Data:
            rule: Data = {"clauses": self.some(2, clause, least=1)}
            if self.often(0.4):
                rule["weight"] = self.one((0, 50_000, 100_000, self.random.randint(0, 100_000)))
            if self.often(0.3):
                rule["rolloutContextKind"] = self.one(KINDS)
            if self.often(0.3):
                rule["bucketBy"] = self.one(("key", "plan", "age", *NESTED))
            return rule

        def keys() -> list[str]:
            return self.some(4, lambda: self.one(KEYS))

        return {
            "key": f"segment-{number}",
            "version": self.random.randint(1, 10_000),
            "salt": self.one(("", "salt")),
            "included": keys(),
            "excluded": keys(),
            "includedContexts": self.some(1, lambda: {"contextKind": self.one(KINDS), "values": keys()}),
            "excludedContexts": self.some(1, lambda: {"contextKind": self.one(KINDS), "values": keys()}),
            "rules": self.some(2, rule),
            "unbounded": self.often(0.04),
            **({"generation": 1} if self.often(0.5) else {}),
        }
