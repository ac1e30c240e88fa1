"""The sentences of a test: what happens to a rollout beside its metrics, and what is expected of it.

    expectation = "start" | "complete"  at …
                | "advance" [to STAGE]  at …
                | "step back" [to STAGE | 0%] [by RULE]  at …
                | "pause" | "kill"  [by RULE]  at …
                | "ask for approval" [of STAGE]  at …
                | "hold" [by BLOCK]  at …
                | "nothing" [from TIME] until TIME
                | "never" ACTION [by RULE] [until TIME]
                | "stays" PHASE | "ends" [PHASE] [at EXPOSURE]
    event       = "approve" STAGE | "pause" | "resume" | "advance" | "step back" | "kill" | "abandon"
                      at TIME [by NAME]
                | "source fails" | "provider fails"  from TIME until TIME
    at …        = at TIME [within DURATION]

Times count from the start of the run. Clauses come in any order.
"""

import difflib
import re
from typing import get_args

from msgspec import Struct

from controller.domain.levels import NotationError
from controller.domain.quantities import exposure, seconds
from controller.domain.rollout import Action, Block, Phase

MAX_LENGTH = 300

UNKNOWN_CAUSES = ("no data", "source errors")
CAUSES = (*UNKNOWN_CAUSES, "drift", "schedule")
"""What may stand behind `by` where no rule does."""

BLOCKS = tuple(get_args(Block.__annotations__["code"]))
PHASES = get_args(Phase)


class Form(Struct, frozen=True, kw_only=True):
    """`noun` names what follows the verb itself; `needs` and `may` are the clauses."""

    action: Action | None = None
    noun: str = ""
    needs: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()


class Sentence(Struct, frozen=True, kw_only=True):
    """A sentence understood. Times and durations in seconds; `share` in thousandths of a percent."""

    text: str
    verb: str
    action: Action | None = None
    noun: str = ""
    at: float | None = None
    within: float | None = None
    start: float = 0.0
    until: float | None = None
    to: str = ""
    of: str = ""
    by: str = ""
    share: int | None = None
    places: dict[str, tuple[int, int]] = {}


_AT = frozenset({"at"})
_HARM = frozenset({"within", "by"})
ACTIONS: dict[str, Form] = {
    "start": Form(action="start", needs=_AT, may=frozenset({"within"})),
    "advance": Form(action="advance", needs=_AT, may=frozenset({"within", "to"})),
    "complete": Form(action="complete", needs=_AT, may=frozenset({"within"})),
    "pause": Form(action="pause", needs=_AT, may=_HARM),
    "step back": Form(action="step_back", needs=_AT, may=_HARM | {"to"}),
    "kill": Form(action="kill", needs=_AT, may=_HARM),
    "ask for approval": Form(action="request_approval", needs=_AT, may=frozenset({"within", "of"})),
}
EXPECTATIONS: dict[str, Form] = {
    **ACTIONS,
    "hold": Form(needs=_AT, may=frozenset({"by"})),
    "nothing": Form(needs=frozenset({"until"}), may=frozenset({"from"})),
    **{
        f"never {verb}": Form(action=form.action, may=(form.may - {"within"}) | {"until"})
        for verb, form in ACTIONS.items()
    },
    "stays": Form(noun="a phase"),
    "ends": Form(noun="a phase", may=_AT),
    "ends at": Form(noun="an exposure"),
}
_BY = frozenset({"by"})
EVENTS: dict[str, Form] = {
    "approve": Form(action="approve", noun="a stage", needs=_AT, may=_BY),
    "pause": Form(action="pause", needs=_AT, may=_BY),
    "resume": Form(action="resume", needs=_AT, may=_BY),
    "advance": Form(action="advance", needs=_AT, may=_BY),
    "step back": Form(action="step_back", needs=_AT, may=_BY),
    "kill": Form(action="kill", needs=_AT, may=_BY),
    "abandon": Form(action="abandon", needs=_AT, may=_BY),
    "source fails": Form(needs=frozenset({"from", "until"})),
    "provider fails": Form(needs=frozenset({"from", "until"})),
}
_CLAUSES = frozenset({"at", "within", "from", "until", "to", "of", "by"})
_WORD = re.compile(r"\S+")


def parse_expectation(text: str) -> Sentence:
    """Raises NotationError."""
    return _parse(text, EXPECTATIONS, "write what is expected, as in: kill at 12m by errors-jump")


def parse_event(text: str) -> Sentence:
    """Raises NotationError."""
    return _parse(text, EVENTS, "write what happens, as in: approve half at 3h by kim")


def _parse(text: str, forms: dict[str, Form], help_text: str) -> Sentence:
    words = [(found.group(), found.start()) for found in _WORD.finditer(text)]
    if not words or len(text) > MAX_LENGTH:
        raise NotationError("not a sentence of a test", 0, max(len(text), 1), help_text)
    verb, count = _verb(words, forms, help_text)
    form = forms[verb]
    rest = words[count:]
    noun: list[tuple[str, int]] = []
    while form.noun and rest and rest[0][0] not in _CLAUSES:
        noun.append(rest.pop(0))
    clauses = _clauses(rest, text)
    _require(verb, form, clauses, text)
    return _understood(text, verb, form, noun, clauses)


def _verb(words: list[tuple[str, int]], forms: dict[str, Form], help_text: str) -> tuple[str, int]:
    """The longest verb the sentence begins with, and how many words it has."""
    for count in range(min(4, len(words)), 0, -1):
        verb = " ".join(word for word, _ in words[:count])
        if verb in forms:
            return verb, count
    first, offset = words[0]
    written = " ".join(word for word, _ in words[:2])
    close = difflib.get_close_matches(written, forms, n=1) or difflib.get_close_matches(first, forms, n=1)
    guess = f'did you mean "{close[0]}"?' if close else f"{help_text}; known: {', '.join(forms)}"
    raise NotationError(f'"{first[:40]}" is nothing a test can say', offset, len(first), guess)


Clauses = dict[str, tuple[str, int]]


def _clauses(words: list[tuple[str, int]], text: str) -> Clauses:
    found: Clauses = {}
    for index, (word, offset) in enumerate(words):
        if word not in _CLAUSES:
            if not found:
                raise NotationError(
                    f'expected one of {", ".join(sorted(_CLAUSES))}, not "{word[:40]}"', offset, len(word)
                )
            continue
        if word in found:
            raise NotationError(f'"{word}" is said twice', offset, len(word))
        following = words[index + 1 :]
        ends = next((one for one in following if one[0] in _CLAUSES), None)
        begin = following[0][1] if following and following[0] != ends else None
        if begin is None:
            raise NotationError(f'there is nothing after "{word}"', offset, len(word))
        found[word] = (text[begin : ends[1] if ends else len(text)].rstrip(), begin)
    return found


def _require(verb: str, form: Form, clauses: Clauses, text: str) -> None:
    missing = sorted(form.needs - clauses.keys())
    if missing:
        examples = {"at": "at 12m", "until": "until 1h", "from": "from 10m"}
        wanted = " ".join(examples[one] for one in missing)
        raise NotationError(f'"{verb}" does not say when', 0, len(text), f"add {wanted}")
    for word, (_, begin) in clauses.items():
        if word not in form.needs | form.may:
            allowed = ", ".join(sorted(form.needs | form.may)) or "nothing"
            raise NotationError(
                f'"{verb}" takes no "{word}"', begin - len(word) - 1, len(word), f"it takes: {allowed}"
            )


def _understood(text: str, verb: str, form: Form, noun: list[tuple[str, int]], clauses: Clauses) -> Sentence:
    if form.noun and not noun:
        raise NotationError(f'"{verb}" lacks {form.noun}', 0, len(text))
    named = " ".join(word for word, _ in noun)
    places = {word: (begin, len(value)) for word, (value, begin) in clauses.items()}
    if noun:
        places["noun"] = (noun[0][1], len(named))
    if verb in ("stays", "ends") and named and named not in PHASES:
        raise NotationError(f'"{named}" is no phase', *places["noun"], f"known: {', '.join(PHASES)}")
    share = None
    if verb == "ends" and "at" in clauses:
        share = _exposure(*clauses["at"])
    elif verb == "ends at":
        share = _exposure(named, places["noun"][0])
    start, until = _time(clauses, "from") or 0.0, _time(clauses, "until")
    if until is not None and until <= start:
        raise NotationError("it ends before it begins", *places["until"], "write a later time")
    return Sentence(
        text=text,
        verb="ends" if verb == "ends at" else verb.partition(" ")[0] if verb.startswith("never") else verb,
        action=form.action,
        noun="" if verb == "ends at" else named,
        at=None if verb == "ends" else _time(clauses, "at"),
        within=_time(clauses, "within"),
        start=start,
        until=until,
        to=clauses.get("to", ("", 0))[0],
        of=clauses.get("of", ("", 0))[0],
        by=clauses.get("by", ("", 0))[0],
        share=share,
        places=places,
    )


def _time(clauses: Clauses, word: str) -> float | None:
    if word not in clauses:
        return None
    text, begin = clauses[word]
    try:
        return seconds(text.replace(" ", ""))
    except ValueError:
        raise NotationError(
            f'"{text[:40]}" is not a time', begin, len(text), "count from the start of the run: 90s, 12m, 2h30m"
        ) from None


def _exposure(text: str, begin: int) -> int:
    try:
        return exposure(text)
    except ValueError as error:
        raise NotationError(str(error), begin, len(text)) from None
