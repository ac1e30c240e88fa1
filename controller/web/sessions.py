"""Who is looking: a sealed cookie that every replica can open without a database, and what forms must prove.

A session names a token and when it ends. It is sealed with the token's digest, so that revoking or replacing the
token ends it at once; and with a key that is in no database, so that whoever reads digests there cannot make one.
"""

import base64
import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from msgspec import Struct

from controller.access import Actor, TokenBook, holder
from controller.domain.catalogue import Token
from controller.errors import Forbidden, Unauthenticated

COOKIE = "rampart_session"
LIFE = timedelta(hours=12)
SAME_SITE = ("same-origin", "none")
"""`none`: nobody's page, but the address bar or a bookmark."""


class Session(Struct, frozen=True, kw_only=True):
    """`csrf` goes into every form; another session's does not fit."""

    actor: Actor
    ends_at: datetime
    csrf: str


class Sessions:
    """`secure`: people come by https alone, and the cookie never goes over anything else."""

    def __init__(self, tokens: TokenBook, key: bytes, *, secure: bool) -> None:
        self._tokens = tokens
        self._key = key
        self._secure = secure

    def begin(self, secret: str, now: datetime) -> Cookie:
        """Raises Unauthenticated."""
        actor = self._tokens.authenticate(secret, now)
        token = self._tokens.named(actor.name)
        if token is None:
            raise Unauthenticated("the token was revoked a moment ago")
        ends_at = int((now + LIFE).timestamp())
        name = base64.urlsafe_b64encode(token.name.encode()).decode().rstrip("=")
        value = f"{name}.{ends_at}.{self._seal(token, ends_at, 'session')}"
        return self._cookie(value, int(LIFE.total_seconds()))

    def end(self) -> Cookie:
        return self._cookie("", 0)

    def _cookie(self, value: str, max_age: int) -> Cookie:
        # Lax, not Strict: a link in a message must arrive logged in. What changes something is a POST of ours.
        return Cookie(
            key=COOKIE,
            value=value,
            max_age=max_age,
            path="/",
            httponly=True,
            samesite="lax",
            secure=self._secure,
        )

    def open(self, cookie: str | None, now: datetime) -> Session | None:
        """None for what is no session of ours, or no longer one."""
        name, ends_at, seal = _parts(cookie)
        token = self._tokens.named(name) if name else None
        if token is None or not hmac.compare_digest(seal, self._seal(token, ends_at, "session")):
            return None
        ends = datetime.fromtimestamp(ends_at, now.tzinfo)
        if ends <= now:
            return None
        try:
            actor = holder(token, now)
        except Unauthenticated:
            return None
        return Session(actor=actor, ends_at=ends, csrf=self._seal(token, ends_at, "form"))

    def _seal(self, token: Token, ends_at: int, purpose: str) -> str:
        text = f"{purpose}\n{token.name}\n{ends_at}".encode() + token.digest
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()


def _parts(cookie: str | None) -> tuple[str, int, str]:
    name, _, rest = (cookie or "").partition(".")
    ends_at, _, seal = rest.partition(".")
    try:
        decoded = base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode()
        return decoded, int(ends_at[:15]), seal if seal.isascii() else ""
    except ValueError:
        return "", 0, ""


def require_own_page(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Raises Forbidden for what a page of somebody else sent. Browsers that say nothing of it are left to CSRF."""
    headers = connection.headers
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    foreign = site is not None and site not in SAME_SITE
    if site is None and origin is not None:
        foreign = urlsplit(origin).netloc != headers.get("host", "")
    if foreign:
        raise Forbidden("this was sent by a page that is not Rampart's; nothing was done")


def require_csrf(session: Session, given: str) -> None:
    """Raises Forbidden."""
    if not given.isascii() or not hmac.compare_digest(session.csrf, given):
        raise Forbidden(
            "this form is not of your present session; nothing was done. Go back, load the page again, repeat it"
        )
