"""Series whose labels come and go, kept as finished text: a scrape only joins what was rendered before.

prometheus-client renders everything at each scrape, which at a thousand runs would stop the event loop for
most of a second.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct
from prometheus_client.utils import floatToGoString

MAX_LABEL_LENGTH = 100


class Family(Struct, frozen=True):
    """One metric family: its name without prefix, its kind, its help and the names of its labels."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]

    @property
    def head(self) -> str:
        return f"# HELP rampart_{self.name} {self.help}\n# TYPE rampart_{self.name} {self.kind}\n"

    def line(self, values: Sequence[str], number: float) -> str:
        labels = ",".join(f'{n}="{_escaped(v)}"' for n, v in zip(self.labels, values, strict=True))
        text: str = floatToGoString(number)  # type: ignore[no-untyped-call]
        return f"rampart_{self.name}{{{labels}}} {text}\n"


class RunPages:
    """For every run one text per family. The same families for all of them, so that each stays in one piece."""

    def __init__(self, families: Sequence[Family], limit: int) -> None:
        self._families = tuple(families)
        self._limit = limit
        self._pages: dict[str, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._pages

    def put(self, run_id: str, lines: Iterable[str]) -> bool:
        """`lines` are in the order of the families. False when there is no room for another run."""
        if run_id not in self._pages and len(self._pages) >= self._limit:
            return False
        self._pages[run_id] = tuple(lines)
        return True

    def drop(self, run_id: str) -> None:
        self._pages.pop(run_id, None)

    def pieces(self) -> Iterator[str]:
        """One family after the other. Runs may come and go between two pieces, never within one."""
        for index, family in enumerate(self._families):
            if self._pages:
                yield family.head + "".join([page[index] for page in self._pages.values()])


class Counts:
    """A counter family that keeps at most `limit` label sets; the one unused for longest makes room."""

    def __init__(self, family: Family, limit: int) -> None:
        self._family = family
        self._limit = limit
        self._counts: OrderedDict[tuple[str, ...], int] = OrderedDict()
        self._lines: dict[tuple[str, ...], str] = {}

    def add(self, *values: str, amount: int = 1) -> None:
        """An `amount` of 0 makes the series known, so that its first increase is seen as one."""
        count = self._counts[values] = self._counts.get(values, 0) + amount
        self._counts.move_to_end(values)
        self._lines[values] = self._family.line(values, count)
        if len(self._counts) > self._limit:
            oldest, _ = self._counts.popitem(last=False)
            del self._lines[oldest]

    def render(self) -> str:
        return self._family.head + "".join(self._lines.values())


def _escaped(text: str) -> str:
    text = text[:MAX_LABEL_LENGTH]
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
