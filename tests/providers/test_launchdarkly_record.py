"""Two views of one flag, and which of them counts when."""

from typing import Any

import msgspec
import pytest

from controller.domain.flag import FlagState, Unknown
from controller.providers.launchdarkly.model import Config, RestFlag
from controller.providers.launchdarkly.record import Record, Sent
from controller.providers.launchdarkly.stream import Shown
from tests.providers.test_launchdarkly_writing import FLAG, STAFF, config_of, make_flag, rule_of, weights

POLL = 10.0


class Sdk:
    """What a connected SDK shows, set by hand."""

    def __init__(self) -> None:
        self.connected = True
        self.since = 0.0
        self.why_not = "the connection broke"
        self._shown: Shown | None = None

    def shows(self, flag: RestFlag, at: float) -> None:
        self._shown = Shown(config_of(flag), at)

    def shown(self, _: str) -> Shown | None:
        return self._shown


@pytest.fixture
def sdk() -> Sdk:
    return Sdk()


@pytest.fixture
def record(sdk: Sdk) -> Record:
    stream: Any = sdk
    return Record(FLAG, stream)


def at(exposure: int, *, version: int = 3, **fields: Any) -> RestFlag:
    share = weights((0, exposure), (1, 100_000 - exposure))
    return make_flag(on=True, version=version, fallthrough=share, **fields)


def exposure(record: Record, now: float) -> int | str:
    seen = record.observation(now, POLL)
    return seen.exposure if isinstance(seen, FlagState) else seen.why


def test_what_both_say_is_so(record: Record, sdk: Sdk) -> None:
    record.take_in(at(1_000), 1.0)
    sdk.shows(at(1_000, version=99), 2.0)
    assert exposure(record, 1_000.0) == 1_000, "however long ago, and whatever the versions are"


def test_an_sdk_that_is_behind_shows_what_applications_see(record: Record, sdk: Sdk) -> None:
    sdk.shows(at(1_000), 1.0)
    record.take_in(at(10_000, version=4), 2.0)
    assert not record.outdated(3.0, POLL)
    assert exposure(record, 3.0) == 1_000


def test_news_of_the_sdk_have_to_be_read_first(record: Record, sdk: Sdk) -> None:
    record.take_in(at(1_000), 1.0)
    sdk.shows(at(10_000, version=4), 2.0)
    assert record.outdated(2.0, POLL)
    assert isinstance(record.observation(2.0, POLL), Unknown)


def test_after_a_write_of_ours_it_has_to_be_read_again(record: Record, sdk: Sdk) -> None:
    record.take_in(at(1_000), 1.0)
    sdk.shows(at(1_000), 1.0)
    record.written_at = 2.0
    assert record.outdated(2.5, POLL)
    record.take_in(at(1_000), 2.6)
    assert not record.outdated(2.7, POLL)


def test_an_answer_that_comes_late_does_not_take_the_place_of_a_newer_one(record: Record, sdk: Sdk) -> None:
    sdk.shows(at(1_000), 0.0)
    record.take_in(at(10_000, version=4), 2.0)
    record.take_in(at(1_000), 1.0)
    assert record.config == config_of(at(10_000, version=4))


def test_without_a_stream_for_longer_it_has_to_be_read_at_every_poll(record: Record, sdk: Sdk) -> None:
    record.take_in(at(1_000), 1.0)
    sdk.shows(at(1_000), 1.0)
    sdk.connected, sdk.since = False, 100.0
    assert not record.outdated(109.0, POLL), "SDKs come back within a second or two"
    assert record.outdated(111.0, POLL)
    record.take_in(at(1_000), 111.0)
    assert exposure(record, 112.0) == 1_000, "it is as the SDK had it"
    record.take_in(at(10_000, version=4), 113.0)
    assert "no SDK stream, the connection broke" in str(exposure(record, 114.0))


def test_our_rule_is_still_ours_in_an_sdk_that_shows_it_after_it_was_removed(record: Record, sdk: Sdk) -> None:
    record.take_in(at(1_000, rules=[rule_of(STAFF)]), 1.0)
    sdk.shows(at(1_000, rules=[rule_of(STAFF)]), 1.5)
    record.take_in(at(0, version=4), 2.0)
    seen = record.observation(3.0, POLL)
    assert isinstance(seen, FlagState)
    assert (seen.audience, seen.foreign) == (("staff",), ())


def test_a_flag_that_could_not_be_read_by_the_sdk_is_unknown(record: Record, sdk: Sdk) -> None:
    record.take_in(at(1_000), 2.0)
    sdk._shown = Shown(None, 1.0)
    assert "could not be read" in str(exposure(record, 3.0))


def test_a_write_has_arrived_when_the_sdk_shows_it_or_anything_newer(record: Record, sdk: Sdk) -> None:
    written = at(10_000, version=4)
    record.sent = Sent(5.0, 4, ("what was written",))
    assert record.arrived() is None
    sdk.shows(at(1_000), 5.5)
    assert record.arrived() is None
    sdk.shows(written, 6.5)
    assert (record.arrived(), record.delivered_seconds) == (1.5, 1.5)
    assert record.arrived() is None, "it is told once"


def test_a_write_that_arrives_before_its_answer_took_no_time(record: Record, sdk: Sdk) -> None:
    sdk.shows(at(10_000, version=4), 4.9)
    record.sent = Sent(5.0, 4, ())
    assert record.arrived() == 0.0


def test_who_is_asked_for_only_when_something_changed_beside_us(record: Record) -> None:
    record.take_in(at(1_000), 1.0)
    assert not record.whose, "as it was found"
    record.take_in(at(10_000, version=4), 2.0, own=True)
    assert not record.whose
    record.take_in(at(10_000, version=5, salt="s"), 3.0)
    assert not record.whose, "nothing that matters"
    record.take_in(at(20_000, version=6), 4.0)
    assert record.whose


def test_an_archived_flag_and_a_missing_environment_are_unknown(record: Record, sdk: Sdk) -> None:
    sdk.shows(at(1_000), 1.0)
    record.take_in(msgspec.structs.replace(at(1_000), archived=True), 2.0)
    assert "archived" in str(exposure(record, 3.0))
    record.take_in(msgspec.structs.replace(at(1_000), environments={}), 3.0)
    assert "no environment production" in str(exposure(record, 4.0))
    assert Config(on=False, version=1).complete is False
