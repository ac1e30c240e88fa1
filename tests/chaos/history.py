"""What PostgreSQL says happened, read over SQL and judged without a word from any replica."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from controller.domain.audit import GENESIS_HASH, AuditRow, verify_chain
from controller.domain.rollout import RAISING, TRANSITIONS, Phase
from tests.chaos import plans
from tests.chaos.database import Sql

PAGE = 1000
CLOCK_SECONDS = 0.5
"""For clocks that are read one after the other."""

AFTER = "SELECT sequence, previous, hash, body FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2"
HASH_AT = "SELECT hash FROM audit WHERE sequence = $1"

# Each must answer with no row at all.
NEVER = {
    "a run whose version is not its number of audit rows": """
        SELECT r.id, r.version, count(a.sequence) FROM runs r LEFT JOIN audit a ON a.run = r.id
        GROUP BY r.id, r.version HAVING r.version <> count(a.sequence)""",
    "a flag with two active runs": """
        SELECT provider, environment, key FROM runs WHERE active
        GROUP BY provider, environment, key HAVING count(*) > 1""",
    "an audit entry recorded twice": "SELECT entry_id FROM audit GROUP BY entry_id HAVING count(*) > 1",
    "a gap in the audit log": """
        SELECT sequence FROM (SELECT sequence, lag(sequence) OVER (ORDER BY sequence) AS before FROM audit) AS rows
        WHERE sequence <> coalesce(before, 0) + 1""",
    "an active run of a flag that is killed": """
        SELECT r.id FROM runs r JOIN kills k USING (provider, environment, key)
        WHERE r.active AND k.reset_at IS NULL""",
}


class Step(Struct, frozen=True):
    phase: str = ""
    stage: int = -1
    exposure: int = 0


class Details(Struct, frozen=True):
    to: Step | None = None
    kill_ids: tuple[str, ...] = ()


class Entry(Struct, frozen=True):
    id: str
    at: datetime
    actor: str
    action: str
    cause: str
    subject: str
    run: str | None = None
    run_version: int | None = None
    flag: str | None = None
    details: Details = Details()


_decode = msgspec.json.Decoder(Entry).decode


class History:
    """Every audit row ever seen, in order. `lost` counts those that a failover took away."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        self._hashes: list[bytes] = [GENESIS_HASH]
        self._entries: list[Entry] = []
        self.lost = 0

    def __len__(self) -> int:
        return len(self._entries)

    def read(self) -> None:
        """Take up what is new. Raises AssertionError when what was seen before is not there any more."""
        seen = len(self._entries)
        if seen:
            present = self._sql.value(HASH_AT, seen)
            assert present == self._hashes[seen], f"audit row {seen} was there and is now gone or another"
        while found := self._sql.rows(AFTER, len(self._entries), PAGE, seconds=30.0):
            rows = [AuditRow(**dict(row)) for row in found]
            report = verify_chain(rows, after=(len(self._entries), self._hashes[-1]))
            assert report.problem is None, report.problem
            self._hashes += [row.hash for row in rows]
            self._entries += [_decode(row.body) for row in rows]

    def rewind(self) -> int:
        """After a failover: forget what the new primary never had; returns how many rows that were."""
        kept = len(self._entries)
        while kept and self._sql.value(HASH_AT, kept) != self._hashes[kept]:
            kept -= 1
        gone = len(self._entries) - kept
        del self._hashes[kept + 1 :], self._entries[kept:]
        self.lost += gone
        return gone

    def transitions(self) -> int:
        return sum(entry.run is not None for entry in self._entries)

    def recorded(self, kill_id: str) -> bool:
        return any(entry.id == kill_id for entry in reversed(self._entries))

    # — what must never be —

    def problems(self) -> list[str]:
        """Everything wrong with the history as read, and with the tables beside it."""
        found = [
            f"{what}: {[tuple(row) for row in self._sql.rows(query, seconds=60.0)][:5]}"
            for what, query in NEVER.items()
            if self._sql.rows(query, seconds=60.0)
        ]
        runs: dict[str, list[Entry]] = defaultdict(list)
        for entry in self._entries:
            if entry.run is not None:
                runs[entry.run].append(entry)
        for run, entries in runs.items():
            found += [f"{run}: {problem}" for problem in run_problems(entries)]
        return found + list(raised_under_a_kill(self._entries))


def run_problems(entries: Sequence[Entry]) -> Iterable[str]:
    versions = [entry.run_version for entry in entries]
    if versions != list(range(1, len(entries) + 1)):
        yield f"versions are {versions}"
    yield from _impossible(entries)
    yield from _ladder(entries)
    yield from _bakes(entries)


def _impossible(entries: Sequence[Entry]) -> Iterable[str]:
    """Each action must be one of the table's, from the phase that the one before led to."""
    phase: Phase = "pending"
    for entry in entries[1:]:  # the first row is the authorisation
        after = {str(action): next_ for action, next_ in TRANSITIONS[phase].items()}.get(entry.action)
        if after is None:
            yield f"{entry.action} of a run that is {phase}"
            return
        phase = after


def _ladder(entries: Sequence[Entry]) -> Iterable[str]:
    """No exposure but a stage's, and none raised by more than one stage at a time."""
    exposure = 0
    for entry in entries:
        to = entry.details.to
        if entry.action == "kill":
            exposure = 0
        if to is None:
            continue
        above = next((share for share in plans.EXPOSURES if share > exposure), None)
        if entry.action in ("start", "advance") and to.exposure != above:
            yield f"{entry.action} from {exposure} to {to.exposure}"
        if entry.action not in ("start", "advance") and to.exposure > exposure:
            yield f"{entry.action} raised it from {exposure} to {to.exposure}"
        exposure = to.exposure


def _bakes(entries: Sequence[Entry]) -> Iterable[str]:
    """Between the confirmation of a stage and the next raise by policy: one window and the whole bake."""
    confirmed_at: datetime | None = None
    exposure = 0
    pace = plans.pace((entries[0].run or "").partition("#")[0])
    promised = pace.window + pace.bake - CLOCK_SECONDS
    for entry in entries:
        if entry.action in ("advance", "complete") and entry.cause == "policy" and exposure:
            baked = (entry.at - confirmed_at).total_seconds() if confirmed_at else 0.0
            if baked < promised:
                yield f"{entry.action} after {baked:.1f} s, before {promised:g} s were over"
        if entry.action == "confirm":
            confirmed_at = entry.at
        elif entry.action in ("start", "advance", "resume", "step_back", "lower", "adopt"):
            confirmed_at = None
        exposure = entry.details.to.exposure if entry.details.to else exposure


def raised_under_a_kill(entries: Iterable[Entry]) -> Iterable[str]:
    """In the order of the log: from a kill to its reset nothing of that flag rises, and no run of it begins."""
    kills: dict[str, set[str]] = defaultdict(set)
    for number, entry in enumerate(entries, start=1):
        if entry.action == "kill" and entry.flag:
            kills[entry.flag].add(entry.id)
        elif entry.action == "reset" and entry.flag:
            kills[entry.flag] -= set(entry.details.kill_ids)
        elif entry.action in RAISING and entry.flag and kills[entry.flag]:
            yield f"row {number}: {entry.action} of {entry.run} under {', '.join(sorted(kills[entry.flag]))}"
