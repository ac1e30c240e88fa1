"""A service with two features behind flags, and docs/recipes/flag_metrics.py, which the test puts on the path.

GET /checkout and GET /search answer with what the flags serve; invented customers ask for both all the time. Two
things can go wrong with the new variations, by PUT and DELETE /fault/{flag}: a new checkout fails for every second
customer, and a new search leaves work behind that nobody sees in its answers.

Arguments: Rampart's address, an SDK key, and the port to listen on.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from flag_metrics import FlagMetrics
from ldclient import Config, Context, LDClient
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, disable_created_metrics, generate_latest

CHECKOUT, SEARCH = "checkout-v2", "search-v2"
PATHS = {"/checkout": CHECKOUT, "/search": SEARCH}
CUSTOMERS = 5000
BURST, PAUSE_SECONDS = 6, 0.02


class Shop:
    """`faults` are the flags whose new variation is broken; `served` says when each was served last, as new."""

    def __init__(self, client: LDClient, metrics: FlagMetrics) -> None:
        self._client, self._metrics = client, metrics
        self.faults: set[str] = set()
        self.served: dict[str, float] = {}
        self._backlog = Gauge("search_index_backlog", "Documents that wait to be indexed")

    def visit(self, flag: str, customer: int) -> int:
        """The status of the answer."""
        context = Context.builder(f"customer-{customer}").build()
        with self._metrics.request() as request:
            new = self._client.variation(flag, context, False)
            if new:
                self.served[flag] = time.time()
            code = 500 if new and flag == CHECKOUT and flag in self.faults and customer % 2 else 200
            request.code = code
            if new and flag == SEARCH and flag in self.faults:
                self._backlog.inc()
        return code

    def mend(self, flag: str) -> None:
        self.faults.discard(flag)
        if flag == SEARCH:
            self._backlog.set(0)

    def keep_visiting(self) -> None:
        customer = 0
        while True:
            for _ in range(BURST):
                customer = (customer + 1) % CUSTOMERS
                for flag in PATHS.values():
                    self.visit(flag, customer)
            time.sleep(PAUSE_SECONDS)


def door_of(shop: Shop) -> type[BaseHTTPRequestHandler]:
    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path in PATHS:
                self._answer(shop.visit(PATHS[self.path], 0), b"{}", "application/json")
            elif self.path == "/served":
                self._answer(200, json.dumps(shop.served).encode(), "application/json")
            else:
                self._answer(200, generate_latest(), CONTENT_TYPE_LATEST)

        def do_PUT(self) -> None:
            shop.faults.add(self.path.rpartition("/")[2])
            self._answer(204, b"", "text/plain")

        def do_DELETE(self) -> None:
            shop.mend(self.path.rpartition("/")[2])
            self._answer(204, b"", "text/plain")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
            """What it did is in its series."""

    return Door


def main() -> None:
    url, key, port = sys.argv[1:]
    disable_created_metrics()  # type: ignore[no-untyped-call]
    metrics = FlagMetrics(service="shop", environment="production")
    config = Config(
        key, base_uri=url, stream_uri=url, events_uri=url, send_events=False, diagnostic_opt_out=True,
        initial_reconnect_delay=0.2, hooks=[metrics],
    )  # fmt: skip
    shop = Shop(LDClient(config, start_wait=20), metrics)
    threading.Thread(target=shop.keep_visiting, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", int(port)), door_of(shop)).serve_forever()


main()
