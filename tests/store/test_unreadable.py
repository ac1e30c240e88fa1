"""Documents in the database that this version cannot read: only what needs them stands still."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from controller.domain.audit import AuditEntry
from controller.errors import Refused
from controller.store.postgres import PostgresStore
from tests.store.samples import (
    NOW,
    claim_one,
    entry,
    flag,
    flag_config,
    kill,
    pending_run,
    plan,
    policy,
    sdk_key,
    started,
    token,
)

DAMAGES = {
    "run": "UPDATE runs SET state = '{\"id\": 1}' WHERE plan = 'poisoned'",
    "plan": "UPDATE manifest_revisions SET document = '{}' WHERE name = 'poisoned'",
}


async def damage(store: PostgresStore, table: str, where: str, *, column: str = "document") -> None:
    await store._database.execute(f"UPDATE {table} SET {column} = '{{\"a\": 1}}' WHERE {where}")


async def damaged_run(store: PostgresStore) -> None:
    await started(store, "poisoned")
    await damage(store, "runs", "plan = 'poisoned'", column="state")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_run_that_cannot_be_read_does_not_hide_the_others(store: PostgresStore, damage: str) -> None:
    await started(store, "poisoned")
    healthy = await started(store, "healthy")
    await store._database.execute(damage)
    assert (await claim_one(store)).run == healthy


# — lists —

Make = Callable[[PostgresStore, str], Awaitable[Any]]
List = Callable[[PostgresStore], Awaitable[Any]]

KINDS: dict[str, tuple[str, str, Make, List]] = {
    "plan": (
        "manifest_revisions",
        "name",
        lambda s, n: s.save_plan(plan(n), entry()),
        lambda s: s.plans(),
    ),
    "policy": (
        "manifest_revisions",
        "name",
        lambda s, n: s.save_policy(policy(n), entry()),
        lambda s: s.policies(),
    ),
    "token": (
        "tokens",
        "name",
        lambda s, n: s.save_token(token(n, n[:1].encode() * 32), entry()),
        lambda s: s.tokens(),
    ),
    "sdk_key": (
        "sdk_keys",
        "name",
        lambda s, n: s.save_sdk_key(sdk_key(n, n[:1].encode() * 32), entry()),
        lambda s: s.sdk_keys(),
    ),
    "flag": (
        "flag_configs",
        "key",
        lambda s, n: s.save_flag_config(flag_config(1, key=n), entry()),
        lambda s: s.flag_configs(),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_one_document_that_cannot_be_read_hides_none_of_the_others(store: PostgresStore, kind: str) -> None:
    table, column, make, every = KINDS[kind]
    await make(store, "healthy")
    expected = await every(store)
    await make(store, "poisoned")
    await damage(store, table, f"{column} = 'poisoned'")
    assert await every(store) == expected
    (told,) = await store.unreadable()
    assert (told.kind, told.name.rpartition("/")[2]) == (kind, "poisoned")
    assert told.why.startswith("Object ")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_read_last_stands_for_what_cannot_be_read_until_it_is_gone(
    store: PostgresStore, kind: str
) -> None:
    table, column, make, every = KINDS[kind]
    await make(store, "poisoned")
    last_good = await every(store)
    await damage(store, table, f"{column} = 'poisoned'")
    assert await every(store) == last_good
    assert len(await store.unreadable()) == 1
    await store._database.execute("TRUNCATE manifest_revisions, tokens, sdk_keys, flag_configs")
    assert await every(store) == []
    assert list(await store.unreadable()) == []


async def test_what_an_earlier_process_read_stands_for_what_cannot_be_read_now(store: PostgresStore) -> None:
    await store.save_token(token("ci"), entry())
    await damage(store, "tokens", "name = 'ci'")
    store.recall([token("ci"), token("revoked", b"r" * 32)], [], [])
    assert await store.tokens() == [token("ci")]


async def test_a_document_that_can_be_read_again_is_no_longer_told(store: PostgresStore) -> None:
    await store.save_plan(plan("poisoned"), entry())
    await damage(store, "manifest_revisions", "name = 'poisoned'")
    assert await store.plans() == []
    saved = await store.save_plan(plan("poisoned"), entry())
    assert saved.revision == 2, "what cannot be read is another document, so that applying again mends it"
    assert await store.plans() == [saved]
    assert list(await store.unreadable()) == []


# — runs —


async def test_a_run_that_cannot_be_read_is_left_out_of_the_list_and_told_with_its_flag(
    store: PostgresStore,
) -> None:
    await damaged_run(store)
    healthy = await started(store, "healthy")
    assert [run for run, _ in await store.latest_runs()] == [healthy]
    (told,) = await store.unreadable()
    assert (told.kind, told.name, told.flag) == ("run", "poisoned#1", flag("poisoned"))


async def test_who_asks_for_what_cannot_be_read_is_told_so(store: PostgresStore) -> None:
    await damaged_run(store)
    await damage(store, "manifest_revisions", "name IN ('poisoned', 'web-service')")
    await store.save_flag_config(flag_config(1), entry())
    await damage(store, "flag_configs", "true")
    for asked in (
        store.run("poisoned#1"),
        store.latest_run("poisoned"),
        store.plan("poisoned"),
        store.policy("web-service"),
        store.flag_config("production", "checkout-v2"),
    ):
        with pytest.raises(Refused, match="cannot be read from the database"):
            await asked


async def columns(store: PostgresStore) -> tuple[str, int, bool]:
    row = await store._database.fetchrow("SELECT phase, version, active FROM runs WHERE plan = 'poisoned'")
    assert row is not None
    return row["phase"], row["version"], row["active"]


async def test_a_kill_ends_a_run_that_cannot_be_read(store: PostgresStore) -> None:
    await damaged_run(store)
    _, version, _ = await columns(store)
    assert await store.record_kill(kill(name="poisoned"), entry("kill"))
    assert await columns(store) == ("killed", version + 1, False)
    assert not await store.record_kill(kill(name="poisoned"), entry("kill"))
    (active,) = await store.active_kills()
    assert active.kill.flag == flag("poisoned")
    rows = await store.audit(run="poisoned#1")
    recorded = [msgspec.json.decode(row.body, type=AuditEntry) for row in rows]
    assert [one.run_version for one in recorded] == list(range(1, version + 2))


async def test_a_second_kill_of_a_run_that_cannot_be_read_is_recorded_too(store: PostgresStore) -> None:
    await damaged_run(store)
    assert await store.record_kill(kill("kill-1", "poisoned"), entry("kill"))
    after = await columns(store)
    assert await store.record_kill(kill("kill-2", "poisoned"), entry("kill"))
    assert await columns(store) == after
    assert len(await store.active_kills()) == 2


async def test_the_kill_of_a_run_that_cannot_be_read_can_be_reset_and_a_new_run_begun(
    store: PostgresStore,
) -> None:
    await damaged_run(store)
    await store.record_kill(kill(name="poisoned"), entry("kill"))
    assert await store.reset_kills(flag("poisoned"), ["kill-1"], entry("reset")) == ["kill-1"]
    assert await store.active_kills() == []
    created = await store.create_run(pending_run("poisoned"), entry("start"))
    assert created.id == "poisoned#2"


async def test_a_kill_that_cannot_be_read_is_a_kill_all_the_same(store: PostgresStore) -> None:
    await store.record_kill(kill(), entry("kill"))
    await store.confirm_kill("kill-1", NOW)
    await damage(store, "kills", "true")
    (active,) = await store.active_kills()
    assert (active.kill.id, active.kill.flag, active.confirmed_at) == ("kill-1", flag(), NOW)


async def test_a_run_goes_on_by_the_policy_it_was_read_with_when_that_cannot_be_read_any_more(
    store: PostgresStore,
) -> None:
    await started(store)
    before = await claim_one(store)
    await damage(store, "manifest_revisions", "true")
    assert (await claim_one(store)).policies == before.policies
    assert {one.name for one in await store.unreadable()} == {
        "RolloutPlan checkout-v2 revision 1",
        "GuardrailPolicy web-service revision 1",
    }
