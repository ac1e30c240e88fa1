"""A scraped application that is nothing but arithmetic: counters that grow with time, whoever restarts."""

import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Traffic:
    """Requests per second, share of errors and the bucket that all durations fall into, of one variation."""

    def __init__(self, rate: float = 2000.0, error_rate: float = 0.001, seconds: float = 0.07) -> None:
        self.rate = rate
        self.error_rate = error_rate
        self.seconds = seconds


class Exposition:
    """`/metrics` on a loopback port for some flags, each with the variations `on` and `off`."""

    def __init__(self, flags: Mapping[str, Mapping[str, Traffic]]) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], dict[str, float]] = {}
        self._at = time.monotonic()
        self.flags = flags
        self.broken = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = outer.text().encode()
                self.send_response(503 if outer.broken else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/metrics"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forget(self, flag: str) -> None:
        """As if nothing had ever been counted for it, nor will be."""
        with self._lock:
            self.flags = {key: sides for key, sides in self.flags.items() if key != flag}
            self._counts = {counted: counts for counted, counts in self._counts.items() if counted[0] != flag}

    def text(self) -> str:
        with self._lock:
            self._grow()
            return "".join(self._lines())

    def _grow(self) -> None:
        now = time.monotonic()
        elapsed, self._at = now - self._at, now
        for flag, variations in self.flags.items():
            for variation, traffic in variations.items():
                counts = self._counts.setdefault((flag, variation), {"total": 0.0, "bad": 0.0})
                grown = traffic.rate * elapsed
                counts["total"] += grown
                counts["bad"] += grown * traffic.error_rate
                for edge in BUCKETS:
                    counts[str(edge)] = counts.get(str(edge), 0.0) + (grown if traffic.seconds <= edge else 0.0)

    def _lines(self) -> list[str]:
        lines = ["# TYPE http_requests_total counter\n"]
        for (flag, variation), counts in self._counts.items():
            labels = f'service="shop",flag="{flag}",variation="{variation}",cohort="share"'
            good = counts["total"] - counts["bad"]
            lines.append(f'http_requests_total{{{labels},code="200"}} {good}\n')
            lines.append(f'http_requests_total{{{labels},code="500"}} {counts["bad"]}\n')
        lines.append("# TYPE http_request_duration_seconds histogram\n")
        for (flag, variation), counts in self._counts.items():
            labels = f'service="shop",flag="{flag}",variation="{variation}",cohort="share"'
            name = "http_request_duration_seconds"
            lines += [f'{name}_bucket{{{labels},le="{edge}"}} {counts[str(edge)]}\n' for edge in BUCKETS]
            lines.append(f'{name}_bucket{{{labels},le="+Inf"}} {counts["total"]}\n')
            lines.append(f"{name}_count{{{labels}}} {counts['total']}\n")
            lines.append(f"{name}_sum{{{labels}}} {counts['total'] * 0.07}\n")
        return lines
