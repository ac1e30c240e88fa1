"""The stand-in for LaunchDarkly does what the documentation says, and fails as a test tells it to."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.support.launchdarkly import (
    BYPASS_TOKEN,
    PRODUCTION,
    PROJECT,
    READ_TOKEN,
    SDK_KEYS,
    STAGING,
    WRITE_TOKEN,
    ApiError,
    FakeLaunchDarkly,
    Member,
    Token,
    launchdarkly_in_thread,
)
from tests.support.sdk_door import until

Json = dict[str, Any]

FLAG = "checkout-v2"
PATH = f"/api/v2/flags/{PROJECT}/{FLAG}"
HERE = f"/api/v2/projects/{PROJECT}/flags/{FLAG}/environments/{PRODUCTION}"
SEMANTIC = "application/json; domain-model=launchdarkly.semanticpatch"
STAFF = [{"contextKind": "user", "attribute": "email", "op": "endsWith", "values": ["@acme.example"]}]


class Caller:
    """Somebody with a token and the present API version, on a connection of her own for every request."""

    def __init__(self, fake: FakeLaunchDarkly, session: aiohttp.ClientSession) -> None:
        self.fake = fake
        self._session = session

    async def ask(
        self, method: str, path: str, body: object = None, *, token: str = WRITE_TOKEN, **headers: str
    ) -> tuple[int, Any, Any]:
        """Status, decoded body and headers."""
        sent = {"Authorization": token, "LD-API-Version": "20240415", "Connection": "close"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body)
        url = self.fake.base_uri + path
        async with self._session.request(method, url, data=data, headers=sent) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None, answer.headers

    async def get(self, path: str, **more: Any) -> Any:
        status, body, _ = await self.ask("GET", path, **more)
        assert status == 200, body
        return body

    async def patch(self, *instructions: Json, query: str = "", **more: Any) -> tuple[int, Any]:
        body = {"environmentKey": PRODUCTION, "comment": "from a test", "instructions": list(instructions)}
        status, answer, _ = await self.ask("PATCH", PATH + query, body, Content_Type=SEMANTIC, **more)
        return status, answer


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with FakeLaunchDarkly() as fake, aiohttp.ClientSession() as session:
        fake.create_flag(FLAG)
        yield Caller(fake, session)


def ids(fake: FakeLaunchDarkly, key: str = FLAG) -> dict[str, str]:
    """Variation name → its `_id`."""
    return {one["name"]: one["_id"] for one in fake.flag(key).variations}


def share(fake: FakeLaunchDarkly, exposure: int) -> Json:
    weights = {ids(fake)["on"]: exposure, ids(fake)["off"]: 100_000 - exposure}
    return {"kind": "updateFallthroughVariationOrRollout", "rolloutWeights": weights, "rolloutBucketBy": "key"}


# — semantic patches —


async def test_weights_are_written_by_id_and_read_by_index(caller: Caller) -> None:
    status, answer = await caller.patch({"kind": "turnFlagOn"}, share(caller.fake, 10_000))
    assert status == 200
    assert answer["environments"][PRODUCTION]["fallthrough"] == {
        "rollout": {
            "variations": [{"variation": 0, "weight": 10_000}, {"variation": 1, "weight": 90_000}],
            "contextKind": "user",
            "bucketBy": "key",
        }
    }
    assert (await caller.get(f"{PATH}?env={PRODUCTION}"))["environments"] == {
        PRODUCTION: answer["environments"][PRODUCTION]
    }


async def test_a_patch_is_made_as_a_whole_or_not_at_all(caller: Caller) -> None:
    before = await caller.get(PATH)
    status, answer = await caller.patch({"kind": "turnFlagOn"}, {"kind": "startGuardedRollout"})
    assert (status, answer["code"], set(answer)) == (400, "invalid_request", {"code", "message", "id"})
    assert await caller.get(PATH) == before
    assert not caller.fake.ledger.audit


async def test_versions_count_changes_of_their_environment_and_no_repetition(caller: Caller) -> None:
    for _ in range(2):
        await caller.patch({"kind": "turnFlagOn"})
    assert (caller.fake.config(FLAG).version, caller.fake.config(FLAG, STAGING).version) == (2, 1)
    await caller.patch({"kind": "addVariation", "value": "green", "name": "green"})
    assert (caller.fake.config(FLAG).version, caller.fake.config(FLAG, STAGING).version) == (3, 2)
    assert caller.fake.flag(FLAG).version == 3


REFUSED: dict[str, Json] = {
    "no kind": {},
    "an unknown variation": {"kind": "updateOffVariation", "variationId": "nobody"},
    "an index instead of an id": {"kind": "updateOffVariation", "variationId": 0},
    "weights that are not 100 %": {"kind": "updateFallthroughVariationOrRollout", "rolloutWeights": {}},
    "neither weights nor variation": {"kind": "updateFallthroughVariationOrRollout"},
    "an unknown operator": {"kind": "addRule", "clauses": [{"attribute": "a", "op": "ENDS", "values": []}]},
    "a rule without clauses": {"kind": "addRule", "clauses": []},
    "a rule that is not there": {"kind": "updateRuleDescription", "ruleId": "r", "description": ""},
    "an order of other rules": {"kind": "reorderRules", "ruleIds": ["r"]},
    "a prerequisite of itself": {"kind": "addPrerequisite", "key": FLAG, "variationId": "v"},
    "a variation in use": {"kind": "removeVariation"},
}


@pytest.mark.parametrize("why", REFUSED)
async def test_an_instruction_that_makes_no_sense_is_400(caller: Caller, why: str) -> None:
    instruction = dict(REFUSED[why])
    if instruction.get("kind") == "removeVariation":
        instruction["variationId"] = ids(caller.fake)["off"]
    status, answer = await caller.patch(instruction)
    assert (status, answer["code"]) == (400, "invalid_request")


async def test_rules_are_added_in_place_found_by_id_and_removed_without_an_error(caller: Caller) -> None:
    on = ids(caller.fake)["on"]
    await caller.patch({"kind": "addRule", "variationId": on, "clauses": STAFF, "description": "staff"})
    staff = caller.fake.config(FLAG).rules[0]["_id"]
    await caller.patch({"kind": "addRule", "variationId": on, "clauses": STAFF, "beforeRuleId": staff})
    rules = (await caller.get(PATH))["environments"][PRODUCTION]["rules"]
    assert [rule.get("description") for rule in rules] == [None, "staff"]
    assert {clause["contextKind"] for rule in rules for clause in rule["clauses"]} == {"user"}
    order = [rule["_id"] for rule in reversed(rules)]
    await caller.patch({"kind": "reorderRules", "ruleIds": order})
    assert [rule["_id"] for rule in caller.fake.config(FLAG).rules] == order
    for _ in range(2):
        assert (await caller.patch({"kind": "removeRule", "ruleId": staff}))[0] == 200
    assert [rule["_id"] for rule in caller.fake.config(FLAG).rules] == [order[1]]
    rule = {"variationId": on, "clauses": STAFF, "description": "new"}
    await caller.patch({"kind": "replaceRules", "rules": [rule]})
    assert [one["description"] for one in caller.fake.config(FLAG).rules] == ["new"]


async def test_clauses_and_what_a_rule_serves_can_be_changed_alone(caller: Caller) -> None:
    await caller.patch({"kind": "addRule", "variationId": ids(caller.fake)["on"], "clauses": STAFF})
    rule = caller.fake.config(FLAG).rules[0]
    clause = {"ruleId": rule["_id"], "clauseId": rule["clauses"][0]["_id"]}
    await caller.patch(
        {"kind": "addValuesToClause", **clause, "values": ["@b.example"]},
        {"kind": "removeValuesFromClause", **clause, "values": ["@acme.example"]},
        {**share(caller.fake, 50_000), "kind": "updateRuleVariationOrRollout", "ruleId": rule["_id"]},
    )
    changed = caller.fake.config(FLAG).rules[0]
    assert changed["clauses"][0]["values"] == ["@b.example"]
    assert "variation" not in changed
    assert [one["weight"] for one in changed["rollout"]["variations"]] == [50_000, 50_000]


async def test_a_key_cannot_be_targeted_in_two_variations(caller: Caller) -> None:
    on, off = ids(caller.fake)["on"], ids(caller.fake)["off"]
    target = {"kind": "addTargets", "values": ["qa-1"]}
    assert (await caller.patch({**target, "variationId": on}))[0] == 200
    assert (await caller.patch({**target, "variationId": off}))[0] == 400
    await caller.patch({**target, "variationId": off, "contextKind": "device"})
    config = (await caller.get(PATH))["environments"][PRODUCTION]
    assert config["targets"] == [{"variation": 0, "values": ["qa-1"], "contextKind": "user"}]
    assert {(one["contextKind"], *one["values"]) for one in config["contextTargets"]} == {
        ("user",), ("device", "qa-1"),
    }  # fmt: skip
    await caller.patch({"kind": "clearTargets", "variationId": on})
    await caller.patch({"kind": "removeTargets", "variationId": off, "contextKind": "device", "values": ["qa-1"]})
    assert caller.fake.config(FLAG).targets == []


async def test_a_flag_on_which_another_depends_cannot_be_archived(caller: Caller) -> None:
    caller.fake.create_flag("payments")
    on = ids(caller.fake, "payments")["on"]
    assert (await caller.patch({"kind": "addPrerequisite", "key": "payments", "variationId": on}))[0] == 200
    with pytest.raises(ApiError, match="prerequisite"):
        caller.fake.person("dana").archive("payments")
    await caller.patch({"kind": "removePrerequisite", "key": "payments"})
    caller.fake.person("dana").archive("payments")
    assert caller.fake.flag("payments").archived


@pytest.mark.parametrize(("map_order", "first"), [(False, 0), (True, 1)])
async def test_the_order_in_a_rollout_is_that_of_the_flag_unless_a_test_asks_for_the_map_s(
    caller: Caller, map_order: bool, first: int
) -> None:
    caller.fake.ledger.quirks.map_order = map_order
    weights = {ids(caller.fake)["off"]: 90_000, ids(caller.fake)["on"]: 10_000}
    await caller.patch({"kind": "updateFallthroughVariationOrRollout", "rolloutWeights": weights})
    assert caller.fake.config(FLAG).fallthrough["rollout"]["variations"][0]["variation"] == first


async def test_without_its_content_type_a_semantic_patch_is_taken_for_a_json_patch_and_400(caller: Caller) -> None:
    body = {"environmentKey": PRODUCTION, "instructions": [{"kind": "turnFlagOn"}]}
    status, answer, _ = await caller.ask("PATCH", PATH, body, Content_Type="application/json")
    assert (status, answer["code"]) == (400, "invalid_request")
    status, _, _ = await caller.ask("PATCH", PATH, [], Content_Type=SEMANTIC)
    assert status == 422
    assert not caller.fake.config(FLAG).on


async def test_a_json_patch_can_test_the_version_first(caller: Caller) -> None:
    path = f"/environments/{PRODUCTION}"
    turn_on = {"op": "replace", "path": f"{path}/on", "value": True}
    for version, expected in ((7, 409), (1, 200)):
        patch = [{"op": "test", "path": f"{path}/version", "value": version}, turn_on]
        status, _, _ = await caller.ask("PATCH", PATH, patch, Content_Type="application/json")
        assert (status, caller.fake.config(FLAG).on) == (expected, expected == 200)


async def test_a_dry_run_shows_the_flag_and_leaves_it(caller: Caller) -> None:
    status, answer = await caller.patch({"kind": "turnFlagOn"}, query="?dryRun=true")
    assert (status, answer["environments"][PRODUCTION]["on"]) == (200, True)
    assert not caller.fake.config(FLAG).on
    assert caller.fake.requests.writes == 0


# — who may do what —


async def test_only_tokens_open_the_rest_api_and_roles_limit_them(caller: Caller) -> None:
    for token in ("nobody", f"Bearer {WRITE_TOKEN}", SDK_KEYS[PRODUCTION]):
        assert (await caller.ask("GET", PATH, token=token))[0] == 401
    assert (await caller.patch({"kind": "turnFlagOn"}, token=READ_TOKEN))[0] == 403
    caller.fake.add_token(Token("no-rules", "api-no-rules", denied=frozenset({"updateRules"})))
    assert (await caller.patch({"kind": "turnFlagOn"}, token="api-no-rules"))[0] == 200
    rule = {"kind": "addRule", "variationId": ids(caller.fake)["on"], "clauses": STAFF}
    assert (await caller.patch(rule, token="api-no-rules"))[0] == 403
    assert (await caller.ask("GET", f"{PATH}s"))[0] == 404
    assert (await caller.ask("GET", PATH, LD_API_Version="20191212"))[0] == 400


async def test_where_changes_need_an_approval_only_a_token_that_bypasses_them_writes(caller: Caller) -> None:
    caller.fake.environment().approvals = True
    status, answer = await caller.patch({"kind": "turnFlagOff"}, share(caller.fake, 1_000))
    assert (status, answer["code"]) == (405, "method_not_allowed")
    assert (await caller.patch(share(caller.fake, 1_000), token=BYPASS_TOKEN))[0] == 200
    settings = await caller.get(f"/api/v2/projects/{PROJECT}/environments/{PRODUCTION}")
    assert settings["approvalSettings"]["required"]
    caller.fake.environment().approval_tags = ("payments",)
    assert (await caller.patch({"kind": "turnFlagOn"}))[0] == 200


async def test_an_approval_is_asked_for_given_and_applied(caller: Caller) -> None:
    caller.fake.environment().approvals = True
    body = {"description": "raise", "instructions": [share(caller.fake, 5_000)]}
    status, request, _ = await caller.ask("POST", f"{HERE}/approval-requests", body)
    assert (status, request["reviewStatus"]) == (201, "pending")
    apply = f"{HERE}/approval-requests/{request['_id']}/apply"
    assert (await caller.ask("POST", apply, {}))[0] == 400
    caller.fake.person("kim").approve(request["_id"])
    assert (await caller.ask("POST", apply, {"comment": "go"}))[0] == 200
    assert caller.fake.config(FLAG).fallthrough["rollout"]["variations"][0]["weight"] == 5_000
    listed = await caller.get(f"{HERE}/approval-requests")
    assert [one["status"] for one in listed["items"]] == ["completed"]


async def test_what_would_spoil_a_scheduled_change_is_400_unless_it_says_so(caller: Caller) -> None:
    dana = caller.fake.person("dana")
    dana.add_rule(FLAG, "on", "plan", "beta")
    rule = caller.fake.config(FLAG).rules[0]["_id"]
    scheduled = dana.schedule(FLAG, {"kind": "updateRuleDescription", "ruleId": rule, "description": "later"})
    gone = {"kind": "removeRule", "ruleId": rule}
    status, answer = await caller.patch(gone)
    assert (status, answer["code"]) == (400, "invalid_request")
    assert scheduled.id in answer["message"]
    assert [one["_id"] for one in (await caller.get(f"{HERE}/scheduled-changes"))["items"]] == [scheduled.id]
    assert (await caller.patch({"kind": "turnFlagOn"}))[0] == 200
    assert (await caller.patch(gone, query="?ignoreConflicts=true"))[0] == 200


async def test_a_release_of_launchdarkly_s_own_is_shown_and_its_rule_cannot_be_edited(caller: Caller) -> None:
    assert (await caller.ask("GET", f"{HERE}/releases"))[0] == 403, "a beta resource"
    release = caller.fake.person("dana").start_release(FLAG)
    shown = await caller.get(f"{HERE}/releases", LD_API_Version="beta")
    assert [(one["id"], one["status"]) for one in shown["items"]] == [(release.id, "in_progress")]
    listed = await caller.get(f"/api/v2/flags/{PROJECT}?filter=guardedRollout:monitoring")
    assert [one["key"] for one in listed["items"]] == [FLAG]
    rule = caller.fake.config(FLAG).rules[0]
    assert {one["_untracked"] for one in rule["rollout"]["variations"]} == {True, False}
    assert (await caller.patch({"kind": "removeRule", "ruleId": rule["_id"]}))[0] == 400
    await caller.patch({"kind": "turnFlagOff"})
    shown = await caller.get(f"{HERE}/releases/{release.id}", LD_API_Version="beta")
    assert (shown["status"], shown["statusReason"]) == ("reverted", "reverted_discarded")


async def test_the_default_rule_of_an_older_release_cannot_be_edited(caller: Caller) -> None:
    caller.fake.person("dana").start_release(FLAG, on_default_rule=True)
    assert "seed" in caller.fake.config(FLAG).fallthrough["rollout"]
    assert (await caller.patch(share(caller.fake, 1_000)))[0] == 400


async def test_the_audit_log_names_who_changed_what_and_why(caller: Caller) -> None:
    caller.fake.person("dana").turn_on(FLAG)
    await caller.patch({"kind": "turnFlagOff"})
    log = await caller.get(f"/api/v2/auditlog?spec=proj/*:env/{PRODUCTION}:flag/{FLAG}")
    robot, dana = log["items"]
    assert (dana["member"]["email"], "token" in dana) == ("dana@acme.example", False)
    assert (robot["token"]["name"], robot["comment"], "member" in robot) == (
        "rampart-writer",
        "from a test",
        False,
    )
    assert robot["accesses"][0]["action"] == "updateOn"
    detail = await caller.get(f"/api/v2/auditlog/{dana['_id']}")
    assert detail["currentVersion"]["environments"][PRODUCTION]["on"]
    assert detail["delta"] is None
    assert (await caller.get(f"/api/v2/auditlog?after={robot['date']}"))["items"] == []
    assert (await caller.get("/api/v2/auditlog?spec=proj/*:env/staging:flag/*"))["items"] == []
    assert (await caller.ask("GET", "/api/v2/auditlog?limit=21"))[0] == 400


async def test_the_audit_log_names_the_owner_of_a_personal_token(caller: Caller) -> None:
    caller.fake.add_token(Token("kim's", "api-kim", service=False, owner=Member("kim")))
    await caller.patch({"kind": "turnFlagOn"}, token="api-kim")
    (entry,) = (await caller.get("/api/v2/auditlog"))["items"]
    assert (entry["token"]["name"], entry["member"]["email"]) == ("kim's", "kim@acme.example")


# — lists —


async def test_a_list_has_pages_of_twenty_without_environments(caller: Caller) -> None:
    for number in range(49):
        caller.fake.create_flag(f"flag-{number}")
    path, seen = f"/api/v2/flags/{PROJECT}", []
    while path:
        page = await caller.get(path)
        assert (len(page["items"]) <= 20, page["totalCount"]) == (True, 50)
        assert not any("environments" in one for one in page["items"])
        seen += [one["key"] for one in page["items"]]
        path = page["_links"].get("next", {}).get("href", "")
    assert len(set(seen)) == len(seen) == 50
    assert caller.fake.requests.count("list_flags") == 3


async def test_a_list_is_sorted_as_asked(caller: Caller) -> None:
    for key in ("b", "a"):
        caller.fake.create_flag(key)
    for sort, expected in (
        ("key", ["a", "b", FLAG]),
        ("-key", [FLAG, "b", "a"]),
        ("creationDate", [FLAG, "b", "a"]),
    ):
        listed = await caller.get(f"/api/v2/flags/{PROJECT}?sort={sort}")
        assert [one["key"] for one in listed["items"]] == expected
    assert (await caller.ask("GET", f"/api/v2/flags/{PROJECT}?sort=luck"))[0] == 400


async def test_a_list_shows_rules_only_when_asked_for(caller: Caller) -> None:
    await caller.patch(share(caller.fake, 10_000))
    summary = (await caller.get(f"/api/v2/flags/{PROJECT}?env={PRODUCTION}"))["items"][0]["environments"]
    assert summary[PRODUCTION]["_summary"]["variations"]["0"]["rollout"] == 10_000
    assert not {"rules", "targets", "fallthrough"} & set(summary[PRODUCTION])
    detail = await caller.get(f"/api/v2/flags/{PROJECT}?env={PRODUCTION}&summary=0&limit=100")
    assert detail["items"][0]["environments"] == {PRODUCTION: (await caller.get(PATH))["environments"][PRODUCTION]}
    by_filter = await caller.get(f"/api/v2/flags/{PROJECT}?filter=filterEnv:{PRODUCTION},query:CHECK")
    assert list(by_filter["items"][0]["environments"]) == [PRODUCTION]
    caller.fake.person("dana").archive(FLAG)
    assert (await caller.get(f"/api/v2/flags/{PROJECT}"))["items"] == []
    assert len((await caller.get(f"/api/v2/flags/{PROJECT}?filter=state:archived"))["items"]) == 1


# — what goes wrong —


@pytest.mark.parametrize("status", [401, 403, 404, 405, 409, 422, 429, 500, 502, 503])
async def test_a_status_can_be_switched_on_for_writes_alone(caller: Caller, status: int) -> None:
    with caller.fake.faults.fail(status, on="writes"):
        url = caller.fake.base_uri + PATH
        headers = {"Authorization": WRITE_TOKEN, "Content-Type": SEMANTIC}
        async with aiohttp.ClientSession() as session, session.patch(url, data="{}", headers=headers) as answer:
            assert answer.status == status
            assert (answer.content_type == "application/json") == (status < 500)
        assert (await caller.ask("GET", PATH))[0] == 200
    assert (await caller.patch({"kind": "turnFlagOn"}))[0] == 200


async def test_a_fault_strikes_as_often_as_it_was_told_to(caller: Caller) -> None:
    caller.fake.faults.fail(409, on="patch_flag", times=2)
    statuses = [(await caller.patch({"kind": "turnFlagOn"}))[0] for _ in range(3)]
    assert statuses == [409, 409, 200]


@pytest.mark.parametrize("after", [False, True])
async def test_a_reset_connection_comes_before_or_after_the_change(caller: Caller, after: bool) -> None:
    with caller.fake.faults.reset(on="writes", after=after), pytest.raises(aiohttp.ClientError):
        await caller.patch({"kind": "turnFlagOn"})
    assert caller.fake.config(FLAG).on == after
    assert [one.status for one in caller.fake.requests.find("writes")] == [0]


@pytest.mark.parametrize("cut", [False, True])
async def test_an_answer_can_be_half_a_document(caller: Caller, cut: bool) -> None:
    with caller.fake.faults.half_json(cut=cut), pytest.raises((ValueError, aiohttp.ClientPayloadError)):
        await caller.patch({"kind": "turnFlagOn"})
    assert caller.fake.config(FLAG).on


async def test_a_write_waits_until_it_is_let_go_and_lands_although_nobody_waits_for_it(caller: Caller) -> None:
    hold = caller.fake.faults.hold(on="writes")
    writing = asyncio.create_task(caller.patch({"kind": "turnFlagOn"}))
    await hold.reached.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert not caller.fake.config(FLAG).on
    hold.let_go.set()
    await until(lambda: caller.fake.config(FLAG).on)


async def test_an_answer_can_be_held_back_after_the_change(caller: Caller) -> None:
    hold = caller.fake.faults.hold(on="writes", after=True)
    writing = asyncio.create_task(caller.patch({"kind": "turnFlagOn"}))
    await hold.reached.wait()
    assert caller.fake.config(FLAG).on
    assert not writing.done()
    hold.stop()
    assert (await writing)[0] == 200


async def test_a_slow_answer_takes_its_time(caller: Caller) -> None:
    caller.fake.faults.slow(5.0, on="get_flag", times=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await caller.get(PATH)
    assert await caller.get(PATH)


async def test_limits_hold_for_a_window_and_tell_what_is_left(caller: Caller) -> None:
    now = 1_800_000_000.0
    caller.fake.ledger.time = lambda: now
    caller.fake.limits.account, caller.fake.limits.routes = 3, {"get_flag": 2}
    seen = [await caller.ask("GET", PATH) for _ in range(3)]
    assert [status for status, _, _ in seen] == [200, 200, 429]
    assert [headers["X-Ratelimit-Global-Remaining"] for *_, headers in seen] == ["2", "1", "0"]
    assert [headers["X-Ratelimit-Route-Remaining"] for *_, headers in seen] == ["1", "0", "0"]
    assert {headers["X-Ratelimit-Reset"] for *_, headers in seen} == {str(int((now + 10) * 1000))}
    now += 10
    status, _, headers = await caller.ask("GET", f"/api/v2/projects/{PROJECT}")
    assert (status, headers.get("X-Ratelimit-Route-Remaining")) == (200, None)


async def test_429_comes_with_or_without_headers_and_with_a_reset_in_the_past(caller: Caller) -> None:
    caller.fake.faults.rate_limited(times=1)
    status, body, headers = await caller.ask("GET", PATH)
    assert (status, body["code"], "X-Ratelimit-Reset" in headers) == (429, "rate_limited", False)
    now = caller.fake.ledger.now()
    caller.fake.faults.rate_limited(times=1, reset_in_seconds=-60, limits=("Route",))
    status, _, headers = await caller.ask("GET", PATH)
    assert (status, int(headers["X-Ratelimit-Reset"]) < now * 1000) == (429, True)
    assert headers["X-Ratelimit-Route-Remaining"] == "0"


async def test_the_rest_api_can_go_away_and_come_back_at_its_address(caller: Caller) -> None:
    await caller.fake.rest_site.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await caller.get(PATH)
    await caller.fake.rest_site.start()
    assert await caller.get(PATH)


# — what a test sees —


async def test_every_request_is_counted_by_route_and_by_whether_it_writes(caller: Caller) -> None:
    await caller.get(PATH)
    await caller.patch({"kind": "turnFlagOn"})
    assert caller.fake.requests.by_route() == {("GET", "get_flag"): 1, ("PATCH", "patch_flag"): 1}
    assert (caller.fake.requests.count("reads"), caller.fake.requests.writes) == (1, 1)
    written = caller.fake.requests.find("writes")[0]
    assert (written.body["comment"], written.headers["LD-API-Version"]) == ("from a test", "20240415")


async def test_a_person_swaps_the_order_of_variations_and_renames_what_has_a_name(caller: Caller) -> None:
    dana = caller.fake.person("dana")
    dana.share(FLAG, 10_000)
    before = caller.fake.config(FLAG).fallthrough["rollout"]["variations"]
    dana.swap_order(FLAG)
    dana.rename(FLAG, "Another name")
    assert caller.fake.config(FLAG).fallthrough["rollout"]["variations"] == before[::-1]
    assert (caller.fake.flag(FLAG).key, caller.fake.flag(FLAG).name) == (FLAG, "Another name")


def test_it_runs_beside_a_test_that_has_no_event_loop() -> None:
    with launchdarkly_in_thread() as fake:
        fake.create_flag(FLAG)
        fake.person("dana").turn_on(FLAG)
        assert fake.config(FLAG).on
        assert fake.base_uri != fake.stream_uri
    assert not [one for one in threading.enumerate() if one.name == "launchdarkly"]
