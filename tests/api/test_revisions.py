"""What a run was pinned to can still be read after it was applied anew."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api.fake_engine import FakeEngine, client_of
from tests.api.manifests import PLAN, POLICY, SETTINGS
from tests.api.test_routes import API, body_of
from tests.support.engine import ModelProvider


def owned(manifest: str, name: str) -> str:
    return manifest.replace(f"metadata: {{ name: {name} }}", f"metadata: {{ name: {name}, owner: somebody }}")


@pytest.fixture
async def applied_twice() -> AsyncIterator[httpx.AsyncClient]:
    engine = FakeEngine(settings=SETTINGS, providers={"main": ModelProvider()})
    async with client_of(engine) as client:
        client.headers.update(engine.headers())
        for files in ((PLAN, POLICY), (owned(PLAN, "checkout"), owned(POLICY, "web"))):
            answer = await client.post(f"{API}/manifests", json=body_of(*files))
            assert answer.status_code == 200, answer.text
        yield client


@pytest.mark.parametrize(("path", "kind"), [("plans/checkout", "plan"), ("policies/web", "policy")])
async def test_an_earlier_revision_is_still_there_as_it_was(
    applied_twice: httpx.AsyncClient, path: str, kind: str
) -> None:
    latest = (await applied_twice.get(f"{API}/{path}")).json()
    assert latest["revision"] == 2
    assert latest[kind]["metadata"]["owner"]
    assert (await applied_twice.get(f"{API}/{path}?revision=2")).json() == latest
    first = (await applied_twice.get(f"{API}/{path}?revision=1")).json()
    assert (first["revision"], first[kind]["metadata"]["owner"]) == (1, "")


@pytest.mark.parametrize("path", ["plans/checkout", "policies/web", "plans/nothing", "policies/nothing"])
async def test_a_revision_that_never_was_is_not_found(applied_twice: httpx.AsyncClient, path: str) -> None:
    answer = await applied_twice.get(f"{API}/{path}?revision=3")
    assert answer.status_code == 404
    assert answer.json()["detail"].endswith("revision 3")
