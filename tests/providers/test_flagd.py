"""flagd's provider when people edit the file beside it, the disk fails, and applications subscribe."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from msgspec.structs import replace

from controller.domain.flag import FlagKill, FlagState, Unknown
from controller.domain.plan import FlagRef
from controller.errors import ProviderUnavailable, Refused, SettingsError
from controller.providers import build
from controller.providers.flagd import FlagdProvider, sync
from controller.providers.flagd.file import FlagFile
from controller.providers.flagd.sync import SERVICE, field
from controller.settings import FlagdProviderSettings
from controller.snapshot import FlagBoard
from tests.contracts.flagd_world import FRESH, FlagdWorld
from tests.contracts.provider_cases import KILL, STAFF, TURN_ON, bring_to, canary, observed, off, seen, share
from tests.contracts.provider_world import FLAG, SERVE, Edit, Fault
from tests.support.providers import make_host
from tests.support.rollouts import make_plan
from tests.support.sdk_door import make_board
from tests.support.server import free_port

SECONDS = 5.0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[FlagdWorld]:
    world = FlagdWorld(tmp_path, sync_bind=f"127.0.0.1:{free_port()}")
    yield world
    await world.provider.close()


Open = Callable[..., FlagdProvider]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Builds and starts providers, and closes them whatever happens: an address stays taken otherwise."""
    providers: list[FlagdProvider] = []

    def build_one(
        board: FlagBoard, open_file: Callable[[Path], FlagFile] = FlagFile, **settings: Any
    ) -> FlagdProvider:
        host = make_host(None, board)
        providers.append(FlagdProvider("main", FlagdProviderSettings(**settings), host, open_file=open_file))
        providers[-1].start()
        return providers[-1]

    yield build_one
    for provider in providers:
        await provider.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + SECONDS
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


# — the file, and people —


class Interrupted(FlagFile):
    """Somebody else changes the file in the moment before ours does, `times` times."""

    def __init__(self, path: Path, meanwhile: Callable[[], None], times: int) -> None:
        super().__init__(path)
        self._meanwhile = meanwhile
        self.times = times
        self.written = 0

    def replace(self, before: bytes, after: bytes) -> bool:
        if self.times:
            self.times -= 1
            self._meanwhile()
        done = super().replace(before, after)
        self.written += done
        return done


async def test_a_change_of_somebody_else_in_the_same_moment_is_kept(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "flags.json"
    path.write_text(json.dumps({"flags": {FLAG.key: FRESH}}))

    def meanwhile() -> None:
        document = json.loads(path.read_bytes())
        document["flags"][f"other-{len(document['flags'])}"] = FRESH
        path.write_text(json.dumps(document))

    provider = opened(
        make_board(), lambda path: Interrupted(path, meanwhile, 3), files={FLAG.environment: str(path)}
    )
    await provider.apply(share(1_000, STAFF))
    document = json.loads(path.read_bytes())
    assert list(document["flags"]) == [FLAG.key, "other-1", "other-2", "other-3"]
    state = await observed(provider)
    assert isinstance(state, FlagState)
    assert state.exposure == 1_000


async def test_a_document_with_a_mistake_is_left_alone_and_the_mistake_is_told(world: FlagdWorld) -> None:
    await canary(world)
    broken = world.path.read_text().replace('"neighbour":', '"neighbour"')
    world.path.write_text(broken)
    state = await observed(world.provider)
    assert isinstance(state, Unknown)
    for write in (world.provider.apply(share(10_000)), world.provider.kill(KILL)):
        with pytest.raises(ProviderUnavailable, match=r"flags.json is left alone: it is not JSON: .* line \d+"):
            await write
    assert world.path.read_text() == broken
    world.path.write_text(broken.replace('"neighbour"', '"neighbour":'))
    assert await world.provider.kill(KILL)
    assert off(await seen(world, off))


async def test_a_flag_that_is_disabled_by_hand_is_unknown_until_a_kill_enables_it(world: FlagdWorld) -> None:
    await canary(world)
    document = await world.everything()
    document["flags"][FLAG.key]["state"] = "DISABLED"
    world.path.write_text(json.dumps(document))
    state = await observed(world.provider)
    assert isinstance(state, Unknown)
    assert "default of their own code" in state.why
    with pytest.raises(Refused, match="default of their own code"):
        await world.provider.apply(share(10_000, STAFF))
    await world.provider.kill(KILL)
    assert off(await seen(world, off))


async def test_a_default_that_was_swapped_by_hand_is_seen_although_nothing_else_remembers(
    world: FlagdWorld,
) -> None:
    await canary(world)
    document = await world.everything()
    document["flags"][FLAG.key] = {**FRESH, "defaultVariant": "on"}
    world.path.write_text(json.dumps(document))
    state = await seen(world, lambda one: one.effective_exposure == 100_000)
    assert state.off_serves == "on"
    await world.provider.apply(share(1_000, STAFF))
    await seen(world, lambda one: (one.exposure, one.off_serves) == (1_000, "off"))


async def test_nothing_is_written_while_a_kill_holds_the_flag(world: FlagdWorld) -> None:
    await bring_to(world, "everyone")
    await world.provider.kill(KILL)
    before = world.path.read_bytes()
    for change in (share(1_000, STAFF), TURN_ON):
        with pytest.raises(Refused, match="checkout-v2 is killed") as caught:
            await world.provider.apply(change)
        assert caught.value.blocks == ("kill-1 is in force",)
    assert world.path.read_bytes() == before


async def test_many_kills_at_once_are_few_writes(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "flags.json"
    keys = [f"flag-{number}" for number in range(200)]
    path.write_text(json.dumps({"flags": {key: {**FRESH, "targeting": "on"} for key in keys}}, indent=2))
    files: list[Interrupted] = []

    def open_file(path: Path) -> Interrupted:
        files.append(Interrupted(path, lambda: None, 0))
        return files[-1]

    provider = opened(make_board(), open_file, files={FLAG.environment: str(path)})
    flags = [replace(FLAG, key=key) for key in keys]
    kills = [FlagKill(flag=flag, kill_id=f"kill-{flag.key}", serve=SERVE, comment="test") for flag in flags]
    await asyncio.gather(*(provider.kill(kill) for kill in kills))
    assert all(off(state) for state in (await provider.observe(flags)).values())
    assert sum(file.written for file in files) <= 3


async def test_whoever_stops_waiting_takes_back_what_was_not_begun(world: FlagdWorld) -> None:
    await canary(world)
    async with world.held_write() as held:
        first = asyncio.create_task(world.provider.apply(share(10_000, STAFF)))
        await held.reached.wait()
        second = asyncio.create_task(world.provider.apply(share(100_000, STAFF)))
        await asyncio.sleep(0)
        second.cancel()
        held.let_go.set()
        await first
    await world.provider.apply(TURN_ON)  # changes nothing, and comes after whatever was still waiting
    state = await observed(world.provider)
    assert isinstance(state, FlagState)
    assert state.exposure == 10_000


async def test_a_watcher_is_reminded_of_a_change_that_it_may_have_missed(world: FlagdWorld) -> None:
    await world.provider.apply(share(1_000))
    first = world.path.stat().st_mtime_ns

    async def reminded() -> bool:
        return world.path.stat().st_mtime_ns > first

    await until(reminded)


async def test_an_environment_without_a_file_is_said(world: FlagdWorld) -> None:
    staging = replace(FLAG, environment="staging")
    why = "the provider main has no file for the environment staging, it has production"
    assert await world.provider.observe([staging]) == {staging: Unknown(why)}
    assert await world.provider.objections(make_plan(flag={"environment": "staging"})) == [why]
    with pytest.raises(Refused, match="no file"):
        await world.provider.apply(replace(share(1_000), flag=staging))
    with pytest.raises(ProviderUnavailable, match="no file"):
        await world.provider.kill(replace(KILL, flag=staging))


async def test_what_is_in_the_way_is_said_before_it_matters(tmp_path: Path, world: FlagdWorld) -> None:
    provider: Any = world.provider
    await served(world)
    assert await provider.problems([FLAG.environment]) == []
    path = world.path.rename(tmp_path / "elsewhere.json")
    assert await provider.problems([FLAG.environment]) == [
        f"{world.path} cannot be read: No such file or directory"
    ]
    path.rename(world.path)
    world.path.write_text("{")
    assert "cannot be understood: it is not JSON" in (await provider.problems([FLAG.environment]))[0]


@pytest.mark.parametrize(
    ("files", "word"), [({}, "names no file"), ({"production": "flags.yaml"}, "end in .json")]
)
def test_settings_that_lead_nowhere_are_refused(files: dict[str, str], word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        build("main", FlagdProviderSettings(files=files), make_host(None, make_board()))


# — the sync service —


class Subscriber:
    """What a provider gets over gRPC: as many documents as there are, the latest as `shown`."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.came = asyncio.Event()

    @property
    def shown(self) -> Any:
        return json.loads(self.texts[-1]) if self.texts else None

    async def until(self, wanted: Callable[[Any], bool]) -> Any:
        async with asyncio.timeout(SECONDS):
            while self.shown is None or not wanted(self.shown):
                self.came.clear()
                await self.came.wait()
        return self.shown


def text_of(message: bytes) -> str:
    begin = 1
    while message[begin] & 128:
        begin += 1
    return message[begin + 1 :].decode()


@asynccontextmanager
async def subscribed(address: str, *, selector: str = "", header: str = "") -> AsyncIterator[Subscriber]:
    subscriber = Subscriber()
    async with grpc.aio.insecure_channel(address) as channel:
        ask = channel.unary_stream(f"/{SERVICE}/SyncFlags")
        request = field(1, b"an application") + (field(2, selector.encode()) if selector else b"")
        metadata = (("flagd-selector", header),) if header else ()

        async def listen() -> None:
            async for message in ask(request, metadata=metadata, wait_for_ready=True):
                subscriber.texts.append(text_of(message))
                subscriber.came.set()

        listening = asyncio.create_task(listen())
        try:
            yield subscriber
        finally:
            listening.cancel()
            await asyncio.wait([listening])


@asynccontextmanager
async def served_to(world: FlagdWorld) -> AsyncIterator[Subscriber]:
    async with subscribed(world.sync_bind) as subscriber:
        await subscriber.until(lambda _: True)
        yield subscriber


async def served(world: FlagdWorld) -> None:
    async with served_to(world):
        pass


def targeting(document: Any) -> Any:
    return document["flags"][FLAG.key].get("targeting")


async def test_a_subscriber_gets_each_document_exactly_as_it_is_in_the_file(world: FlagdWorld) -> None:
    async with served_to(world) as subscriber:
        assert subscriber.texts[-1] == world.path.read_text()
        await bring_to(world, "everyone")
        await subscriber.until(lambda one: targeting(one) is not None and "beta" in str(targeting(one)))
        assert subscriber.texts[-1] == world.path.read_text()
        await world.edit(Edit.TURNED_OFF)
        await subscriber.until(lambda one: targeting(one) is None)
        assert subscriber.texts[-1] == world.path.read_text()


async def test_a_kill_is_served_at_once_while_the_file_cannot_be_written_and_until_it_is_released(
    world: FlagdWorld,
) -> None:
    await bring_to(world, "everyone")
    async with served_to(world) as subscriber:
        await subscriber.until(targeting)
        async with world.fault(Fault.DOWN):
            with pytest.raises(ProviderUnavailable):
                await world.provider.kill(KILL)
            await subscriber.until(lambda one: targeting(one) is None)
            assert "neighbour" in subscriber.shown["flags"]
        await world.edit(Edit.TURNED_ON)
        await world.edit(Edit.RAISED)
        await asyncio.sleep(1.0)  # twice as long as it takes to see what people wrote
        assert targeting(subscriber.shown) is None
        await world.provider.kill(KILL)
        await world.provider.settle_kill(KILL)
        await world.provider.forget_kill(KILL)
        await bring_to(world, "canary")
        await subscriber.until(targeting)


async def test_a_broken_file_changes_nothing_for_subscribers_but_a_kill_does(world: FlagdWorld) -> None:
    await bring_to(world, "everyone")
    async with served_to(world) as subscriber:
        await subscriber.until(targeting)
        world.path.write_text('{"flags": {')
        async with served_to(world) as newcomer:
            assert targeting(newcomer.shown)
        with pytest.raises(ProviderUnavailable):
            await world.provider.kill(KILL)
        await subscriber.until(lambda one: targeting(one) is None)


async def test_after_a_restart_a_kill_that_never_reached_the_file_is_served_killed(
    world: FlagdWorld, opened: Open
) -> None:
    await bring_to(world, "everyone")
    board = make_board()
    board.hold_down(FLAG, KILL.kill_id, SERVE)
    address = f"127.0.0.1:{free_port()}"
    opened(board, files={FLAG.environment: str(world.path)}, sync_bind=address)
    async with subscribed(address) as subscriber:
        await asyncio.sleep(1.2)
        assert subscriber.texts == [], "nobody knows yet which kills there are"
        board.load([], [])
        await subscriber.until(lambda _: True)
        assert [targeting(json.loads(text)) for text in subscriber.texts] == [None]
        assert targeting(json.loads(world.path.read_text()))


async def test_a_kill_of_a_flag_of_the_same_key_elsewhere_changes_nothing_here(world: FlagdWorld) -> None:
    await bring_to(world, "everyone")
    provider: Any = world.provider
    provider._board.hold_down(FlagRef(provider="main", environment="staging", key=FLAG.key), "kill-9", SERVE)
    async with served_to(world) as subscriber:
        assert targeting(subscriber.shown)


async def test_a_selector_names_the_environment_where_there_are_several(tmp_path: Path, opened: Open) -> None:
    files = {name: tmp_path / f"{name}.json" for name in ("production", "staging")}
    for name, path in files.items():
        path.write_text(json.dumps({"flags": {name: FRESH}}))
    board = make_board()
    board.load([], [])
    address = f"127.0.0.1:{free_port()}"
    opened(board, files={name: str(path) for name, path in files.items()}, sync_bind=address)
    for chosen in ({"selector": "staging"}, {"header": "staging"}, {"header": "environment=staging"}):
        async with subscribed(address, **chosen) as subscriber:
            assert list((await subscriber.until(lambda _: True))["flags"]) == ["staging"]
    async with grpc.aio.insecure_channel(address) as channel:
        for request, word in (
            (b"", "must name the environment"),
            (field(2, b"nowhere"), '"nowhere" selects no'),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(f"/{SERVICE}/FetchAllFlags")(request, wait_for_ready=True)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert word in str(caught.value.details())
            assert "there are production, staging" in str(caught.value.details())


class Hanging(FlagFile):
    """A disk that neither answers nor fails, from `hangs` on until `goes_on`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.hangs, self.goes_on = threading.Event(), threading.Event()

    def read(self) -> bytes:
        if self.hangs.is_set():
            assert self.goes_on.wait(60)
        return super().read()


async def test_a_disk_that_hangs_holds_up_neither_a_kill_nor_another_environment(
    tmp_path: Path, opened: Open
) -> None:
    paths = {name: tmp_path / f"{name}.json" for name in ("production", "staging")}
    for path in paths.values():
        path.write_text(json.dumps({"flags": {FLAG.key: {**FRESH, "targeting": {"if": [True, "on", "off"]}}}}))
    files: dict[str, Hanging] = {}

    def open_file(path: Path) -> Hanging:
        return files.setdefault(path.stem, Hanging(path))

    board = make_board()
    board.load([], [])
    address = f"127.0.0.1:{free_port()}"
    provider = opened(board, open_file, files={name: str(path) for name, path in paths.items()}, sync_bind=address)
    async with (
        subscribed(address, selector="production") as here,
        subscribed(address, selector="staging") as there,
    ):
        await here.until(targeting)
        await there.until(targeting)
        files["production"].hangs.set()
        killing = asyncio.create_task(provider.kill(KILL))
        await here.until(lambda one: targeting(one) is None)
        paths["staging"].write_text(json.dumps({"flags": {FLAG.key: FRESH}}))
        await there.until(lambda one: targeting(one) is None)
        assert not killing.done()
        files["production"].goes_on.set()
        assert await killing == ["r1"]


async def test_all_flags_can_be_fetched_once_and_metadata_is_there_and_empty(world: FlagdWorld) -> None:
    async with grpc.aio.insecure_channel(world.sync_bind) as channel:
        await served(world)
        fetched = await channel.unary_unary(f"/{SERVICE}/FetchAllFlags")(b"")
        assert text_of(fetched) == world.path.read_text()
        assert await channel.unary_unary(f"/{SERVICE}/GetMetadata")(b"") == b"\x12\x00"


async def test_one_subscriber_too_many_is_turned_away_until_another_leaves(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "STREAMS", 2)
    path = tmp_path / "flags.json"
    path.write_text(json.dumps({"flags": {FLAG.key: FRESH}}))
    board = make_board()
    board.load([], [])
    address = f"127.0.0.1:{free_port()}"
    opened(board, files={"production": str(path)}, sync_bind=address)
    async with grpc.aio.insecure_channel(address) as channel:
        fetch = channel.unary_unary(f"/{SERVICE}/FetchAllFlags")
        async with subscribed(address) as first, subscribed(address) as second:
            await first.until(lambda _: True)
            await second.until(lambda _: True)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await fetch(b"")
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

        async def let_in() -> bool:
            try:
                return bool(await fetch(b""))
            except grpc.aio.AioRpcError:
                return False

        await until(let_in)


async def test_flags_that_were_never_read_are_unavailable_and_not_empty(
    world: FlagdWorld, tmp_path: Path, opened: Open
) -> None:
    board = make_board()
    board.load([], [])
    address = f"127.0.0.1:{free_port()}"
    opened(board, files={"production": str(tmp_path / "later.json")}, sync_bind=address)
    async with grpc.aio.insecure_channel(address) as channel, subscribed(address) as subscriber:
        with pytest.raises(grpc.aio.AioRpcError, match="not loaded yet"):
            await channel.unary_unary(f"/{SERVICE}/FetchAllFlags")(b"", wait_for_ready=True)
        assert subscriber.texts == []
        world.path.rename(tmp_path / "later.json")
        assert FLAG.key in (await subscriber.until(lambda _: True))["flags"]


async def test_a_request_that_makes_no_sense_asks_for_the_only_environment(world: FlagdWorld) -> None:
    await served(world)
    async with grpc.aio.insecure_channel(world.sync_bind) as channel:
        for request in (b"\xff", b"\x12\xff\xff\xff", b"\x08\x01", b"\x0a\x7fshort"):
            fetched = await channel.unary_unary(f"/{SERVICE}/FetchAllFlags")(request)
            assert text_of(fetched) == world.path.read_text()


async def test_an_address_that_is_taken_is_a_problem_and_not_the_end(world: FlagdWorld, opened: Open) -> None:
    await served(world)
    other = opened(make_board(), files={FLAG.environment: str(world.path)}, sync_bind=world.sync_bind)

    async def told() -> bool:
        return "cannot listen" in " ".join(await other.problems([FLAG.environment]))

    await until(told)
    await other.apply(share(1_000))
