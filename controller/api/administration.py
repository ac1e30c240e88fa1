"""Tokens, SDK keys and the built-in flags: who may call, and what is served to whom."""

import secrets
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

from litestar import delete, get, post
from litestar.params import JSONBody, PathParameter

from controller.access import RESERVED_NAMES, Actor, digest, key_digest, new_secret
from controller.api.authentication import needs
from controller.api.bodies import (
    NewSdkKey,
    NewToken,
    SdkKeyBody,
    SdkKeyView,
    TokenBody,
    TokenView,
)
from controller.api.decoding import JsonBody
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import FlagConfig, SdkKey, SdkKeyKind, Token
from controller.domain.quantities import NAME_PATTERN, seconds
from controller.errors import Conflict, Forbidden, Invalid, NotFound, Refused
from controller.facade import Caller, Engine, Served

SDK_KEY_PREFIXES = {"server": "sdk-", "mobile": "mob-"}
CLIENT_SIDE_ID_BYTES = 12
MAX_LIFETIME_SECONDS = 10 * 366 * 86_400

PathName = Annotated[str, PathParameter(pattern=NAME_PATTERN)]


@get("/flags", summary="The flags of the built-in provider", **needs("read"))
async def list_flags(engine: Served) -> list[FlagConfig]:
    return list(await engine.store.flag_configs())


@get("/tokens", summary="All tokens, without their secrets", **needs("admin"))
async def list_tokens(engine: Served) -> list[TokenView]:
    return [TokenView(**_shown(token)) for token in await engine.store.tokens()]


@post(
    "/tokens",
    dto=JsonBody[TokenBody],
    return_dto=None,
    summary="Create a token; the answer shows its secret once",
    **needs("admin"),
)
async def create_token(engine: Served, actor: Caller, data: JSONBody[TokenBody]) -> NewToken:
    _within_reach(actor, data.environments)
    if data.name in RESERVED_NAMES:
        raise Refused(f'"{data.name}" is what the audit log calls Rampart itself; choose another name')
    if any(token.name == data.name for token in await engine.store.tokens()):
        raise Conflict(f'a token is called "{data.name}" already; revoke it first or choose another name')
    now, secret = engine.clock.now(), new_secret()
    token = Token(
        name=data.name,
        digest=digest(secret),
        scopes=tuple(dict.fromkeys(data.scopes)),
        environments=tuple(dict.fromkeys(data.environments)),
        created_at=now,
        created_by=actor.name,
        expires_at=now + _lifetime(data.expires_in) if data.expires_in else None,
    )
    what = f"created the token {token.name} with {', '.join(token.scopes)}"
    details = {"scopes": list(token.scopes), "environments": list(token.environments)}
    await engine.store.save_token(
        token, _entry(engine, actor, "create_token", f"token/{token.name}", what, details)
    )
    await engine.tokens_changed()
    return NewToken(**_shown(token), secret=secret)


def _lifetime(duration: str) -> timedelta:
    wanted = seconds(duration)
    if not 0 < wanted <= MAX_LIFETIME_SECONDS:
        message = f'"{duration}" is no lifetime; write more than 0s and at most 10 years (3660d)'
        raise Invalid(f"expires_in: {message}", problems=[("expires_in", message)])
    return timedelta(seconds=wanted)


def _shown(token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "scopes": list(token.scopes),
        "environments": list(token.environments),
        "created_at": token.created_at,
        "created_by": token.created_by,
        "expires_at": token.expires_at,
    }


def _within_reach(actor: Actor, environments: Sequence[str]) -> None:
    """Nobody hands out, or takes away, more than they hold themselves (promise I19)."""
    beyond = [name for name in environments if not actor.may("admin", name)]
    if beyond or (actor.environments and not environments):
        where = ", ".join(beyond) or "all environments"
        raise Forbidden(f'token "{actor.name}" is limited to {", ".join(actor.environments)}; this is for {where}')


@delete("/tokens/{name:str}", summary="Revoke a token", **needs("admin"))
async def revoke_token(engine: Served, actor: Caller, name: PathName) -> None:
    tokens = {token.name: token for token in await engine.store.tokens()}
    if name not in tokens:
        raise NotFound(f'no token is called "{name}"')
    _within_reach(actor, tokens[name].environments)
    others = [token for token in tokens.values() if token.name != name]
    if not any("admin" in token.scopes and token.expires_at is None for token in others):
        raise Refused(
            f'"{name}" is the last token with the scope "admin" that does not expire; create another first'
        )
    entry = _entry(engine, actor, "revoke_token", f"token/{name}", f"revoked the token {name}", {})
    await engine.store.revoke_token(name, entry)
    await engine.tokens_changed()


@get("/sdk-keys", summary="All SDK keys, without their secrets", **needs("admin"))
async def list_sdk_keys(engine: Served) -> list[SdkKeyView]:
    return [SdkKeyView(**_shown_key(key)) for key in await engine.store.sdk_keys()]


@post(
    "/sdk-keys",
    dto=JsonBody[SdkKeyBody],
    return_dto=None,
    summary="Create an SDK key; the answer shows its secret once",
    **needs("admin"),
)
async def create_sdk_key(engine: Served, actor: Caller, data: JSONBody[SdkKeyBody]) -> NewSdkKey:
    actor.require("admin", data.environment)
    if any(key.name == data.name for key in await engine.store.sdk_keys()):
        raise Conflict(f'an SDK key is called "{data.name}" already; revoke it first or choose another name')
    secret = _new_key(data.kind)
    key = SdkKey(
        name=data.name,
        digest=key_digest(data.kind, secret),
        kind=data.kind,
        client_side_id=secret if data.kind == "client" else None,
        environment=data.environment,
        created_at=engine.clock.now(),
        created_by=actor.name,
    )
    what = f"created the {key.kind} SDK key {key.name} for {key.environment}"
    entry = _entry(engine, actor, "create_sdk_key", f"sdk-key/{key.name}", what, {}, key.environment)
    await engine.store.save_sdk_key(key, entry)
    await engine.sdk_keys_changed()
    return NewSdkKey(**_shown_key(key), secret=secret)


def _new_key(kind: SdkKeyKind) -> str:
    """A client-side ID only has to be one of a kind; the others cannot be guessed."""
    if kind == "client":
        return secrets.token_hex(CLIENT_SIDE_ID_BYTES)
    return SDK_KEY_PREFIXES[kind] + secrets.token_urlsafe(32)


def _shown_key(key: SdkKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "kind": key.kind,
        "environment": key.environment,
        "client_side_id": key.client_side_id,
        "created_at": key.created_at,
        "created_by": key.created_by,
    }


@delete("/sdk-keys/{name:str}", summary="Revoke an SDK key", **needs("admin"))
async def revoke_sdk_key(engine: Served, actor: Caller, name: PathName) -> None:
    key = next((key for key in await engine.store.sdk_keys() if key.name == name), None)
    if key is None:
        raise NotFound(f'no SDK key is called "{name}"')
    actor.require("admin", key.environment)
    what = f"revoked the SDK key {name}"
    entry = _entry(engine, actor, "revoke_sdk_key", f"sdk-key/{name}", what, {}, key.environment)
    await engine.store.revoke_sdk_key(name, entry)
    await engine.sdk_keys_changed()


def _entry(
    engine: Engine,
    actor: Actor,
    action: str,
    subject: str,
    reason: str,
    details: dict[str, Any],
    environment: str = "",
) -> AuditEntry:
    return AuditEntry(
        id=uuid.uuid4().hex,
        at=engine.clock.now(),
        actor=actor.name,
        action=action,
        cause="user",
        subject=subject,
        environment=environment,
        reason=f"{actor.name} {reason}",
        details=details,
    )


HANDLERS = [
    list_flags,
    list_tokens,
    create_token,
    revoke_token,
    list_sdk_keys,
    create_sdk_key,
    revoke_sdk_key,
]
