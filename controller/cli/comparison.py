"""What an apply would change, three ways: in the files, for runs under way, and beside what providers show."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from itertools import groupby

import click
import msgspec

from controller.cli.screens import kill_text
from controller.domain.quantities import exposure_text
from controller.domain.status import ApplyResult, Change, FlagOutlook, RunOutlook, StoredDocument


def comparison(result: ApplyResult) -> Iterator[str]:
    """Changes of documents first, then runs, then flags; nothing for what is as it should be."""
    parts = [list(change_lines(result.changes, result.stored))]
    parts += [list(_run_lines(run, result)) for run in result.runs]
    parts += [list(_flag_lines(flag)) for flag in result.flags]
    for number, part in enumerate(part for part in parts if part):
        if number:
            yield ""
        yield from part


def change_lines(changes: Sequence[Change], stored: Sequence[StoredDocument] = ()) -> Iterator[str]:
    known = {(one.kind, one.name): one for one in stored}
    for (kind, name), group in groupby(changes, key=lambda change: (change.kind, change.name)):
        yield click.style(f"{kind} {name}", bold=True) + _latest(known.get((kind, name)))
        yield from (_change_line(change) for change in group)


def _latest(stored: StoredDocument | None) -> str:
    if stored is None:
        return ""
    at = f"{stored.applied_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return click.style(f"   the server has revision {stored.revision}, by {stored.author}, {at}", dim=True)


def _change_line(change: Change) -> str:
    note = f"   ! {change.note}" if change.note else ""
    path = change.path or "(the whole document)"
    if change.before is None:
        after = f"   {written(change.after)}" if change.path else ""
        return click.style(f"  + {path}{after}{note}", fg="green")
    if change.after is None:
        return click.style(f"  - {path}   {written(change.before)}{note}", fg="red")
    return click.style(f"  ~ {path}   {written(change.before)} → {written(change.after)}{note}", fg="yellow")


def written(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


# — runs —


def _run_lines(run: RunOutlook, result: ApplyResult) -> Iterator[str]:
    where = f"{run.phase} at {exposure_text(run.exposure)}" + (f" ({run.stage})" if run.stage else "")
    follows = [f"plan revision {run.plan_revision}"]
    follows += [f"{name} revision {number}" for name, number in run.policy_revisions.items()]
    if run.run in result.adopted_runs:
        yield click.style(run.run, bold=True) + f" is {where} and was moved from {', '.join(follows)} to this:"
        yield from (f"    - {text}" for text in run.consequences)
        return
    yield click.style(run.run, bold=True) + f" is {where} and follows {', '.join(follows)}"
    if _beyond(run, result):
        yield "  It stays so. A new run would take up, beside what it follows:"
        yield from (f"  {line}" for line in change_lines(run.changes))
    else:
        yield "  It stays so; only a new run takes this up."
    yield from _adoption_lines(run)


def _beyond(run: RunOutlook, result: ApplyResult) -> bool:
    """Whether the run would take up more than is listed above already."""
    listed = {msgspec.json.encode(change) for change in result.changes}
    return any(msgspec.json.encode(change) not in listed for change in run.changes)


def _adoption_lines(run: RunOutlook) -> Iterator[str]:
    if run.obstacles:
        yield click.style("  apply --adopt cannot move it to this:", fg="red")
        yield from (f"    - {text}" for text in run.obstacles)
        return
    yield "  apply --adopt moves it to this:"
    yield from (f"    - {text}" for text in run.consequences)
    if run.second_person:
        authors = ", ".join(run.authors)
        wanted = f"it takes somebody with the scope approve who is not the author ({authors}), because it"
        yield click.style(f"    - {wanted}", fg="yellow")
        yield from (f"        {text}" for text in run.second_person)


# — flags —


def _flag_lines(flag: FlagOutlook) -> Iterator[str]:
    yield click.style(str(flag.flag), bold=True) + f" at the provider: {_shown(flag)}"
    if flag.run is not None and flag.committed is not None:
        yield f"  {flag.run} wants {exposure_text(flag.committed)}"
    yield from (f"  not ours, and {kill_text(flag.on_kill)}: {text}" for text in flag.foreign)
    yield from (click.style(f"  ! {text}", fg="yellow") for text in flag.findings)


def _shown(flag: FlagOutlook) -> str:
    if flag.enabled is None or flag.exposure is None:
        return flag.unread
    share = exposure_text(flag.exposure)
    audience = f", and always {', '.join(flag.audience)}" if flag.audience else ""
    if flag.enabled:
        return f"on, {share} exposed{audience}"
    return f"off ({share}{audience} once it is on)" if flag.exposure or flag.audience else "off"


def applied_lines(result: ApplyResult, *, dry_run: bool) -> Iterable[str]:
    """What was done, for the end of the text."""
    if not result.changes:
        yield "nothing changed"
    elif dry_run:
        yield "dry run: nothing was applied"
    else:
        yield "applied: " + ", ".join(_revision(label, number) for label, number in result.revisions.items())
    if result.adopted_runs:
        yield f"moved to it: {', '.join(result.adopted_runs)}; the bake starts anew"
    if result.pinned_runs:
        yield f"still on earlier revisions: {', '.join(result.pinned_runs)}; move with --adopt"


def _revision(label: str, number: int) -> str:
    # A flag's version is a clock reading that tells a person nothing.
    return label if label.startswith("Flag/") else f"{label} revision {number}"
