"""`lint --fix`: what can only have been meant in one way is written so; every other character stays."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from controller.manifests.lint import lint
from controller.manifests.problem import Edit, Problem
from controller.manifests.reader import line_starts

ROUNDS = 5
"""A mended key lets the checks behind it run, which may find more; this deep at most."""


class Mended(Struct, frozen=True):
    """The files as they should be, in the order given, and how many findings that settled."""

    files: list[tuple[str, bytes]]
    count: int


def mend(files: Sequence[tuple[str, bytes]]) -> Mended:
    now, count = list(files), 0
    for _ in range(ROUNDS):
        problems = lint(now)
        better = [_mended(now, index, problems) for index in range(len(now))]
        done = sum(number for _, number in better)
        if not done:
            break
        now, count = [file for file, _ in better], count + done
    return Mended(now, count)


def _mended(
    files: Sequence[tuple[str, bytes]], index: int, problems: Iterable[Problem]
) -> tuple[tuple[str, bytes], int]:
    """One file with its edits; as it was if they would make anything worse."""
    file, content = files[index]
    own = [problem for problem in problems if problem.file == file]
    edits = _apart(one.fix for one in own if one.fix is not None)
    if not edits:
        return files[index], 0
    mended = (file, edited(content.decode(), edits).encode())
    after = lint([*files[:index], mended, *files[index + 1 :]])
    if _errors(after, file) > _errors(own, file):
        return files[index], 0
    return mended, len(edits)


def _errors(problems: Iterable[Problem], file: str) -> int:
    return sum(problem.file == file and problem.severity == "error" for problem in problems)


def _apart(edits: Iterable[Edit]) -> list[Edit]:
    """In order, and none within another: what is left over is for the next round."""
    kept: list[Edit] = []
    for edit in sorted(set(edits), key=lambda one: one.span):
        last = kept[-1].span if kept else None
        if last is None or (last.line, last.column + last.length) <= (edit.span.line, edit.span.column):
            kept.append(edit)
    return kept


def edited(text: str, edits: Iterable[Edit]) -> str:
    """The text with these spans replaced. They do not overlap."""
    # The reader does not count a byte order mark.
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    text = text.removeprefix(mark)
    starts = line_starts(text)
    for edit in sorted(edits, key=lambda one: one.span, reverse=True):
        start = starts[edit.span.line - 1] + edit.span.column - 1
        text = text[:start] + edit.text + text[start + edit.span.length :]
    return mark + text
