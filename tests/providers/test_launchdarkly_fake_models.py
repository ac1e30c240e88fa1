"""What the stand-in for LaunchDarkly answers is what LaunchDarkly's own API client expects, field by field."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.support.launchdarkly import PRODUCTION, PROJECT, WRITE_TOKEN, FakeLaunchDarkly

Json = dict[str, Any]

FLAG = "checkout-v2"
SEMANTIC = "application/json; domain-model=launchdarkly.semanticpatch"
HERE = f"/api/v2/projects/{PROJECT}/flags/{FLAG}/environments/{PRODUCTION}"


class Client:
    """The official client, which blocks and therefore runs in a thread."""

    def __init__(self, package: Any, fake: FakeLaunchDarkly) -> None:
        configuration = package.Configuration(host=fake.base_uri)
        configuration.api_key["ApiKey"] = WRITE_TOKEN
        self.package = package
        self.api_client = package.ApiClient(configuration)

    async def call(self, api: str, method: str, *arguments: Any, **named: Any) -> Any:
        return await asyncio.to_thread(
            getattr(getattr(self.package, api)(self.api_client), method), *arguments, **named
        )

    async def raw(self, method: str, path: str, body: object = None, *, kind: str = "application/json") -> Any:
        """The answer as it came, decoded JSON."""
        headers = {"Authorization": WRITE_TOKEN, "LD-API-Version": "beta", "Content-Type": kind}
        url = self.api_client.configuration.host + path
        answer = await asyncio.to_thread(self.api_client.call_api, method, url, headers, body)
        await asyncio.to_thread(answer.read)
        assert answer.status < 300, answer.data
        return self.package.api_client.json.loads(answer.data)


@pytest.fixture(scope="module")
def package() -> Any:
    """Imported by name: it is large, and only these tests should pay for it."""
    return importlib.import_module("launchdarkly_api")


@pytest.fixture
async def fake() -> AsyncIterator[FakeLaunchDarkly]:
    """With a flag that has something in every field, and a change of every kind waiting."""
    async with FakeLaunchDarkly() as fake:
        fake.create_flag(FLAG, tags=("checkout",))
        fake.create_flag("payments", {"green": "green", "blue": {"deep": True}, "red": 3})
        fake.create_flag("archived")
        dana = fake.person("dana")
        dana.archive("archived")
        dana.share(FLAG, 10_000, rolloutBucketBy="account")
        dana.add_rule(FLAG, "on", "email", "@acme.example", op="endsWith", description="staff")
        dana.add_targets(FLAG, "off", "qa-1")
        dana.add_targets(FLAG, "on", "d-1", kind="device")
        payments = fake.flag("payments").variation("green")["_id"]
        dana.patch(FLAG, {"kind": "addPrerequisite", "key": "payments", "variationId": payments})
        dana.patch("payments", {"kind": "deprecateFlag"}, {"kind": "turnFlagOn"}, comment="not any more")
        dana.start_release(FLAG)
        dana.start_release("payments", original="red", target="green", on_default_rule=True)
        dana.schedule(FLAG, {"kind": "turnFlagOff"})
        yield fake


@pytest.fixture
def client(package: Any, fake: FakeLaunchDarkly) -> Client:
    return Client(package, fake)


GETS = {
    f"/api/v2/flags/{PROJECT}/{FLAG}": "FeatureFlag",
    f"/api/v2/flags/{PROJECT}/payments?env={PRODUCTION}": "FeatureFlag",
    f"/api/v2/flags/{PROJECT}/archived": "FeatureFlag",
    f"/api/v2/flags/{PROJECT}?limit=1&offset=1": "FeatureFlags",
    f"/api/v2/flags/{PROJECT}?env={PRODUCTION}": "FeatureFlags",
    f"/api/v2/flags/{PROJECT}?env={PRODUCTION}&summary=0": "FeatureFlags",
    f"/api/v2/projects/{PROJECT}": "Project",
    f"/api/v2/projects/{PROJECT}?expand=environments": "Project",
    f"/api/v2/projects/{PROJECT}/environments": "Environments",
    f"/api/v2/projects/{PROJECT}/environments/{PRODUCTION}": "Environment",
    "/api/v2/auditlog?limit=20": "AuditLogEntryListingRepCollection",
    "/api/v2/caller-identity": "CallerIdentityRep",
    f"{HERE}/scheduled-changes": "FeatureFlagScheduledChanges",
    f"{HERE}/releases": "EnvironmentReleaseCollection",
    f"{HERE.replace(FLAG, 'payments')}/releases": "EnvironmentReleaseCollection",
}


@pytest.mark.parametrize("path", GETS)
async def test_an_answer_fits_the_official_model_and_has_no_other_field(client: Client, path: str) -> None:
    answer = await client.raw("GET", path)
    assert strangers(answer, fields_of(client.package, GETS[path], answer)) == []


async def test_a_changed_flag_fits_the_official_model(client: Client, fake: FakeLaunchDarkly) -> None:
    off = fake.flag(FLAG).variation("off")["_id"]
    body = {
        "environmentKey": PRODUCTION,
        "comment": "kill",
        "instructions": [
            {"kind": "turnFlagOff"},
            {"kind": "updateFallthroughVariationOrRollout", "variationId": off},
        ],
    }
    path = f"/api/v2/flags/{PROJECT}/{FLAG}?ignoreConflicts=true"
    answer = await client.raw("PATCH", path, body, kind=SEMANTIC)
    assert answer["environments"][PRODUCTION]["fallthrough"] == {"variation": 1}
    assert strangers(answer, fields_of(client.package, "FeatureFlag", answer)) == []


async def test_requests_for_an_approval_fit_the_official_models(client: Client, fake: FakeLaunchDarkly) -> None:
    path = f"{HERE}/approval-requests"
    body = {"description": "raise", "instructions": [{"kind": "turnFlagOn"}]}
    one = await client.raw("POST", path, body)
    reviewed = await client.raw("POST", f"{path}/{one['_id']}/reviews", {"kind": "approve"})
    applied = await client.raw("POST", f"{path}/{one['_id']}/apply", {})
    for answer in (one, reviewed, applied, await client.raw("GET", f"{path}/{one['_id']}")):
        assert strangers(answer, fields_of(client.package, "FlagConfigApprovalRequestResponse", answer)) == []
    listed = await client.raw("GET", path)
    assert strangers(listed, fields_of(client.package, "FlagConfigApprovalRequestsResponse", listed)) == []
    entry = await client.raw("GET", f"/api/v2/auditlog/{fake.ledger.audit[-1].id}")
    assert strangers(entry, fields_of(client.package, "AuditLogEntryRep", entry)) == []


async def test_a_release_fits_the_official_model(client: Client, fake: FakeLaunchDarkly) -> None:
    release = next(one for one in fake.ledger.releases if one.flag == FLAG)
    for _ in range(2):
        answer = await client.raw("GET", f"{HERE}/releases/{release.id}")
        assert strangers(answer, fields_of(client.package, "EnvironmentRelease", answer)) == []
        fake.person("dana").turn_off(FLAG)
    assert answer["statusReason"] == "reverted_discarded"


async def test_the_official_client_reads_and_pages_through_flags(client: Client) -> None:
    flag = await client.call("FeatureFlagsApi", "get_feature_flag", PROJECT, FLAG, env=PRODUCTION)
    assert [one.weight for one in flag.environments[PRODUCTION].fallthrough.rollout.variations] == [10_000, 90_000]
    page = await client.call("FeatureFlagsApi", "get_feature_flags", PROJECT, filter="state:archived")
    assert ([one.key for one in page.items], page.total_count) == (["archived"], 1)
    page = await client.call("FeatureFlagsApi", "get_feature_flags", PROJECT, env=PRODUCTION, summary=False)
    assert page.items[0].environments[PRODUCTION].rules[0].description == "staff"


async def test_the_official_client_changes_a_flag_by_json_patch(client: Client, fake: FakeLaunchDarkly) -> None:
    operation = client.package.PatchOperation(op="replace", path=f"/environments/{PRODUCTION}/on", value=False)
    patch = client.package.PatchWithComment(patch=[operation], comment="by the client")
    flag = await client.call("FeatureFlagsApi", "patch_feature_flag", PROJECT, FLAG, patch)
    assert not flag.environments[PRODUCTION].on
    log = await client.call("AuditLogApi", "get_audit_log_entries", spec=f"proj/*:env/*:flag/{FLAG}")
    assert log.items[0].comment == "by the client"
    assert not fake.config(FLAG).on


async def test_the_official_client_asks_for_approvals_releases_and_schedules(client: Client) -> None:
    where = (PROJECT, FLAG, PRODUCTION)
    request = client.package.CreateFlagConfigApprovalRequestRequest(
        description="raise", instructions=[{"kind": "turnFlagOn"}]
    )
    asked = await client.call("ApprovalsApi", "post_approval_request_for_flag", *where, request)
    listed = await client.call("ApprovalsApi", "get_approvals_for_flag", *where)
    assert [one.id for one in listed.items] == [asked.id]
    scheduled = await client.call("ScheduledChangesApi", "get_flag_config_scheduled_changes", *where)
    assert scheduled.items[0].instructions == [{"kind": "turnFlagOff"}]
    # What a client of this version sends by default wins over what it is told for one call.
    client.api_client.default_headers["LD-API-Version"] = "beta"
    releases = await client.call("EnvironmentReleasesBetaApi", "list_environment_releases", "beta", *where)
    assert [one.status.value for one in releases.items] == ["in_progress"]
    caller = await client.call("OtherApi", "get_caller_identity")
    assert (caller.token_name, caller.service_token) == ("rampart-writer", True)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, "BadRequestException"),
        (401, "UnauthorizedException"),
        (403, "ForbiddenException"),
        (404, "NotFoundException"),
        (405, "ApiException"),
        (409, "ConflictException"),
        (422, "UnprocessableEntityException"),
        (429, "ApiException"),
        (503, "ServiceException"),
    ],
)
async def test_the_official_client_knows_every_error(
    client: Client, fake: FakeLaunchDarkly, status: int, error: str
) -> None:
    fake.faults.fail(status)
    with pytest.raises(getattr(client.package, "exceptions", client.package).__dict__[error]) as raised:
        await client.call("FeatureFlagsApi", "get_feature_flag", PROJECT, FLAG)
    assert raised.value.status == status


def fields_of(package: Any, model: str, answer: Json) -> Any:
    """The answer as the model has it: what it does not know is missing."""
    decode: Callable[[Json], Any] = getattr(package, model).from_dict
    return decode(answer).model_dump(by_alias=True)


def strangers(answer: Any, known: Any, path: str = "") -> list[str]:
    """Where the answer has something that the model has not."""
    if isinstance(answer, list):
        pairs = zip(answer, known, strict=True)
        return [one for index, pair in enumerate(pairs) for one in strangers(*pair, f"{path}[{index}]")]
    if not isinstance(answer, dict):
        return []
    missing = [f"{path}.{name}" for name, value in answer.items() if name not in known and value is not None]
    inside = (name for name in answer if name in known)
    return missing + [one for name in inside for one in strangers(answer[name], known[name], f"{path}.{name}")]
