"""The built-in provider when the store is slow, away, lying, or changed by others."""

from collections.abc import Awaitable, Callable, Sequence

import pytest
from msgspec.structs import replace

from controller.domain.catalogue import FlagConfig
from controller.domain.flag import FlagKill, FlagState, SetShare, TurnOn, Unknown
from controller.domain.plan import Serve
from controller.domain.sdkflag import killed, state_of, with_version
from controller.errors import Conflict, ProviderUnavailable, Refused, StoreUnavailable
from controller.providers import build
from controller.settings import BuiltinProviderSettings
from controller.snapshot import FlagBoard
from controller.store.memory import MemoryStore
from tests.support.providers import make_host
from tests.support.rollouts import make_plan
from tests.support.sdk_door import FLAG, SERVE, STAFF, SteppedClock, make_board, make_flag, make_record, raised

KILL = FlagKill(flag=FLAG, kill_id="kill-1", serve=SERVE, comment="INC-1")


def share(exposure: int) -> SetShare:
    return SetShare(flag=FLAG, serve=SERVE, exposure=exposure, audience=(STAFF,), bucket_by="user", comment="test")


class FaultyStore(MemoryStore):
    """`away`: nothing answers. `lost_answer`: a write is done, its answer lost. `meanwhile`: comes before it."""

    def __init__(self) -> None:
        super().__init__(SteppedClock().monotonic)
        self.away = False
        self.lost_answer = False
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def flag_configs(self) -> Sequence[FlagConfig]:
        if self.away:
            raise StoreUnavailable("the database did not answer within 5 s")
        return await super().flag_configs()

    async def flag_config(self, environment: str, key: str) -> FlagConfig | None:
        if self.away:
            raise StoreUnavailable("the database did not answer within 5 s")
        return await super().flag_config(environment, key)

    async def save_flag_config(self, config: FlagConfig, entry: object = None) -> FlagConfig:
        if self.away:
            raise StoreUnavailable("the database did not answer within 5 s")
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        saved = await super().save_flag_config(config)
        if self.lost_answer:
            raise StoreUnavailable("the connection was lost")
        return saved


class World:
    def __init__(self) -> None:
        self.store = FaultyStore()
        self.board: FlagBoard = make_board()
        settings = BuiltinProviderSettings(settle_seconds=3)
        self.provider = build("main", settings, make_host(self.store, self.board))

    async def holding(self, config: FlagConfig) -> "World":
        await self.store.save_flag_config(config)
        self.board.load([config], [])
        return self

    async def refresh(self) -> None:
        """As the engine takes up what the store holds."""
        self.board.load(await self.store.flag_configs(), [])

    async def release(self) -> None:
        """As a reset through this replica does."""
        await self.provider.settle_kill(KILL)
        await self.provider.forget_kill(KILL)

    async def state(self) -> FlagState:
        state = (await self.provider.observe([FLAG]))[FLAG]
        assert isinstance(state, FlagState)
        return state

    async def stored(self) -> FlagConfig:
        (config,) = await self.store.flag_configs()
        return config


@pytest.fixture
async def world() -> World:
    return await World().holding(raised(make_flag(), 1_000, STAFF))


async def test_before_everything_is_loaded_a_flag_is_unknown_and_not_off() -> None:
    world = World()
    assert list(await world.provider.objections(make_plan())) == [
        "the built-in flags are not loaded yet; try again"
    ]
    world.board.put(make_flag())
    assert isinstance((await world.provider.observe([FLAG]))[FLAG], Unknown)


async def test_a_store_that_does_not_answer_leaves_the_outcome_unknown_and_the_flag_as_it_was(
    world: World,
) -> None:
    world.store.lost_answer = True
    with pytest.raises(ProviderUnavailable, match="unknown") as caught:
        await world.provider.apply(share(10_000))
    assert not caught.value.not_applied
    assert (await world.state()).exposure == 1_000, "nothing is shown that may not have happened"
    await world.refresh()
    assert (await world.state()).exposure == 10_000, "reading back settles it"


async def test_a_store_that_cannot_be_read_means_nothing_was_written(world: World) -> None:
    world.store.away = True
    with pytest.raises(ProviderUnavailable) as caught:
        await world.provider.apply(share(10_000))
    assert caught.value.not_applied
    assert (await world.state()).exposure == 1_000


async def test_a_raise_that_meets_another_writer_is_not_tried_again(world: World) -> None:
    faster = killed(await world.stored(), 10**15)
    world.store.meanwhile = lambda: world.store.save_flag_config(faster)
    with pytest.raises(ProviderUnavailable, match="changed meanwhile") as caught:
        await world.provider.apply(share(10_000))
    assert caught.value.not_applied
    assert not (await world.stored()).data["on"]


async def test_a_kill_needs_no_store(world: World) -> None:
    world.store.away = True
    assert await world.provider.kill(KILL) == ["r1"]
    state = await world.state()
    assert (state.enabled, state.exposure, state.audience) == (False, 0, ())


async def test_a_kill_of_a_flag_that_is_not_here_reaches_nobody_and_claims_nothing() -> None:
    world = World()
    world.board.load([], [])
    assert await world.provider.kill(KILL) == []
    assert isinstance((await world.provider.observe([FLAG]))[FLAG], Unknown)
    world.board.put(raised(make_flag(), 50_000))
    assert not (await world.state()).enabled


async def test_while_a_kill_holds_a_flag_every_raise_is_refused(world: World) -> None:
    await world.provider.kill(KILL)
    for change in (share(50_000), TurnOn(flag=FLAG, comment="test")):
        with pytest.raises(Refused) as caught:
            await world.provider.apply(change)
        assert caught.value.blocks == ("kill-1 is in force",)
    assert (await world.stored()).data["on"], "and the store is left alone"


async def test_a_raise_in_flight_that_lands_after_the_kill_is_never_shown(world: World) -> None:
    world.store.meanwhile = lambda: world.provider.kill(KILL)
    stream = world.board.subscribe(FLAG.environment)
    await world.provider.apply(share(100_000))
    assert state_of(await world.stored()).exposure == 100_000, "it did land"
    assert not (await world.state()).enabled
    stream.end()
    await stream.frame()  # the snapshot from before the kill
    while (frame := await stream.frame()) is not None:
        assert b'"on":false' in frame


async def test_what_another_replica_raised_does_not_show_through_a_kill(world: World) -> None:
    await world.provider.kill(KILL)
    await world.store.save_flag_config(with_version(raised(make_flag(), 100_000, STAFF), 10**15))
    await world.refresh()
    assert not (await world.state()).enabled


async def test_a_kill_stays_in_force_when_its_release_cannot_be_stored(world: World) -> None:
    await world.provider.kill(KILL)
    world.store.away = True
    with pytest.raises(ProviderUnavailable):
        await world.provider.settle_kill(KILL)
    with pytest.raises(ProviderUnavailable):
        await world.provider.forget_kill(KILL)
    world.store.away = False
    await world.refresh()
    assert world.board.holds(FLAG) == ["kill-1"]
    assert not (await world.state()).enabled


async def test_a_raise_on_its_way_to_the_store_is_shut_out_by_the_release(world: World) -> None:
    late = with_version(raised(await world.stored(), 100_000), world.board.next_version(FLAG))
    await world.provider.kill(KILL)
    await world.release()
    with pytest.raises(Conflict):
        await world.store.save_flag_config(late)
    await world.refresh()
    assert not (await world.state()).enabled


async def test_a_release_is_shown_with_a_version_above_the_kill(world: World) -> None:
    await world.provider.kill(KILL)
    under_kill = (await world.state()).version
    await world.release()
    assert (await world.state()).version == (await world.stored()).version > under_kill


async def test_a_replica_that_learns_late_of_a_reset_leaves_what_rose_since_as_it_is(world: World) -> None:
    """The reset and the new run went through another replica, on the same store."""
    await world.provider.kill(KILL)
    risen = with_version(raised(make_flag(), 10_000, STAFF), 10**15)
    await world.store.save_flag_config(risen)
    await world.provider.forget_kill(KILL)
    assert await world.stored() == risen
    assert (await world.state()).exposure == 10_000


async def test_a_refresh_takes_up_what_others_wrote_and_drops_nothing(world: World) -> None:
    await world.store.save_flag_config(with_version(raised(make_flag(), 50_000), 10**15))
    await world.refresh()
    assert (await world.state()).exposure == 50_000
    world.store._flags.clear()
    await world.refresh()
    assert (await world.state()).exposure == 50_000, "a flag missing from an answer is no deleted flag"


async def test_a_write_after_the_database_lost_some_is_above_all_that_was_served(world: World) -> None:
    served = with_version(raised(make_flag(), 50_000), 10**15)
    world.board.put(served)
    await world.provider.apply(share(10_000))
    assert (await world.stored()).version > served.version
    assert (await world.state()).exposure == 10_000


async def test_a_change_the_flag_cannot_take_is_refused_by_name(world: World) -> None:
    change = replace(share(1), serve=Serve(rollout="green", fallback="off"))
    with pytest.raises(Refused, match='no variation "green"'):
        await world.provider.apply(change)


async def test_a_kill_that_was_loaded_with_the_flags_is_in_force(world: World) -> None:
    world.board.load([], [make_record()])
    assert not (await world.state()).enabled
    assert world.provider.limits.settle_seconds == 3
