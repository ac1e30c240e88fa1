"""The provider of docs/providers/writing-your-own.md, as it stands there, is one."""

import subprocess
import sys
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from controller.providers import KINDS, build
from controller.providers.host import Provider
from tests.contracts.provider_world import FLAG, PERSON, Beyond, Edit, Fault, HeldWrite
from tests.contracts.providers_contract import ProviderContract
from tests.support.http_faults import FaultyDoor
from tests.support.key_value import KeyValueStore
from tests.support.providers import make_host
from tests.support.repository import ROOT, blocks
from tests.support.sdk_door import make_board

PAGE = ROOT / "docs" / "providers" / "writing-your-own.md"
PATH = f"{FLAG.environment}/{FLAG.key}"
CANNOT: dict[Beyond, str] = {Edit.RENAMED: "a key of the store is never another one; documents are copied"}


def example() -> str:
    (text,) = [block for block in blocks(PAGE, "python") if "class KeyValueProvider:" in block]
    return text


def as_module() -> types.ModuleType:
    module = types.ModuleType("key_value")
    exec(compile(example(), str(PAGE), "exec"), module.__dict__)  # our own page
    return module


KEY_VALUE = as_module()


class KeyValueWorld:
    patience = 6.0

    def __init__(self, store: KeyValueStore, door: FaultyDoor) -> None:
        self._store, self._door = store, door
        self._settings = KEY_VALUE.KeyValueProviderSettings(url=door.url, settle_seconds=5.0, timeout_seconds=1.0)
        self.provider = self._built()

    def _built(self) -> Provider:
        provider = build("main", self._settings, make_host(None, make_board()))
        provider.start()
        return provider

    @asynccontextmanager
    async def another(self) -> AsyncIterator[Provider]:
        provider = self._built()
        try:
            yield provider
        finally:
            await provider.close()

    async def edit(self, edit: Edit) -> None:
        document = self._store.documents[PATH]
        insiders = {"by": PERSON, "name": "insiders", "match": {"team": {"in": ["insiders"]}}}
        changes: dict[Edit, dict[str, Any]] = {
            Edit.RAISED: {"share": 50_000},
            Edit.TURNED_ON: {"on": True},
            Edit.TURNED_OFF: {"on": False},
            Edit.SECOND_RULE: {"rules": [*document["rules"], insiders]},
            Edit.SWAPPED: {"salt": "another"},
        }
        if edit is Edit.ARCHIVED:
            del self._store.documents[PATH]
        else:
            self._store.write(PATH, document | changes[edit], by=PERSON)

    @asynccontextmanager
    async def fault(self, fault: Fault) -> AsyncIterator[None]:
        async with self._door.fault(fault):
            yield

    @asynccontextmanager
    async def held_write(self) -> AsyncIterator[HeldWrite]:
        async with self._door.held_write() as held:
            yield held

    async def everything(self) -> Any:
        return deepcopy(self._store.documents)


class TestKeyValue(ProviderContract):
    kind = KEY_VALUE.KeyValueProviderSettings
    cannot = CANNOT

    @pytest.fixture
    async def world(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KeyValueWorld]:
        monkeypatch.setitem(KINDS, KEY_VALUE.KeyValueProviderSettings, KEY_VALUE.KeyValueProvider)
        fresh = {"on": False, "order": ["off", "on"], "share": 0, "bucketBy": "user", "salt": "s", "rules": []}
        async with KeyValueStore().open() as store, FaultyDoor(store.url).open() as door:
            store.write(PATH, fresh, by="kim")
            world = KeyValueWorld(store, door)
            try:
                yield world
            finally:
                await world.provider.close()


def test_the_example_has_at_most_a_hundred_lines() -> None:
    assert len([line for line in example().splitlines() if line.strip()]) <= 100


def test_the_example_is_as_clean_as_what_stands_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "key_value.py"
    file.write_text(example())
    for check in (["format", "--check"], ["check"]):
        command = [sys.executable, "-m", "ruff", *check, "--config", str(ROOT / "pyproject.toml"), str(file)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
