"""End to end with real parts: Prometheus, the LaunchDarkly SDK and the shipped policy, only faster.

All rollouts of this module share one server, one Prometheus and the same shops. Each faulty release turns bad when
its 10 % stage has begun to bake.
"""

import json
import math
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from controller.demo.pace import shipped_policy
from controller.domain.audit import AuditEntry
from controller.domain.policy import GuardrailPolicy
from controller.domain.quantities import seconds
from controller.manifests.loader import load
from tests.support.live import SHOPS, USERS_PER_SHOP, Live, plan_text, running_live
from tests.support.replay import is_automatic, recorded_verdicts, replayed
from tests.support.server import wait_until

pytestmark = pytest.mark.timeout(240)

# Windows of 6 s, judged every 300 ms.
FACTOR = 1 / 50
WINDOW_SECONDS = 300 * FACTOR
BAKE_SECONDS = 3.0
STAGES = [1_000, 10_000, 50_000, 100_000]
USERS = SHOPS * USERS_PER_SHOP
STAFF = USERS // 100

GOOD, ERRORS, SLOW, JUMP, OUTAGE, BLIND = "search", "checkout", "cart", "login", "menu", "wishlist"
FAULTS = {
    ERRORS: {"extra_error_rate": 0.05},
    SLOW: {"latency_factor": 3.5},
    JUMP: {"extra_error_rate": 0.3},
    OUTAGE: {"error_rate": 0.3},
}
TOGETHER = [GOOD, *FAULTS]
CLIMB = {"authorise", "start", "confirm", "advance", "complete"}
SETTLED = ("paused", "completed", "killed")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    plans = {flag: plan_text(flag) for flag in (GOOD, BLIND)}
    plans |= {flag: plan_text(flag, early_bake="60s") for flag in FAULTS}
    with running_live(tmp_path_factory.mktemp("live"), factor=FACTOR, plans=plans) as live:
        yield live


@pytest.fixture(scope="module")
def ended(live: Live) -> dict[str, Any]:
    """The last status of each rollout, when none of them moves any more. What is stuck is shown by its test."""
    for plan in TOGETHER:
        live.server.command(plan, "start")
    healthy = set(FAULTS)
    deadline = time.monotonic() + 100
    while True:
        statuses = {plan: live.server.status(plan) for plan in TOGETHER}
        for plan in [plan for plan in healthy if is_baking(statuses[plan], "early")]:
            live.shops.behave(plan, **FAULTS[plan])
            healthy.discard(plan)
        if all(status["phase"] in SETTLED for status in statuses.values()) or time.monotonic() > deadline:
            return statuses
        time.sleep(0.1)


def is_baking(status: Any, stage: str) -> bool:
    return any(one["name"] == stage and one["baked_seconds"] > 0 for one in status["stages"])


def shown(status: Any) -> str:
    return json.dumps(status, indent=1)


def rises(history: list[AuditEntry]) -> list[int]:
    return [entry.details["to"]["exposure"] for entry in history if entry.action in ("start", "advance")]


def actions(history: list[AuditEntry]) -> set[str]:
    return {entry.action for entry in history}


def last_decision(live: Live, plan: str, action: str) -> AuditEntry:
    return [entry for entry in live.history(plan) if entry.action == action][-1]


def test_the_policy_is_the_shipped_one_with_every_duration_scaled_by_one_factor(live: Live) -> None:
    shipped = load(shipped_policy(), "shipped.yaml").documents[0].value
    assert isinstance(shipped, GuardrailPolicy)

    def compare(before: Any, after: Any, key: str = "") -> None:
        if key in {"every", "window", "stale_after", "before", "for_", "after"}:
            assert math.isclose(seconds(after), FACTOR * seconds(before)), key
        elif hasattr(before, "__struct_fields__"):
            assert type(before) is type(after)
            for name in before.__struct_fields__:
                compare(getattr(before, name), getattr(after, name), name)
        elif isinstance(before, list):
            assert len(before) == len(after)
            for one, other in zip(before, after, strict=True):
                compare(one, other)
        else:
            assert before == after, key

    compare(shipped, live.policy)


def test_a_good_release_climbs_every_stage_and_reaches_everybody(live: Live, ended: dict[str, Any]) -> None:
    assert ended[GOOD]["phase"] == "completed", shown(ended[GOOD])
    history = live.history(GOOD)
    assert rises(history) == STAGES
    assert actions(history) == CLIMB
    assert live.shops.served(GOOD) == {"share": {"on": USERS - STAFF}, "always": {"on": STAFF}}


def test_errors_at_five_percent_pause_the_ten_percent_stage(live: Live, ended: dict[str, Any]) -> None:
    status = ended[ERRORS]
    assert (status["phase"], status["desired_exposure"]) == ("paused", 10_000), shown(status)
    assert last_decision(live, ERRORS, "pause").details["rule"] == "web-service/errors-high"
    assert "against a limit of 1 %" in status["reason"]
    assert "kill" not in actions(live.history(ERRORS))
    assert is_about_a_tenth(live.shops.served(ERRORS)["share"]["on"])
    assert live.shops.served(ERRORS)["always"] == {"on": STAFF}


def is_about_a_tenth(contexts: int) -> bool:
    """Within five standard deviations of the binomial distribution."""
    people = USERS - STAFF
    return abs(contexts - people / 10) < 5 * math.sqrt(people * 0.1 * 0.9)


def test_p95_at_three_times_its_baseline_kills_and_the_sdk_serves_everybody_the_fallback(
    live: Live, ended: dict[str, Any]
) -> None:
    assert ended[SLOW]["phase"] == "killed", shown(ended[SLOW])
    kill = last_decision(live, SLOW, "kill")
    assert (kill.cause, kill.details["rule"]) == ("policy", "web-service/p95-3x")
    verdict = next(one for one in recorded_verdicts(kill) if one.id == "web-service/p95-3x")
    value, limit, baseline = verdict.value or 0.0, verdict.limit or 0.0, verdict.baseline or 0.0
    assert value > limit == pytest.approx(3 * baseline)
    # A person who pastes the recorded query into Prometheus, for that time, sees the breach, too.
    assert live.prometheus.query(verdict.query, at=kill.at.isoformat().replace("+00:00", "Z"))[0] > limit
    assert rises(live.history(SLOW)) == STAGES[:2]
    assert live.shops.served(SLOW) == {"share": {"off": USERS - STAFF}, "always": {"off": STAFF}}


def test_errors_of_the_rollout_alone_kill_at_a_rate_at_which_errors_of_both_arms_only_pause(
    live: Live, ended: dict[str, Any]
) -> None:
    assert ended[JUMP]["phase"] == "killed", shown(ended[JUMP])
    assert last_decision(live, JUMP, "kill").details["rule"] == "web-service/errors-jump"
    assert live.shops.served(JUMP) == {"share": {"off": USERS - STAFF}, "always": {"off": STAFF}}

    status = ended[OUTAGE]
    assert (status["phase"], status["desired_exposure"]) == ("paused", 10_000), shown(status)
    assert "kill" not in actions(live.history(OUTAGE))
    pause = last_decision(live, OUTAGE, "pause")
    jump = next(one for one in recorded_verdicts(pause) if one.id == "web-service/errors-jump")
    assert (jump.value or 0.0) > 2 * (jump.limit or 1.0)
    assert (jump.baseline or 0.0) > 0.2


def test_a_prometheus_that_hangs_or_is_gone_stops_the_climb_until_it_is_back(
    live: Live, ended: dict[str, Any]
) -> None:
    live.server.command(BLIND, "start")
    wait_confirmed(live, "early")
    live.prometheus.freeze()
    try:
        nothing_happens_unseen(live, 10_000, "no answer within")
    finally:
        live.prometheus.thaw()
    wait_confirmed(live, "half")
    live.prometheus.stop()
    try:
        nothing_happens_unseen(live, 50_000, "cannot connect")
    finally:
        live.prometheus.start()
    live.server.wait_phase(BLIND, "completed")
    assert rises(live.history(BLIND)) == STAGES
    assert actions(live.history(BLIND)) == CLIMB
    # The killed stay killed and the paused stay paused, whatever their sources do.
    assert {plan: live.server.status(plan)["phase"] for plan in ended} == {
        plan: status["phase"] for plan, status in ended.items()
    }


def wait_confirmed(live: Live, stage: str) -> None:
    def reached() -> bool:
        status = live.server.status(BLIND)
        current = [one["name"] for one in status["stages"] if one["state"] == "current"]
        return bool(status["confirmed"]) and current == [stage]

    wait_until(reached, seconds=40, what=f"{BLIND} to be confirmed at the stage {stage}")


def nothing_happens_unseen(live: Live, exposure: int, why: str) -> None:
    """Ticks go on for longer than the stage would have needed, say why they hold, and change nothing."""
    at = wait_until(lambda: blind_status(live, why), seconds=20, what=f'the status to say "{why}"')["observed_at"]
    until = seconds_of(at) + WINDOW_SECONDS + BAKE_SECONDS + 1.0

    def ticked_on() -> bool:
        status = live.server.status(BLIND)
        assert (status["phase"], status["desired_exposure"]) == ("progressing", exposure), shown(status)
        return seconds_of(status["observed_at"]) > until

    wait_until(ticked_on, seconds=40, every=0.2, what="ticks to go on without Prometheus")
    status = live.server.status(BLIND)
    assert {rule["outcome"] for rule in status["rules"]} == {"error"}
    assert status["next_in_seconds"] is None
    explanation = live.server.call("GET", f"plans/{BLIND}/explain")["text"]
    assert "cannot be measured" in explanation
    assert why in explanation
    served = live.shops.served(BLIND)
    assert served["always"] == {"on": STAFF}
    assert set(served["share"]) == {"on", "off"}


def blind_status(live: Live, why: str) -> Any:
    status = live.server.status(BLIND)
    return status if any(why in block["text"] for block in status["blocks"]) else None


def seconds_of(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def automatic(live: Live) -> list[AuditEntry]:
    found = [entry for entry in live.entries() if is_automatic(entry)]
    assert {entry.run for entry in found} >= {f"{plan}#1" for plan in TOGETHER}
    return found


def test_each_decision_carries_value_limit_baseline_sample_and_a_query_that_prometheus_accepts(
    live: Live, ended: dict[str, Any]
) -> None:
    queries = set()
    for entry in automatic(live):
        verdicts = recorded_verdicts(entry)
        assert [one.rule for one in verdicts] == [rule.id for rule in live.policy.spec.rules]
        queries |= {one.query for one in verdicts}
        # What is confirmed was just changed: its window may not be full yet. All else rests on numbers.
        if entry.action != "confirm":
            for one in verdicts:
                assert None not in (one.value, one.limit, one.baseline, one.sample), (entry.reason, one)
                assert (one.sample or 0.0) >= live.policy.spec.min_sample.requests
    assert all("increase(http_request" in query for query in queries)
    for query in queries:
        live.prometheus.query(query)


def test_each_automatic_decision_is_made_again_from_its_record(live: Live, ended: dict[str, Any]) -> None:
    for entry in automatic(live):
        assert entry.run
        plan = live.plans[entry.run.partition("#")[0]]
        again, verdicts = replayed(entry, plan, [live.policy])
        assert (again.action, again.cause, again.text) == (entry.action, entry.cause, entry.reason)
        assert verdicts == recorded_verdicts(entry)


async def test_the_chain_verifies_until_one_byte_of_one_row_is_changed_in_the_database(
    live: Live, ended: dict[str, Any], tmp_path: Path
) -> None:
    export = tmp_path / "audit.jsonl"

    def verified() -> tuple[str | None, int, str]:
        """What the server says, and what anybody finds offline in an export."""
        export.write_text(live.rampart("audit", "export").stdout)
        offline = live.rampart("audit", "verify", "--file", str(export))
        return live.server.call("GET", "audit/verify")["problem"], offline.returncode, offline.stdout

    problem, code, said = verified()
    assert (problem, code) == (None, 0)
    assert f"{len(export.read_text().splitlines())} rows verify" in said

    row = next(row for row in live.server.audit() if row["entry"]["action"] == "kill")
    position = await live.position(row["sequence"], "against a limit of")
    before = await live.change_byte(row["sequence"], position, "A")
    problem, code, said = verified()
    assert problem == f"row {row['sequence']} was changed: its hash does not fit its content"
    assert (code, problem in said) == (1, True)
    await live.change_byte(row["sequence"], position, before)
    assert verified()[:2] == (None, 0)
