"""Expectations and events of a test, from one sentence."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.levels import NotationError
from controller.domain.sentences import EVENTS, EXPECTATIONS, Sentence, parse_event, parse_expectation


def sentence(text: str, **meaning: Any) -> Sentence:
    return Sentence(text=text, **meaning)


@pytest.mark.parametrize(
    "meant",
    [
        sentence(
            "kill at 12m by errors-jump", verb="kill", action="kill", at=720.0, by="errors-jump",
            places={"at": (8, 3), "by": (15, 11)},
        ),
        sentence(
            "kill by errors-jump at 12m", verb="kill", action="kill", at=720.0, by="errors-jump",
            places={"by": (8, 11), "at": (23, 3)},
        ),
        sentence(
            "pause at 14m by no data", verb="pause", action="pause", at=840.0, by="no data",
            places={"at": (9, 3), "by": (16, 7)},
        ),
        sentence(
            "advance to early at 31m within 2m", verb="advance", action="advance", at=1860.0, within=120.0,
            to="early", places={"to": (11, 5), "at": (20, 3), "within": (31, 2)},
        ),
        sentence(
            "step back to 0% at 1h30m", verb="step back", action="step_back", at=5400.0, to="0%",
            places={"to": (13, 2), "at": (19, 5)},
        ),
        sentence(
            "ask for approval of half at 3h", verb="ask for approval", action="request_approval", at=10_800.0,
            of="half", places={"of": (20, 4), "at": (28, 2)},
        ),
        sentence(
            "nothing from 10m until 1 h", verb="nothing", start=600.0, until=3600.0,
            places={"from": (13, 3), "until": (23, 3)},
        ),
        sentence("nothing until 1s", verb="nothing", until=1.0, places={"until": (14, 2)}),
        sentence(
            "never step back until 2h", verb="never", action="step_back", until=7200.0,
            places={"until": (22, 2)},
        ),
        sentence("never kill", verb="never", action="kill"),
        sentence(
            "hold at 20m by schedule", verb="hold", at=1200.0, by="schedule",
            places={"at": (8, 3), "by": (15, 8)},
        ),
        sentence("stays progressing", verb="stays", noun="progressing", places={"noun": (6, 11)}),
        sentence(
            "ends paused at 10%", verb="ends", noun="paused", share=10_000,
            places={"at": (15, 3), "noun": (5, 6)},
        ),
        sentence("ends at 0.5%", verb="ends", share=500, places={"noun": (8, 4)}),
        sentence("ends killed", verb="ends", noun="killed", places={"noun": (5, 6)}),
    ],
    ids=lambda meant: meant.text,
)  # fmt: skip
def test_an_expectation_is_understood(meant: Sentence) -> None:
    assert parse_expectation(meant.text) == meant


@pytest.mark.parametrize(
    "meant",
    [
        sentence(
            "approve the big one at 3h by kim", verb="approve", action="approve", noun="the big one",
            at=10_800.0, by="kim", places={"at": (23, 2), "by": (29, 3), "noun": (8, 11)},
        ),
        sentence("step back at 10m", verb="step back", action="step_back", at=600.0, places={"at": (13, 3)}),
        sentence(
            "source fails from 20m until 40m", verb="source fails", start=1200.0, until=2400.0,
            places={"from": (18, 3), "until": (28, 3)},
        ),
    ],
    ids=lambda meant: meant.text,
)  # fmt: skip
def test_an_event_is_understood(meant: Sentence) -> None:
    assert parse_event(meant.text) == meant


CLAUSES = "expected one of at, by, from, of, to, until, within"
EXAMPLE = "write what is expected, as in: kill at 12m by errors-jump"
COUNT = "count from the start of the run: 90s, 12m, 2h30m"
PHASES = "known: pending, progressing, paused, completed, killed, abandoned"
LONG = "q" * 50


@pytest.mark.parametrize(
    ("text", "says", "place", "help_"),
    [
        ("", "not a sentence of a test", (0, 1), EXAMPLE),
        ("x" * 301, "not a sentence of a test", (0, 301), EXAMPLE),
        ("kil at 12m", '"kil" is nothing a test can say', (0, 3), 'did you mean "kill"?'),
        ("stepp back at 3m", '"stepp" is nothing a test can say', (0, 5), 'did you mean "step back"?'),
        ("nevr kill by x", '"nevr" is nothing a test can say', (0, 4), 'did you mean "never kill"?'),
        ("stepback at 3m", '"stepback" is nothing a test can say', (0, 8), 'did you mean "step back"?'),
        (
            LONG, f'"{LONG[:40]}" is nothing a test can say', (0, 50),
            f"{EXAMPLE}; known: {', '.join(EXPECTATIONS)}",
        ),
        ("kill by errors-jump", '"kill" does not say when', (0, 19), "add at 12m"),
        ("nothing from 10m", '"nothing" does not say when', (0, 16), "add until 1h"),
        ("kill at soon", '"soon" is not a time', (8, 4), COUNT),
        ("kill at " + LONG, f'"{LONG[:40]}" is not a time', (8, 50), COUNT),
        ("kill at 12m to early", '"kill" takes no "to"', (12, 2), "it takes: at, by, within"),
        ("stays paused by x", '"stays" takes no "by"', (13, 2), "it takes: nothing"),
        ("kill at 12m at 13m", '"at" is said twice', (12, 2), ""),
        ("kill quickly at 12m", f'{CLAUSES}, not "quickly"', (5, 7), ""),
        (f"kill {LONG} at 12m", f'{CLAUSES}, not "{LONG[:40]}"', (5, 50), ""),
        ("nothing until", 'there is nothing after "until"', (8, 5), ""),
        ("kill by at 3m", 'there is nothing after "by"', (5, 2), ""),
        ("nothing from 2h until 1h", "it ends before it begins", (22, 2), "write a later time"),
        ("nothing from 1h until 1h", "it ends before it begins", (22, 2), "write a later time"),
        ("ends dead", '"dead" is no phase', (5, 4), PHASES),
        ("stays dead", '"dead" is no phase', (6, 4), PHASES),
        ("ends paused at 400%", '"400%" is more than 100%', (15, 4), ""),
        ("ends at 400%", '"400%" is more than 100%', (8, 4), ""),
        ("stays", '"stays" lacks a phase', (0, 5), ""),
        ("ends", '"ends" lacks a phase', (0, 4), ""),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_told_with_its_place_and_what_to_write(
    text: str, says: str, place: tuple[int, int], help_: str
) -> None:
    with pytest.raises(NotationError) as told:
        parse_expectation(text)
    error = told.value
    assert (str(error), (error.offset, error.length), error.help) == (says, place, help_)


@pytest.mark.parametrize(
    ("text", "says", "help_"),
    [
        ("approve at 3h", '"approve" lacks a stage', ""),
        ("approve half", '"approve" does not say when', "add at 12m"),
        ("source fails", '"source fails" does not say when', "add from 10m until 1h"),
        ("source fails from 5m", '"source fails" does not say when', "add until 1h"),
    ],
)
def test_an_event_that_lacks_something_is_told_what(text: str, says: str, help_: str) -> None:
    with pytest.raises(NotationError) as told:
        parse_event(text)
    error = told.value
    assert (str(error), (error.offset, error.length), error.help) == (says, (0, len(text)), help_)


def test_what_is_no_event_is_told_all_there_are() -> None:
    with pytest.raises(NotationError) as told:
        parse_event("stays paused")
    known = f"write what happens, as in: approve half at 3h by kim; known: {', '.join(EVENTS)}"
    assert (str(told.value), told.value.help) == ('"stays" is nothing a test can say', known)


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
