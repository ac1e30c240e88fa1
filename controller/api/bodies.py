"""What the API is sent, and what it answers beyond `domain/status.py`. A wrong body names the wrong field."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from controller.domain.alerts import AlertResult
from controller.domain.catalogue import Scope, SdkKeyKind
from controller.domain.plan import LOCAL_TIME_PATTERN, FlagRef
from controller.domain.quantities import Duration, Key, Name
from controller.domain.selector import MOST_LABELS
from controller.domain.status import KillReceipt

# PostgreSQL stores no NUL character, neither in text nor in JSON.
Text = Annotated[str, Meta(max_length=2000, pattern=r"^[^\x00]*$")]


LocalTime = Annotated[
    str, Meta(pattern=LOCAL_TIME_PATTERN, description="a local day and time, as in 2026-11-26T00:00")
]
Label = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Labels = Annotated[dict[Label, Label], Meta(max_length=MOST_LABELS)]
Reason = Annotated[str, Meta(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]


class Body(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class NoteBody(Body, frozen=True):
    note: Text = ""


class AdoptBody(Body, frozen=True):
    """`environment` is only needed where flags of several environments have that key."""

    environment: Name | None = None
    note: Text = ""


class ManifestFile(Body, frozen=True):
    """One file as it stands on the author's disk; `name` is what findings are reported under."""

    name: Annotated[str, Meta(min_length=1, max_length=500)]
    text: str


class CompareBody(Body, frozen=True):
    files: Annotated[list[ManifestFile], Meta(min_length=1, max_length=500)]


class ManifestsBody(Body, frozen=True):
    """`adopt` moves active runs to what was applied. `dry_run` changes nothing and answers the same."""

    files: Annotated[list[ManifestFile], Meta(min_length=1, max_length=500)]
    dry_run: bool = False
    adopt: bool = False
    note: Text = ""


class KillBody(Body, frozen=True):
    """A kill needs no reason: whoever presses the button at night may give it later."""

    reason: Text = ""
    provider: Name | None = None


class KillSeveralBody(Body, frozen=True):
    """Either `flags`, as a preview named them, or what selects them: `labels`, `raised_within`, or both."""

    reason: Text = ""
    flags: Annotated[list[FlagRef], Meta(max_length=5000)] = []
    labels: Labels = {}
    raised_within: Duration | None = None
    environment: Name | None = None
    provider: Name | None = None


class ResetBody(Body, frozen=True):
    kill_ids: Annotated[list[Annotated[str, Meta(max_length=100)]], Meta(min_length=1, max_length=1000)]
    note: Text = ""
    provider: Name | None = None


class FreezeBody(Body, frozen=True):
    """No `from` is now; either `to` or `for` says until when. No `environments` means all,
    no `labels` all plans."""

    name: Name
    reason: Reason
    from_: LocalTime | None = field(name="from", default=None)
    to: LocalTime | None = None
    for_: Duration | None = field(name="for", default=None)
    timezone: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$")] = "UTC"
    environments: Annotated[list[Name], Meta(max_length=100)] = []
    labels: Labels = {}


class LiftBody(Body, frozen=True):
    note: Reason


class TriggerBody(Body, frozen=True):
    """`flag` is a flag's key or the name of a plan. Without a `name` it is named after flag and environment."""

    flag: Key
    environment: Name
    provider: Name | None = None
    name: Name | None = None


class TriggerView(Struct, frozen=True, kw_only=True):
    """An address that kills, without its secret."""

    name: str
    flag: FlagRef
    created_at: datetime
    created_by: str


class NewTrigger(TriggerView, frozen=True):
    """`path` holds the secret; it is shown this once and stored nowhere. `url` is empty without a public URL."""

    path: str
    url: str


class LettersBody(Body, frozen=True):
    """Dead letters: by id, of a channel, or with both those of both. All of them only when it says so."""

    ids: Annotated[list[Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,17}$")]], Meta(max_length=1000)] = []
    channel: Name | None = None
    everything: bool = False
    note: Text = ""


class TokenBody(Body, frozen=True):
    """No `environments` means all of them, no `expires_in` for ever."""

    name: Name
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=6)]
    environments: Annotated[list[Name], Meta(max_length=100)] = []
    expires_in: Duration | None = None


class SdkKeyBody(Body, frozen=True):
    name: Name
    environment: Name
    kind: SdkKeyKind = "server"


class SentAlert(Struct, frozen=True, rename="camel", kw_only=True):
    """One alert, in the words of Alertmanager's webhook. `startsAt` and `fingerprint` say which firing it is."""

    status: Annotated[str, Meta(pattern="^(firing|resolved)$")]
    starts_at: Annotated[datetime, Meta(tz=True)]
    fingerprint: Annotated[str, Meta(min_length=1, max_length=200)]
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    generator_url: str = field(default="", name="generatorURL")


class AlertsBody(Struct, frozen=True, kw_only=True):
    """What an Alertmanager sends for one group of alerts. What it says besides is passed over."""

    alerts: Annotated[list[SentAlert], Meta(max_length=1000)]


class AlertsAnswer(Struct, frozen=True, kw_only=True):
    """One result for each alert and rollout that it names."""

    results: list[AlertResult]


class KillAnswer(Struct, frozen=True, kw_only=True):
    kills: list[KillReceipt]


class TokenView(Struct, frozen=True, kw_only=True):
    """A token without its digest."""

    name: str
    scopes: list[Scope]
    environments: list[str]
    created_at: datetime
    created_by: str
    expires_at: datetime | None


class NewToken(TokenView, frozen=True):
    """`secret` is shown this once and stored nowhere."""

    secret: str


class SdkKeyView(Struct, frozen=True, kw_only=True):
    """A key without its secret. A client-side ID is none: every browser shows it."""

    name: str
    kind: SdkKeyKind
    environment: str
    client_side_id: str | None
    created_at: datetime
    created_by: str


class NewSdkKey(SdkKeyView, frozen=True):
    secret: str


class AuditRecord(Struct, frozen=True, kw_only=True):
    """One link of the chain. `entry` with sorted keys and no white space is the body that was hashed."""

    sequence: int
    hash: str
    previous: str
    entry: dict[str, Any]


class AuditHead(Struct, frozen=True, kw_only=True):
    sequence: int
    hash: str


class Version(Struct, frozen=True, kw_only=True):
    version: str


class Liveness(Struct, frozen=True, kw_only=True):
    status: str


class Readiness(Struct, frozen=True, kw_only=True):
    ready: bool
    reasons: list[str] = []


REQUEST_BODIES = (
    NoteBody,
    AdoptBody,
    CompareBody,
    ManifestsBody,
    KillBody,
    KillSeveralBody,
    ResetBody,
    FreezeBody,
    LiftBody,
    TriggerBody,
    LettersBody,
    TokenBody,
    SdkKeyBody,
)
FOREIGN_BODIES = (AlertsBody,)
"""Other programs decide what these look like: fields that are not known here are passed over."""
