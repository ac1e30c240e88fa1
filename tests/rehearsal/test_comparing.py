"""What was expected, beside what came: every difference is told, and nothing passes over another."""

from tests.rehearsal.scripts import actions, mismatches, played
from tests.support.rollouts import make_plan

KILLED = {"rollout": {"error_rate": "0.2% for 20m then 30%"}}
PAUSED = {"rollout": {"error_rate": "0.2% for 20m then 5%"}}


def told(*expect: str, **case: object) -> list[tuple[str, str]]:
    return [(one.expected, one.found) for one in mismatches(*expect, **case)]


def test_what_comes_as_expected_is_no_finding() -> None:
    assert told("start at 0s", "nothing until 20m", "kill at 23m45s by errors-jump", "ends killed", **KILLED) == []


def test_a_time_may_be_off_by_one_poll_and_not_by_two() -> None:
    assert told("kill at 24m by errors-jump", **KILLED) == []
    assert told("kill at 24m15s by errors-jump", **KILLED) == [
        ("kill at 24m15s by errors-jump", "it was killed by errors-jump at 23m45s")
    ]
    assert told("kill at 28m by errors-jump within 5m", **KILLED) == []


def test_another_rule_than_expected_is_told() -> None:
    assert ("kill at 23m45s by p95-3x", "it was killed by errors-jump at 23m45s") in told(
        "kill at 23m45s by p95-3x", **KILLED
    )


def test_what_never_came_is_told_with_what_there_is() -> None:
    ((_, found),) = told("kill at 5m", rollout={"error_rate": "0.2%"})
    assert found.startswith("it was never killed; at the end it is progressing at 10 %: canary has baked")


def test_an_alarm_that_nobody_expects_is_a_finding() -> None:
    ((expected, found),) = told("never kill", **PAUSED)
    assert expected.startswith("nothing else (write: pause at 26m")
    assert "it was paused by errors-high" in found


def test_a_run_that_never_starts_is_a_finding_unless_that_is_expected() -> None:
    sick = {"control": {"error_rate": "20%"}}
    ((expected, found),) = told("nothing until 1h", **sick)
    assert expected.startswith("a start")
    assert "errors-high" in found
    assert told("stays pending", **sick) == []


def test_nothing_means_neither_a_rise_nor_a_stop() -> None:
    stages = [
        {"name": "canary", "exposure": "1%", "bake": "10m"},
        {"name": "all", "exposure": "100%", "bake": "1d"},
    ]
    case = {"plan": make_plan(stages=stages), "until": "1h"}
    assert told("nothing until 10m", **case) == []
    assert told("nothing until 30m", **case) == [("nothing until 30m", "at 15m15s it was advanced to all")]
    assert told("nothing from 16m until 50m", **case) == []


def test_never_is_about_one_action_and_one_rule() -> None:
    at = "pause at 26m30s within 2m"
    assert told("never kill", at, **PAUSED) == []
    assert told("never pause by p95-2x", at, **PAUSED) == []
    assert told("never pause until 20m", at, **PAUSED) == []
    assert len(told("never pause by errors-high", at, **PAUSED)) == 1


def test_a_phase_that_is_left_did_not_stay() -> None:
    ((_, found),) = told("stays progressing", "pause at 26m within 2m", **PAUSED)
    assert found.endswith("it was paused")


def test_where_a_run_ends_is_its_phase_and_its_exposure() -> None:
    at = "pause at 26m30s within 2m"
    assert told("ends paused at 10%", at, **PAUSED) == []
    assert len(told("ends paused at 50%", at, **PAUSED)) == 1
    assert len(told("ends at 50%", at, **PAUSED)) == 1
    assert len(told("ends progressing", at, **PAUSED)) == 1


def test_a_hold_is_asked_for_its_reason() -> None:
    few = {"traffic": "5/s", "until": "1h"}
    assert told("hold at 30m by sample", **few) == []
    ((_, found),) = told("hold at 30m by schedule", **few)
    assert "it was held by" in found
    assert len(told("hold at 50m", **KILLED)) == 2, "it had ended, and nobody expected that"


def test_an_order_that_the_server_would_refuse_is_a_finding_at_its_place() -> None:
    ((first),) = mismatches("nothing until 1h", events=["approve half at 10m by kim"])
    assert first.place == ("events", 0)
    assert "waits for no approval" in first.found
    ((late),) = mismatches("kill at 23m45s", events=["pause at 40m"], until="1h", **KILLED)
    assert "had ended by then" in late.found


def test_what_people_do_needs_no_expectation() -> None:
    script, result = played(
        "never kill", events=["pause at 10m by dana", "resume at 20m by dana", "step back at 30m"], until="40m"
    )
    assert actions(result) == ["start", "pause", "resume", "step_back"]
    assert mismatches("never kill", events=["pause at 10m by dana"]) == []
    assert script.until == 2400


def test_what_a_person_did_is_not_what_rampart_was_expected_to_do() -> None:
    ((expected, found),) = told("pause at 10m", events=["pause at 10m by dana"])
    assert expected == "pause at 10m"
    assert found.startswith("it was never paused")
