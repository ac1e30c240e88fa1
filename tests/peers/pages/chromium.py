"""A real Chromium, and people in it: on a desk or a phone, with or without JavaScript, in light or dark."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

from tests.support.repository import ROOT

AXE = ROOT / "tests" / "peers" / "node_modules" / "axe-core" / "axe.min.js"
INSTALL = "these tests need Chromium and packages of npm: run tests/peers/install.sh"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
RUN_AXE = """
tags => axe.run(document, {
    runOnly: { type: "tag", values: tags }, resultTypes: ["violations"], preload: false, iframes: false
  })
  .then(found => found.violations.flatMap(one => one.nodes.map(
    node => `${one.id}: ${node.target} ${node.failureSummary} ${node.html.slice(0, 200)}`)))
"""
TARGETS = """
() => [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")]
  .filter(one => one.checkVisibility() && !one.closest("[aria-hidden=true]"))
  .filter(one => one.getBoundingClientRect().bottom > 0)
  .map(one => {
    const box = (one.closest("label") || one).getBoundingClientRect();
    const inline = one.tagName === "A" && getComputedStyle(one).display === "inline";
    return { name: one.textContent.trim() || one.name || one.id, height: box.height, width: box.width, inline };
  })
"""
SIZES: dict[str, ViewportSize] = {
    "desktop": {"width": 1280, "height": 800},
    "phone": {"width": 390, "height": 844},
}
DEADLINE_MS = 20_000.0


class Look(NamedTuple):
    device: str
    javascript: bool
    scheme: str

    def __str__(self) -> str:
        return f"{self.device}-{'js' if self.javascript else 'nojs'}-{self.scheme}"


LOOKS = [Look(*one) for one in product(SIZES, (True, False), ("light", "dark"))]


class Visitor:
    """One person's browser. Of the page opened last: `source` its bytes, `said` its console."""

    def __init__(self, context: BrowserContext, url: str, look: Look) -> None:
        self.context = context
        self.url = url
        self.look = look
        self.page: Page = context.new_page()
        self._devtools = context.new_cdp_session(self.page)
        self._scripts(allowed=look.javascript)
        self.said: list[str] = []
        self._streams: list[str] = []
        self.source = b""
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", self._note)

    def _scripts(self, *, allowed: bool) -> None:
        self._devtools.send("Emulation.setScriptExecutionDisabled", {"value": not allowed})

    def _note(self, request: Any) -> None:
        if request.resource_type == "eventsource":
            self._streams.append(request.headers.get("referer", ""))

    def streams(self) -> int:
        """How many event streams the present page has asked for."""
        return self._streams.count(self.page.url)

    def open(self, path: str) -> Page:
        self.said.clear()
        answer = self.page.goto(self.url + path, wait_until="load")
        self.source = answer.body() if answer else b""
        return self.page

    def log_in(self, secret: str) -> None:
        page = self.open("/login")
        page.get_by_label("token").fill(secret)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(lambda address: "/login" not in address)

    def see(self, *texts: str, live: bool = True) -> None:
        """Waits until the page shows them: by itself with JavaScript, loaded anew without or if not `live`."""
        for text in texts:
            found = self.page.get_by_text(text).first
            if self.look.javascript and live:
                found.wait_for()
                continue
            for _ in range(60):
                if found.is_visible():
                    break
                self.page.wait_for_timeout(300)
                self.page.reload(wait_until="load")
            assert found.is_visible(), f"{text!r} is not on {self.page.url}: {self.words()}"

    def focused(self) -> str:
        """The text of what a key would act on; empty when that is nothing."""
        text: str = self.page.evaluate(
            "document.activeElement === document.body ? '' : document.activeElement.textContent.trim()"
        )
        return text

    def words(self) -> str:
        return self.page.locator("body").inner_text()

    def violations(self) -> list[str]:
        """What breaks WCAG 2.2 AA on this page: with JavaScript, at each size in each scheme; without, in two.

        Axe is evaluated, not added to the page, whose policy allows no such script. It waits for timers, which
        need scripts to be allowed; those of a page without JavaScript were passed over when it was read.
        """
        assert AXE.exists(), INSTALL
        self._scripts(allowed=True)
        self.page.evaluate(AXE.read_text() + ";0")
        found: list[str] = []
        both = list(product(SIZES, ("light", "dark")))
        for device, scheme in both if self.look.javascript else both[1:3]:
            self.page.set_viewport_size(SIZES[device])
            self.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            found += [f"{device} {scheme} {one}" for one in self.page.evaluate(RUN_AXE, WCAG)]
        self._scripts(allowed=self.look.javascript)
        return found

    def overflow(self) -> int:
        """How many pixels wider than the window the page is: one would have to scroll sideways."""
        wider: int = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return wider

    def targets(self) -> list[dict[str, Any]]:
        """What one can tap, with its size in CSS pixels."""
        found: list[dict[str, Any]] = self.page.evaluate(TARGETS)
        return found


class Chromium:
    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    @contextmanager
    def visitor(self, url: str, look: Look) -> Iterator[Visitor]:
        context = self._browser.new_context(
            viewport=SIZES[look.device],
            color_scheme="dark" if look.scheme == "dark" else "light",
            has_touch=look.device == "phone",
            is_mobile=look.device == "phone",
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
        )
        context.set_default_timeout(DEADLINE_MS)
        try:
            yield Visitor(context, url, look)
        finally:
            context.close()


@contextmanager
def running_chromium() -> Iterator[Chromium]:
    found = shutil.which("chromium")
    assert found, INSTALL
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield Chromium(browser)
        finally:
            browser.close()
