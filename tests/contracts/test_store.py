"""The contract of both stores, and that they answer alike whatever is asked of them in whatever order."""

import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from controller.domain.catalogue import Claim
from controller.domain.rollout import TRANSITIONS, Observations, Run
from controller.errors import RampartError
from controller.ports import Store
from controller.store.memory import MemoryStore
from controller.store.postgres import PostgresStore
from tests.contracts.store_contract import LiveAnew, PassSeconds, StoreContract, story
from tests.store import samples
from tests.support.postgres import database, postgres_server, store

__all__ = ["database", "postgres_server", "store"]

NAMES = ("one", "two", "three")
COUNT = 250
TIMES = {
    "runs": ("next_check_at", "lease_expires_at"),
    "replicas": ("seen_at", "valid_until"),
    "leaders": ("expires_at",),
}

Step = Callable[[Store], Awaitable[Any]]


class ModelTime:
    def __init__(self) -> None:
        self.elapsed = 1000.0

    def __call__(self) -> float:
        return self.elapsed

    async def pass_seconds(self, seconds: float) -> None:
        self.elapsed += seconds


class TestMemory(StoreContract):
    @pytest.fixture
    def time(self) -> ModelTime:
        return ModelTime()

    @pytest.fixture
    def store(self, time: ModelTime) -> MemoryStore:
        return MemoryStore(time)

    @pytest.fixture
    def pass_seconds(self, time: ModelTime) -> PassSeconds:
        return time.pass_seconds

    @pytest.fixture
    def live_anew(self, store: MemoryStore) -> LiveAnew:
        async def live_anew() -> None:
            store.life = "2"

        return live_anew


class TestPostgres(StoreContract):
    @pytest.fixture
    def pass_seconds(self, store: PostgresStore) -> PassSeconds:
        async def pass_seconds(seconds: float) -> None:
            """The past grows instead: everything moves towards it."""
            for table, columns in TIMES.items():
                moved = ", ".join(f"{column} = {column} - make_interval(secs => $1)" for column in columns)
                await store._database.execute(f"UPDATE {table} SET {moved}", seconds)

        return pass_seconds

    @pytest.fixture
    def live_anew(self, store: PostgresStore) -> LiveAnew:
        async def live_anew() -> None:
            """What is stored gets old instead of the server new."""
            await store._database.execute("UPDATE replicas SET life = 'of before'")

        return live_anew


class Steps:
    """Steps at random, many of them wrong on purpose: stale, repeated, or about things that are not there."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.runs: list[Run] = []
        self.claims: list[Claim] = []
        self.entry_ids: list[str] = []

    def next(self) -> tuple[str, Step]:
        kinds = (self.apply, self.start, self.turn, self.turn, self.turn, self.lease, self.kill, self.keep)
        return self.chance.choice(kinds)()

    def learn(self, answer: object) -> None:
        for one in answer if isinstance(answer, list) else [answer]:
            if isinstance(one, Claim):
                self.claims.append(one)
            elif isinstance(one, Run):
                self.runs.append(one)

    def entry(self, action: str) -> Any:
        entry = samples.entry(action)
        if self.entry_ids and self.chance.random() < 0.05:
            return samples.entry(action, id=self.chance.choice(self.entry_ids))
        self.entry_ids.append(entry.id)
        return entry

    def apply(self) -> tuple[str, Step]:
        bake, entry = self.chance.choice(["30m", "1h"]), self.entry("apply")
        plan, policy = samples.plan(self.chance.choice(NAMES), bake=bake), samples.policy(limit=f"{len(bake)}%")
        if self.chance.random() < 0.5:
            return "save_policy", lambda store: store.save_policy(policy, entry)
        return "save_plan", lambda store: store.save_plan(plan, entry)

    def start(self) -> tuple[str, Step]:
        revision = self.chance.choice([1, 1, 1, 2, 9])
        run = samples.pending_run(self.chance.choice(NAMES), plan_revision=revision)
        entry = self.entry("start")
        return "create_run", lambda store: store.create_run(run, entry)

    def turn(self) -> tuple[str, Step]:
        """A commit, on one of the latest versions seen; the next one can build on what it made."""
        if not self.runs:
            return self.start()
        before = self.chance.choice(self.runs[-6:])
        actions = TRANSITIONS[before.phase]
        if not actions:
            return self.start()
        held = [claim.lease_epoch for claim in self.claims[-6:] if claim.run.id == before.id]
        change = samples.change(
            before,
            self.chance.choice(list(actions)),
            raises=self.chance.random() < 0.5,
            lease_epoch=self.chance.choice([None, None, *held]),
            observations=self.chance.choice([None, Observations(bake=before.version)]),
            check_in_seconds=self.chance.choice([0.0, 0.0, 600.0, 3600.0]),
        )

        async def commit_and_tell(store: Store) -> Run:
            await store.commit(change)
            return change.after

        return "commit", commit_and_tell

    def lease(self) -> tuple[str, Step]:
        owner, seconds = self.chance.choice(["a", "b"]), self.chance.choice([0.0, 600.0, 600.0, 3600.0])
        batch = [(claim, Observations(requests=len(self.claims)), seconds) for claim in self.claims[-2:]]

        async def claim_in_order(store: Store) -> list[Claim]:
            claims = await store.claim_due(owner, limit=2, lease_seconds=seconds)
            return sorted(claims, key=lambda claim: claim.run.id)

        steps: list[tuple[str, Step]] = [
            ("claim_due", claim_in_order),
            ("claim_due", claim_in_order),
            ("renew", lambda store: store.renew(owner, lease_seconds=seconds)),
            ("release", lambda store: store.release(owner)),
            ("save_observations", lambda store: store.save_observations(owner, batch)),
        ]
        return self.chance.choice(steps)

    def kill(self) -> tuple[str, Step]:
        name, ids = self.chance.choice(NAMES), [f"kill-{number}" for number in range(12)]
        kill, entry = samples.kill(self.chance.choice(ids), name), self.entry("kill")
        at = samples.NOW.replace(minute=self.chance.randrange(60))

        async def reset_all(store: Store) -> object:
            held = [one.kill.id for one in await store.active_kills() if one.kill.flag == kill.flag]
            return await store.reset_kills(kill.flag, held, entry)

        steps: list[tuple[str, Step]] = [
            ("record_kill", lambda store: store.record_kill(kill, entry)),
            ("confirm_kill", lambda store: store.confirm_kill(kill.id, at)),
            ("reset_kills", lambda store: store.reset_kills(kill.flag, [kill.id], entry)),
            ("reset_all", reset_all),
            ("reset_all", reset_all),
        ]
        return self.chance.choice(steps)

    def keep(self) -> tuple[str, Step]:
        name, digest, entry = (
            self.chance.choice(NAMES),
            self.chance.choice([b"1" * 32, b"2" * 32]),
            self.entry("x"),
        )
        config = samples.flag_config(self.chance.randint(1, 4), key=name, on=self.chance.random() < 0.5)
        steps: list[tuple[str, Step]] = [
            ("save_token", lambda store: store.save_token(samples.token(name, digest), entry)),
            ("revoke_token", lambda store: store.revoke_token(name, entry)),
            ("save_sdk_key", lambda store: store.save_sdk_key(samples.sdk_key(name, digest), entry)),
            ("revoke_sdk_key", lambda store: store.revoke_sdk_key(name, entry)),
            ("save_flag_config", lambda store: store.save_flag_config(config, entry)),
            ("save_flag_config", lambda store: store.save_flag_config(config)),
        ]
        return self.chance.choice(steps)


async def outcome(step: Step, store: Store) -> object:
    try:
        return await step(store)
    except RampartError as error:
        return type(error)


@pytest.mark.parametrize("seed", range(3))
async def test_memory_answers_whatever_postgresql_answers(store: PostgresStore, seed: int) -> None:
    memory, asked, names = MemoryStore(time.monotonic), Steps(seed), list[str]()
    for number in range(COUNT):
        name, step = asked.next()
        names.append(name)
        expected = await outcome(step, store)
        assert await outcome(step, memory) == expected, f"step {number} of seed {seed}, after {names[-5:]}"
        asked.learn(expected)
    assert await story(memory) == await story(store)
    for run in asked.runs:
        assert await memory.run(run.id) == await store.run(run.id)
        assert await memory.audit(run=run.id) == await store.audit(run=run.id)
    for entry_id in asked.entry_ids:
        assert await memory.committed(entry_id) == await store.committed(entry_id)
