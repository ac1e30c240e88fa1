"""One request to a receiver, and what is made of its answer."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from controller.channels import outbound
from controller.channels.outbound import LONGEST_AGAIN_SECONDS, SHOWN_CHARACTERS, Outbound
from controller.errors import Unavailable, Undeliverable
from tests.support.certificates import certificate
from tests.support.receivers import Fault, HttpReceiver


@pytest.fixture
async def out() -> AsyncIterator[Outbound]:
    one = Outbound("oncall", allow_private=True, timeout_seconds=5)
    yield one
    await one.close()


async def sent(out: Outbound, receiver: HttpReceiver) -> None:
    await out.post(outbound.address(receiver.url, "the address"), b"{}", {}, secrets=["keepThisForYourself"])


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("0", 0, 0),
        ("12", 12, 12),
        ("999999999", LONGEST_AGAIN_SECONDS, LONGEST_AGAIN_SECONDS),
        (timedelta(minutes=20), 600, 1200),
        (timedelta(days=-1), 0, 0),
    ],
    ids=str,
)
async def test_a_busy_receiver_says_when_in_seconds_or_as_a_date(
    out: Outbound, said: str | timedelta, least: float, most: float
) -> None:
    if isinstance(said, timedelta):
        said = format_datetime(datetime.now(UTC) + said, usegmt=True)
    async with HttpReceiver().open() as receiver:
        receiver.fault, receiver.retry_after = Fault.BUSY, said
        with pytest.raises(Unavailable, match="429") as caught:
            await sent(out, receiver)
        assert caught.value.again_in is not None
        assert least <= caught.value.again_in <= most


@pytest.mark.parametrize("said", ["", "-5", "soon", "1.5", "9" * 400 + "x", "²", "Wed, 99 Foo 2026"])
async def test_what_means_no_moment_is_no_moment(out: Outbound, said: str) -> None:
    async with HttpReceiver().open() as receiver:
        receiver.fault, receiver.retry_after = Fault.BUSY, said
        with pytest.raises(Unavailable) as caught:
            await sent(out, receiver)
        assert caught.value.again_in is None


async def test_a_receiver_that_cannot_prove_itself_gets_nothing(out: Outbound, tmp_path: Path) -> None:
    async with HttpReceiver(tls=certificate(tmp_path, "localhost").context).open() as receiver:
        with pytest.raises(Unavailable, match="certificate is not trusted"):
            await sent(out, receiver)
        assert receiver.seen == []


async def test_what_a_receiver_answers_is_shown_in_one_short_line(out: Outbound) -> None:
    async with HttpReceiver().open() as receiver:
        receiver.fault, receiver.words = Fault.REFUSED, "no\r\n  such \x1b[31mteam" + " keepThisForYourself" * 1000
        with pytest.raises(Undeliverable) as caught:
            await sent(out, receiver)
        assert "no such [31mteam … …" in str(caught.value)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < SHOWN_CHARACTERS + 100


async def test_an_answer_that_never_ends_is_not_read_to_its_end(
    out: Outbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "READ_SECONDS", 60.0)
    async with HttpReceiver().open() as receiver:
        receiver.fault = Fault.HUGE
        with pytest.raises(Unavailable, match="it answered 500: endless endless"):
            await sent(out, receiver)


async def test_no_cookie_and_no_connection_lives_longer_than_a_message_and_nothing_packed_is_asked_for(
    out: Outbound,
) -> None:
    async with HttpReceiver().open() as receiver:
        for _ in range(3):
            await sent(out, receiver)
        assert {received.headers["Accept-Encoding"] for received in receiver.seen} == {"identity"}
        assert {received.headers["Connection"] for received in receiver.seen} == {"close"}
        assert not any("Cookie" in received.headers for received in receiver.seen)
