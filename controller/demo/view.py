"""The demo on the terminal: drawn in place for a person, plain lines of progress for anything else."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from math import ceil
from types import TracebackType
from typing import Protocol, Self

from msgspec import Struct
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from controller.domain.quantities import duration_text, exposure_text
from controller.domain.status import RuleStatus, RunStatus
from controller.domain.wording import quantity

REFRESHES_PER_SECOND = 4
# What two rollouts and the frames take of the screen; the rest is for what happened.
TAKEN_LINES = 23
PHASE_STYLES = {"completed": "green", "killed": "red", "paused": "yellow", "progressing": "cyan", "pending": "dim"}
PHASE_ICONS = {"completed": "✔", "killed": "✖", "paused": "⏸", "progressing": "▶", "pending": "…"}
OUTCOME_STYLES = {"pass": "green", "breach": "red bold", "not_applicable": "dim"}


class Line(Struct, frozen=True):
    """Something that happened `at` seconds after the beginning, `about` a plan or (empty) the demo itself."""

    at: float
    about: str
    text: str

    def plain(self) -> str:
        return f"{self.at:5.1f} s  {self.about or 'demo':<12}{self.text}"


class Screen(AbstractContextManager["Screen"], Protocol):
    def tell(self, line: Line) -> None:
        """One thing that happened."""

    def show(self, statuses: Mapping[str, RunStatus]) -> None:
        """Where the rollouts are now."""


class PlainScreen:
    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was taken from the terminal."""

    def tell(self, line: Line) -> None:
        self._console.print(line.plain(), markup=False, highlight=False, soft_wrap=True)

    def show(self, statuses: Mapping[str, RunStatus]) -> None:
        """Lines tell what changed; the figures between are for a screen that can be redrawn."""


class LiveScreen:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines: list[Line] = []
        self._statuses: Mapping[str, RunStatus] = {}
        self._live = Live(console=console, refresh_per_second=REFRESHES_PER_SECOND, get_renderable=self._render)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def tell(self, line: Line) -> None:
        self._lines.append(line)

    def show(self, statuses: Mapping[str, RunStatus]) -> None:
        self._statuses = statuses

    def _render(self) -> RenderableType:
        room = max(self._console.size.height - TAKEN_LINES, 1)
        told = "\n".join(line.plain() for line in self._lines[-room:])
        happened = Text(told, no_wrap=True, overflow="ellipsis")
        return Group(*map(rollout_panel, self._statuses.values()), Panel(happened, title="what happened"))


def screen_for(console: Console) -> Screen:
    return LiveScreen(console) if console.is_terminal else PlainScreen(console)


def rollout_panel(status: RunStatus) -> RenderableType:
    parts: list[RenderableType] = [_headline(status), _stages(status)]
    if status.rules:
        parts.append(_rules(status.rules))
    parts.append(Text(status.reason, style="italic"))
    return Panel(
        Group(*parts),
        title=Text(f" {status.plan} ", style="bold"),
        border_style=PHASE_STYLES.get(status.phase, ""),
    )


def _headline(status: RunStatus) -> Text:
    phase = f"{PHASE_ICONS.get(status.phase, ' ')} {status.phase}"
    return Text.assemble((phase, f"{PHASE_STYLES.get(status.phase, '')} bold"), f"   {_exposure(status)}")


def _exposure(status: RunStatus) -> str:
    if status.kills:
        confirmed = status.kills[-1].confirmed_at
        return f"off, read back at {confirmed:%H:%M:%S} UTC" if confirmed else "off is not read back yet"
    observed = "unknown" if status.observed_exposure is None else exposure_text(status.observed_exposure)
    return f"exposure desired {exposure_text(status.desired_exposure)}, observed {observed}{_next(status)}"


def _next(status: RunStatus) -> str:
    if status.next_in_seconds is None:
        return ""
    step = "completes" if status.next_exposure is None else exposure_text(status.next_exposure)
    return f"   {step} in {duration_text(max(ceil(status.next_in_seconds), 1))}"


def _stages(status: RunStatus) -> Text:
    styles = {"done": "green", "current": "cyan bold", "ahead": "dim"}
    icons = {"done": "●", "current": "◉", "ahead": "○"}
    shown = [
        (f"{icons[stage.state]} {stage.name} {exposure_text(stage.exposure)}", styles[stage.state])
        for stage in status.stages
    ]
    return Text("  ─  ").join(Text(words, style=style) for words, style in shown)


def _rules(rules: Sequence[RuleStatus]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    for column in ("rule", "then"):
        table.add_column(column, no_wrap=True)
    for column in ("value", "limit", "baseline", "requests"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True, ratio=1)
    for rule in rules:
        table.add_row(
            rule.rule,
            rule.then,
            quantity(rule.value, rule.unit),
            quantity(rule.limit, rule.unit),
            quantity(rule.baseline, rule.unit),
            "–" if rule.sample is None else f"{rule.sample:.0f}",
            Text(_verdict(rule), style=OUTCOME_STYLES.get(rule.outcome, "yellow")),
        )
    return table


def _verdict(rule: RuleStatus) -> str:
    if rule.outcome != "breach":
        return rule.outcome.replace("_", " ")
    return f"breach, {rule.breached_seconds:.1f} of {rule.for_seconds:.1f} s"
