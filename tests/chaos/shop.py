"""The scraped application: counters of many flags, each of which may break, and a page that may, too."""

import time
from collections.abc import Sequence
from typing import Literal

from tests.support.exposition import Exposition, Traffic

Illness = Literal["", "unavailable", "empty", "garbled", "not-finite", "hanging", "half"]
ILLNESSES: tuple[Illness, ...] = ("unavailable", "empty", "garbled", "not-finite", "hanging", "half")

HANG_SECONDS = 3.0
HEALTHY, BROKEN = 0.001, 0.6
REQUESTS_PER_SECOND = 2000.0


class Shop(Exposition):
    """`illness` is what is wrong with the page; `breaks` what is wrong with the new code of one flag."""

    def __init__(self, flags: Sequence[str]) -> None:
        self.illness: Illness = ""
        self._treated = {flag: Traffic(REQUESTS_PER_SECOND, HEALTHY) for flag in flags}
        super().__init__({flag: {"on": self._treated[flag], "off": Traffic()} for flag in flags})
        # Who was made to wait has hung up by then; that is no news.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]

    def breaks(self, flag: str) -> None:
        self._treated[flag].error_rate = BROKEN

    def mends(self, flag: str) -> None:
        self._treated[flag].error_rate = HEALTHY

    def ails(self, illness: Illness) -> None:
        self.broken = illness == "unavailable"
        self.illness = illness

    def restarts(self) -> None:
        """All counters begin at zero again."""
        with self._lock:
            self._counts.clear()
            self._at = time.monotonic()

    def text(self) -> str:
        page = super().text()
        match self.illness:
            case "hanging":
                time.sleep(HANG_SECONDS)
            case "empty":
                return ""
            case "garbled":
                return page[: len(page) // 2] + "\x00<html>503 Service Unavailable</html>\n"
            case "not-finite":
                return "".join(f"{line.rpartition(' ')[0]} NaN\n" for line in page.splitlines() if line[0] != "#")
            case "half":
                lines = page.splitlines(keepends=True)
                return "".join(lines[: len(lines) // 2])
        return page

    def _lines(self) -> list[str]:
        """Without the histogram: two hundred flags are parsed by three replicas on a small machine."""
        lines = ["# TYPE http_requests_total counter\n"]
        for (flag, variation), counts in self._counts.items():
            labels = f'service="shop",flag="{flag}",variation="{variation}",cohort="share"'
            lines.append(f'http_requests_total{{{labels},code="200"}} {counts["total"] - counts["bad"]}\n')
            lines.append(f'http_requests_total{{{labels},code="500"}} {counts["bad"]}\n')
        return lines
