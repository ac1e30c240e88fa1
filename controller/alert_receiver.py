"""What somebody else's alerting tells us. Kills are ordered from memory; a pause needs the database.

Senders repeat themselves, to several replicas, for as long as an alert fires. So whatever is done about the start
of an alert is recorded under an id that follows from it, and is done once.
"""

import asyncio
from collections.abc import Sequence

import structlog

from controller.access import Actor
from controller.commands import Commands
from controller.domain.alerts import ACTION, Alert, AlertOutcome, AlertResult, Order, named, order
from controller.domain.audit import AuditEntry
from controller.domain.plan import FlagRef
from controller.errors import Conflict, Forbidden, NotFound, StoreUnavailable
from controller.kill_ledger import KillLedger
from controller.killbook import KillBook
from controller.killer import Killer
from controller.ports import Clock, Store
from controller.settings import EngineSettings
from controller.telemetry import Metrics

log = structlog.get_logger()

ATTEMPTS = 5
"""How often a pause looks again, because the run moved while it was decided."""

RECALL_SECONDS = 0.5
"""How long a kill waits for what the database says of this start of the alert."""


class AlertReceiver:
    def __init__(
        self,
        *,
        commands: Commands,
        killer: Killer,
        killbook: KillBook,
        kill_ledger: KillLedger,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        settings: EngineSettings,
    ) -> None:
        self._commands = commands
        self._killer = killer
        self._killbook = killbook
        self._ledger = kill_ledger
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._settings = settings

    async def receive(self, alerts: Sequence[Alert], actor: Actor) -> list[AlertResult]:
        """Never raises for what one of them cannot do: its outcome is `unable`, and it should be sent again."""
        work: list[Order | AlertResult] = []
        for alert in alerts:
            orders = self._orders(alert, actor, work) if alert.firing else []
            work += orders or [self._nothing_to_do(alert)]
        orders = [one for one in work if isinstance(one, Order)]
        done = await self._kill_all([one for one in orders if one.action == "kill"], actor)
        done |= await self._pause_all([one for one in orders if one.action == "pause"], actor)
        results = [done[id(one)] if isinstance(one, Order) else one for one in work]
        for result in results:
            self._metrics.alert_received(result.outcome)
            log.info("alert_received", alert=result.alert, outcome=result.outcome, rollout=result.rollout)
        return results

    def _orders(self, alert: Alert, actor: Actor, before: Sequence[Order | AlertResult]) -> list[Order]:
        """`before` is what was ordered already."""
        orders: list[Order] = []
        for target in named(alert, self._killbook.known()):
            orders.append(
                order(
                    alert,
                    target,
                    may_kill=actor.may("kill", target.flag.environment),
                    killed=self._killed_beside(target.flag, [*before, *orders]),
                    most_killed=self._settings.max_automatic_kills,
                )
            )
        return orders

    def _killed_beside(self, flag: FlagRef, before: Sequence[Order | AlertResult]) -> int:
        """How many flags were, or are about to be, killed without a person; none, if this is one of them."""
        about_to_be = {one.flag for one in before if isinstance(one, Order) and one.action == "kill"}
        if flag in about_to_be or self._killbook.holds(flag):
            return 0
        fresh = sum(not self._killbook.holds(one) for one in about_to_be)
        return fresh + self._killbook.automatic_kills(self._settings.automatic_kills_window_seconds)

    def _nothing_to_do(self, alert: Alert) -> AlertResult:
        if not alert.firing:
            return _result(alert, "resolved", "its end resumes nothing; rampart resume is for a person")
        if alert.asks_for_nothing:
            return _result(alert, "nothing_asked", f"{ACTION} is none")
        if not self._killbook.informed:
            return _result(alert, "unable", "no plans are known yet: the database did not answer since the start")
        return _result(alert, "no_match", "its labels name no rollout that Rampart knows")

    # — kills —

    async def _kill_all(self, orders: Sequence[Order], actor: Actor) -> dict[int, AlertResult]:
        """By the identity of the order. All flags at once; of one flag one after the other: the first kills."""
        of_flag: dict[FlagRef, list[Order]] = {}
        for one in orders:
            of_flag.setdefault(one.flag, []).append(one)
        done: dict[int, AlertResult] = {}

        async def kill_each(of_one: Sequence[Order]) -> None:
            for one in of_one:
                done[id(one)] = _done(one, *await self._kill(one, actor))

        await asyncio.gather(*(kill_each(of_one) for of_one in of_flag.values()))
        return done

    async def _kill(self, order: Order, actor: Actor) -> tuple[AlertOutcome, str]:
        if order.kill_id in self._killbook:
            return "repeated", f"{order.kill_id} of this start of the alert holds {order.flag}"
        if held := self._killbook.holds(order.flag):
            await self._note(order, actor, f"{order.flag} was killed already")
            return "already_killed", f"{order.flag} was killed already ({', '.join(held)})"
        if self._killbook.was_released(order.kill_id) or await self._was_taken(order):
            return "repeated", f"this start of the alert was dealt with before, by {order.kill_id}"
        if held := self._killbook.holds(order.flag):
            return "already_killed", f"{order.flag} was killed at the same time ({', '.join(held)})"
        receipt = await self._killer.kill_flag(
            order.flag,
            actor=actor.name,
            reason=order.reason,
            cause="user",
            details={"alert": order.alert.facts()},
            kill_id=order.kill_id,
        )
        confirmed = "read back as off" if receipt.confirmed_at else "accepted; not read back as off yet"
        return "killed", f"{order.flag} is killed by {receipt.kill_id}: {confirmed}"

    async def _was_taken(self, order: Order) -> bool:
        """A person may have reset that kill. Not known in time means no: an alert that fires may kill."""
        if not self._ledger.store_answers:
            return False
        try:
            async with asyncio.timeout(RECALL_SECONDS):
                for entry_id in (order.kill_id, _noted(order)):
                    if await self._store.committed(entry_id) is not None:
                        return True
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("alert_not_recalled", kill_id=order.kill_id, error=str(error) or "timed out")
        return False

    async def _note(self, order: Order, actor: Actor, why: str) -> None:
        """So that no repetition kills once a person has looked. Without a database that cannot be had."""
        if not self._ledger.store_answers:
            return
        entry = AuditEntry(
            id=_noted(order),
            at=self._clock.now(),
            actor=actor.name,
            action="alert",
            cause="alert",
            subject=str(order.flag),
            environment=order.flag.environment,
            reason=f"{order.reason}; {why}",
            flag=str(order.flag),
            details={"alert": order.alert.facts()},
        )
        try:
            async with asyncio.timeout(RECALL_SECONDS):
                await self._store.note_once(entry)
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("alert_not_noted", kill_id=order.kill_id, error=str(error) or "timed out")

    # — pauses —

    async def _pause_all(self, orders: Sequence[Order], actor: Actor) -> dict[int, AlertResult]:
        """One after the other. When the database does not answer one, it is not asked about the rest."""
        done: dict[int, AlertResult] = {}
        try:
            for one in orders:
                done[id(one)] = _done(one, *await self._pause(one, actor))
        except StoreUnavailable as error:
            left = [one for one in orders if id(one) not in done]
            done |= {id(one): _done(one, "unable", str(error)) for one in left}
        return done

    async def _pause(self, order: Order, actor: Actor) -> tuple[AlertOutcome, str]:
        """Ticks change the run, too: what came between is looked at again. Raises StoreUnavailable."""
        for _ in range(ATTEMPTS):
            try:
                if order.spared:
                    await self._note(order, actor, "not killed")
                return await self._commands.pause_by_alert(order, actor)
            except NotFound as error:
                return "not_running", str(error)
            except Forbidden as error:
                return "forbidden", str(error)
            except Conflict as error:
                log.info("alert_looks_again", rollout=order.plan, error=str(error))
        return "unable", f"{order.plan} changed each time it was looked at"


def _noted(order: Order) -> str:
    return order.alert.identity(f"{order.flag} was killed")


def _result(alert: Alert, outcome: AlertOutcome, text: str) -> AlertResult:
    return AlertResult(alert=alert.name, fingerprint=alert.fingerprint[:100], outcome=outcome, text=text)


def _done(order: Order, outcome: AlertOutcome, text: str) -> AlertResult:
    return AlertResult(
        alert=order.alert.name,
        fingerprint=order.alert.fingerprint[:100],
        outcome=outcome,
        text="; ".join(part for part in (text, order.remark) if part),
        rollout=order.plan,
        environment=order.flag.environment,
        action=order.action,
    )
