"""Documents in the database that this version cannot read: only the runs that need them stand still."""

import pytest

from controller.store.postgres import PostgresStore
from tests.store.samples import claim_one, started

DAMAGES = {
    "run": "UPDATE runs SET state = '{\"id\": 1}' WHERE plan = 'poisoned'",
    "plan": "UPDATE manifest_revisions SET document = '{}' WHERE name = 'poisoned'",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_run_that_cannot_be_read_does_not_hide_the_others(store: PostgresStore, damage: str) -> None:
    await started(store, "poisoned")
    healthy = await started(store, "healthy")
    await store._database.execute(damage)
    assert (await claim_one(store)).run == healthy
