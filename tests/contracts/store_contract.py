"""What every store promises, method by method. Subclass, give it a `store`, `pass_seconds` and `live_anew`."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace

from controller.domain.audit import AuditEntry, verify_chain
from controller.domain.catalogue import Barrier, Head, Replica, Roll
from controller.domain.evidence import Reading
from controller.domain.rollout import ApprovalRequest, Observations, Run, Timer, transition
from controller.errors import Conflict, KillInForce, NotFound, RaisesBlocked, StaleLease
from controller.ports import Store
from tests.store.samples import (
    FLAG,
    NOW,
    change,
    claim_one,
    created_run,
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


async def entries(store: Store, run: str | None = None) -> list[AuditEntry]:
    return [msgspec.json.decode(row.body, type=AuditEntry) for row in await store.audit(run=run)]


async def audited(store: Store) -> list[str]:
    return [one.action for one in await entries(store)]


async def version_of(store: Store, run: Run) -> int:
    found = await store.run(run.id)
    assert found is not None
    return found[0].version


async def story(store: Store) -> tuple[object, ...]:
    """All that a store shows."""
    roll = await store.check_in(A, life="", valid_seconds=5.0, remembered=1)
    return (
        (roll.others, roll.versions, [one.name for one in roll.absent], roll.barriers, roll.head, roll.remembered),
        await store.plans(),
        await store.policies(),
        await store.latest_runs(),
        await store.active_kills(),
        await store.tokens(),
        await store.sdk_keys(),
        await store.flag_configs(),
        await store.audit(limit=100_000),
        await store.audit_head(),
        await store.unannounced(100_000),
    )


async def commit_again(store: Store, same: AuditEntry) -> int:
    found = await store.run("checkout-v2#1")
    assert found is not None
    return await store.commit(replace(change(found[0], "pause"), entry=same))


A, B = Replica(name="replica-a", version="1"), Replica(name="replica-b", version="2")
BARRIER = Barrier(id="head-9", reason="the database lost history", raised_at=NOW)


async def life_of(store: Store) -> str:
    return (await store.check_in(A, life="", valid_seconds=5.0, remembered=0)).life


async def check_in(store: Store, replica: Replica = A, *, valid_seconds: float = 5.0, remembered: int = 0) -> Roll:
    """As a replica does that has merged all its kills."""
    return await store.check_in(
        replica, life=await life_of(store), valid_seconds=valid_seconds, remembered=remembered
    )


WRITES: dict[str, Callable[[Store, AuditEntry], Awaitable[object]]] = {
    "save_plan": lambda store, same: store.save_plan(plan("new"), same),
    "save_policy": lambda store, same: store.save_policy(policy("new"), same),
    "create_run": lambda store, same: store.create_run(pending_run("third"), same),
    "commit": commit_again,
    "record_kill": lambda store, same: store.record_kill(kill("kill-2"), same),
    "reset_kills": lambda store, same: store.reset_kills(flag("another"), ["kill-1"], same),
    "save_token": lambda store, same: store.save_token(token("new"), same),
    "revoke_token": lambda store, same: store.revoke_token("old", same),
    "save_sdk_key": lambda store, same: store.save_sdk_key(sdk_key("new"), same),
    "revoke_sdk_key": lambda store, same: store.revoke_sdk_key("old", same),
    "save_flag_config": lambda store, same: store.save_flag_config(flag_config(1), same),
    "raise_barrier": lambda store, same: store.raise_barrier(BARRIER, same),
    "release_raises": lambda store, same: store.release_raises(same),
}
PassSeconds = Callable[[float], Awaitable[None]]
"""Moves the store's own time on, so far as its leases, checks and check-ins can tell."""
LiveAnew = Callable[[], Awaitable[None]]
"""Whatever was merged was merged into another life of the database: as after a restart or a failover."""


class StoreContract:
    # — what people applied —

    async def test_a_changed_plan_is_a_new_revision_and_the_old_one_stays(self, store: Store) -> None:
        first = await store.save_plan(plan(bake="30m"), entry(actor="dana"))
        second = await store.save_plan(plan(bake="1h"), entry(actor="kim"))
        assert (first.revision, second.revision, second.author, second.applied_at) == (1, 2, "kim", NOW)
        assert await store.plan("checkout-v2") == second
        assert await store.plan("checkout-v2", 1) == first
        assert await store.plan("checkout-v2", 3) is None
        assert await store.plan("nothing") is None
        assert await store.plans() == [second]

    async def test_plans_saved_at_once_get_every_revision_once(self, store: Store) -> None:
        saved = await asyncio.gather(*(store.save_plan(plan(bake=f"{n}m"), entry()) for n in range(1, 9)))
        assert sorted(revision.revision for revision in saved) == list(range(1, 9))

    async def test_an_unchanged_plan_makes_no_revision_and_no_audit_row(self, store: Store) -> None:
        first = await store.save_plan(plan(), entry(actor="dana"))
        assert await store.save_plan(plan(), entry(actor="kim")) == first
        assert await audited(store) == ["apply"]

    async def test_going_back_to_an_older_text_is_a_new_revision(self, store: Store) -> None:
        for bake in ("30m", "1h", "30m"):
            saved = await store.save_plan(plan(bake=bake), entry())
        assert saved.revision == 3

    async def test_policies_are_kept_like_plans_and_apart_from_them(self, store: Store) -> None:
        await store.save_plan(plan("same-name"), entry())
        saved = await store.save_policy(policy("same-name"), entry())
        assert saved.revision == 1
        assert await store.policies() == [saved]
        assert (await store.save_policy(policy("same-name", limit="2%"), entry())).revision == 2
        assert await store.policy("same-name", 1) == saved

    async def test_a_plan_comes_back_with_the_order_of_its_labels(self, store: Store) -> None:
        await store.save_plan(plan(labels={"zebra": "1", "ant": "2"}), entry())
        stored = await store.plan("checkout-v2")
        assert stored is not None
        assert list(stored.plan.metadata.labels) == ["zebra", "ant"]

    # — runs —

    async def test_runs_are_numbered_per_plan_and_take_the_flags_kill_epoch(self, store: Store) -> None:
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

    async def test_a_flag_has_one_active_run(self, store: Store) -> None:
        await created_run(store)
        other = pending_run("checkout-v2", plan="another")
        await store.save_plan(plan("another"), entry())
        with pytest.raises(Conflict, match="turned by checkout-v2#1"):
            await store.create_run(other, entry("start"))

    async def test_of_many_starts_for_one_flag_one_happens(self, store: Store) -> None:
        first = await created_run(store)
        await store.commit(change(first, "abandon"))
        outcomes = await asyncio.gather(
            *(store.create_run(pending_run(), entry("start")) for _ in range(8)), return_exceptions=True
        )
        assert Counter(type(outcome) for outcome in outcomes) == {Run: 1, Conflict: 7}

    async def test_a_killed_flag_takes_no_run(self, store: Store) -> None:
        await store.save_policy(policy(), entry())
        await store.save_plan(plan(), entry())
        await store.record_kill(kill(), entry("kill"))
        with pytest.raises(KillInForce, match="kill-1"):
            await store.create_run(pending_run(), entry("start"))

    async def test_a_run_of_an_unknown_plan_or_revision_is_not_created(self, store: Store) -> None:
        with pytest.raises(NotFound, match="checkout-v2"):
            await store.create_run(pending_run(), entry("start"))
        await created_run(store, "other")
        with pytest.raises(NotFound, match="revision 7"):
            await store.create_run(pending_run("checkout-v2", plan="other", plan_revision=7), entry("start"))
        assert await store.latest_run("checkout-v2") is None
        assert await store.plans() == [await store.plan("other")]

    async def test_the_latest_run_of_every_plan_comes_newest_first(self, store: Store) -> None:
        older = await created_run(store, "older")
        await store.commit(change(older, "abandon"))
        again = await store.create_run(pending_run("older", created_at=NOW + timedelta(hours=1)), entry("start"))
        await store.save_plan(plan("newer"), entry())
        newer = await store.create_run(pending_run("newer", created_at=NOW + timedelta(hours=2)), entry("start"))
        assert [run.id for run, _ in await store.latest_runs()] == [newer.id, again.id]

    async def test_a_run_comes_back_exactly_as_it_was_committed(self, store: Store) -> None:
        run = await created_run(store)
        reading = Reading(query='rate({le="\\u0000 ü"}[5m])', value=0.25, total=1e15)
        after = transition(run, "start", status='it\'s \x00 "on" ✓', baselines_before={"p/m": reading})
        observations = Observations(bake=12.5, breached={"p/r": Timer(3.0, True)})
        step = replace(change(run, "start", raises=True), after=after, observations=observations)
        await store.commit(step)
        assert await store.run(run.id) == (after, observations)

    async def test_a_commit_without_observations_leaves_them_alone(self, store: Store) -> None:
        run = await created_run(store)
        step = change(run, "start", raises=True, observations=Observations(bake=3.0))
        await store.commit(step)
        await store.commit(change(step.after, "confirm"))
        found = await store.run(run.id)
        assert found is not None
        assert found[1].bake == 3.0

    async def test_a_committed_entry_is_found_by_its_id(self, store: Store) -> None:
        step = change(await created_run(store), "start", raises=True)
        assert await store.committed(step.entry.id) is None
        sequence = await store.commit(step)
        assert await store.committed(step.entry.id) == sequence
        (row,) = await store.audit(after=sequence - 1)
        body = msgspec.json.decode(row.body)
        assert (body["run"], body["run_version"], row.sequence) == (step.after.id, step.after.version, sequence)

    async def test_an_entry_of_nothing_that_changed_is_noted_once_whoever_notes_it(self, store: Store) -> None:
        run = await created_run(store)
        seen = replace(entry("alert"), id="alert-1", subject=run.id)
        await asyncio.gather(*(store.note_once(replace(seen, actor=f"replica-{n}")) for n in range(4)))
        assert (await audited(store)).count("alert") == 1
        assert await store.committed("alert-1") == (await store.audit_head())[0]
        assert verify_chain(await store.audit(limit=100_000)).problem is None
        assert "alert" not in [one.action for one in await entries(store, run.id)]
        assert await version_of(store, run) == 1

    # — claims —

    async def test_a_claim_brings_the_run_and_what_it_is_pinned_to(self, store: Store) -> None:
        run = await started(store)
        await store.save_plan(plan(bake="2h"), entry())
        await store.save_policy(policy(limit="5%"), entry())
        claim = await claim_one(store)
        assert claim.run == run
        assert (claim.plan, claim.policies) == (plan(), (policy(),))
        assert claim.lease_epoch == 1

    async def test_a_run_leased_to_another_is_not_claimed(self, store: Store) -> None:
        await started(store)
        await claim_one(store, "replica-a")
        assert await store.claim_due("replica-b", limit=10, lease_seconds=30) == []

    async def test_renewing_in_time_keeps_the_epoch(self, store: Store) -> None:
        await started(store)
        first, second = await claim_one(store), await claim_one(store)
        assert first.lease_epoch == second.lease_epoch == 1

    async def test_a_lease_that_ended_is_a_new_epoch_even_for_its_old_owner(self, store: Store) -> None:
        await started(store)
        await claim_one(store, lease_seconds=0.0)
        assert (await claim_one(store)).lease_epoch == 2

    async def test_a_renewed_lease_keeps_its_epoch_and_lasts_longer(
        self, store: Store, pass_seconds: PassSeconds
    ) -> None:
        run = await started(store)
        claim = await claim_one(store, "replica-a", lease_seconds=30)
        await pass_seconds(20)
        await store.renew("replica-a", lease_seconds=30)
        await pass_seconds(20)
        assert await store.claim_due("replica-b", limit=10, lease_seconds=30) == []
        await store.commit(change(run, "pause", lease_epoch=claim.lease_epoch))

    async def test_a_lease_that_ended_or_is_anothers_is_not_renewed(self, store: Store) -> None:
        await started(store)
        await claim_one(store, "replica-a", lease_seconds=0.0)
        await store.renew("replica-a", lease_seconds=30)
        await store.renew("replica-b", lease_seconds=30)
        assert (await claim_one(store, "replica-b")).lease_epoch == 2

    async def test_a_released_run_is_claimed_by_another_at_once(self, store: Store) -> None:
        await started(store)
        await claim_one(store, "replica-a")
        await store.release("replica-a")
        assert (await claim_one(store, "replica-b")).lease_epoch == 2

    async def test_a_run_is_due_again_when_its_time_has_come(
        self, store: Store, pass_seconds: PassSeconds
    ) -> None:
        await store.commit(change(await created_run(store), "start", raises=True, check_in_seconds=60))
        await pass_seconds(59)
        assert await store.claim_due("replica-a", limit=10, lease_seconds=30) == []
        await pass_seconds(2)
        await claim_one(store)

    async def test_a_clock_set_back_puts_no_run_out_of_reach(
        self, store: Store, pass_seconds: PassSeconds
    ) -> None:
        run = await created_run(store)
        await store.commit(change(run, "start", raises=True))
        claim = await claim_one(store, "replica-a", lease_seconds=30)
        await store.save_observations("replica-a", [(claim, Observations(), 15.0)])
        await pass_seconds(-7200)
        assert (await claim_one(store, "replica-b")).lease_epoch == 2

    async def test_a_finished_run_is_never_due(self, store: Store, pass_seconds: PassSeconds) -> None:
        await store.commit(change(await started(store), "complete"))
        await pass_seconds(3600)
        assert await store.claim_due("replica-a", limit=10, lease_seconds=30) == []

    async def test_the_limit_bounds_a_claim(self, store: Store) -> None:
        for name in ("one", "two", "three"):
            await started(store, name)
        assert len(await store.claim_due("replica-a", limit=2, lease_seconds=30)) == 2
        assert len(await store.claim_due("replica-b", limit=10, lease_seconds=30)) == 1, "not even leased"

    async def test_two_replicas_never_hold_the_same_run(self, store: Store) -> None:
        for number in range(20):
            await started(store, f"plan-{number}")
        claims = await asyncio.gather(
            *(store.claim_due(f"replica-{number}", limit=7, lease_seconds=30) for number in range(6))
        )
        held = Counter(claim.run.id for batch in claims for claim in batch)
        assert set(held.values()) == {1}
        # What another session had locked was passed over, not lost.
        rest = await store.claim_due("replica-x", limit=100, lease_seconds=30)
        assert len(held) + len(rest) == 20

    async def test_observations_set_the_next_check_and_stay(self, store: Store, pass_seconds: PassSeconds) -> None:
        await started(store)
        claim = await claim_one(store)
        await store.save_observations("replica-a", [(claim, Observations(bake=7.0), 60.0)])
        assert await store.claim_due("replica-a", limit=10, lease_seconds=30) == []
        await pass_seconds(61)
        assert (await claim_one(store)).observations == Observations(bake=7.0)

    # — guards —

    async def test_a_commit_on_an_old_version_changes_nothing(self, store: Store) -> None:
        run = await created_run(store)
        await store.commit(change(run, "start", raises=True))
        rows_before = await store.audit()
        with pytest.raises(Conflict, match="version 2, not 1") as refused:
            await store.commit(change(run, "start", raises=True, observations=Observations(bake=9.0)))
        assert type(refused.value) is Conflict
        assert await store.audit() == rows_before
        assert (await store.run(run.id) or (None, None))[1] == Observations()

    async def test_a_commit_without_the_lease_changes_nothing(self, store: Store) -> None:
        run = await started(store)
        stale = await claim_one(store, "replica-a", lease_seconds=0.0)
        fresh = await claim_one(store, "replica-b")
        with pytest.raises(StaleLease, match="no longer holds"):
            await store.commit(change(run, "pause", lease_epoch=stale.lease_epoch))
        assert await version_of(store, run) == run.version
        await store.commit(change(run, "pause", lease_epoch=fresh.lease_epoch))

    async def test_an_epoch_that_a_failover_gave_out_twice_serves_only_its_owner(self, store: Store) -> None:
        run = await started(store)
        claim = await claim_one(store, "replica-a")
        theirs = change(run, "pause", lease_epoch=claim.lease_epoch, lease_owner="replica-b")
        with pytest.raises(StaleLease):
            await store.commit(theirs)
        with pytest.raises(StaleLease):
            await store.check_raise(run, claim.lease_epoch, "replica-b")
        assert await version_of(store, run) == run.version
        await store.commit(replace(theirs, lease_owner="replica-a"))

    async def test_a_lease_that_ran_out_is_stale_though_nobody_took_it(self, store: Store) -> None:
        run = await started(store)
        claim = await claim_one(store, lease_seconds=0.0)
        with pytest.raises(StaleLease):
            await store.commit(change(run, "pause", lease_epoch=claim.lease_epoch))

    async def test_a_released_lease_is_stale(self, store: Store) -> None:
        run = await started(store)
        claim = await claim_one(store)
        await store.release("replica-a")
        with pytest.raises(StaleLease):
            await store.commit(change(run, "pause", lease_epoch=claim.lease_epoch))

    async def test_a_person_needs_no_lease(self, store: Store) -> None:
        run = await started(store)
        await claim_one(store)
        await store.commit(change(run, "pause"))
        assert await version_of(store, run) == run.version + 1

    @pytest.mark.parametrize("lost", ["lease", "epoch", "owner", "version"])
    async def test_observations_of_a_stale_holder_are_dropped(self, store: Store, lost: str) -> None:
        run = await started(store)
        claim = await claim_one(store, "replica-a", lease_seconds=0.0 if lost in ("lease", "epoch") else 30.0)
        if lost == "epoch":
            await claim_one(store, "replica-a")
        if lost == "version":
            await store.commit(change(run, "pause"))
        owner = "replica-b" if lost == "owner" else "replica-a"
        await store.save_observations(owner, [(claim, Observations(bake=99.0), 3600.0)])
        assert (await store.run(run.id) or (None, None))[1] == Observations()

    async def test_of_many_commits_on_one_version_one_happens(self, store: Store) -> None:
        run = await started(store)
        outcomes = await asyncio.gather(
            *(store.commit(change(run, "pause")) for _ in range(12)), return_exceptions=True
        )
        assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 11
        assert await version_of(store, run) == run.version + 1

    async def test_a_commit_is_audited_with_the_run_and_version_it_made(self, store: Store) -> None:
        run = await created_run(store)
        step = change(run, "start", raises=True)
        await store.commit(replace(step, entry=replace(step.entry, run="another#1", run_version=9)))
        assert [(one.run, one.run_version) for one in await entries(store, run.id)] == [(run.id, 1), (run.id, 2)]

    async def test_a_commit_refused_for_several_reasons_names_the_weightiest(self, store: Store) -> None:
        run = await started(store)
        await store.commit(change(run, "pause"))
        with pytest.raises(StaleLease):
            await store.commit(change(run, "advance", raises=True, lease_epoch=99))
        await store.record_kill(kill(), entry("kill"))
        with pytest.raises(KillInForce):
            await store.commit(change(run, "advance", raises=True, lease_epoch=99))

    async def test_a_commit_of_an_unknown_run_is_a_conflict(self, store: Store) -> None:
        unknown = pending_run(id="nothing#1")
        with pytest.raises(Conflict, match="nothing#1"):
            await store.commit(change(unknown, "start", raises=True))
        assert await store.audit() == []

    # — kills —

    async def test_a_kill_ends_the_active_run_and_names_it_in_the_one_audit_row(self, store: Store) -> None:
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
        assert [one.kill_epoch for one in await store.active_kills()] == [1]
        assert await audited(store) == ["apply", "apply", "start", "start", "kill"]

    async def test_a_kill_takes_back_what_was_asked_for(self, store: Store) -> None:
        run = await started(store)
        asked = change(run, "request_approval")
        approval = ApprovalRequest(id="approval-1", stage=1, plan_revision=1, requested_at=NOW)
        await store.commit(replace(asked, after=replace(asked.after, approval=approval)))
        await store.record_kill(kill(), entry("kill"))
        found = await store.run(run.id)
        assert found is not None
        assert found[0].approval is None

    async def test_a_kill_ends_the_completed_run_of_its_flag(self, store: Store) -> None:
        run = await started(store)
        await store.commit(change(run, "complete"))
        await store.record_kill(kill(), entry("kill"))
        found = await store.run(run.id)
        assert found is not None
        assert found[0].phase == "killed"

    async def test_a_kill_leaves_an_abandoned_run_and_still_holds_the_flag(self, store: Store) -> None:
        run = await started(store)
        await store.commit(change(run, "abandon"))
        await store.record_kill(kill(), entry("kill", run=run.id, run_version=3))
        found = await store.run(run.id)
        assert found is not None
        assert found[0].phase == "abandoned"
        (row,) = await store.audit(newest_first=True, limit=1)
        assert msgspec.json.decode(row.body)["run"] is None
        assert [one.kill_epoch for one in await store.active_kills()] == [1]

    async def test_a_flag_without_any_run_can_be_killed(self, store: Store) -> None:
        await store.record_kill(kill(), entry("kill"))
        (active,) = await store.active_kills()
        assert (active.kill, active.kill_epoch, active.confirmed_at) == (kill(), 1, None)

    async def test_a_kill_is_confirmed_once(self, store: Store) -> None:
        await store.record_kill(kill(), entry("kill"))
        await store.confirm_kill("kill-1", NOW)
        await store.confirm_kill("kill-1", NOW + timedelta(hours=1))
        assert [active.confirmed_at for active in await store.active_kills()] == [NOW]

    async def test_a_reset_covers_the_kills_it_names_and_no_other(self, store: Store) -> None:
        await started(store)
        for kill_id in ("kill-1", "kill-2"):
            await store.record_kill(kill(kill_id), entry("kill"))
        assert await store.reset_kills(FLAG, ["kill-1"], entry("reset")) == ["kill-1"]
        assert [active.kill.id for active in await store.active_kills()] == ["kill-2"]
        with pytest.raises(KillInForce, match="kill-2"):
            await store.create_run(pending_run(), entry("start"))
        assert await store.reset_kills(FLAG, ["kill-1", "kill-2"], entry("reset")) == ["kill-2"]
        assert (await store.create_run(pending_run(), entry("start"))).kill_epoch == 2

    async def test_a_reset_that_names_an_unknown_kill_changes_nothing(self, store: Store) -> None:
        await store.record_kill(kill(), entry("kill"))
        with pytest.raises(Conflict, match="kill-9"):
            await store.reset_kills(FLAG, ["kill-1", "kill-9"], entry("reset"))
        await store.record_kill(kill("kill-of-another", "another"), entry("kill"))
        with pytest.raises(Conflict, match="kill-of-another"):
            await store.reset_kills(FLAG, ["kill-of-another"], entry("reset"))
        assert len(await store.active_kills()) == 2

    async def test_a_reset_is_a_transition_of_the_run_that_the_kill_ended(self, store: Store) -> None:
        run = await started(store)
        await store.record_kill(kill(), entry("kill"))
        await store.reset_kills(FLAG, ["kill-1"], entry("reset"))
        found = await store.run(run.id)
        assert found is not None
        assert (found[0].phase, found[0].version) == ("killed", run.version + 2)
        last = (await entries(store, run.id))[-1]
        assert (last.action, last.run, last.run_version) == ("reset", run.id, run.version + 2)

    async def test_a_reset_of_a_kill_that_ended_no_run_names_none(self, store: Store) -> None:
        run = await started(store)
        await store.record_kill(kill("kill-1"), entry("kill"))
        await store.record_kill(kill("kill-2"), entry("kill"))
        await store.reset_kills(FLAG, ["kill-2"], entry("reset", run=run.id, run_version=9))
        assert (await entries(store))[-1].run is None
        assert await version_of(store, run) == run.version + 1

    async def test_kills_in_force_are_listed_by_flag_and_in_order(self, store: Store) -> None:
        for kill_id, name in (("kill-1", "zebra"), ("kill-2", "ant"), ("kill-0", "zebra")):
            await store.record_kill(kill(kill_id, name), entry("kill"))
        assert [active.kill.id for active in await store.active_kills()] == ["kill-2", "kill-1", "kill-0"]

    async def test_resetting_again_is_not_audited_again(self, store: Store) -> None:
        await store.record_kill(kill(), entry("kill"))
        await store.reset_kills(FLAG, ["kill-1"], entry("reset"))
        assert await store.reset_kills(FLAG, ["kill-1"], entry("reset")) == []
        assert await audited(store) == ["kill", "reset"]

    async def test_a_run_from_before_a_kill_never_raises_again_even_after_its_reset(self, store: Store) -> None:
        run = await started(store)
        await store.record_kill(kill(), entry("kill"))
        await store.reset_kills(FLAG, ["kill-1"], entry("reset"))
        with pytest.raises(KillInForce):
            await store.commit(change(run, "advance", raises=True))

    async def test_a_raise_after_a_kill_is_refused_and_a_lowering_is_not(self, store: Store) -> None:
        run = await started(store)
        await store.record_kill(kill(), entry("kill"))
        with pytest.raises(KillInForce, match="was killed"):
            await store.commit(change(run, "advance", raises=True))
        stored = await store.run(run.id)
        assert stored is not None
        assert await store.commit(change(stored[0], "reset")) == 6

    async def test_a_kill_merged_by_twenty_at_once_is_recorded_once(self, store: Store) -> None:
        run = await started(store)
        recorded = await asyncio.gather(*(store.record_kill(kill(), entry("kill")) for _ in range(20)))
        assert sorted(recorded) == [False] * 19 + [True]
        assert [one.kill_epoch for one in await store.active_kills()] == [1]
        assert await version_of(store, run) == run.version + 1
        actions = [msgspec.json.decode(row.body)["action"] for row in await store.audit()]
        assert actions.count("kill") == 1

    # — replicas —

    async def test_a_check_in_counts_only_for_the_present_life(self, store: Store, live_anew: LiveAnew) -> None:
        first = await store.check_in(A, life="", valid_seconds=5.0, remembered=0)
        assert (first.counted, first.others) == (False, ())
        assert first.life
        assert (await check_in(store, B)).others == ()
        counted = await store.check_in(A, life=first.life, valid_seconds=5.0, remembered=0)
        assert (counted.counted, counted.life) == (True, first.life)
        assert (counted.others, counted.versions) == (("replica-b",), ("2",))
        assert counted.obstacles == ()

    async def test_a_check_in_tells_the_end_of_the_log_and_the_hash_that_was_asked_about(
        self, store: Store
    ) -> None:
        empty = await check_in(store)
        assert (empty.head, empty.remembered) == (Head(), None)
        await started(store)
        rows = await store.audit()
        roll = await check_in(store, remembered=2)
        assert roll.head == Head(sequence=len(rows), hash=rows[-1].hash)
        assert roll.remembered == rows[1].hash
        assert (await check_in(store, remembered=len(rows) + 1)).remembered is None

    async def test_while_a_registered_replica_is_silent_nothing_rises(
        self, store: Store, pass_seconds: PassSeconds
    ) -> None:
        run = await started(store)
        await check_in(store, B)
        claim = await claim_one(store, lease_seconds=600.0)
        await store.commit(change(run, "pause"))
        paused = transition(run, "pause")
        await pass_seconds(6.0)
        rows = await store.audit()
        with pytest.raises(RaisesBlocked, match="no run may rise: replica replica-b has not checked in since"):
            await store.commit(change(paused, "resume", raises=True))
        with pytest.raises(RaisesBlocked, match="replica-b"):
            await store.check_raise(paused, claim.lease_epoch, "replica-a")
        assert await store.audit() == rows
        (silent,) = (await check_in(store)).absent
        assert silent.name == "replica-b"
        assert (await check_in(store)).obstacles == (
            f"replica replica-b has not checked in since {silent.seen_at:%Y-%m-%d %H:%M:%S} UTC, "
            "and its journal may hold kills",
        )

        await check_in(store, B)
        await store.check_raise(paused, claim.lease_epoch, "replica-a")
        await store.commit(change(paused, "resume", raises=True))

    async def test_while_a_registered_replica_is_silent_runs_are_lowered_and_ended(
        self, store: Store, pass_seconds: PassSeconds
    ) -> None:
        run = await started(store)
        await check_in(store, B)
        await pass_seconds(6.0)
        await store.commit(change(run, "pause"))
        await store.commit(change(transition(run, "pause"), "abandon"))
        assert await store.record_kill(kill(), entry("kill"))

    async def test_after_the_database_lives_anew_nothing_rises_before_every_replica_has_merged(
        self, store: Store, live_anew: LiveAnew
    ) -> None:
        created = await created_run(store)
        await check_in(store, A)
        await check_in(store, B)
        await live_anew()
        with pytest.raises(RaisesBlocked, match=r"replica-a .*; replica replica-b"):
            await store.commit(change(created, "start", raises=True))
        stale = await store.check_in(A, life="of before", valid_seconds=5.0, remembered=0)
        assert (stale.counted, [one.name for one in stale.absent]) == (False, ["replica-b"])
        await check_in(store, A)
        with pytest.raises(RaisesBlocked, match="rise: replica replica-b"):
            await store.commit(change(created, "start", raises=True))
        await check_in(store, B)
        await store.commit(change(created, "start", raises=True))

    async def test_nobody_waits_for_a_replica_that_checked_out(
        self, store: Store, pass_seconds: PassSeconds
    ) -> None:
        created = await created_run(store)
        await check_in(store, B)
        await pass_seconds(6.0)
        await store.check_out("replica-b")
        await store.check_out("never there")
        assert (await check_in(store)).others == ()
        await store.commit(change(created, "start", raises=True))

    async def test_a_check_in_from_before_the_clock_was_set_back_does_not_count(
        self, store: Store, pass_seconds: PassSeconds
    ) -> None:
        created = await created_run(store)
        await check_in(store, B)
        await pass_seconds(-3600.0)
        with pytest.raises(RaisesBlocked, match="replica-b"):
            await store.commit(change(created, "start", raises=True))

    async def test_a_barrier_keeps_everything_down_until_a_person_releases_it(self, store: Store) -> None:
        run = await created_run(store)
        claim = await claim_one(store)
        assert await store.raise_barrier(BARRIER, entry("block_raises"))
        assert not await store.raise_barrier(BARRIER, entry("block_raises"))
        assert (await check_in(store)).barriers == (BARRIER,)
        with pytest.raises(RaisesBlocked, match="no run may rise: the database lost history"):
            await store.commit(change(run, "start", raises=True))
        with pytest.raises(RaisesBlocked):
            await store.check_raise(run, claim.lease_epoch, "replica-a")
        assert await store.release_raises(entry("release_raises")) == ["head-9"]
        assert await audited(store) == ["apply", "apply", "start", "block_raises", "release_raises"]
        assert (await check_in(store)).barriers == ()
        # Everybody who remembers more than the database would raise it for ever.
        assert not await store.raise_barrier(BARRIER, entry("block_raises"))
        await store.commit(change(run, "start", raises=True))

    async def test_a_person_releases_the_absent_and_not_those_that_are_there(
        self, store: Store, pass_seconds: PassSeconds
    ) -> None:
        created = await created_run(store)
        await check_in(store, A)
        await check_in(store, B)
        assert await store.release_raises(entry("release_raises")) == []
        assert "release_raises" not in await audited(store)
        await pass_seconds(6.0)
        await check_in(store, A)
        await store.raise_barrier(BARRIER, entry("block_raises"))
        released = await store.release_raises(entry("release_raises", details={"why": "lost for good"}))
        assert released == ["replica-b", "head-9"]
        last = (await entries(store))[-1]
        assert last.details == {"why": "lost for good", "released": released}
        assert (await check_in(store, B)).others == ("replica-a",)
        await store.commit(change(created, "start", raises=True))

    async def test_a_raise_is_checked_for_each_guard_in_turn(
        self, store: Store, pass_seconds: PassSeconds
    ) -> None:
        run = await started(store)
        claim = await claim_one(store)
        await store.check_raise(run, claim.lease_epoch, "replica-a")
        with pytest.raises(Conflict, match="not in the database"):
            await store.check_raise(replace(run, id="nothing#1"), claim.lease_epoch, "replica-a")
        with pytest.raises(StaleLease):
            await store.check_raise(run, claim.lease_epoch + 1, "replica-a")
        with pytest.raises(Conflict, match="at version"):
            await store.check_raise(replace(run, version=run.version - 1), claim.lease_epoch, "replica-a")
        await check_in(store, B)
        await pass_seconds(31.0)
        with pytest.raises(RaisesBlocked):
            await store.check_raise(run, claim.lease_epoch, "replica-a")
        await store.record_kill(kill(), entry("kill"))
        with pytest.raises(KillInForce):
            await store.check_raise(run, claim.lease_epoch, "replica-a")

    async def test_one_at_a_time_leads_a_task(self, store: Store, pass_seconds: PassSeconds) -> None:
        assert await store.lead("announce", "a", lease_seconds=10.0)
        assert not await store.lead("announce", "b", lease_seconds=10.0)
        assert await store.lead("migrate", "b", lease_seconds=10.0)
        await pass_seconds(6.0)
        assert await store.lead("announce", "a", lease_seconds=10.0)
        await pass_seconds(6.0)
        assert not await store.lead("announce", "b", lease_seconds=10.0)
        await pass_seconds(6.0)
        assert await store.lead("announce", "b", lease_seconds=10.0)
        assert not await store.lead("announce", "a", lease_seconds=10.0)
        await pass_seconds(-3600.0)
        assert await store.lead("announce", "a", lease_seconds=10.0)

    async def test_of_many_who_want_to_lead_one_does(self, store: Store) -> None:
        wants = [store.lead("announce", f"owner-{n}", lease_seconds=10.0) for n in range(8)]
        assert sum(await asyncio.gather(*wants)) == 1

    # — tokens, SDK keys, built-in flags —

    async def test_tokens_are_saved_replaced_and_revoked(self, store: Store) -> None:
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

    async def test_one_secret_has_one_name(self, store: Store) -> None:
        await store.save_token(token("ci"), entry("token"))
        with pytest.raises(Conflict, match="another token"):
            await store.save_token(token("other"), entry("token"))
        await store.save_sdk_key(sdk_key("shop", digest=b"d" * 32), entry("sdk_key"))
        with pytest.raises(Conflict, match="another SDK key"):
            await store.save_sdk_key(sdk_key("other", digest=b"d" * 32), entry("sdk_key"))
        assert [one.name for one in await store.tokens()] == ["ci"]
        assert [one.name for one in await store.sdk_keys()] == ["shop"]
        assert await audited(store) == ["token", "sdk_key"]

    async def test_sdk_keys_are_saved_and_revoked(self, store: Store) -> None:
        for _ in range(2):
            await store.save_sdk_key(sdk_key(), entry("sdk_key"))
        assert await audited(store) == ["sdk_key"]
        assert await store.sdk_keys() == [sdk_key()]
        assert await store.revoke_sdk_key("shop", entry("revoke")) is True
        assert await store.revoke_sdk_key("shop", entry("revoke")) is False
        assert await store.sdk_keys() == []

    async def test_the_version_of_a_flag_never_goes_down(self, store: Store) -> None:
        await store.save_flag_config(flag_config(5), entry("flag"))
        await store.save_flag_config(flag_config(7))
        with pytest.raises(Conflict, match="version 7"):
            await store.save_flag_config(flag_config(6), entry("flag"))
        assert await store.flag_configs() == [flag_config(7)]
        assert await store.flag_config("production", "checkout-v2") == flag_config(7)
        assert await store.flag_config("staging", "checkout-v2") is None
        assert await audited(store) == ["flag"]

    async def test_one_version_of_a_flag_has_one_content(self, store: Store) -> None:
        await store.save_flag_config(flag_config(5, on=True), entry("flag"))
        assert await store.save_flag_config(flag_config(5, on=True), entry("flag")) == flag_config(5, on=True)
        assert await audited(store) == ["flag"]
        with pytest.raises(Conflict):
            await store.save_flag_config(flag_config(5, on=False))

    async def test_the_variations_of_a_flag_keep_their_order(self, store: Store) -> None:
        await store.save_flag_config(flag_config(1))
        (stored,) = await store.flag_configs()
        assert list(stored.variations) == ["on", "off", "also"]

    # — audit —

    async def test_the_audit_log_is_read_in_pages_from_both_ends_and_by_run(self, store: Store) -> None:
        first, second = await started(store, "one"), await started(store, "two")
        everything = await store.audit()
        assert [row.sequence for row in everything] == list(range(1, len(everything) + 1))
        assert await store.audit(after=2, limit=3) == everything[2:5]
        assert await store.audit(limit=2, newest_first=True) == everything[:-3:-1]
        for run in (first, second):
            assert len(await store.audit(run=run.id)) == run.version == 2
        assert await store.audit_head() == (len(everything), everything[-1].hash)
        assert verify_chain(everything).problem is None

    async def test_an_empty_audit_log_has_its_genesis_as_head(self, store: Store) -> None:
        assert await store.audit_head() == (0, bytes(32))

    async def test_an_entry_about_a_kill_is_found_by_the_run_it_ended(self, store: Store) -> None:
        run = await started(store)
        await store.record_kill(kill(), entry("kill"))
        assert [one.action for one in await entries(store, run.id)] == ["start", "start", "kill"]

    async def test_entries_are_unannounced_in_order(self, store: Store) -> None:
        entries = [entry("apply", details={"n": 1, "text": "ü\x00"}), entry("apply")]
        await store.save_plan(plan("one"), entries[0])
        await store.save_plan(plan("two"), entries[1])
        assert await store.unannounced(10) == [(1, entries[0]), (2, entries[1])]
        assert await store.unannounced(1) == [(1, entries[0])]

    @pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
    async def test_an_entry_is_recorded_once_and_without_it_nothing_happens(
        self, store: Store, write: Callable[[Store, AuditEntry], Awaitable[object]]
    ) -> None:
        await started(store)
        await store.record_kill(kill("kill-1", "another"), entry("kill"))
        await store.save_token(token("old", digest=b"o" * 32), entry("token"))
        await store.save_sdk_key(sdk_key("old", digest=b"o" * 32), entry("sdk_key"))
        same = entry("apply")
        await store.save_plan(plan("third"), same)
        await store.raise_barrier(replace(BARRIER, id="older"), entry("block_raises"))
        before = await story(store)
        with pytest.raises(Conflict, match="recorded before"):
            await write(store, same)
        assert await story(store) == before
