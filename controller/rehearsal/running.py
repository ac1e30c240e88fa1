"""Test files in, results out: every case played and compared, with its place in the file."""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.quantities import exposure_text
from controller.domain.rehearsal import Case, RolloutTest
from controller.errors import Invalid
from controller.manifests.loader import Manifest
from controller.manifests.structure import Path
from controller.rehearsal.comparing import Mismatch, clock, compare
from controller.rehearsal.playing import Played, play
from controller.rehearsal.script import write


class Finding(Struct, frozen=True, kw_only=True):
    """One expectation that did not come true, where it was written."""

    line: int
    column: int
    expected: str
    found: str


class Moment(Struct, frozen=True, kw_only=True):
    """One line of the timeline. `at_seconds` from the start of the run; `action` is `hold` between decisions."""

    at_seconds: float
    action: str
    reason: str
    rule: str = ""


class Result(Struct, frozen=True, kw_only=True):
    """One case. `fired` are the rules that acted; `judged` how often it was judged."""

    file: str
    line: int
    column: int
    tested: str
    test: str
    passed: bool
    findings: tuple[Finding, ...] = ()
    timeline: tuple[Moment, ...] = ()
    ended: str = ""
    fired: tuple[str, ...] = ()
    judged: int = 0


def rehearse(manifests: Sequence[Manifest], named: str = "") -> Iterator[Result]:
    """Every case in these documents whose name contains `named`. The documents were linted before."""
    documents = [manifest.value for manifest in manifests]
    plans = {one.metadata.name: one for one in documents if isinstance(one, RolloutPlan)}
    policies = {one.metadata.name: one for one in documents if isinstance(one, GuardrailPolicy)}
    for manifest in manifests:
        if isinstance(manifest.value, RolloutTest):
            for index, case in enumerate(manifest.value.spec.tests):
                if named.lower() in case.name.lower():
                    yield _result(manifest, manifest.value, index, case, plans, policies)


def _result(
    manifest: Manifest,
    test: RolloutTest,
    index: int,
    case: Case,
    plans: Mapping[str, RolloutPlan],
    policies: Mapping[str, GuardrailPolicy],
) -> Result:
    place: Path = ("spec", "tests", index)
    line, column, _ = manifest.span((*place, "name"))
    tested = test.spec.plan or test.spec.policy or ""
    try:
        script = write(test.spec, case, plans, policies)
        played = play(script)
    except Invalid as error:
        finding = Finding(line=line, column=column, expected="a test that can be played", found=str(error))
        return Result(
            file=manifest.file,
            line=line,
            column=column,
            tested=tested,
            test=case.name,
            passed=False,
            findings=(finding,),
        )
    findings = tuple(_finding(manifest, place, one) for one in compare(script, played))
    return Result(
        file=manifest.file,
        line=line,
        column=column,
        tested=tested,
        test=case.name,
        passed=not findings,
        findings=findings,
        timeline=tuple(_timeline(played, worth_telling=2 * script.poll)),
        ended=_ended(played),
        fired=tuple(sorted({one.rule for one in played.happened if one.rule})),
        judged=played.ticks,
    )


def _finding(manifest: Manifest, place: Path, mismatch: Mismatch) -> Finding:
    line, column, _ = manifest.span((*place, *mismatch.place))
    return Finding(line=line, column=column, expected=mismatch.expected, found=mismatch.found)


def _timeline(played: Played, *, worth_telling: float) -> Iterator[Moment]:
    """What happened, and between it what kept the run where it was for so many seconds at least."""
    happened = [
        Moment(at_seconds=one.at, action=one.action, reason=one.text, rule=one.rule) for one in played.happened
    ]
    ends = [*(one.at for one in played.held[1:]), played.ended_at]
    held = [
        Moment(at_seconds=one.at, action="hold", reason=one.text)
        for one, end in zip(played.held, ends, strict=True)
        if one.codes and end - one.at >= worth_telling
    ]
    yield from sorted([*happened, *held], key=lambda one: one.at_seconds)


def _ended(played: Played) -> str:
    run = played.run
    return f"{run.phase} at {exposure_text(run.exposure)} after {clock(played.ended_at)}"
