"""A proof is good as it was exported, and not after anything in it was changed."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.audit import link_hash
from controller.domain.pins import text_fingerprint
from controller.domain.proof import Proof, ProofHead, ProofRow, verify
from controller.domain.retrial import Documents, retry
from tests.support.engine import DANA, KIM, World
from tests.support.proofs import edited, entry_of, findings, proof_of, rehashed
from tests.support.rollouts import make_plan, make_policy

STAGES = [
    {"name": "canary", "exposure": "1%", "bake": "5m"},
    {"name": "half", "exposure": "50%", "bake": "5m", "approval": {"from": ["managers"]}},
    {"name": "everyone", "exposure": "100%", "bake": "5m"},
]


async def killed_in_the_middle(world: World) -> None:
    """Approved by kim, watched by others who write to the same log, and killed by a rule."""
    await world.started(make_plan(stages=STAGES))
    await someone_else_writes(world, "theirs")
    while (await world.run()).approval is None:
        await world.run_for(15.0)
    await world.commands.approve("checkout-v2", KIM, "")
    await world.until(50_000)
    await someone_else_writes(world, "ours")
    world.source.sides["on"] = {"p95": 0.35}
    await world.until("killed")
    await someone_else_writes(world, "afterwards")


async def someone_else_writes(world: World, name: str) -> None:
    policy = make_policy()
    named = replace(policy, metadata=replace(policy.metadata, name=name))
    await world.store.save_policy(named, world.entry("save_policy"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Proof, Proof]:
    """The run alone, and whole."""

    async def make() -> tuple[Proof, Proof]:
        world = World(tmp_path_factory.mktemp("world"))
        await killed_in_the_middle(world)
        run = (await world.run()).id
        return await proof_of(world.store, run), await proof_of(world.store, run, whole=True)

    return asyncio.run(make())


@pytest.fixture
def proof(exported: tuple[Proof, Proof]) -> Proof:
    return exported[0]


@pytest.fixture
def whole(exported: tuple[Proof, Proof]) -> Proof:
    return exported[1]


def at(proof: Proof, action: str, exposure: int | None = None) -> int:
    """Where in the file the first row with that action is; of those that lead to an exposure, if given."""
    for place, row in enumerate(proof.rows):
        entry = entry_of(row)
        if entry.action == action and exposure in (None, entry.details.get("to", {}).get("exposure")):
            return place
    raise AssertionError(f"no row says {action}")


def with_row(proof: Proof, place: int, change: Callable[[dict[str, Any]], None]) -> list[ProofRow]:
    return [*proof.rows[:place], edited(proof.rows[place], change), *proof.rows[place + 1 :]]


def forged(proof: Proof, place: int, change: Callable[[dict[str, Any]], None]) -> Proof:
    """One row with another body, and all hashes recomputed."""
    return rehashed(proof, with_row(proof, place, change))


def head_of(proof: Proof, place: int = -1) -> ProofHead:
    return ProofHead(sequence=proof.rows[place].sequence, hash=proof.rows[place].hash)


def without(proof: Proof, place: int) -> Proof:
    return replace(proof, rows=[*proof.rows[:place], *proof.rows[place + 1 :]])


# — as exported —


def test_an_untouched_proof_is_good_and_tells_how_the_run_went(proof: Proof, whole: Proof) -> None:
    for one in (proof, whole):
        report = verify(msgspec.json.decode(msgspec.json.encode(one), type=Proof))
        assert findings(report) == {}
        assert report.good
        assert (report.phase, report.exposures) == ("killed", [0, 1_000, 50_000, 0])
        assert report.ending is not None
        assert (report.ending.action, report.ending.actor, report.ending.cause) == ("kill", "rampart", "policy")
        assert report.ending.reason.startswith("killed by web/p95-3x: latency_p95 350 ms")


def test_each_decision_without_a_person_is_decided_again(proof: Proof) -> None:
    automatic = [row for row in proof.rows if entry_of(row).actor == "rampart"]
    checked = {check.name: check.checked for check in verify(proof).checks}
    assert checked["decisions"] == checked["states"] == len(automatic) >= 6
    assert checked["versions"] == checked["chain"] == len(proof.rows)


def test_a_report_says_how_much_was_looked_at(proof: Proof, whole: Proof) -> None:
    for one in (proof, whole):
        report = verify(one, head_of(one))
        steps = len(proof.rows)
        assert (report.run, report.whole, report.rows, report.version) == (
            one.run, one.whole, len(one.rows), steps,
        )  # fmt: skip
        checked = {check.name: check.checked for check in report.checks}
        assert checked["head"] == 1
        assert checked["transitions"] == steps - 1
        assert checked["exposure"] == steps
        assert checked["documents"] >= 2
        assert report.ending is not None
        assert report.ending.at == entry_of(proof.rows[-1]).at


def test_what_a_proof_leaves_open_is_said_in_full(proof: Proof) -> None:
    assert verify(proof).limits[-2:] == [
        "2 rows of other runs and subjects lie between these, outside of the file: each row was checked for "
        "itself and against its neighbours here, not as one chain. An export with --all has them.",
        "Nothing from outside was compared. Whoever can rewrite the whole file can make one that fits itself; "
        "a head that was noted elsewhere finds that: --head ROW:HASH.",
    ]
    cut = rehashed(proof, proof.rows[:2])
    assert verify(cut).limits[-1] == (
        "The run had not ended when it was exported. A file whose last rows were cut off looks the same."
    )
    gap = next(n for n, (row, later) in enumerate(pairwise(proof.rows)) if later.sequence > row.sequence + 1)
    alone = replace(proof, rows=proof.rows[gap : gap + 2])
    between = alone.rows[1].sequence - alone.rows[0].sequence - 1
    lie = "row of another run or subject lies" if between == 1 else "rows of other runs and subjects lie"
    assert any(limit.startswith(f"{between} {lie} between these") for limit in verify(alone).limits)


def test_versions_that_are_missing_or_there_twice_are_named(proof: Proof) -> None:
    def told(rows: list[ProofRow]) -> list[tuple[int | None, str]]:
        (check,) = [one for one in verify(rehashed(proof, rows)).checks if one.name == "versions"]
        return [(finding.row, finding.text) for finding in check.findings]

    rows, suffix = proof.rows, "of the run missing: taken out, or passed off as another run's"
    after = rows[3].sequence
    assert told([*rows[:2], *rows[3:]]) == [(after, f"before row {after} version 3 {suffix}")]
    after = rows[4].sequence
    assert told([*rows[:2], *rows[4:]]) == [(after, f"before row {after} versions 3 to 4 {suffix}")]
    twice = rows[2].sequence

    def again(entry: dict[str, Any]) -> None:
        entry["run_version"] = 2

    text = f"row {twice} has version 2 of the run, and a row before it has it or a later one"
    assert (twice, text) in told(with_row(proof, 2, again))

    def unnamed(entry: dict[str, Any]) -> None:
        entry["run_version"] = None

    assert (twice, f"row {twice} names no version of the run") in told(with_row(proof, 2, unnamed))


def test_a_proof_of_one_run_holds_nothing_of_others_and_says_what_that_leaves_open(
    proof: Proof, whole: Proof
) -> None:
    assert "theirs" not in msgspec.json.encode(proof).decode()
    assert any("2 rows of other runs" in limit for limit in verify(proof).limits)
    assert not any("other runs" in limit for limit in verify(whole).limits)
    assert whole.rows[-1].sequence == whole.head.sequence > proof.rows[-1].sequence


# — changed by hand —


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_changed_character_in_any_row_is_found(exported: tuple[Proof, Proof], data: st.DataObject) -> None:
    proof = exported[data.draw(st.integers(0, 1))]
    place = data.draw(st.integers(0, len(proof.rows) - 1))
    row = proof.rows[place]
    position = data.draw(st.integers(0, len(row.body) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != row.body[position]))
    body = row.body[:position] + other + row.body[position + 1 :]
    report = verify(replace(proof, rows=[*proof.rows[:place], replace(row, body=body), *proof.rows[place + 1 :]]))
    assert f"row {row.sequence} was changed: its hash does not fit its content" in findings(report)["chain"]


def test_a_row_that_was_taken_out_is_missing_by_its_version(proof: Proof, whole: Proof) -> None:
    for place in range(len(proof.rows) - 1):
        assert findings(verify(without(proof, place)))["versions"], place
    for place in range(1, len(whole.rows)):
        assert findings(verify(without(whole, place)))["chain"], place


def test_missing_rows_are_named(whole: Proof) -> None:
    one, two = without(whole, 3), without(without(whole, 3), 3)
    first, last = whole.rows[3].sequence, whole.rows[4].sequence
    assert findings(verify(one))["chain"][0].endswith(f"row {first} is missing: row {last} follows")
    assert findings(verify(two))["chain"][0].endswith(
        f"rows {first} to {last} are missing: row {last + 1} follows"
    )


def test_rows_that_changed_places_are_found(proof: Proof) -> None:
    for place in range(len(proof.rows) - 1):
        one, other = proof.rows[place : place + 2]
        swapped = replace(proof, rows=[*proof.rows[:place], other, one, *proof.rows[place + 2 :]])
        assert "not in their order" in findings(verify(swapped))["chain"][0]
        bodies = [replace(one, body=other.body), replace(other, body=one.body)]
        renumbered = rehashed(proof, [*proof.rows[:place], *bodies, *proof.rows[place + 2 :]])
        assert findings(verify(renumbered))["versions"]


def test_a_row_of_another_run_does_not_belong_in_a_proof_of_one(proof: Proof, whole: Proof) -> None:
    stranger = next(row for row in whole.rows if entry_of(row).run is None)
    rows = sorted([*proof.rows, stranger], key=lambda row: row.sequence)
    assert findings(verify(replace(proof, rows=rows)))["chain"] == [
        f"row {stranger.sequence} is not one of {proof.run}"
    ]


@pytest.mark.parametrize("field", ["previous", "hash"])
@pytest.mark.parametrize("value", ["00" * 32, "zz", ""])
def test_a_changed_hash_is_found(whole: Proof, field: str, value: str) -> None:
    rows = [*whole.rows[:2], replace(whole.rows[2], **{field: value}), *whole.rows[3:]]
    assert findings(verify(replace(whole, rows=rows)))["chain"]


def test_a_row_whose_own_hash_was_recomputed_is_not_continued_by_the_next(whole: Proof) -> None:
    def other(entry: dict[str, Any]) -> None:
        entry["id"] = "another"

    row = edited(whole.rows[2], other)
    digest = link_hash(bytes.fromhex(row.previous), row.sequence, row.body).hex()
    rows = [*whole.rows[:2], replace(row, hash=digest), *whole.rows[3:]]
    expected = f"row {row.sequence + 1} does not continue row {row.sequence}: its previous hash differs"
    assert findings(verify(replace(whole, rows=rows))) == {"chain": [expected]}


# — changed by somebody who recomputes all hashes —


def test_the_words_of_a_decision_must_be_those_it_leads_to(proof: Proof) -> None:
    def excuse(entry: dict[str, Any]) -> None:
        entry["reason"] = "killed by web/errors-jump: the errors jumped"

    (told,) = findings(verify(forged(proof, at(proof, "kill"), excuse)))["decisions"]
    assert "the errors jumped" in told
    assert "latency_p95 350 ms" in told


def test_the_rule_that_is_named_must_be_the_one_that_acted(proof: Proof) -> None:
    def another(entry: dict[str, Any]) -> None:
        entry["details"]["rule"] = "web/errors-jump"

    (told,) = findings(verify(forged(proof, at(proof, "kill"), another)))["decisions"]
    assert "the row names the rule web/errors-jump; decided again it is web/p95-3x" in told


def test_a_measured_value_that_was_changed_leads_to_another_decision(proof: Proof) -> None:
    def healthier(entry: dict[str, Any]) -> None:
        for question, reading in entry["details"]["inputs"]["readings"]:
            if question["type"] == "quantile":
                reading["value"] = 0.1

    (told,) = findings(verify(forged(proof, at(proof, "kill"), healthier)))["decisions"]
    assert "its record leads to another decision: hold" in told


def test_a_verdict_that_was_changed_is_not_what_the_readings_lead_to(proof: Proof) -> None:
    def flattered(entry: dict[str, Any]) -> None:
        entry["details"]["verdicts"][0]["value"] = 0.0001

    (told,) = findings(verify(forged(proof, at(proof, "advance"), flattered)))["decisions"]
    assert "the rule web/errors-high is recorded as pass (value 0.0001" in told
    assert "judged again it is pass (value 0.002" in told


def test_a_raise_without_a_record_of_its_evidence_is_found(proof: Proof) -> None:
    def silent(entry: dict[str, Any]) -> None:
        for name in ("run", "inputs", "verdicts"):
            del entry["details"][name]

    place = at(proof, "advance")
    expected = [f"row {proof.rows[place].sequence} (advance) does not record what it rested on"]
    assert findings(verify(forged(proof, place, silent)))["decisions"] == expected

    def ordered(entry: dict[str, Any]) -> None:
        silent(entry)
        entry["actor"] = "dana"

    assert findings(verify(forged(proof, place, ordered)))["decisions"] == expected


def test_a_bake_that_nobody_waived_was_not_waived(proof: Proof) -> None:
    def hurried(entry: dict[str, Any]) -> None:
        entry["details"]["inputs"]["bake_waived"] = True
        entry["details"]["inputs"]["observations"]["bake"] = 0.0

    (told,) = findings(verify(forged(proof, at(proof, "advance"), hurried)))["decisions"]
    assert "the bake was waived, and nobody is named who did" in told


def test_a_state_that_the_rows_before_do_not_lead_to_is_found(proof: Proof) -> None:
    def remembered(entry: dict[str, Any]) -> None:
        for reading in entry["details"]["run"]["baselines_before"].values():
            reading["total"] = 12_345

    told = findings(verify(forged(proof, at(proof, "confirm"), remembered)))["states"]
    assert told[0].endswith("was decided on a run that the rows before it do not lead to: baselines_before")


def test_an_approval_that_nobody_gave_is_found(proof: Proof) -> None:
    place = at(proof, "approve")

    def renumbered(entry: dict[str, Any]) -> None:
        entry["run_version"] -= 1
        if run := entry["details"].get("run"):
            run["version"] -= 1

    rows = [*proof.rows[:place], *(edited(row, renumbered) for row in proof.rows[place + 1 :])]
    assert any(told.endswith("approval") for told in findings(verify(rehashed(proof, rows)))["states"])


def test_whoever_started_a_run_did_not_approve_it(proof: Proof) -> None:
    def himself(entry: dict[str, Any]) -> None:
        entry["actor"] = DANA.name

    told = findings(verify(forged(proof, at(proof, "approve"), himself)))["states"]
    assert "dana approved what the same person wrote or started" in told[0]


def test_a_run_begins_with_a_person(proof: Proof) -> None:
    def nobody(entry: dict[str, Any]) -> None:
        entry["actor"] = "rampart"

    assert "is no person's authorisation" in findings(verify(forged(proof, 0, nobody)))["versions"][0]


def test_an_exposure_above_its_stage_is_found(proof: Proof) -> None:
    def more(entry: dict[str, Any]) -> None:
        entry["details"]["to"]["exposure"] = 60_000

    told = findings(verify(forged(proof, at(proof, "advance"), more)))
    assert "leaves 60 %, and its stage allows 50 %" in told["exposure"][0]
    assert "decided again it leads to another stage or exposure" in told["decisions"][0]
    assert told["transitions"]


def test_a_stage_that_was_skipped_is_found(proof: Proof) -> None:
    def skipped(entry: dict[str, Any]) -> None:
        entry["details"]["to"] |= {"stage": 2, "exposure": 100_000}

    told = findings(verify(forged(proof, at(proof, "advance"), skipped)))
    assert "leaves 100 %, which is not the stage after 1 %" in told["exposure"][0]


def test_a_way_that_the_table_does_not_have_is_found(proof: Proof) -> None:
    def resumed(entry: dict[str, Any]) -> None:
        entry["action"] = "resume"

    (told,) = findings(verify(forged(proof, at(proof, "approve"), resumed)))["transitions"]
    assert "is not allowed: cannot resume a run that is progressing" in told


def test_what_a_confirmation_raises_is_found(proof: Proof) -> None:
    def more(entry: dict[str, Any]) -> None:
        entry["details"]["to"] |= {"stage": 1, "exposure": 50_000}

    told = findings(verify(forged(proof, at(proof, "confirm", 1_000), more)))
    assert "leaves 50 %, 49 % more than before, and confirm never raises" in told["exposure"][0]


def test_nothing_rises_after_the_kill(proof: Proof) -> None:
    advance, kill = proof.rows[at(proof, "advance")], proof.rows[at(proof, "kill")]

    def again(entry: dict[str, Any]) -> None:
        entry["run_version"] = (entry_of(kill).run_version or 0) + 1

    risen = replace(edited(advance, again), sequence=kill.sequence + 1, previous=kill.hash)
    extended = replace(proof, head=ProofHead(sequence=kill.sequence + 99, hash="00"))
    told = findings(verify(rehashed(extended, [*proof.rows, risen])))
    assert f"although row {kill.sequence} had killed the run" in told["exposure"][0]
    assert told["transitions"]


def test_a_row_that_is_passed_off_as_another_runs_is_missing_by_its_version(whole: Proof) -> None:
    def elsewhere(entry: dict[str, Any]) -> None:
        entry["run"] = "search#1"

    hidden = forged(whole, at(whole, "advance"), elsewhere)
    told = findings(verify(hidden))
    assert "chain" not in told
    assert "taken out, or passed off as another run's" in told["versions"][0]


# — plans and policies —


def test_a_changed_plan_is_not_the_one_the_run_followed(proof: Proof) -> None:
    document = {**proof.plans[0].document, "metadata": {"name": "checkout-v2", "owner": "somebody"}}
    changed = replace(proof, plans=[replace(proof.plans[0], document=document)])
    (told,) = findings(verify(changed))["documents"]
    assert "followed another text of plan checkout-v2 revision 1 than the file holds" in told


def looser(proof: Proof) -> Proof:
    """The rule that killed at 3x kills at 9x."""
    text = msgspec.json.encode(proof.policies[0].document).decode().replace("> 3x baseline", "> 9x baseline")
    return replace(proof, policies=[replace(proof.policies[0], document=msgspec.json.decode(text))])


def test_a_changed_policy_is_not_the_one_the_run_followed(proof: Proof) -> None:
    (told,) = findings(verify(looser(proof)))["documents"]
    assert "followed another text of policy web revision 1" in told


def test_a_changed_policy_leads_to_other_decisions_though_its_fingerprint_was_changed_too(proof: Proof) -> None:
    changed = looser(proof)

    def named(entry: dict[str, Any]) -> None:
        entry["details"]["pinned"]["policies"][0]["sha256"] = text_fingerprint(changed.policies[0].document)

    told = findings(verify(forged(changed, 0, named)))
    assert "documents" not in told
    assert any("(kill): its record leads to another decision" in text for text in told["decisions"])


def test_a_missing_a_second_and_an_unnamed_text_are_found(proof: Proof) -> None:
    missing = findings(verify(replace(proof, policies=[])))
    assert "names policy web revision 1, which is not in the file" in missing["documents"][0]
    assert "policy web revision 1 is not in the file" in missing["decisions"][0]
    assert "exposure" in findings(verify(replace(proof, plans=[])))
    twice = findings(verify(replace(proof, plans=[*proof.plans, *proof.plans])))
    assert twice["documents"] == ["a plan or policy is in the file twice under one revision"]
    extra = replace(proof.plans[0], revision=7)
    unnamed = findings(verify(replace(proof, plans=[*proof.plans, extra])))
    assert unnamed["documents"] == ["plan checkout-v2 revision 7 is in the file, and no row names it"]


def test_a_row_that_follows_another_revision_than_was_adopted_is_found(proof: Proof) -> None:
    def later(entry: dict[str, Any]) -> None:
        entry["details"]["policy_revisions"] = {"web": 2}

    told = findings(verify(forged(proof, at(proof, "approve"), later)))
    assert "follows other revisions than the run was moved to" in told["documents"][0]


def test_a_run_that_does_not_say_what_it_followed_proves_nothing(proof: Proof) -> None:
    def unpinned(entry: dict[str, Any]) -> None:
        entry["details"] = {}

    told = findings(verify(forged(proof, 0, unpinned)))
    assert "does not say by fingerprint which plan and policies" in told["documents"][0]


# — a head from outside —


def test_a_forgery_that_fits_itself_is_found_with_a_noted_head_and_only_so(whole: Proof) -> None:
    def noted(entry: dict[str, Any]) -> None:
        entry["reason"] += ": everybody agreed"

    lie = forged(whole, 0, noted)
    assert verify(lie).good
    assert any("Nothing from outside was compared" in limit for limit in verify(lie).limits)
    told = findings(verify(lie, head_of(whole)))
    assert told == {"head": [f"row {head_of(whole).sequence} is not what it was when its head was noted: "
                             "something up to it was changed"]}  # fmt: skip


def test_a_forged_row_of_somebody_else_is_found_with_a_noted_head(whole: Proof) -> None:
    place = next(place for place, row in enumerate(whole.rows) if entry_of(row).run is None)

    def renamed(entry: dict[str, Any]) -> None:
        entry["reason"] = "nothing of interest"

    assert findings(verify(replace(whole, rows=with_row(whole, place, renamed))))["chain"]
    lie = forged(whole, place, renamed)
    assert verify(lie).good
    assert findings(verify(lie, head_of(whole)))["head"]


def test_a_cut_end_is_found_with_a_noted_head_and_only_so(proof: Proof, whole: Proof) -> None:
    kill = at(whole, "kill")
    cut = rehashed(whole, whole.rows[:kill])
    assert verify(cut).good
    assert any("cut off looks the same" in limit for limit in verify(cut).limits)
    assert "it is older, or was cut off" in findings(verify(cut, head_of(whole, kill)))["head"][0]
    assert findings(verify(replace(whole, rows=whole.rows[:kill])))["chain"]
    of_one = replace(proof, rows=proof.rows[:-1])
    assert verify(of_one).good
    assert findings(verify(of_one, head_of(proof)))["head"]


def test_a_head_that_cannot_be_compared_is_no_pass(proof: Proof, whole: Proof) -> None:
    before, end = proof.rows[0].sequence - 1, proof.head.sequence
    holed = without(whole, 3)
    for one, sequence, why in [
        (proof, before, "it was noted before the run began, and says nothing about it"),
        (proof, proof.rows[-1].sequence + 1, "it is another run's, and only an export with --all holds those"),
        (proof, end + 5, f"the file says that the log ended at row {end}: it is older, or was cut off"),
        (holed, whole.rows[3].sequence, "it is missing"),
    ]:
        report = verify(one, ProofHead(sequence=sequence, hash="00"))
        assert not report.good
        assert findings(report)["head"] == [f"the head of row {sequence} cannot be compared: {why}"]


def test_what_does_not_fit_a_noted_head_names_the_row(whole: Proof) -> None:
    noted = replace(head_of(whole, 3), hash="00")
    (found,) = next(check for check in verify(whole, noted).checks if check.name == "head").findings
    assert found.row == noted.sequence


def test_a_noted_head_vouches_for_the_neighbours_before_it_and_no_further(proof: Proof, whole: Proof) -> None:
    of_whole = verify(whole, head_of(whole))
    assert of_whole.good
    assert of_whole.limits == []
    of_one = verify(proof, head_of(proof))
    assert of_one.good
    assert (
        f"The noted head vouches for row {proof.rows[-1].sequence}, and for none before or after." in of_one.limits
    )
    early = verify(whole, head_of(whole, 3))
    first, last = whole.rows[0].sequence, whole.rows[3].sequence
    assert early.limits == [
        f"The noted head vouches for the rows {first} to {last}, and for none before or after."
    ]
    wrong = verify(whole, replace(head_of(whole, 3), hash="00"))
    assert not wrong.good
    assert wrong.limits == []


# — whatever a stranger writes —

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [here, *(path for key, inner in items for path in paths(inner, (*here, key)))]


def planted(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    inside = dict(value) if isinstance(value, dict) else list(value)
    inside[path[0]] = planted(inside[path[0]], path[1:], junk)
    return inside


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_is_planted_in_a_file_is_reported_and_never_raised(
    exported: tuple[Proof, Proof], data: st.DataObject
) -> None:
    proof = exported[0]
    row = data.draw(st.sampled_from(proof.rows))
    content = msgspec.json.decode(row.body)
    path = data.draw(st.sampled_from(paths(content)))
    body = msgspec.json.encode(planted(content, path, data.draw(JUNK)), order="sorted").decode()
    rows = [replace(row, body=body) if one is row else one for one in proof.rows]
    verify(rehashed(proof, rows))
    if body != row.body:
        assert not verify(replace(proof, rows=rows)).good


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_planted_in_a_plan_or_policy_is_found(
    exported: tuple[Proof, Proof], data: st.DataObject
) -> None:
    proof = exported[0]
    name = data.draw(st.sampled_from(["plans", "policies"]))
    (text,) = getattr(proof, name)
    document = planted(text.document, data.draw(st.sampled_from(paths(text.document)[1:])), data.draw(JUNK))
    report = verify(replace(proof, **{name: [replace(text, document=document)]}))
    assert report.good == (msgspec.json.encode(document) == msgspec.json.encode(text.document))


def test_a_kill_that_was_decided_for_an_earlier_run_is_left_to_its_proof(proof: Proof) -> None:
    def other(entry: dict[str, Any]) -> None:
        entry["details"]["run"]["id"] = "checkout-v2#0"

    report = verify(forged(proof, at(proof, "kill"), other))
    assert report.good
    assert any("was decided for checkout-v2#0; that run's proof shows why" in limit for limit in report.limits)


def test_a_file_without_rows_proves_nothing(proof: Proof) -> None:
    report = verify(replace(proof, rows=[]))
    assert not report.good
    assert findings(report)["versions"] == [f"the file holds no row of {proof.run}"]


def test_nothing_is_decided_again_where_nothing_was_decided() -> None:
    tried = retry("checkout-v2#1", [], Documents({}, {}))
    assert (tried.decisions.checked, tried.states.checked, tried.elsewhere) == (0, 0, [])
