"""An alert of somebody else's alerting, and what it may do to which rollouts.

A firing alert may pause or kill. Its end resumes nothing: that a number looks well again while nobody is exposed
says nothing of the release. Which alert acts on what is decided here, from the alert and the plans alone.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol, TypeVar

from msgspec import Struct

from controller.domain.plan import FlagRef, RolloutPlan

AlertAction = Literal["pause", "kill"]
AlertOutcome = Literal[
    "paused",
    "killed",
    "repeated",
    "already_paused",
    "already_killed",
    "not_running",
    "resolved",
    "nothing_asked",
    "no_match",
    "forbidden",
    "unable",
]

ROLLOUT, ENVIRONMENT, ACTION = "rampart_rollout", "rampart_environment", "rampart_action"
NAME_LENGTH = 100
SUMMARY_LENGTH = 300
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Alert(Struct, frozen=True, kw_only=True):
    """`fingerprint` names it at its sender; `origin` is the host that raised it, empty when it did not say."""

    fingerprint: str
    starts_at: datetime
    firing: bool
    labels: Mapping[str, str]
    summary: str = ""
    origin: str = ""

    @property
    def name(self) -> str:
        return one_line(self.labels.get("alertname", ""), NAME_LENGTH) or "without a name"

    @property
    def asks_for_nothing(self) -> bool:
        """As Rampart's own alerts say, which name the rollout they are about."""
        return self.labels.get(ACTION) == "none"

    @property
    def text(self) -> str:
        """`alert HighErrors of prometheus.example: 7 % of requests fail`"""
        origin, summary = one_line(self.origin, NAME_LENGTH), one_line(self.summary, SUMMARY_LENGTH)
        return f"alert {self.name}" + (f" of {origin}" if origin else "") + (f": {summary}" if summary else "")

    def identity(self, subject: str) -> str:
        """The same for every delivery of this start of the alert about `subject`, by whomever and to whomever."""
        microseconds = (self.starts_at - EPOCH) // timedelta(microseconds=1)
        parts = "\0".join(("alert", self.fingerprint, str(microseconds), subject))
        return hashlib.sha256(parts.encode()).hexdigest()[:32]

    def facts(self) -> dict[str, Any]:
        """For the details of an audit entry."""
        return {
            "name": self.name,
            "fingerprint": one_line(self.fingerprint, NAME_LENGTH),
            "starts_at": self.starts_at.isoformat(),
        }


class Target(Protocol):
    """What is known of a plan without any database. `alerts` is the most that alerts may do."""

    @property
    def plan(self) -> str: ...
    @property
    def flag(self) -> FlagRef: ...
    @property
    def alerts(self) -> AlertAction: ...


TargetT = TypeVar("TargetT", bound=Target)


class Order(Struct, frozen=True, kw_only=True):
    """What one alert shall do to one rollout. `remark` says why that is not what it asked for.

    `spared`: it would have been a kill, but for the number of them.
    """

    alert: Alert
    plan: str
    flag: FlagRef
    action: AlertAction
    remark: str = ""
    spared: bool = False

    @property
    def reason(self) -> str:
        return self.alert.text + (f"; {self.remark}" if self.remark else "")

    @property
    def kill_id(self) -> str:
        """A kill belongs to the flag, whatever plan or run named it."""
        return f"kill-{self.alert.identity(str(self.flag))[:20]}"


class AlertResult(Struct, frozen=True, kw_only=True):
    """What one alert came to for one rollout, None if it names none. `action` is what was done or tried."""

    alert: str
    fingerprint: str
    outcome: AlertOutcome
    text: str
    rollout: str | None = None
    environment: str | None = None
    action: AlertAction | None = None


def most_allowed(plan: RolloutPlan) -> AlertAction:
    """A plan that only observes has no flag of its own to turn off."""
    return "pause" if plan.spec.mode == "observe" else plan.spec.alerts.max_action


def named(alert: Alert, known: Iterable[TargetT]) -> list[TargetT]:
    """The plans that the alert's labels name: by `rampart_rollout`, or else by `flag` and `environment`.

    An empty label is the same as none. An alert with `rampart_action: none`, as Rampart's own have, names nothing
    here: that a rollout waits for an approval must not pause it, however the alert was routed.
    """
    labels = alert.labels
    if alert.asks_for_nothing:
        return []
    if rollout := labels.get(ROLLOUT):
        environment = labels.get(ENVIRONMENT)
        return [one for one in known if one.plan == rollout and environment in (None, "", one.flag.environment)]
    flag = (labels.get("flag"), labels.get("environment"))
    return [one for one in known if (one.flag.key, one.flag.environment) == flag]


def order(alert: Alert, target: Target, *, may_kill: bool, killed: int, most_killed: int) -> Order:
    """`may_kill`: whoever brings the alert may kill in that environment. Only a plain wish to kill kills.

    `killed` flags were killed without a person just now, beside this one. After `most_killed` a person must look
    first (promise I21), and this start of the alert kills no more: the flag is `spared`.
    """
    wish, remark, spared = alert.labels.get(ACTION) or "pause", "", False
    if wish not in ("pause", "kill"):
        remark = f'{ACTION} "{one_line(wish, 20)}" is neither pause nor kill'
    elif wish == "kill" and target.alerts != "kill":
        remark = "it asks for a kill, and the plan lets alerts pause only"
    elif wish == "kill" and not may_kill:
        remark = "it asks for a kill, and its token may not kill there"
    elif wish == "kill" and killed >= most_killed:
        recently = f"{killed} flags were killed automatically just now"
        remark = f"it asks for a kill, and {recently}, so a person must look first"
        spared = True
    return Order(
        alert=alert,
        plan=target.plan,
        flag=target.flag,
        action="kill" if wish == "kill" and not remark else "pause",
        remark=remark,
        spared=spared,
    )


def one_line(text: str, length: int) -> str:
    """Strangers' text for logs, pages and messages: no control characters, nothing that turns the line around."""
    plain = "".join(char if char.isprintable() else " " for char in text[: 4 * length])
    plain = " ".join(plain.split())
    return plain if len(plain) <= length else plain[: length - 1].rstrip() + "…"
