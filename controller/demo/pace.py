"""How fast the demo plays: real plans and policies, with all their durations scaled by one factor."""

import re
from pathlib import Path

from msgspec import Struct

from controller.domain.quantities import seconds
from controller.errors import Unavailable

DURATION_KEYS = "every|window|staleAfter|before|for|after|bake|timeout"
DURATION = re.compile(
    rf"(?<![\w.-])(?P<key>{DURATION_KEYS}):(?P<space>\s+)(?P<value>(?:\d+(?:\.\d+)?(?:ms|[smhd]))+)\b"
)
COMMENT = re.compile(r"(?:^|\s)#.*$")
POLICY = "web-service.policy.yaml"
# In an installed package the example policies lie beside this module, in a checkout at its top.
POLICY_DIRECTORIES = (Path(__file__).parent / "policies", Path(__file__).parents[2] / "policies")


class Pace(Struct, frozen=True, kw_only=True):
    """`factor` scales the manifests. The smallest stage needs its sample in every window, hence the visits.

    `visits_per_second` are those of one shop; each makes several requests behind each flag.
    """

    factor: float
    poll_seconds: float
    scrape_seconds: float
    visits_per_second: int
    patience_seconds: float


# Windows of 3 s, judged every 150 ms; 360 requests per window in the 1 % stage, where 200 are needed.
FAST = Pace(factor=1 / 100, poll_seconds=0.1, scrape_seconds=0.15, visits_per_second=800, patience_seconds=150.0)
# Windows of 10 s, judged every half second; 450 requests per window in the 1 % stage.
RELAXED = Pace(factor=1 / 30, poll_seconds=0.1, scrape_seconds=0.4, visits_per_second=300, patience_seconds=400.0)


def scale_durations(text: str, factor: float) -> str:
    """A manifest with every duration multiplied by `factor`; limits such as `floor: 20ms` and comments stay."""
    return "\n".join(_scale_line(line, factor) for line in text.split("\n"))


def _scale_line(line: str, factor: float) -> str:
    comment = COMMENT.search(line)
    end = comment.start() if comment else len(line)
    return DURATION.sub(lambda found: _scaled(found, factor), line[:end]) + line[end:]


def _scaled(found: re.Match[str], factor: float) -> str:
    milliseconds = f"{seconds(found['value']) * factor * 1000:.6f}".rstrip("0").rstrip(".")
    return f"{found['key']}:{found['space']}{milliseconds}ms"


def shipped_policy() -> str:
    """The text of the web service policy that Rampart ships."""
    found = next((path for place in POLICY_DIRECTORIES if (path := place / POLICY).is_file()), None)
    if found is None:
        raise Unavailable(f"{POLICY} is missing from this installation; install Rampart again")
    return found.read_text()
