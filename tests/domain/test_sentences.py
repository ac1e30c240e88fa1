"""Expectations and events of a test, from one sentence."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.levels import NotationError
from controller.domain.sentences import EVENTS, EXPECTATIONS, parse_event, parse_expectation


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("kill at 12m by errors-jump", {"verb": "kill", "action": "kill", "at": 720.0, "by": "errors-jump"}),
        ("kill by errors-jump at 12m", {"at": 720.0, "by": "errors-jump"}),
        ("pause at 14m by no data", {"action": "pause", "by": "no data"}),
        ("advance to early at 31m within 2m", {"action": "advance", "to": "early", "within": 120.0}),
        ("step back to 0% at 1h30m", {"action": "step_back", "to": "0%", "at": 5400.0}),
        ("ask for approval of half at 3h", {"action": "request_approval", "of": "half"}),
        ("nothing from 10m until 1h", {"verb": "nothing", "start": 600.0, "until": 3600.0}),
        ("never step back until 2h", {"verb": "never", "action": "step_back", "until": 7200.0}),
        ("hold at 20m by schedule", {"verb": "hold", "at": 1200.0, "by": "schedule"}),
        ("stays progressing", {"verb": "stays", "noun": "progressing"}),
        ("ends paused at 10%", {"verb": "ends", "noun": "paused", "share": 10_000, "at": None}),
        ("ends at 0.5%", {"verb": "ends", "noun": "", "share": 500}),
        ("ends killed", {"verb": "ends", "noun": "killed", "share": None}),
    ],
)
def test_an_expectation_is_understood(text: str, meaning: dict[str, Any]) -> None:
    understood = parse_expectation(text)
    assert {key: getattr(understood, key) for key in meaning} == meaning


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("approve half at 3h by kim", {"verb": "approve", "noun": "half", "at": 10_800.0, "by": "kim"}),
        ("step back at 10m", {"verb": "step back", "at": 600.0, "by": ""}),
        ("source fails from 20m until 40m", {"verb": "source fails", "start": 1200.0, "until": 2400.0}),
    ],
)
def test_an_event_is_understood(text: str, meaning: dict[str, Any]) -> None:
    understood = parse_event(text)
    assert {key: getattr(understood, key) for key in meaning} == meaning


@pytest.mark.parametrize(
    ("text", "says", "at"),
    [
        ("kil at 12m", "nothing a test can say", 0),
        ("kill by errors-jump", "does not say when", 0),
        ("kill at soon", '"soon" is not a time', 8),
        ("kill at 12m to early", 'takes no "to"', 12),
        ("kill at 12m at 13m", "is said twice", 12),
        ("kill quickly at 12m", "expected one of", 5),
        ("nothing until", 'nothing after "until"', 8),
        ("nothing from 2h until 1h", "it ends before it begins", 22),
        ("ends dead", '"dead" is no phase', 5),
        ("ends at 400%", "more than 100%", 8),
        ("stays", "lacks a phase", 0),
        ("", "not a sentence", 0),
    ],
)
def test_what_cannot_be_understood_is_told_with_its_place(text: str, says: str, at: int) -> None:
    with pytest.raises(NotationError, match=says) as told:
        parse_expectation(text)
    assert told.value.offset == at


def test_a_misspelt_verb_is_guessed() -> None:
    with pytest.raises(NotationError) as told:
        parse_expectation("stepback at 3m")
    assert told.value.help == 'did you mean "step back"?'


WORDS = st.sampled_from(
    [*EXPECTATIONS, *EVENTS, "at", "by", "until", "from", "to", "of", "within", "3m", "5%", "x"]
)


@given(st.lists(WORDS, max_size=8).map(" ".join))
def test_any_words_are_understood_or_refused(text: str) -> None:
    for parse in (parse_expectation, parse_event):
        offset = 0
        try:
            parse(text)
        except NotationError as error:
            offset = error.offset
        assert 0 <= offset <= len(text)
