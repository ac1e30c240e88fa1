"""Towards off, and the proof of it: a kill is written to its provider, and read back.

Confirmed is only what was read as off when no write of any replica could follow.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence

import structlog

from controller.domain.flag import FlagState, Unknown
from controller.domain.plan import FlagRef
from controller.errors import ProviderUnavailable
from controller.held import Held
from controller.in_flight import InFlight
from controller.killbook import KillBook
from controller.ports import Clock, FlagProvider
from controller.telemetry import Metrics

log = structlog.get_logger()

PEERS_WAIT_SECONDS = 0.25
"""How long the proof of a kill waits for the other replicas before it reads back without them."""


class Lowering:
    """One attempt at a time for each kill. Who tries again, and when, is the killer's business."""

    def __init__(
        self,
        *,
        killbook: KillBook,
        in_flight: InFlight,
        providers: Mapping[str, FlagProvider],
        clock: Clock,
        metrics: Metrics,
        provider_timeout_seconds: float,
        quiet_seconds: float,
    ) -> None:
        """After `quiet_seconds` no write can be on its way that another replica decided before it knew."""
        self._killbook = killbook
        self._in_flight = in_flight
        self._providers = providers
        self._clock = clock
        self._metrics = metrics
        self._timeout = provider_timeout_seconds
        self._quiet_seconds = quiet_seconds

    async def lower(self, held: Held) -> None:
        """One attempt: write, then read back. Leaves the kill unconfirmed when anything is in doubt."""
        provider = self._providers.get(held.kill.flag.provider)
        if provider is None:
            log.error("kill_provider_unknown", flag=str(held.kill.flag), kill_id=held.kill.id)
            return
        if held.lowering or held.kill.id not in self._killbook:
            return  # on its way already, or reset since somebody wanted this
        held.lowering = True
        try:
            await self._attempt(held, provider)
        finally:
            held.lowering = False

    async def _attempt(self, held: Held, provider: FlagProvider) -> None:
        flag = held.kill.flag
        held.attempts += 1
        try:
            async with asyncio.timeout(self._timeout):
                held.reached = tuple(await provider.kill(held.command()))
                held.updated_at = self._clock.now()
                if held.telling is not None and not held.telling.done():
                    await asyncio.wait({held.telling}, timeout=PEERS_WAIT_SECONDS)
                if await self._in_flight.landed(flag) and held.kill.id in self._killbook:
                    await provider.kill(held.command())
                quiet = self._quiet(held)
                seen = (await provider.observe([flag])).get(flag, Unknown("the provider did not answer for it"))
        except (ProviderUnavailable, TimeoutError) as error:
            log.warning(
                "kill_not_confirmed", flag=str(flag), kill_id=held.kill.id, error=str(error) or "timed out"
            )
            return
        if isinstance(seen, FlagState) and held.is_done(seen) and quiet:
            self._confirm(held)
        else:
            silent = [] if quiet else sorted(self._killbook.others - held.landed)
            log.warning("kill_not_confirmed", flag=str(flag), kill_id=held.kill.id, seen=repr(seen), silent=silent)

    def _quiet(self, held: Held) -> bool:
        """Whether no write can be on its way any more: neither ours nor one of a replica that knew of no kill."""
        if self._in_flight.may_land(held.kill.flag):
            return False
        if not (held.accepted_here or held.durable or held.merged):
            return False  # a crash would make us forget what another replica told us
        long_ago = self._clock.monotonic() - held.since >= self._quiet_seconds
        return long_ago or not self._killbook.others - held.landed

    def _confirm(self, held: Held) -> None:
        if held.confirmed_at is None:
            held.confirmed_at = self._clock.now()
            if held.accepted_here:
                latency = (held.confirmed_at - held.kill.accepted_at).total_seconds()
                self._metrics.kill(latency, held.record.cause)
            log.warning("kill_confirmed", kill_id=held.kill.id, flag=str(held.kill.flag), attempts=held.attempts)

    async def keep_off(self, confirmed: Sequence[Held]) -> None:
        """What was read back as off must stay off; what came back is lowered again."""
        for name, provider in self._providers.items():
            flags = {held.kill.flag for held in confirmed if held.kill.flag.provider == name}
            if flags:
                seen = await self._observe(provider, flags)
                risen = [
                    h for h in confirmed if isinstance(s := seen.get(h.kill.flag), FlagState) and not h.is_done(s)
                ]
                await asyncio.gather(*(self._came_back(held) for held in risen))

    async def _observe(
        self, provider: FlagProvider, flags: Collection[FlagRef]
    ) -> Mapping[FlagRef, FlagState | Unknown]:
        try:
            async with asyncio.timeout(self._timeout):
                return await provider.observe(flags)
        except TimeoutError:
            return {flag: Unknown("the provider did not answer in time") for flag in flags}

    async def _came_back(self, held: Held) -> None:
        log.error("killed_flag_came_back", flag=str(held.kill.flag), kill_id=held.kill.id)
        held.confirmed_at = None
        await self.lower(held)
