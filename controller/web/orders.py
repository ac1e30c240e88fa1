"""What people may order on a page, and when a button for it makes sense. The engine has the last word."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from controller.access import Actor
from controller.domain.catalogue import Scope
from controller.domain.rollout import TRANSITIONS, Action
from controller.domain.status import RunStatus
from controller.facade import Commands
from controller.web.reader import Rollout


class Order(NamedTuple):
    """`label` is the button, `says` what it does. Any one of `scopes` is enough."""

    verb: str
    label: str
    says: str
    scopes: tuple[Scope, ...]
    action: Action
    command: Callable[[Commands, str, Actor, str], Awaitable[RunStatus]] | None


ORDERS: Mapping[str, Order] = {
    order.verb: order
    for order in (
        Order(
            "pause",
            "Pause",
            "Holds the exposure where it is until somebody resumes.",
            ("operate", "kill"),
            "pause",
            lambda commands, *call: commands.pause(*call),
        ),
        Order(
            "resume",
            "Resume",
            "Goes on from the exposure that the provider shows; the bake of the stage starts anew.",
            ("operate",),
            "resume",
            lambda commands, *call: commands.resume(*call),
        ),
        Order(
            "advance",
            "Advance",
            "Waives what is left of the bake, and nothing else: every rule must still pass.",
            ("operate",),
            "advance",
            lambda commands, *call: commands.advance(*call),
        ),
        Order(
            "step-back",
            "Step back",
            "Lowers the exposure to the stage before and pauses there.",
            ("operate", "kill"),
            "step_back",
            lambda commands, *call: commands.step_back(*call),
        ),
        Order(
            "approve",
            "Approve",
            "Lets the run enter the stage that waits for it. It takes a second person.",
            ("approve",),
            "approve",
            lambda commands, *call: commands.approve(*call),
        ),
        Order(
            "start",
            "Start",
            "Authorises a new run. Exposure rises once the first look finds everything healthy.",
            ("operate",),
            "start",
            lambda commands, *call: commands.start(*call),
        ),
        Order(
            "abandon",
            "Abandon",
            "Ends the run. The flag stays as it is, and nobody watches it any more.",
            ("operate",),
            "abandon",
            lambda commands, *call: commands.abandon(*call),
        ),
        Order(
            "reset",
            "Reset the kill",
            "Releases the flag. It stays off until a new run is started.",
            ("operate",),
            "reset",
            None,
        ),
    )
}
REASONS = ("incident", "error spike", "latency", "data damage", "other")


def possible(rollout: Rollout) -> list[Order]:
    """What the state of the rollout allows, whoever asks."""
    return [order for order in ORDERS.values() if _possible(order, rollout)]


def _possible(order: Order, rollout: Rollout) -> bool:
    status = rollout.status
    match order.verb:
        case "reset":
            return bool(rollout.kills)
        case "start":
            return not rollout.kills and rollout.state in ("never", "completed", "killed", "abandoned")
        case "approve":
            return not rollout.kills and status is not None and status.approval is not None
        case "step-back" if status is not None and status.desired_exposure == 0:
            return False
    return not rollout.kills and status is not None and order.action in TRANSITIONS[status.phase]


def permitted(rollout: Rollout, actor: Actor) -> list[Order]:
    environment = rollout.flag.environment
    return [order for order in possible(rollout) if any(actor.may(scope, environment) for scope in order.scopes)]
