"""What can be wrong with a file beside what stands in its documents: its name, its owner, and what it allows."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath

from controller.domain.flag import Flag
from controller.domain.rehearsal import RolloutTest
from controller.manifests.loader import Loaded, Manifest
from controller.manifests.policy_checks import Problems
from controller.manifests.problem import Problem, Span
from controller.manifests.reader import Source
from controller.manifests.rulebook import RULES

ENDS = {"RolloutPlan": "rollout", "GuardrailPolicy": "policy", "Flag": "flag", "RolloutTest": "test"}
_NAMED = re.compile(r"(.+)\.(rollout|policy|flag|test)\.ya?ml")
_ALLOWED = re.compile(r"#\s*rampart:\s*allow\s+(R\d{3}(?:[\s,]+R\d{3})*)")


def check_file(loaded: Loaded) -> Problems:
    manifests = [*loaded.documents, *loaded.partial]
    named = _NAMED.fullmatch(PurePath(loaded.source.file).name)
    if named and manifests and all(ENDS[one.kind] != named[2] for one in manifests):
        message = f"the file ends in .{named[2]}.yaml and holds a {manifests[0].kind}"
        help_text = f"call it {named[1]}.{ENDS[manifests[0].kind]}.yaml"
        yield manifests[0].problem(("kind",), "R006", message, help_text)
    elif named and len(manifests) == 1 and manifests[0].name not in ("", named[1]):
        message = f'"{manifests[0].name}" stands in a file called {named[1]}.{named[2]}.yaml'
        yield manifests[0].problem(("metadata", "name"), "R005", message, "rename one of them")
    for one in manifests:
        if not isinstance(one.value, Flag | RolloutTest) and one.name and not one.value.metadata.owner:
            message = f'"{one.name}" has no owner'
            yield one.problem(
                ("metadata", "name"), "R008", message, "write owner: with the team that answers for it"
            )


def allowing(problems: Iterable[Problem], source: Source, *, complete: bool) -> Iterator[Problem]:
    """Without what comments allow; errors cannot be allowed. `complete`: every check has run on this file."""
    allowed = {(line, code): place for line, code, place in _allowances(source.lines)}
    used = set()
    for problem in problems:
        if problem.severity != "error" and (problem.line, problem.code) in allowed:
            used.add((problem.line, problem.code))
        else:
            yield problem
    for (line, code), place in allowed.items():
        needed = (line, code) in used or (code in RULES and RULES[code].server)
        if complete and not needed:
            message = f"{code} is allowed here, and there is none" if code in RULES else f"there is no rule {code}"
            yield source.problem(place, "R007", message, "remove it, or put it into the line of the finding")


def _allowances(lines: Sequence[str]) -> Iterator[tuple[int, str, Span]]:
    """(line, code, where it stands). A comment alone in its line is about the next line that holds something."""
    for number, text in enumerate(lines, start=1):
        found = _ALLOWED.search(text)
        if found is None:
            continue
        line = number
        if not text[: found.start()].strip():
            line = next((at for at, other in enumerate(lines[number:], number + 1) if _holds(other)), number)
        for code in re.finditer(r"R\d{3}", found[1]):
            yield line, code.group(), Span(number, found.start(1) + code.start() + 1, len(code.group()))


def _holds(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def check_twins(manifests: Iterable[Manifest]) -> Problems:
    """Documents that are defined twice in one call: which one counts would be chance."""
    seen: dict[tuple[str, ...], Manifest] = {}
    for manifest in manifests:
        first = seen.setdefault(_identity(manifest), manifest)
        if first is not manifest:
            line, _, _ = first.span(("metadata", "name"))
            message = f'{manifest.kind} "{manifest.name}" is defined twice; the other is at {first.file}:{line}'
            yield manifest.problem(("metadata", "name"), "R055", message, "keep one, or rename it")


def _identity(manifest: Manifest) -> tuple[str, ...]:
    if isinstance(manifest.value, Flag):
        return ("Flag", manifest.value.spec.environment, manifest.value.spec.key)
    return (manifest.kind, manifest.name)
