"""A message in words, for every channel alike: a headline, the one reason, and the facts with their units."""

import re
from collections.abc import Iterator

from controller.domain.message import Cited, Message
from controller.domain.quantities import exposure_text
from controller.domain.wording import quantity

LONGEST_REASON = 2_000
"""Characters. Whoever pauses may write as much as a plan is long; what matters stands at the beginning."""

LONGEST_FACT = 300
WEB_ADDRESS = re.compile(r"https?://[^\s<>\"]+\Z")
ROLLOUT_LINK, RUNBOOK_LINK = "Open the rollout", "Runbook"
HEADLINES = {
    "started": "Started",
    "advanced": "Raised",
    "paused": "Paused",
    "resumed": "Resumed",
    "stepped_back": "Stepped back",
    "killed": "Killed",
    "completed": "Completed",
    "approval": "Waits for approval",
    "reset": "Kill reset",
    "abandoned": "Abandoned",
}
TEST_HEADLINE = "Test message of Rampart"


def headline(message: Message) -> str:
    """One line: `Raised to 10 %: checkout-v2 in production`."""
    if message.event == "test":
        return TEST_HEADLINE
    happened = HEADLINES[message.event]
    if message.event in ("advanced", "stepped_back") and message.exposure is not None:
        happened += f" to {exposure_text(message.exposure)}"
    where = f" in {message.environment}" if message.environment else ""
    unreal = " (only observed)" if message.observed else ""
    return one_line(f"{happened}: {message.rollout or message.flag}{where}{unreal}")


def reason(message: Message) -> str:
    return shortened(printable(message.reason), LONGEST_REASON)


def facts(message: Message) -> list[tuple[str, str]]:
    """Labels and texts in the order of their importance; what is unknown is left out."""
    pairs = [*_numbers(message.cited), *_circumstances(message)] if message.cited else _circumstances(message)
    return [(label, shortened(one_line(text), LONGEST_FACT)) for label, text in pairs if text]


def _numbers(cited: Cited) -> Iterator[tuple[str, str]]:
    yield "Rule", f"{cited.policy}/{cited.rule}: {cited.condition}"
    yield "Value", quantity(cited.value, cited.unit)
    yield "Limit", quantity(cited.limit, cited.unit)
    yield "Baseline", quantity(cited.baseline, cited.unit)
    yield "Sample", "–" if cited.sample is None else f"{cited.sample:.0f} requests"


def _circumstances(message: Message) -> Iterator[tuple[str, str]]:
    yield "Exposure", _exposure(message)
    yield "By", _who(message)
    yield "At", message.at.strftime("%Y-%m-%d %H:%M:%S UTC")
    yield "Run", f"{message.run} of {message.flag}" if message.run else ""
    yield "Flag", "" if message.run else message.flag
    yield "Owner", message.owner


def _exposure(message: Message) -> str:
    if message.exposure is None:
        return ""
    share = exposure_text(message.exposure)
    return f"would be {share}" if message.observed else f"{share} from now on"


def _who(message: Message) -> str:
    return message.actor if message.cause in ("", "user") else f"{message.actor} ({message.cause})"


def one_line(text: str) -> str:
    return " ".join(printable(text).split())


def printable(text: str) -> str:
    """Without what terminals, mail programs or readers may take for a command: control and direction marks."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def links(message: Message) -> list[tuple[str, str]]:
    """Words and web addresses, where there are any; a plan may name anything as its runbook."""
    named = [(ROLLOUT_LINK, message.link), (RUNBOOK_LINK, message.runbook)]
    return [(words, link) for words, link in named if WEB_ADDRESS.match(link)]
