"""OpenFeature's remote evaluation protocol (OFREP): one flag or all flags for a context, and word of changes.

Every answer carries a value, a variant and a reason that OpenFeature knows, because some clients fail without one:
also that of a flag that is off or killed, which serves its off-variation and never the caller's default.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar.types import Receive, Scope, Send

from controller.delivery.answers import GARBLED, JSON, answer, body_of, header, matches
from controller.delivery.audience import Audience
from controller.delivery.entrance import BEARER, STREAM_PARAMETER, SUBSCRIBER, Endpoint, Entrance
from controller.delivery.evaluations import Evaluations
from controller.delivery.feeds import NoticeFeed
from controller.delivery.streaming import Streams
from controller.delivery.turns import Turns
from controller.domain.catalogue import FlagConfig, SdkKey
from controller.domain.evaluation import Context, Evaluation, parse_context
from controller.snapshot import FlagBoard

MAX_BODY_BYTES = 64 * 1024
RETRY_AFTER_SECONDS = 1
INACTIVITY_SECONDS = 120
KEY_PARAMETER = "key"
MULTI_KIND = "multi"
USER_KIND = "user"

REASONS = {
    "OFF": "DISABLED",
    "TARGET_MATCH": "TARGETING_MATCH",
    "RULE_MATCH": "TARGETING_MATCH",
    "PREREQUISITE_FAILED": "UNKNOWN",
}


class Unanswerable(Exception):
    """A question that cannot be answered: OFREP's code, and what is wrong in words."""

    def __init__(self, code: str, details: str, status: int = 400) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.status = status

    def shown(self, key: str | None = None) -> dict[str, Any]:
        of_flag = {} if key is None else {"key": key}
        return {**of_flag, "errorCode": self.code, "errorDetails": self.details}


class OfrepDoor:
    def __init__(
        self,
        board: FlagBoard,
        entrance: Entrance,
        streams: Streams,
        audience: Audience,
        evaluations: Evaluations,
        turns: Turns,
    ) -> None:
        self._board = board
        self._entrance = entrance
        self._streams = streams
        self._audience = audience
        self._evaluations = evaluations
        self._turns = turns

    def endpoints(self) -> list[Endpoint]:
        flags = "/ofrep/v1/evaluate/flags"
        return [
            self._entrance.endpoint(flags, (b"POST",), BEARER, self._all),
            self._entrance.endpoint(f"{flags}/{{{KEY_PARAMETER}}}", (b"POST",), BEARER, self._one),
            self._entrance.endpoint(
                f"/ofrep/v1/events/{{{STREAM_PARAMETER}}}", (b"GET", b"HEAD"), SUBSCRIBER, self._stream
            ),
        ]

    # — evaluation —

    async def _one(self, key: SdkKey, scope: Scope, receive: Receive, send: Send) -> None:
        flag = str(scope.get("path_params", {}).get(KEY_PARAMETER, ""))
        try:
            context = _context(await _body(receive))
            config = self._flag(key, flag)
            result = _result(config, self._evaluations.one(key.environment, flag, context))
        except Unanswerable as problem:
            await _say(send, problem.status, problem.shown(flag))
        else:
            await _say(send, 200, result)

    def _flag(self, key: SdkKey, flag: str) -> FlagConfig:
        config = self._evaluations.flag(key.environment, key.kind, flag)
        if config is None:
            raise Unanswerable("FLAG_NOT_FOUND", f'there is no flag "{flag}" for this key', 404)
        return config

    async def _all(self, key: SdkKey, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _body(receive)
            context = _context(body)
        except Unanswerable as problem:
            await _say(send, problem.status, problem.shown())
            return
        etag = self._etag(key, body)
        if matches(header(scope, b"if-none-match"), etag):
            await answer(send, 304, (b"etag", etag.encode()))
        elif self._turns.crowded:
            await answer(send, 429, (b"retry-after", str(RETRY_AFTER_SECONDS).encode()), JSON, body=b"{}")
        else:
            async with self._turns.one():
                answered = msgspec.json.encode(self._answers(key, context))
            await answer(send, 200, JSON, (b"etag", etag.encode()), body=answered)

    def _answers(self, key: SdkKey, context: Context) -> dict[str, Any]:
        stream = {
            "type": "sse",
            "endpoint": {"requestUri": f"/ofrep/v1/events/{self._entrance.stream_of(key)}"},
            "inactivityDelaySec": INACTIVITY_SECONDS,
        }
        found = self._evaluations.all(key.environment, key.kind, context)
        flags = [_result_or_problem(config, evaluation) for config, evaluation in found]
        return {"flags": flags, "eventStreams": [stream], "metadata": {"environment": key.environment}}

    def _etag(self, key: SdkKey, body: bytes) -> str:
        snapshot = self._board.snapshot(key.environment)
        whole = b"\0".join([snapshot.etag.encode(), key.kind.encode(), body])
        return f'"{hashlib.sha256(whole).hexdigest()[:32]}"'

    # — changes —

    async def _stream(self, key: SdkKey, scope: Scope, receive: Receive, send: Send) -> None:
        """Also at the start: a client that comes back does not ask again by itself what it missed."""
        feed = NoticeFeed(key.kind, lambda: self._refetch(key))
        await self._streams.serve(
            key.environment,
            self._audience.joined(key.environment, feed),
            lambda: self._entrance.admits(key),
            scope,
            receive,
            send,
        )

    def _refetch(self, key: SdkKey) -> bytes:
        etag = self._board.snapshot(key.environment).etag
        data = msgspec.json.encode({"type": "refetchEvaluation", "etag": etag})
        return b"id: %s\nevent: message\ndata: %s\n\n" % (etag.strip('"').encode(), data)


async def _body(receive: Receive) -> bytes:
    body = await body_of(receive, MAX_BODY_BYTES)
    if body is None:
        raise Unanswerable("PARSE_ERROR", f"the body did not arrive, or has more than {MAX_BODY_BYTES} bytes")
    return body


def _context(body: bytes) -> Context:
    """Who asks, as OpenFeature says it. Raises Unanswerable."""
    try:
        asked = msgspec.json.decode(body)
    except GARBLED as error:
        raise Unanswerable("PARSE_ERROR", f"the body is not JSON: {error}") from None
    given = asked.get("context") if isinstance(asked, Mapping) else None
    if not isinstance(given, Mapping):
        raise Unanswerable("INVALID_CONTEXT", 'the body needs an object "context"')
    try:
        return parse_context(_as_kinds(given))
    except ValueError as error:
        raise Unanswerable("INVALID_CONTEXT", str(error)) from None


def _as_kinds(given: Mapping[str, Any]) -> dict[str, Any]:
    """With `kind: multi` each further attribute is a context; else all is one, of the kind user or of its own."""
    if given.get("kind") == MULTI_KIND:
        parts = {kind: _keyed(part, kind) for kind, part in given.items() if isinstance(part, Mapping)}
        return {"kind": MULTI_KIND, **parts}
    return {"kind": USER_KIND, **_keyed(given, "context")}


def _keyed(given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """OpenFeature's `targetingKey` is what LaunchDarkly calls `key`, which is taken, too."""
    rest = {name: value for name, value in given.items() if name not in ("targetingKey", "key")}
    key = given.get("targetingKey", given.get("key"))
    if key is None or key == "":
        raise Unanswerable("TARGETING_KEY_MISSING", f'the {what} needs a "targetingKey": who or what is it about')
    return {**rest, "key": key}


def _result_or_problem(config: FlagConfig, evaluation: Evaluation) -> dict[str, Any]:
    try:
        return _result(config, evaluation)
    except Unanswerable as problem:
        return problem.shown(config.key)


def _result(config: FlagConfig, evaluation: Evaluation) -> dict[str, Any]:
    """Raises Unanswerable when the flag's own definition is at fault."""
    if evaluation.reason["kind"] == "ERROR":
        details = f"the flag cannot be evaluated: {evaluation.reason['errorKind']}"
        raise Unanswerable("PARSE_ERROR", details, 500)
    result = {"key": config.key, "reason": _reason(config, evaluation), "metadata": {"version": config.version}}
    if evaluation.variation is None:
        return result  # the flag says so: OFREP's way to ask for the caller's default
    variant = list(config.variations)[evaluation.variation]
    return {**result, "value": evaluation.value, "variant": variant}


def _reason(config: FlagConfig, evaluation: Evaluation) -> str:
    kind = evaluation.reason["kind"]
    if kind != "FALLTHROUGH":
        return REASONS.get(kind, "UNKNOWN")
    shares = config.data["fallthrough"].get("rollout", {}).get("variations", [])
    return "SPLIT" if sum(share["weight"] > 0 for share in shares) > 1 else "STATIC"


async def _say(send: Send, status: int, what: dict[str, Any]) -> None:
    await answer(send, status, JSON, body=msgspec.json.encode(what))
