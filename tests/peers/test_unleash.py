"""The unleash provider against a real Unleash server: the contract, and what UnleashClient makes of our writes."""

import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from controller.domain.flag import FlagState, Unknown
from controller.domain.plan import FlagRef
from controller.errors import ProviderUnavailable, Refused, SettingsError
from controller.settings import UnleashProviderSettings
from tests.contracts.provider_cases import KILL, STAFF, TURN_ON, bring_to, observed, share
from tests.contracts.provider_world import FLAG, PERSON, SERVE, Edit, Fault
from tests.contracts.providers_contract import ProviderContract
from tests.contracts.unleash_world import CANNOT, Installation, UnleashWorld, make_provider, opened
from tests.support.http_faults import Request
from tests.support.postgres import Server, postgres_server
from tests.support.repository import ROOT
from tests.support.rollouts import make_plan
from tests.support.server import free_port
from tests.support.unleash import ADMIN, EDITOR, SDK_TOKEN, VIEWER, Flag, hire, person, running_unleash

__all__ = ["postgres_server"]

pytestmark = pytest.mark.timeout(240)

PYTHON = ROOT / ".peers" / "python" / "bin" / "python"
APPLICATION = ROOT / "tests" / "peers" / "unleash" / "application.py"
USERS = 20_000
OFF_BY = 0.015
"""More than four standard deviations at one half."""
SHARES = (1_000, 10_000, 50_000, 100_000)
ROUNDS = 10
SECONDS = 15.0
"""Unleash looks once a second for what its SDKs are told, and the SDK asks once a second here."""
EVERYBODY = {"rollout": "100", "stickiness": "userId", "groupId": "theirs"}


@pytest.fixture(scope="module")
def installation(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("unleash")
    dsn = asyncio.run(postgres_server.create_database())
    with running_unleash(folder, dsn) as url:
        token_file = folder / "rampart-token"
        token_file.write_text(asyncio.run(hire(url, "rampart", EDITOR)) + "\n")
        yield Installation(url, token_file, asyncio.run(hire(url, PERSON, ADMIN)))


@pytest.fixture
async def world(installation: Installation) -> AsyncIterator[UnleashWorld]:
    async with person(installation.url, installation.person_token) as dana, opened(installation, dana) as opened_:
        yield opened_


class TestUnleash(ProviderContract):
    kind = UnleashProviderSettings
    cannot = CANNOT


# — what an application with Unleash's SDK is served —


class Application:
    """One process with a real SDK in it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def answer(self) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            line = await self._process.stdout.readline()
        assert line, "the application ended"
        return json.loads(line)

    async def ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"flag": FLAG.key, **question}).encode() + b"\n")
        return await self.answer()

    async def exposed(self) -> set[int]:
        return set(await self.ask(ask="exposed", users=USERS))

    async def comes_to_share(self, exposure: int) -> set[int]:
        """Who is exposed, once these are about as many as ordered, and the same when asked again."""
        deadline = time.monotonic() + SECONDS
        before: set[int] = set()
        while True:
            who = await self.exposed()
            if who == before and who and abs(len(who) / USERS - exposure / 100_000) < OFF_BY:
                return who
            assert time.monotonic() < deadline, f"{len(who)} of {USERS} are exposed"
            before = who

    async def comes_to(self, value: bool, **context: Any) -> float:
        """When it was first served, on the monotonic clock."""
        seen = await self.ask(ask="until", context=context, value=value, seconds=SECONDS)
        assert seen is not None, f"{context} was not served {value} within {SECONDS:g} s"
        return float(seen)

    async def serves(self, **context: Any) -> bool:
        return bool(await self.ask(ask="serves", context=context))


@asynccontextmanager
async def running(url: str, cache: Path) -> AsyncIterator[Application]:
    process = await asyncio.create_subprocess_exec(
        PYTHON, APPLICATION, url, SDK_TOKEN, cache,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24,
    )  # fmt: skip
    application = Application(process)
    try:
        assert await application.answer() == "ready"
        yield application
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def application(
    installation: Installation, world: UnleashWorld, tmp_path: Path
) -> AsyncIterator[Application]:
    async with running(installation.url, tmp_path) as one:
        yield one


def tell(figures: str) -> None:
    """For whoever runs this with -s."""
    sys.stdout.write(f"{figures}\n")


async def test_every_share_holds_the_smaller_ones_and_going_back_serves_the_same_people(
    world: UnleashWorld, application: Application
) -> None:
    await bring_to(world, "canary")
    reached = []
    for exposure in SHARES:
        await world.provider.apply(share(exposure))
        reached.append(await application.comes_to_share(exposure))
    assert all(smaller < larger for smaller, larger in pairwise(reached))
    tell(f"shares of {USERS}: {[len(who) / USERS for who in reached]}")
    await world.provider.apply(share(10_000))
    assert await application.comes_to_share(10_000) == reached[1]


async def test_a_kill_reaches_the_sdk_at_its_next_look(world: UnleashWorld, application: Application) -> None:
    await bring_to(world, "everyone")
    calls, arrivals = [], []
    for number in range(ROUNDS):
        await world.provider.apply(share(100_000))
        await world.provider.apply(TURN_ON)
        await application.comes_to(True, userId="user-1")
        # Just after a look of the SDK: the kills are spread over the time until the next one.
        await asyncio.sleep(number / ROUNDS)
        began = time.monotonic()
        await world.provider.kill(KILL)
        calls.append(time.monotonic() - began)
        arrivals.append(await application.comes_to(False, userId="user-1") - began)
    assert await application.exposed() == set()
    for what, seconds in (("call", calls), ("arrival", arrivals)):
        tell(f"kill, {what}: median {statistics.median(seconds):.3f} s, longest {max(seconds):.3f} s of {ROUNDS}")
    assert statistics.median(arrivals) < 4.0


async def test_an_audience_rule_serves_whom_it_names_and_nobody_else(
    world: UnleashWorld, application: Application
) -> None:
    await world.provider.apply(share(0, STAFF))
    await world.provider.apply(TURN_ON)
    staff = {"userId": "user-1", "properties": {"email": "dana@acme.example"}}
    await application.comes_to(True, **staff)
    assert not await application.serves(userId="user-1", properties={"email": "dana@acme.example.org"})
    assert not await application.serves(userId="user-1")
    await world.provider.apply(share(0))
    await application.comes_to(False, **staff)


async def test_a_killed_flag_that_a_person_turns_on_again_exposes_nobody_through_us(
    world: UnleashWorld, application: Application
) -> None:
    await bring_to(world, "everyone")
    await application.comes_to(True, userId="user-1")
    await world.edit(Edit.SECOND_RULE)
    await world.provider.kill(KILL)
    await application.comes_to(False, userId="user-1")
    await world.edit(Edit.TURNED_ON)
    await application.comes_to(True, userId="user-1", properties={"team": "insiders"})
    assert await application.exposed() == set()


async def test_a_kill_that_leaves_the_flag_on_leaves_the_targeting_of_others(
    world: UnleashWorld, application: Application
) -> None:
    await bring_to(world, "everyone")
    await world.edit(Edit.SECOND_RULE)
    await application.comes_to(True, userId="user-1")
    await world.provider.kill(replace(KILL, serve=replace(SERVE, kill="fallthrough")))
    await application.comes_to(False, userId="user-1")
    assert await application.exposed() == set()
    assert await application.serves(userId="user-1", properties={"team": "insiders"})


# — what people do beside us —


@pytest.mark.parametrize(
    ("strategy", "exposure"),
    [
        ({"name": "default", "title": "all"}, 100_000),
        ({"title": "more", "parameters": {**EVERYBODY, "rollout": "30"}}, 31_000),
        ({"title": "same hash", "parameters": {**EVERYBODY, "rollout": "30", "groupId": FLAG.key}}, 30_000),
    ],
)
async def test_a_second_strategy_counts_as_exposure_and_is_told_with_its_author(
    world: UnleashWorld, strategy: dict[str, Any], exposure: int
) -> None:
    await bring_to(world, "canary")
    await world.flag.add(**strategy)
    state = await observed(world.provider)
    assert isinstance(state, FlagState)
    assert (state.exposure, len(state.foreign), state.changed_by) == (exposure, 1, PERSON)


async def test_a_flag_without_a_strategy_of_ours_is_not_turned_on(world: UnleashWorld) -> None:
    """Unleash would give it one for everybody."""
    for prepare in (
        bring_to(world, "fresh"),
        world.flag.add(title="rampart", parameters=EVERYBODY, disabled=True),
    ):
        await prepare
        with pytest.raises(Refused, match="no enabled strategy of ours"):
            await world.provider.apply(TURN_ON)
    state = await observed(world.provider)
    assert isinstance(state, FlagState)
    assert (state.enabled, len(await world.flag.strategies())) == (False, 1)


async def test_a_share_that_unleash_has_no_number_for_is_refused(world: UnleashWorld) -> None:
    before = await world.everything()
    with pytest.raises(Refused, match="whole percents"):
        await world.provider.apply(share(500))
    assert await world.everything() == before


async def test_a_change_that_is_refused_half_way_is_not_called_unwritten(world: UnleashWorld) -> None:
    await bring_to(world, "canary")
    async with world.held_write() as held:
        raising = asyncio.create_task(world.provider.apply(share(50_000)))
        await held.reached.wait()
        async with world.fault(Fault.CONFLICT):
            held.let_go.set()
            with pytest.raises(ProviderUnavailable, match="only partly written") as raised:
                await raising
    assert not raised.value.not_applied
    state = await observed(world.provider)
    assert isinstance(state, FlagState)
    assert (state.exposure, state.audience) == (1_000, ())


async def test_variants_that_people_hang_on_our_strategy_stay(world: UnleashWorld) -> None:
    await bring_to(world, "canary")
    variant = {"name": "blue", "weight": 1000, "weightType": "variable", "stickiness": "userId"}
    await world.flag.set("rampart", "/variants", [variant])
    await world.provider.apply(share(50_000, STAFF))
    (ours,) = [one for one in await world.flag.strategies() if one["title"] == "rampart"]
    assert (ours["variants"][0]["name"], ours["parameters"]["rollout"]) == ("blue", "50")


# — many flags —


@asynccontextmanager
async def many_flags(world: UnleashWorld, count: int) -> AsyncIterator[list[FlagRef]]:
    """All at 10 % and on, with something of other people's on every third."""
    refs = [replace(FLAG, key=f"many-{number}") for number in range(count)]
    flags = [Flag(world.someone, ref.key) for ref in refs]
    for number, (ref, flag) in enumerate(zip(refs, flags, strict=True)):
        await flag.make()
        await world.provider.apply(replace(share(10_000, STAFF), flag=ref))
        await world.provider.apply(replace(TURN_ON, flag=ref))
        if number % 3 == 0:
            await flag.add(title="theirs", parameters=EVERYBODY, segments=[await segment(world)])
    yield refs
    for flag in flags:
        await flag.archive()


async def segment(world: UnleashWorld) -> int:
    found = (await world.someone.do("GET", "segments"))["segments"]
    if found:
        return int(found[0]["id"])
    constraint = {"contextName": "team", "operator": "IN", "values": ["insiders"]}
    made = await world.someone.do("POST", "segments", {"name": "insiders", "constraints": [constraint]})
    return int(made["id"])


def asked(requests: Sequence[Request]) -> Counter[str]:
    return Counter(request.path.split("?")[0].rsplit("/", 1)[-1] for request in requests)


async def test_many_flags_are_read_with_one_request_and_look_as_they_do_one_by_one(world: UnleashWorld) -> None:
    async with many_flags(world, 12) as refs:
        missing = replace(FLAG, key="nobody-made-this")
        del world.door.requests[:]
        together = dict(await world.provider.observe([*refs, missing]))
        assert asked(world.door.requests) == {"playground": 1, "events": 1}
        assert isinstance(together.pop(missing), Unknown)
        one_by_one = {ref: (await world.provider.observe([ref]))[ref] for ref in refs}
        assert together == one_by_one
        assert [len(state.foreign) for state in together.values()] == [1, 0, 0] * 4  # type: ignore[union-attr]
        assert [state.changed_by for state in together.values()][:2] == [PERSON, "rampart"]  # type: ignore[union-attr]
        del world.door.requests[:]
        await world.provider.observe(refs)
        assert asked(world.door.requests) == {"playground": 1}, "who changed what is asked only when it looks new"


async def test_flags_killed_together_are_turned_off_by_one_request(world: UnleashWorld) -> None:
    async with many_flags(world, 12) as refs:
        missing = replace(FLAG, key="nobody-made-this")
        del world.door.requests[:]
        began = time.monotonic()
        await asyncio.gather(*(world.provider.kill(replace(KILL, flag=ref)) for ref in refs))
        tell(f"12 kills at once: {time.monotonic() - began:.3f} s")
        assert asked(world.door.requests)["off"] == 1
        states = [one for one in (await world.provider.observe(refs)).values() if isinstance(one, FlagState)]
        assert [(one.enabled, one.exposure, one.audience) for one in states] == [(False, 0, ())] * 12
        results = await asyncio.gather(
            *(world.provider.kill(replace(KILL, flag=ref)) for ref in (refs[0], missing)), return_exceptions=True
        )
        assert results[0] == ["main"]
        assert "nobody-made-this" in str(results[1])


# — plans, tokens, addresses —


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"stages": [{"name": "first", "exposure": "0.5%", "bake": "5m"}]}, "stage first: Unleash takes whole"),
        ({"serve": {"rollout": "blue", "fallback": "green"}}, '"on", fallback: "off"'),
        ({"audience": {"bucketBy": "random"}}, "draws anew"),
        (
            {"audience": {"always": [{"name": "all", "match": {"id": {"in": [str(n) for n in range(251)]}}}]}},
            "lists 251 values",
        ),
    ],
)
async def test_what_unleash_cannot_do_is_told_when_a_plan_is_applied(
    world: UnleashWorld, spec: dict[str, Any], word: str
) -> None:
    (objection,) = await world.provider.objections(make_plan(**spec))
    assert word in objection
    assert await world.provider.objections(make_plan(mode="observe", **spec)) == []


async def test_a_plan_that_would_shuffle_who_is_exposed_is_told_so(world: UnleashWorld) -> None:
    await world.flag.add(title="rampart", parameters={"rollout": "25", "stickiness": "default", "groupId": "x"})
    (objection,) = await world.provider.objections(make_plan())
    assert "write bucketBy: default" in objection
    assert await world.provider.objections(make_plan(audience={"bucketBy": "default"})) == []


async def test_a_plan_for_a_flag_that_others_already_serve_is_told_so(world: UnleashWorld) -> None:
    """Found while it is off: turned on, it would serve everybody at once."""
    insiders = {"contextName": "team", "operator": "IN", "values": ["insiders"]}
    await world.flag.add(title="some", parameters=EVERYBODY, constraints=[insiders])
    assert await world.provider.objections(make_plan()) == []
    await world.flag.add(title="all", parameters=EVERYBODY)
    (objection,) = await world.provider.objections(make_plan())
    assert 'another strategy "all" (flexibleRollout): 100 % for whoever comes' in objection
    await world.flag.set("all", "/disabled", True)
    assert await world.provider.objections(make_plan()) == []


async def test_a_reader_may_observe_and_is_told_what_it_may_not(
    installation: Installation, world: UnleashWorld, tmp_path: Path
) -> None:
    await bring_to(world, "canary")
    token_file = tmp_path / "token"
    token_file.write_text(await hire(installation.url, "viewer", VIEWER))
    provider = make_provider(installation, api_token_file=str(token_file))
    problems = await provider.problems(["production"])
    assert len(problems) == 4
    assert problems[0] == (
        "the token may not turn flags on and off in production (UPDATE_FEATURE_ENVIRONMENT); "
        "it is enough for plans with mode: observe"
    )
    assert await observed(provider) == await observed(world.provider)
    with pytest.raises(Refused, match="_FEATURE_STRATEGY"):
        await provider.apply(share(10_000))
    await provider.close()


async def test_what_keeps_it_from_unleash_is_said(installation: Installation, tmp_path: Path) -> None:
    async def problem(**settings: Any) -> str:
        provider = make_provider(installation, **settings)
        problems = await provider.problems(["production"])
        await provider.close()
        assert len(problems) <= 1
        return "".join(problems)

    def token(text: str) -> str:
        file = tmp_path / "token"
        file.write_text(text)
        return str(file)

    assert await problem() == ""
    assert "does not know the token in" in await problem(api_token_file=token("nonsense"))
    assert "HTTP 403" in await problem(api_token_file=token(SDK_TOKEN))
    assert "cannot read the secret file" in await problem(api_token_file=str(tmp_path / "missing"))
    assert "cannot connect" in await problem(url=f"http://127.0.0.1:{free_port()}")
    assert 'has no environment "elsewhere"' in await problem(environments={"production": "elsewhere"})
    with pytest.raises(SettingsError, match=r"providers.main.url must be an http or https address"):
        await problem(url="unleash.example")


async def test_environments_may_be_called_otherwise_at_unleash(
    installation: Installation, world: UnleashWorld
) -> None:
    provider = make_provider(installation, environments={"live": "production"})
    live = replace(FLAG, environment="live")
    await provider.apply(replace(share(10_000), flag=live))
    assert (await provider.observe([live]))[live] == await observed(world.provider)
    nowhere = replace(FLAG, environment="staging")
    state = (await provider.observe([nowhere]))[nowhere]
    assert isinstance(state, Unknown)
    assert 'no environment "staging"' in state.why
    await provider.close()
