"""What docs/providers/flagd.md shows is so."""

import json
import tomllib

import msgspec

from controller.providers.flagd.definition import FALLBACK, Found, state_of, turned_on, with_share
from controller.providers.flagd.document import PARKED
from controller.providers.flagd.sync import STREAMS
from controller.settings import FlagdProviderSettings, Settings
from tests.contracts.flagd_world import FRESH
from tests.contracts.provider_cases import STAFF, share
from tests.contracts.provider_world import FLAG
from tests.support.repository import ROOT, blocks

PAGE = ROOT / "docs" / "providers" / "flagd.md"
TEXT = PAGE.read_text()


def test_the_settings_that_are_shown_are_read() -> None:
    (block,) = blocks(PAGE, "toml")
    settings = msgspec.convert(tomllib.loads(block), Settings, strict=True)
    edge = settings.providers["edge"]
    assert isinstance(edge, FlagdProviderSettings)
    assert edge.settle_seconds == 5
    assert all(f"| `{name}` |" in TEXT for name in FlagdProviderSettings.__struct_fields__)


def test_the_flag_that_is_shown_is_what_is_written() -> None:
    (block,) = blocks(PAGE, "json")
    written = turned_on(with_share(Found(FRESH), share(1_000, STAFF))).definition
    assert json.loads(block)["flags"] == {FLAG.key: written}
    assert state_of(Found(written))


def test_the_names_that_are_shown_are_those_that_are_written() -> None:
    assert f'"{FALLBACK}"' in TEXT
    assert f"`{PARKED}{FLAG.key}`" in TEXT
    assert f"At most {STREAMS} subscribers" in TEXT
