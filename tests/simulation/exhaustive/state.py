"""The values of the small model: everything immutable, so that a state is its own key.

Exposures are 0, 1 and 2: off, the first stage, the second. On/off and the share are one value here, so a run's
start is its raise from 0. Times are whole units; `UNIT` says which settings of the engine they stand for.
"""

from typing import Literal, NamedTuple

from controller.engine import quiet_seconds
from controller.settings import DatabaseSettings, EngineSettings, Settings

UNIT = Settings(
    database=DatabaseSettings(timeout_seconds=1),
    engine=EngineSettings(presence_seconds=1, lease_seconds=2, provider_timeout_seconds=1),
)
"""The shortest settings in which every wait of the protocol is at least one unit."""

PRESENT = int(UNIT.engine.presence_seconds)
LEASE = int(UNIT.engine.lease_seconds)
SEND_WITHIN = LEASE // 2
PROVIDER_WITHIN = int(UNIT.engine.provider_timeout_seconds)
DATABASE_WITHIN = int(UNIT.database.timeout_seconds)
QUIET = int(quiet_seconds(UNIT))
UNKNOWN_TO_DATABASE = DATABASE_WITHIN + PRESENT
"""The one window: so long may a kill that only a cut-off replica knows meet a raise."""

Phase = Literal["progressing", "paused", "killed"]
NOBODY = -1
STALE = -2


class Run(NamedTuple):
    """`domain.rollout.Run`. `before` is its `confirmed_exposure`, `epoch` its `kill_epoch`."""

    number: int = 1
    phase: Phase = "progressing"
    exposure: int = 0
    confirmed: bool = True
    before: int = 0
    version: int = 1
    epoch: int = 0


class Row(NamedTuple):
    """A replica's row in the database; `left` units of validity, on database time."""

    registered: bool = True
    present_life: bool = True
    left: int = PRESENT


IN_FORCE, RESET, UNRECORDED = 1, 2, 0


class Database(NamedTuple):
    """`kills[k]` is UNRECORDED, IN_FORCE or RESET. `stored` is the built-in provider's flag."""

    run: Run
    rows: tuple[Row, ...]
    kills: tuple[int, ...]
    owner: int = NOBODY
    lease: int = 0
    lease_left: int = 0
    barrier: bool = False
    stored: int = 0


UNHEARD, HELD, RELEASED = 0, 1, 2
RESTING, PICKED, WRITTEN, WAITING = 0, 1, 2, 3


class Held(NamedTuple):
    """One kill at one replica: `held.Held`, its journal record, and how far the attempt to lower the flag is.

    `landed` is a bit mask of the replicas that hold it, too, and were not writing. `age` since this replica knew.
    `word`: a peer's message about it is on its way here and will arrive whatever became of its sender.
    """

    life: int = UNHEARD
    journaled: bool = False
    merged: bool = False
    confirmed: bool = False
    landed: int = 0
    age: int = 0
    lowering: int = RESTING
    word: bool = False


Stage = Literal["idle", "claimed", "decided", "again", "committed", "writing"]


class Job(NamedTuple):
    """A tick or a command between claim and the end of its write. `lease` NOBODY: a command, which has none.

    `after` is what is to be committed; `age` since it was decided; `marked`: a kill or a reset of the flag came
    after the mark was taken. `sure`: the commit happened.
    """

    stage: Stage = "idle"
    before: Run | None = None
    after: Run | None = None
    action: str = ""
    lease: int = NOBODY
    age: int = 0
    marked: bool = False
    sure: bool = True


IDLE_JOB = Job()
OUT, ASKED, SAID, ANEW = 0, 1, 2, 3


class CheckIn(NamedTuple):
    """Where the round of `presence.check_in` is. `active`, `missing`: masks of kills, from the question's answer.

    `clean`: no kill or reset of the flag since the question. `age` since the check-in was sent.
    """

    at: int = OUT
    active: int = 0
    missing: int = 0
    clean: bool = True
    age: int = 0


class Reset(NamedTuple):
    """A person's reset of one kill on its way through this replica: `settled`, then `stored`, then forgotten."""

    kill: int = NOBODY
    stored: bool = False


class Replica(NamedTuple):
    """`knows_life`: its check-ins name the database's present life. `regressed`: it remembers what was lost."""

    held: tuple[Held, ...]
    up: bool = True
    knows_life: bool = True
    job: Job = IDLE_JOB
    check_in: CheckIn = CheckIn()
    reset: Reset = Reset()
    regressed: bool = False
    beyond: bool = False


class Flight(NamedTuple):
    """A write on its way to the provider. `sender` NOBODY: nobody waits for its end any more."""

    exposure: int
    sender: int
    age: int = 0
    shut_out: bool = False


class Left(NamedTuple):
    """How often each of these may still happen."""

    kills: int = 0
    resets: int = 0
    starts: int = 0
    advances: int = 0
    step_backs: int = 0
    resumes: int = 0
    crashes: int = 0
    restarts: int = 0
    failovers: int = 0
    lost_writes: int = 0
    takeovers: int = 0
    releases: int = 0
    late_words: int = 0


class World(NamedTuple):
    """`image`: what a standby received, once replication to it stopped. `flag`: the vendor's flag.

    Books of the checker: `claimed[k]`: somebody was told that the kill is confirmed. `since[k]`: units since it
    was accepted, up to the length of the window and one more.
    """

    database: Database
    image: Database | None
    flag: int
    flights: tuple[Flight, ...]
    replicas: tuple[Replica, ...]
    claimed: tuple[bool, ...]
    since: tuple[int, ...]
    left: Left


class Scope(NamedTuple):
    """What is explored. `bugs` name guards that are left out on purpose.

    `ticks`: runs are ticked under leases; without, they are moved by commands alone. `presence`: replicas check
    in; without, all count as present for ever. `timed`: time passes; without, nothing runs out, and a kill
    counts as confirmed only once every replica was heard. `peers`: replicas tell each other directly.
    """

    name: str
    left: Left
    replicas: int = 2
    provider: Literal["vendor", "builtin"] = "vendor"
    top: int = 2
    begin: int = 0
    ticks: bool = False
    presence: bool = True
    timed: bool = True
    peers: bool = True
    bugs: frozenset[str] = frozenset()

    def first(self) -> World:
        kills = self.left.kills
        run = Run(exposure=self.begin, before=self.begin)
        database = Database(
            run=run,
            rows=(Row(),) * self.replicas,
            kills=(UNRECORDED,) * kills,
            stored=self.begin if self.provider == "builtin" else 0,
        )
        return World(
            database=database,
            image=None,
            flag=self.begin if self.provider == "vendor" else 0,
            flights=(),
            replicas=(Replica(held=(Held(),) * kills),) * self.replicas,
            claimed=(False,) * kills,
            since=(0,) * kills,
            left=self.left,
        )


class Step(NamedTuple):
    """`fault`: it is not the engine's own, so nothing may rest on it. `broken`: the promise it breaks."""

    text: str
    replica: int
    kill: int
    world: World
    fault: bool = False
    broken: str = ""
