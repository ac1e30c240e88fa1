"""What came of it: the checks that decide the exit code, the summary, and where to look next."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from controller.demo.script import BAD, FLAGS, GOOD
from controller.demo.server_api import Record
from controller.domain.audit import ChainReport
from controller.domain.status import RunStatus

# Steps between decisions, which would only make the story longer.
UNTOLD = frozenset({"confirm", "kill_confirmed"})

# flag → cohort → variation → number of contexts
Served = Mapping[str, Mapping[str, Mapping[str, int]]]


class Finding(Struct, frozen=True):
    ok: bool
    text: str


def plan_of(record: Record) -> str | None:
    """The plan a decision is about; None for rows that tell no story."""
    entry = record.entry
    plan = (entry.run or "").rpartition("#")[0]
    return plan if plan in FLAGS and entry.action not in UNTOLD else None


def findings(
    statuses: Mapping[str, RunStatus],
    records: Sequence[Record],
    chain: ChainReport,
    served: Sequence[Served],
) -> list[Finding]:
    """Whether each rollout ended as it should. `served` is what the SDK of each shop serves."""
    good, bad = statuses[GOOD], statuses[BAD]
    kills = [record.entry for record in records if record.entry.action == "kill"]
    by_policy = any(kill.run == bad.id and kill.cause == "policy" for kill in kills)
    return [
        Finding(good.phase == "completed", f"{GOOD}: {good.reason}"),
        _served(GOOD, served, "on"),
        Finding(bad.phase == "killed" and by_policy, f"{BAD}: {bad.reason}"),
        _served(BAD, served, "off"),
        Finding(
            chain.problem is None, f"audit log: {chain.rows} rows, the hash chain {chain.problem or 'verifies'}"
        ),
    ]


def _served(flag: str, served: Sequence[Served], wanted: str) -> Finding:
    """Whether every context of every shop, the staff included, gets `wanted` from the SDK."""
    counts: Counter[str] = Counter()
    for shop in served:
        for cohort in shop[flag].values():
            counts.update(cohort)
    shares = ", ".join(f"{variation} to {count}" for variation, count in counts.most_common())
    return Finding(
        set(counts) == {wanted},
        f"{flag}: the SDKs of {len(served)} shops now serve {shares} contexts, staff included",
    )


def summary(found: Sequence[Finding], records: Sequence[Record], elapsed: float) -> RenderableType:
    story = Table(title="What happened", title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in ("UTC", "plan", "decision"):
        story.add_column(column, no_wrap=column != "decision", overflow="fold")
    for record in records:
        if plan := plan_of(record):
            story.add_row(f"{record.entry.at:%H:%M:%S}", plan, Text(record.entry.reason))
    checks = [
        Text(f"{'✔' if finding.ok else '✘'} {finding.text}", style="green" if finding.ok else "red")
        for finding in found
    ]
    good = all(finding.ok for finding in found)
    verdict = "Both rollouts ended as they should" if good else "Something did not end as it should"
    return Group("", story, "", *checks, "", Text(f"{verdict}, after {elapsed:.0f} s.", style="bold"))


def look_around(command: str, port: int, token_file: Path, shop_port: int) -> str:
    """What to try while everything is up; `command` is how to call the command line."""
    return f"""
Everything stays up until Ctrl-C. Look around from another terminal:

  export RAMPART_URL=http://127.0.0.1:{port}
  export RAMPART_TOKEN_FILE={token_file}
  {command} list
  {command} status {GOOD}
  {command} explain {BAD}
  {command} kill {GOOD} -m "just to see"
  {command} reset {BAD}
  {command} audit list
  curl 'http://127.0.0.1:{shop_port}/{GOOD}?user=anna'
"""
