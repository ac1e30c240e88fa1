"""By mail, over SMTP: once to every recipient, and in one thread for each run."""

import asyncio
import hashlib
import ssl
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from html import escape

import aiosmtplib
from aiosmtplib import (
    SMTPException,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPTimeoutError,
)

from controller.channels import outbound
from controller.channels.names import OwnResolver, connected
from controller.domain import telling
from controller.domain.message import Message
from controller.errors import SettingsError, Unavailable, Undeliverable
from controller.ports import Clock
from controller.settings import EmailChannelSettings
from controller.telemetry import hide

MAIL_POLICY = SMTP.clone(cte_type="7bit")
"""Not every server takes eight bits."""

MESSAGES_REMEMBERED = 1_000
NEVER = 500
"""SMTP answers from here on are for good; below it they are for now."""

SHOWN_CHARACTERS = 200
FAREWELL_SECONDS = 0.5


class EmailChannel:
    resolves = False

    def __init__(self, name: str, settings: EmailChannelSettings, clock: Clock) -> None:
        if settings.username and settings.security == "none":
            raise SettingsError(
                f"channels.{name}: a login would be sent for everybody to read; choose starttls or tls"
            )
        if not settings.to:
            raise SettingsError(f"channels.{name}.to is empty: name at least one address")
        self._settings = settings
        self._sender = _address(settings.sender, f"channels.{name}.sender")
        self._to = [_address(one, f"channels.{name}.to").addr_spec for one in settings.to]
        self._reached: OrderedDict[str, set[str]] = OrderedDict()
        self._resolver = OwnResolver(name)

    async def announce(self, message: Message) -> None:
        """To those who have not got it yet: a recipient who is refused for now keeps nobody else waiting."""
        password = ""
        if self._settings.password_file:
            (password,) = await outbound.secrets_of(self._settings.password_file)
            hide(password)
        mail = mail_of(message, self._sender, self._to)
        reached = self._reached_by(message.id)
        left = [one for one in self._to if one not in reached]
        with self._in_words(password):
            refused = await self._send(mail, left, password)
        reached.update(one for one in left if one not in refused)
        if refused:
            raise _problem(refused)
        self._reached.pop(message.id, None)

    async def close(self) -> None:
        """Every message has a connection of its own."""
        await self._resolver.close()

    def _reached_by(self, message_id: str) -> set[str]:
        reached = self._reached.setdefault(message_id, set())
        self._reached.move_to_end(message_id)
        while len(self._reached) > MESSAGES_REMEMBERED:
            self._reached.popitem(last=False)
        return reached

    async def _send(self, mail: EmailMessage, to: Sequence[str], password: str) -> dict[str, tuple[int, str]]:
        """Who was refused, and how the server put it."""
        settings = self._settings
        context = None
        if settings.security != "none":
            context = await asyncio.to_thread(_believing, settings.ca_bundle)
        client = aiosmtplib.SMTP(
            hostname=settings.host,
            use_tls=settings.security == "tls",
            start_tls=False,
            tls_context=context,
            # Its own would be looked up.
            local_hostname=self._sender.domain,
            timeout=settings.timeout_seconds,
        )
        try:
            async with asyncio.timeout(settings.timeout_seconds):
                found = await self._resolver.resolve(settings.host, settings.port)
                await client.connect(sock=await connected(found))
                if settings.security == "starttls":
                    await _hide(client)
                if settings.username:
                    await client.login(settings.username, password)
                refused = await _delivered(client, mail, self._sender.addr_spec, to)
            await _part(client)
        finally:
            client.close()
        return refused

    @contextmanager
    def _in_words(self, password: str) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, SMTPTimeoutError) as error:
            raise Unavailable(f"no answer within {self._settings.timeout_seconds:g} s") from error
        except SMTPResponseException as error:
            said = f"it answered {error.code}: {_shown(error.message, password)}"
            raise (Undeliverable if error.code >= NEVER else Unavailable)(said) from None
        except ssl.SSLCertVerificationError as error:
            raise Unavailable("cannot connect: its certificate is not trusted") from error
        except (SMTPException, OSError, ValueError) as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise Unavailable("cannot connect: its certificate is not trusted") from error
            # Its text may hold the login.
            raise Unavailable(f"cannot reach the mail server ({type(error).__name__})") from None


def _believing(ca_bundle: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_bundle or None)
    except OSError as error:
        raise Unavailable(f"cannot read certificates from ca_bundle {ca_bundle}") from error


async def _part(client: aiosmtplib.SMTP) -> None:
    """Whatever becomes of the farewell: the mail is theirs already."""
    with suppress(SMTPException, OSError, TimeoutError):
        async with asyncio.timeout(FAREWELL_SECONDS):
            await client.quit()


async def _hide(client: aiosmtplib.SMTP) -> None:
    """Never goes on in the clear: somebody on the way may have taken the offer out."""
    await client.ehlo()
    if not client.supports_extension("starttls"):
        raise Unavailable('the mail server does not offer STARTTLS; choose security = "tls" or "none"')
    await client.starttls()


async def _delivered(
    client: aiosmtplib.SMTP, mail: EmailMessage, sender: str, to: Sequence[str]
) -> dict[str, tuple[int, str]]:
    try:
        refused, _ = await client.sendmail(sender, list(to), mail.as_bytes(policy=MAIL_POLICY))
    except SMTPRecipientsRefused as error:
        return {one.recipient: (one.code, one.message) for one in error.recipients}
    return {who: (answer.code, answer.message) for who, answer in refused.items()}


def mail_of(message: Message, sender: Address, to: Sequence[str]) -> EmailMessage:
    """Plain text, and the same as simple HTML."""
    mail = EmailMessage(policy=MAIL_POLICY)
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Subject"] = telling.headline(message)
    mail["Date"] = message.at
    mail["Message-ID"] = _mail_id(message.id, sender.domain)
    thread = _mail_id(f"thread of {message.run or message.flag}", sender.domain)
    mail["In-Reply-To"] = thread
    mail["References"] = thread
    # So that no absence note comes back.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(_plain(message))
    mail.add_alternative(_html(message), subtype="html")
    return mail


def _mail_id(about: str, domain: str) -> str:
    """The same whenever the same is sent again: by it mail programs recognise what they have."""
    return f"<{hashlib.sha256(about.encode()).hexdigest()[:32]}@{domain}>"


def _plain(message: Message) -> str:
    facts = "\n".join(f"{label}: {text}" for label, text in telling.facts(message))
    links = "\n".join(f"{words}: {link}" for words, link in telling.links(message))
    return "\n\n".join(part for part in (telling.headline(message), telling.reason(message), facts, links) if part)


def _html(message: Message) -> str:
    rows = "".join(
        f'<tr><td style="padding-right:1em"><b>{escape(label)}</b></td><td>{escape(text)}</td></tr>'
        for label, text in telling.facts(message)
    )
    links = "".join(
        f'<p><a href="{escape(link)}">{escape(words)}</a></p>' for words, link in telling.links(message)
    )
    return (
        f'<html><body style="font-family:sans-serif"><h2>{escape(telling.headline(message))}</h2>'
        f'<p style="white-space:pre-line">{escape(telling.reason(message))}</p>'
        f"<table>{rows}</table>{links}</body></html>"
    )


def _problem(refused: dict[str, tuple[int, str]]) -> Unavailable | Undeliverable:
    """Once nobody is left who may take it later, it is for good."""
    said = ", ".join(f"{who} ({code}: {_shown(words, '')})" for who, (code, words) in sorted(refused.items()))
    never = all(code >= NEVER for code, _ in refused.values())
    return (Undeliverable if never else Unavailable)(f"refused for {said}")


def _shown(said: str, password: str) -> str:
    hidden = said.replace(password, "…") if password else said
    return telling.shortened(telling.one_line(hidden), SHOWN_CHARACTERS)


def _address(text: str, setting: str) -> Address:
    """`Rampart <rampart@example.com>` or `rampart@example.com`. Raises SettingsError."""
    name, _, rest = text.rpartition("<")
    try:
        address = Address(display_name=name.strip(), addr_spec=rest.removesuffix(">").strip())
    except (ValueError, HeaderParseError, IndexError) as error:
        raise SettingsError(f"{setting} is no mail address: {text}") from error
    if not address.username or not address.domain or not text.isascii():
        raise SettingsError(f"{setting} is no mail address: {text}")
    return address
