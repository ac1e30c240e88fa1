"""The Unleash provider and a real Unleash server: a door between them that can be shut, a person beside them."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from controller.ports import FlagProvider
from controller.providers.unleash import UnleashProvider
from controller.settings import UnleashProviderSettings
from tests.contracts.provider_world import FLAG, Beyond, Edit, Fault, HeldWrite
from tests.support.http_faults import FaultyDoor, Request
from tests.support.providers import make_host
from tests.support.sdk_door import make_board
from tests.support.unleash import Flag, Person

CANNOT: dict[Beyond, str] = {
    Edit.RENAMED: "Unleash does not rename a flag; under another name it is another flag",
}
REQUEST_SECONDS = 1.0
SHARE = "rampart"


class Installation(NamedTuple):
    """A running server, a file with the token of Rampart's own account there, and the person's token."""

    url: str
    token_file: Path
    person_token: str


def only_reads(request: Request) -> bool:
    """The playground is asked by POST, and changes nothing."""
    return not request.writes or request.path.endswith("/playground")


class UnleashWorld:
    patience = 8.0

    def __init__(self, installed: Installation, door: FaultyDoor, someone: Person) -> None:
        self.door = door
        self.someone = someone
        self.flag = Flag(someone, FLAG.key, FLAG.environment)
        self.provider: FlagProvider = make_provider(installed, url=door.url)
        self._installed = installed

    @asynccontextmanager
    async def another(self) -> AsyncIterator[FlagProvider]:
        provider = make_provider(self._installed, url=self.door.url)
        yield provider
        await provider.close()

    async def edit(self, edit: Edit) -> None:
        match edit:
            case Edit.RAISED:
                await self.flag.set(SHARE, "/parameters/rollout", "50")
            case Edit.TURNED_ON:
                await self.flag.turn("on")
            case Edit.TURNED_OFF:
                await self.flag.turn("off")
            case Edit.SECOND_RULE:
                insiders = {"contextName": "team", "operator": "IN", "values": ["insiders"]}
                await self.flag.add(title="insiders", parameters={"rollout": "100"}, constraints=[insiders])
            case Edit.SWAPPED:
                await self.flag.set(SHARE, "/parameters/groupId", "another-group")
            case Edit.ARCHIVED:
                await self.flag.archive()
            case Edit.RENAMED:
                raise AssertionError(CANNOT[edit])

    def fault(self, fault: Fault) -> AbstractAsyncContextManager[None]:
        return self.door.fault(fault)

    def held_write(self) -> AbstractAsyncContextManager[HeldWrite]:
        return self.door.held_write()

    async def everything(self) -> Any:
        return await self.flag.everything()


def make_provider(installed: Installation, **settings: Any) -> UnleashProvider:
    """Started; the settings are those of the installation but for the ones given."""
    ours = {"url": installed.url, "api_token_file": str(installed.token_file), "timeout_seconds": REQUEST_SECONDS}
    nothing: Any = None
    provider = UnleashProvider(
        FLAG.provider, UnleashProviderSettings(**{**ours, **settings}), make_host(nothing, make_board())
    )
    provider.start()
    return provider


@asynccontextmanager
async def opened(installed: Installation, someone: Person) -> AsyncIterator[UnleashWorld]:
    door = FaultyDoor(installed.url, writes=lambda request: not only_reads(request))
    async with door.open():
        world = UnleashWorld(installed, door, someone)
        await world.flag.make()
        yield world
        await world.provider.close()
