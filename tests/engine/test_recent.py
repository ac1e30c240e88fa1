"""What is remembered of runs, so that pages have something to show: the newest, and not too much of it."""

from datetime import timedelta
from pathlib import Path

from controller.domain.audit import AuditEntry
from controller.recent import POINTS_KEPT, Recent
from tests.support.engine import World
from tests.support.statuses import NOW, make_rule, make_status

RULE = make_rule("errors-high")


def test_the_run_that_was_not_seen_for_longest_is_forgotten_first() -> None:
    recent = Recent(most_runs=2)
    for name in ("a", "b", "a", "c"):
        recent.seen(make_status(f"{name}#1"), NOW)

    assert [one.status.plan for one in recent.all()] == ["a", "c"]
    assert recent.curve("b", RULE) == ()


def test_a_curve_keeps_so_many_points_and_each_look_once() -> None:
    recent = Recent()
    for n in range(POINTS_KEPT + 5):
        for _ in range(2):
            recent.seen(make_status("a#1", rules=[RULE], observed_at=NOW + timedelta(seconds=n)), NOW)

    curve = recent.curve("a", RULE)
    assert len(curve) == POINTS_KEPT
    assert curve[-1].at == NOW + timedelta(seconds=POINTS_KEPT + 4)


def test_a_new_run_begins_new_curves() -> None:
    recent = Recent()
    recent.seen(make_status("a#1", rules=[RULE]), NOW)
    recent.seen(make_status("a#2", rules=[RULE], observed_at=NOW + timedelta(seconds=9)), NOW)

    assert len(recent.curve("a", RULE)) == 1


def test_an_answer_that_was_overtaken_changes_nothing() -> None:
    recent = Recent()
    recent.seen(make_status("a#1", version=5, reason="new"), NOW)
    recent.seen(make_status("a#1", version=4, reason="old"), NOW)

    known = recent.of("a")
    assert known is not None
    assert known.status.reason == "new"


def test_events_are_kept_without_their_evidence() -> None:
    recent = Recent()
    recent.seen(make_status("a#1"), NOW)
    entry = AuditEntry(
        id="1", at=NOW, actor="dana", action="pause", cause="user", subject="a#1", environment="e", reason="r",
        details={"inputs": "large"},
    )  # fmt: skip
    recent.told("a", [entry])

    known = recent.of("a")
    assert known is not None
    assert [event.reason for event in known.events] == ["r"]
    assert known.events[0].details == {}


async def test_ticks_tell_what_they_saw_also_while_the_database_is_away(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.started()
    await world.run_for(60.0)
    seen = world.engine.recent.of("checkout-v2")
    assert seen is not None
    assert [rule.outcome for rule in seen.status.rules if rule.rule == "errors-high"] == ["pass"]

    world.source.sides["on"] = {"error_rate": 0.03}
    await world.blind_for(60.0)

    blind = world.engine.recent.of("checkout-v2")
    assert blind is not None
    (rule,) = [rule for rule in blind.status.rules if rule.rule == "errors-high"]
    assert (rule.outcome, rule.value) == ("breach", 0.03)
    assert blind.at == world.clock.now()
    values = [point.value for point in world.engine.recent.curve("checkout-v2", rule)]
    assert values[0] != values[-1] == 0.03
