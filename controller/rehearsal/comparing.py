"""What was expected of a case, beside what came of it."""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from controller.domain.quantities import duration_text, exposure_text
from controller.domain.rollout import Action, Phase
from controller.domain.sentences import Sentence
from controller.rehearsal.playing import Happening, Holding, Played
from controller.rehearsal.script import Script

HARM: frozenset[Action] = frozenset({"pause", "step_back", "lower", "kill"})
"""What the engine does only when something is wrong: a test that does not expect it has found something."""

MOVES: frozenset[Action] = HARM | {"advance", "complete", "abandon", "request_approval"}
PAST: dict[Action, str] = {
    "start": "started",
    "advance": "advanced",
    "complete": "completed",
    "pause": "paused",
    "step_back": "stepped back",
    "lower": "lowered",
    "kill": "killed",
    "request_approval": "waiting for approval",
    "abandon": "abandoned",
}


class Mismatch(Struct, frozen=True, kw_only=True):
    """`place` is the path of what was written, below the case."""

    place: tuple[str | int, ...]
    expected: str
    found: str


def clock(moment: float) -> str:
    """1530 → `25m30s`."""
    return duration_text(moment).replace(" ", "") if moment else "0s"


def compare(script: Script, played: Played) -> list[Mismatch]:
    """Everything that came otherwise, in the order it was written; what nobody expected last."""
    places = {id(one): ("events", index) for index, one in enumerate(script.events)}
    found = [
        Mismatch(place=places[id(cue)], expected=cue.text, found=f"it was refused: {why}")
        for cue, why in played.refused
    ]
    for index, sentence in enumerate(script.expectations):
        otherwise = _otherwise(sentence, script, played)
        if otherwise is not None:
            found.append(Mismatch(place=("expect", index), expected=sentence.text, found=otherwise))
    return found + list(_unexpected(script, played))


def _otherwise(sentence: Sentence, script: Script, played: Played) -> str | None:
    """What came instead; None when it came as expected."""
    match sentence.verb:
        case "nothing":
            return _told(_between(played.happened, sentence.start, sentence.until, MOVES))
        case "never":
            return _told(one for one in _between(played.happened, 0, sentence.until) if _fits(sentence, one))
        case "hold":
            return _not_held(sentence, played)
        case "stays":
            return _not_stayed(sentence, played)
        case "ends":
            return _ended_otherwise(sentence, played)
        case _:
            if any(_comes_true(sentence, one, script, played) for one in played.happened):
                return None
            return _instead(sentence, played)


# — one happening —


def _comes_true(sentence: Sentence, one: Happening, script: Script, played: Played) -> bool:
    if sentence.at is None or not _fits(sentence, one):
        return False
    allowed = sentence.within if sentence.within is not None else _tolerance(one, script, played)
    return abs(one.at - sentence.at) <= allowed + 1e-6


def _tolerance(one: Happening, script: Script, played: Played) -> float:
    """A poll, and another for every step before it: each may wait for a poll to begin its bake."""
    raised = sum(earlier.action in ("start", "advance") and earlier.at < one.at for earlier in played.happened)
    return script.poll * max(raised, 1)


def _fits(sentence: Sentence, one: Happening) -> bool:
    if one.action != sentence.action or one.cause == "user":
        return False
    if sentence.to and sentence.to != (one.stage or "0%"):
        return False
    if sentence.of and sentence.of != one.asked:
        return False
    return not sentence.by or _caused(sentence.by, one)


def _caused(by: str, one: Happening) -> bool:
    match by:
        case "no data" | "source errors":
            return one.cause == "no_data" and f" of {by} in " in one.text
        case "drift" | "schedule":
            return one.cause == by
        case _:
            return by in (one.rule, one.rule.partition("/")[2])


# — what came instead —


def _between(
    happened: Iterable[Happening], start: float, until: float | None, actions: frozenset[Action] | None = None
) -> Iterator[Happening]:
    for one in happened:
        late = until is not None and one.at > until
        if one.cause != "user" and start <= one.at and not late and (actions is None or one.action in actions):
            yield one


def _told(several: Iterable[Happening]) -> str | None:
    first = next(iter(several), None)
    return None if first is None else f"at {clock(first.at)} it was {_in_words(first)}"


def _in_words(one: Happening) -> str:
    by = f" by {one.rule.partition('/')[2]}" if one.rule else ""
    to = f" to {one.stage or '0%'}" if one.action in ("advance", "step_back") else ""
    return f"{PAST.get(one.action, one.action)}{to}{by}"


def _instead(sentence: Sentence, played: Played) -> str:
    same = [one for one in played.happened if one.action == sentence.action and one.cause != "user"]
    what = PAST[sentence.action] if sentence.action else ""
    if not same:
        return f"it was never {what}; at the end it is {_state(played)}"
    return "it was " + ", and ".join(f"{_in_words(one)} at {clock(one.at)}" for one in same[:3])


def _state(played: Played) -> str:
    at = f" at {exposure_text(played.run.exposure)}" if played.run.exposure else ""
    why = f": {played.held[-1].text}" if played.held and played.held[-1].text else ""
    return f"{played.run.phase}{at}{why}"


def _not_held(sentence: Sentence, played: Played) -> str | None:
    moment = sentence.at or 0.0
    held = holding(played.held, moment)
    if moment > played.ended_at:
        return f"the run had ended by then: it is {played.run.phase}"
    if held is None or not held.codes:
        return f"nothing held it at {clock(moment)}"
    if sentence.by and sentence.by not in held.codes:
        return f"it was held by {', '.join(sorted(held.codes))}: {held.text}"
    return None


def holding(held: Sequence[Holding], moment: float) -> Holding | None:
    """What held the run at that moment."""
    return next((one for one in reversed(held) if one.at <= moment), None)


def _not_stayed(sentence: Sentence, played: Played) -> str | None:
    phases: list[tuple[float, Phase]] = [(0.0, "pending"), *((one.at, one.phase) for one in played.happened)]
    entered = next((index for index, (_, phase) in enumerate(phases) if phase == sentence.noun), None)
    if entered is None:
        return f"it was never {sentence.noun}; at the end it is {_state(played)}"
    left = next(((at, phase) for at, phase in phases[entered:] if phase != sentence.noun), None)
    return None if left is None else f"at {clock(left[0])} it was {left[1]}"


def _ended_otherwise(sentence: Sentence, played: Played) -> str | None:
    otherwise = sentence.noun and sentence.noun != played.run.phase
    elsewhere = sentence.share is not None and sentence.share != played.run.exposure
    return f"at {clock(played.ended_at)} it is {_state(played)}" if otherwise or elsewhere else None


# — what nobody expected —


def _unexpected(script: Script, played: Played) -> Iterator[Mismatch]:
    """A false alarm beside what was expected is a finding; so is a run that never began to be one.

    One that came at another time than expected, or within a "nothing", was told already.
    """
    expected = [one for one in script.expectations if one.at is not None and one.action is not None]
    quiet = [one for one in script.expectations if one.verb == "nothing"]
    for one in played.happened:
        alarm = one.action in HARM and one.cause != "user"
        told = any(_fits(sentence, one) for sentence in expected)
        told = told or any(sentence.start <= one.at <= (sentence.until or 0.0) for sentence in quiet)
        if alarm and not told:
            yield Mismatch(
                place=("name",),
                expected=f"nothing else (write: {_as_expectation(one)})",
                found=f"at {clock(one.at)} it was {_in_words(one)}",
            )
    if not any(one.action == "start" for one in played.happened) and not _spoken_of_as_pending(script):
        why = played.held[-1].text if played.held else "nothing was judged"
        yield Mismatch(place=("name",), expected="a start (else write: stays pending)", found=f"it waits: {why}")


def _spoken_of_as_pending(script: Script) -> bool:
    return any(
        one.noun in ("pending", "abandoned", "killed") or one.text.startswith("never start") or one.verb == "hold"
        for one in script.expectations
    )


def _as_expectation(one: Happening) -> str:
    verb = one.action.replace("_", " ")
    by = one.rule.partition("/")[2] or ("no data" if " of no data in " in one.text else "")
    return f"{verb} at {clock(one.at)}" + (f" by {by}" if by else "")
