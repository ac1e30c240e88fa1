"""What docs/notifications.md shows is so."""

import json
import re
import tomllib
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
import pytest

from controller.channels import KINDS, build
from controller.channels.pagerduty import INCIDENTS, SEVERITIES
from controller.channels.webhook import body_of, signed
from controller.domain.message import ENDS
from controller.domain.plan import EventName
from controller.domain.telling import LONGEST_REASON
from controller.settings import Settings
from tests.contracts.channels_contract import KILLED
from tests.contracts.test_channels import SECRET, WallClock
from tests.support.repository import ROOT, blocks

PAGE = ROOT / "docs" / "notifications.md"
TEXT = PAGE.read_text()
SETTINGS = msgspec.convert(tomllib.loads(blocks(PAGE, "toml")[0]), Settings, strict=True)


def section(kind: str) -> str:
    return TEXT.partition(f"\n## {kind}\n")[2].partition("\n## ")[0]


def test_the_settings_that_are_shown_build_a_channel_of_every_kind() -> None:
    built = [build(name, one, WallClock()) for name, one in SETTINGS.channels.items()]
    assert len(built) == len({type(one) for one in SETTINGS.channels.values()}) == len(KINDS)


@pytest.mark.parametrize("settings", KINDS)
def test_every_setting_of_a_channel_is_explained_with_its_default(settings: Any) -> None:
    told = section(msgspec.inspect.type_info(settings).tag)  # type: ignore[attr-defined]
    rows = "\n".join(line for line in told.splitlines() if line.startswith("|"))
    for field in msgspec.structs.fields(settings):
        assert f"`{field.name}`" in rows
    if "timeout_seconds" in settings.__struct_fields__:
        assert re.search(r"`timeout_seconds` \| .*; 10 \|", rows)


def test_every_event_is_explained() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", section("What a message says"), re.MULTILINE)) == set(
        get_args(EventName)
    )
    assert f"{LONGEST_REASON:,} characters" in " ".join(TEXT.split())


def test_the_body_that_is_shown_is_what_is_sent() -> None:
    (shown,) = blocks(PAGE, "json")
    assert json.loads(shown) == json.loads(msgspec.json.encode(body_of(KILLED)))


def test_the_check_of_a_signature_that_is_shown_tells_ours_from_others() -> None:
    (code,) = blocks(PAGE, "python")
    page: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), page)
    body, now = msgspec.json.encode(body_of(KILLED)), datetime.now(UTC)
    other = SECRET[:-4] + "LaSx"
    keys = [msgspec.json.decode(f'"{secret.removeprefix("whsec_")}"', type=bytes) for secret in (other, SECRET)]
    headers = dict(signed(KILLED.id, now, body, keys))
    assert page["is_ours"](headers, body, SECRET)
    assert page["is_ours"](headers, body, other)
    assert not page["is_ours"](headers, body + b" ", SECRET)
    assert not page["is_ours"](dict(signed(KILLED.id, now, body, keys[:1])), body, SECRET)
    old = dict(signed(KILLED.id, datetime(2026, 1, 1, tzinfo=UTC), body, keys))
    assert not page["is_ours"](old, body, SECRET)


def test_the_incidents_that_are_shown_open_and_end_like_that() -> None:
    rows = re.findall(
        r"^\| (.+?) \| (?:an|one) incident \| (\w+) \| (.+?) \|$", section("pagerduty"), re.MULTILINE
    )
    assert len(rows) == 3
    for opens, severity, ends in rows:
        opening = [event for event in re.findall(r"`(\w+)`", opens) if event in get_args(EventName)]
        assert {SEVERITIES[event] for event in opening} == {severity}
        assert len({INCIDENTS.get(event, event) for event in opening}) == 1
        ending = set(re.findall(r"`(\w+)`", ends))
        known = {event for event, over in ENDS.items() if set(opening) <= over}
        assert ending <= known
        assert ending == known or "anything else" in ends
