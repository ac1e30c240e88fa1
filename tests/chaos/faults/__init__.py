"""Every kind of fault, and in which order they strike."""

from collections.abc import Collection
from random import Random

from tests.chaos.faults import crowd, metrics, network, postgres, replicas
from tests.chaos.faults.scene import Fault

FAULTS: tuple[Fault, ...] = (
    *network.FAULTS, *postgres.FAULTS, *replicas.FAULTS, *metrics.FAULTS, *crowd.FAULTS,
)  # fmt: skip

AT_ONCE = (2, 6)


def schedule(seed: int, faults: int, names: Collection[str] = ()) -> list[list[Fault]]:
    """Each kind by its weight, and at least once if there is room; in random order, some of them together."""
    known = [fault for fault in FAULTS if not names or fault.name in names]
    chance = Random(seed)
    drawn = chance.sample(known, min(faults, len(known)))
    drawn += chance.choices(known, [fault.weight for fault in known], k=faults - len(drawn))
    chance.shuffle(drawn)
    strikes = [[fault] for fault in drawn if fault.alone]
    company = [fault for fault in drawn if not fault.alone]
    while company:
        size = chance.randint(*AT_ONCE)
        strikes.append(company[:size])
        del company[:size]
    chance.shuffle(strikes)
    return strikes
