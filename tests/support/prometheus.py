"""A real Prometheus on a loopback port, and something for it (or for Rampart) to scrape."""

import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

READY_SECONDS = 20.0
STOP_SECONDS = 10.0


def prometheus_binary() -> str:
    found = os.environ.get("RAMPART_TEST_PROMETHEUS") or shutil.which("prometheus")
    if not found or not Path(found).is_file():
        raise RuntimeError(
            "these tests need a Prometheus: apt-get install prometheus, or set RAMPART_TEST_PROMETHEUS to a binary"
        )
    return found


@contextmanager
def running_prometheus(
    directory: Path,
    targets: Sequence[str],
    *,
    scrape_interval: str = "500ms",
    arguments: Sequence[str] = (),
    replica: str = "",
    writes_to: str = "",
) -> Iterator[str]:
    """Start Prometheus with its data in `directory`, scraping `targets` (host:port); yields its address.

    `replica` names it in a label of all it writes to the Prometheus at `writes_to`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "prometheus.yml"
    config.write_text(
        f"global: {{ scrape_interval: {scrape_interval}, scrape_timeout: {scrape_interval},"
        f" external_labels: {{ {f'prometheus_replica: {replica}' if replica else ''} }} }}\n"
        f"scrape_configs: [{{ job_name: app, static_configs: [{{ targets: {list(targets)} }}] }}]\n"
        + (f"remote_write: [{{ url: {writes_to}/api/v1/write }}]\n" if writes_to else "")
    )
    address = f"127.0.0.1:{free_port()}"
    command = [
        prometheus_binary(),
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
        *arguments,
    ]
    logfile = directory / "prometheus.log"
    with logfile.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait_until_ready(process, f"http://{address}/-/ready", logfile)
        yield f"http://{address}"
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, logfile: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        # Refused and 503 both mean: not yet.
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"Prometheus did not become ready:\n{logfile.read_text(errors='replace')[-2000:]}")


class ExpositionServer:
    """A target: serves what `render` returns under /metrics, from its own thread, until it is closed."""

    def __init__(self, render: Callable[[], str], *, port: int = 0) -> None:
        self.render = render
        self.status = 200
        self.delay_seconds = 0.0
        self.seen_headers: deque[dict[str, str]] = deque(maxlen=10)
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """May be called twice."""
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        exposed = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                exposed.seen_headers.append({"path": self.path, **dict(self.headers)})
                time.sleep(exposed.delay_seconds)
                body = exposed.render().encode()
                self.send_response(exposed.status)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                # A scraper that gave up has closed its end.
                with suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
                """Tests read what was served, not a log."""

        return Handler
