"""The flagd provider on a real file, behind a disk that fails as it is told, and people who edit the same file."""

import asyncio
import errno
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from controller.ports import FlagProvider
from controller.providers.flagd import FlagdProvider
from controller.providers.flagd.file import FlagFile, Uncertain
from controller.settings import FlagdProviderSettings
from tests.contracts.provider_world import FLAG, WITHOUT_HTTP, Beyond, Edit, Fault, HeldWrite, Knowledge
from tests.support.providers import make_host
from tests.support.sdk_door import make_board

CANNOT: dict[Beyond, str] = {
    **{one: why for one, why in WITHOUT_HTTP.items() if one is not Fault.CONFLICT},
    Knowledge.WHO: "a file does not tell who wrote it",
}

FRESH = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}
NEIGHBOUR = {
    "state": "ENABLED",
    "variants": {"a": 1.5, "b": 2.5},
    "defaultVariant": "a",
    "metadata": {"team": "x"},
}
PARKED = f"rampart.parked.{FLAG.key}"


class FaultyFile(FlagFile):
    """What happens to it is said by `disk`, which all files of a world share."""

    def __init__(self, path: Path, disk: "Disk") -> None:
        super().__init__(path)
        self._disk = disk

    def read(self) -> bytes:
        raw = super().read()
        if self._disk.fault is Fault.DOWN:
            raise OSError(errno.EIO, "the disk does not answer")
        return raw[: len(raw) // 2] if self._disk.fault is Fault.HALF else raw

    def replace(self, before: bytes, after: bytes) -> bool:
        self._disk.wait()
        if self._disk.fault in (Fault.DOWN, Fault.LOST_BEFORE):
            raise OSError(errno.EROFS, "the disk takes nothing")
        if self._disk.fault is Fault.CONFLICT:
            return False
        replaced = super().replace(before, after)
        if replaced and self._disk.fault is Fault.LOST_AFTER:
            raise Uncertain(errno.EIO, "the disk does not say that it kept it")
        return replaced


class Disk:
    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.held: HeldWrite | None = None
        self._loop = asyncio.get_running_loop()

    def wait(self) -> None:
        """In a thread of whoever writes."""
        if self.held is not None:
            asyncio.run_coroutine_threadsafe(self.held.wait(), self._loop).result()


class FlagdWorld:
    patience = 2.0

    def __init__(self, folder: Path, *, sync_bind: str = "") -> None:
        self.path = folder / "flags.json"
        self.sync_bind = sync_bind
        self._write({"flags": {FLAG.key: FRESH, "neighbour": NEIGHBOUR}})
        self._disk = Disk()
        self._settings = FlagdProviderSettings(files={FLAG.environment: str(self.path)}, sync_bind=sync_bind)
        self.provider: FlagProvider = self._provider("r1")

    def _provider(self, replica: str) -> FlagdProvider:
        board = make_board()
        board.load([], [])
        host = make_host(None, board, replica=replica)
        provider = FlagdProvider(
            FLAG.provider, self._settings, host, open_file=lambda path: FaultyFile(path, self._disk)
        )
        provider.start()
        return provider

    def reopen(self) -> None:
        """As after a restart of Rampart; the provider of before is closed."""
        self.provider = self._provider("r1")

    @asynccontextmanager
    async def another(self) -> AsyncIterator[FlagProvider]:
        provider = self._provider("r2")
        try:
            yield provider
        finally:
            await provider.close()

    async def edit(self, edit: Edit) -> None:
        document = json.loads(self.path.read_bytes())
        EDITS[edit](document)
        self._write(document)

    @asynccontextmanager
    async def fault(self, fault: Fault) -> AsyncIterator[None]:
        self._disk.fault = fault
        try:
            yield
        finally:
            self._disk.fault = None

    @asynccontextmanager
    async def held_write(self) -> AsyncIterator[HeldWrite]:
        held = self._disk.held = HeldWrite()
        try:
            yield held
        finally:
            self._disk.held = None
            held.let_go.set()

    async def everything(self) -> Any:
        return json.loads(self.path.read_bytes())

    def _write(self, document: Any) -> None:
        """As most editors do: in place."""
        self.path.write_text(json.dumps(document, indent=2))


def _flag(document: Any) -> Any:
    return document["flags"][FLAG.key]


def _weights(node: Any) -> list[Any] | None:
    """The weights of the default rule, wherever in the targeting it is."""
    if isinstance(node, dict) and "fractional" in node:
        args: list[Any] = node["fractional"]
        return args
    parts = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    return next((found for part in parts if (found := _weights(part)) is not None), None)


def _raised(document: Any) -> None:
    weights = _weights(_flag(document)["targeting"])
    assert weights is not None
    weights[-2:] = [["on", 50], ["off", 50]]


def _turned_on(document: Any) -> None:
    parked = document.get("$evaluators", {}).pop(PARKED, None)
    _flag(document)["targeting"] = parked or {"fractional": [["on", 0], ["off", 100]]}


def _turned_off(document: Any) -> None:
    del _flag(document)["targeting"]


def _second_rule(document: Any) -> None:
    flag = _flag(document)
    flag["targeting"] = {"if": [{"==": [{"var": "team"}, "insiders"]}, "on", flag["targeting"]]}


def _swapped(document: Any) -> None:
    weights = _weights(_flag(document)["targeting"])
    assert weights is not None
    weights[-2:] = reversed(weights[-2:])


def _archived(document: Any) -> None:
    del document["flags"][FLAG.key]


def _renamed(document: Any) -> None:
    document["flags"]["checkout-v3"] = document["flags"].pop(FLAG.key)


EDITS: dict[Edit, Callable[[Any], None]] = {
    Edit.RAISED: _raised,
    Edit.TURNED_ON: _turned_on,
    Edit.TURNED_OFF: _turned_off,
    Edit.SECOND_RULE: _second_rule,
    Edit.SWAPPED: _swapped,
    Edit.ARCHIVED: _archived,
    Edit.RENAMED: _renamed,
}
