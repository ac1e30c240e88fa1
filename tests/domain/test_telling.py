"""A message in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.message import ENDS, EVENTS, Cited, Message
from controller.domain.telling import LONGEST_REASON, facts, headline, links, printable, reason
from tests.support.rollouts import NOW

MESSAGE = Message(
    id="1", sequence=1, event="advanced", at=NOW, environment="production", flag="main/production/checkout-v2",
    actor="dana", cause="user", reason="looks good", rollout="checkout-v2", run="checkout-v2#3", exposure=500,
)  # fmt: skip
CITED = Cited(
    policy="web", rule="p95-3x", condition="latency_p95 > 3x baseline", detail="", unit="seconds", value=0.61,
    limit=0.6, baseline=0.2, sample=4100,
)  # fmt: skip


def test_a_headline_says_what_happened_to_what_and_where() -> None:
    assert headline(MESSAGE) == "Raised to 0.5 %: checkout-v2 in production"
    assert headline(replace(MESSAGE, event="killed")) == "Killed: checkout-v2 in production"
    assert headline(replace(MESSAGE, event="test", environment="")) == "Test message of Rampart"


def test_what_was_only_observed_is_not_told_as_done() -> None:
    unreal = replace(MESSAGE, observed=True)
    assert headline(unreal) == "Raised to 0.5 %: checkout-v2 in production (only observed)"
    assert dict(facts(unreal))["Exposure"] == "would be 0.5 %"


def test_a_flag_without_a_rollout_is_named_itself() -> None:
    bare = replace(MESSAGE, event="killed", rollout=None, run=None)
    assert headline(bare) == "Killed: main/production/checkout-v2 in production"
    assert dict(facts(bare))["Flag"] == "main/production/checkout-v2"


def test_facts_carry_the_numbers_in_the_units_of_the_rule() -> None:
    told = dict(facts(replace(MESSAGE, cited=CITED, cause="policy", actor="rampart")))
    assert told["Rule"] == "web/p95-3x: latency_p95 > 3x baseline"
    assert (told["Value"], told["Limit"], told["Baseline"]) == ("610 ms", "600 ms", "200 ms")
    assert (told["Sample"], told["By"]) == ("4100 requests", "rampart (policy)")
    assert told["Run"] == "checkout-v2#3 of main/production/checkout-v2"


def test_a_number_that_is_unknown_is_not_zero() -> None:
    told = dict(
        facts(replace(MESSAGE, cited=replace(CITED, value=None, baseline=None, sample=None), exposure=None))
    )
    assert (told["Value"], told["Baseline"], told["Sample"]) == ("–", "–", "–")
    assert "Exposure" not in told


@pytest.mark.parametrize(
    "runbook", ["javascript:alert(1)", "runbook.md", "https://wiki.example/a b", 'https://"x"', ""]
)
def test_what_is_no_web_address_is_no_link(runbook: str) -> None:
    assert links(replace(MESSAGE, runbook=runbook)) == []
    assert links(replace(MESSAGE, runbook="https://wiki.example/a?b=c")) == [
        ("Runbook", "https://wiki.example/a?b=c")
    ]


@given(st.text(max_size=5000))
def test_whatever_somebody_wrote_is_cut_and_holds_no_control_characters(text: str) -> None:
    told = reason(replace(MESSAGE, reason=text))
    assert len(told) <= LONGEST_REASON
    assert all(letter.isprintable() or letter == "\n" for letter in told)
    hostile = replace(MESSAGE, actor=text, flag=text, rollout=text, run=text, environment=text, owner=text)
    for shown in [headline(hostile), *(fact for pair in facts(hostile) for fact in pair)]:
        assert shown.isprintable()


def test_line_breaks_of_a_reason_stay() -> None:
    assert printable("first\nsecond\r\t\u202ethird") == "first\nsecond   third"


def test_everything_that_opens_an_incident_is_ended_by_something() -> None:
    ended = {event for events in ENDS.values() for event in events}
    assert ended == {"paused", "stepped_back", "killed", "approval"}
    assert set(ENDS) <= set(EVENTS.values())
    assert replace(MESSAGE, event="resumed").ends == {"paused", "stepped_back"}
    assert replace(MESSAGE, event="test").ends == frozenset()
