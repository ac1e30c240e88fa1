"""What every channel promises, asked of each kind with a receiver that misbehaves."""

import asyncio
import logging
import traceback
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, cast

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from controller.domain.message import EVENTS, Cited, Message
from controller.errors import Unavailable, Undeliverable
from controller.ports import Channel
from tests.support.receivers import RETRY_AFTER_SECONDS, Fault, Received, Receiver
from tests.support.rollouts import NOW

PATIENT_SECONDS = 20.0
IMPATIENT_SECONDS = 0.3
MOST_BYTES = 32 * 1024
"""Of one message, whatever somebody wrote as the reason."""

KILLED = Message(
    id="0190a0b1-message",
    sequence=7,
    event="killed",
    at=NOW,
    environment="production",
    flag="main/production/checkout-v2",
    actor="rampart",
    cause="policy",
    reason="web/errors-jump: error_rate 12.3 % against a limit of 10 % for 2m",
    rollout="checkout-v2",
    run="checkout-v2#3",
    owner="team-payments",
    exposure=0,
    cited=Cited(
        policy="web",
        rule="errors-jump",
        condition="error_rate > 10%",
        detail="",
        unit="ratio",
        value=0.123,
        limit=0.1,
        baseline=0.002,
        sample=4120,
    ),
    link="https://rampart.example/r/checkout-v2",
    runbook="https://wiki.example/checkout?step=1&then=2",
)
NOT_NOW = [Fault.SLOW, Fault.BROKEN, Fault.RESET, Fault.LOST, Fault.BUSY, Fault.GARBAGE, Fault.HUGE]
NEVER = [Fault.REFUSED, Fault.ENDED, Fault.REDIRECT]


HOSTILE = (
    '"quoted" <!channel> <script>alert(1)</script> & \\ '
    "\r\nBcc: everybody@example.com\r\n\r\n.\r\n\x00 é 😀 \u202e"
)


class World(Protocol):
    """A channel with `timeout_seconds = PATIENT_SECONDS` in front of a receiver, which runs. The impatient one is
    the same with IMPATIENT_SECONDS.

    `secrets` stand in its files and must never be shown. `says_when`: its receivers can say when to come again.
    """

    channel: Channel
    impatient: Channel
    receiver: Receiver
    secrets: Sequence[str]
    says_when: bool

    @abstractmethod
    def identity(self, received: Received) -> str | None:
        """By what the receiver knows a message again; None where its protocol has nothing for it."""

    @abstractmethod
    def tells(self, received: Received) -> bool:
        """It is the message, not the end of an earlier one that goes with it."""

    @abstractmethod
    def text(self, received: Received) -> str:
        """All that a person would be shown of it."""


def told(world: World) -> list[Received]:
    """The messages that were taken."""
    return [received for received in world.receiver.taken if world.tells(received)]


def asked(world: World, fault: Fault | None) -> Channel:
    """Whom to ask: nobody should wait long for a receiver that is slow on purpose, or hurry any other."""
    return world.impatient if fault is Fault.SLOW else world.channel


class ChannelContract:
    async def test_a_message_that_is_taken_was_sent_once(self, world: World) -> None:
        await world.channel.announce(KILLED)
        assert len(told(world)) == 1
        sent = [received.body for received in world.receiver.seen]
        assert len(sent) == len(set(sent))

    @pytest.mark.parametrize("fault", NOT_NOW, ids=lambda fault: fault.value)
    async def test_what_may_pass_is_unavailable_and_the_message_gets_there_afterwards(
        self, world: World, fault: Fault
    ) -> None:
        world.receiver.fault = fault
        with pytest.raises(Unavailable) as caught:
            await asked(world, fault).announce(KILLED)
        assert len(world.receiver.seen) == 1 or fault is Fault.SLOW
        assert len(world.receiver.seen) <= 1
        assert caught.value.again_in == (RETRY_AFTER_SECONDS if fault is Fault.BUSY and world.says_when else None)
        world.receiver.heal()
        world.receiver.taken.clear()
        await world.channel.announce(KILLED)
        assert len(told(world)) == 1

    @pytest.mark.parametrize("fault", NEVER, ids=lambda fault: fault.value)
    async def test_what_will_never_be_taken_is_undeliverable_and_the_next_message_is_another_matter(
        self, world: World, fault: Fault
    ) -> None:
        world.receiver.fault = fault
        with pytest.raises(Undeliverable):
            await world.channel.announce(KILLED)
        assert len(world.receiver.seen) == 1
        world.receiver.heal()
        await world.channel.announce(replace(KILLED, id="another"))
        assert len(told(world)) == 1

    async def test_a_receiver_that_is_away_is_unavailable_until_it_is_back(self, world: World) -> None:
        await world.receiver.go()
        with pytest.raises(Unavailable):
            await world.channel.announce(KILLED)
        await world.receiver.come()
        await world.channel.announce(KILLED)
        assert len(told(world)) == 1

    async def test_what_is_sent_again_can_be_known_again(self, world: World) -> None:
        world.receiver.script.extend([Fault.LOST, None])
        with pytest.raises(Unavailable):
            await world.channel.announce(KILLED)
        await world.channel.announce(KILLED)
        first, second = (world.identity(received) for received in told(world))
        assert first == second

    async def test_different_events_are_not_taken_for_the_same(self, world: World) -> None:
        await world.channel.announce(KILLED)
        await world.channel.announce(replace(KILLED, id="another", event="paused", flag="main/production/search"))
        names = [world.identity(received) for received in told(world)]
        assert None in names or len(set(names)) > 1

    async def test_a_person_is_told_the_reason_with_its_numbers_and_where_to_act(self, world: World) -> None:
        await world.channel.announce(KILLED)
        text = world.text(told(world)[0])
        parts = [
            "Killed: checkout-v2 in production",
            "12.3 %",
            "10 %",
            "0.2 %",
            "4120 requests",
            "web/errors-jump",
            "rampart (policy)",
            "checkout-v2#3",
            "https://rampart.example/r/checkout-v2",
            "https://wiki.example/checkout?step=1&then=2",
        ]
        assert [part for part in parts if part not in text] == []

    @pytest.mark.parametrize("event", [*sorted(set(EVENTS.values())), "test"])
    async def test_every_event_can_be_told(self, world: World, event: str) -> None:
        bare = Message(
            id=f"bare {event}", sequence=0, event=cast("Any", event), at=NOW, environment="",
            flag="", actor="", cause="", reason="",
        )  # fmt: skip
        await world.channel.announce(bare)
        assert world.receiver.taken

    async def test_what_somebody_wrote_breaks_nothing_and_is_cut(self, world: World) -> None:
        wild = replace(
            KILLED,
            id=HOSTILE.replace("\r\n", "|")[:60],
            reason=HOSTILE * 10_000,
            actor=HOSTILE * 20,
            owner=HOSTILE,
            run=HOSTILE,
            runbook='javascript:alert("1")',
        )
        await world.channel.announce(wild)
        (received,) = told(world)
        assert len(received.body) < MOST_BYTES
        assert "Bcc" not in received.headers
        assert "everybody@example.com" not in received.path
        assert "javascript:" not in world.text(received)

    @pytest.mark.parametrize("fault", [*NOT_NOW, *NEVER, None], ids=lambda fault: fault.value if fault else "gone")
    async def test_no_secret_is_in_an_error_or_a_log(
        self, world: World, fault: Fault | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        world.receiver.words = " ".join(world.secrets) * 5
        world.receiver.fault = fault
        if fault is None:
            await world.receiver.go()
        with capture_logs() as logs, pytest.raises((Unavailable, Undeliverable)) as caught:
            await asked(world, fault).announce(KILLED)
        shown = "".join(traceback.format_exception_only(caught.value)) + str(logs)
        assert [secret for secret in world.secrets if secret in shown] == []

    async def test_who_gives_up_waiting_is_let_go_and_closing_ends_everything(self, world: World) -> None:
        world.receiver.fault = Fault.SLOW
        before = asyncio.all_tasks()
        waiting = asyncio.create_task(world.channel.announce(KILLED))
        await world.receiver.arrived.wait()
        waiting.cancel()
        await asyncio.wait([waiting], timeout=20)
        assert waiting.cancelled()
        await world.channel.close()
        await world.channel.close()
        world.receiver.heal()
        left = asyncio.all_tasks() - before
        await asyncio.wait(left, timeout=20) if left else None
        assert world.receiver.taken == []
