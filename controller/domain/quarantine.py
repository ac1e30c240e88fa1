"""A run whose tick failed by a fault of ours, or of what it follows: put off ever longer, shown, never dropped."""

from datetime import datetime, timedelta

from msgspec.structs import replace

from controller.domain.flag import FlagState
from controller.domain.rollout import Block, Observations, Quarantine, Run, Seen

LONGEST_SECONDS = 600.0
SHOWN_CHARACTERS = 300


def _put_off_seconds(quarantine: Quarantine, every_seconds: float) -> float:
    """One poll after the first failure, then twice as long each time."""
    return min(every_seconds * 2.0 ** min(quarantine.failures - 1, 30), LONGEST_SECONDS)


def quarantined(
    run: Run,
    observations: Observations,
    why: str,
    *,
    now: datetime,
    every_seconds: float,
    flag: FlagState | None = None,
) -> tuple[Observations, float]:
    """What is left of the tick, and the seconds until the next. `flag` as it was read, if it was.

    The accumulators stay as they are: what was not judged adds no time.
    """
    before = observations.quarantine
    since, failures = (before.since, before.failures) if before else (now, 0)
    quarantine = Quarantine(since=since, failures=failures + 1, why=" ".join(why.split())[:SHOWN_CHARACTERS])
    put_off = _put_off_seconds(quarantine, every_seconds)
    again_at = now + timedelta(seconds=put_off)
    block = Block(code="quarantine", text=quarantine_text(run, quarantine), clears_at=again_at)
    seen = Seen(at=now, flag=flag, blocks=(block,))
    return replace(observations, quarantine=quarantine, seen=seen), put_off


def quarantine_text(run: Run, quarantine: Quarantine) -> str:
    return (
        f"quarantined since {quarantine.since:%Y-%m-%d %H:%M:%S} UTC: {quarantine.why}. Nothing of it is judged, "
        f"kill rules neither: watch the flag yourself, `rampart kill {run.plan}` works. The server's log has the "
        "details (tick_failed); it goes on by itself once a tick succeeds"
    )
