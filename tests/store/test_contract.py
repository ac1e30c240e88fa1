"""The Store protocol, method by method, on a real PostgreSQL."""

import asyncio
from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace

from controller.domain.audit import verify_chain
from controller.domain.catalogue import FlagConfig, SdkKey, Token
from controller.domain.evidence import Reading
from controller.domain.rollout import Observations, Timer, transition
from controller.errors import Conflict, KillInForce, NotFound, StoreUnavailable
from controller.ports import Store
from controller.store.postgres import PostgresStore
from tests.store.samples import (
    FLAG,
    NOW,
    change,
    claim_one,
    created_run,
    entry,
    kill,
    pending_run,
    plan,
    policy,
    started,
)
from tests.support.postgres import Server


async def audited(store: Store) -> list[str]:
    return [msgspec.json.decode(row.body)["action"] for row in await store.audit()]


async def test_a_store_that_was_never_connected_is_unavailable(database: str) -> None:
    with pytest.raises(StoreUnavailable, match="not connected"):
        await PostgresStore(database).plans()


async def test_an_unmigrated_database_says_what_to_run(postgres_server: Server) -> None:
    store = PostgresStore(postgres_server.dsn("postgres"))
    await store.connect()
    with pytest.raises(StoreUnavailable, match="rampart migrate"):
        await store.plans()
    await store.close()


# — what people applied —


async def test_a_changed_plan_is_a_new_revision_and_the_old_one_stays(store: Store) -> None:
    first = await store.save_plan(plan(bake="30m"), entry(actor="dana"))
    second = await store.save_plan(plan(bake="1h"), entry(actor="kim"))
    assert (first.revision, second.revision, second.author, second.applied_at) == (1, 2, "kim", NOW)
    assert await store.plan("checkout-v2") == second
    assert await store.plan("checkout-v2", 1) == first
    assert await store.plan("checkout-v2", 3) is None
    assert await store.plan("nothing") is None
    assert await store.plans() == [second]


async def test_an_unchanged_plan_makes_no_revision_and_no_audit_row(store: Store) -> None:
    first = await store.save_plan(plan(), entry(actor="dana"))
    assert await store.save_plan(plan(), entry(actor="kim")) == first
    assert await audited(store) == ["apply"]


async def test_going_back_to_an_older_text_is_a_new_revision(store: Store) -> None:
    for bake in ("30m", "1h", "30m"):
        saved = await store.save_plan(plan(bake=bake), entry())
    assert saved.revision == 3


async def test_policies_are_kept_like_plans_and_apart_from_them(store: Store) -> None:
    await store.save_plan(plan("same-name"), entry())
    saved = await store.save_policy(policy("same-name"), entry())
    assert saved.revision == 1
    assert await store.policies() == [saved]
    assert (await store.save_policy(policy("same-name", limit="2%"), entry())).revision == 2
    assert await store.policy("same-name", 1) == saved


async def test_a_plan_comes_back_with_the_order_of_its_labels(store: Store) -> None:
    await store.save_plan(plan(labels={"zebra": "1", "ant": "2"}), entry())
    stored = await store.plan("checkout-v2")
    assert stored is not None
    assert list(stored.plan.metadata.labels) == ["zebra", "ant"]


# — runs —


async def test_runs_are_numbered_per_plan_and_take_the_flags_kill_epoch(store: Store) -> None:
    first = await created_run(store)
    assert (first.id, first.number, first.kill_epoch, first.version) == ("checkout-v2#1", 1, 0, 1)
    await store.record_kill(kill(), entry("kill"))
    await store.reset_kills(FLAG, ["kill-1"], entry("reset"))
    second = await store.create_run(pending_run(), entry("start"))
    assert (second.id, second.number, second.kill_epoch) == ("checkout-v2#2", 2, 1)
    assert await store.run(second.id) == (second, Observations())
    assert await store.latest_run("checkout-v2") == (second, Observations())
    assert await store.latest_run("nothing") is None
    assert await store.run("nothing#1") is None


async def test_a_flag_has_one_active_run(store: Store) -> None:
    await created_run(store)
    other = pending_run("checkout-v2", plan="another")
    await store.save_plan(plan("another"), entry())
    with pytest.raises(Conflict, match="turned by checkout-v2#1"):
        await store.create_run(other, entry("start"))


async def test_a_killed_flag_takes_no_run(store: Store) -> None:
    await store.save_policy(policy(), entry())
    await store.save_plan(plan(), entry())
    await store.record_kill(kill(), entry("kill"))
    with pytest.raises(KillInForce, match="kill-1"):
        await store.create_run(pending_run(), entry("start"))


async def test_a_run_of_an_unknown_plan_or_revision_is_not_created(store: Store) -> None:
    with pytest.raises(NotFound, match="checkout-v2"):
        await store.create_run(pending_run(), entry("start"))
    await created_run(store, "other")
    with pytest.raises(NotFound, match="revision 7"):
        await store.create_run(pending_run("checkout-v2", plan="other", plan_revision=7), entry("start"))
    assert await store.latest_run("checkout-v2") is None
    assert await store.plans() == [await store.plan("other")]


async def test_the_latest_run_of_every_plan_comes_newest_first(store: Store) -> None:
    older = await created_run(store, "older")
    await store.commit(change(older, "abandon"))
    again = await store.create_run(pending_run("older", created_at=NOW + timedelta(hours=1)), entry("start"))
    await store.save_plan(plan("newer"), entry())
    newer = await store.create_run(pending_run("newer", created_at=NOW + timedelta(hours=2)), entry("start"))
    assert [run.id for run, _ in await store.latest_runs()] == [newer.id, again.id]


async def test_a_run_comes_back_exactly_as_it_was_committed(store: Store) -> None:
    run = await created_run(store)
    reading = Reading(query='rate({le="\\u0000 ü"}[5m])', value=0.25, total=1e15)
    after = transition(run, "start", status='it\'s \x00 "on" ✓', baselines_before={"p/m": reading})
    observations = Observations(bake=12.5, breached={"p/r": Timer(3.0, True)})
    step = replace(change(run, "start", raises=True), after=after, observations=observations)
    await store.commit(step)
    assert await store.run(run.id) == (after, observations)


async def test_a_commit_without_observations_leaves_them_alone(store: Store) -> None:
    run = await created_run(store)
    step = change(run, "start", raises=True, observations=Observations(bake=3.0))
    await store.commit(step)
    await store.commit(change(step.after, "confirm"))
    found = await store.run(run.id)
    assert found is not None
    assert found[1].bake == 3.0


async def test_a_committed_entry_is_found_by_its_id(store: Store) -> None:
    step = change(await created_run(store), "start", raises=True)
    assert await store.committed(step.entry.id) is None
    sequence = await store.commit(step)
    assert await store.committed(step.entry.id) == sequence
    (row,) = await store.audit(after=sequence - 1)
    body = msgspec.json.decode(row.body)
    assert (body["run"], body["run_version"], row.sequence) == (step.after.id, step.after.version, sequence)


# — claims —


async def test_a_claim_brings_the_run_and_what_it_is_pinned_to(store: Store) -> None:
    run = await started(store)
    await store.save_plan(plan(bake="2h"), entry())
    await store.save_policy(policy(limit="5%"), entry())
    claim = await claim_one(store)
    assert claim.run == run
    assert (claim.plan, claim.policies) == (plan(), (policy(),))
    assert claim.lease_epoch == 1


async def test_a_run_leased_to_another_is_not_claimed(store: Store) -> None:
    await started(store)
    await claim_one(store, "replica-a")
    assert await store.claim_due("replica-b", limit=10, lease_seconds=30) == []


async def test_renewing_in_time_keeps_the_epoch(store: Store) -> None:
    await started(store)
    first, second = await claim_one(store), await claim_one(store)
    assert first.lease_epoch == second.lease_epoch == 1


async def test_a_lease_that_ended_is_a_new_epoch_even_for_its_old_owner(store: Store) -> None:
    await started(store)
    await claim_one(store, lease_seconds=0.0)
    assert (await claim_one(store)).lease_epoch == 2


async def test_a_renewed_lease_keeps_its_epoch_and_lasts_longer(store: Store) -> None:
    run = await started(store)
    claim = await claim_one(store, "replica-a", lease_seconds=0.3)
    await store.renew("replica-a", lease_seconds=30)
    await asyncio.sleep(0.4)
    assert await store.claim_due("replica-b", limit=10, lease_seconds=30) == []
    await store.commit(change(run, "pause", lease_epoch=claim.lease_epoch))


async def test_a_lease_that_ended_or_is_anothers_is_not_renewed(store: Store) -> None:
    await started(store)
    await claim_one(store, "replica-a", lease_seconds=0.0)
    await store.renew("replica-a", lease_seconds=30)
    await store.renew("replica-b", lease_seconds=30)
    assert (await claim_one(store, "replica-b")).lease_epoch == 2


async def test_a_released_run_is_claimed_by_another_at_once(store: Store) -> None:
    await started(store)
    await claim_one(store, "replica-a")
    await store.release("replica-a")
    assert (await claim_one(store, "replica-b")).lease_epoch == 2


async def test_a_run_that_is_not_due_is_not_claimed_until_it_is_woken(store: Store) -> None:
    run = await created_run(store)
    await store.commit(change(run, "start", raises=True, check_in_seconds=60))
    assert await store.claim_due("replica-a", limit=10, lease_seconds=30) == []
    await store.wake(run.id)
    assert (await claim_one(store)).run.id == run.id


async def test_a_finished_run_is_never_due(store: Store) -> None:
    await store.commit(change(await started(store), "complete"))
    await store.wake("checkout-v2#1")
    assert await store.claim_due("replica-a", limit=10, lease_seconds=30) == []


async def test_the_limit_bounds_a_claim(store: Store) -> None:
    for name in ("one", "two", "three"):
        await started(store, name)
    assert len(await store.claim_due("replica-a", limit=2, lease_seconds=30)) == 2


async def test_observations_set_the_next_check_and_stay(store: Store) -> None:
    await started(store)
    claim = await claim_one(store)
    await store.save_observations("replica-a", [(claim, Observations(bake=7.0), 60.0)])
    assert await store.claim_due("replica-a", limit=10, lease_seconds=30) == []
    await store.wake(claim.run.id)
    assert (await claim_one(store)).observations == Observations(bake=7.0)


async def test_a_run_that_cannot_be_read_does_not_hide_the_others(store: PostgresStore) -> None:
    await started(store, "poisoned")
    healthy = await started(store, "healthy")
    await store._database.execute("UPDATE runs SET state = '{\"id\": 1}' WHERE plan = 'poisoned'")
    assert (await claim_one(store)).run == healthy


# — kills —


async def test_a_kill_ends_the_active_run_and_names_it_in_the_one_audit_row(store: Store) -> None:
    run = await started(store)
    assert await store.record_kill(kill(), entry("kill", reason="killed by hand")) is True
    assert await store.record_kill(kill(), entry("kill")) is False
    found = await store.run(run.id)
    assert found is not None
    killed = found[0]
    assert (killed.phase, killed.kill_id, killed.exposure, killed.version) == (
        "killed",
        "kill-1",
        0,
        run.version + 1,
    )
    assert (killed.status, killed.ended_at) == ("killed by hand", NOW)
    assert await store.kill_epoch(FLAG) == 1
    assert await audited(store) == ["apply", "apply", "start", "start", "kill"]


async def test_a_kill_ends_the_completed_run_of_its_flag(store: Store) -> None:
    run = await started(store)
    await store.commit(change(run, "complete"))
    await store.record_kill(kill(), entry("kill"))
    found = await store.run(run.id)
    assert found is not None
    assert found[0].phase == "killed"


async def test_a_kill_leaves_an_abandoned_run_and_still_holds_the_flag(store: Store) -> None:
    run = await started(store)
    await store.commit(change(run, "abandon"))
    await store.record_kill(kill(), entry("kill", run=run.id, run_version=3))
    found = await store.run(run.id)
    assert found is not None
    assert found[0].phase == "abandoned"
    (row,) = await store.audit(newest_first=True, limit=1)
    assert msgspec.json.decode(row.body)["run"] is None
    assert await store.kill_epoch(FLAG) == 1


async def test_a_flag_without_any_run_can_be_killed(store: Store) -> None:
    assert await store.kill_epoch(FLAG) == 0
    await store.record_kill(kill(), entry("kill"))
    (active,) = await store.active_kills()
    assert (active.kill, active.kill_epoch, active.confirmed_at) == (kill(), 1, None)


async def test_a_kill_is_confirmed_once(store: Store) -> None:
    await store.record_kill(kill(), entry("kill"))
    await store.confirm_kill("kill-1", NOW)
    await store.confirm_kill("kill-1", NOW + timedelta(hours=1))
    assert [active.confirmed_at for active in await store.active_kills()] == [NOW]


async def test_a_reset_covers_the_kills_it_names_and_no_other(store: Store) -> None:
    await started(store)
    for kill_id in ("kill-1", "kill-2"):
        await store.record_kill(kill(kill_id), entry("kill"))
    assert await store.reset_kills(FLAG, ["kill-1"], entry("reset")) == ["kill-1"]
    assert [active.kill.id for active in await store.active_kills()] == ["kill-2"]
    with pytest.raises(KillInForce, match="kill-2"):
        await store.create_run(pending_run(), entry("start"))
    assert await store.reset_kills(FLAG, ["kill-1", "kill-2"], entry("reset")) == ["kill-2"]
    assert await store.kill_epoch(FLAG) == 2


async def test_a_reset_that_names_an_unknown_kill_changes_nothing(store: Store) -> None:
    await store.record_kill(kill(), entry("kill"))
    with pytest.raises(Conflict, match="kill-9"):
        await store.reset_kills(FLAG, ["kill-1", "kill-9"], entry("reset"))
    await store.record_kill(kill("kill-of-another", "another"), entry("kill"))
    with pytest.raises(Conflict, match="kill-of-another"):
        await store.reset_kills(FLAG, ["kill-of-another"], entry("reset"))
    assert len(await store.active_kills()) == 2


async def test_resetting_again_is_not_audited_again(store: Store) -> None:
    await store.record_kill(kill(), entry("kill"))
    await store.reset_kills(FLAG, ["kill-1"], entry("reset"))
    assert await store.reset_kills(FLAG, ["kill-1"], entry("reset")) == []
    assert await audited(store) == ["kill", "reset"]


async def test_a_run_from_before_a_kill_never_raises_again_even_after_its_reset(store: Store) -> None:
    run = await started(store)
    await store.record_kill(kill(), entry("kill"))
    await store.reset_kills(FLAG, ["kill-1"], entry("reset"))
    with pytest.raises(KillInForce):
        await store.commit(change(run, "advance", raises=True))


# — tokens, SDK keys, built-in flags —


def token(name: str = "ci", digest: bytes = b"d" * 32) -> Token:
    return Token(name=name, digest=digest, scopes=("read", "kill"), created_at=NOW, created_by="dana")


def sdk_key(name: str = "shop", digest: bytes = b"k" * 32) -> SdkKey:
    return SdkKey(name=name, digest=digest, environment="production", created_at=NOW, created_by="dana")


async def test_tokens_are_saved_replaced_and_revoked(store: Store) -> None:
    await store.save_token(token(), entry("token"))
    await store.save_token(token(), entry("token"))
    assert await audited(store) == ["token"]
    rotated = token(digest=b"e" * 32)
    await store.save_token(rotated, entry("token"))
    assert await store.tokens() == [rotated]
    assert await store.revoke_token("ci", entry("revoke")) is True
    assert await store.revoke_token("ci", entry("revoke")) is False
    assert await store.tokens() == []
    assert await audited(store) == ["token", "token", "revoke"]


async def test_one_secret_has_one_name(store: Store) -> None:
    await store.save_token(token("ci"), entry("token"))
    with pytest.raises(Conflict, match="another token"):
        await store.save_token(token("other"), entry("token"))
    assert await audited(store) == ["token"]


async def test_sdk_keys_are_saved_and_revoked(store: Store) -> None:
    await store.save_sdk_key(sdk_key(), entry("sdk_key"))
    assert await store.sdk_keys() == [sdk_key()]
    assert await store.revoke_sdk_key("shop", entry("revoke")) is True
    assert await store.revoke_sdk_key("shop", entry("revoke")) is False
    assert await store.sdk_keys() == []


def config(version: int, *, on: bool = True) -> FlagConfig:
    return FlagConfig(
        environment="production",
        key="checkout-v2",
        version=version,
        variations={"on": True, "off": False, "also": None},
        data={"version": version, "on": on, "weights": [1, 99_999]},
    )


async def test_the_version_of_a_flag_never_goes_down(store: Store) -> None:
    await store.save_flag_config(config(5), entry("flag"))
    await store.save_flag_config(config(7))
    with pytest.raises(Conflict, match="version 7"):
        await store.save_flag_config(config(6), entry("flag"))
    assert await store.flag_configs() == [config(7)]
    assert await store.flag_config("production", "checkout-v2") == config(7)
    assert await store.flag_config("staging", "checkout-v2") is None
    assert await audited(store) == ["flag"]


async def test_one_version_of_a_flag_has_one_content(store: Store) -> None:
    await store.save_flag_config(config(5, on=True))
    assert await store.save_flag_config(config(5, on=True)) == config(5, on=True)
    with pytest.raises(Conflict):
        await store.save_flag_config(config(5, on=False))


async def test_the_variations_of_a_flag_keep_their_order(store: Store) -> None:
    await store.save_flag_config(config(1))
    (stored,) = await store.flag_configs()
    assert list(stored.variations) == ["on", "off", "also"]


# — audit —


async def test_the_audit_log_is_read_in_pages_from_both_ends_and_by_run(store: Store) -> None:
    first, second = await started(store, "one"), await started(store, "two")
    everything = await store.audit()
    assert [row.sequence for row in everything] == list(range(1, len(everything) + 1))
    assert await store.audit(after=2, limit=3) == everything[2:5]
    assert await store.audit(limit=2, newest_first=True) == everything[:-3:-1]
    for run in (first, second):
        assert len(await store.audit(run=run.id)) == run.version == 2
    assert await store.audit_head() == (len(everything), everything[-1].hash)
    assert verify_chain(everything).problem is None


async def test_an_empty_audit_log_has_its_genesis_as_head(store: Store) -> None:
    assert await store.audit_head() == (0, bytes(32))


async def test_entries_are_unannounced_until_they_were_announced(store: Store) -> None:
    entries = [entry("apply", details={"n": 1, "text": "ü\x00"}), entry("apply")]
    await store.save_plan(plan("one"), entries[0])
    await store.save_plan(plan("two"), entries[1])
    assert await store.unannounced(10) == [(1, entries[0]), (2, entries[1])]
    assert await store.unannounced(1) == [(1, entries[0])]
    await store.announced([1])
    assert await store.unannounced(10) == [(2, entries[1])]


async def test_an_entry_is_recorded_once(store: Store) -> None:
    same = entry("apply")
    await store.save_plan(plan("one"), same)
    with pytest.raises(Conflict, match="recorded before"):
        await store.save_plan(plan("two"), same)
    assert await store.plan("two") is None
    assert len(await store.audit()) == 1
