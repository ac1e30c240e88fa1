"""Real web pages with real SDKs in a real Chromium: built with esbuild, driven with Playwright."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tests.support.repository import ROOT
from tests.support.server import wait_until

PEERS = ROOT / "tests" / "peers"
SOURCES = PEERS / "browser"
INSTALL = "these tests need Chromium, Node and packages of npm: run tests/peers/install.sh"


class Painted(NamedTuple):
    """`at`: milliseconds since 1970, when the browser had it on the screen."""

    flag: str
    on: bool
    at: int


class Page:
    """One visitor's."""

    def __init__(self, browser: "Browser", number: int) -> None:
        self._browser = browser
        self._number = number

    def painted(self, flag: str | None = None) -> list[Painted]:
        """What was on the screen, in order; all of it, or what one flag decides."""
        painted = [Painted(**one) for one in self._browser.ask("painted", page=self._number)]
        return [one for one in painted if flag in (None, one.flag)]

    def shows(self, flag: str) -> bool | None:
        """Whether it shows as on; None while it does not show at all."""
        painted = self.painted(flag)
        return painted[-1].on if painted else None

    def screenshot(self, path: Path) -> None:
        self._browser.ask("screenshot", page=self._number, path=str(path))

    def close(self) -> None:
        self._browser.ask("close", page=self._number)


class Browser:
    def __init__(self, process: "subprocess.Popen[str]", site: str) -> None:
        self._process = process
        self._site = site

    def ask(self, command: str, **options: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, **options}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the browser ended"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["answer"]

    def open(self, sdk: str, rampart: str, client_side_id: str, **visitor: str) -> Page:
        """The page built with that SDK, when something is on it. It comes from another origin than Rampart."""
        query = urlencode({"rampart": rampart, "id": client_side_id, **visitor})
        page = Page(self, self.ask("open", url=f"{self._site}/{sdk}/page.html?{query}"))
        wait_until(page.painted, what=f"something to be painted; the page says {self.ask('said')}")
        return page

    def said(self) -> list[str]:
        """What all pages wrote to their consoles."""
        return list(self.ask("said"))


@contextmanager
def running_browser(folder: Path, *sdks: str) -> Iterator[Browser]:
    """A browser, and a site in `folder` with a page for each SDK."""
    node, chromium = shutil.which("node"), shutil.which("chromium")
    assert node, INSTALL
    assert chromium, INSTALL
    for sdk in sdks:
        _build(sdk, folder / sdk)
    with _site(folder) as site:
        command = [node, str(SOURCES / "drive.mjs"), chromium]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PEERS)
        try:
            yield Browser(process, site)
        finally:
            process.communicate(timeout=20)


def _build(sdk: str, folder: Path) -> None:
    esbuild = PEERS / "node_modules" / ".bin" / "esbuild"
    assert esbuild.exists(), INSTALL
    folder.mkdir(parents=True)
    shutil.copy(SOURCES / "page.html", folder)
    subprocess.run(
        [
            *[str(esbuild), str(SOURCES / f"{sdk}.jsx"), f"--outfile={folder / 'bundle.js'}"],
            *["--bundle", "--format=esm", "--jsx=automatic", "--log-level=error"],
            '--define:process.env.NODE_ENV="production"',
        ],
        check=True,
        cwd=PEERS,
    )


@contextmanager
def _site(folder: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
