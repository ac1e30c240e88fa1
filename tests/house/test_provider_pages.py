"""The settings that pages about providers show are ones that the server takes."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from controller.settings import Settings
from tests.support.repository import blocks, markdown, shown

PAGES = sorted(page for page in markdown() if page.parent.name == "providers" and blocks(page, "toml"))


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_block_of_settings_on_a_page_about_a_provider_is_valid(page: Path) -> None:
    for block in blocks(page, "toml"):
        msgspec.convert(tomllib.loads(block), Settings, strict=True)


def test_there_are_such_pages() -> None:
    assert PAGES
