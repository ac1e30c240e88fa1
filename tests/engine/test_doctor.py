"""What the doctor finds wrong, and what it says to do about it."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from controller.doctor import Doctor
from controller.domain.status import Check
from controller.errors import StoreUnavailable
from controller.sources import Source
from tests.support.engine import World


class Questioned:
    def __init__(self, *problems: str) -> None:
        self._problems = problems

    async def problems(self) -> Sequence[str]:
        return self._problems


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    await made.apply()
    return made


async def examined(world: World, *problems: str) -> dict[str, Check]:
    doctor = Doctor(
        database="PostgreSQL",
        store=world.store,
        journal=world.folder / "kills.journal",
        sources={"prom": cast("Source", Questioned(*problems))},
        providers={"main": world.provider},
    )
    return {check.name: check for check in await doctor.examine()}


async def test_a_healthy_installation_has_nothing_to_fix(world: World) -> None:
    checks = await examined(world)
    assert set(checks) == {"database", "journal", "source prom", "plan checkout-v2"}
    assert all(check.ok and not check.fix for check in checks.values())


async def test_a_source_that_does_not_answer_is_named_with_its_reason(world: World) -> None:
    check = (await examined(world, "connection refused"))["source prom"]
    assert (check.ok, check.detail) == (False, "connection refused")
    assert "[sources.prom]" in check.fix


async def test_a_flag_that_cannot_be_read_is_found_before_a_start(world: World) -> None:
    world.provider.unreadable = "404"
    assert "cannot be read: 404" in (await examined(world))["plan checkout-v2"].detail


async def test_a_database_that_is_away_is_told_once(world: World) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("frozen")

    world.store.audit_head = away  # type: ignore[method-assign, assignment]
    world.store.plans = away  # type: ignore[method-assign, assignment]
    checks = await examined(world)
    assert [name for name, check in checks.items() if not check.ok] == ["database"]
    assert "kills" in checks["database"].fix
