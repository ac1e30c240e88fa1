"""What is known of one flag in one environment: as the REST API had it, and as the SDK shows it.

Where both say the same, that is what the provider shows. Where the REST API was read after the SDK's last news and
says something else, the SDK is behind, and what it shows is what applications see. Anything else is unknown until
the REST API was asked again.
"""

import asyncio
import math
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from controller.domain.flag import FlagState, Observation, Unknown
from controller.domain.plan import FlagRef
from controller.providers.launchdarkly import rules
from controller.providers.launchdarkly.model import Config, RestFlag, essence
from controller.providers.launchdarkly.reading import moment, our_rules, state_of
from controller.providers.launchdarkly.stream import Shown, Stream


class Sent(Struct, frozen=True):
    """A write of ours that was answered at that monotonic time; the SDK has not shown it yet."""

    answered_at: float
    version: int
    essence: tuple[object, ...]


class Record:
    """Mutable. All times are monotonic. `ours` keeps rules that are gone: the SDK may still show them.

    `killing`: a kill of ours is not seen to be done yet, so that reading it back is part of the kill.
    """

    def __init__(self, flag: FlagRef, stream: Stream | None) -> None:
        self.flag = flag
        self.stream = stream
        self.rest: RestFlag | None = None
        self.read_at = -math.inf
        self.written_at = -math.inf
        self.missing_at = -math.inf
        """When the REST API said that there is no such flag."""
        self.asked_at = -math.inf
        self.fault = ""
        self.killing = False
        self.sent: Sent | None = None
        self.delivered_seconds: float | None = None
        self.changed_by = ""
        self.changed_at: datetime | None = None
        self.whose = False
        """Somebody changed it, and who it was has not been asked yet."""
        self.reading = asyncio.Lock()
        self.writing = asyncio.Lock()
        self._ours: dict[str, str] = {}

    @property
    def config(self) -> Config | None:
        return None if self.rest is None else self.rest.environments.get(self.flag.environment)

    @property
    def shown(self) -> Shown | None:
        return None if self.stream is None else self.stream.shown(self.flag.key)

    # — what the REST API says —

    def take_in(self, rest: RestFlag, read_at: float, *, own: bool = False) -> None:
        """An answer to a request made at `read_at`; one that is older than what is known changes nothing.

        `own`: it answers a write of ours.
        """
        if read_at < self.read_at:
            return
        before = self.config
        self.rest, self.read_at, self.fault = rest, read_at, ""
        config = self.config
        if config is None:
            return
        intact = our_rules(rest, config)
        edited = {rule.identity for rule in config.rules or () if rules.is_ours(rule)} - set(intact)
        self._ours = {identity: name for identity, name in self._ours.items() if identity not in edited} | intact
        if own:
            self.changed_by, self.whose = "", False
        elif before is not None and essence(before) != essence(config):
            self.changed_by, self.whose = "", True
        self.changed_at = None if config.last_modified is None else moment(config.last_modified)

    def cannot_be_read(self, why: str) -> None:
        self.fault = why

    def outdated(self, now: float, poll_seconds: float) -> bool:
        """Whether the REST API has to be asked before anything can be said."""
        if self._missing:
            return self._may_be_there(now, poll_seconds)
        if self.rest is None or self.read_at <= self.written_at:
            return True
        if self.stream is None:
            return now - self.read_at > poll_seconds
        if not self.stream.connected:
            return now - max(self.read_at, self.stream.since) > poll_seconds
        shown = self.shown
        if shown is None:
            return not self.rest.archived and now - self.read_at > poll_seconds
        return shown.arrived_at > self.read_at and (self.rest.archived or not self._agrees(shown))

    @property
    def _missing(self) -> bool:
        return self.missing_at > max(self.read_at, self.written_at)

    def _may_be_there(self, now: float, poll_seconds: float) -> bool:
        """A connected stream would tell of the flag as soon as there is one."""
        shown = self.shown
        if shown is None and self.stream is not None and self.stream.connected:
            return False
        come = shown is not None and shown.arrived_at > self.missing_at
        return come or now - self.missing_at > poll_seconds

    def _agrees(self, shown: Shown) -> bool:
        config = self.config
        return config is not None and shown.config is not None and essence(config) == essence(shown.config)

    # — what the SDK says —

    def arrived(self) -> float | None:
        """Seconds it took our latest write to reach the SDK, once, when it has."""
        sent, shown = self.sent, self.shown
        if sent is None or shown is None or shown.config is None:
            return None
        if shown.config.version < sent.version and essence(shown.config) != sent.essence:
            return None
        self.sent, self.delivered_seconds = None, max(0.0, shown.arrived_at - sent.answered_at)
        return self.delivered_seconds

    # — both —

    def observation(self, now: float, poll_seconds: float) -> Observation:
        rest, config = self.rest, self.config
        if rest is None or self._missing or self.outdated(now, poll_seconds):
            return Unknown(self.fault or "LaunchDarkly was not read yet")
        if rest.archived:
            return Unknown(f"the flag {self.flag.key} is archived at LaunchDarkly")
        if config is None:
            return Unknown(f"LaunchDarkly has no environment {self.flag.environment} in this project")
        if self.stream is None:
            return self._state(config, rest)
        shown = self.shown
        if shown is not None and self._agrees(shown):
            return self._state(config, rest)
        if not self.stream.connected:
            why = self.stream.why_not
            return Unknown(
                f"whether applications see what LaunchDarkly's API says is unknown: no SDK stream, {why}"
            )
        if shown is None:
            return Unknown(f"LaunchDarkly's SDK does not show the flag {self.flag.key}")
        if shown.config is None:
            return Unknown(f"what LaunchDarkly's SDK shows of {self.flag.key} could not be read")
        return self._state(shown.config, rest)

    def _state(self, config: Config, rest: RestFlag) -> FlagState:
        return replace(
            state_of(config, rest.labels, self._ours),
            changed_by=self.changed_by,
            changed_at=self.changed_at,
            delivered_seconds=self.delivered_seconds,
        )
