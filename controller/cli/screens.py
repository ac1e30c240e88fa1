"""What the server answered, as lines for people. Pure: `now` is an argument, styles are part of the text."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal

import click

from controller.cli.terminal import table
from controller.domain.quantities import duration_text, exposure_text
from controller.domain.rollout import Block, Phase
from controller.domain.status import (
    Check,
    CheckState,
    Explanation,
    KillReceipt,
    KillStatus,
    PlanSummary,
    Raises,
    ReportLine,
    RuleStatus,
    RunReport,
    RunStatus,
    StageStatus,
    StageTimes,
)
from controller.domain.wording import quantity

PHASES: dict[Phase, tuple[str, str]] = {
    "pending": ("◌", "cyan"),
    "progressing": ("▶", "blue"),
    "paused": ("⏸", "yellow"),
    "completed": ("✔", "green"),
    "killed": ("✖", "red"),
    "abandoned": ("■", "magenta"),
}
VERDICTS: dict[str, tuple[str, str]] = {
    "pass": ("✔ ok", "green"),
    "breach": ("✖ breach", "red"),
    "too_few": ("◌ too few requests", "yellow"),
    "no_data": ("? no data", "yellow"),
    "error": ("! not measurable", "yellow"),
    "inconclusive": ("~ inconclusive", "yellow"),
    "not_applicable": ("– not applicable", "white"),
}
FINAL: frozenset[Phase] = frozenset({"completed", "killed", "abandoned"})

_COMPARISON = re.compile(r"(?P<operator>[<>]=?)\s*(?:(?P<multiple>[\d.]+x) baseline|\S+)(?P<rest>.*)", re.DOTALL)


def phase_text(phase: Phase) -> str:
    icon, colour = PHASES[phase]
    return click.style(f"{icon} {phase.upper()}", fg=colour, bold=True)


def clock(at: datetime) -> str:
    return f"{at:%H:%M:%S} UTC"


def day_and_clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def age(at: datetime, now: datetime) -> str:
    # The server's clock may be ahead of ours.
    passed = (now - at).total_seconds()
    return f"{duration_text(passed)} ago" if passed >= 1 else "just now"


# — status —


def status_screen(run: RunStatus, now: datetime) -> list[str]:
    lines = [_header(run), *_identity(run, now), _exposure(run, now), *_beside(run), _stages(run)]
    if run.rules:
        lines += ["", *rule_table(run.rules)]
    lines += ["", f"reason    {run.reason or 'no decision yet'}"]
    lines += _waiting(run.blocks, now)
    lines += [line for kill in run.kills for line in kill_lines(kill)]
    return lines


def _header(run: RunStatus) -> str:
    parts = [click.style(run.id, bold=True), run.flag.environment, phase_text(run.phase)]
    if run.mode == "observe":
        parts.append(click.style("OBSERVING: nothing is written to the flag", fg="cyan"))
    if run.stage >= 0:
        parts.append(f"stage {run.stage + 1}/{len(run.stages)} {run.stages[run.stage].name}")
    return "   ".join([*parts, _movement(run)])


def _movement(run: RunStatus) -> str:
    here = exposure_text(run.desired_exposure)
    if run.next_exposure is None:
        return here
    target = f"{here} → {exposure_text(run.next_exposure)}"
    if run.next_in_seconds is not None:
        target += f" in {duration_text(run.next_in_seconds) if run.next_in_seconds >= 1 else 'a moment'}"
    following = next((stage for stage in run.stages if stage.exposure == run.next_exposure), None)
    return target + ("  (needs approval)" if following and following.needs_approval else "")


def _identity(run: RunStatus, now: datetime) -> list[str]:
    facts = [str(run.flag), f"plan revision {run.plan_revision} by {run.author}", f"started by {run.started_by}"]
    facts.append(age(run.created_at, now) if run.ended_at is None else f"ended {day_and_clock(run.ended_at)}")
    if run.owner:
        facts.append(f"owner {run.owner}")
    lines = [f"flag      {'   '.join(facts)}"]
    if run.links:
        lines.append("links     " + "   ".join(f"{name} {target}" for name, target in run.links.items()))
    return lines


def _exposure(run: RunStatus, now: datetime) -> str:
    if run.mode == "observe":
        return f"exposure  Rampart would serve {exposure_text(run.desired_exposure)}   people {_peoples(run, now)}"
    return f"exposure  desired {exposure_text(run.desired_exposure)}   provider {_observed(run, now)}"


def _peoples(run: RunStatus, now: datetime) -> str:
    if run.observed_exposure is None or run.observed_at is None:
        return click.style("? unknown: not read", fg="yellow")
    shown = exposure_text(run.observed_exposure) if run.observed_enabled else "off"
    return f"{shown}, read {age(run.observed_at, now)}"


def _beside(run: RunStatus) -> list[str]:
    """What else the provider told when it was read."""
    facts = []
    if run.changed_by or run.changed_at:
        by = f" by {run.changed_by}" if run.changed_by else ""
        at = f" {day_and_clock(run.changed_at)}" if run.changed_at else ""
        facts.append(f"last changed{by}{at}")
    if run.delivered_seconds is not None:
        facts.append(f"reached SDKs after {quantity(run.delivered_seconds, 'seconds')}")
    lines = [f"          {'   '.join(facts)}"] if facts else []
    return lines + [f"          not ours, and {kill_text(run.on_kill)}: {text}" for text in run.foreign]


def kill_text(on_kill: Literal["off", "fallthrough"]) -> str:
    """What a kill does to that which is not ours."""
    return "a kill leaves it alone" if on_kill == "fallthrough" else "a kill switches it off, too"


def _observed(run: RunStatus, now: datetime) -> str:
    if run.phase == "killed" and run.kills:
        return _killed(run.kills)
    if run.observed_exposure is None or run.observed_at is None:
        return click.style("? unknown: not read back", fg="yellow")
    shown = exposure_text(run.observed_exposure) if run.observed_enabled else "off"
    when = f"read back {age(run.observed_at, now)}"
    if run.phase == "pending" or run.ended_at is not None:
        return f"{shown}, last {when}"
    if run.observed_exposure == run.desired_exposure and run.confirmed:
        return f"{shown} {click.style('✔', fg='green')} {when}"
    if run.observed_exposure == run.desired_exposure:
        return f"{shown} {click.style('◌ not confirmed yet', fg='yellow')}, {when}"
    return f"{shown} {click.style('≠ differs', fg='red', bold=True)}, {when}"


def _killed(kills: Sequence[KillStatus]) -> str:
    """What the kill's own read said: the run's latest tick may have been before it."""
    confirmed = [kill.confirmed_at for kill in kills if kill.confirmed_at is not None]
    if len(confirmed) < len(kills):
        return unconfirmed_text()
    return f"off {click.style('✔', fg='green')} read back {day_and_clock(max(confirmed))}"


def _stages(run: RunStatus) -> str:
    over = run.ended_at is not None
    return "stages    " + "    ".join(_stage(number, stage, over) for number, stage in enumerate(run.stages, 1))


def _stage(number: int, stage: StageStatus, over: bool) -> str:
    title = f"{number} {stage.name} {exposure_text(stage.exposure)}"
    bake = duration_text(stage.bake_seconds)
    if stage.state == "done":
        return f"{title} {click.style('✔', fg='green')}"
    if stage.state == "current":
        baked = duration_text(stage.baked_seconds) if stage.baked_seconds >= 1 else "0s"
        return click.style(f"{title} {'■' if over else '▶'} {baked}/{bake}", bold=not over)
    gate = ", approval" if stage.needs_approval else ""
    return click.style(f"{title} ◌ {bake}{gate}", dim=True)


def _waiting(blocks: Iterable[Block], now: datetime) -> list[str]:
    lines = [f"          · {block.code}: {block.text}{_clears(block, now)}" for block in blocks]
    return [lines[0].replace("         ", "waits for", 1), *lines[1:]] if lines else []


def _clears(block: Block, now: datetime) -> str:
    if block.clears_at is None:
        return ""
    left = (block.clears_at - now).total_seconds()
    distance = f", in {duration_text(left)}" if left >= 1 else ""
    return f" (earliest {day_and_clock(block.clears_at)}{distance})"


# — rules —


def rule_table(rules: Sequence[RuleStatus]) -> list[str]:
    several = len({rule.policy for rule in rules}) > 1
    head = ("RULE", "NOW", "LIMIT", "BASELINE", "SAMPLE", "FOR", "THEN", "VERDICT")
    return table(head, [_rule_row(rule, several) for rule in rules])


def _rule_row(rule: RuleStatus, several: bool) -> list[str]:
    words, colour = VERDICTS[rule.outcome]
    verdict = click.style(words, fg=colour, bold=rule.outcome == "breach")
    if rule.detail and rule.outcome != "pass":
        verdict += f": {rule.detail}"
    return [
        f"{rule.policy}/{rule.rule}" if several else rule.rule,
        quantity(rule.value, rule.unit),
        limit_text(rule),
        quantity(rule.baseline, rule.unit),
        "–" if rule.sample is None else f"{rule.sample:,.0f} req".replace(",", " "),
        _for_text(rule),
        rule.then.replace("_", " ") if rule.enforced else f"({rule.then.replace('_', ' ')}: observed only)",
        verdict,
    ]


def limit_text(rule: RuleStatus) -> str:
    """`> 1 %`, `> 620 ms (2x)`, `> 10 % and baseline(error_rate) < 1%`; the condition while no limit is known."""
    found = _COMPARISON.search(rule.condition)
    if found is None or rule.limit is None:
        return rule.condition
    multiple = f" ({found['multiple']})" if found["multiple"] else ""
    return f"{found['operator']} {quantity(rule.limit, rule.unit)}{multiple}{found['rest']}"


def _for_text(rule: RuleStatus) -> str:
    if not rule.for_seconds:
        return "at once"
    breached = duration_text(rule.breached_seconds) if rule.breached_seconds >= 1 else "–"
    return f"{breached} of {duration_text(rule.for_seconds)}"


def explanation_lines(explanation: Explanation) -> list[str]:
    lines = explanation.text.splitlines()
    return [*lines, "", *rule_table(explanation.rules)] if explanation.rules else lines


# — reports —


def report_lines(report: RunReport) -> list[str]:
    observing = report.mode == "observe"
    title = "   ".join([click.style(report.run, bold=True), report.flag.environment, phase_text(report.phase)])
    stages = table(
        ("STAGE", "EXPOSURE", *(("RAMPART WOULD HAVE", "PEOPLE DID") if observing else ("REACHED",))),
        [_times(stage, observing) for stage in report.stages],
    )
    return [title, "", *stages, "", *(_beside_people(report.lines) if observing else _in_order(report.lines))]


def _times(stage: StageTimes, observing: bool) -> list[str]:
    reached = [stage.rampart_at, stage.people_at] if observing else [stage.rampart_at]
    return [stage.name, exposure_text(stage.exposure), *(day_and_clock(at) if at else "–" for at in reached)]


def _beside_people(lines: Sequence[ReportLine]) -> list[str]:
    """Each row shows where both stood then; bold is what the row changed."""
    stand = {"rampart": "–", "people": "–"}
    rows = []
    for line in lines:
        cells = dict(stand)
        if line.exposure is not None:
            stand[line.column] = exposure_text(line.exposure)
            cells = stand | {line.column: click.style(stand[line.column], bold=True)}
        rows.append([day_and_clock(line.at), cells["rampart"], cells["people"], line.text])
    return table(("TIME", "RAMPART", "PEOPLE", "WHAT"), rows)


def _in_order(lines: Sequence[ReportLine]) -> list[str]:
    rows = [
        [
            day_and_clock(line.at),
            "Rampart" if line.column == "rampart" else "people",
            "" if line.exposure is None else exposure_text(line.exposure),
            line.text,
        ]
        for line in lines
    ]
    return table(("TIME", "WHO", "EXPOSURE", "WHAT"), rows)


# — kills —


def kill_lines(kill: KillStatus) -> list[str]:
    confirmed = f"✔ read back off {day_and_clock(kill.confirmed_at)}" if kill.confirmed_at else unconfirmed_text()
    return [
        click.style(f"killed    {kill.flag} by {kill.actor} {day_and_clock(kill.accepted_at)}", fg="red"),
        f"          {kill.reason}",
        f"          {confirmed}   kill id {kill.kill_id}",
    ]


def unconfirmed_text() -> str:
    return click.style("✖ UNCONFIRMED — being retried; do not assume that it is off", fg="red", bold=True)


def receipt_lines(receipts: Sequence[KillReceipt]) -> list[str]:
    return [line for receipt in receipts for line in _receipt(receipt)]


def _receipt(receipt: KillReceipt) -> list[str]:
    title = f"{receipt.flag}   kill id {receipt.kill_id}" + (f"   ends {receipt.run}" if receipt.run else "")
    ticks = [f"{click.style('✔', fg='green')} accepted {clock(receipt.accepted_at)}"]
    if receipt.provider_updated_at:
        updated = f"provider updated {clock(receipt.provider_updated_at)}"
        ticks.append(f"{click.style('✔', fg='green')} {updated}")
    if receipt.confirmed_at:
        took = (receipt.confirmed_at - receipt.accepted_at).total_seconds()
        ticks.append(f"{click.style('✔', fg='green')} read back off {clock(receipt.confirmed_at)}")
        ticks.append(f"({quantity(took, 'seconds')})")
    lines = [click.style(title, bold=True), "  " + "   ".join(ticks)]
    if receipt.replicas or receipt.silent:
        lines.append("  " + _reached(receipt))
    if receipt.confirmed_at is None:
        lines.append(f"  {unconfirmed_text()}")
    if not receipt.durable:
        warning = "! the journal could not be written: a restart before the database has it may forget this kill"
        lines.append("  " + click.style(warning, fg="red"))
    return lines


def _reached(receipt: KillReceipt) -> str:
    reached = f"reached {', '.join(receipt.replicas) or 'no replica'}"
    if not receipt.silent:
        return reached
    not_yet = click.style(f"not yet {', '.join(receipt.silent)}", fg="yellow")
    return f"{reached}; {not_yet} (told again and again)"


# — the rest —


def raises_lines(raises: Raises) -> list[str]:
    if raises.allowed:
        lines = [click.style("exposure may rise", fg="green")]
    else:
        lines = [click.style("nothing rises", fg="red", bold=True), *(f"  - {text}" for text in raises.obstacles)]
    rows = [
        [one.name, one.state, f"last seen {day_and_clock(one.seen_at)}" if one.seen_at else ""]
        for one in raises.replicas
    ]
    return [*lines, "", *table(("REPLICA", "STATE", ""), rows)]


def plan_table(plans: Sequence[PlanSummary]) -> list[str]:
    head = ("PLAN", "ENVIRONMENT", "FLAG", "RUN", "PHASE", "STAGE", "DESIRED", "OBSERVED", "REASON")
    return table(head, [_plan_row(plan) for plan in plans])


def _plan_row(plan: PlanSummary) -> list[str]:
    return [
        plan.plan,
        plan.flag.environment,
        plan.flag.key,
        plan.run or "–",
        phase_text(plan.phase) if plan.phase else "–",
        plan.stage,
        exposure_text(plan.desired_exposure),
        "–" if plan.observed_exposure is None else exposure_text(plan.observed_exposure),
        plan.reason,
    ]


CHECK_WORDS: Mapping[CheckState, str] = {"ok": "ok", "warn": "warned of", "fail": "failed"}


def check_lines(checks: Sequence[Check]) -> list[str]:
    marks = {
        "ok": click.style("✔", fg="green"),
        "warn": click.style("!", fg="yellow", bold=True),
        "fail": click.style("✖", fg="red", bold=True),
    }
    lines = []
    for check in checks:
        lines.append(f"{marks[check.state]} {check.name}: {check.detail}")
        if check.fix:
            lines.append(f"    → {check.fix}")
    states = [check.state for check in checks]
    counted = (f"{states.count(state)} {word}" for state, word in CHECK_WORDS.items() if state in states)
    return [*lines, "", ", ".join(counted)]
