"""Tests of policies, for tests of what plays them: one case of the plain web policy."""

from typing import Any

import msgspec

from controller.domain.plan import RolloutPlan
from controller.domain.rehearsal import RehearsalSpec
from controller.rehearsal.comparing import Mismatch, compare
from controller.rehearsal.playing import Played, play
from controller.rehearsal.script import Script, write
from tests.support.rollouts import make_policy


def scripted(
    *expect: str, plan: RolloutPlan | None = None, policy: dict[str, Any] | None = None, **case: Any
) -> Script:
    """Of the policy alone, unless a plan is given; `policy` changes its spec."""
    tested: dict[str, Any] = {"plan": plan.metadata.name} if plan else {"policy": "web"}
    cases = [{"name": "x", "expect": list(expect) or ["never kill"], **case}]
    spec = msgspec.convert({**tested, "tests": cases}, RehearsalSpec)
    plans = {plan.metadata.name: plan} if plan else {}
    return write(spec, spec.tests[0], plans, {"web": make_policy(**policy or {})})


def played(*expect: str, **case: Any) -> tuple[Script, Played]:
    script = scripted(*expect, **case)
    return script, play(script)


def mismatches(*expect: str, **case: Any) -> list[Mismatch]:
    script, result = played(*expect, **case)
    return compare(script, result)


def actions(result: Played) -> list[str]:
    return [one.action for one in result.happened if one.action != "confirm"]
