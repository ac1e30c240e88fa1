"""SIGTERM ends everything in order: streams, leases, database."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.support import manifests
from tests.support.exposition import Exposition, Traffic
from tests.support.server import RampartServer


@pytest.mark.timeout(90)
async def test_a_terminated_server_ends_its_streams_and_stops_its_database_politely(tmp_path: Path) -> None:
    app = Exposition({"checkout": {"on": Traffic(), "off": Traffic()}})
    server = RampartServer(tmp_path, manifests.scrape_settings(app.url))
    await asyncio.to_thread(server.start)
    try:
        server.apply(
            a_policy=manifests.policy(), a_flag=manifests.flag("checkout"), a_rollout=manifests.plan("checkout")
        )
        server.command("checkout", "start")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /all HTTP/1.1\r\nHost: x\r\nAuthorization: " + server.sdk_key().encode() + b"\r\n\r\n")
        await reader.readuntil(b"event: put")
        began = time.monotonic()
        assert await asyncio.to_thread(server.stop) == 0
        assert time.monotonic() - began < 15
        assert (await reader.read())[-5:] == b"0\r\n\r\n", "the stream ends as a whole HTTP answer does"
        writer.close()
    finally:
        server.kill()
        app.close()
    log = (server.data / "postgres" / "postgres.log").read_text()
    assert "received fast shutdown request" in log
    assert "immediate shutdown" not in log
    assert not server.postmaster_file.exists()
