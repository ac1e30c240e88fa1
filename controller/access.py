"""Who may do what: named tokens with scopes, hashed, verified from memory so that no database is needed."""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from controller.domain.catalogue import Scope, SdkKeyKind, Token
from controller.errors import Forbidden, Unauthenticated

TOKEN_PREFIX = "rampart_"  # noqa: S105 - a public prefix, not a secret
MANIFESTS = "manifests"
RESERVED_NAMES = frozenset({"rampart", MANIFESTS})
"""Actors that are no person's token: what the audit log says they did, nobody else may have done."""


class Actor(Struct, frozen=True, kw_only=True):
    """The holder of a token. Its name is what the audit log shows; it is never a parameter."""

    name: str
    scopes: tuple[Scope, ...]
    environments: tuple[str, ...] = ()

    def may(self, scope: Scope, environment: str | None = None) -> bool:
        here = environment is None or not self.environments or environment in self.environments
        return here and (scope in self.scopes or "admin" in self.scopes)

    def require(self, scope: Scope, environment: str | None = None) -> None:
        if not self.may(scope, environment):
            where = f" in {environment}" if environment else ""
            raise Forbidden(f'token "{self.name}" lacks the scope "{scope}"{where}')


def new_secret() -> str:
    """256 random bits behind a recognisable prefix. Shown once, stored only as its digest."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    """SHA-256: the secret has full entropy, so a slow hash would only slow the kill down."""
    return hashlib.sha256(secret.encode()).digest()


def key_digest(kind: SdkKeyKind, secret: str) -> bytes:
    """What a key is stored as.

    A version of Rampart that knows no kinds takes every key for a server's, and a client-side ID is public: so
    only a server key has a digest that such a version can be made to find. No text is encoded to a byte 255.
    """
    if kind == "server":
        return digest(secret)
    return hashlib.sha256(b"\xff" + f"{kind}:{secret}".encode()).digest()


class TokenBook:
    """All live tokens by digest. Loaded from the store, or from the last known copy when that is away."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, Token] = {}
        self._by_name: dict[str, Token] = {}

    def load(self, tokens: Iterable[Token]) -> None:
        self._by_digest = {token.digest: token for token in tokens}
        self._by_name = {token.name: token for token in self._by_digest.values()}

    def named(self, name: str) -> Token | None:
        return self._by_name.get(name)

    def all(self) -> list[Token]:
        return list(self._by_digest.values())

    def authenticate(self, secret: str, now: datetime) -> Actor:
        """Raises Unauthenticated. Looking up a digest leaks nothing about the secret's bytes."""
        token = self._by_digest.get(digest(secret))
        if token is None:
            raise Unauthenticated("unknown token; create one with `rampart token create`")
        return holder(token, now)


def holder(token: Token, now: datetime) -> Actor:
    """Raises Unauthenticated when the token has expired."""
    if token.expires_at is not None and token.expires_at <= now:
        raise Unauthenticated(f'token "{token.name}" expired at {token.expires_at:%Y-%m-%d %H:%M} UTC')
    return Actor(name=token.name, scopes=token.scopes, environments=token.environments)
