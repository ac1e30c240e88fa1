"""Incidents that open and end, as PagerDuty would put them together by their keys."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from controller.channels.pagerduty import PagerDutyChannel, change, dedup_key, trigger
from controller.domain.message import EVENTS, Message
from controller.settings import PagerDutyChannelSettings
from tests.contracts.channels_contract import KILLED
from tests.contracts.test_channels import ROUTING_KEY, WallClock, written
from tests.support.receivers import HttpReceiver

PAGING = {"killed": "critical", "paused": "warning", "stepped_back": "warning"}


def event(name: str, *, only_ends: bool = False) -> Message:
    (known,) = {one for one in EVENTS.values() if one == name}
    return replace(KILLED, id=f"the {name}", event=known, only_ends=only_ends)


class Pager:
    """A service of PagerDuty: what is open there, what was shown as a change, by the keys that came."""

    def __init__(self, receiver: HttpReceiver, folder: Path, *, approvals: bool = False) -> None:
        self.receiver = receiver
        settings = PagerDutyChannelSettings(
            routing_key_file=written(folder / "key", ROUTING_KEY),
            url=receiver.url,
            approvals=approvals,
            allow_private=True,
        )
        self.channel = PagerDutyChannel("pager", settings, WallClock())

    async def told(self, *messages: Message) -> None:
        for message in messages:
            await self.channel.announce(message)
        await self.channel.close()

    @property
    def open(self) -> dict[str, str]:
        """Incident → severity."""
        found: dict[str, str] = {}
        for received in self.receiver.taken:
            told = received.json
            assert told["routing_key"] == ROUTING_KEY
            if received.path == "/v2/change/enqueue":
                continue
            assert received.path == "/v2/enqueue"
            if told["event_action"] == "trigger":
                found.setdefault(told["dedup_key"], told["payload"]["severity"])
            else:
                found.pop(told["dedup_key"], None)
        return found

    @property
    def changes(self) -> list[str]:
        changed = [one.json for one in self.receiver.taken if one.path == "/v2/change/enqueue"]
        return [str(one["payload"]["summary"]).partition(":")[0] for one in changed]


@pytest.mark.parametrize(("name", "severity"), PAGING.items())
async def test_what_stops_a_rollout_pages_by_how_bad_it_is(tmp_path: Path, name: str, severity: str) -> None:
    async with HttpReceiver(takes=202).open() as receiver:
        pager = Pager(receiver, tmp_path)
        await pager.told(event(name))
        assert list(pager.open.values()) == [severity]
        assert pager.changes == []


@pytest.mark.parametrize(
    ("story", "left"),
    [
        (["paused", "resumed"], []),
        (["paused", "stepped_back", "resumed"], []),
        (["paused", "killed"], ["killed"]),
        (["paused", "killed", "reset"], []),
        (["killed", "reset"], []),
        (["paused", "abandoned"], []),
        (["killed", "resumed"], ["killed"]),
        (["paused", "advanced"], ["paused"]),
        (["killed", "killed"], ["killed"]),
    ],
)
async def test_an_incident_ends_with_what_it_was_opened_for(
    tmp_path: Path, story: list[str], left: list[str]
) -> None:
    async with HttpReceiver(takes=202).open() as receiver:
        pager = Pager(receiver, tmp_path)
        await pager.told(*(event(name, only_ends=name not in PAGING) for name in story))
        assert list(pager.open) == [f"rampart/{name}/main/production/checkout-v2" for name in left]
        assert pager.changes == []


async def test_incidents_of_different_flags_are_different(tmp_path: Path) -> None:
    async with HttpReceiver(takes=202).open() as receiver:
        pager = Pager(receiver, tmp_path)
        await pager.told(
            event("paused"), replace(event("paused"), flag="main/production/search"), event("resumed")
        )
        assert list(pager.open) == ["rampart/paused/main/production/search"]


async def test_progress_is_shown_as_a_change_and_pages_nobody(tmp_path: Path) -> None:
    async with HttpReceiver(takes=202).open() as receiver:
        pager = Pager(receiver, tmp_path)
        await pager.told(*map(event, ["started", "advanced", "completed", "approval"]))
        assert pager.open == {}
        assert pager.changes == ["Started", "Raised to 0 %", "Completed", "Waits for approval"]


async def test_who_asks_for_it_is_paged_for_approvals_until_they_are_given(tmp_path: Path) -> None:
    async with HttpReceiver(takes=202).open() as receiver:
        pager = Pager(receiver, tmp_path, approvals=True)
        await pager.told(event("approval"))
        assert list(pager.open.values()) == ["info"]
        await pager.told(event("advanced", only_ends=True))
        assert pager.open == {}


async def test_what_only_ends_something_opens_nothing(tmp_path: Path) -> None:
    async with HttpReceiver(takes=202).open() as receiver:
        pager = Pager(receiver, tmp_path, approvals=True)
        await pager.told(event("approval"), event("paused", only_ends=True))
        assert pager.open == {}


async def test_what_was_never_opened_is_not_ended(tmp_path: Path) -> None:
    async with HttpReceiver(takes=202).open() as receiver:
        pager = Pager(receiver, tmp_path)
        await pager.told(event("advanced"))
        assert [received.path for received in receiver.seen] == ["/v2/change/enqueue"]


async def test_a_test_rings_and_is_no_incident_of_a_flag(tmp_path: Path) -> None:
    async with HttpReceiver(takes=202).open() as receiver:
        pager = Pager(receiver, tmp_path)
        await pager.told(replace(KILLED, event="test", id="0123", flag=""), event("reset"), event("resumed"))
        assert pager.open == {"rampart/test/0123": "info"}


def test_a_key_is_never_longer_than_pagerduty_takes_and_still_tells_flags_apart() -> None:
    long = replace(KILLED, flag="p" * 100 + "/production/" + "k" * 200)
    other = replace(long, flag=long.flag + "2")
    keys = {dedup_key(one, incident) for one in (long, other) for incident in ("killed", "paused")}
    assert len(keys) == 4
    assert all(len(key) <= 255 for key in keys)


def test_a_summary_is_never_longer_than_pagerduty_takes() -> None:
    wordy = replace(KILLED, reason="why " * 5000, rollout="r" * 3000)
    for told in (trigger(wordy), change(wordy)):
        assert len(told["payload"]["summary"]) <= 1024
        assert "\n" not in told["payload"]["summary"]


def test_the_one_who_is_paged_gets_the_page_to_act_on() -> None:
    assert trigger(KILLED)["client_url"] == "https://rampart.example/r/checkout-v2"
    assert "client_url" not in trigger(replace(KILLED, link=""))
