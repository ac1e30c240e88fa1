"""A live LaunchDarkly account as the world of a provider: its flag `checkout-v2`, put back before every test.

Faults come from a door in front of its REST API; its stream is its own.
"""

import os
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiohttp
from msgspec.structs import replace

from controller.domain.flag import FlagChange, FlagKill, Observation, ProviderLimits
from controller.domain.plan import FlagRef, RolloutPlan
from controller.providers.host import Provider
from controller.settings import LaunchDarklyProviderSettings
from tests.contracts.launchdarkly_world import started
from tests.contracts.provider_cases import seen
from tests.contracts.provider_world import FLAG, Beyond, Edit, Fault, HeldWrite, Knowledge
from tests.support.http_faults import FaultyDoor, Request

TAG = "rampart-contract"
VARIABLES = {
    "token": "RAMPART_TEST_LD_API_TOKEN",
    "project": "RAMPART_TEST_LD_PROJECT",
    "environment": "RAMPART_TEST_LD_ENVIRONMENT",
    "sdk_key": "RAMPART_TEST_LD_SDK_KEY",
}
CANNOT: dict[Beyond, str] = {
    Edit.RENAMED: "the key of a flag at LaunchDarkly never changes; its name may, and nothing goes by that",
    Fault.DOWN: "the stream of a live account cannot be cut from here",
    Knowledge.WHO: "one token makes our changes and those beside them",
}
Json = dict[str, Any]


class Account(NamedTuple):
    """`base_uri` and `stream_uri` may be those of the EU or of the federal instance."""

    token: str
    project: str
    environment: str
    sdk_key: str
    base_uri: str = "https://app.launchdarkly.com"
    stream_uri: str = "https://stream.launchdarkly.com"

    @classmethod
    def given(cls) -> Self | str:
        """By environment variables, or what is missing in one sentence."""
        missing = [name for name in VARIABLES.values() if not os.environ.get(name)]
        if missing:
            return f"needs a LaunchDarkly account: set {', '.join(missing)} (docs/providers/launchdarkly.md)"
        given = {field: os.environ[name] for field, name in VARIABLES.items()}
        for field in ("base_uri", "stream_uri"):
            if address := os.environ.get(f"RAMPART_TEST_LD_{field.upper()}"):
                given[field] = address
        return cls(**given)


class Elsewhere:
    """A provider whose environment has another name than the contract's."""

    def __init__(self, provider: Provider, environment: str) -> None:
        self._provider = provider
        self._environment = environment

    def _there(self, flag: FlagRef) -> FlagRef:
        return replace(flag, environment=self._environment) if flag.environment == FLAG.environment else flag

    @property
    def limits(self) -> ProviderLimits:
        return self._provider.limits

    async def objections(self, plan: RolloutPlan) -> Sequence[str]:
        spec = replace(plan.spec, flag=self._there(plan.spec.flag))
        return await self._provider.objections(replace(plan, spec=spec))

    async def observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        there = {flag: self._there(flag) for flag in flags}
        states = await self._provider.observe(set(there.values()))
        return {flag: states[other] for flag, other in there.items()}

    async def apply(self, change: FlagChange) -> None:
        await self._provider.apply(replace(change, flag=self._there(change.flag)))

    async def kill(self, kill: FlagKill) -> Sequence[str]:
        return await self._provider.kill(replace(kill, flag=self._there(kill.flag)))

    async def settle_kill(self, kill: FlagKill) -> None:
        await self._provider.settle_kill(replace(kill, flag=self._there(kill.flag)))

    async def forget_kill(self, kill: FlagKill) -> None:
        await self._provider.forget_kill(replace(kill, flag=self._there(kill.flag)))

    async def close(self) -> None:
        """Whoever started it closes it."""


class Dashboard:
    """What a person could do at LaunchDarkly's own pages, by its REST API."""

    def __init__(self, account: Account, session: aiohttp.ClientSession) -> None:
        self._account = account
        self._session = session
        self._url = f"{account.base_uri}/api/v2/flags/{account.project}/{FLAG.key}"
        self._headers = {"Authorization": account.token, "LD-API-Version": "20240415"}

    async def flag(self) -> Json:
        query = {"env": self._account.environment}
        async with self._session.get(self._url, params=query, headers=self._headers) as answer:
            return await self._answer(answer)

    async def config(self) -> Json:
        found: Json = (await self.flag())["environments"][self._account.environment]
        return found

    async def ids(self) -> dict[str, str]:
        return {one["name"]: one["_id"] for one in (await self.flag())["variations"]}

    async def patch(self, *instructions: Json) -> None:
        content = "application/json; domain-model=launchdarkly.semanticpatch"
        body = {
            "environmentKey": self._account.environment,
            "comment": "beside Rampart: its contract suite",
            "instructions": list(instructions),
        }
        headers = self._headers | {"Content-Type": content}
        async with self._session.patch(self._url, json=body, headers=headers) as answer:
            await self._answer(answer)

    async def swap_order(self) -> None:
        rollout = (await self.config())["fallthrough"]["rollout"]
        swapped = {"rollout": rollout | {"variations": rollout["variations"][::-1]}}
        path = f"/environments/{self._account.environment}/fallthrough"
        body = [{"op": "replace", "path": path, "value": swapped}]
        async with self._session.patch(self._url, json=body, headers=self._headers) as answer:
            await self._answer(answer)

    async def put_back(self) -> None:
        """Off, nobody exposed, nothing foreign. Only a flag that was given to us by its tag."""
        flag = await self.flag()
        assert TAG in flag.get("tags", []), f"the flag {FLAG.key} lacks the tag {TAG}: is it one to test with?"
        assert {one.get("name") for one in flag["variations"]} == {"on", "off"}, "variations are called on and off"
        if flag["archived"]:
            await self.patch({"kind": "restoreFlag"})
        ids = await self.ids()
        await self.patch(
            {"kind": "turnFlagOff"},
            {"kind": "updateOffVariation", "variationId": ids["off"]},
            {"kind": "updateFallthroughVariationOrRollout", "variationId": ids["off"]},
            {"kind": "replaceRules", "rules": []},
        )

    async def _answer(self, answer: aiohttp.ClientResponse) -> Json:
        text = await answer.text()
        assert answer.status == 200, f"LaunchDarkly answered {answer.status}: {text}"
        found: Json = await answer.json()
        return found


class LiveWorld:
    patience = 45.0
    """Windows of rate limits are ten seconds long."""

    def __init__(
        self,
        account: Account,
        settings: LaunchDarklyProviderSettings,
        provider: Provider,
        door: FaultyDoor,
        dashboard: Dashboard,
    ) -> None:
        self._account = account
        self._settings = settings
        self.provider = Elsewhere(provider, account.environment)
        self._door = door
        self._dashboard = dashboard

    @asynccontextmanager
    async def another(self) -> AsyncIterator[Elsewhere]:
        async with started(self._settings) as provider:
            yield Elsewhere(provider, self._account.environment)

    async def edit(self, edit: Edit) -> None:
        patch, ids = self._dashboard.patch, await self._dashboard.ids()
        match edit:
            case Edit.RAISED:
                half = {ids["on"]: 50_000, ids["off"]: 50_000}
                await patch({"kind": "updateFallthroughVariationOrRollout", "rolloutWeights": half})
            case Edit.TURNED_ON:
                await patch({"kind": "turnFlagOn"})
            case Edit.TURNED_OFF:
                await patch({"kind": "turnFlagOff"})
            case Edit.SECOND_RULE:
                clause = {"contextKind": "user", "attribute": "team", "op": "in", "values": ["insiders"]}
                clauses = [clause | {"negate": False}]
                await patch({"kind": "addRule", "variationId": ids["on"], "clauses": clauses})
            case Edit.SWAPPED:
                await self._dashboard.swap_order()
            case Edit.ARCHIVED:
                await patch({"kind": "archiveFlag"})
            case Edit.RENAMED:
                raise AssertionError(CANNOT[edit])

    @asynccontextmanager
    async def fault(self, fault: Fault) -> AsyncIterator[None]:
        async with self._door.fault(fault):
            yield

    @asynccontextmanager
    async def held_write(self) -> AsyncIterator[HeldWrite]:
        async with self._door.held_write() as held:
            yield held

    async def everything(self) -> Any:
        config = await self._dashboard.config()
        return {name: config[name] for name in ("on", "fallthrough", "rules", "offVariation", "version")}


def is_write(request: Request) -> bool:
    return request.writes and "dryRun=true" not in request.path


def reset_header(seconds: float) -> Mapping[str, str]:
    return {"X-Ratelimit-Reset": str(int((time.time() + seconds) * 1000)), "X-Ratelimit-Global-Remaining": "0"}


@asynccontextmanager
async def live_world(account: Account, folder: Path, **fields: Any) -> AsyncIterator[LiveWorld]:
    (folder / "token").write_text(account.token)
    (folder / "sdk-key").write_text(account.sdk_key)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        dashboard = Dashboard(account, session)
        await dashboard.put_back()
        door = FaultyDoor(account.base_uri, writes=is_write, reset_headers=reset_header)
        await stack.enter_async_context(door.open())
        settings = LaunchDarklyProviderSettings(
            project=account.project,
            api_token_file=str(folder / "token"),
            sdk_key_files={account.environment: str(folder / "sdk-key")},
            base_uri=door.url,
            stream_uri=account.stream_uri,
            **({"settle_seconds": 15.0, "poll_seconds": 2.0, "throttled_seconds": 2.0} | fields),
        )
        provider = await stack.enter_async_context(started(settings))
        world = LiveWorld(account, settings, provider, door, dashboard)
        await seen(world)
        yield world
