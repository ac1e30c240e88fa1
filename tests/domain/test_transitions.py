"""Laws of the one table that says what may happen to a run, and the page generated from it."""

from itertools import product
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.diagram import state_diagram
from controller.domain.rollout import (
    ACTIVE_PHASES,
    RAISING,
    TRANSITIONS,
    Action,
    ApprovalRequest,
    Phase,
    ended_by_kill,
    next_phase,
    transition,
)
from controller.errors import Conflict
from tests.support.rollouts import NOW, make_plan, make_run

PHASES: tuple[Phase, ...] = get_args(Phase)
ACTIONS: tuple[Action, ...] = get_args(Action)
FINAL_PHASES: tuple[Phase, ...] = ("completed", "killed", "abandoned")
LOWERING: tuple[Action, ...] = ("pause", "step_back", "lower", "kill")
PAGE = Path(__file__).parents[2] / "docs" / "state-machine.md"


def test_the_table_speaks_of_every_phase_and_of_no_other() -> None:
    assert set(TRANSITIONS) == set(PHASES)
    assert {after for row in TRANSITIONS.values() for after in row.values()} <= set(PHASES)
    assert {action for row in TRANSITIONS.values() for action in row} <= set(ACTIONS)


@pytest.mark.parametrize(("phase", "action"), list(product(PHASES, ACTIONS)))
def test_every_phase_and_action_leads_on_or_is_refused_by_name(phase: Phase, action: Action) -> None:
    if action in TRANSITIONS[phase]:
        assert next_phase(phase, action) == TRANSITIONS[phase][action]
        return
    with pytest.raises(Conflict) as refused:
        next_phase(phase, action)
    assert phase in str(refused.value)
    assert action.replace("_", "-") in str(refused.value)


def test_a_kill_is_possible_from_every_phase_but_abandoned_and_ends_as_killed() -> None:
    for phase in set(PHASES) - {"abandoned"}:
        assert next_phase(phase, "kill") == "killed"


@pytest.mark.parametrize("phase", ["killed", "abandoned"])
def test_nothing_leads_out_of_killed_or_abandoned(phase: Phase) -> None:
    assert set(TRANSITIONS[phase].values()) <= {phase}


@pytest.mark.parametrize("phase", FINAL_PHASES)
def test_no_action_that_raises_is_possible_in_a_final_phase(phase: Phase) -> None:
    assert not RAISING & set(TRANSITIONS[phase])
    assert phase not in ACTIVE_PHASES


def test_a_paused_run_rises_only_by_being_resumed_first() -> None:
    assert RAISING & set(TRANSITIONS["paused"]) == {"resume"}


def test_actions_that_lower_never_lead_to_a_phase_that_rises() -> None:
    for phase, action in product(PHASES, LOWERING):
        assert TRANSITIONS[phase].get(action) != "progressing"


def test_every_active_phase_can_be_ended_by_a_person() -> None:
    for phase in ACTIVE_PHASES:
        assert {"kill", "abandon"} <= set(TRANSITIONS[phase])


def test_every_phase_can_be_reached_from_pending() -> None:
    reached: set[Phase] = {"pending"}
    for _ in PHASES:
        reached |= {after for phase in reached for after in TRANSITIONS[phase].values()}
    assert reached == set(PHASES)


@given(st.lists(st.sampled_from(ACTIONS), max_size=30))
def test_each_transition_counts_one_version_and_a_refused_one_none(actions: list[Action]) -> None:
    run = make_run(make_plan(), version=0)
    effective = 0
    for action in actions:
        try:
            run = transition(run, action)
        except Conflict:
            continue
        effective += 1
    assert run.version == effective


@given(st.lists(st.sampled_from(ACTIONS), max_size=30))
def test_a_killed_run_never_rises_again_whatever_is_tried(actions: list[Action]) -> None:
    run = transition(make_run(make_plan(), stage=1), "kill")
    for action in actions:
        try:
            run = transition(run, action)
        except Conflict:
            continue
        assert action not in RAISING
    assert run.phase == "killed"


def test_the_page_about_phases_is_up_to_date() -> None:
    assert PAGE.read_text() == state_diagram(), f"{PAGE.name} is stale; run `make schema` and commit it"


def test_the_page_shows_every_phase_and_every_change_of_phase() -> None:
    page = state_diagram()
    for phase, row in TRANSITIONS.items():
        for action, after in row.items():
            assert f"| {action} |" in page
            assert phase == after or f"{phase} --> {after}: " in page


@pytest.mark.parametrize(
    ("phase", "action", "told"),
    [
        (
            "pending",
            "step_back",
            "cannot step-back a run that is pending; possible: approve, adopt, kill, abandon",
        ),
        (
            "progressing",
            "resume",
            "cannot resume a run that is progressing; "
            "possible: advance, pause, step-back, approve, adopt, kill, abandon",
        ),
        ("abandoned", "kill", "cannot kill a run that is abandoned; possible: nothing any more"),
    ],
)
def test_a_refusal_says_what_a_person_may_ask_for_instead(phase: Phase, action: Action, told: str) -> None:
    with pytest.raises(Conflict) as refused:
        next_phase(phase, action)
    assert str(refused.value) == told


@pytest.mark.parametrize("phase", ["pending", "progressing", "paused", "completed"])
def test_a_kill_of_the_flag_ends_a_run_that_had_not_ended_otherwise(phase: Phase) -> None:
    request = ApprovalRequest(id="r", stage=2, plan_revision=1, requested_at=NOW)
    run = make_run(make_plan(), stage=1, phase=phase, approval=request, version=4)
    assert ended_by_kill(run, "k1", at=NOW, why="INC-1") == replace(
        run,
        phase="killed",
        version=5,
        kill_id="k1",
        exposure=0,
        audience=False,
        approval=None,
        status="INC-1",
        ended_at=NOW,
    )


@pytest.mark.parametrize("phase", ["killed", "abandoned"])
def test_a_kill_of_the_flag_leaves_a_run_that_had_ended(phase: Phase) -> None:
    assert ended_by_kill(make_run(make_plan(), phase=phase), "k1", at=NOW, why="INC-1") is None
