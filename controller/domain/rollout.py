"""A run: one attempt to take a plan to its last stage, and the table of everything that may happen to it.

    pending ──start──▶ progressing ⇄ paused
                           │
                           └──complete──▶ completed

Every phase but the final ones can be killed or abandoned. All changes of phase live in TRANSITIONS;
`docs/state-machine.md` is generated from it. This module does not know who asks or what is measured.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from controller.domain.evidence import Reading, Verdict
from controller.domain.flag import FlagState
from controller.domain.plan import FlagRef
from controller.errors import Conflict

Phase = Literal["pending", "progressing", "paused", "completed", "killed", "abandoned"]
Action = Literal[
    "start",
    "take_over",
    "advance",
    "confirm",
    "hold",
    "request_approval",
    "approve",
    "pause",
    "resume",
    "step_back",
    "lower",
    "observe",
    "adopt",
    "complete",
    "kill",
    "reset",
    "abandon",
]
Cause = Literal["policy", "user", "alert", "drift", "no_data", "schedule", "provider"]

TRANSITIONS: Mapping[Phase, Mapping[Action, Phase]] = {
    "pending": {
        "start": "progressing",
        "take_over": "progressing",
        "observe": "pending",
        "request_approval": "pending",
        "approve": "pending",
        "adopt": "pending",
        "kill": "killed",
        "abandon": "abandoned",
    },
    "progressing": {
        "confirm": "progressing",
        "observe": "progressing",
        "advance": "progressing",
        "request_approval": "progressing",
        "approve": "progressing",
        "pause": "paused",
        "step_back": "paused",
        "lower": "paused",
        "adopt": "progressing",
        "complete": "completed",
        "kill": "killed",
        "abandon": "abandoned",
    },
    "paused": {
        "confirm": "paused",
        "observe": "paused",
        "resume": "progressing",
        "step_back": "paused",
        "lower": "paused",
        "adopt": "paused",
        "kill": "killed",
        "abandon": "abandoned",
    },
    "completed": {"kill": "killed"},
    "killed": {"kill": "killed", "reset": "killed"},
    "abandoned": {},
}
ACTIVE_PHASES: tuple[Phase, ...] = ("pending", "progressing", "paused")
COMMANDS: tuple[Action, ...] = (
    "advance", "pause", "resume", "step_back", "approve", "adopt", "kill", "reset", "abandon",
)  # fmt: skip
"""What a person may ask for; the rest is the engine's own."""

RAISING: frozenset[Action] = frozenset({"start", "take_over", "advance", "resume"})

FREEZABLE: frozenset[Action] = frozenset({"start", "advance"})
"""What windows and freezes stand against: nothing else serves more people than were committed before."""

NOT_STARTED = -1
"""The stage index before the first stage, and after stepping back from it: 0 %, no `always` audience."""


class ApprovalRequest(Struct, frozen=True, kw_only=True):
    """Binds run, plan revision and the stage to be entered; `id` changes with each request."""

    id: str
    stage: int
    plan_revision: int
    requested_at: datetime
    granted_by: str | None = None
    granted_at: datetime | None = None


class Accepted(Struct, frozen=True, kw_only=True):
    """What of the flag is not ours, as the person who started or resumed the run found and thereby accepted it.

    `bucketing` is empty between our first write, which may change it, and its confirmation; `ours` from that
    write on.
    """

    foreign: tuple[str, ...] = ()
    off_serves: str | None = None
    bucketing: str = ""
    ours: bool = False

    def found(self, flag: FlagState) -> "Accepted":
        """The same with the flag as a person found it now."""
        ours = self.ours and flag.bucketing == self.bucketing
        return Accepted(foreign=flag.foreign, off_serves=flag.off_serves, bucketing=flag.bucketing, ours=ours)

    def moved(self) -> "Accepted":
        """After the run moved to another revision of its plan, whose next write may decide otherwise who is in."""
        return replace(self, ours=False)

    def written(self) -> "Accepted":
        """After a write of ours was committed."""
        return self if self.ours else replace(self, bucketing="", ours=True)

    def confirmed(self, flag: FlagState) -> "Accepted":
        """After a write of ours was read back: what it replaced is gone; what came meanwhile is not accepted."""
        left = tuple(one for one in self.foreign if one in flag.foreign)
        return replace(self, foreign=left, bucketing=self.bucketing or flag.bucketing)


class Served(Struct, frozen=True, kw_only=True):
    """What people make a flag serve that Rampart only observes."""

    enabled: bool
    exposure: int
    foreign: tuple[str, ...] = ()

    @staticmethod
    def by(flag: FlagState) -> "Served":
        return Served(enabled=flag.enabled, exposure=flag.exposure, foreign=flag.foreign)

    @property
    def effective_exposure(self) -> int:
        return self.exposure if self.enabled else 0


class Run(Struct, frozen=True, kw_only=True):
    """One run, as committed. `exposure` is desired; `confirmed_exposure` was read back from the provider.

    `stage` is the index of the stage reached (NOT_STARTED before the first). `version` counts transitions and
    equals the run's number of audit rows. `kill_epoch` is the flag's at the start: any kill since then makes
    every raise of this run impossible. `confirmed_at` None means that the present step was not read back yet.
    `turned_on` says whether this run's own turn-on was read back once. `accepted` is None for a run that only
    observes, and for one from before this was kept: nothing is compared with it then. `people` is what was last
    recorded of what people did, by a run that only observes; `exposure` is what Rampart would have desired then,
    and it is confirmed while people serve at least that. `baselines` maps `policy/metric` to the reading stored
    under the name of its origin: `before` the first exposure, or `control` before 100 %.
    """

    id: str
    plan: str
    number: int
    plan_revision: int
    policy_revisions: dict[str, int]
    flag: FlagRef
    author: str
    started_by: str
    created_at: datetime
    phase: Phase = "pending"
    stage: int = NOT_STARTED
    exposure: int = 0
    audience: bool = False
    confirmed_exposure: int | None = None
    confirmed_audience: bool = False
    committed_at: datetime | None = None
    confirmed_at: datetime | None = None
    turned_on: bool = False
    accepted: Accepted | None = None
    people: Served | None = None
    version: int = 0
    kill_epoch: int = 0
    kill_id: str | None = None
    status: str = ""
    approval: ApprovalRequest | None = None
    baselines_before: dict[str, Reading] = {}
    baselines_control: dict[str, Reading] = {}
    ended_at: datetime | None = None

    @property
    def active(self) -> bool:
        return self.phase in ACTIVE_PHASES

    @property
    def confirmed(self) -> bool:
        return self.confirmed_at is not None


def next_phase(phase: Phase, action: Action) -> Phase:
    """The phase after `action`. Raises Conflict naming both when the table has no such row."""
    try:
        return TRANSITIONS[phase][action]
    except KeyError:
        allowed = [one.replace("_", "-") for one in COMMANDS if one in TRANSITIONS[phase]]
        possible = ", ".join(allowed) or "nothing any more"
        raise Conflict(f"cannot {action.replace('_', '-')} a run that is {phase}; possible: {possible}") from None


def transition(run: Run, action: Action, **changes: object) -> Run:
    """The run after `action`: next phase, next version, and the given changes."""
    return replace(run, phase=next_phase(run.phase, action), version=run.version + 1, **changes)


def ended_by_kill(run: Run, kill_id: str, *, at: datetime, why: str) -> Run | None:
    """The run as a kill of its flag leaves it; None when it had ended otherwise before."""
    if not run.active and run.phase != "completed":
        return None
    return transition(
        run, "kill", kill_id=kill_id, exposure=0, audience=False, approval=None, status=why, ended_at=at
    )


class Timer(Struct, frozen=True):
    """Accumulated seconds; `running` while the latest tick added to it."""

    seconds: float = 0.0
    running: bool = False


class Block(Struct, frozen=True, kw_only=True):
    """One condition that keeps the run where it is, in words, and the earliest time it can clear."""

    code: Literal[
        "settling",
        "breach",
        "unknown",
        "sample",
        "bake",
        "baseline",
        "schedule",
        "approval",
        "kill",
        "drift",
        "observe",
        "replicas",
        "quarantine",
    ]
    text: str
    clears_at: datetime | None = None


class Seen(Struct, frozen=True, kw_only=True):
    """What the latest tick saw and why the run is where it is: shown by every replica, judged by none."""

    at: datetime
    flag: FlagState | None
    flag_unknown: str = ""
    verdicts: tuple[Verdict, ...] = ()
    blocks: tuple[Block, ...] = ()


class Quarantine(Struct, frozen=True, kw_only=True):
    """The latest `failures` ticks of the run raised; `why` is what the last one raised."""

    since: datetime
    failures: int
    why: str


class Observations(Struct, frozen=True, kw_only=True):
    """Accumulators of one run: unversioned, unaudited, written in batches under the lease epoch.

    A new holder goes on with them and counts no time across the gap. `breached` is per rule id
    (`policy/rule`), `silent` and `failing` per policy. `since_confirmed` is time since the present step was
    read back, `bake` the part of it in which all required rules passed, `requests` the treated requests in it.
    """

    run_version: int = 0
    bake: float = 0.0
    since_confirmed: float = 0.0
    requests: float = 0.0
    approval_wait: float = 0.0
    breached: dict[str, Timer] = {}
    silent: dict[str, Timer] = {}
    failing: dict[str, Timer] = {}
    seen: Seen | None = None
    quarantine: Quarantine | None = None
