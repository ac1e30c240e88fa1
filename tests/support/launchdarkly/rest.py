"""The endpoints of the REST API, version 20240415. Base: /api/v2. Documentation: docs/api.

Not documented, and chosen here: an unknown environment is 404; a list has at most 100 flags on a page, in the
order in which they were made; `Bearer` before the token is 401.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from tests.support.launchdarkly import audit
from tests.support.launchdarkly.account import Token
from tests.support.launchdarkly.errors import ApiError, forbidden, invalid, not_found, unauthorized
from tests.support.launchdarkly.faults import CutOff, Faults
from tests.support.launchdarkly.flags import Flag, rest_flag
from tests.support.launchdarkly.ledger import Ledger
from tests.support.launchdarkly.limits import Limits
from tests.support.launchdarkly.pending import Waiting
from tests.support.launchdarkly.requests import Request, Requests

Json = dict[str, Any]

VERSIONS = {"20240415", "beta"}
DEFAULT_PAGE, LARGEST_PAGE = 20, 100
SEMANTIC_PATCH = "launchdarkly.semanticpatch"
TOKEN = web.RequestKey("token", Token)


class RestApi:
    def __init__(self, ledger: Ledger, requests: Requests, faults: Faults, limits: Limits) -> None:
        self._ledger = ledger
        self._requests = requests
        self._faults = faults
        self._limits = limits

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._around])
        flag = "/api/v2/projects/{project}/flags/{flag}/environments/{environment}"
        for method, path, name, handler in (
            ("GET", "/api/v2/caller-identity", "caller_identity", self.caller_identity),
            ("GET", "/api/v2/projects/{project}", "project", self.project),
            ("GET", "/api/v2/projects/{project}/environments", "environments", self.environments),
            ("GET", "/api/v2/projects/{project}/environments/{environment}", "environment", self.environment),
            ("GET", "/api/v2/flags/{project}", "list_flags", self.list_flags),
            ("GET", "/api/v2/flags/{project}/{flag}", "get_flag", self.get_flag),
            ("PATCH", "/api/v2/flags/{project}/{flag}", "patch_flag", self.patch_flag),
            ("GET", "/api/v2/auditlog", "audit_log", self.audit_log),
            ("GET", "/api/v2/auditlog/{id}", "audit_entry", self.audit_entry),
            ("GET", f"{flag}/approval-requests", "list_approvals", self.list_approvals),
            ("POST", f"{flag}/approval-requests", "create_approval", self.create_approval),
            ("GET", f"{flag}/approval-requests/{{id}}", "get_approval", self.get_approval),
            ("POST", f"{flag}/approval-requests/{{id}}/reviews", "review_approval", self.review_approval),
            ("POST", f"{flag}/approval-requests/{{id}}/apply", "apply_approval", self.apply_approval),
            ("GET", f"{flag}/scheduled-changes", "list_scheduled", self.list_scheduled),
            ("POST", f"{flag}/scheduled-changes", "create_scheduled", self.create_scheduled),
            ("DELETE", f"{flag}/scheduled-changes/{{id}}", "delete_scheduled", self.delete_scheduled),
            ("GET", f"{flag}/releases", "list_releases", self.list_releases),
            ("GET", f"{flag}/releases/{{id}}", "get_release", self.get_release),
        ):
            resource = app.router.add_resource(path, name=f"{name}")
            resource.add_route(method, handler)
        return app

    # — around every request —

    @web.middleware
    async def _around(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        noted = await self._note(request)
        try:
            answer = await self._faults.strike(noted, request, None)
            answer = answer or await self._answer(noted.route, request, handler)
            answer = await self._faults.strike(noted, request, answer) or answer
        except CutOff:
            return web.Response()
        noted.status = answer.status
        return answer

    async def _note(self, raw: web.Request) -> Request:
        text = await raw.text()
        try:
            body = json.loads(text) if text else None
        except ValueError:
            body = text
        request = Request(
            raw.method, raw.match_info.route.resource.name or "" if raw.match_info.route.resource else "",
            raw.path, dict(raw.query), dict(raw.headers), body, self._ledger.now(),
        )  # fmt: skip
        self._requests.all.append(request)
        return request

    async def _answer(
        self, route: str, raw: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        headers: dict[str, str] = {}
        try:
            token = raw[TOKEN] = self._authorize(raw, route)
            admitted, headers = self._limits.admit(route, token.id)
            answer = await handler(raw) if admitted else _rate_limited()
        except ApiError as error:
            answer = web.json_response(error.body, status=error.status)
        except web.HTTPException as error:
            answer = web.json_response(not_found(f"there is nothing at {raw.path}").body, status=error.status)
        answer.headers.update(headers)
        return answer

    def _authorize(self, raw: web.Request, route: str) -> Token:
        """A token, as it is (docs/api#authentication); an SDK key is none. Beta resources ask for their header."""
        token = self._ledger.tokens.get(raw.headers.get("Authorization", ""))
        if token is None:
            raise unauthorized("the access token is not valid")
        version = raw.headers.get("LD-API-Version", "20240415")
        if version not in VERSIONS:
            raise invalid(f"API version {version} does not exist any more")
        if route.endswith(("_releases", "_release")) and version != "beta":
            # docs/api#beta-resources
            raise forbidden("this is a beta resource: send LD-API-Version: beta")
        if raw.method != "GET" and token.role == "reader":
            raise forbidden(f"token {token.name!r} may only read")
        return token

    # — the account —

    async def caller_identity(self, raw: web.Request) -> web.Response:
        """docs/api/other/get-caller-identity. It tells who asks, not what they may do."""
        token = raw[TOKEN]
        return web.json_response({
            "accountId": "5f0000000000000000000001",
            "authKind": "token",
            "tokenKind": "auth",
            "tokenName": token.name,
            "tokenId": token.id,
            "memberId": token.owner.id,
            "serviceToken": token.service,
        })  # fmt: skip

    async def project(self, raw: web.Request) -> web.Response:
        expanded = "environments" in raw.query.get("expand", "").split(",")
        return web.json_response(self._ledger.project(raw.match_info["project"]).json(expanded=expanded))

    async def environments(self, raw: web.Request) -> web.Response:
        return web.json_response(self._ledger.project(raw.match_info["project"]).environments_json())

    async def environment(self, raw: web.Request) -> web.Response:
        project = raw.match_info["project"]
        return web.json_response(self._ledger.environment(project, raw.match_info["environment"]).json(project))

    # — flags —

    async def get_flag(self, raw: web.Request) -> web.Response:
        """docs/api/feature-flags/get-feature-flag: all environments, or those of `env`."""
        project = raw.match_info["project"]
        flag = self._ledger.flag(project, raw.match_info["flag"])
        return web.json_response(rest_flag(flag, project, self._wanted(raw, project) or list(flag.environments)))

    async def list_flags(self, raw: web.Request) -> web.Response:
        """docs/api/feature-flags/get-feature-flags, as of 20240415: pages of 20 unless `limit` says otherwise.

        Environments only when filtered by one; rules, targets, prerequisites and what is served only with
        `summary=0`; archived flags only with `filter=state:archived`.
        """
        project = raw.match_info["project"]
        filters = _filters(raw.query.get("filter", ""))
        filtered = filters.pop("filterEnv", "")
        wanted = self._wanted(raw, project) or [one for one in (filtered,) if one]
        found = [
            flag for flag in self._ledger.project(project).flags.values() if self._fits(project, flag, filters)
        ]
        _sort(found, raw.query.get("sort", ""))
        limit, offset = min(_number(raw, "limit", DEFAULT_PAGE), LARGEST_PAGE), _number(raw, "offset", 0)
        summary = raw.query.get("summary", "true").lower() not in ("0", "false")
        page = found[offset : offset + limit]
        return web.json_response({
            "items": [rest_flag(flag, project, wanted, summary=summary) for flag in page],
            "totalCount": len(found),
            "_links": _pages(raw, len(found), limit, offset),
        })  # fmt: skip

    def _wanted(self, raw: web.Request, project: str) -> list[str]:
        wanted = raw.query.getall("env", [])
        for one in wanted:
            self._ledger.environment(project, one)
        return wanted

    def _fits(self, project: str, flag: Flag, filters: dict[str, str]) -> bool:
        for name, value in ({"state": "live"} | filters).items():
            match name:
                case "state":
                    state = "archived" if flag.archived else "deprecated" if flag.deprecated_at else "live"
                    fits = state == value
                case "query":
                    fits = value.lower() in f"{flag.key} {flag.name}".lower()
                case "tags":
                    fits = set(value.split("+")) <= set(flag.tags)
                case "type":
                    fits = value == ("temporary" if flag.temporary else "permanent")
                case "guardedRollout":
                    running = self._ledger.running_release(project, flag.key)
                    fits = running is not None and value in ("any", "monitoring")
                case _:
                    raise invalid(f"unknown filter {name!r}")
            if not fits:
                return False
        return True

    async def patch_flag(self, raw: web.Request) -> web.Response:
        """docs/api/feature-flags/patch-feature-flag: the whole flag as it is then."""
        project, key = raw.match_info["project"], raw.match_info["flag"]
        body = await _body(raw)
        if SEMANTIC_PATCH not in raw.headers.get("Content-Type", ""):
            flag = self._json_patch(raw[TOKEN], project, key, body)
        elif not isinstance(body, dict):
            # The body does not fit the kind of patch (docs/api#http-status-error-response-codes).
            raise ApiError(422, "unprocessable_entity", "a semantic patch is an object")
        else:
            flag = self._ledger.change(
                raw[TOKEN], project, key, body.get("environmentKey"), body.get("instructions", []),
                comment=body.get("comment", ""), ignore_conflicts=_true(raw, "ignoreConflicts"),
                dry_run=_true(raw, "dryRun"),
            )  # fmt: skip
        return web.json_response(rest_flag(flag, project, list(flag.environments)))

    def _json_patch(self, token: Token, project: str, key: str, body: Any) -> Flag:
        """What a semantic patch is taken for without its content type; it then ends in 400."""
        operations = body.get("patch", body) if isinstance(body, dict) else body
        if not isinstance(operations, list):
            raise invalid("this is no JSON patch; a semantic patch needs its own content type")
        comment = body.get("comment") or "" if isinstance(body, dict) else ""
        return self._ledger.json_patch(token, project, key, operations, comment=comment)

    # — the audit log —

    async def audit_log(self, raw: web.Request) -> web.Response:
        limit = _number(raw, "limit", 10)
        if not 1 <= limit <= 20:
            raise invalid("limit is between 1 and 20")
        return web.json_response(
            audit.listing(
                self._ledger.audit,
                before=_number(raw, "before", 0) or None,
                after=_number(raw, "after", 0) or None,
                q=raw.query.get("q", ""),
                spec=raw.query.get("spec", ""),
                limit=limit,
            )
        )

    async def audit_entry(self, raw: web.Request) -> web.Response:
        for entry in self._ledger.audit:
            if entry.id == raw.match_info["id"]:
                return web.json_response(entry.detail())
        raise not_found("there is no such entry")

    # — approvals and scheduled changes —

    async def list_approvals(self, raw: web.Request) -> web.Response:
        return self._waiting_list(raw, scheduled=False)

    async def list_scheduled(self, raw: web.Request) -> web.Response:
        return self._waiting_list(raw, scheduled=True)

    async def create_approval(self, raw: web.Request) -> web.Response:
        """docs/api/approvals/post-approval-request-for-flag: 201 since version 20210729."""
        body = await _body(raw)
        if "description" not in body:
            raise invalid("description is missing")
        waiting = self._ledger.ask(
            raw[TOKEN], *_where(raw), body.get("instructions", []), description=body["description"]
        )
        return web.json_response(waiting.json(), status=201)

    async def create_scheduled(self, raw: web.Request) -> web.Response:
        body = await _body(raw)
        if "executionDate" not in body:
            raise invalid("executionDate is missing")
        waiting = self._ledger.ask(
            raw[TOKEN], *_where(raw), body.get("instructions", []), at=body["executionDate"], status="scheduled"
        )
        return web.json_response(waiting.json(), status=201)

    async def delete_scheduled(self, raw: web.Request) -> web.Response:
        self._ledger.waiting.remove(self._waiting(raw, scheduled=True))
        return web.Response(status=204)

    async def get_approval(self, raw: web.Request) -> web.Response:
        return web.json_response(self._waiting(raw, scheduled=False).json())

    async def review_approval(self, raw: web.Request) -> web.Response:
        waiting, body = self._waiting(raw, scheduled=False), await _body(raw)
        if body.get("kind") not in ("approve", "decline", "comment"):
            raise invalid("kind is approve, decline or comment")
        self._ledger.review(raw[TOKEN], waiting, body["kind"])
        return web.json_response(waiting.json())

    async def apply_approval(self, raw: web.Request) -> web.Response:
        waiting, body = self._waiting(raw, scheduled=False), await _body(raw)
        self._ledger.carry_out(raw[TOKEN], waiting, body.get("comment", ""))
        return web.json_response(waiting.json())

    def _waiting(self, raw: web.Request, *, scheduled: bool) -> Waiting:
        for one in self._ledger.find_waiting(*_where(raw), scheduled=scheduled):
            if one.id == raw.match_info["id"]:
                return one
        raise not_found("there is no such request")

    def _waiting_list(self, raw: web.Request, *, scheduled: bool) -> web.Response:
        items = [one.json() for one in self._ledger.find_waiting(*_where(raw), scheduled=scheduled)]
        return web.json_response({"items": items, "_links": {"self": _link(raw.path)}})

    # — releases (beta) —

    async def list_releases(self, raw: web.Request) -> web.Response:
        """docs/api/environment-releases-beta/list-environment-releases: newest first."""
        items = self._releases(raw)
        limit, offset = min(_number(raw, "limit", 25), 100), _number(raw, "offset", 0)
        return web.json_response({
            "items": items[offset : offset + limit],
            "totalCount": len(items),
            "_links": {"self": _link(raw.path_qs)},
        })  # fmt: skip

    async def get_release(self, raw: web.Request) -> web.Response:
        for one in self._releases(raw):
            if one["id"] == raw.match_info["id"]:
                return web.json_response(one)
        raise not_found("there is no such release")

    def _releases(self, raw: web.Request) -> list[Json]:
        project, flag, environment = _where(raw)
        self._ledger.flag(project, flag)
        self._ledger.environment(project, environment)
        return [
            one.json()
            for one in self._ledger.releases
            if (one.project, one.flag, one.environment) == (project, flag, environment)
        ]


def _rate_limited() -> web.Response:
    return web.json_response(ApiError(429, "rate_limited", "too many requests").body, status=429)


def _where(raw: web.Request) -> tuple[str, str, str]:
    return raw.match_info["project"], raw.match_info["flag"], raw.match_info["environment"]


async def _body(raw: web.Request) -> Any:
    try:
        return json.loads(await raw.text())
    except ValueError:
        raise invalid("the body is no JSON") from None


def _number(raw: web.Request, name: str, default: int) -> int:
    value = raw.query.get(name, "")
    if not value:
        return default
    if not value.isdigit():
        raise invalid(f"{name} is a number")
    return int(value)


def _true(raw: web.Request, name: str) -> bool:
    return raw.query.get(name, "false").lower() == "true"


def _sort(flags: list[Flag], by: str) -> None:
    """docs/api/feature-flags/get-feature-flags#sorting-flags. A dash in front turns it round."""
    keys: dict[str, Callable[[Flag], Any]] = {
        "": lambda _: 0,
        "creationDate": lambda one: one.created_at,
        "key": lambda one: one.key,
        "name": lambda one: one.name,
    }
    if by.removeprefix("-") not in keys:
        raise invalid(f"cannot sort by {by!r}")
    flags.sort(key=keys[by.removeprefix("-")], reverse=by.startswith("-"))


def _filters(text: str) -> dict[str, str]:
    filters: dict[str, str] = {}
    for one in filter(None, text.split(",")):
        name, colon, value = one.partition(":")
        if not colon:
            raise invalid(f"filter {one!r} is not of the form field:value")
        filters[name] = value
    return filters


def _pages(raw: web.Request, total: int, limit: int, offset: int) -> Json:
    """`first`, `prev`, `next` and `last` where these pages exist."""
    last = max(0, (total - 1) // limit * limit) if limit else 0
    offsets = {"self": offset}
    if offset > 0:
        offsets |= {"first": 0, "prev": max(0, offset - limit)}
    if offset + limit < total:
        offsets |= {"next": offset + limit, "last": last}
    kept = [(name, value) for name, value in raw.query.items() if name not in ("limit", "offset")]
    return {
        name: _link(f"{raw.path}?{urlencode([*kept, ('limit', limit), ('offset', one)])}")
        for name, one in offsets.items()
    }


def _link(path: str) -> Json:
    return {"href": path, "type": "application/json"}
