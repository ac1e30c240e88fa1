"""A service of twenty flags with docs/recipes/flag_otel.py, which the test puts on the path.

Arguments: Rampart's address, an SDK key, the port to show /metrics on, and the flags, separated by commas.
"""

import contextlib
import sys
import time

from flag_otel import FlagMetrics
from ldclient import Config, Context, LDClient
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server

CODES = (200, 200, 200, 404, 500)


def visit(flag_metrics: FlagMetrics, client: LDClient, flags: list[str], number: int) -> None:
    staff = number % 10 == 0
    email = "anna@acme.example" if staff else ""
    user = Context.builder(f"user-{number}").set("email", email).build()
    with flag_metrics.request() as request:
        for flag in flags:
            client.variation(flag, user, False)
        code = CODES[(number // 10 if staff else number) % 5]
        if code == 500:
            raise ZeroDivisionError
        request.code = code


def main() -> None:
    url, key, port, flags = sys.argv[1:]
    metrics.set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()]))
    flag_metrics = FlagMetrics(service="otel", environment="production")
    config = Config(
        key, base_uri=url, stream_uri=url, events_uri=url, send_events=False, diagnostic_opt_out=True,
        hooks=[flag_metrics],
    )  # fmt: skip
    client = LDClient(config, start_wait=20)
    start_http_server(int(port), "127.0.0.1")
    number = 0
    while True:
        for _ in range(20):
            number += 1
            with contextlib.suppress(ZeroDivisionError):
                visit(flag_metrics, client, flags.split(","), number)
        time.sleep(0.1)


main()
