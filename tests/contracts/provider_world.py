"""A back end with one flag, and everything that can happen to it: what `ProviderContract` needs of a provider.

Whoever brings a new kind of provider writes one of these and one test class, in any test file:

    class TestLantern(ProviderContract):
        kind = LanternProviderSettings
        cannot = WITHOUT_HTTP | {Edit.SWAPPED: "a lantern has no order of variations"}

        @pytest.fixture
        async def world(self) -> AsyncIterator[LanternWorld]: ...

`cannot` names what its back end has not got, each with the reason: those cases are not collected, and the table in
docs/providers/contract.md says why. Everything else is tried.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Protocol

from controller.domain.plan import FlagRef, Serve
from controller.ports import FlagProvider

FLAG = FlagRef(provider="main", environment="production", key="checkout-v2")
SERVE = Serve(rollout="on", fallback="off")
PERSON = "dana"


class Fault(StrEnum):
    """How every request is answered for a while. Pushed updates, where there are any, go on except in DOWN."""

    DOWN = "unreachable"
    """Reads and writes fail; nothing arrives."""
    LOST_BEFORE = "answer lost before the change"
    """A write never takes effect, and is not answered. Reads work."""
    LOST_AFTER = "answer lost after the change"
    """A write takes effect, and is not answered. Reads work."""
    HALF = "half a document"
    """What is read, and what answers a write that took effect, ends in the middle."""
    UNAUTHORIZED = "401"
    FORBIDDEN = "403"
    NOT_FOUND = "404"
    CONFLICT = "409"
    """Writes only: somebody else is always first."""
    THROTTLED = "429 without headers"
    THROTTLED_UNTIL = "429 with headers"
    """They name a moment one second ahead."""
    THROTTLED_BEFORE = "429 with a reset in the past"
    BROKEN = "500"
    AWAY = "503"
    GATEWAY = "504 after the change"
    """A write takes effect, and something on the way answers that it heard nothing. Reads work."""


class Edit(StrEnum):
    """What a person does to FLAG beside us. An edit says nothing about what it does not name."""

    RAISED = "percent raised"
    """The default rule's share of the rollout is 50 % now."""
    TURNED_ON = "turned on"
    TURNED_OFF = "turned off"
    SECOND_RULE = "second rule"
    """Another rule (strategy, targeting) serves the rollout to everybody whose `team` is `insiders`."""
    SWAPPED = "variation order swapped"
    """The same shares for other people: order of variations, salt or seed."""
    ARCHIVED = "archived"
    """Or deleted: applications get the flag no more, or can no longer be told of changes to it."""
    RENAMED = "renamed"
    """Its key is another one now."""


class Knowledge(StrEnum):
    """What a back end may be able to tell."""

    WHO = "who changed it"
    WHEN = "when it was changed"
    COME_BACK = "that a killed flag came back"
    """Without it a kill holds the flag down here, whatever people write where it is kept."""


Beyond = Fault | Edit | Knowledge


def _without_http() -> Mapping[Beyond, str]:
    answered = [one for one in Fault if one.value[0].isdigit()]
    return dict.fromkeys(answered, "nothing is asked over HTTP")


WITHOUT_HTTP = _without_http()


class ProviderWorld(Protocol):
    """A provider, started, and its back end with the boolean flag FLAG: off, nobody exposed, nothing foreign.

    FLAG has the variations `on` and `off`, as SERVE names them. The provider's own waits (time-outs, sweeps) are
    set as short as they can be: a test gives it `patience` seconds to notice what happened.
    """

    patience: float

    @property
    def provider(self) -> FlagProvider: ...

    def another(self) -> AbstractAsyncContextManager[FlagProvider]:
        """A second provider on the same back end, knowing nothing yet: after a restart, or on another replica."""

    async def edit(self, edit: Edit) -> None:
        """PERSON makes this edit, by the means people have, not through our provider."""

    def fault(self, fault: Fault) -> AbstractAsyncContextManager[None]:
        """Within it every request of ours is answered like this."""

    def held_write(self) -> AbstractAsyncContextManager["HeldWrite"]:
        """Within it the next write, and no later one, stops on its way to the flags until it is let go."""

    async def everything(self) -> Any:
        """All that the back end keeps of its flags, in any shape that can be compared: to see that nothing was
        written. Leave out what changes by itself."""


class HeldWrite:
    """`reached` is set when a write waits here; setting `let_go` lets it land. Later ones are not stopped."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()

    async def wait(self) -> None:
        if self.reached.is_set():
            return
        self.reached.set()
        await self.let_go.wait()
