"""Mail: never in the clear when it was to be hidden, once to each recipient, in threads."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from controller.channels import email
from controller.channels.email import EmailChannel
from controller.errors import SettingsError, Unavailable, Undeliverable
from controller.settings import EmailChannelSettings
from tests.contracts.channels_contract import KILLED
from tests.contracts.test_channels import WallClock, written
from tests.support.certificates import Certificate, certificate
from tests.support.receivers import Fault, SmtpReceiver

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH")  # of the test's own mail server
PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("tls"), "somebody-else.example")


def channel(receiver: SmtpReceiver, **changes: Any) -> EmailChannel:
    values: dict[str, Any] = {
        "host": "localhost",
        "port": receiver.port,
        "security": "none",
        "sender": "Rampart <rampart@acme.example>",
        "to": ["oncall@acme.example", "team@acme.example"],
        "timeout_seconds": 5.0,
    }
    return EmailChannel("mail", EmailChannelSettings(**(values | changes)), WallClock())


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_mail_and_login_go_through_tls_to_a_server_that_proves_itself(
    tmp_path: Path, good: Certificate, security: str
) -> None:
    server = SmtpReceiver(tls=good.context, implicit=security == "tls", logins={"rampart": PASSWORD})
    async with server.open():
        login = {"username": "rampart", "password_file": written(tmp_path / "password", PASSWORD)}
        await channel(server, security=security, ca_bundle=good.file, **login).announce(KILLED)
    assert server.logged_in == ["rampart"]
    assert len(server.taken) == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("believed", ["the system", "another name"])
async def test_a_server_that_cannot_prove_itself_gets_neither_mail_nor_login(
    tmp_path: Path, good: Certificate, wrong: Certificate, security: str, believed: str
) -> None:
    shown = good if believed == "the system" else wrong
    server = SmtpReceiver(tls=shown.context, implicit=security == "tls", logins={"rampart": PASSWORD})
    async with server.open():
        login = {"username": "rampart", "password_file": written(tmp_path / "password", PASSWORD)}
        ca_bundle = "" if believed == "the system" else wrong.file
        with pytest.raises(Unavailable, match="certificate is not trusted"):
            await channel(server, security=security, ca_bundle=ca_bundle, **login).announce(KILLED)
    assert (server.logged_in, server.seen) == ([], [])


async def test_a_server_that_does_not_offer_tls_gets_no_mail_in_the_clear(good: Certificate) -> None:
    async with SmtpReceiver().open() as server:
        with pytest.raises(Unavailable, match="STARTTLS"):
            await channel(server, security="starttls", ca_bundle=good.file).announce(KILLED)
        assert server.seen == []


async def test_a_wrong_password_is_for_good_and_not_shown(tmp_path: Path, good: Certificate) -> None:
    server = SmtpReceiver(tls=good.context, logins={"rampart": PASSWORD})
    async with server.open():
        login = {"username": "rampart", "password_file": written(tmp_path / "password", "a wrong secret")}
        with pytest.raises(Undeliverable, match="535") as caught:
            await channel(server, security="starttls", ca_bundle=good.file, **login).announce(KILLED)
    assert "a wrong secret" not in str(caught.value)
    assert server.seen == []


async def test_a_recipient_who_is_refused_for_now_gets_it_later_and_nobody_gets_it_twice() -> None:
    async with SmtpReceiver().open() as server:
        server.refused["team@acme.example"] = "450 grey"
        mail = channel(server)
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"team@acme\.example \(450: grey\)"):
                await mail.announce(KILLED)
        server.refused.clear()
        await mail.announce(KILLED)
        assert [received.path for received in server.taken] == ["oncall@acme.example", "team@acme.example"]


async def test_a_recipient_who_does_not_exist_is_told_of_and_keeps_nobody_from_the_mail() -> None:
    async with SmtpReceiver().open() as server:
        server.refused["team@acme.example"] = "550 no such user"
        with pytest.raises(Undeliverable, match=r"team@acme\.example \(550: no such user\)"):
            await channel(server).announce(KILLED)
        assert [received.path for received in server.taken] == ["oncall@acme.example"]


async def test_a_mail_that_is_sent_again_is_the_same_mail_and_one_run_is_one_thread() -> None:
    async with SmtpReceiver().open() as server:
        mail = channel(server)
        server.fault = Fault.LOST
        with pytest.raises(Unavailable):
            await mail.announce(KILLED)
        server.heal()
        await mail.announce(KILLED)
        await mail.announce(replace(KILLED, id="another", event="reset"))
        await mail.announce(replace(KILLED, id="third", run="checkout-v2#4"))
        first, again, same_run, next_run = (received.mail for received in server.taken)
        assert first["Message-ID"] == again["Message-ID"] != same_run["Message-ID"]
        assert first["References"] == same_run["References"] != next_run["References"]


async def test_a_server_that_took_the_mail_and_then_falls_silent_has_taken_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(email, "FAREWELL_SECONDS", 0.05)
    async with SmtpReceiver().open() as server:
        server.silent_at_the_end = True
        await channel(server).announce(KILLED)
        assert len(server.taken) == 1


async def test_a_file_of_authorities_that_is_none_is_named(tmp_path: Path) -> None:
    async with SmtpReceiver().open() as server:
        with pytest.raises(Unavailable, match=r"nothing\.pem"):
            await channel(server, security="tls", ca_bundle=str(tmp_path / "nothing.pem")).announce(KILLED)


async def test_what_stands_in_a_mail_is_text_in_both_its_forms() -> None:
    async with SmtpReceiver().open() as server:
        hostile = replace(
            KILLED, rollout="x\r\nBcc: all@acme.example\r\n\r\nhi", reason='<img src="x"> é 😀', owner="<b>o</b>"
        )
        await channel(server).announce(hostile)
        mail = server.taken[0].mail
        assert mail["Bcc"] is None
        assert mail["Subject"] == "Killed: x Bcc: all@acme.example hi in production"
        assert server.taken[0].path == "oncall@acme.example,team@acme.example"
        html, plain = mail.get_body(("html",)), mail.get_body(("plain",))
        assert html is not None
        assert plain is not None
        assert "&lt;img src=&quot;x&quot;&gt; é 😀" in html.get_content()
        assert '<img src="x"> é 😀' in plain.get_content()
        assert mail["Auto-Submitted"] == "auto-generated"
        assert all(byte < 128 for byte in server.taken[0].body)


@pytest.mark.parametrize(
    "changes",
    [
        {"to": []},
        {"to": ["nobody"]},
        {"to": ["a@b.example\r\nBcc: c@d.example"]},
        {"sender": "Rampart"},
        {"sender": "<>"},
        {"username": "rampart", "password_file": "/p"},
    ],
)
def test_settings_that_lead_nowhere_stop_the_start(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"channels\.mail"):
        channel(SmtpReceiver(), **changes)
