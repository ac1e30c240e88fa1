"""What people and programs are shown of a run: the answers of the API, read by CLI, dashboard and scripts.

Exposure is in thousandths of a percent, times are UTC, durations are seconds.
"""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from controller.domain.evidence import Outcome
from controller.domain.plan import FlagRef
from controller.domain.rollout import Block, Phase

StageState = Literal["done", "current", "ahead"]
CheckState = Literal["ok", "warn", "fail"]


class StageStatus(Struct, frozen=True, kw_only=True):
    name: str
    exposure: int
    state: StageState
    bake_seconds: float
    baked_seconds: float
    needs_approval: bool


class RuleStatus(Struct, frozen=True, kw_only=True):
    """`breached_seconds` of `for_seconds` have accumulated. `limit` is absolute, also for `2x baseline`."""

    policy: str
    rule: str
    condition: str
    then: str
    enforced: bool
    outcome: Outcome
    detail: str
    unit: str
    value: float | None
    limit: float | None
    baseline: float | None
    sample: float | None
    breached_seconds: float
    for_seconds: float
    query: str


class KillStatus(Struct, frozen=True, kw_only=True):
    kill_id: str
    flag: FlagRef
    accepted_at: datetime
    actor: str
    reason: str
    confirmed_at: datetime | None
    run: str | None = None


class ApprovalStatus(Struct, frozen=True, kw_only=True):
    """Somebody was asked to approve the stage, and has not yet."""

    stage: str
    requested_at: datetime


class RunStatus(Struct, frozen=True, kw_only=True):
    """`reason` is the text of the latest decision. `observed_exposure` None: the provider could not be read.

    `foreign` is what of the flag is not ours; `on_kill` says what becomes of that when the flag is killed.
    `changed_by` and `changed_at` are the latest change as the provider tells it, `delivered_seconds` how long a
    change took to reach a connected SDK. `exposed_since` is when the desired exposure was decided.
    """

    id: str
    plan: str
    flag: FlagRef
    phase: Phase
    mode: Literal["enforce", "observe"]
    stage: int
    stages: list[StageStatus]
    desired_exposure: int
    observed_exposure: int | None
    observed_enabled: bool | None
    observed_at: datetime | None
    confirmed: bool
    reason: str
    blocks: list[Block]
    next_exposure: int | None
    next_in_seconds: float | None
    rules: list[RuleStatus]
    kills: list[KillStatus]
    plan_revision: int
    author: str
    started_by: str
    created_at: datetime
    ended_at: datetime | None
    version: int
    owner: str = ""
    labels: dict[str, str] = {}
    links: dict[str, str] = {}
    approval: ApprovalStatus | None = None
    foreign: list[str] = []
    on_kill: Literal["off", "fallthrough"] = "off"
    changed_by: str = ""
    changed_at: datetime | None = None
    delivered_seconds: float | None = None
    exposed_since: datetime | None = None


class PlanSummary(Struct, frozen=True, kw_only=True):
    """One line of `list`. `run` is None before the first start.

    `next_exposure` is None when nothing rises further. `exposed_since` is when the desired exposure was decided.
    """

    plan: str
    flag: FlagRef
    revision: int
    run: str | None
    phase: Phase | None
    stage: str
    desired_exposure: int
    observed_exposure: int | None
    reason: str
    owner: str = ""
    next_exposure: int | None = None
    exposed_since: datetime | None = None
    waits_for_approval: bool = False


class Explanation(Struct, frozen=True, kw_only=True):
    """Why the run is where it is. `text` is for people; `blocks` are the conditions one by one."""

    run: str
    phase: Phase
    text: str
    blocks: list[Block]
    rules: list[RuleStatus]


class ReportLine(Struct, frozen=True, kw_only=True):
    """What happened, in the column of whoever did it. `exposure` is what they serve from then on, if changed."""

    at: datetime
    column: Literal["rampart", "people"]
    action: str
    text: str
    exposure: int | None = None


class StageTimes(Struct, frozen=True, kw_only=True):
    """When a stage's exposure was first reached; None: never.

    `people_at` is only told of a run that observes: in any other they raise nothing behind Rampart's back.
    """

    name: str
    exposure: int
    rampart_at: datetime | None = None
    people_at: datetime | None = None


class RunReport(Struct, frozen=True, kw_only=True):
    run: str
    plan: str
    flag: FlagRef
    mode: Literal["enforce", "observe"]
    phase: Phase
    stages: list[StageTimes]
    lines: list[ReportLine]


class KillReceipt(Struct, frozen=True, kw_only=True):
    """`durable`: the journal has it on disk. `confirmed_at` None: not read back as off yet, being retried.

    `replicas` hold it by now; `silent` are registered and did not answer yet. `attempts`: how often it was begun
    to turn the flag off at the provider.
    """

    kill_id: str
    flag: FlagRef
    accepted_at: datetime
    durable: bool
    provider_updated_at: datetime | None
    confirmed_at: datetime | None
    replicas: list[str]
    run: str | None = None
    silent: list[str] = []
    attempts: int = 0


class NotKilled(Struct, frozen=True, kw_only=True):
    """Nothing was done to this flag."""

    flag: FlagRef
    why: str


class KilledAndNot(Struct, frozen=True, kw_only=True):
    """What came of an order to kill several flags."""

    kills: list[KillReceipt]
    refused: list[NotKilled] = []


class ReplicaStatus(Struct, frozen=True, kw_only=True):
    """`here` is the one that answers. `unknown`: the database does not answer it. `seen_at` is database time."""

    name: str
    state: Literal["here", "present", "absent", "unknown"]
    seen_at: datetime | None = None


class Raises(Struct, frozen=True, kw_only=True):
    """Whether any exposure may rise now, as one replica knows it. Lowering and kills are never in question.

    `database_answers`: this replica, and with all kills that it knows; else it knows nothing of the others.
    """

    allowed: bool
    database_answers: bool
    obstacles: list[str]
    replicas: list[ReplicaStatus]


class Released(Struct, frozen=True, kw_only=True):
    """`released` names the absent replicas that were forgotten, and the barriers."""

    released: list[str]
    raises: Raises


class Change(Struct, frozen=True, kw_only=True):
    """One line of a diff: `path` as in the YAML; None on a side where it is absent."""

    kind: str
    name: str
    path: str
    before: Any
    after: Any
    note: str = ""


class StoredDocument(Struct, frozen=True, kw_only=True):
    """A plan or policy as the server had it before this apply."""

    kind: str
    name: str
    revision: int
    author: str
    applied_at: datetime


class RunOutlook(Struct, frozen=True, kw_only=True):
    """What was applied, or would be, to an active run that follows something else.

    `changes` are from what it follows to what was applied; the rest is about `apply --adopt`. `obstacles`: it is
    refused to everybody. `second_person`: it takes the scope approve and somebody who is none of `authors`.
    `consequences` are what else it does to the run.
    """

    run: str
    plan: str
    environment: str
    phase: Phase
    stage: str
    exposure: int
    plan_revision: int
    policy_revisions: dict[str, int]
    changes: list[Change]
    obstacles: list[str] = []
    second_person: list[str] = []
    authors: list[str] = []
    consequences: list[str] = []


class FlagOutlook(Struct, frozen=True, kw_only=True):
    """What the provider shows now of the flag of a plan that was given; all of it None when `unread` says why.

    `committed` is the exposure that the flag's active `run` wants. `foreign` is what is not ours, and `on_kill`
    says what becomes of that when the flag is killed. `findings` are what stands against a start, or differs from
    what was committed.
    """

    plan: str
    flag: FlagRef
    unread: str = ""
    enabled: bool | None = None
    exposure: int | None = None
    audience: list[str] = []
    foreign: list[str] = []
    on_kill: Literal["off", "fallthrough"] = "off"
    run: str | None = None
    committed: int | None = None
    findings: list[str] = []


class ApplyResult(Struct, frozen=True, kw_only=True):
    """`applied` is False for a dry run. `stored` is what the server had before, `revisions` what it has now.

    `pinned_runs` are active runs that follow other revisions than these, `adopted_runs` those that were moved.
    `runs` say what it means to the first of either, `flags` what their providers show.
    """

    applied: bool
    changes: list[Change]
    revisions: dict[str, int]
    pinned_runs: list[str] = []
    adopted_runs: list[str] = []
    warnings: list[str] = []
    stored: list[StoredDocument] = []
    runs: list[RunOutlook] = []
    flags: list[FlagOutlook] = []


class Check(Struct, frozen=True, kw_only=True):
    """One finding of `doctor`; there may be several of a name. `fix` says what to do when it is not ok.

    `fail`: something cannot work. `warn`: it works, with a risk to know of.
    """

    name: str
    state: CheckState
    detail: str
    fix: str = ""
