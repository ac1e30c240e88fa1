"""To Slack, or whoever takes its incoming webhooks: the headline, the one reason, the numbers, two buttons."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import msgspec

from controller.channels import outbound
from controller.channels.outbound import Outbound
from controller.domain import telling
from controller.domain.message import Message
from controller.ports import Clock
from controller.settings import SlackChannelSettings

# Slack refuses a whole message of which one part is longer; an escaped character counts as what it became.
HEADER_CHARACTERS = 150
SECTION_CHARACTERS = 3000
FIELD_CHARACTERS = 2000
URL_CHARACTERS = 3000
FIELDS_PER_SECTION = 10
ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}

_encoder = msgspec.json.Encoder()

Block = dict[str, Any]


class SlackChannel:
    resolves = False

    def __init__(self, name: str, settings: SlackChannelSettings, clock: Clock) -> None:
        self._settings = settings
        self._outbound = Outbound(
            name, allow_private=settings.allow_private, timeout_seconds=settings.timeout_seconds
        )

    async def announce(self, message: Message) -> None:
        url, secrets = await outbound.secret_address(self._settings.url_file)
        await self._outbound.post(url, _encoder.encode(content(message)), {}, secrets=secrets)

    async def close(self) -> None:
        await self._outbound.close()


def content(message: Message) -> dict[str, Any]:
    """`text` is what notifications on a phone show."""
    headline, reason = telling.headline(message), telling.reason(message)
    blocks = [
        {
            "type": "header",
            "text": {
                "type": "plain_text",
                "text": telling.shortened(headline, HEADER_CHARACTERS),
                "emoji": False,
            },
        },
        {"type": "section", "text": _text(escaped(reason or headline, SECTION_CHARACTERS))},
        *_facts(message),
        *_buttons(message),
    ]
    return {"text": escaped(f"{headline} – {reason}", SECTION_CHARACTERS), "blocks": blocks}


def _facts(message: Message) -> Iterator[Block]:
    fields = [
        _text(f"*{label}*\n{escaped(text, FIELD_CHARACTERS - len(label) - 3)}")
        for label, text in telling.facts(message)
    ]
    for first in range(0, len(fields), FIELDS_PER_SECTION):
        yield {"type": "section", "fields": fields[first : first + FIELDS_PER_SECTION]}


def _buttons(message: Message) -> Iterator[Block]:
    buttons = [
        {"type": "button", "text": {"type": "plain_text", "text": words, "emoji": False}, "url": link}
        for words, link in telling.links(message)
        if len(link) <= URL_CHARACTERS
    ]
    if buttons:
        yield {"type": "actions", "elements": buttons}


def _text(text: str) -> Block:
    # Verbatim: no name in it becomes a mention, no word a link.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def escaped(text: str, most: int) -> str:
    """What stands for itself in Slack's markup, cut to `most` characters where no escape is cut in two."""
    forms = [ESCAPES.get(letter, letter) for letter in text[: most + 1]]
    lengths = list(accumulate(map(len, forms)))
    if not lengths or lengths[-1] <= most:
        return "".join(forms)
    return "".join(forms[: bisect_right(lengths, most - 1)]) + "…"
