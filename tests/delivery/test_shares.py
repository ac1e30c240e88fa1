"""Who gets the new code: the real SDK's share of 20,000 contexts at every step, through the real door.

Salt and context keys are fixed, so the shares are too: a share outside its bounds is a wrong share.
"""

import math
from typing import Any

from tests.support.sdk_door import FLAG, STAFF, Door, make_flag, raised, running_door, until, user

STEPS = [100, 1_000, 10_000, 50_000, 100_000]
CONTEXTS = [user(f"user-{number}") for number in range(20_000)]
TEAM = [user(f"staff-{number}", email=f"s{number}@acme.example") for number in range(200)]
CONFIDENCE = 0.9999


def binomial_bounds(trials: int, probability: float) -> tuple[int, int]:
    """The narrowest counts with at most half of the remaining 0.01 % in each tail."""
    if probability == 1:
        return trials, trials
    tail = (1 - CONFIDENCE) / 2
    low, below = 0, _mass(trials, probability, 0)
    while below <= tail:
        low += 1
        below += _mass(trials, probability, low)
    high, above = trials, _mass(trials, probability, trials)
    while above <= tail:
        high -= 1
        above += _mass(trials, probability, high)
    return low, high


def _mass(trials: int, probability: float, count: int) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    return math.exp(ways + count * math.log(probability) + (trials - count) * math.log1p(-probability))


async def arrived(door: Door, client: Any, marker: str) -> None:
    """Frames keep their order: once the SDK knows the marker it knows all that was sent before."""
    door.board.put(make_flag(marker))
    await until(lambda: client.variation(marker, CONTEXTS[0], None) is False)


async def test_shares_are_as_large_as_asked_and_only_ever_grow() -> None:
    flag = make_flag()
    async with running_door(flag) as door, door.client() as client:
        before: set[str] = set()
        for exposure in STEPS:
            door.board.put(flag := raised(flag, exposure, STAFF))
            await arrived(door, client, f"marker-{exposure}")
            assert all(client.variation(FLAG.key, one, False) for one in TEAM), "in from the first step on"
            exposed = {one.key for one in CONTEXTS if client.variation(FLAG.key, one, False)}
            low, high = binomial_bounds(len(CONTEXTS), exposure / 100_000)
            assert low <= len(exposed) <= high, f"{len(exposed)} at {exposure}, bounds {low}…{high}"
            assert exposed >= before, "nobody loses the new code when a share is raised"
            before = exposed

        door.board.hold_down(FLAG, "kill-1")
        await until(lambda: client.variation(FLAG.key, TEAM[0], True) is False)
        assert not any(client.variation(FLAG.key, one, True) for one in CONTEXTS + TEAM)


async def test_another_flag_exposes_other_contexts() -> None:
    one, other = raised(make_flag("one"), 10_000), raised(make_flag("other"), 10_000)
    async with running_door(one, other) as door, door.client() as client:
        exposed = [{c.key for c in CONTEXTS if client.variation(key, c, False)} for key in ("one", "other")]
        low, high = binomial_bounds(len(CONTEXTS), 0.01)
        assert low <= len(exposed[0] & exposed[1]) <= high, "the overlap of two independent tenths"
