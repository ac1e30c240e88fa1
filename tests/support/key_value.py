"""An HTTP key-value store as a company might have one: entity tags, and who wrote last."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web


class KeyValueStore:
    """`documents` by path. A write names the version it replaces, or nothing happens."""

    def __init__(self) -> None:
        self.url = ""
        self.documents: dict[str, dict[str, Any]] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator["KeyValueStore"]:
        app = web.Application()
        app.router.add_get("/{path:.+}", self._get)
        app.router.add_put("/{path:.+}", self._put)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def write(self, path: str, document: dict[str, Any], *, by: str) -> None:
        self.documents[path] = document | {"changedBy": by, "changedAt": datetime.now(UTC).isoformat()}

    async def _get(self, request: web.Request) -> web.Response:
        document = self.documents.get(request.match_info["path"])
        if document is None:
            raise web.HTTPNotFound(text="no such key")
        return web.json_response(document, headers={"ETag": _tag(document)})

    async def _put(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        document = self.documents.get(path)
        if document is None or request.headers.get("If-Match") != _tag(document):
            raise web.HTTPPreconditionFailed(text="it is not the version you read")
        self.write(path, json.loads(await request.text()), by="rampart")
        return web.json_response({})


def _tag(document: dict[str, Any]) -> str:
    return f'"{hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]}"'
