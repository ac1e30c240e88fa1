"""The events source: what selectors choose, and what it refuses to take for an answer."""

import uuid
from collections.abc import Sequence

import pytest

from controller.domain.evidence import QuantileQuestion, RatioQuestion, Reading
from controller.domain.tally import CHANGING, Cell, Delivery, Tally, Watch, bucket_of
from controller.settings import EventsSourceSettings
from controller.sources.events import EventsSource
from tests.support.event_memory import EventMemory
from tests.support.many_flags import SystemClock
from tests.support.sources import lent

ERROR = Cell("production", "checkout", "error", "on", "share", 10_000)
LATENCY = ERROR._replace(event="latency")
EVALUATIONS = ERROR._replace(event="evaluations", cohort="")
CONTEXTS = ERROR._replace(event="contexts")
FLAG = 'flag="checkout",variation="on"'


class World:
    def __init__(self) -> None:
        self.elapsed = 1000.0
        self.events = EventMemory(lambda: self.elapsed, slot_seconds=1)
        self.source = EventsSource("track", EventsSourceSettings(), lent(SystemClock(), self.events))

    async def tell(
        self, cell: Cell, count: int = 1, *, contexts: Sequence[int] = (), values: Sequence[float] = ()
    ) -> None:
        tally = Tally()
        tally.count = count
        tally.contexts.add_all(contexts)
        for value in values:
            tally.buckets[bucket_of(value)] = tally.buckets.get(bucket_of(value), 0) + 1
        await self.events.count([Delivery(uuid.uuid4().bytes, {cell: tally})])

    async def ratio(self, bad: str, total: str, window_seconds: float = 60.0) -> Reading:
        question = RatioQuestion(bad=bad, total=total, window_seconds=window_seconds)
        return (await self.source.measure([question]))[question]

    async def latency(self, quantile: float) -> Reading:
        question = QuantileQuestion(histogram=f"latency_bucket{{{FLAG}}}", quantile=quantile, window_seconds=60)
        return (await self.source.measure([question]))[question]


@pytest.fixture
async def world() -> World:
    """Everything that the tests ask for has been asked for long ago."""
    found = World()
    metrics = ("error", "error:contexts", "evaluations", "contexts", "latency")
    await found.events.watch([Watch("checkout", metric) for metric in metrics], from_seconds=-900)
    return found


async def test_events_are_divided_by_evaluations(world: World) -> None:
    await world.tell(ERROR, 3)
    await world.tell(EVALUATIONS, 200)
    await world.tell(EVALUATIONS._replace(variation="off"), 9_000)
    reading = await world.ratio(f"error_total{{{FLAG}}}", f"evaluations_total{{{FLAG}}}")
    assert (reading.bad, reading.total, reading.age_seconds, reading.failure) == (3, 200, 0, None)


@pytest.mark.parametrize("suffix", ["", "_total"])
async def test_an_event_is_named_by_its_key_as_a_counter_or_plainly(world: World, suffix: str) -> None:
    await world.tell(ERROR, 3)
    assert (await world.ratio(f"error{suffix}{{{FLAG}}}", f"error{suffix}{{{FLAG}}}")).total == 3


async def test_one_who_fails_again_and_again_is_one_failing_context(world: World) -> None:
    await world.tell(ERROR, 500, contexts=[1, 2])
    await world.tell(CONTEXTS, 40, contexts=range(40))
    reading = await world.ratio(f"error_contexts_total{{{FLAG}}}", f"contexts_total{{{FLAG}}}")
    assert (reading.bad, reading.total) == (2, 40)


async def test_a_quantile_is_that_of_the_values(world: World) -> None:
    await world.tell(LATENCY, 101, values=[number / 100 for number in range(1, 101)])
    for quantile in (0.5, 0.9, 0.95):
        reading = await world.latency(quantile)
        assert reading.value == pytest.approx(quantile, rel=0.05)
        assert reading.total == 100, "an event without a value has no share in it"


async def test_all_labels_are_matched_as_in_promql(world: World) -> None:
    for cohort, exposure in (("share", 1_000), ("share", 10_000), ("always", 10_000), ("other", -1)):
        await world.tell(ERROR._replace(cohort=cohort, exposure=exposure))
    for extra, count in (
        ('cohort="share"', 2),
        ('cohort!="share"', 2),
        ('cohort=~"share|always"', 3),
        ('exposure="10%"', 2),
        ('exposure=~".+"', 3),
        ('cohort="nobody"', None),
    ):
        selector = f"error_total{{{FLAG},{extra}}}"
        assert (await world.ratio(selector, selector)).total == count, extra


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        ('error_total{variation="on"}', 'must say which flag: flag="$flag"'),
        (f'error_total{{{FLAG},code=~"5.."}}', "events have no label code"),
        ('error_total{flag=~"checkout.*"}', "must say which flag"),
        ("sum(error_total)", "is an expression"),
    ],
)
async def test_a_selector_that_would_choose_nothing_or_too_much_is_refused(
    world: World, selector: str, told: str
) -> None:
    await world.tell(ERROR)
    reading = await world.ratio(selector, f"error_total{{{FLAG}}}")
    assert told in (reading.failure or "")


async def test_a_total_that_was_never_heard_of_is_silence(world: World) -> None:
    await world.tell(ERROR, 3)
    reading = await world.ratio(f"error_total{{{FLAG}}}", f"evaluations_total{{{FLAG}}}")
    assert (reading.total, reading.age_seconds) == (None, None)


async def test_two_environments_are_not_added_up(world: World) -> None:
    await world.tell(ERROR, 3)
    await world.tell(ERROR._replace(environment="staging"), 5)
    selector = f"error_total{{{FLAG}}}"
    assert 'add environment="$environment"' in ((await world.ratio(selector, selector)).failure or "")
    named = f'error_total{{{FLAG},environment="production"}}'
    assert (await world.ratio(named, named)).total == 3


async def test_errors_that_cannot_be_assigned_are_not_taken_for_no_errors(world: World) -> None:
    await world.tell(EVALUATIONS, 1_000)
    await world.tell(ERROR, 95)
    await world.tell(ERROR._replace(variation="", cohort="hidden", exposure=-1), 5)
    asked: tuple[str, str] = (f"error_total{{{FLAG}}}", f"evaluations_total{{{FLAG}}}")
    assert (await world.ratio(*asked)).bad == 95
    await world.tell(ERROR._replace(variation="", cohort="nobody", exposure=-1), 5)
    failure = (await world.ratio(*asked)).failure or ""
    assert "10 of 105 events error cannot be assigned to a variation of checkout (hidden, nobody)" in failure


async def test_what_happens_while_a_variation_changes_is_left_out_and_no_fault(world: World) -> None:
    await world.tell(ERROR, 5)
    await world.tell(ERROR._replace(variation="", cohort=CHANGING, exposure=-1), 50)
    assert (await world.ratio(f"error_total{{{FLAG}}}", f"error_total{{{FLAG}}}")).total == 5


async def test_another_environments_unassigned_events_are_not_ours(world: World) -> None:
    await world.tell(ERROR, 5)
    await world.tell(ERROR._replace(environment="staging", variation="", cohort="hidden"), 50)
    named = f'error_total{{{FLAG},environment="production"}}'
    assert (await world.ratio(named, named)).total == 5


async def test_a_window_longer_than_is_kept_says_what_to_do(world: World) -> None:
    selector = f"error_total{{{FLAG}}}"
    assert "raise retention_seconds" in ((await world.ratio(selector, selector, 7201)).failure or "")


async def test_without_the_database_there_is_no_answer_and_a_reason(world: World) -> None:
    world.events.away = True
    selector = f"error_total{{{FLAG}}}"
    assert (await world.ratio(selector, selector)).failure == "track: the database does not answer"
    assert list(await world.source.problems()) == ["the database does not answer"]


async def test_what_is_asked_for_the_first_time_is_counted_from_then_on() -> None:
    world = World()
    await world.tell(ERROR, 7)
    selector = f"error_total{{{FLAG}}}"
    assert (await world.ratio(selector, selector)).total is None
    world.elapsed += 10
    await world.tell(ERROR, 2)
    assert (await world.ratio(selector, selector)).total == 2


async def test_an_examination_shows_what_was_counted(world: World) -> None:
    await world.tell(ERROR, 3)
    question = RatioQuestion(bad=f"error_total{{{FLAG}}}", total=f"error_total{{{FLAG}}}", window_seconds=60)
    examined = (await world.source.examine([question])).found[question]
    assert [(one.labels["variation"], one.value) for one in examined.series] == [("on", 3)]
