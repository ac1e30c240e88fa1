"""What goes wrong on the way to LaunchDarkly, switched on by a test and off again.

Each fault names the requests it hits (`any`, `reads`, `writes` or a route) and how often (`times`, None: until it
is stopped). One with `after=True` lets the change take effect first: the caller cannot tell.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

from aiohttp import web

from tests.support.launchdarkly.errors import ApiError
from tests.support.launchdarkly.requests import Request

Act = Callable[[web.Request, web.StreamResponse | None], Awaitable[web.StreamResponse | None]]

CODES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "optimistic_locking_error",
    422: "unprocessable_entity",
    429: "rate_limited",
}


class CutOff(Exception):
    """The connection was reset; there is nobody to answer to."""


@dataclass
class Fault:
    """In a `with` block it holds until its end; without one until `stop`."""

    on: str
    act: Act
    times: int | None
    after: bool
    hits: int = 0
    stopped: bool = False

    def strikes(self, request: Request, *, after: bool) -> bool:
        if self.stopped or self.after != after or not request.fits(self.on):
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True

    def stop(self) -> None:
        self.stopped = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass
class Hold(Fault):
    """Requests wait. `reached` is set when one waits here; setting `let_go` lets it, and all later ones, pass."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        super().stop()
        self.let_go.set()


class Faults:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._faults: list[Fault] = []

    async def strike(
        self, request: Request, raw: web.Request, answer: web.StreamResponse | None
    ) -> web.StreamResponse | None:
        """What is answered instead, if anything is. Raises CutOff."""
        for fault in list(self._faults):
            if fault.strikes(request, after=answer is not None):
                instead = await fault.act(raw, answer)
                if instead is not None:
                    return instead
        return None

    def clear(self) -> None:
        for fault in self._faults:
            fault.stop()
        self._faults.clear()

    # — answers —

    def fail(
        self,
        status: int,
        *,
        on: str = "any",
        times: int | None = None,
        after: bool = False,
        message: str = "switched on by a test",
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """An error of the API (docs/api#http-status-error-response-codes). From 500 on its body is no JSON.

        409 is the conflict with a concurrent request; 422 a patch that does not fit its content type.
        """

        async def act(_: web.Request, __: web.StreamResponse | None) -> web.StreamResponse:
            if status >= 500:
                return web.Response(
                    status=status, text="<html>upstream error</html>", content_type="text/html", headers=headers
                )
            error = ApiError(status, CODES.get(status, "error"), message)
            return web.json_response(error.body, status=status, headers=headers)

        return self._add(Fault(on, act, times, after))

    def rate_limited(
        self,
        *,
        on: str = "any",
        times: int | None = None,
        reset_in_seconds: float | None = None,
        limits: tuple[str, ...] = ("Global", "Route"),
        retry_after_seconds: int | None = None,
    ) -> Fault:
        """429 (docs/api#rate-limiting). `reset_in_seconds` None: without headers, as happens in the field
        (Flagsmith/flagsmith pull request 5529); negative: a reset in the past, as the official Terraform
        provider expects. `retry_after_seconds`: the limit by address, which has no other header.
        """
        headers: dict[str, str] = {}
        if reset_in_seconds is not None:
            headers["X-Ratelimit-Reset"] = str(int((self._now() + reset_in_seconds) * 1000))
            headers |= {f"X-Ratelimit-{one}-Remaining": "0" for one in limits}
        if retry_after_seconds is not None:
            headers["Retry-After"] = str(retry_after_seconds)
        return self.fail(429, on=on, times=times, message="too many requests", headers=headers)

    def half_json(self, *, on: str = "any", times: int | None = None, cut: bool = False) -> Fault:
        """Half of the right answer. Whole by its length; with `cut` the connection ends in the middle of it."""

        async def act(raw: web.Request, answer: web.StreamResponse | None) -> web.StreamResponse:
            assert isinstance(answer, web.Response)
            body = answer.body
            assert isinstance(body, bytes)
            half = body[: len(body) // 2]
            if not cut:
                return web.Response(status=answer.status, body=half, content_type="application/json")
            torn = web.StreamResponse(status=answer.status)
            torn.content_type, torn.content_length = "application/json", len(body)
            await torn.prepare(raw)
            await torn.write(half)
            _abort(raw)
            raise CutOff

        return self._add(Fault(on, act, times, after=True))

    # — the network —

    def reset(self, *, on: str = "any", times: int | None = None, after: bool = False) -> Fault:
        """The connection breaks before or, with `after`, once the change took effect: the outcome is unknown."""

        async def act(raw: web.Request, _: web.StreamResponse | None) -> web.StreamResponse:
            _abort(raw)
            raise CutOff

        return self._add(Fault(on, act, times, after))

    def slow(self, seconds: float, *, on: str = "any", times: int | None = None, after: bool = False) -> Fault:
        """So long before it is looked at or, with `after`, before the answer leaves."""

        async def act(_: web.Request, __: web.StreamResponse | None) -> None:
            await asyncio.sleep(seconds)

        return self._add(Fault(on, act, times, after))

    def hold(self, *, on: str = "writes", times: int | None = None, after: bool = False) -> Hold:
        """Requests wait on their way in or, with `after`, the answers on their way out, until they are let go.

        They land even when the caller has hung up, as a request does that left a proxy already.
        """

        async def act(_: web.Request, __: web.StreamResponse | None) -> None:
            hold.reached.set()
            await hold.let_go.wait()

        hold = Hold(on, act, times, after)
        self._faults.append(hold)
        return hold

    def _add(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault


def _abort(raw: web.Request) -> None:
    if raw.transport is not None:
        raw.transport.abort()
