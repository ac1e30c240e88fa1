"""Where measurements come from. A new kind is one module and one line in the table below."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from controller.domain.evidence import Examined, Question
from controller.ports import MetricSource
from controller.settings import (
    EventsSourceSettings,
    HttpJsonSourceSettings,
    PrometheusSourceSettings,
    ScrapeSourceSettings,
    SourceSettings,
)
from controller.sources.events import EventsSource
from controller.sources.host import Host
from controller.sources.http_json import HttpJsonSource
from controller.sources.prometheus import PrometheusSource
from controller.sources.scrape import ScrapeSource


class Source(MetricSource, Protocol):
    """A source as the shell holds it: started once in the event loop, closed at the end."""

    def start(self) -> None: ...

    async def problems(self) -> Sequence[str]:
        """What keeps it from answering now; empty when nothing does."""

    async def examine(self, questions: Collection[Question]) -> Examined:
        """What it holds of the series behind these questions; what it cannot tell is left out. Never raises."""


KINDS: dict[type[SourceSettings], Callable[..., Source]] = {
    PrometheusSourceSettings: PrometheusSource,
    ScrapeSourceSettings: ScrapeSource,
    EventsSourceSettings: EventsSource,
    HttpJsonSourceSettings: HttpJsonSource,
}


def build(name: str, settings: SourceSettings, host: Host) -> Source:
    """The source named `name` in the settings. Raises SettingsError when its addresses are none."""
    return KINDS[type(settings)](name, settings, host)
