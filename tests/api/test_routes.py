"""What each route does when all is well."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from controller.access import digest
from controller.delivery import SdkKeyBook
from controller.delivery.entrance import KINDS
from controller.domain.status import ApplyResult, Explanation, KillStatus, PlanSummary, RunStatus
from controller.errors import Conflict, Refused
from controller.store.memory import MemoryStore
from tests.api.fake_engine import START, FakeEngine, client_of
from tests.api.manifests import FLAG, PLAN, POLICY, SETTINGS
from tests.support.engine import ModelProvider

API = "/api/v1"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(settings=SETTINGS, providers={"main": ModelProvider()})


def body_of(*texts: str, **more: Any) -> dict[str, Any]:
    return {"files": [{"name": f"{n}.yaml", "text": text} for n, text in enumerate(texts)], **more}


async def test_plans_and_policies_are_shown_as_they_were_applied(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    headers = engine.headers()
    applied = await client.post(f"{API}/manifests", headers=headers, json=body_of(PLAN, POLICY, FLAG))
    assert msgspec.json.decode(applied.content, type=ApplyResult).applied
    plan = (await client.get(f"{API}/plans/checkout", headers=headers)).json()
    assert plan["plan"]["kind"] == "RolloutPlan"
    assert plan["plan"]["spec"]["stages"][0] | {"minTotal": None} == {
        "name": "canary", "exposure": "1%", "bake": "30m", "minTotal": None, "approval": None,
    }  # fmt: skip
    assert (plan["revision"], plan["applied_at"]) == (1, "2026-11-20T12:00:00Z")
    policy = (await client.get(f"{API}/policies/web", headers=headers)).json()
    assert policy["policy"]["spec"]["rules"][0]["if"] == "error_rate > 1%"
    assert (await client.get(f"{API}/policies", headers=headers)).json() == [policy]
    (flag,) = (await client.get(f"{API}/flags", headers=headers)).json()
    assert (flag["key"], flag["variations"]) == ("checkout", {"on": True, "off": False})


async def test_a_dry_run_over_http_stores_nothing(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    headers = engine.headers("author", "read")
    answer = await client.post(f"{API}/manifests", headers=headers, json=body_of(POLICY, dry_run=True))
    assert answer.json()["applied"] is False
    assert answer.json()["changes"]
    assert (await client.get(f"{API}/policies", headers=headers)).json() == []


async def test_broken_manifests_are_a_422_with_place_and_help(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    broken = POLICY.replace("then: pause", "then: pausee")
    answer = await client.post(f"{API}/manifests", headers=engine.headers("author"), json=body_of(broken))
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:rampart:invalid"
    (problem,) = answer.json()["problems"]
    assert (problem["file"], problem["line"]) == ("0.yaml", 12)
    assert problem["column"] > 1
    assert problem["code"] == "R003"
    assert "pausee" in problem["source_line"]
    assert {"message", "help", "length", "severity"} <= problem.keys()


async def test_adopting_moves_the_runs_that_would_have_stayed_behind(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    await with_a_run(engine, client)
    slower = body_of(PLAN.replace("30m", "45m"), adopt=True, note="slower")
    forbidden = await client.post(f"{API}/manifests", headers=engine.headers("author"), json=slower)
    assert forbidden.status_code == 403
    assert (await client.get(f"{API}/plans/checkout", headers=engine.headers())).json()["revision"] == 1
    answer = await client.post(f"{API}/manifests", headers=engine.headers("author", "operate"), json=slower)
    assert (answer.json()["applied"], answer.json()["pinned_runs"]) == (True, [])
    assert engine.commands.log == [("adopt", "checkout", "author-operate", "slower")]


async def test_an_adoption_that_is_refused_says_that_the_rest_was_applied(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    await with_a_run(engine, client)
    engine.commands.failure = Refused("the guardrails change", blocks=["author: dana"])
    slower = body_of(PLAN.replace("30m", "45m"), adopt=True)
    answer = await client.post(f"{API}/manifests", headers=engine.headers(), json=slower)
    assert answer.json()["type"] == "urn:rampart:refused"
    assert answer.json()["detail"] == "applied, but checkout#1 was not moved to it: the guardrails change"
    assert answer.json()["blocks"] == ["author: dana"]


async def test_who_may_not_adopt_alone_applies_nothing_and_somebody_else_does_afterwards(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    await with_a_run(engine, client)
    looser = POLICY.replace("10%", "20%")
    alone = await client.post(f"{API}/manifests", headers=engine.headers(), json=body_of(looser, adopt=True))
    assert alone.status_code == 422
    assert "takes a second person" in alone.json()["detail"]
    assert alone.json()["blocks"][0].startswith("checkout#1: changes the kill rule web/errors-jump")
    assert engine.commands.log == []
    web = await client.get(f"{API}/policies/web", headers=engine.headers())
    assert web.json()["revision"] == 1

    applied = await client.post(f"{API}/manifests", headers=engine.headers("author"), json=body_of(looser))
    assert applied.json()["pinned_runs"] == ["checkout#1"]
    second = engine.headers("author", "operate", "approve")
    moved = await client.post(f"{API}/manifests", headers=second, json=body_of(looser, adopt=True))
    assert (moved.json()["changes"], moved.json()["adopted_runs"]) == ([], ["checkout#1"])
    assert engine.commands.log == [("adopt", "checkout", "author-operate-approve", "")]


async def test_a_run_that_cannot_be_moved_keeps_everything_from_being_applied(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    await with_a_run(engine, client)
    other = PLAN + "  mode: observe\n"
    answer = await client.post(f"{API}/manifests", headers=engine.headers(), json=body_of(other, adopt=True))
    assert answer.json()["detail"] == "a run under way cannot be moved to this; nothing was applied"
    assert answer.json()["blocks"] == ["checkout#1: the mode becomes observe; abandon the run and start anew"]
    assert (await client.get(f"{API}/plans/checkout", headers=engine.headers())).json()["revision"] == 1


async def test_whoever_may_read_may_compare_and_nothing_more(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    reader, files = engine.headers("read"), body_of(PLAN, POLICY, FLAG)
    compared = await client.post(f"{API}/manifests/compare", headers=reader, json=files)
    assert (compared.status_code, compared.json()["applied"]) == (200, False)
    assert {change["note"] for change in compared.json()["changes"]} == {"new"}
    assert (await client.post(f"{API}/manifests", headers=reader, json=files)).status_code == 403
    dry = await client.post(f"{API}/manifests", headers=reader, json={**files, "dry_run": True})
    assert dry.status_code == 403
    assert list(await engine.store.plans()) == []


async def test_an_author_is_told_when_comparing_that_an_environment_is_not_theirs(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    author = engine.headers("author", environments=("staging",))
    answer = await client.post(f"{API}/manifests/compare", headers=author, json=body_of(PLAN, POLICY, FLAG))
    assert answer.json()["type"] == "urn:rampart:forbidden"


@pytest.mark.parametrize("name", ["rampart", "manifests"])
async def test_no_token_is_called_as_rampart_calls_itself(
    engine: FakeEngine, client: httpx.AsyncClient, name: str
) -> None:
    body = {"name": name, "scopes": ["read"]}
    answer = await client.post(f"{API}/tokens", headers=engine.headers(), json=body)
    assert answer.json()["type"] == "urn:rampart:refused"


async def with_a_run(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    from tests.api.fake_engine import run_status
    from tests.api.test_registrar import REF, World

    await client.post(f"{API}/manifests", headers=engine.headers(), json=body_of(PLAN, POLICY, FLAG))
    world = World()
    world.store = engine.store  # type: ignore[assignment]
    await world.run()
    engine.commands.states["checkout"] = run_status("checkout", REF)


async def test_plans_are_listed_and_explained(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    headers = engine.headers("read")
    listed = msgspec.json.decode(
        (await client.get(f"{API}/plans", headers=headers)).content, type=list[PlanSummary]
    )
    assert [one.plan for one in listed] == ["checkout-v2"]
    told = await client.get(f"{API}/plans/checkout-v2/explain", headers=headers)
    assert msgspec.json.decode(told.content, type=Explanation).text == "bake not over"
    for query in ("", "?run=1"):
        status = await client.get(f"{API}/plans/checkout-v2/status{query}", headers=headers)
        assert msgspec.json.decode(status.content, type=RunStatus).desired_exposure == 1000
    assert (await client.get(f"{API}/plans/checkout-v2/status?run=2", headers=headers)).status_code == 404


@pytest.mark.parametrize(
    ("verb", "scope"),
    [
        ("start", "operate"),
        ("advance", "operate"),
        ("pause", "operate"),
        ("pause", "kill"),
        ("resume", "operate"),
        ("step-back", "operate"),
        ("step-back", "kill"),
        ("abandon", "operate"),
        ("approve", "approve"),
        ("adopt", "operate"),
    ],
)
async def test_a_command_reaches_the_engine_in_the_name_of_its_token(
    engine: FakeEngine, client: httpx.AsyncClient, verb: str, scope: Any
) -> None:
    path = f"{API}/plans/checkout-v2/{verb}"
    answer = await client.post(path, headers=engine.headers(scope), json={"note": "because"})
    assert answer.status_code == 200
    status = msgspec.json.decode(answer.content, type=RunStatus)
    done = verb.replace("-", "_")
    assert status.reason == f"{done} by {scope}"
    assert engine.commands.log == [(done, "checkout-v2", scope, "because")]
    assert (await client.post(path, headers=engine.headers(scope))).status_code == 200


async def test_a_kill_lists_every_match_and_can_be_reset(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    headers = engine.headers("kill", "operate", "read")
    answer = await client.post(f"{API}/flags/checkout-v2/kill", headers=headers, json={"reason": "INC-7"})
    assert answer.status_code == 200
    kills = answer.json()["kills"]
    assert {kill["flag"]["environment"] for kill in kills} == {"production", "staging"}
    assert all(kill["durable"] and kill["confirmed_at"] and kill["replicas"] for kill in kills)
    shown = msgspec.json.decode((await client.get(f"{API}/kills", headers=headers)).content, type=list[KillStatus])
    assert {kill.reason for kill in shown} == {"INC-7"}
    ids = {"kill_ids": [kill["kill_id"] for kill in kills]}
    reset = await client.post(f"{API}/flags/checkout-v2/reset", headers=headers, json=ids)
    assert len(reset.json()) == 2
    assert (await client.get(f"{API}/kills", headers=headers)).json() == []


async def test_a_kill_that_is_not_read_back_yet_is_accepted_not_done(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    engine.kills.confirms = False
    path = f"{API}/environments/production/flags/checkout-v2/kill"
    answer = await client.post(path, headers=engine.headers("kill"))
    assert answer.status_code == 202
    assert answer.json()["kills"][0]["confirmed_at"] is None
    (kill,) = engine.kills.active()
    assert kill.reason == "no reason given"


async def test_a_provider_narrows_a_kill(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    path = f"{API}/flags/checkout-v2/kill"
    answer = await client.post(path, headers=engine.headers("kill"), json={"provider": "other"})
    assert answer.status_code == 404


async def test_a_token_works_from_its_creation_to_its_end(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    admin = engine.headers("admin")
    wanted = {"name": "on-call", "scopes": ["read", "kill"], "environments": ["production"], "expires_in": "1h"}
    created = await client.post(f"{API}/tokens", headers=admin, json=wanted)
    assert created.status_code == 201
    token = created.json()
    assert token["secret"].startswith("rampart_")
    assert datetime.fromisoformat(token["expires_at"]) == START + timedelta(hours=1)
    bearer = {"Authorization": f"Bearer {token['secret']}"}
    assert (await client.get(f"{API}/kills", headers=bearer)).status_code == 200
    assert (await client.get(f"{API}/tokens", headers=bearer)).status_code == 403
    listed = (await client.get(f"{API}/tokens", headers=engine.headers("admin"))).json()
    assert listed == [{name: value for name, value in token.items() if name != "secret"}]
    engine.clock.passed = 3600
    assert (await client.get(f"{API}/kills", headers=bearer)).status_code == 401


async def test_a_revoked_token_stops_at_once(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    secrets = {}
    for name in ("root", "spare"):
        body = {"name": name, "scopes": ["admin"]}
        secrets[name] = (await client.post(f"{API}/tokens", headers=engine.headers("admin"), json=body)).json()[
            "secret"
        ]
    root, spare = ({"Authorization": f"Bearer {secrets[name]}"} for name in ("root", "spare"))
    assert (await client.delete(f"{API}/tokens/spare", headers=root)).status_code == 204
    assert (await client.get(f"{API}/plans", headers=spare)).status_code == 401
    last = await client.delete(f"{API}/tokens/root", headers=root)
    assert last.json()["type"] == "urn:rampart:refused"
    assert (await client.get(f"{API}/plans", headers=root)).status_code == 200


async def test_a_token_name_is_given_once(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    body = {"name": "ci", "scopes": ["read"]}
    first = await client.post(f"{API}/tokens", headers=engine.headers("admin"), json=body)
    again = await client.post(f"{API}/tokens", headers=engine.headers("admin"), json=body)
    assert (first.status_code, again.status_code) == (201, 409)
    assert (await client.delete(f"{API}/tokens/nobody", headers=engine.headers("admin"))).status_code == 404


@pytest.mark.parametrize("environments", [[], ["production"], ["staging", "production"]])
async def test_nobody_hands_out_more_than_they_hold(
    engine: FakeEngine, client: httpx.AsyncClient, environments: list[str]
) -> None:
    local = engine.headers("admin", environments=("staging",))
    body = {"name": "more", "scopes": ["kill"], "environments": environments}
    assert (await client.post(f"{API}/tokens", headers=local, json=body)).status_code == 403
    assert await engine.store.tokens() == []
    body["environments"] = ["staging"]
    assert (await client.post(f"{API}/tokens", headers=local, json=body)).status_code == 201


@pytest.mark.parametrize("lifetime", ["0s", "99999999999d"])
async def test_a_lifetime_is_some_time_and_not_all_time(
    engine: FakeEngine, client: httpx.AsyncClient, lifetime: str
) -> None:
    body = {"name": "x", "scopes": ["read"], "expires_in": lifetime}
    answer = await client.post(f"{API}/tokens", headers=engine.headers("admin"), json=body)
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["path"] == "expires_in"


async def test_each_kind_of_sdk_key_is_stored_so_that_only_its_door_knows_it(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    headers = engine.headers("admin")
    for kind in KINDS:
        body = {"name": kind, "environment": "production", "kind": kind}
        made = (await client.post(f"{API}/sdk-keys", headers=headers, json=body)).json()
        assert (made["kind"], made["client_side_id"]) == (kind, made["secret"] if kind == "client" else None)
        key = next(key for key in await engine.store.sdk_keys() if key.name == kind)
        book = SdkKeyBook()
        book.load([key])
        assert [one for one in KINDS if book.find(one, made["secret"])] == [kind]
        # What a version that knows no kinds would look for.
        assert (key.digest == digest(made["secret"])) is (kind == "server")
        assert key.digest != digest(f"{kind}:{made['secret']}")
        assert book.find("server", f"{kind}:{made['secret']}") is None
    unknown = await client.post(f"{API}/sdk-keys", headers=headers, json={**body, "kind": "browser"})
    assert unknown.status_code == 400


async def test_an_sdk_key_is_shown_once_and_revoked(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    headers = engine.headers("admin")
    body = {"name": "web", "environment": "production"}
    created = (await client.post(f"{API}/sdk-keys", headers=headers, json=body)).json()
    assert msgspec.convert(created["secret"], str).startswith("sdk-")
    assert all(char.isalnum() or char in "._-" for char in created["secret"])
    (listed,) = (await client.get(f"{API}/sdk-keys", headers=headers)).json()
    assert "secret" not in listed
    assert "digest" not in listed
    assert (await client.post(f"{API}/sdk-keys", headers=headers, json=body)).status_code == 409
    local = engine.headers("admin", environments=("staging",))
    assert (await client.delete(f"{API}/sdk-keys/web", headers=local)).status_code == 403
    assert (await client.delete(f"{API}/sdk-keys/web", headers=headers)).status_code == 204
    assert (await client.delete(f"{API}/sdk-keys/web", headers=headers)).status_code == 404
    assert engine.sdk_keys_reloaded == 2


async def test_no_secret_is_in_the_audit_log(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    headers = engine.headers("admin")
    token = await client.post(f"{API}/tokens", headers=headers, json={"name": "ci", "scopes": ["read"]})
    body = {"name": "web", "environment": "production"}
    key = await client.post(f"{API}/sdk-keys", headers=headers, json=body)
    text = (await client.get(f"{API}/audit", headers=engine.headers("admin"))).text
    assert "create_token" in text
    assert "create_sdk_key" in text
    for answer in (token, key):
        assert answer.json()["secret"] not in text


async def test_the_audit_log_is_read_in_pages_and_verified(
    engine: FakeEngine, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.api.audit.PAGE", 3)
    headers = engine.headers()
    for number in range(10):
        body = {"name": f"key-{number}", "environment": "production"}
        await client.post(f"{API}/sdk-keys", headers=headers, json=body)
    page = (await client.get(f"{API}/audit?after=2&limit=3", headers=headers)).json()
    assert [row["sequence"] for row in page] == [3, 4, 5]
    assert page[1]["previous"] == page[0]["hash"]
    newest = (await client.get(f"{API}/audit?newest_first=true&limit=1", headers=headers)).json()
    head = (await client.get(f"{API}/audit/head", headers=headers)).json()
    assert head == {"sequence": 10, "hash": newest[0]["hash"]}
    report = (await client.get(f"{API}/audit/verify", headers=headers)).json()
    assert report == {"rows": 10, "head_sequence": 10, "head_hash": head["hash"], "problem": None}


async def test_an_entry_as_answered_hashes_to_its_link(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    from controller.domain.audit import GENESIS_HASH, link_hash

    headers = engine.headers()
    await client.post(f"{API}/manifests", headers=headers, json=body_of(POLICY, note='ünïcode "quoted"'))
    (row,) = (await client.get(f"{API}/audit", headers=headers)).json()
    body = msgspec.json.encode(row["entry"], order="sorted").decode()
    assert link_hash(GENESIS_HASH, 1, body).hex() == row["hash"]


@pytest.mark.parametrize("damage", ["changed", "removed", "cut", "emptied"])
async def test_a_damaged_chain_is_found(engine: FakeEngine, client: httpx.AsyncClient, damage: str) -> None:
    headers = engine.headers()
    for number in range(5):
        body = {"name": f"key-{number}", "environment": "production"}
        await client.post(f"{API}/sdk-keys", headers=headers, json=body)
    assert isinstance(engine.store, MemoryStore)
    chain = engine.store.chain
    head = await engine.store.audit_head()
    if damage == "changed":
        chain[2] = msgspec.structs.replace(chain[2], body=chain[2].body.replace("key-2", "key-9"))
    elif damage == "removed":
        del chain[2]
    else:
        del chain[3 if damage == "cut" else 0 :]

    async def as_before() -> tuple[int, bytes]:
        return head

    engine.store.audit_head = as_before  # type: ignore[method-assign]
    report = (await client.get(f"{API}/audit/verify", headers=headers)).json()
    expected = {"changed": "row 3 was changed", "removed": "row 3 is missing", "cut": "row 4", "emptied": "row 1"}
    assert expected[damage] in report["problem"]


async def test_machines_learn_whether_it_lives_and_is_ready(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json() == {"ready": True, "reasons": []}
    engine.not_ready = ["the database does not answer", "flags are not loaded"]
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["reasons"] == engine.not_ready
    assert (await client.get("/healthz")).status_code == 200
    metrics = await client.get("/metrics")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert metrics.text == "rampart_build_info 1\n"
    assert (await client.get(f"{API}/version")).json()["version"]


async def test_the_doctor_looks_at_the_plans_that_are_named(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    (check,) = (await client.get(f"{API}/doctor", headers=engine.headers("read"))).json()
    assert check["state"] == "ok"
    await client.get(f"{API}/doctor?plans=checkout-v2,search", headers=engine.headers("read"))
    assert engine.doctor.asked == [[], ["checkout-v2", "search"]]


async def test_who_only_reads_sends_no_test_messages(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    path = f"{API}/doctor/test-messages"
    assert (await client.post(path, headers=engine.headers("read"))).status_code == 403
    (check,) = (await client.post(path, headers=engine.headers("operate"))).json()
    assert check["detail"] == "took the test message of operate"


async def test_a_conflict_is_a_conflict(engine: FakeEngine) -> None:
    engine.commands.failure = Conflict("cannot resume a run that is completed")
    async with client_of(engine) as client:
        answer = await client.post(f"{API}/plans/checkout-v2/resume", headers=engine.headers())
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:rampart:conflict")
