"""What people do on the pages, as they do it: by what they read there, and never by an address they know."""

import re

from playwright.sync_api import Locator

from tests.peers.pages.chromium import Visitor

KILLED = "Killed: everybody gets the fallback"
TICKS = ["Accepted", "Provider updated", "Confirmed: read back as off"]


def follow(visitor: Visitor, name: str) -> None:
    link = visitor.page.get_by_role("link", name=re.compile(name, re.IGNORECASE)).first
    with visitor.page.expect_navigation():
        link.click()


def order(visitor: Visitor, flag: str, label: str, *, text: str, choice: str = "") -> None:
    """From the page of the rollout over the page of the order; ends where that leads."""
    visitor.open(f"/r/{flag}" if visitor.look.device == "phone" else f"/rollouts/{flag}")
    follow(visitor, f"^{label}$")
    if choice:
        visitor.page.get_by_role("radio", name=choice).check()
    visitor.page.get_by_role("textbox").fill(text)
    press(visitor, visitor.page.get_by_role("button", name=re.compile(f"^{label}$")))


def press(visitor: Visitor, button: Locator) -> None:
    with visitor.page.expect_navigation():
        button.click()


def inbox(visitor: Visitor, flag: str) -> Locator:
    """What the inbox says of it, once it is there."""
    visitor.open("/approvals")
    visitor.see(flag, live=False)
    return visitor.page.get_by_role("article").filter(has_text=flag)


def approve(visitor: Visitor, flag: str, note: str) -> None:
    card = inbox(visitor, flag)
    card.get_by_label("Note").fill(note)
    press(visitor, card.get_by_role("button", name=f"Approve {flag}"))


def kill(visitor: Visitor, flag: str, *, reason: str = "error spike", text: str = "INC-4821") -> None:
    """As far as the page that says how far the kill has come."""
    visitor.open(f"/r/{flag}")
    follow(visitor, "kill$")
    visitor.page.get_by_role("radio", name=reason).check()
    visitor.page.get_by_role("textbox").fill(text)
    press(visitor, visitor.page.get_by_role("button", name="Kill for everyone"))


def ticked(visitor: Visitor) -> list[str]:
    """The ticks of the result page, once it says that all is done, without their times."""
    visitor.see(KILLED)
    lines = visitor.page.get_by_role("main").get_by_role("listitem").all_inner_texts()
    return [found[1] for line in lines if (found := re.match(r"✔\s*(.*?) (?:\d\d:|\d{4}-)", line))]
