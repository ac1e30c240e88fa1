"""Where SDKs answer otherwise than Rampart, and otherwise than each other: docs/sdks.md tells the same in words.

Each difference says of a flag and a context whether it may play a part, also by way of prerequisites and segments.
A disagreement that no difference explains is a mistake of ours.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from controller.domain.evaluation import Evaluation, Evaluator, parse_context
from controller.domain.evaluation.contexts import Attributes
from controller.domain.evaluation.references import look_up, read_reference
from controller.patterns import read_pattern
from tests.support.flag_zoo import PATTERNS, Data, Zoo

Parts = Mapping[str, Attributes]
Plays = Callable[["Reach", Parts], bool]
Answer = Sequence[Any]
"""Value, variation and reason."""


class Reach(NamedTuple):
    """Everything that a flag's answer may depend on. The flag itself is the first of the flags."""

    flags: list[Data]
    segments: list[Data]
    circles: set[str]
    """The flags and segments that lead back to themselves."""

    def rollouts(self) -> Iterator[Data]:
        for flag in self.flags:
            for served in (flag["fallthrough"], *flag["rules"]):
                if "rollout" in served and "variation" not in served:
                    yield served["rollout"]

    def clause_lists(self) -> Iterator[list[Data]]:
        for rule in (rule for one in (*self.flags, *self.segments) for rule in one["rules"]):
            yield rule["clauses"]

    def segment_rules(self) -> Iterator[Data]:
        for segment in self.segments:
            yield from segment["rules"]


def reach_of(zoo: Zoo, key: str) -> Reach:
    reached: dict[str, Data] = {}
    circles: set[str] = set()

    def visit(key: str, above: tuple[str, ...]) -> None:
        if key in above:
            circles.add(key)
        elif key in zoo.flags or key in zoo.segments:
            reached[key] = zoo.flags.get(key) or zoo.segments[key]
            for other in _asked_by(reached[key]):
                visit(other, (*above, key))

    visit(key, ())
    flags = [one for one in reached.values() if one["key"] in zoo.flags]
    return Reach(flags, [one for one in reached.values() if one["key"] in zoo.segments], circles)


def _asked_by(one: Data) -> list[str]:
    clauses = [clause for rule in one["rules"] for clause in rule["clauses"]]
    segments = [key for clause in clauses if clause["op"] == "segmentMatch" for key in clause["values"]]
    return [prerequisite["key"] for prerequisite in one.get("prerequisites", [])] + segments


# — what may differ —


def _lost(clause: Data) -> bool:
    """The clause's reference refers to nothing."""
    literal = not clause.get("contextKind")
    return clause["op"] != "segmentMatch" and read_reference(clause["attribute"], literal=literal) is None


def _kind(data: Data, name: str = "contextKind") -> str:
    return str(data.get(name) or "user")


def _lost_without_its_kind(reach: Reach, parts: Parts) -> bool:
    clauses = (clause for listed in reach.clause_lists() for clause in listed)
    return any(_lost(clause) and _kind(clause) not in parts for clause in clauses)


def _whole_float(reach: Reach, parts: Parts) -> bool:
    shares = [(_kind(one), one.get("bucketBy"), "contextKind" in one) for one in reach.rollouts()]
    shares += [
        (_kind(one, "rolloutContextKind"), one.get("bucketBy"), "rolloutContextKind" in one)
        for one in reach.segment_rules()
    ]
    for kind, by, path in shares:
        reference = read_reference(by, literal=not path) if by else None
        value = look_up(reference, parts[kind]) if reference and kind in parts else None
        if isinstance(value, float) and value.is_integer():
            return True
    return False


def _none_of_a_segment(reach: Reach, parts: Parts) -> bool:
    return any(
        one.get("weight") == 0 and _kind(one, "rolloutContextKind") not in parts for one in reach.segment_rules()
    )


def _first_share_empty(reach: Reach, parts: Parts) -> bool:
    return any(
        one["variations"] and one["variations"][0]["weight"] == 0 and _kind(one) not in parts
        for one in reach.rollouts()
    )


def _seed_0(reach: Reach, parts: Parts) -> bool:
    return any(one.get("seed") == 0 for one in reach.rollouts())


def _malformed_prerequisite(reach: Reach, parts: Parts) -> bool:
    return any(_may_be_malformed(flag) for flag in reach.flags[1:])


def _may_be_malformed(flag: Data) -> bool:
    served = [flag["fallthrough"], *flag["rules"], *flag.get("targets", []), *flag.get("contextTargets", [])]
    indexes = [one.get("variation", 0) for one in served] + [flag["offVariation"] or 0]
    shares = [one["rollout"]["variations"] for one in served if "rollout" in one]
    indexes += [share["variation"] for listed in shares for share in listed]
    nothing = any(not one.keys() & {"variation", "rollout"} for one in served)
    return nothing or not all(shares) or any(not 0 <= one < len(flag["variations"]) for one in indexes)


def _circle(reach: Reach, parts: Parts) -> bool:
    return any(flag["key"] in reach.circles for flag in reach.flags)


def _lost_before_another(reach: Reach, parts: Parts) -> bool:
    """The mistake may be in a segment that the clause asks for."""
    clauses = [clause for listed in reach.clause_lists() for clause in listed]
    before = [clause for listed in reach.clause_lists() for clause in listed[:-1]]
    mistaken = any(map(_lost, clauses)) or any(one["key"] in reach.circles for one in reach.segments)
    return mistaken and any(_lost(clause) or clause["op"] == "segmentMatch" for clause in before)


def _fine_time(reach: Reach, parts: Parts) -> bool:
    asked = any(clause["op"] in ("before", "after") for listed in reach.clause_lists() for clause in listed)
    texts = repr([parts, [list(reach.clause_lists())]])
    return asked and "20.000001Z" in texts


def _no_generation(reach: Reach, parts: Parts) -> bool:
    return any(one["unbounded"] and "generation" not in one and "user" not in parts for one in reach.segments)


def _other_pattern(reach: Reach, parts: Parts) -> bool:
    """The zoo's own patterns mean the same to everybody."""
    clauses = (clause for listed in reach.clause_lists() for clause in listed if clause["op"] == "matches")
    return any(one not in PATTERNS for clause in clauses for one in clause["values"])


def _asks_for(*wanted: Any) -> Plays:
    """Attributes or values that do not occur in the zoo."""

    def plays(reach: Reach, parts: Parts) -> bool:
        clauses = [clause for listed in reach.clause_lists() for clause in listed]
        asked = [value for clause in clauses for value in (clause["attribute"], *clause["values"])]
        asked += [one.get("bucketBy") for one in reach.rollouts()]
        return any(one in asked for one in wanted)

    return plays


# — specimens —


def _flag(key: str = "specimen", **changes: Any) -> Data:
    flag = {
        "key": key, "version": 1, "on": True, "salt": "salt", "variations": ["off", "on", "rest"],
        "offVariation": 0, "fallthrough": {"variation": 2}, "rules": [], "prerequisites": [],
    }  # fmt: skip
    return flag | changes


def _specimen(flag: Data, context: Data, *others: Data, segment: Data | None = None) -> Zoo:
    segments = (
        {} if segment is None else {"segment": {"key": "segment", "version": 1, "unbounded": False} | segment}
    )
    return Zoo({one["key"]: one for one in (flag, *others)}, segments, [context])


def _rule(*clauses: Data) -> Data:
    return {"id": "rule", "variation": 1, "clauses": list(clauses)}


def _clause(attribute: str, op: str, *values: Any, kind: str = "user") -> Data:
    return {"attribute": attribute, "op": op, "values": list(values), "contextKind": kind}


def _shares(*weights: int, **changes: Any) -> Data:
    shares = [{"variation": index, "weight": weight} for index, weight in enumerate(weights)]
    return {"rollout": {"contextKind": "user", "variations": shares, **changes}}


def _matching(pattern: str, text: str) -> Zoo:
    return _specimen(_flag(rules=[_rule(_clause("text", "matches", pattern))]), USER | {"text": text})


def _asking(clause: Data, **attributes: Any) -> Zoo:
    return _specimen(_flag(rules=[_rule(clause)]), USER | attributes)


USER: Data = {"kind": "user", "key": "dana"}
_ALL = {"attribute": "", "op": "segmentMatch", "values": ["segment"]}
_LOST = _clause("/a//b", "in", 1)
_WANTS = [{"key": "other", "variation": 1}]


class Difference(NamedTuple):
    """`specimen` shows it with its first flag."""

    name: str
    sdks: tuple[str, ...]
    plays: Plays
    specimen: Zoo


DIFFERENCES = [
    Difference(
        "a reference to nothing is noticed only for a context of its kind", ("python",), _lost_without_its_kind,
        _specimen(_flag(rules=[_rule(_clause("/a//b", "in", 1, kind="org"))]), USER),
    ),
    Difference(
        "a whole number that is written as 5.0 is not hashed", ("python",), _whole_float,
        _specimen(_flag(fallthrough=_shares(30_000, 70_000, bucketBy="age")), USER | {"age": 5.0}),
    ),
    Difference(
        "a share of 0 % of a segment takes whoever lacks its kind", ("python",), _none_of_a_segment,
        _specimen(
            _flag(rules=[_rule(_ALL)]), USER,
            segment={"rules": [{"clauses": [], "weight": 0, "rolloutContextKind": "org"}]},
        ),
    ),
    Difference(
        "whoever lacks the kind of a share gets the first one that is not empty", ("node",), _first_share_empty,
        _specimen(_flag(fallthrough=_shares(0, 100_000, contextKind="org")), USER),
    ),
    Difference(
        "a seed of 0 is no seed", ("node",), _seed_0,
        _specimen(_flag(fallthrough=_shares(50_000, 50_000, seed=0)), USER | {"key": "key-3"}),
    ),
    Difference(
        "a malformed prerequisite makes the flag malformed", ("node",), _malformed_prerequisite,
        _specimen(_flag(prerequisites=_WANTS), USER, _flag("other", fallthrough={"variation": 7})),
    ),
    Difference(
        "a circle of prerequisites may go unnoticed", ("node",), _circle,
        _specimen(
            _flag(prerequisites=[*_WANTS, {"key": "off", "variation": 1}]), USER,
            _flag("other", prerequisites=[{"key": "specimen", "variation": 1}]), _flag("off", on=False),
        ),
    ),
    Difference(
        "a mistake in a clause is forgotten when another clause follows", ("node",), _lost_before_another,
        _specimen(_flag(rules=[_rule(_LOST, _clause("key", "in", "dana"))]), USER),
    ),
    Difference(
        "a path that ends in a slash leads to nothing instead of being a mistake", ("node",), _asks_for("/a/"),
        _asking(_clause("/a/", "in", 1)),
    ),
    Difference(
        "to ask for _meta is a mistake instead of leading to nothing", ("node",), _asks_for("_meta"),
        _asking(_clause("_meta", "in", 1)),
    ),
    Difference(
        "times are cut off to milliseconds", ("node",), _fine_time,
        _asking(_clause("at", "after", 1_700_000_000_000), at="2023-11-14T22:13:20.000001Z"),
    ),
    Difference(
        "of a big segment that was never built nothing is said to whoever lacks its kind", ("node",),
        _no_generation,
        _specimen(
            _flag(rules=[_rule(_ALL)]), {"kind": "org", "key": "acme"}, segment={"unbounded": True, "rules": []}
        ),
    ),
    Difference(
        "patterns may look around and refer back", ("python", "node"), _other_pattern, _matching("^(?=a)a", "a")
    ),
    Difference(
        "patterns cannot say that case does not matter", ("node",), _other_pattern, _matching("(?i)A", "a")
    ),
    Difference(
        "digits of every script are digits in patterns", ("python",), _other_pattern, _matching(r"^\d$", "٣")
    ),
    Difference(
        "a line break may follow the end in patterns", ("python",), _other_pattern, _matching("a$", "a\n")
    ),
    Difference(
        "objects and lists are never the same", ("node",), _asks_for({"a": 1}),
        _asking(_clause("thing", "in", {"a": 1}), thing={"a": 1}),
    ),
    Difference(
        "spaces around a version do not count", ("node",), _asks_for("1.2.3"),
        _asking(_clause("app", "semVerEqual", "1.2.3"), app=" 1.2.3"),
    ),
    Difference(
        "whole numbers beyond 2**53 are rounded", ("node",), _asks_for(2**53),
        _asking(_clause("number", "in", 2**53), number=2**53 + 1),
    ),
    Difference(
        "shares by the kind put everybody into the first one", ("node",), _asks_for("kind"),
        _specimen(_flag(fallthrough=_shares(20_000, 80_000, bucketBy="kind")), USER),
    ),
]  # fmt: skip


# — comparing —


class Disagreement(NamedTuple):
    """What an SDK says of a flag, and what we say. `known`: the differences that may explain it."""

    flag: str
    context: Data
    theirs: Answer
    ours: Answer
    known: list[str]


def answer_of(evaluation: Evaluation) -> Answer:
    return evaluation.value, evaluation.variation, evaluation.reason


def disagreements(zoo: Zoo, answers: Iterable[Mapping[str, Answer]], sdk: str) -> list[Disagreement]:
    """`answers` are the SDK's by flag, one mapping for each context of the zoo."""
    evaluator = Evaluator(zoo.flags, zoo.segments, patterns=read_pattern)
    found = []
    for context, theirs in zip(zoo.contexts, answers, strict=True):
        parsed = parse_context(context)
        for key in zoo.flags:
            ours = answer_of(evaluator.evaluate(key, parsed))
            if _plain(theirs[key]) != _plain(ours):
                reach = reach_of(zoo, key)
                known = [one.name for one in DIFFERENCES if sdk in one.sdks and one.plays(reach, parsed.parts)]
                found.append(Disagreement(key, context, theirs[key], ours, known))
    return found


def _plain(answer: Answer) -> Answer:
    """SDKs leave out of a reason what is nothing or false, or do not. False is not 0."""
    value, variation, reason = answer
    stated = {name: one for name, one in reason.items() if one is not None and one is not False}
    return [type(value), value], variation, stated
