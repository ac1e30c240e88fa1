"""Bugs that somebody could write in good faith, as replacements of a few lines of the product.

Each must be noticed: by the simulation (`worlds`, `races`) or by a named test. A replacement whose text is no
longer found exactly once fails loudly, so that the list stays true.
"""

from typing import NamedTuple

WORLDS = "worlds"
RACES = "races"


class Bug(NamedTuple):
    """`old` becomes `new` in `file`; `caught_by` is WORLDS, RACES or a pytest selection (path or -k words)."""

    name: str
    file: str
    old: str
    new: str
    caught_by: str


MEMORY = "controller/store/memory.py"
KILLER = "controller/killer.py"
KILLBOOK = "controller/killbook.py"
KILL_LEDGER = "controller/kill_ledger.py"
LOWERING = "controller/lowering.py"
RECONCILER = "controller/reconciler.py"
PRESENCE = "controller/presence.py"
JUDGE = "controller/domain/judge.py"
ACCUMULATORS = "controller/domain/accumulators.py"
DECIDE = "controller/domain/decide.py"
SQL = "controller/store/queries.sql"

PLANTED = (
    Bug(
        "no fencing in the model of the database",
        MEMORY,
        "        return row.epoch == epoch and row.expires_at > self._now() and owner in (None, row.owner)",
        "        return True",
        "tests/contracts/test_store.py -k TestMemory",
    ),
    Bug(
        "no fencing in the database",
        SQL,
        "($12::bigint IS NULL OR (lease_epoch = $12 AND lease_expires_at > clock_timestamp()))",
        "($12::bigint IS NULL OR true)",
        "tests/contracts/test_store.py -k TestPostgres",
    ),
    Bug(
        "the owner of a lease is not compared, only its number",
        SQL,
        "        AND lease_owner IS NOT DISTINCT FROM coalesce($16::text, lease_owner)\n",
        "        AND ($16::text IS NULL OR true)\n",
        "tests/contracts/test_store.py -k TestPostgres",
    ),
    Bug(
        "check-then-act: the version is not a guard of the commit",
        MEMORY,
        "        if row.run.version != before.version:",
        "        if False:",
        RACES,
    ),
    Bug(
        "the version is not a guard of the statement",
        SQL,
        "    WHERE runs.id = $10 AND runs.version = $11\n",
        "    WHERE runs.id = $10 AND $11::bigint IS NOT NULL\n",
        "tests/contracts/test_store.py -k TestPostgres",
    ),
    Bug(
        "the kill epoch is not checked by a raise",
        MEMORY,
        "        if self.epochs.get(run.flag, 0) != run.kill_epoch:",
        "        if False:",
        "tests/contracts/test_store.py -k TestMemory",
    ),
    Bug(
        "raises do not wait for absent replicas",
        MEMORY,
        '        obstacles = self._roll("").obstacles',
        "        obstacles: tuple[str, ...] = ()",
        "tests/promises/test_replicas.py -k nobody_raises_by_hand",
    ),
    Bug(
        "NaN passes",
        JUDGE,
        "    return number is not None and math.isfinite(number)",
        "    return number is not None",
        "tests/domain/test_judge.py",
    ),
    Bug(
        "the last of several series wins",
        JUDGE,
        "    if reading.series > 1:",
        "    if False:",
        "tests/domain/test_judge.py",
    ),
    Bug(
        "a dead target's rate counts as traffic",
        JUDGE,
        "    if stale:\n",
        "    if False:\n",
        "tests/domain/test_judge.py",
    ),
    Bug(
        "silence is no errors",
        JUDGE,
        '    if number is None or not _finite(number):\n        return "no_data", _silence(number, what)',
        '    if number is None or not _finite(number):\n        return None, ""',
        "tests/domain/test_judge.py",
    ),
    Bug(
        "ten requests are a sample",
        JUDGE,
        "    if number < min_sample or number <= 0:",
        "    if number <= 0:",
        "tests/domain/test_judge.py",
    ),
    Bug(
        "one pass among unknowns is enough",
        ACCUMULATORS,
        '    return "pass" in outcomes and outcomes <= CLEARING',
        '    return "pass" in outcomes or outcomes <= CLEARING',
        "tests/domain/test_accumulators.py",
    ),
    Bug(
        "bake counts from the commit, not from the confirmation",
        ACCUMULATORS,
        "    settled = run.confirmed and before.since_confirmed >= settling_seconds(guardrails)",
        "    settled = True",
        "tests/domain/test_accumulators.py",
    ),
    Bug(
        "a suspended process bakes while it sleeps",
        ACCUMULATORS,
        "    return min(max(elapsed, 0.0), 2 * every)",
        "    return max(elapsed, 0.0)",
        "tests/domain/test_accumulators.py",
    ),
    Bug(
        "elapsed time is read from the wall clock",
        "controller/lookout.py",
        "        asked_at = self._clock.monotonic()",
        "        asked_at = self._clock.now().timestamp()",
        "tests/promises/test_clocks.py",
    ),
    Bug(
        "the first tick after a confirmation counts time before it",
        RECONCILER,
        "            memory.ticked, memory.confirmed = self.clock.monotonic(), True  # the bake begins here",
        "            memory.confirmed = True",
        "tests/promises/test_clocks.py",
    ),
    Bug(
        "a stage is skipped",
        DECIDE,
        "    target = stage_at(plan, run.exposure) + 1\n    if target < len(plan.spec.stages):",
        "    target = min(stage_at(plan, run.exposure) + 2, len(plan.spec.stages))\n"
        "    if target < len(plan.spec.stages):",
        "tests/domain/test_decide.py",
    ),
    Bug(
        "an outage that also hits the control kills",
        DECIDE,
        "    if verdict.control_fails and not verdict.even_if_control_fails:",
        "    if False:",
        "tests/domain/test_decide.py",
    ),
    Bug(
        "applied before it is committed",
        RECONCILER,
        "        await self._commit(move)\n        self._acknowledge(",
        '        if changed and plan.spec.mode == "enforce":\n'
        "            await self._apply(after, share_of_run(after, plan, decision.text), mark=mark, began=began)\n"
        "        await self._commit(move)\n        self._acknowledge(",
        WORLDS,
    ),
    Bug(
        "a lost commit answer is taken for a success",
        RECONCILER,
        "            if await self.store.committed(move.entry.id) is None:\n                raise",
        "            await asyncio.sleep(0)",
        "tests/promises/test_unknown_outcomes.py",
    ),
    Bug(
        "a raise is written again without asking the database",
        RECONCILER,
        "                await self.store.check_raise(run, claim.lease_epoch, self._owner)",
        "                await asyncio.sleep(0)",
        "tests/promises/test_replicas.py -k applied_again_waits",
    ),
    Bug(
        "a write is sent however long ago it was decided",
        RECONCILER,
        "        if ago <= self._settings.lease_seconds / 2:",
        "        if True:",
        "tests/promises/test_replicas.py -k long_sleep",
    ),
    Bug(
        "drift is written over",
        "controller/domain/convergence.py",
        '    difference: Difference = "too_low"\n',
        '    difference: Difference = "apply_again"\n',
        "tests/domain/test_convergence.py",
    ),
    Bug(
        "what nobody accepted beside the share keeps nothing from rising",
        DECIDE,
        '    if not altered or run.phase != "progressing":',
        "    if True:",
        "tests/engine/test_drift.py",
    ),
    Bug(
        "a confirmation accepts what came meanwhile",
        "controller/domain/rollout.py",
        "        left = tuple(one for one in self.foreign if one in flag.foreign)",
        "        left = flag.foreign",
        "tests/domain/test_convergence.py",
    ),
    Bug(
        "off is claimed though a rule of others may serve the rollout",
        "controller/held.py",
        "(spared or not seen.foreign)",
        "True",
        "tests/engine/test_kill_path.py",
    ),
    Bug(
        "a rule kills a flag that is only observed",
        DECIDE,
        '        observing = plan.spec.mode == "observe"',
        "        observing = False",
        "tests/engine/test_observing.py",
    ),
    Bug(
        "taking a flag over writes it",
        RECONCILER,
        ' and decision.action != "take_over"',
        "",
        "tests/engine/test_taking_over.py",
    ),
    Bug(
        "unknown is off",
        "controller/domain/convergence.py",
        '    if isinstance(observed, Unknown):\n        return Convergence(difference="unread"',
        '    if isinstance(observed, Unknown):\n        return Convergence(difference="none"',
        "tests/domain/test_convergence.py",
    ),
    Bug(
        "a kill is confirmed without a read",
        LOWERING,
        "        if isinstance(seen, FlagState) and held.is_done(seen) and quiet:",
        "        if quiet:",
        "tests/engine/test_kill_path.py",
    ),
    Bug(
        "a kill is confirmed before the other replicas have heard of it",
        LOWERING,
        "        return long_ago or not self._killbook.others - held.landed",
        "        return True",
        "tests/promises/test_replicas.py",
    ),
    Bug(
        "a write goes out although its flag is held",
        KILLBOOK,
        "        if self.holds(flag):\n            raise KillInForce(",
        "        if False:\n            raise KillInForce(",
        "tests/engine/test_kill_path.py tests/promises/test_interleavings.py",
    ),
    Bug(
        "what a kill met on its way is not lowered again",
        KILLER,
        "        if self._killbook.holds(flag):\n            # The kill came while we wrote",
        "        if False:\n            # The kill came while we wrote",
        "tests/engine/test_kill_path.py tests/promises/test_interleavings.py",
    ),
    Bug(
        "kills of the journal are not taken up at a start",
        KILLBOOK,
        "        for record in records:\n            if record.kill.id not in self._held:",
        "        for record in records:\n            if False:",
        WORLDS,
    ),
    Bug(
        "a kill that a failover forgot is taken for reset",
        KILL_LEDGER,
        "            if held.kill.id in reset:\n",
        "            if True:\n",
        WORLDS,
    ),
    Bug(
        "an unconfirmed kill is not tried again",
        KILLER,
        "await self._press_on([held for held in open_kills if not self._in_doubt(held)])",
        "await self._press_on([])",
        "tests/engine/test_kill_path.py",
    ),
    Bug(
        "a killed flag that comes back is not lowered again",
        LOWERING,
        "                await asyncio.gather(*(self._came_back(held) for held in risen))",
        "                await asyncio.sleep(0)",
        "tests/engine/test_kill_path.py",
    ),
    Bug(
        "other replicas are not told of kills",
        KILLER,
        "        async for answer in self._peers.tell([held.record for held in kills]):",
        "        async for answer in self._peers.tell([held.record for held in kills[:0]]):",
        "tests/promises/test_replicas.py",
    ),
    Bug(
        "a late word brings a reset kill back",
        KILLER,
        "        known = [record for record in records if not self._killbook.was_released(record.kill.id)]",
        "        known = list(records)",
        "tests/promises/test_replicas.py",
    ),
    Bug(
        "a lowering begins after the kill was reset",
        LOWERING,
        "        if held.lowering or held.kill.id not in self._killbook:",
        "        if held.lowering:",
        "tests/engine/test_killer.py",
    ),
    Bug(
        "the journal is not synced before a kill is called durable",
        "controller/journal.py",
        "        self._remember(record)\n        return await self._disk.append(frame(record))",
        "        self._remember(record)\n"
        "        asyncio.get_running_loop().call_later(\n"
        "            1.0, lambda: asyncio.ensure_future(self._disk.append(frame(record)))\n"
        "        )\n"
        "        return True",
        "tests/engine/test_journal.py",
    ),
    Bug(
        "the journal reports success when the disk refused",
        "controller/journal.py",
        "            self._end_torn_line()\n            return False",
        "            self._end_torn_line()\n            return True",
        "tests/engine/test_journal.py",
    ),
    Bug(
        "present before everything is merged",
        PRESENCE,
        "            await self._kill_ledger.forgotten()\n            self._life",
        "            self._life",
        "tests/promises/test_vouching.py",
    ),
    Bug(
        "lost history blocks nothing",
        PRESENCE,
        "        await self._store.raise_barrier(barrier, entry)",
        '        log.debug("barrier", entry=entry.id)',
        "tests/promises/test_replicas.py",
    ),
    Bug(
        "what was answered since the last check-in may be lost unnoticed",
        PRESENCE,
        "        if entry_id and await self._store.committed(entry_id) is None:",
        "        if False:",
        "tests/promises/test_replicas.py",
    ),
    Bug(
        "the board shows what is stored through a kill",
        "controller/snapshot.py",
        "            held = bool(self._kills.get(place))",
        "            held = False",
        "tests/delivery/test_board.py",
    ),
    Bug(
        "a flag that a failover forgot stays as it was on some replicas",
        "controller/snapshot.py",
        "            if present is None or present.version <= config.version or self._put_at[place] > asked_at:",
        "            if True:",
        WORLDS,
    ),
    Bug(
        "versions go back with the clock",
        "controller/snapshot.py",
        "        self._last = max(self._last + 1, above + 1, self._milliseconds())",
        "        self._last = self._milliseconds()",
        "tests/delivery/test_board.py",
    ),
    Bug(
        "a reset lifts the kill before what is stored is off",
        KILL_LEDGER,
        "        await self._settle(covered)\n",
        "",
        "tests/promises tests/engine",
    ),
    Bug(
        "authors approve their own plans",
        "controller/commands.py",
        "        if actor.name in (run.author, run.started_by):",
        "        if False:",
        "tests/promises/test_two_people.py",
    ),
    Bug(
        "a link of the audit chain does not depend on the one before",
        "controller/domain/audit.py",
        "    return hashlib.sha256(previous + sequence",
        "    return hashlib.sha256(sequence",
        "tests/domain/test_audit.py",
    ),
)
