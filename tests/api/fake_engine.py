"""An engine for tests of the API: it obeys `controller/api/engine.py` and keeps a world to look at."""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
from msgspec.structs import replace

from controller.access import Actor, TokenBook, digest
from controller.api import create_app
from controller.domain.alerts import Alert, AlertOutcome, AlertResult
from controller.domain.catalogue import SCOPES, KillRecord, PeerAnswer, Replica, Scope, Token
from controller.domain.flag import Observation, Unknown
from controller.domain.plan import FlagRef, Serve
from controller.domain.status import (
    Check,
    Explanation,
    KilledAndNot,
    KillReceipt,
    KillStatus,
    NotKilled,
    PlanSummary,
    Raises,
    ReplicaStatus,
    RunReport,
    RunStatus,
    StageStatus,
)
from controller.errors import Conflict, NotFound, StoreUnavailable
from controller.freezebook import FreezeBook
from controller.kill_selection import KillSelector
from controller.lastknown import KnownFlag
from controller.ports import FlagProvider, NotificationStore, Store
from controller.preview import Observe
from controller.raised import RaisedBook
from controller.recent import Recent
from controller.registrar import Registrar
from controller.settings import Settings
from controller.store.memory import MemoryStore
from controller.store.memory_notifications import MemoryNotifications
from controller.triggers import TriggerBook

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
FLAG = FlagRef(provider="main", environment="production", key="checkout-v2")
STAGING_FLAG = FlagRef(provider="main", environment="staging", key="checkout-v2")

SERVE = Serve(rollout="on", fallback="off")
LABELS = {"tier": "1", "team": "checkout"}
PEER_SECRET = "of-all-replicas-0123456789"


class FakeClock:
    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed


class Gone:
    """A database that does not answer, whatever it is asked."""

    def __getattr__(self, _: str) -> Any:
        async def unanswered(*_: Any, **__: Any) -> None:
            raise StoreUnavailable("the database did not answer within 5 s")

        return unanswered


def run_status(plan: str, flag: FlagRef, phase: str = "progressing") -> RunStatus:
    return RunStatus(
        id=f"{plan}#1",
        plan=plan,
        flag=flag,
        phase=cast("Any", phase),
        mode="enforce",
        stage=0,
        stages=[
            StageStatus(
                name="canary",
                exposure=1000,
                state="current",
                bake_seconds=60.0,
                baked_seconds=1.0,
                needs_approval=False,
            )
        ],
        desired_exposure=1000,
        observed_exposure=1000,
        observed_enabled=True,
        observed_at=START,
        confirmed=True,
        reason="bake not over",
        blocks=[],
        next_exposure=None,
        next_in_seconds=None,
        rules=[],
        kills=[],
        plan_revision=1,
        author="dana",
        started_by="kim",
        created_at=START,
        ended_at=None,
        version=1,
    )


class FakeCommands:
    def __init__(self, engine: "FakeEngine") -> None:
        self.engine = engine
        self.states = {"checkout-v2": run_status("checkout-v2", FLAG)}
        self.log: list[tuple[str, str, str, str]] = []
        self.failure: Exception | None = None

    async def _command(self, verb: str, plan: str, actor: Actor, note: str, *scopes: Scope) -> RunStatus:
        status = await self.status(plan)
        if not any(actor.may(scope, status.flag.environment) for scope in scopes):
            actor.require(scopes[0], status.flag.environment)
        if self.failure:
            raise self.failure
        self.log.append((verb, plan, actor.name, note))
        self.states[plan] = replace(status, reason=f"{verb} by {actor.name}", version=status.version + 1)
        return self.states[plan]

    async def start(self, plan: str, actor: Actor, note: str) -> RunStatus:
        return await self._command("start", plan, actor, note, "operate")

    async def advance(self, plan: str, actor: Actor, note: str) -> RunStatus:
        return await self._command("advance", plan, actor, note, "operate")

    async def pause(self, plan: str, actor: Actor, note: str) -> RunStatus:
        return await self._command("pause", plan, actor, note, "operate", "kill")

    async def resume(self, plan: str, actor: Actor, note: str) -> RunStatus:
        return await self._command("resume", plan, actor, note, "operate")

    async def step_back(self, plan: str, actor: Actor, note: str) -> RunStatus:
        return await self._command("step_back", plan, actor, note, "operate", "kill")

    async def abandon(self, plan: str, actor: Actor, note: str) -> RunStatus:
        return await self._command("abandon", plan, actor, note, "operate")

    async def approve(self, plan: str, actor: Actor, note: str) -> RunStatus:
        return await self._command("approve", plan, actor, note, "approve")

    async def adopt(self, plan: str, actor: Actor, note: str) -> RunStatus:
        return await self._command("adopt", plan, actor, note, "operate")

    async def status(self, plan: str, run: int | None = None) -> RunStatus:
        await self.engine.store.plans()
        if plan not in self.states or run not in (None, 1):
            raise NotFound(f'no plan is called "{plan}"')
        return self.states[plan]

    async def summaries(self) -> list[PlanSummary]:
        await self.engine.store.plans()
        return [
            PlanSummary(
                plan=one.plan,
                flag=one.flag,
                revision=one.plan_revision,
                run=one.id,
                phase=one.phase,
                stage="1/1 canary",
                desired_exposure=one.desired_exposure,
                observed_exposure=one.observed_exposure,
                reason=one.reason,
                owner=one.owner,
                next_exposure=one.next_exposure,
                exposed_since=one.exposed_since,
                waits_for_approval=any(block.code == "approval" for block in one.blocks),
            )
            for one in self.states.values()
        ]

    async def take_over(self, key: str, environment: str | None, actor: Actor, note: str) -> RunStatus:
        return await self.start(key, actor, note)

    async def report(self, plan: str, run: int | None = None) -> RunReport:
        status = await self.status(plan, run)
        return RunReport(
            run=status.id, plan=plan, flag=status.flag, mode=status.mode, phase=status.phase, stages=[], lines=[]
        )

    async def explain(self, plan: str) -> Explanation:
        status = await self.status(plan)
        return Explanation(run=status.id, phase=status.phase, text=status.reason, blocks=[], rules=[])


class FakeKills:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.flags = [FLAG, STAGING_FLAG]
        self.in_force: dict[str, KillStatus] = {}
        self.confirms = True
        self.heard: list[KillRecord] = []

    def knows(self, flag: FlagRef) -> bool:
        return flag in self.flags

    def match(self, key: str, environment: str | None, provider: str | None) -> list[FlagRef]:
        found = [
            flag
            for flag in self.flags
            if flag.key == key and environment in (None, flag.environment) and provider in (None, flag.provider)
        ]
        if not found:
            raise NotFound(f'no plan and no flag is called "{key}"')
        return found

    async def kill(
        self, *, key: str, environment: str | None, provider: str | None, actor: Actor, reason: str
    ) -> list[KillReceipt]:
        flags = self.match(key, environment, provider)
        for flag in flags:
            actor.require("kill", flag.environment)
        return [self._accept(flag, actor, reason) for flag in flags]

    async def kill_flags(self, flags: Sequence[FlagRef], *, actor: Actor, reason: str) -> KilledAndNot:
        may = [flag for flag in flags if actor.may("kill", flag.environment)]
        refused = [NotKilled(flag=flag, why="lacks the scope") for flag in flags if flag not in may]
        return KilledAndNot(kills=[self._accept(flag, actor, reason) for flag in may], refused=refused)

    def _accept(self, flag: FlagRef, actor: Actor, reason: str) -> KillReceipt:
        now = self.clock.now()
        confirmed = now if self.confirms else None
        kill_id = f"kill-{len(self.in_force) + 1}"
        self.in_force[kill_id] = KillStatus(
            kill_id=kill_id, flag=flag, accepted_at=now, actor=actor.name, reason=reason, confirmed_at=confirmed
        )
        return KillReceipt(
            kill_id=kill_id,
            flag=flag,
            accepted_at=now,
            durable=True,
            provider_updated_at=confirmed,
            confirmed_at=confirmed,
            replicas=["replica-1"],
        )

    async def reset(
        self,
        *,
        key: str,
        environment: str | None,
        provider: str | None,
        kill_ids: Collection[str],
        actor: Actor,
        note: str,
    ) -> list[KillStatus]:
        for flag in self.match(key, environment, provider):
            actor.require("operate", flag.environment)
        unknown = sorted(set(kill_ids) - self.in_force.keys())
        if unknown:
            raise Conflict(f"{key} is not held by {', '.join(unknown)}")
        return [self.in_force.pop(kill_id) for kill_id in kill_ids]

    def active(self) -> list[KillStatus]:
        return list(self.in_force.values())

    def kills_of(self, flag: FlagRef) -> list[KillStatus]:
        return [one for one in self.in_force.values() if one.flag == flag]

    def receipts(self, flag: FlagRef) -> list[KillReceipt]:
        return [
            KillReceipt(
                kill_id=one.kill_id,
                flag=flag,
                accepted_at=one.accepted_at,
                durable=True,
                provider_updated_at=one.confirmed_at,
                confirmed_at=one.confirmed_at,
                replicas=["replica-1"],
            )
            for one in self.kills_of(flag)
        ]

    def known(self) -> list[KnownFlag]:
        return [KnownFlag(plan="checkout-v2", flag=FLAG, serve=SERVE, owner="team-checkout", labels=LABELS)]

    async def hear(self, records: Sequence[KillRecord]) -> PeerAnswer:
        self.heard += records
        return PeerAnswer(replica="replica-1", holds=tuple(record.kill.id for record in records))


class FakeAlerts:
    """Pauses what it is told of; `failure` is what it answers instead."""

    def __init__(self) -> None:
        self.received: list[tuple[Alert, Actor]] = []
        self.failure: AlertOutcome | None = None

    async def receive(self, alerts: Sequence[Alert], actor: Actor) -> list[AlertResult]:
        self.received += [(one, actor) for one in alerts]
        return [
            AlertResult(
                alert=one.name,
                fingerprint=one.fingerprint,
                outcome=self.failure or "paused",
                text=one.text,
                rollout="checkout-v2",
                environment="production",
                action="pause",
            )
            for one in alerts
        ]


class FakePeers:
    secret_digest = digest(PEER_SECRET)


class FakePresence:
    """What the store says at each check-in."""

    def __init__(self, engine: "FakeEngine") -> None:
        self.engine = engine
        self.obstacles: list[str] = []

    def raises(self) -> Raises:
        here = ReplicaStatus(name="replica-1", state="here")
        return Raises(allowed=not self.obstacles, database_answers=True, obstacles=self.obstacles, replicas=[here])

    async def check_in(self) -> None:
        roll = await self.engine.store.check_in(
            Replica(name="replica-1", version="1"), life="1", valid_seconds=5.0, remembered=0
        )
        self.obstacles = list(roll.obstacles)


def observing(providers: Mapping[str, FlagProvider]) -> Observe:
    """Asks each provider, and knows nothing of flags whose provider is not there."""

    async def observe(flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        answers: dict[FlagRef, Observation] = {}
        for flag in flags:
            provider = providers.get(flag.provider)
            answers |= await provider.observe([flag]) if provider else {flag: Unknown("no such provider")}
        return answers

    return observe


class FakeDoctor:
    """Everything is well; it remembers which plans were asked about."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def examine(self, plans: Collection[str] = ()) -> list[Check]:
        self.asked.append(list(plans))
        return [Check(name="database", state="ok", detail="answers in 1 ms")]

    async def send_test(self, actor: str) -> list[Check]:
        return [Check(name="channel oncall", state="ok", detail=f"took the test message of {actor}")]


class FakeEngine:
    """Real registrar, tokens and store; commands and kills are fakes. `store` may be replaced meanwhile."""

    def __init__(
        self,
        *,
        store: Store | None = None,
        settings: Settings | None = None,
        providers: Mapping[str, FlagProvider] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.clock = FakeClock()
        memory = MemoryStore(self.clock.monotonic)
        self.store = store or memory
        self.notifications: NotificationStore = MemoryNotifications(memory, self.clock.monotonic)
        self.tokens = TokenBook()
        self.commands = FakeCommands(self)
        self.killer = self.kill_ledger = self.killbook = self.kills = FakeKills(self.clock)
        self.alerts = FakeAlerts()
        self.peers = FakePeers()
        self.presence = FakePresence(self)
        self.doctor = FakeDoctor()
        self.recent = Recent()
        self.session_key = digest("of this installation")
        self.registrar = Registrar(
            self.store, providers or {}, self.settings, self.clock, observing(providers or {})
        )
        self.minted: dict[str, Token] = {}
        self.not_ready: list[str] = []
        self.sdk_keys_reloaded = 0
        self.freezebook = FreezeBook()
        self.triggers = TriggerBook()
        self.raised = RaisedBook(self.store, self.clock)

    def secret_of(
        self, *scopes: Scope, environments: tuple[str, ...] = (), expires_in: float | None = None
    ) -> str:
        """A token of these scopes, known to the memory only."""
        name = "-".join([*scopes, *environments])
        token = Token(
            name=name,
            digest=digest(f"rampart_{name}"),
            scopes=scopes,
            environments=environments,
            created_at=START,
            created_by="test",
            expires_at=START + timedelta(seconds=expires_in) if expires_in is not None else None,
        )
        self.minted[name] = token
        self.tokens.load([*self.tokens.all(), token])
        return f"rampart_{name}"

    def headers(self, *scopes: Scope, environments: tuple[str, ...] = ()) -> dict[str, str]:
        """Of a token with these scopes, or with all of them."""
        return {"Authorization": f"Bearer {self.secret_of(*(scopes or SCOPES), environments=environments)}"}

    def readiness(self) -> list[str]:
        return self.not_ready

    def metrics_pieces(self) -> Iterator[bytes]:
        yield b"rampart_build_info 1\n"

    async def tokens_changed(self) -> None:
        self.tokens.load([*await self.store.tokens(), *self.minted.values()])

    async def sdk_keys_changed(self) -> None:
        self.sdk_keys_reloaded += 1

    @property
    def kill_selector(self) -> KillSelector:
        """On the store as it is now: it may have been replaced meanwhile."""
        self.raised._store = self.store
        return KillSelector(killbook=self.kills, raised=self.raised, recent=self.recent, store=self.store)

    async def triggers_changed(self) -> None:
        self.triggers.load(await self.store.triggers())

    async def freezes_changed(self) -> None:
        self.freezebook.load(await self.store.freezes())


@asynccontextmanager
async def client_of(engine: FakeEngine, address: str = "192.0.2.1") -> AsyncIterator[httpx.AsyncClient]:
    """Talks to the whole application in this event loop; errors of the application stay answers."""
    transport = httpx.ASGITransport(
        app=cast("Any", create_app(engine)), raise_app_exceptions=False, client=(address, 40_000)
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://rampart.test") as client:
        yield client
