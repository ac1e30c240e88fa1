"""What an alert may do, to which rollouts. Whatever strangers put into one."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.alerts import NAME_LENGTH, SUMMARY_LENGTH, Alert, most_allowed, named, one_line, order
from controller.domain.plan import FlagRef
from controller.lastknown import KnownFlag
from tests.support.rollouts import make_plan

START = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)
PRODUCTION = KnownFlag.of(make_plan())
STAGING = KnownFlag.of(make_plan(flag={"environment": "staging"}))
OTHER_PLAN = replace(PRODUCTION, plan="checkout-again")
KILLABLE = KnownFlag.of(make_plan(alerts={"maxAction": "kill"}))
KNOWN = [PRODUCTION, STAGING, OTHER_PLAN]

labels = st.dictionaries(st.text(max_size=20), st.text(max_size=400), max_size=5)
instants = st.datetimes(timezones=st.timezones() | st.just(timezone(timedelta(hours=14))))


def alert(**labels: str) -> Alert:
    return Alert(fingerprint="c0ffee", starts_at=START, firing=True, labels={"alertname": "HighErrors", **labels})


@pytest.mark.parametrize(
    ("labels", "plans"),
    [
        ({"rampart_rollout": "checkout-v2"}, [PRODUCTION, STAGING]),
        ({"rampart_rollout": "checkout-v2", "rampart_environment": "staging"}, [STAGING]),
        ({"rampart_rollout": "checkout-v2", "rampart_environment": ""}, [PRODUCTION, STAGING]),
        ({"rampart_rollout": "checkout-v2", "rampart_environment": "moon"}, []),
        ({"rampart_rollout": "unheard-of", "flag": "checkout-v2", "environment": "staging"}, []),
        ({"flag": "checkout-v2", "environment": "production"}, [PRODUCTION, OTHER_PLAN]),
        ({"rampart_rollout": "", "flag": "checkout-v2", "environment": "staging"}, [STAGING]),
        ({"rampart_rollout": "checkout-v2", "rampart_action": "none"}, []),
        ({"flag": "checkout-v2"}, []),
        ({"environment": "production"}, []),
        ({}, []),
    ],
)
def test_an_alert_names_rollouts_by_plan_or_by_flag_and_environment(
    labels: dict[str, str], plans: list[KnownFlag]
) -> None:
    assert named(alert(**labels), KNOWN) == plans


@pytest.mark.parametrize(
    ("wish", "target", "may_kill", "action", "remark"),
    [
        ("kill", KILLABLE, True, "kill", ""),
        ("kill", KILLABLE, False, "pause", "its token may not kill there"),
        ("kill", PRODUCTION, True, "pause", "the plan lets alerts pause only"),
        ("pause", KILLABLE, True, "pause", ""),
        ("", KILLABLE, True, "pause", ""),
        (None, KILLABLE, True, "pause", ""),
        ("KILL", KILLABLE, True, "pause", "neither pause nor kill"),
        ("delete\neverything", KILLABLE, True, "pause", '"delete everything"'),
    ],
)
def test_only_a_plain_wish_that_plan_and_token_allow_kills_and_all_else_pauses(
    wish: str | None, target: KnownFlag, may_kill: bool, action: str, remark: str
) -> None:
    asking = alert() if wish is None else alert(rampart_action=wish)
    given = order(asking, target, may_kill=may_kill, killed=2, most_killed=3)
    assert given.action == action
    assert remark in given.remark
    assert bool(given.remark) == bool(remark)
    assert given.remark in given.reason


def test_after_too_many_kills_an_alert_pauses_whatever_it_asks_for() -> None:
    asking = alert(rampart_action="kill")
    spared = order(asking, KILLABLE, may_kill=True, killed=3, most_killed=3)
    assert (spared.action, spared.spared) == ("pause", True)
    assert "3 flags were killed" in spared.reason
    for target, may_kill in ((PRODUCTION, True), (KILLABLE, False)):
        assert not order(asking, target, may_kill=may_kill, killed=3, most_killed=3).spared


def test_a_plan_allows_alerts_no_more_than_a_pause_unless_it_says_so_and_never_more_while_it_observes() -> None:
    assert most_allowed(make_plan()) == "pause"
    assert most_allowed(make_plan(alerts={"maxAction": "kill"})) == "kill"
    assert most_allowed(make_plan(alerts={"maxAction": "kill"}, mode="observe")) == "pause"


def test_the_same_start_of_an_alert_is_the_same_whoever_tells_it_and_in_whatever_zone() -> None:
    one = alert()
    elsewhere = replace(
        one, starts_at=START.astimezone(timezone(timedelta(hours=5))), summary="now 8 %", origin="prometheus-b"
    )
    assert one.identity("checkout-v2#1") == elsewhere.identity("checkout-v2#1")
    others = {
        one.identity("checkout-v2#2"),
        replace(one, starts_at=START + timedelta(microseconds=1)).identity("checkout-v2#1"),
        replace(one, fingerprint="decaf").identity("checkout-v2#1"),
    }
    assert len(others | {one.identity("checkout-v2#1")}) == 4


def test_the_reason_names_alert_origin_and_summary() -> None:
    told = replace(alert(), origin="prometheus.example", summary="7 % of requests\n fail")
    assert told.text == "alert HighErrors of prometheus.example: 7 % of requests fail"


@given(labels, instants, st.text(max_size=2000), st.text(max_size=300), st.text(min_size=1, max_size=50))
def test_whatever_an_alert_says_becomes_one_bounded_line_and_an_order_that_does_no_more_than_allowed(
    found: dict[str, str], starts_at: datetime, summary: str, origin: str, fingerprint: str
) -> None:
    one = Alert(
        fingerprint=fingerprint, starts_at=starts_at, firing=True, labels=found, summary=summary, origin=origin
    )
    assert len(one.text) <= 2 * NAME_LENGTH + SUMMARY_LENGTH + 20
    assert all(char.isprintable() for char in one.text)
    assert len(one.identity("x")) == 32
    given = order(one, PRODUCTION, may_kill=True, killed=0, most_killed=3)
    assert given.action == "pause"
    assert given.flag == FlagRef(provider="main", environment="production", key="checkout-v2")
    assert all(target in KNOWN for target in named(one, KNOWN))


def test_text_that_would_turn_a_line_around_or_break_it_does_neither() -> None:
    assert one_line("a\x00b\u202egpj.exe\r\nINFO  forged \x1b[31m", 100) == "a b gpj.exe INFO forged [31m"
    assert one_line("x" * 200, 100) == "x" * 99 + "…"
