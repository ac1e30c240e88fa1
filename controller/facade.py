"""What the doors for people and programs ask of the engine: the composition root hands over who answers to it."""

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from controller.access import Actor, TokenBook
from controller.domain.alerts import Alert, AlertResult
from controller.domain.catalogue import KillRecord, PeerAnswer
from controller.domain.plan import FlagRef
from controller.domain.selection import KillPreview, Selection
from controller.domain.status import (
    Check,
    Explanation,
    KilledAndNot,
    KillReceipt,
    KillStatus,
    PlanSummary,
    Raises,
    RunReport,
    RunStatus,
)
from controller.freezebook import FreezeBook
from controller.lastknown import KnownFlag
from controller.ports import Clock, NotificationStore, Store
from controller.recent import Recent
from controller.registrar import Registrar
from controller.settings import Settings
from controller.triggers import TriggerBook


class Commands(Protocol):
    """Each raises NotFound, Forbidden, Refused, Conflict or Unavailable, and checks the run's environment."""

    async def start(self, plan: str, actor: Actor, note: str) -> RunStatus: ...
    async def advance(self, plan: str, actor: Actor, note: str) -> RunStatus: ...
    async def pause(self, plan: str, actor: Actor, note: str) -> RunStatus: ...
    async def resume(self, plan: str, actor: Actor, note: str) -> RunStatus: ...
    async def step_back(self, plan: str, actor: Actor, note: str) -> RunStatus: ...
    async def abandon(self, plan: str, actor: Actor, note: str) -> RunStatus: ...
    async def approve(self, plan: str, actor: Actor, note: str) -> RunStatus: ...
    async def adopt(self, plan: str, actor: Actor, note: str) -> RunStatus: ...
    async def take_over(self, key: str, environment: str | None, actor: Actor, note: str) -> RunStatus: ...
    async def report(self, plan: str, run: int | None = None) -> RunReport: ...
    async def status(self, plan: str, run: int | None = None) -> RunStatus: ...
    async def summaries(self) -> list[PlanSummary]: ...
    async def explain(self, plan: str) -> Explanation: ...


class Killer(Protocol):
    """Answers from memory. `key` is a flag key or a plan name; the scope is checked for every match."""

    async def kill(
        self, *, key: str, environment: str | None, provider: str | None, actor: Actor, reason: str
    ) -> list[KillReceipt]: ...

    async def kill_flags(self, flags: Sequence[FlagRef], *, actor: Actor, reason: str) -> KilledAndNot:
        """Each for itself: what is refused to one hinders no other. Raises nothing."""

    async def hear(self, records: Sequence[KillRecord]) -> PeerAnswer:
        """Another replica accepted these kills."""


class AlertReceiver(Protocol):
    async def receive(self, alerts: Sequence[Alert], actor: Actor) -> list[AlertResult]:
        """Never raises: what could not be done is among the results, as `unable`."""


class KillSelector(Protocol):
    async def preview(self, selection: Selection, actor: Actor) -> KillPreview:
        """What an order to kill by labels or by time would hit. From memory when the database is away."""


class KillLedger(Protocol):
    async def reset(
        self,
        *,
        key: str,
        environment: str | None,
        provider: str | None,
        kill_ids: list[str],
        actor: Actor,
        note: str,
    ) -> list[KillStatus]:
        """`key` as in a kill. Raises NotFound, Conflict, Forbidden, Unavailable."""


class KillBook(Protocol):
    """Answers from memory, as `killer` does."""

    def active(self) -> list[KillStatus]: ...
    def kills_of(self, flag: FlagRef) -> list[KillStatus]: ...
    def receipts(self, flag: FlagRef) -> list[KillReceipt]:
        """How far each kill of the flag has come by now."""

    def match(self, key: str, environment: str | None, provider: str | None) -> list[FlagRef]:
        """Every flag of that key or plan. Raises NotFound."""

    def knows(self, flag: FlagRef) -> bool: ...
    def known(self) -> list[KnownFlag]:
        """The flags that plans name."""


class Peers(Protocol):
    @property
    def secret_digest(self) -> bytes:
        """SHA-256 of the secret that all replicas share; empty without one."""


class Presence(Protocol):
    """Whether raises may be: all registered replicas are there, and have merged their kills."""

    def raises(self) -> Raises: ...

    async def check_in(self) -> None:
        """Ask the database again. Raises StoreUnavailable."""


class Doctor(Protocol):
    async def examine(self, plans: Collection[str] = ()) -> list[Check]:
        """Raises NotFound for a name that is no plan's."""

    async def send_test(self, actor: str) -> list[Check]: ...


class Engine(Protocol):
    @property
    def commands(self) -> Commands: ...
    @property
    def killer(self) -> Killer: ...
    @property
    def kill_selector(self) -> KillSelector: ...
    @property
    def kill_ledger(self) -> KillLedger: ...
    @property
    def killbook(self) -> KillBook: ...
    @property
    def alerts(self) -> AlertReceiver: ...
    @property
    def peers(self) -> Peers: ...
    @property
    def presence(self) -> Presence: ...
    @property
    def registrar(self) -> Registrar: ...
    @property
    def store(self) -> Store: ...
    @property
    def notifications(self) -> NotificationStore: ...
    @property
    def tokens(self) -> TokenBook: ...
    @property
    def triggers(self) -> TriggerBook: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def doctor(self) -> Doctor: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def freezebook(self) -> FreezeBook:
        """The freezes of the organisation, as this replica knows them."""

    @property
    def recent(self) -> Recent:
        """What was seen last of each run, for when the database does not answer."""

    @property
    def session_key(self) -> bytes:
        """What sessions of people are sealed with; never in the database."""

    def readiness(self) -> Sequence[str]:
        """Why this replica is not ready; empty when it is."""

    def metrics_pieces(self) -> Iterator[bytes]:
        """Our own series in the Prometheus text format, in pieces that take some milliseconds each."""

    async def tokens_changed(self) -> None:
        """Reload the tokens into memory after a write."""

    async def sdk_keys_changed(self) -> None: ...
    async def triggers_changed(self) -> None: ...
    async def freezes_changed(self) -> None: ...


Served = SkipValidation[NamedDependency[Engine]]
"""The engine as the handlers take it. A protocol cannot be validated, and it comes from us."""

Caller = NamedDependency[Actor]
"""Whose token it was."""
