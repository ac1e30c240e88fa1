"""The order in which a flag is asked: off, prerequisites, targets, rules, and what everybody else gets."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from controller.domain.evaluation import model
from controller.domain.evaluation.contexts import Context, NoContext, parse_context
from controller.domain.evaluation.operators import Patterns
from controller.domain.evaluation.readied import (
    Division,
    MalformedFlag,
    ReadiedBody,
    ReadiedClause,
    ReadiedSegment,
    Served,
    read_as,
    ready_body,
    ready_segment,
)

Data = Mapping[str, Any]
Reason = dict[str, Any]

MAX_NESTING = 64
"""How deep prerequisites may refer to prerequisites, and segments to segments."""

FLAG_NOT_FOUND = "FLAG_NOT_FOUND"
MALFORMED_FLAG = "MALFORMED_FLAG"
USER_NOT_SPECIFIED = "USER_NOT_SPECIFIED"


class Evaluation(Struct, frozen=True, kw_only=True):
    """What a flag serves. `variation` is its index, and None when the caller's own default is to be used.

    `reason` is LaunchDarkly's EvaluationReason as JSON. `track_events` and `track_reason` say whether SDKs are to
    send each evaluation, and with its reason. `prerequisites` are the keys of those asked directly.
    """

    value: Any = None
    variation: int | None = None
    reason: Reason
    version: int = 0
    track_events: bool = False
    track_reason: bool = False
    prerequisites: tuple[str, ...] = ()

    @property
    def in_experiment(self) -> bool:
        return bool(self.reason.get("inExperiment"))


class ReadiedFlag:
    def __init__(self, key: str, data: Data, patterns: Patterns) -> None:
        self.key = key
        self.face = read_as(data, model.FlagFace)
        self._data = data
        self._patterns = patterns
        self._body: ReadiedBody | None = None

    @property
    def version(self) -> int:
        return self.face.version or 0

    @property
    def body(self) -> ReadiedBody:
        """Raises MalformedFlag."""
        if self._body is None:
            self._body = ready_body(self.key, self._data, self._patterns)
        return self._body

    def variation(self, index: int, reason: Reason) -> Evaluation:
        variations = self.face.variations or []
        if not 0 <= index < len(variations):
            return _error(MALFORMED_FLAG, self.version)
        return self._answer(variations[index], index, reason)

    def off(self, reason: Reason) -> Evaluation:
        """Without an off-variation every caller's own default is served."""
        index = self.face.off_variation
        return self._answer(None, None, reason) if index is None else self.variation(index, reason)

    def _answer(self, value: Any, variation: int | None, reason: Reason) -> Evaluation:
        return Evaluation(
            value=value,
            variation=variation,
            reason=reason,
            version=self.version,
            track_events=bool(self.face.track_events),
        )


def evaluate(
    key: str,
    context: Data | Context,
    flags: Mapping[str, Data],
    segments: Mapping[str, Data] = {},
    *,
    patterns: Patterns,
) -> Evaluation:
    """Asks once, of flags and segments as SDKs are sent them, by key. Never raises for anything in them.

    Whoever asks the same flags again keeps an Evaluator, which reads them only once.
    """
    return Evaluator(flags, segments, patterns=patterns).evaluate(key, context)


class Evaluator:
    """The flags and segments of an environment as they are now. Each is read when it is first asked for.

    Nothing in a flag or a segment may be changed from here on; a flag may be put in another's place, if that is
    told by `forget`.
    """

    def __init__(
        self, flags: Mapping[str, Data], segments: Mapping[str, Data] = {}, *, patterns: Patterns
    ) -> None:
        self._flags = flags
        self._segments = segments
        self._patterns = patterns
        self._readied: dict[str, ReadiedFlag | None] = {}
        self._readied_segments: dict[str, ReadiedSegment | None] = {}

    def evaluate(self, key: str, context: Data | Context) -> Evaluation:
        try:
            asked = context if isinstance(context, Context) else parse_context(context)
        except NoContext:
            return _error(USER_NOT_SPECIFIED)
        try:
            return _Question(self, asked).ask(key)
        except (MalformedFlag, RecursionError):
            return _error(MALFORMED_FLAG, self._version_of(key))

    def forget(self, key: str) -> None:
        """The flag is another one now, or gone."""
        self._readied.pop(key, None)

    def flag(self, key: str) -> ReadiedFlag | None:
        """None when there is no such flag. Raises MalformedFlag."""
        if key not in self._readied:
            data = self._flags.get(key)
            readied = None if data is None else ReadiedFlag(key, data, self._patterns)
            self._readied[key] = None if readied is None or readied.face.deleted else readied
        return self._readied[key]

    def segment(self, key: str) -> ReadiedSegment | None:
        if key not in self._readied_segments:
            data = self._segments.get(key)
            self._readied_segments[key] = None if data is None else ready_segment(key, data, self._patterns)
        return self._readied_segments[key]

    def _version_of(self, key: str) -> int:
        version = self._flags[key].get("version") if isinstance(self._flags[key], Mapping) else None
        return version if isinstance(version, int) and not isinstance(version, bool) else 0


class _Question:
    """One context asking one flag, and remembering what was found out on the way."""

    def __init__(self, evaluator: Evaluator, context: Context) -> None:
        self._evaluator = evaluator
        self._context = context
        self._asking: list[str] = []
        self._answers: dict[str, Evaluation] = {}
        self._asking_segments: list[str] = []
        self._in_segment: dict[str, bool] = {}
        self._big_segments = False

    def ask(self, key: str) -> Evaluation:
        flag = self._evaluator.flag(key)
        if flag is None:
            return _error(FLAG_NOT_FOUND)
        answer = self._answer(flag)
        if self._big_segments:
            return replace(answer, reason={**answer.reason, "bigSegmentsStatus": "NOT_CONFIGURED"})
        return answer

    def _answer(self, flag: ReadiedFlag) -> Evaluation:
        if not flag.face.on:
            return flag.off({"kind": "OFF"})
        if not flag.body.prerequisites:
            return self._served_by(flag)
        asked, failed = self._prerequisites(flag)
        answer = self._served_by(flag) if failed is None else flag.off(failed)
        return replace(answer, prerequisites=asked)

    def _prerequisites(self, flag: ReadiedFlag) -> tuple[tuple[str, ...], Reason | None]:
        """The keys of those that were asked, up to the first that fails, and the reason if one failed."""
        asked = []
        for wanted in flag.body.prerequisites:
            other = self._prerequisite(wanted.key, flag.key)
            if other is not None:
                asked.append(wanted.key)
            # A flag that is off meets nobody's wish, not even one for its off-variation.
            if other is None or other.reason["kind"] == "OFF" or other.variation != wanted.variation:
                return tuple(asked), {"kind": "PREREQUISITE_FAILED", "prerequisiteKey": wanted.key}
        return tuple(asked), None

    def _prerequisite(self, key: str, asking: str) -> Evaluation | None:
        """What another flag serves, or None when there is no such flag."""
        if key == asking or key in self._asking:
            raise MalformedFlag(f'the prerequisite "{key}" leads back to itself')
        flag = self._evaluator.flag(key)
        if flag is None or key in self._answers:
            return self._answers.get(key)
        _enter(asking, self._asking)
        self._answers[key] = self._answer(flag)
        self._asking.pop()
        return self._answers[key]

    def _served_by(self, flag: ReadiedFlag) -> Evaluation:
        body = flag.body
        for target in body.targets:
            if target.list.has(self._context):
                return flag.variation(target.variation, {"kind": "TARGET_MATCH"})
        for index, rule in enumerate(body.rules):
            if self._all_match(rule.clauses):
                reason: Reason = {"kind": "RULE_MATCH", "ruleIndex": index}
                if rule.id is not None:
                    reason["ruleId"] = rule.id
                return self._serve(flag, rule.served, reason, tracked=rule.track_events)
        return self._serve(flag, body.fallthrough, {"kind": "FALLTHROUGH"}, tracked=body.track_fallthrough)

    def _serve(self, flag: ReadiedFlag, served: Served, reason: Reason, *, tracked: bool) -> Evaluation:
        in_experiment = False
        if isinstance(served, Division):
            served, in_experiment = served.serve(self._context)
        if served is None:
            return _error(MALFORMED_FLAG, flag.version)
        answer = flag.variation(served, {**reason, "inExperiment": True} if in_experiment else reason)
        tracked = (tracked or in_experiment) and answer.variation is not None
        return replace(answer, track_events=True, track_reason=True) if tracked else answer

    def _all_match(self, clauses: tuple[ReadiedClause, ...]) -> bool:
        return all(
            clause.matches(self._context) if clause.segments is None else self._in_any(clause)
            for clause in clauses
        )

    def _in_any(self, clause: ReadiedClause) -> bool:
        return any(map(self._is_in, clause.segments or ())) is not clause.negate

    def _is_in(self, key: str) -> bool:
        if key in self._asking_segments:
            raise MalformedFlag(f'the segment "{key}" leads back to itself')
        if key not in self._in_segment:
            segment = self._evaluator.segment(key)
            _enter(key, self._asking_segments)
            self._in_segment[key] = segment is not None and self._belongs(segment)
            self._asking_segments.pop()
        return self._in_segment[key]

    def _belongs(self, segment: ReadiedSegment) -> bool:
        if segment.unbounded:
            # Its members are kept in a store of LaunchDarkly's that nobody can ask from here.
            if segment.generation is not None and segment.unbounded_kind not in self._context.parts:
                return False
            self._big_segments = True
            if segment.generation is None:
                return False
        elif any(keys.has(self._context) for keys in segment.included):
            return True
        elif any(keys.has(self._context) for keys in segment.excluded):
            return False
        return any(self._all_match(rule.clauses) and rule.takes(self._context) for rule in segment.rules)


def _enter(key: str, asking: list[str]) -> None:
    if len(asking) >= MAX_NESTING:
        raise MalformedFlag(f'"{key}" is nested deeper than {MAX_NESTING}')
    asking.append(key)


def _error(kind: str, version: int = 0) -> Evaluation:
    return Evaluation(reason={"kind": "ERROR", "errorKind": kind}, version=version)
