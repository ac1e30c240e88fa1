"""The page about phases, generated from the one table that rules them. `docs/state-machine.md` is its output."""

from collections.abc import Sequence
from itertools import groupby
from typing import get_args

from controller.domain.rollout import ACTIVE_PHASES, RAISING, TRANSITIONS, Action, Phase

_PAGE = """# Phases of a run

Generated from `TRANSITIONS` in `controller/domain/rollout.py` by `make schema`; a test fails when it is stale.

```mermaid
{diagram}
```

A run is active while it is {active}. What has no row below is refused with a conflict that names the phase
and the action. Only {raising} can raise the exposure; each is checked
against the kills of the flag in the same statement that commits it.

{table}
"""


def state_diagram() -> str:
    """The page in Markdown: a Mermaid diagram of the changes of phase, and every phase × action as a table."""
    return _PAGE.format(
        diagram=_mermaid(),
        table=_table(),
        active=_listed(ACTIVE_PHASES, "or"),
        raising=_listed(sorted(RAISING), "and"),
    )


def _mermaid() -> str:
    lines = ["stateDiagram-v2", "    [*] --> pending"]
    for phase, row in TRANSITIONS.items():
        changes = sorted((after, action) for action, after in row.items() if after != phase)
        for after, actions in groupby(changes, key=lambda change: change[0]):
            lines.append(f"    {phase} --> {after}: {', '.join(action for _, action in actions)}")
    lines += [f"    {phase} --> [*]" for phase, row in TRANSITIONS.items() if set(row.values()) <= {phase}]
    return "\n".join(lines)


def _table() -> str:
    phases = get_args(Phase)
    lines = ["| action | " + " | ".join(phases) + " |", "|---" * (len(phases) + 1) + "|"]
    for action in get_args(Action):
        cells = [TRANSITIONS[phase].get(action, "·") for phase in phases]
        lines.append(f"| {action} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _listed(words: Sequence[str], joint: str) -> str:
    *first, last = [f"*{word}*" for word in words]
    return f"{', '.join(first)} {joint} {last}"
