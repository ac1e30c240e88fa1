"""The model's runs through the engine's own functions: `converge`, `state_after`, and the table of transitions."""

from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec

from controller.domain import rollout
from controller.domain.consequences import state_after
from controller.domain.convergence import Convergence, converge
from controller.domain.decide import Decision, share_of, stage_at
from controller.domain.flag import FlagState
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.rollout import Action, ended_by_kill
from tests.simulation.exhaustive.state import Run

AT = datetime(2026, 1, 1, tzinfo=UTC)
FLAG = FlagRef(provider="main", environment="production", key="flag")
PLAN: RolloutPlan = msgspec.convert(
    {
        "apiVersion": "rampart/v1",
        "kind": "RolloutPlan",
        "metadata": {"name": "plan"},
        "spec": {
            "flag": {"provider": "main", "environment": "production", "key": "flag"},
            "serve": {"rollout": "on", "fallback": "off"},
            "stages": [
                {"name": "first", "exposure": "1%", "bake": "1m"},
                {"name": "second", "exposure": "50%", "bake": "1m"},
            ],
            "guardrails": [{"policy": "web"}],
        },
    },
    RolloutPlan,
)
SETTLED: dict[str, Any] = {"seconds_since_apply": 1.0, "settle_seconds": 1.0}
"""Whether the provider had its time to settle is left open: a tick may as well not come."""


def _share(exposure: int) -> int:
    return share_of(PLAN, exposure - 1)


def _exposure(share: int) -> int:
    return stage_at(PLAN, share) + 1


@cache
def _engine_run(run: Run) -> rollout.Run:
    return rollout.Run(
        id=f"plan#{run.number}",
        plan="plan",
        number=run.number,
        plan_revision=1,
        policy_revisions={},
        flag=FLAG,
        author="ann",
        started_by="ann",
        created_at=AT,
        phase=run.phase,
        stage=run.exposure - 1,
        exposure=_share(run.exposure),
        confirmed_exposure=_share(run.before),
        confirmed_at=AT if run.confirmed else None,
        turned_on=True,
        version=run.version,
        kill_epoch=run.epoch,
    )


def _model_run(run: rollout.Run) -> Run:
    phase: Any = run.phase
    return Run(
        number=run.number,
        phase=phase,
        exposure=_exposure(run.exposure),
        confirmed=run.confirmed,
        before=_exposure(run.confirmed_exposure or 0),
        version=run.version,
        epoch=run.kill_epoch,
    )


@cache
def compared(run: Run, observed: int) -> Convergence:
    """`converge`, with the exposures of the model."""
    found = converge(
        _engine_run(run), PLAN, FlagState(enabled=True, exposure=_share(observed), off_serves="off"), **SETTLED
    )
    return msgspec.structs.replace(found, exposure=_exposure(found.exposure))


@cache
def after(run: Run, action: Action, exposure: int) -> Run:
    """`state_after` of a decision with that action and that desired exposure."""
    decision = Decision(
        action=action, cause="user", text="", stage=exposure - 1, exposure=_share(exposure), audience=False
    )
    extra: dict[str, Any] = {"confirmed_at": None, "approval": None} if action == "resume" else {}
    return _model_run(state_after(_engine_run(run), decision, AT, extra))


@cache
def killed(run: Run) -> Run:
    """`ended_by_kill`, which leaves a run alone that had ended."""
    ended = ended_by_kill(_engine_run(run), "kill", at=AT, why="")
    return run if ended is None else _model_run(ended)._replace(confirmed=True, before=0)


@cache
def active(run: Run) -> bool:
    return _engine_run(run).active
