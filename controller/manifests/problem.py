"""What is wrong with a manifest, where, and what to write instead; and how that is printed."""

import difflib
import re
from collections.abc import Iterable
from itertools import islice

from msgspec import Struct

from controller.manifests.rulebook.rule import Severity

MAX_CANDIDATES = 600  # time zone names fit in
MAX_LISTED = 20

SLIPS_FROM = 3
"""Words shorter than this are too easily turned into others."""


class Span(Struct, frozen=True, order=True, gc=False):
    """1-based line and column of the first character, and how many characters to underline on that line."""

    line: int
    column: int
    length: int = 1


class Edit(Struct, frozen=True):
    """What would mend it for certain: the text that replaces a span."""

    span: Span
    text: str


class Problem(Struct, frozen=True, kw_only=True):
    """One finding. `code` is stable, see docs/lint.md. `source_line` is the text of `line`."""

    file: str
    line: int
    column: int
    length: int
    code: str
    message: str
    help: str = ""
    severity: Severity = "error"
    source_line: str = ""
    fix: Edit | None = None

    @property
    def order(self) -> tuple[str, int, int, str, str]:
        return (self.file, self.line, self.column, self.code, self.message)


def has_errors(problems: Iterable[Problem]) -> bool:
    return any(problem.severity == "error" for problem in problems)


def render(problem: Problem) -> str:
    """`file:line:col: code message`, the source line, a caret line under the span, and the help."""
    severity = "" if problem.severity == "error" else f" {problem.severity}:"
    lines = [f"{problem.file}:{problem.line}:{problem.column}: {problem.code}{severity} {problem.message}"]
    if problem.source_line.strip():
        width = max(len(str(problem.line)), 3)
        lines += [f"{'':{width}}|", f"{problem.line:>{width}}|{problem.source_line.rstrip()}"]
        lines.append(f"{'':{width}}|{_indent(problem)}{'^' * _visible_length(problem)}")
    if problem.help:
        lines.append(f"   = help: {problem.help}")
    return "\n".join(lines)


def _indent(problem: Problem) -> str:
    # A tab stays a tab, so that the caret stands under its character whatever the width of a tab is.
    return "".join("\t" if char == "\t" else " " for char in problem.source_line[: problem.column - 1])


def _visible_length(problem: Problem) -> int:
    return max(1, min(problem.length, len(problem.source_line.rstrip()) - problem.column + 1))


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` was most likely meant to be, or nothing."""
    lowered = {candidate.lower(): candidate for candidate in islice(known, MAX_CANDIDATES)}
    found = difflib.get_close_matches(word.lower()[:100], lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else ""


def meant(word: str, known: Iterable[str]) -> str:
    """The one known word that `word` is for certain: spelt in another case, or one slip away. Nothing if unsure.

    Digits are never a slip: p95 and p99 are both something that people measure.
    """
    choices = [candidate for candidate in islice(known, MAX_CANDIDATES) if candidate != word]
    respelt = [candidate for candidate in choices if _plainly(candidate) == _plainly(word)]
    if respelt or len(word) < SLIPS_FROM:
        return respelt[0] if len(respelt) == 1 else ""
    close = [candidate for candidate in choices if _one_slip(word.lower(), candidate.lower())]
    return close[0] if len(close) == 1 else ""


def _plainly(word: str) -> str:
    return re.sub(r"[-_ ]", "", word).lower()


def _one_slip(word: str, other: str) -> bool:
    """One character more, less, replaced, or two neighbours swapped; the digits are the same."""
    if abs(len(word) - len(other)) > 1 or re.sub(r"\D", "", word) != re.sub(r"\D", "", other):
        return False
    start = next((at for at, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), None)
    if start is None:
        return len(word) != len(other)
    rest, other_rest = word[start:], other[start:]
    swapped = rest[1::-1] == other_rest[:2] and rest[2:] == other_rest[2:]
    return swapped or other_rest[1:] in (rest, rest[1:]) or rest[1:] == other_rest


def did_you_mean(word: str, known: Iterable[str]) -> str:
    choices = list(known)
    close = nearest(word, choices)
    if close:
        return f'did you mean "{close}"?'
    return f"known: {listed(sorted(choices))}" if choices else ""


def listed(names: Iterable[str]) -> str:
    """The names with commas, cut short where nobody would read on."""
    shown = list(islice(names, MAX_LISTED + 1))
    return ", ".join(shown[:MAX_LISTED]) + (", …" if len(shown) > MAX_LISTED else "")
