"""What is explored, and the bugs that are planted to see whether the checker finds them."""

from typing import NamedTuple

from tests.simulation.exhaustive.state import Left, Scope


def ordered(
    name: str,
    *,
    begin: int = 0,
    builtin: bool = False,
    replicas: int = 2,
    timed: bool = False,
    peers: bool = True,
    **left: int,
) -> Scope:
    """Kills, check-ins and commands; one stage. `begin` is what the run exposes at first."""
    return Scope(
        name=name,
        left=Left(**left),
        replicas=replicas,
        provider="builtin" if builtin else "vendor",
        top=1,
        begin=begin,
        timed=timed,
        peers=peers,
    )


def ticked(name: str, *, top: int = 1, **left: int) -> Scope:
    """Ticks under leases; all replicas are present for ever."""
    return Scope(name=name, left=Left(**left), top=top, ticks=True, presence=False)


SMALL = (
    ticked("fencing", crashes=1),
    ordered("kill", kills=1, advances=1),
    ordered("reset", begin=1, kills=1, resets=1, late_words=1),
    ordered("reset, built-in", begin=1, builtin=True, kills=1, resets=1, late_words=1),
    ordered("kill and restart", kills=1, restarts=1),
)
"""Explored by every run of the tests."""

LARGE = (
    ticked("ladder", top=2),
    ticked("failover", failovers=1, takeovers=2),
    ordered("lost write", kills=1, advances=1, lost_writes=1),
    ordered("restart", kills=1, advances=1, restarts=1),
    ordered("crash", kills=1, advances=1, crashes=1),
    ordered("kill and failover", kills=1, advances=1, failovers=1),
    ordered("new run", begin=1, kills=1, resets=1, starts=1, advances=1),
    ordered("new run, built-in", begin=1, builtin=True, kills=1, resets=1, starts=1, advances=1),
    ordered("two kills", begin=1, kills=2, resets=1, advances=1),
    ordered("three", replicas=3, kills=1, advances=1),
    ordered("time, no peers", timed=True, peers=False, kills=1, advances=1),
    ordered("time", timed=True, kills=1, advances=1),
)
"""Explored by the command."""


class Bug(NamedTuple):
    """A guard that is left out, the promise that breaks, and a scope in which it does.

    Two guards are no bugs when they alone are missing. The kill's epoch: a kill ends the run and so takes its
    version, which is checked, too. `KillLedger.forgotten`: what is missing among the kills in force is merged
    again.
    """

    name: str
    promise: str
    scope: Scope

    def planted(self) -> Scope:
        return self.scope._replace(bugs=frozenset(self.name.split(", ")))


RAISE = ordered("raise", kills=1, advances=1)
TIMED = ordered("time, no peers", timed=True, peers=False, kills=1, advances=1)
CRASH = ordered("crash", kills=1, advances=1, crashes=1)
FAILOVER = ordered("failover", kills=1, failovers=1)
NEW_RUN = ordered("new run", begin=1, kills=1, resets=1, starts=1, advances=1)

CONFIRMED = "after confirmed nothing of ours raises"
UNKNOWN = "no raise while a replica knows a kill that the database does not"
PRESENT = "who counts as present has merged its kills"
BACK = "a reset kill stays reset"
LOWERED = "a reset lowers no run"
REST = "everything comes to rest when faults stop"
OFF = "after a reset the flag stays off"
FENCED = "a stale lease changes nothing"

BUGS = (
    Bug("kill epoch not checked, version not checked", "no raise under a kill", RAISE),
    Bug("presence not checked", UNKNOWN, TIMED),
    Bug("unmerged when sent", PRESENT, TIMED),
    Bug("life not compared", PRESENT, FAILOVER),
    Bug("oblivion taken for a reset", "a kill ends by its reset alone", FAILOVER),
    Bug("journal not read", "a kill on disk survives a crash", CRASH),
    Bug("history not compared", "no raise after lost history", ordered("failover", failovers=1, advances=2)),
    Bug("confirmed without peers", CONFIRMED, RAISE),
    Bug("confirmed too early", CONFIRMED, TIMED),
    Bug("write not bounded", CONFIRMED, TIMED),
    Bug("writing not told", CONFIRMED, RAISE),
    Bug("own write not awaited", CONFIRMED, RAISE),
    Bug("answered before the disk", CONFIRMED, CRASH),
    Bug("holds not checked", "no replica writes under a kill it holds", RAISE),
    Bug("mark not checked", OFF, ordered("reset", kills=1, advances=1, resets=1)),
    Bug("reset unconfirmed", OFF, ordered("reset", kills=1, advances=1, resets=1)),
    Bug("reset kill pressed on", LOWERED, NEW_RUN),
    Bug("forgetting writes", LOWERED, NEW_RUN),
    Bug("late word taken up", BACK, ordered("reset", begin=1, kills=1, resets=1, late_words=1)),
    Bug("old answer taken up", BACK, NEW_RUN),
    Bug("reset without settling", REST, ordered("built-in", begin=1, builtin=True, kills=1, resets=1)),
    Bug("no sweep", REST, ordered("lost write", kills=1, advances=1, lost_writes=1)),
    Bug("commit assumed", "commit before apply", RAISE),
    Bug("lease not checked", FENCED, ticked("ticks")),
    Bug("lease owner not compared", FENCED, ticked("failover", failovers=1, takeovers=2)),
    Bug("version not checked", "one transition a version", ticked("ticks and a command", advances=1)),
)
