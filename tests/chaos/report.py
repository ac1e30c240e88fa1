"""The table of what was done and what came of it: as text for people, as JSON for whoever compares."""

import math
from collections.abc import Sequence

from msgspec import Struct

from tests.chaos.faults import FAULTS


class Outcome(Struct, frozen=True, kw_only=True):
    """One fault. `recoveries` by name, in seconds; `problem`, `late` and `left_out` say why, if so."""

    step: int
    fault: str
    recoveries: dict[str, float] = {}
    problem: str = ""
    late: str = ""
    left_out: str = ""


class Report(Struct, frozen=True, kw_only=True):
    """`transitions`: audit rows of runs. `lost`: rows that went down with a failed primary."""

    seed: int
    planned: int
    version: str
    replicas: int
    rollouts: int
    lease_seconds: float
    seconds: float
    outcomes: list[Outcome]
    transitions: int
    audit_rows: int
    lost: int
    kills_answered: int
    looks: int
    answers: dict[str, int]
    problems: list[str]

    @property
    def passed(self) -> bool:
        return not self.problems and not any(one.problem or one.late for one in self.outcomes)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(report: Report) -> str:
    lines = [f"{'fault':<28}{'count':>6}{'failed':>7}{'p50':>8}{'p99':>8}{'max':>8}{'limit':>7}  measured"]
    for fault in FAULTS:
        mine = [one for one in report.outcomes if one.fault == fault.name]
        if not mine:
            continue
        if all(one.left_out for one in mine):
            lines.append(f"{fault.name:<28}{0:>6}  left out: {mine[0].left_out}")
            continue
        names = sorted({name for one in mine for name in one.recoveries}) or [""]
        for name in names:
            values = [one.recoveries[name] for one in mine if name in one.recoveries]
            figures = "".join(
                f"{quantile(values, share):>8.2f}" if values else f"{'–':>8}" for share in (0.5, 0.99, 1)
            )
            limit = f"{fault.limit:>7g}" if fault.limit and not name else f"{'':>7}"
            failed = sum(bool(one.problem or one.late) for one in mine)
            head = f"{fault.name:<28}{len(mine):>6}{failed:>7}" if not name else f"{'':<41}"
            lines.append(f"{head}{figures}{limit}  {name or fault.does}")
    return "\n".join(lines)


def summary(report: Report) -> str:
    done = [one for one in report.outcomes if not one.left_out]
    lines = [
        table(report),
        "",
        f"{len(done)} faults in {report.seconds / 60:.0f} min; {report.replicas} replicas, "
        f"{report.rollouts} rollouts, lease {report.lease_seconds:g} s; seed {report.seed}; "
        f"Rampart {report.version}",
        f"{report.transitions} transitions in {report.audit_rows} audit rows; "
        f"{report.lost} more were lost with a failed primary",
        f"{report.kills_answered} kills answered; {report.looks} looks at what SDKs were served under them",
        "answers: " + ", ".join(f"{name} {count}" for name, count in sorted(report.answers.items())),
    ]
    lines += [f"FAILED at step {one.step}, {one.fault}: {one.problem}" for one in done if one.problem]
    lines += [f"LATE at step {one.step}, {one.fault}: {one.late}" for one in done if one.late]
    lines += [f"BROKEN: {problem}" for problem in report.problems]
    if report.passed:
        lines.append("No transition was duplicated or lost, no stage skipped, and no kill undone.")
    else:
        lines.append(f"Again: python -m tests.chaos --seed {report.seed} --faults {report.planned}")
    return "\n".join(lines)
