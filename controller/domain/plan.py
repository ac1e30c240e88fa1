"""What a release engineer writes: the rollout plan, exactly as in YAML.

Fields keep the text people wrote (`30m`, `10%`); the numbers are properties beside them. So a plan
stored as JSON, shown in a diff or exported reads as its author wrote it.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from controller.domain.quantities import Duration, ExposureText, Key, Name, exposure, seconds

API_VERSION = "rampart/v1"
ApiVersion = Literal["rampart/v1"]
NonNegative = Annotated[int, Meta(ge=0)]
EventName = Literal[
    "started",
    "advanced",
    "paused",
    "resumed",
    "stepped_back",
    "killed",
    "completed",
    "approval",
    "reset",
    "abandoned",
]


class Document(Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """Base of everything written in YAML: unknown keys are errors, names are camelCase."""


class Metadata(Document, frozen=True):
    name: Name
    owner: str = ""
    labels: dict[str, str] = {}
    links: dict[str, str] = {}


class FlagRef(Document, frozen=True, order=True):
    """Identity of a flag: (provider, environment, key)."""

    provider: Name
    environment: Name
    key: Key

    def __str__(self) -> str:
        return f"{self.provider}/{self.environment}/{self.key}"


class Serve(Document, frozen=True):
    """Variation names: `rollout` is raised, `fallback` is everybody else's and what a kill serves.

    `kill: fallthrough` leaves the flag on when it is killed, so that rules and targets of other people survive:
    the default rule serves the fallback then, and our rules are gone.
    """

    rollout: Annotated[str, Meta(min_length=1)]
    fallback: Annotated[str, Meta(min_length=1)]
    kill: Literal["off", "fallthrough"] = "off"


class AttributeMatch(Document, frozen=True):
    """How one context attribute must look. Exactly one of the four is set."""

    ends_with: str | None = None
    starts_with: str | None = None
    contains: str | None = None
    in_: list[str] | None = field(default=None, name="in")


class AudienceRule(Document, frozen=True):
    """Contexts that get the rollout variation from the first stage on; all `match` attributes must fit."""

    name: Name
    match: Annotated[dict[str, AttributeMatch], Meta(min_length=1)]


class Audience(Document, frozen=True):
    bucket_by: str = "user"
    always: list[AudienceRule] = []


class Sample(Document, frozen=True):
    requests: NonNegative


class Approval(Document, frozen=True):
    from_: Annotated[list[Name], Meta(min_length=1)] = field(name="from")
    timeout: Duration = "24h"

    @property
    def timeout_seconds(self) -> float:
        return seconds(self.timeout)


class Stage(Document, frozen=True):
    name: Name
    exposure: ExposureText
    bake: Duration
    min_total: Sample | None = None
    approval: Approval | None = None

    @property
    def share(self) -> int:
        """Exposure in thousandths of a percent."""
        return exposure(self.exposure)

    @property
    def bake_seconds(self) -> float:
        return seconds(self.bake)


class GuardrailUse(Document, frozen=True):
    """A policy by name, with the parameters it asks for."""

    policy: Name
    with_: dict[str, str] = field(default_factory=dict, name="with")


DAYS_PATTERN = r"^(mon|tue|wed|thu|fri|sat|sun)([-,](mon|tue|wed|thu|fri|sat|sun))*$"
CLOCK_PATTERN = r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$"
LOCAL_TIME_PATTERN = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2})?)?$"


class AllowedWindow(Document, frozen=True):
    """Weekly hours in the schedule's time zone in which exposure may rise."""

    days: Annotated[str, Meta(pattern=DAYS_PATTERN, description="as in mon-thu or sat,sun")]
    from_: Annotated[str, Meta(pattern=CLOCK_PATTERN)] = field(name="from")
    to: Annotated[str, Meta(pattern=CLOCK_PATTERN)]


class Freeze(Document, frozen=True):
    """A dated span, in the schedule's time zone, in which exposure may not rise."""

    name: Name
    from_: Annotated[str, Meta(pattern=LOCAL_TIME_PATTERN)] = field(name="from")
    to: Annotated[str, Meta(pattern=LOCAL_TIME_PATTERN)]


class Schedule(Document, frozen=True):
    timezone: str = "UTC"
    advance_only: list[AllowedWindow] = []
    freezes: list[Freeze] = []


class Notify(Document, frozen=True):
    to: Name
    events: tuple[EventName, ...] = ("killed", "paused")


class AlertLimits(Document, frozen=True):
    """The most that alerts of somebody else's alerting may do to the rollout."""

    max_action: Literal["pause", "kill"] = "pause"


class PlanSpec(Document, frozen=True):
    flag: FlagRef
    serve: Serve
    stages: Annotated[list[Stage], Meta(min_length=1, max_length=100)]
    guardrails: Annotated[list[GuardrailUse], Meta(min_length=1)]
    audience: Audience = field(default_factory=Audience)
    schedule: Schedule = field(default_factory=Schedule)
    notify: list[Notify] = []
    alerts: AlertLimits = AlertLimits()
    mode: Literal["enforce", "observe"] = "enforce"


class RolloutPlan(Document, frozen=True, tag_field="kind", tag="RolloutPlan"):
    api_version: ApiVersion
    metadata: Metadata
    spec: PlanSpec
