"""What a browser without JavaScript does with our pages: follows links, keeps cookies, sends forms as they are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Any, cast

import httpx
from litestar import Litestar

from controller.web import Pages
from controller.web.rendering import Renderer
from tests.api.fake_engine import FakeEngine

Fields = list[tuple[str, str]]
RENDERER = Renderer()
"""Templates are compiled once for all tests."""


class Document(HTMLParser):
    """Text as people read it, links by their text, and forms with what is filled in already."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.words: list[str] = []
        self.links: dict[str, str] = {}
        self.forms: dict[str, Fields] = {}
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._link: str | None = None
        self._form = ""
        self._silent = False
        self.feed(source)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append((tag, values))
        match tag:
            case "a":
                self._link = values.get("href", "")
            case "form":
                self._form = f"{values.get('method', 'get').upper()} {values['action']}"
                self.forms.setdefault(self._form, [])
            case "input" if values.get("name") and self._is_sent(values):
                self.forms[self._form].append((values["name"], values.get("value", "")))
            case "title" | "script":
                self._silent = True

    @staticmethod
    def _is_sent(values: dict[str, str]) -> bool:
        return values.get("type") not in ("radio", "checkbox") or "checked" in values

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._link = None
        if tag in ("title", "script"):
            self._silent = False

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        self.words.append(data)
        if self._link is not None and data.strip():
            self.links[" ".join(data.split())] = self._link


class Page:
    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.status = response.status_code
        self.path = response.url.raw_path.decode()
        self.document = Document(response.text)

    @property
    def text(self) -> str:
        return self.document.text


class Browser:
    def __init__(self, client: httpx.AsyncClient, pages: Pages) -> None:
        self.client = client
        self.pages = pages

    async def get(self, path: str, **headers: str) -> Page:
        return Page(await self.client.get(path, headers=headers, follow_redirects=True))

    async def post(self, path: str, fields: Fields, **headers: str) -> Page:
        """As filled in; nothing is added."""
        data: dict[str, list[str]] = {}
        for name, value in fields:
            data.setdefault(name, []).append(value)
        return Page(await self.client.post(path, data=data, headers=headers, follow_redirects=True))

    async def submit(self, page: Page, action: str, **filled: str) -> Page:
        """The page's form of that action, with these fields filled in or chosen."""
        fields = [one for one in page.document.forms[f"POST {action}"] if one[0] not in filled]
        return await self.post(action, [*fields, *filled.items()])

    async def log_in(self, secret: str, target: str = "/") -> Page:
        return await self.post("/login", [("token", secret), ("next", target)])


@asynccontextmanager
async def browsing(engine: FakeEngine, address: str = "192.0.2.1") -> AsyncIterator[Browser]:
    """The pages alone, in this event loop; errors of the application stay answers."""
    pages = Pages(engine, RENDERER)
    app = Litestar(route_handlers=pages.handlers(), openapi_config=None, logging_config=None)
    transport = httpx.ASGITransport(app=cast("Any", app), raise_app_exceptions=False, client=(address, 40_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://rampart.test") as client:
        yield Browser(client, pages)
