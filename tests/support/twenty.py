"""Twenty flags that are rolled out at the same time, half way, by a real server; staff is always in."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support import manifests
from tests.support.exposition import Exposition, Traffic
from tests.support.server import RampartServer, serving, wait_until

FLAGS = [f"flag-{number:02}" for number in range(20)]
STAGES = {"half": "50%", "everyone": "100%"}
# Nothing is in a hurry here: what is tested is the service, beside which twenty rollouts must not take a core.
SETTINGS = """\
[sources.app]
kind = "scrape"
targets = ["{url}"]
every_seconds = 1.0
[database]
timeout_seconds = 30.0
"""
SLOW = {"every": "5s", "window": "10s", "stale_after": "10s", "before": "10s"}
SLOW_START_SECONDS = 120.0
STAFF_EMAIL = "anna@acme.example"


@contextmanager
def twenty_at_half(folder: Path, settings: str = "") -> Iterator[RampartServer]:
    """Every flag serves "on" to half of all. `settings` are more lines of rampart.toml."""
    folder.mkdir(exist_ok=True)
    healthy = {flag: {"on": Traffic(), "off": Traffic()} for flag in FLAGS}
    with (
        closing(Exposition(healthy)) as app,
        serving(folder, SETTINGS.format(url=app.url) + settings, wait_ready=False) as server,
    ):
        server.wait_ready(SLOW_START_SECONDS)
        server.apply(
            quick_policy=manifests.policy(**SLOW),
            **{f"{flag}_flag": manifests.flag(flag) for flag in FLAGS},
            **{f"{flag}_rollout": manifests.plan(flag, "1h", stages=STAGES) for flag in FLAGS},
        )
        for flag in FLAGS:
            server.command(flag, "start")

        def at_half() -> bool:
            runs = [server.status(flag) for flag in FLAGS]
            return all(run["confirmed"] and run["observed_exposure"] == 50_000 for run in runs)

        wait_until(at_half, seconds=120, every=0.5, what="twenty rollouts to be at 50 %")
        yield server
