"""Messages on their way to channels: owed, waiting, or dead."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from controller.domain.message import Message

NotificationResult = Literal["ok", "unavailable", "undeliverable", "failed", "given_up", "dropped"]
"""Of one attempt: taken, to be tried again, refused for good, a defect of ours. Then what became of messages: dead
without an answer, or dropped because there were too many dead ones."""


class Owed(Struct, frozen=True, kw_only=True):
    """One channel is to be told of one audit entry. Messages of one thread are told in order."""

    channel: str
    thread: str
    message: Message


class Waiting(Struct, frozen=True, kw_only=True):
    """`waited_seconds`: since it was taken, or last sent again by a person."""

    thread: str
    message: Message
    waited_seconds: float
    attempts: int = 0


class Backlog(Struct, frozen=True, kw_only=True):
    """What is left to one channel. `why`: what came of the last attempt at the oldest that failed and waits."""

    channel: str
    waiting: int = 0
    oldest_waiting_seconds: float = 0.0
    dead: int = 0
    why: str = ""


class DeadLetter(Struct, frozen=True, kw_only=True):
    """`why` it was given up, after how many failed `attempts`. `message` is None when it cannot be read.

    `id` is a number as text: of two letters the one that was taken later has the higher one.
    """

    id: str
    channel: str
    died_at: datetime
    attempts: int
    why: str
    message: Message | None


class Shed(Struct, frozen=True, kw_only=True):
    """Of one channel: how many became dead letters to make room, and how many dead letters were dropped."""

    channel: str
    given_up: int = 0
    dropped: int = 0


class Letters(Struct, frozen=True, kw_only=True):
    """Which dead letters are meant: those of `ids`, or all of `channel`; with both, those of both."""

    ids: tuple[str, ...] | None = None
    channel: str | None = None


class LettersChanged(Struct, frozen=True, kw_only=True):
    """The ids of those that were there."""

    ids: list[str]
