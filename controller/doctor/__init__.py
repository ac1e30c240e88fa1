"""Looks at everything Rampart depends on, and says what to do about what is wrong.

*fail*: something cannot work, a start, a raise, a kill or a message. *warn*: it works, with a risk to know of.
"""

import asyncio
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence

from controller.doctor.findings import DEADLINE_SECONDS, failed, fine, within_deadline
from controller.doctor.installation import Installation, source_clocks
from controller.doctor.plans import Plans
from controller.domain.message import Message
from controller.domain.status import Check
from controller.errors import StoreUnavailable, Unavailable, Undeliverable
from controller.ports import Channel, Clock

PLANS_SECONDS = 3 * DEADLINE_SECONDS

AT_ONCE = 2
"""Examinations; further callers wait their turn. Each asks sources and providers about every plan."""


class Doctor:
    """Asks, and changes nothing. Everything is asked at the same time and nothing for ever."""

    def __init__(
        self,
        *,
        installation: Installation,
        plans: Plans,
        channels: Mapping[str, Channel],
        clock: Clock,
        at_hand: Sequence[Callable[[], Check]] = (),
    ) -> None:
        """`at_hand` are findings of parts that know by themselves how they are."""
        self._at_hand = at_hand
        self._installation = installation
        self._plans = plans
        self._channels = channels
        self._clock = clock
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def examine(self, plans: Collection[str] = ()) -> list[Check]:
        """Of the installation, then of the plans named, or of all. Raises NotFound for an unknown name."""
        async with self._turns:
            looks = self._installation.looks()
            *found, of_plans = await asyncio.gather(
                *(within_deadline(name, look) for name, look in looks), self._of_plans(plans)
            )
        known = [tell() for tell in self._at_hand]
        return [check for some in [*found, known, of_plans] for check in some]

    async def _of_plans(self, names: Collection[str]) -> Sequence[Check]:
        try:
            async with asyncio.timeout(PLANS_SECONDS):
                checks, examined = await self._plans.examine(names)
        except StoreUnavailable:
            return []  # told by the check of the database
        except TimeoutError:
            fix = "name the plans to look at: rampart doctor PLAN"
            return [failed("plans", f"not all was looked at within {PLANS_SECONDS:g} s", fix)]
        return [*source_clocks(examined), *checks]

    async def send_test(self, actor: str) -> list[Check]:
        """A message to each channel, saying that it is a test and who sent it."""
        message = Message(
            id=uuid.uuid4().hex,
            sequence=0,
            event="test",
            at=self._clock.now(),
            environment="",
            flag="",
            actor=actor,
            cause="user",
            reason="this is a test of the channel; nothing has happened",
        )
        told = (within_deadline(f"channel {name}", self._told(name, message)) for name in self._channels)
        return [check for some in await asyncio.gather(*told) for check in some]

    async def _told(self, name: str, message: Message) -> Sequence[Check]:
        try:
            await self._channels[name].announce(message)
        except (Unavailable, Undeliverable) as error:
            fix = f"check [channels.{name}] in rampart.toml, and that it can be reached from here"
            return [failed(f"channel {name}", f"the test message was not taken: {error}", fix)]
        return [fine(f"channel {name}", "took the test message; see whether it arrived")]
