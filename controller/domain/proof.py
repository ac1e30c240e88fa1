"""A run in one file, and what can be said of it from that file alone: without a server, or trust in its giver.

The audit log is one chain for everybody, and a row can only be hashed with its body. So a proof holds either the
run's own rows, each checked for itself, or (`whole`) every row from the run's first to the end of the log, checked
as one chain. Bare hashes of other people's rows would look like links and be none: nothing can be recomputed
there, so whoever changes a row writes its new hash beside the neighbour.

Nothing in here raises because of what a file says: whatever is wrong with it is a finding.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from controller.domain.audit import AuditEntry, AuditRow, verify_chain
from controller.domain.catalogue import PlanRevision, PolicyRevision
from controller.domain.decide import share_of, stage_at
from controller.domain.pins import Pin, as_written, text_fingerprint
from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.quantities import exposure_text
from controller.domain.retrial import Documents, Facts, Place, Step, Tally, retry
from controller.domain.rollout import NOT_STARTED, Phase, next_phase
from controller.errors import Conflict

Format = Literal["rampart/proof/v1"]
RunId = Annotated[str, Meta(pattern=r"^[a-z0-9._-]{1,100}#[0-9]{1,10}$")]
ENDS = ("complete", "kill", "abandon")

CheckName = Literal["chain", "head", "versions", "transitions", "exposure", "documents", "decisions", "states"]
D = TypeVar("D", RolloutPlan, GuardrailPolicy)


class ProofRow(Struct, frozen=True, kw_only=True):
    """One audit row. `body` is the text that was hashed, to the byte; hashes are in hex."""

    sequence: int
    previous: str
    hash: str
    body: str


class ProofHead(Struct, frozen=True, kw_only=True):
    """The end of the audit log: at the export, or as somebody noted it; then `hash` may be its beginning alone."""

    sequence: int
    hash: str


class ProofText(Struct, frozen=True, kw_only=True):
    """A plan or policy as it was written, without what it left to defaults."""

    name: str
    revision: int
    document: dict[str, Any]


class Proof(Struct, frozen=True, kw_only=True):
    """`whole`: `rows` are all rows from the run's first to `head`; otherwise those of the run alone."""

    format: Format = "rampart/proof/v1"
    run: RunId
    exported_at: datetime
    server_version: str
    whole: bool
    head: ProofHead
    plans: list[ProofText]
    policies: list[ProofText]
    rows: list[ProofRow]


class Finding(Struct, frozen=True, kw_only=True):
    """`row` is the sequence of the audit row that is meant; None when it is none in particular."""

    row: int | None
    text: str


class CheckResult(Struct, frozen=True, kw_only=True):
    """`checked` counts the rows, versions, texts or decisions that were looked at."""

    name: CheckName
    checked: int
    findings: list[Finding]


class Ending(Struct, frozen=True, kw_only=True):
    row: int
    action: str
    at: datetime
    actor: str
    cause: str
    reason: str


class ProofReport(Struct, frozen=True, kw_only=True):
    """`good`: nothing was found. `limits` say in words what this file does not allow to check.

    `phase` is the last one that the rows tell; `exposures` are those the run went through, in thousandths of a
    percent. `version` counts the run's rows. `ending` None: no row ends the run.
    """

    run: str
    good: bool
    whole: bool
    rows: int
    version: int
    phase: Phase | None
    exposures: list[int]
    ending: Ending | None
    checks: list[CheckResult]
    limits: list[str]


def verify(proof: Proof, noted: ProofHead | None = None) -> ProofReport:
    """Every check that the file allows; `noted` is a head from outside, as `rampart audit verify` prints it."""
    steps, unreadable = _steps(proof)
    texts = _Texts(proof)
    retrial = retry(proof.run, steps, texts.documents)
    checks = [_check("chain", len(proof.rows), [*_chain(proof), *unreadable])]
    if noted:
        checks.append(_check("head", 1, _against_noted(proof, noted)))
    checks += [
        _check("versions", len(steps), _versions(proof.run, steps)),
        _check("transitions", max(len(steps) - 1, 0), _transitions(steps)),
        _check("exposure", len(steps), _exposure(steps, texts.documents)),
        _check("documents", texts.count, texts.findings(steps)),
        _tallied("decisions", retrial.decisions),
        _tallied("states", retrial.states),
    ]
    places = [place for place in _places(steps) if place is not None]
    return ProofReport(
        run=proof.run,
        good=not any(check.findings for check in checks),
        whole=proof.whole,
        rows=len(proof.rows),
        version=len(steps),
        phase=places[-1].phase if places else None,
        exposures=_path(places),
        ending=_ending(steps),
        checks=checks,
        limits=[*retrial.elsewhere, *_limits(proof, steps, noted)],
    )


def _check(name: CheckName, checked: int, findings: Iterable[Finding]) -> CheckResult:
    return CheckResult(name=name, checked=checked, findings=list(findings))


def _tallied(name: CheckName, tally: Tally) -> CheckResult:
    return _check(name, tally.checked, [Finding(row=row, text=text) for row, text in tally.findings])


def _steps(proof: Proof) -> tuple[list[Step], list[Finding]]:
    """The rows of the run, read; and what is wrong with those that cannot be, or do not belong here."""
    steps: list[Step] = []
    findings: list[Finding] = []
    for row in proof.rows:
        text = None
        try:
            entry = msgspec.json.decode(row.body, type=AuditEntry)
            if entry.run == proof.run:
                facts = msgspec.convert(entry.details, Facts)
                steps.append(Step(sequence=row.sequence, entry=entry, facts=facts))
            elif not proof.whole:
                text = f"row {row.sequence} is not one of {proof.run}"
        except msgspec.DecodeError as error:
            text = f"row {row.sequence} is no audit entry that this version can read: {error}"
        if text:
            findings.append(Finding(row=row.sequence, text=text))
    return steps, findings


# — the chain —


def _chain(proof: Proof) -> Iterator[Finding]:
    before: ProofRow | None = None
    for row in proof.rows:
        if text := _broken_link(proof.whole, before, row):
            yield Finding(row=row.sequence, text=text)
        before = row
    if before is not None and (text := _broken_end(proof, before)):
        yield Finding(row=before.sequence, text=text)


def _broken_link(whole: bool, before: ProofRow | None, row: ProofRow) -> str | None:
    if before and row.sequence <= before.sequence:
        return f"row {row.sequence} stands after row {before.sequence}: the rows are not in their order"
    if whole and before and row.sequence != before.sequence + 1:
        return f"{_rows(before.sequence + 1, row.sequence - 1)} missing: row {row.sequence} follows"
    try:
        link = AuditRow(
            sequence=row.sequence,
            previous=bytes.fromhex(row.previous),
            hash=bytes.fromhex(row.hash),
            body=row.body,
        )
        adjacent = before is not None and row.sequence == before.sequence + 1
        previous = bytes.fromhex(before.hash) if before and adjacent else link.previous
        return verify_chain([link], after=(row.sequence - 1, previous)).problem
    except (ValueError, OverflowError):
        return f"row {row.sequence} has a number or a hash that no audit row can have"


def _broken_end(proof: Proof, last: ProofRow) -> str | None:
    """Against the file's own word for where the log ended."""
    if last.sequence == proof.head.sequence and last.hash != proof.head.hash:
        return f"row {last.sequence} is not the end of the log that the file names"
    if last.sequence > proof.head.sequence:
        return f"row {last.sequence} lies behind the end of the log that the file names, row {proof.head.sequence}"
    if proof.whole and last.sequence < proof.head.sequence:
        return f"{_rows(last.sequence + 1, proof.head.sequence)} missing at the end that the file itself names"
    return None


def _rows(first: int, last: int) -> str:
    return f"row {first} is" if first == last else f"rows {first} to {last} are"


def _against_noted(proof: Proof, noted: ProofHead) -> Iterator[Finding]:
    """A noted row must be here with its body: what cannot be compared is not called good."""
    row = next((row for row in proof.rows if row.sequence == noted.sequence), None)
    if row is not None:
        if not row.hash.startswith(noted.hash):
            text = (
                f"row {noted.sequence} is not what it was when its head was noted: something up to it was changed"
            )
            yield Finding(row=noted.sequence, text=text)
        return
    if not proof.rows or noted.sequence < proof.rows[0].sequence:
        why = "it was noted before the run began, and says nothing about it"
    elif noted.sequence > proof.head.sequence:
        why = f"the file says that the log ended at row {proof.head.sequence}: it is older, or was cut off"
    elif proof.whole:
        why = "it is missing"
    else:
        why = "it is another run's, and only an export with --all holds those"
    yield Finding(row=None, text=f"the head of row {noted.sequence} cannot be compared: {why}")


# — the order of a run's rows —


def _versions(run: str, steps: Sequence[Step]) -> Iterator[Finding]:
    if not steps:
        yield Finding(row=None, text=f"the file holds no row of {run}")
        return
    last = 0
    for step in steps:
        version = step.entry.run_version or 0
        text = None
        if version <= 0:
            text = f"row {step.sequence} names no version of the run"
        elif version <= last:
            text = (
                f"row {step.sequence} has version {version} of the run, and a row before it has it or a later one"
            )
        elif version > last + 1:
            gone = f"version {last + 1}" if version == last + 2 else f"versions {last + 1} to {version - 1}"
            text = (
                f"before row {step.sequence} {gone} of the run missing: taken out, or passed off as another run's"
            )
        if text:
            yield Finding(row=step.sequence, text=text)
        last = max(last, version)
    first = steps[0]
    if first.entry.run_version == 1 and (first.action, first.automatic) != ("authorise", False):
        text = f"row {first.sequence} begins the run, and is no person's authorisation"
        yield Finding(row=first.sequence, text=text)


def _places(steps: Sequence[Step]) -> list[Place | None]:
    """Where the run was after each row, as far as the rows say."""
    places: list[Place | None] = []
    place: Place | None = None
    for step in steps:
        if step.entry.action == "authorise":
            place = Place(phase="pending", stage=NOT_STARTED, exposure=0)
        elif step.facts.to is not None:
            place = step.facts.to
        elif step.action == "kill" and place is not None:
            place = Place(phase="killed", stage=place.stage, exposure=0)
        elif step.action != "reset":
            place = None
        places.append(place)
    return places


def _path(places: Sequence[Place]) -> list[int]:
    exposures: list[int] = []
    for place in places:
        if exposures[-1:] != [place.exposure]:
            exposures.append(place.exposure)
    return exposures


def _transitions(steps: Sequence[Step]) -> Iterator[Finding]:
    places = _places(steps)
    for step, before, after in zip(steps[1:], places, places[1:], strict=False):
        if text := _wrong_transition(step, before, after):
            yield Finding(row=step.sequence, text=f"row {step.sequence} {text}")


def _wrong_transition(step: Step, before: Place | None, after: Place | None) -> str | None:
    if before is None or after is None:
        return "does not say where the run was before it, or after it"
    begins = step.facts.origin
    if begins is not None and begins != before:
        return f"begins at {_place(begins)}; the row before it ends at {_place(before)}"
    try:
        phase = next_phase(before.phase, step.action)
    except Conflict as error:
        return f"is not allowed: {error}"
    if phase != after.phase:
        return f"makes the run {after.phase}; {step.action} makes it {phase}"
    return None


def _place(place: Place) -> str:
    return f"{place.phase}, stage {place.stage}, {exposure_text(place.exposure)}"


def _exposure(steps: Sequence[Step], documents: Documents) -> Iterator[Finding]:
    places = _places(steps)
    killed_in: int | None = None
    for step, before, after in zip(steps, [None, *places], places, strict=False):
        if after is None:
            continue  # told by the check of transitions
        text = _wrong_exposure(step, before, after, documents)
        if killed_in is not None and after.exposure > 0:
            text = f"although row {killed_in} had killed the run"
        if text:
            text = f"row {step.sequence} leaves {exposure_text(after.exposure)}, {text}"
            yield Finding(row=step.sequence, text=text)
        if step.action == "kill":
            killed_in = step.sequence


def _wrong_exposure(step: Step, before: Place | None, after: Place, documents: Documents) -> str | None:
    plan = documents.plans.get(step.plan_after)
    reached = before.exposure if before else 0
    taken_over = step.action == "take_over" and before is not None and before.phase == "pending"
    if taken_over and step.automatic:
        return "and only a person takes a flag over"
    if not taken_over and step.action not in ("start", "advance") and after.exposure > reached:
        return f"{exposure_text(after.exposure - reached)} more than before, and {step.action} never raises"
    if after.exposure <= 0 and step.action not in ("start", "advance"):
        return None if after.exposure == 0 else "which is no exposure"
    if plan is None:
        return "and the plan that would allow it is not in the file"
    if not NOT_STARTED <= after.stage < len(plan.spec.stages):
        return f"in stage {after.stage}, which the plan does not have"
    allowed = share_of(plan, after.stage)
    if after.exposure > allowed:
        return f"and its stage allows {exposure_text(allowed)}"
    following = 0 if step.action == "start" else stage_at(plan, reached) + 1
    if step.action in ("start", "advance") and (after.stage, after.exposure) != (following, allowed):
        return f"which is not the stage after {exposure_text(reached)}"
    return None


# — what the run was pinned to —


class Wanted(Struct, frozen=True, kw_only=True):
    """The revisions that the rows of a run name, as (name, revision)."""

    plans: list[tuple[str, int]]
    policies: list[tuple[str, int]]


def wanted(entries: Iterable[AuditEntry]) -> Wanted:
    """What a proof of a run holds beside these rows of it. Raises msgspec.ValidationError."""
    pinned = [pins for entry in entries if (pins := msgspec.convert(entry.details, Facts).pinned) is not None]
    plans = {(pins.plan.name, pins.plan.revision) for pins in pinned}
    policies = {(pin.name, pin.revision) for pins in pinned for pin in pins.policies}
    return Wanted(plans=sorted(plans), policies=sorted(policies))


def text_of(found: PlanRevision | PolicyRevision) -> ProofText:
    document = found.plan if isinstance(found, PlanRevision) else found.policy
    return ProofText(name=document.metadata.name, revision=found.revision, document=as_written(document))


class _Texts:
    """The plans and policies of a proof: read, and held against the fingerprints that the rows name."""

    def __init__(self, proof: Proof) -> None:
        self.count = len(proof.plans) + len(proof.policies)
        self._unreadable: list[Finding] = []
        self._texts = {
            **{("plan", text.name, text.revision): text for text in proof.plans},
            **{("policy", text.name, text.revision): text for text in proof.policies},
        }
        plan = proof.run.rpartition("#")[0]
        plans = ((text.revision, self._read(text, RolloutPlan)) for text in proof.plans if text.name == plan)
        policies = ((text.name, text.revision, self._read(text, GuardrailPolicy)) for text in proof.policies)
        self.documents = Documents(
            plans={revision: document for revision, document in plans if document},
            policies={(name, revision): document for name, revision, document in policies if document},
        )

    def _read(self, text: ProofText, kind: type[D]) -> D | None:
        try:
            return msgspec.convert(text.document, kind)
        except msgspec.ValidationError as error:
            told = f"{text.name} revision {text.revision} is no {kind.__name__} that can be read: {error}"
            self._unreadable.append(Finding(row=None, text=told))
            return None

    def findings(self, steps: Sequence[Step]) -> Iterator[Finding]:
        yield from self._unreadable
        if len(self._texts) < self.count:
            yield Finding(row=None, text="a plan or policy is in the file twice under one revision")
        named: set[tuple[str, str, int]] = set()
        for step in steps:
            for text in self._of_row(step, named):
                yield Finding(row=step.sequence, text=f"row {step.sequence} {text}")
        for word, name, revision in sorted(self._texts.keys() - named):
            yield Finding(row=None, text=f"{word} {name} revision {revision} is in the file, and no row names it")
        yield from _unfollowed(steps)

    def _of_row(self, step: Step, named: set[tuple[str, str, int]]) -> Iterator[str]:
        pinned = step.facts.pinned
        if pinned is None:
            if step.entry.action in ("authorise", "adopt"):
                yield "does not say by fingerprint which plan and policies the run was to follow"
            return
        for word, pin in [("plan", pinned.plan), *(("policy", pin) for pin in pinned.policies)]:
            named.add((word, pin.name, pin.revision))
            if text := self._not_as_pinned(word, pin):
                yield text

    def _not_as_pinned(self, word: str, pin: Pin) -> str | None:
        text = self._texts.get((word, pin.name, pin.revision))
        if text is None:
            return f"names {word} {pin.name} revision {pin.revision}, which is not in the file"
        if text_fingerprint(text.document) != pin.sha256:
            return f"followed another text of {word} {pin.name} revision {pin.revision} than the file holds"
        return None


def _unfollowed(steps: Sequence[Step]) -> Iterator[Finding]:
    """Each row follows the revisions that were named last."""
    revisions: tuple[int, Mapping[str, int]] | None = None
    for step in steps:
        facts = step.facts
        followed = (facts.plan_revision, facts.policy_revisions)
        if facts.plan_revision is not None and revisions is not None and followed != revisions:
            text = f"row {step.sequence} follows other revisions than the run was moved to before"
            yield Finding(row=step.sequence, text=text)
        if facts.pinned:
            revisions = facts.pinned.plan.revision, {pin.name: pin.revision for pin in facts.pinned.policies}


# — what is left —


def _ending(steps: Sequence[Step]) -> Ending | None:
    step = next((step for step in reversed(steps) if step.action in ENDS), None)
    if step is None:
        return None
    entry = step.entry
    return Ending(
        row=step.sequence,
        action=entry.action,
        at=entry.at,
        actor=entry.actor,
        cause=entry.cause,
        reason=entry.reason,
    )


def _limits(proof: Proof, steps: Sequence[Step], noted: ProofHead | None) -> Iterator[str]:
    others = sum(later.sequence - row.sequence - 1 for row, later in pairwise(proof.rows))
    if others > 0 and not proof.whole:
        lie = "row of another run or subject lies" if others == 1 else "rows of other runs and subjects lie"
        yield (
            f"{others} {lie} between these, outside of the file: each row was checked for itself and against its "
            "neighbours here, not as one chain. An export with --all has them."
        )
    if noted is None:
        yield (
            "Nothing from outside was compared. Whoever can rewrite the whole file can make one that fits itself; "
            "a head that was noted elsewhere finds that: --head ROW:HASH."
        )
    elif not list(_against_noted(proof, noted)):
        yield from _unvouched(proof, noted)
    if _ending(steps) is None:
        yield "The run had not ended when it was exported. A file whose last rows were cut off looks the same."


def _unvouched(proof: Proof, noted: ProofHead) -> Iterator[str]:
    first = _bound_from(proof, noted.sequence)
    if first > proof.rows[0].sequence or noted.sequence < proof.rows[-1].sequence:
        rows = f"row {noted.sequence}" if first == noted.sequence else f"the rows {first} to {noted.sequence}"
        yield f"The noted head vouches for {rows}, and for none before or after."


def _bound_from(proof: Proof, noted: int) -> int:
    """The first of the neighbouring rows that lead up to the noted one."""
    sequences = {row.sequence for row in proof.rows}
    while noted - 1 in sequences:
        noted -= 1
    return noted
