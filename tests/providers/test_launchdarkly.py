"""The LaunchDarkly provider on LaunchDarkly's stand-in, with the official SDK connected."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ldclient import Config as SdkConfig
from msgspec.structs import replace

from controller.domain.flag import FlagState, Observation, Unknown
from controller.errors import ProviderUnavailable, Refused, SettingsError
from controller.providers import build
from controller.telemetry import Metrics
from tests.contracts.launchdarkly_world import (
    LaunchDarklyWorld,
    connected,
    launchdarkly_world,
    make_settings,
    started,
)
from tests.contracts.provider_cases import (
    BETA,
    KILL,
    STAFF,
    TURN_ON,
    attempt,
    canary,
    is_canary,
    observed,
    off,
    pressed_on,
    seen,
    share,
    unknown,
)
from tests.contracts.provider_world import FLAG, SERVE
from tests.support.launchdarkly import (
    BYPASS_TOKEN,
    PRODUCTION,
    PROJECT,
    READ_TOKEN,
    SDK_KEYS,
    WRITE_TOKEN,
    FakeLaunchDarkly,
    Token,
)
from tests.support.launchdarkly.flags import rest_flag
from tests.support.providers import make_host
from tests.support.rollouts import make_plan
from tests.support.sdk_door import make_board

GENTLE = replace(KILL, serve=replace(SERVE, kill="fallthrough"))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[LaunchDarklyWorld]:
    async with launchdarkly_world(tmp_path) as world:
        yield world


async def until(condition: Callable[[], bool], what: str, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.01)


def bodies(world: LaunchDarklyWorld) -> list[dict[str, Any]]:
    return [one.body for one in world.fake.requests.find("writes")]


def kinds(world: LaunchDarklyWorld) -> list[list[str]]:
    return [[one["kind"] for one in body["instructions"]] for body in bodies(world)]


# — how it asks —


async def test_every_request_carries_the_raw_token_and_the_pinned_version(world: LaunchDarklyWorld) -> None:
    await canary(world)
    for request in world.fake.requests.all:
        version = "beta" if request.route == "list_releases" else "20240415"
        assert (request.headers["Authorization"], request.headers["LD-API-Version"]) == (WRITE_TOKEN, version)


async def test_looking_at_a_flag_that_nobody_changes_asks_for_nothing(world: LaunchDarklyWorld) -> None:
    await canary(world)
    world.fake.requests.clear()
    for _ in range(50):
        assert is_canary(await seen(world))
    await asyncio.sleep(1.0)  # longer than without a stream it would be asked for again
    assert is_canary(await seen(world))
    assert world.fake.requests.count() == 0


async def test_a_change_by_a_person_costs_one_read_and_one_look_at_the_audit_log(world: LaunchDarklyWorld) -> None:
    await canary(world)
    world.fake.requests.clear()
    world.person.share(FLAG.key, 50_000)
    await seen(world, lambda one: one.exposure == 50_000 and "dana" in one.changed_by)
    for _ in range(10):
        await seen(world)
    assert world.fake.requests.by_route() == {("GET", "get_flag"): 1, ("GET", "audit_log"): 1}


async def test_many_flags_are_read_by_lists_of_a_hundred(tmp_path: Path) -> None:
    async with FakeLaunchDarkly() as fake:
        flags = [replace(FLAG, key=f"flag-{number:03}") for number in range(250)]
        for flag in flags:
            fake.create_flag(flag.key)
        fake.create_flag(FLAG.key)
        async with started(make_settings(fake, tmp_path)) as provider:
            await connected(provider)
            fake.requests.clear()
            seen = await provider.observe(flags)
            assert [one for one in seen.values() if not isinstance(one, FlagState)] == []
            assert fake.requests.by_route() == {("GET", "list_flags"): 3}


async def test_a_few_of_very_many_flags_are_read_one_by_one(tmp_path: Path) -> None:
    async with FakeLaunchDarkly() as fake:
        for number in range(1200):
            fake.create_flag(f"flag-{number:04}")
        wanted = [replace(FLAG, key=f"flag-{number:04}") for number in range(1100, 1108)]
        fake.create_flag(FLAG.key)
        async with started(make_settings(fake, tmp_path)) as provider:
            await connected(provider)
            fake.requests.clear()
            await provider.observe(wanted)
            assert fake.requests.by_route() == {("GET", "list_flags"): 1, ("GET", "get_flag"): 8}


async def test_a_sweep_finds_what_the_stream_never_said(tmp_path: Path) -> None:
    async with launchdarkly_world(tmp_path, sweep_seconds=0.2) as world:
        await canary(world)
        world.fake.sdk.freeze()
        world.person.share(FLAG.key, 50_000)
        world.fake.requests.clear()
        await until(lambda: world.fake.requests.count("get_flag") > 0, "a sweep")
        assert is_canary(await seen(world)), "applications see what the SDK sees"
        world.fake.sdk.thaw()
        await seen(world, lambda one: one.exposure == 50_000)


async def test_a_sweep_leaves_alone_what_nobody_asks_for(tmp_path: Path) -> None:
    async with launchdarkly_world(tmp_path, sweep_seconds=0.1) as world:
        await asyncio.sleep(0.5)
        world.fake.requests.clear()
        await asyncio.sleep(0.5)
        assert world.fake.requests.count() == 0


async def test_a_flag_without_what_it_serves_is_taken_for_no_state_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should LaunchDarkly ever answer with summaries although whole flags were asked for."""

    def summary(*arguments: Any, **options: Any) -> Any:
        return rest_flag(*arguments, **{**options, "summary": True})

    monkeypatch.setattr("tests.support.launchdarkly.rest.rest_flag", summary)
    async with FakeLaunchDarkly() as fake:
        flags = [replace(FLAG, key=f"flag-{number}") for number in range(8)]
        for flag in flags:
            fake.create_flag(flag.key)
        async with started(make_settings(fake, tmp_path)) as provider:
            for several in (flags, flags[:1]):
                seen = await provider.observe(several)
                assert {"leaves out" in one.why for one in seen.values() if isinstance(one, Unknown)} == {True}
                assert len(seen) == len(several)


# — both agree, or it is not so —


async def test_a_write_is_shown_once_the_sdk_shows_it_and_how_long_that_took_is_told(tmp_path: Path) -> None:
    metrics = Metrics()
    async with FakeLaunchDarkly() as fake:
        fake.create_flag(FLAG.key)
        settings = make_settings(fake, tmp_path)
        async with started(settings, make_host(None, make_board())._replace(metrics=metrics)) as provider:
            await connected(provider)
            fake.sdk.lag_seconds = 0.8
            await provider.apply(share(1_000))
            state = await observed(provider)
            assert isinstance(state, FlagState)
            assert state.exposure == 100_000, "the SDK still shows the flag as it was made"
            world = LaunchDarklyWorld(fake, provider, settings)
            state = await seen(world, lambda one: one.exposure == 1_000)
            assert state.delivered_seconds is not None
            assert 0.6 < state.delivered_seconds < 2.0
    count = 'rampart_provider_delivery_seconds_count{environment="production",provider="main"} 1.0'
    assert count in metrics.render().decode()


async def test_a_kill_is_off_only_when_the_sdk_shows_it_too(world: LaunchDarklyWorld) -> None:
    await canary(world)
    world.fake.sdk.freeze()
    await world.provider.kill(KILL)
    assert not world.fake.config(FLAG.key).on
    for _ in range(3):
        assert is_canary(await seen(world))
    world.fake.sdk.thaw()
    assert off(await seen(world, off))


async def test_a_kill_is_off_only_when_the_rest_api_says_it_too(world: LaunchDarklyWorld) -> None:
    await canary(world)
    with world.fake.faults.fail(503, on="reads"):
        await world.provider.kill(KILL)
        state = await observed(world.provider)
        assert isinstance(state, Unknown), state
        assert "503" in state.why
    assert off(await seen(world, off))


async def test_without_a_stream_what_did_not_change_is_known_and_what_did_is_not(world: LaunchDarklyWorld) -> None:
    await canary(world)
    world.fake.sdk.down()
    await asyncio.sleep(1.0)
    assert is_canary(await seen(world))
    await world.provider.apply(share(10_000, STAFF))
    state = await observed(world.provider)
    assert isinstance(state, Unknown), state
    assert "no SDK stream" in state.why
    world.fake.sdk.up()
    await seen(world, lambda one: one.exposure == 10_000, seconds=world.patience)


async def test_without_an_sdk_key_the_rest_api_alone_is_believed(tmp_path: Path) -> None:
    async with FakeLaunchDarkly() as fake:
        fake.create_flag(FLAG.key)
        settings = make_settings(fake, tmp_path, sdk_key_files={})
        async with started(settings) as provider:
            world = LaunchDarklyWorld(fake, provider, settings)
            await canary(world)
            world.person.share(FLAG.key, 50_000)
            await seen(world, lambda one: one.exposure == 50_000)
            assert list(await provider.objections(make_plan(mode="observe"))) == []
            (objection,) = await provider.objections(make_plan())
            assert "sdk_key_files" in objection


async def test_a_stream_that_missed_nothing_comes_back_without_a_request(world: LaunchDarklyWorld) -> None:
    await canary(world)
    world.fake.requests.clear()
    world.fake.sdk.cut()
    connects = len(world.fake.sdk.connects)
    await until(lambda: len(world.fake.sdk.connects) > connects, "the SDK to come back")
    assert is_canary(await seen(world, seconds=world.patience))
    assert world.fake.requests.writes == 0


async def test_a_kill_that_waits_for_its_proof_does_not_wait_as_long_as_the_sdk_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = partial(SdkConfig, initial_reconnect_delay=60.0)
    monkeypatch.setattr("controller.providers.launchdarkly.stream.SdkConfig", slow)
    async with launchdarkly_world(tmp_path) as world:
        await canary(world)
        world.fake.sdk.down()
        await until(lambda: world.fake.sdk.connected == 0, "the stream to end")
        await world.provider.kill(KILL)
        await unknown(world)
        world.fake.sdk.up()
        await pressed_on(world)


# — what it writes —


async def test_the_comment_reaches_the_audit_log(world: LaunchDarklyWorld) -> None:
    await world.provider.apply(replace(share(1_000), comment="Rampart checkout-v2#3: 1 % (canary), decision 42"))
    assert world.fake.ledger.audit[-1].comment == "Rampart checkout-v2#3: 1 % (canary), decision 42"


async def test_a_start_writes_the_share_while_it_is_off_and_then_turns_it_on(world: LaunchDarklyWorld) -> None:
    await world.provider.apply(share(1_000, STAFF))
    assert not world.fake.config(FLAG.key).on
    await world.provider.apply(TURN_ON)
    assert kinds(world) == [["updateFallthroughVariationOrRollout", "addRule"], ["turnFlagOn"]]


async def test_a_kill_is_one_request(world: LaunchDarklyWorld) -> None:
    await canary(world)
    world.fake.requests.clear()
    await world.provider.kill(KILL)
    assert world.fake.requests.by_route() == {("PATCH", "patch_flag"): 1}
    assert kinds(world) == [["turnFlagOff", "updateFallthroughVariationOrRollout", "removeRule"]]


async def test_a_kill_that_knows_nothing_turns_off_first(world: LaunchDarklyWorld) -> None:
    await canary(world)
    async with world.another() as newcomer:
        world.fake.requests.clear()
        await newcomer.kill(KILL)
    assert kinds(world) == [["turnFlagOff"], ["updateFallthroughVariationOrRollout", "removeRule"]]
    assert [one.method for one in world.fake.requests.all] == ["PATCH", "PATCH"]


@pytest.mark.parametrize("status", [400, 409, 422])
async def test_a_kill_that_does_not_fit_the_flag_any_more_turns_it_off_alone_and_then_does_the_rest(
    world: LaunchDarklyWorld, status: int
) -> None:
    await canary(world)
    world.fake.requests.clear()
    with world.fake.faults.fail(status, on="writes", times=1):
        await world.provider.kill(KILL)
    rest = ["updateFallthroughVariationOrRollout", "removeRule"]
    assert kinds(world) == [["turnFlagOff", *rest], ["turnFlagOff"], rest]
    assert off(await seen(world, off))


async def test_a_kill_of_which_launchdarkly_takes_only_the_off_is_off(world: LaunchDarklyWorld) -> None:
    await canary(world)

    def too_much(request: Any) -> bool:
        return request.write and len(request.body["instructions"]) > 1

    with world.fake.faults.fail(400, on="writes") as fault:
        fault.strikes = lambda request, *, after: too_much(request) and not after  # type: ignore[method-assign]
        await world.provider.kill(KILL)
    assert not (await seen(world, lambda one: not one.enabled)).enabled


@pytest.mark.parametrize(("map_order", "drop_zero"), [(True, False), (False, True), (True, True)])
async def test_however_launchdarkly_lists_variations_nobody_leaves_a_share_that_grows(
    world: LaunchDarklyWorld, map_order: bool, drop_zero: bool
) -> None:
    """What its documentation leaves open: the order after a map of weights, and variations without a weight."""
    world.fake.ledger.quirks.map_order, world.fake.ledger.quirks.drop_zero = map_order, drop_zero
    bucketing: set[str] = set()
    for exposure in (0, 1_000, 10_000, 0, 50_000, 100_000, 10_000):
        await world.provider.apply(share(exposure, STAFF))
        bucketing.add((await seen(world, lambda one: one.exposure == exposure)).bucketing)  # noqa: B023
    assert len(bucketing - {""}) == 1, bucketing
    await world.provider.apply(TURN_ON)
    await world.provider.kill(KILL)
    assert off(await seen(world, off))


async def test_a_kill_may_leave_on_what_is_not_ours_without_having_read_it(world: LaunchDarklyWorld) -> None:
    await canary(world)
    world.person.add_targets(FLAG.key, "on", "qa-1")
    async with world.another() as newcomer:
        await newcomer.kill(GENTLE)
    config = world.fake.config(FLAG.key)
    assert (config.on, config.rules, len(config.targets)) == (True, [], 1)


async def test_two_changes_at_once_are_made_one_after_the_other(world: LaunchDarklyWorld) -> None:
    await canary(world)
    async with world.held_write() as held:
        first = asyncio.create_task(world.provider.apply(share(10_000, STAFF)))
        await held.reached.wait()
        second = asyncio.create_task(world.provider.apply(share(50_000, BETA)))
        await asyncio.sleep(0.2)
        held.let_go.set()
        await asyncio.gather(first, second)
    state = await seen(world, lambda one: one.exposure == 50_000)
    assert state.audience == ("beta",)


# — what LaunchDarkly says no to —


async def with_token(world: LaunchDarklyWorld, tmp_path: Path, token: str) -> None:
    """From the next refusal on."""
    (tmp_path / "token").write_text(token)
    world.fake.ledger.tokens.pop(WRITE_TOKEN)


async def test_a_token_that_was_replaced_is_taken_up(world: LaunchDarklyWorld, tmp_path: Path) -> None:
    world.fake.add_token(Token("rotated", "api-rotated-0123456789"))
    await with_token(world, tmp_path, "api-rotated-0123456789")
    with pytest.raises(ProviderUnavailable, match="put a valid one into api_token_file") as error:
        await world.provider.apply(share(1_000))
    assert error.value.not_applied
    await canary(world)


async def test_a_raise_that_needs_an_approval_is_refused_with_what_to_do(world: LaunchDarklyWorld) -> None:
    await canary(world)
    world.fake.environment().approvals = True
    with pytest.raises(Refused, match="bypassRequiredApproval"):
        await world.provider.apply(share(10_000, STAFF))
    assert is_canary(await seen(world))


async def test_a_kill_that_needs_an_approval_is_tried_until_it_may_pass(
    world: LaunchDarklyWorld, tmp_path: Path
) -> None:
    await canary(world)
    world.fake.environment().approvals = True
    with pytest.raises(ProviderUnavailable, match="bypassRequiredApproval"):
        await world.provider.kill(KILL)
    await with_token(world, tmp_path, BYPASS_TOKEN)
    with pytest.raises(ProviderUnavailable, match="api_token_file"):
        await world.provider.kill(KILL)
    await world.provider.kill(KILL)
    assert off(await seen(world, off))


async def test_a_pending_scheduled_change_stands_in_the_way_of_a_raise_and_of_nothing_that_lowers(
    world: LaunchDarklyWorld,
) -> None:
    await canary(world)
    variation = world.fake.flag(FLAG.key).variation("off")["_id"]
    planned = {"kind": "updateFallthroughVariationOrRollout", "variationId": variation}
    world.person.schedule(FLAG.key, planned, {"kind": "turnFlagOff"})
    with pytest.raises(Refused, match="scheduled change"):
        await world.provider.apply(share(10_000, STAFF))
    await world.provider.apply(share(500, STAFF))
    await seen(world, lambda one: one.exposure == 500)
    await world.provider.kill(KILL)
    assert off(await seen(world, off))


async def test_a_conflict_is_read_again_and_tried_once_more(world: LaunchDarklyWorld) -> None:
    await canary(world)
    world.fake.requests.clear()
    with world.fake.faults.fail(409, on="writes", times=1):
        await world.provider.apply(share(10_000, STAFF))
    assert world.fake.requests.by_route() == {("GET", "get_flag"): 2, ("PATCH", "patch_flag"): 2}
    with world.fake.faults.fail(409, on="writes"), pytest.raises(ProviderUnavailable) as error:
        await world.provider.apply(share(50_000, STAFF))
    assert error.value.not_applied


@pytest.mark.parametrize("on_default_rule", [True, False])
async def test_nothing_rises_while_launchdarkly_rolls_the_flag_out_itself_and_a_kill_works(
    world: LaunchDarklyWorld, on_default_rule: bool
) -> None:
    await canary(world)
    world.person.start_release(FLAG.key, on_default_rule=on_default_rule)
    for change in (share(50_000, STAFF), TURN_ON):
        with pytest.raises(Refused, match="LaunchDarkly itself runs a release"):
            await world.provider.apply(change)
    (objection,) = await world.provider.objections(make_plan())
    assert "LaunchDarkly itself runs a release" in objection
    state = await seen(world, lambda one: bool(one.foreign))
    assert any("a release or experiment of LaunchDarkly" in one for one in state.foreign)
    await world.provider.kill(KILL)
    assert not (await seen(world, lambda one: not one.enabled)).enabled


async def test_a_release_that_has_not_begun_to_serve_is_an_objection_too(world: LaunchDarklyWorld) -> None:
    world.person.start_release(FLAG.key)
    world.fake.config(FLAG.key).rules.clear()
    world.fake.config(FLAG.key).on = True
    (objection,) = await world.provider.objections(make_plan())
    assert "LaunchDarkly itself runs a release" in objection


async def test_a_release_that_cannot_be_asked_for_is_not_taken_for_none(world: LaunchDarklyWorld) -> None:
    with world.fake.faults.fail(503, on="list_releases"):
        (objection,) = await world.provider.objections(make_plan())
    assert "whether LaunchDarkly runs a release on checkout-v2 is unknown" in objection
    with world.fake.faults.fail(403, on="list_releases"):
        assert list(await world.provider.objections(make_plan())) == []


async def test_what_was_surely_not_written_is_told_from_what_may_have_been(world: LaunchDarklyWorld) -> None:
    await canary(world)
    for status, on, surely in ((503, "writes", False), (503, "reads", True), (429, "writes", True)):
        with (
            world.fake.faults.fail(status, on=on),
            pytest.raises(ProviderUnavailable) as error,
        ):
            await world.provider.apply(share(10_000, STAFF))
        assert error.value.not_applied is surely, (status, on)


# — who changed it —


async def test_what_another_replica_wrote_is_no_persons_change(world: LaunchDarklyWorld) -> None:
    await canary(world)
    async with world.another() as other:
        await other.apply(
            replace(share(10_000, STAFF), comment="Rampart checkout-v2#3 (early), decision 7: passed")
        )
    state = await seen(world, lambda one: one.exposure == 10_000)
    assert state.changed_by == ""


async def test_a_change_that_the_audit_log_has_not_got_yet_is_blamed_on_nobody(world: LaunchDarklyWorld) -> None:
    world.fake.ledger.time = lambda: time.time() - 60
    await canary(world)
    world.fake.person("kim").share(FLAG.key, 2_000)
    await seen(world, lambda one: "kim" in one.changed_by)
    world.fake.ledger.time = time.time
    world.person.share(FLAG.key, 50_000)
    world.fake.ledger.audit.pop()
    assert (await seen(world, lambda one: one.exposure == 50_000)).changed_by == ""


async def test_without_the_right_to_the_audit_log_the_change_is_seen_without_a_name(
    world: LaunchDarklyWorld,
) -> None:
    await canary(world)
    with world.fake.faults.fail(403, on="audit_log"):
        world.person.share(FLAG.key, 50_000)
        state = await seen(world, lambda one: one.exposure == 50_000)
    assert (state.changed_by, state.changed_at is not None) == ("", True)


# — rates —


async def test_what_is_left_of_a_window_is_kept_for_kills(world: LaunchDarklyWorld) -> None:
    await canary(world)
    world.fake.limits.account = 12
    world.fake.limits.window_seconds = 30.0
    asked = world.fake.requests.count()
    outcomes = [await attempt(world, share(exposure, STAFF)) for exposure in (10_000, 1_000) * 10]
    assert outcomes[0] == "done"
    assert outcomes[-1] == "unwritten"
    spent = world.fake.requests.count() - asked
    assert spent == 12 - 5 + 1, "the answer to the last one says that four are left"
    await world.provider.kill(KILL)
    assert off(await seen(world, off)), "read back out of the reserve"
    assert world.fake.limits.refused == 0


# — before anything is begun —


@pytest.mark.parametrize(("serve", "words"), [
    ({"rollout": "green"}, 'no variation "green", it has on, off'),
    ({"rollout": "off", "fallback": "on"}, 'serves "off" when it is off'),
    ({"rollout": "off", "fallback": "off"}, 'both "off"'),
])  # fmt: skip
async def test_a_plan_that_does_not_fit_is_told_in_words(
    world: LaunchDarklyWorld, serve: dict[str, str], words: str
) -> None:
    for mode in ("enforce", "observe"):
        assert words in " ".join(await world.provider.objections(make_plan(serve=serve, mode=mode)))


async def test_a_read_token_is_enough_to_observe_and_is_told_what_it_lacks_to_enforce(tmp_path: Path) -> None:
    async with FakeLaunchDarkly() as fake:
        fake.create_flag(FLAG.key)
        (tmp_path / "read").write_text(READ_TOKEN)
        async with started(make_settings(fake, tmp_path, api_token_file=str(tmp_path / "read"))) as provider:
            await connected(provider)
            assert list(await provider.problems([PRODUCTION])) == []
            assert list(await provider.objections(make_plan(mode="observe"))) == []
            (objection,) = await provider.objections(make_plan())
            assert "role does not allow this" in objection
            assert fake.requests.writes == 0


async def test_an_environment_with_approvals_is_told_before_a_kill_needs_it(world: LaunchDarklyWorld) -> None:
    world.fake.environment().approvals = True
    (objection,) = await world.provider.objections(make_plan())
    assert "bypassRequiredApproval" in objection
    assert "no kill can be automatic" in objection
    assert world.fake.requests.writes == 0, "a dry run is no write"


async def test_problems_say_what_to_fix(world: LaunchDarklyWorld, tmp_path: Path) -> None:
    await seen(world)  # by then the SDK has connected
    assert list(await world.provider.problems([PRODUCTION])) == []
    (unknown, missing) = await world.provider.problems(["qa"])
    assert "environment qa" in unknown
    assert "sdk_key_files" in missing
    (tmp_path / "wrong").write_text("sdk-wrong-0123456789")
    settings = make_settings(world.fake, tmp_path, sdk_key_files={PRODUCTION: str(tmp_path / "wrong")})
    async with started(settings) as provider:
        deadline = time.monotonic() + 5
        while "its SDK key is not taken" not in "".join(await provider.problems([PRODUCTION])):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_settings_that_lead_nowhere_are_told_at_the_start(tmp_path: Path) -> None:
    async with FakeLaunchDarkly() as fake:
        for fields in ({"api_token_file": "/nowhere"}, {"sdk_key_files": {"x": "/nowhere"}}, {"base_uri": "shop"}):
            with pytest.raises(SettingsError, match=r"/nowhere|base_uri"):
                build("main", make_settings(fake, tmp_path, **fields), make_host(None, make_board()))


async def test_no_secret_is_in_what_is_said(world: LaunchDarklyWorld) -> None:
    said: list[Observation | str] = []
    for status in (400, 401, 403, 404, 405, 422, 500):
        with world.fake.faults.fail(status, message=f"your token {WRITE_TOKEN} is odd"):
            said += await world.provider.objections(make_plan())
            said += await world.provider.problems([PRODUCTION])
            for write in (world.provider.apply(share(1_000)), world.provider.kill(KILL)):
                try:
                    await write
                except (Refused, ProviderUnavailable) as error:
                    said.append(str(error))
    assert len(said) > 20
    assert not any(secret in str(one) for one in said for secret in (WRITE_TOKEN, SDK_KEYS[PRODUCTION]))


async def test_an_environment_or_project_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    async with FakeLaunchDarkly() as fake:
        fake.create_flag(FLAG.key)
        async with started(make_settings(fake, tmp_path, project="nowhere")) as provider:
            state = await observed(provider)
            assert isinstance(state, Unknown)
            (problem,) = [one for one in await provider.problems([PRODUCTION]) if "project" in one]
            assert "nowhere" in problem
        async with started(make_settings(fake, tmp_path)) as provider:
            elsewhere = replace(FLAG, environment="qa")
            assert isinstance((await provider.observe([elsewhere]))[elsewhere], Unknown)
            with pytest.raises(Refused):
                await provider.apply(replace(share(1_000), flag=elsewhere))
    assert PROJECT != "nowhere"
