"""The guard before a dependency, in virtual time: who is asked, who waits, who is sent home."""

import asyncio
import random
from contextlib import AsyncExitStack, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.breaker import Ask, Breaker, Limits
from controller.errors import NotAsked

LIMITS = Limits(opens_after=3, first_wait_seconds=1.0, longest_wait_seconds=15.0, at_once=2, in_line=3)
EVERY = 60.0


class Guarded:
    """A breaker whose clock stands still, and whose chance always draws the longest wait unless told otherwise."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.now = 1000.0
        self.drawn = 1.0
        self.told: list[bool] = []
        self.breaker = Breaker(
            "source prom",
            clock=lambda: self.now,
            chance=lambda: self.drawn,
            opened=self.told.append,
            limits=limits,
        )

    async def ask(self, *askers: str, why: str | None = None, every: float = EVERY, insist: bool = False) -> None:
        """One request, answered unless there is a `why`."""
        async with self.breaker.asking(askers or ("a",), within=1.0, every=every, insist=insist) as ask:
            ask.heard([] if why else askers or ("a",), why or "")

    async def fail(self, times: int = LIMITS.opens_after) -> None:
        for _ in range(times):
            await self.ask(why="connection refused")

    async def refusal(self, *askers: str, every: float = EVERY) -> NotAsked:
        with pytest.raises(NotAsked) as refused:
            await self.ask(*askers, every=every)
        return refused.value

    async def enter(self, stack: AsyncExitStack, *askers: str) -> Ask:
        return await stack.enter_async_context(
            self.breaker.asking(askers or ("a",), within=1.0, every=EVERY, insist=False)
        )


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# — when it opens —


async def test_after_several_failures_in_a_row_nobody_is_asked_and_the_reason_says_why(guarded: Guarded) -> None:
    await guarded.fail()
    guarded.drawn = 0.0
    refused = await guarded.refusal()
    assert str(refused) == "not asked: 3 failures in a row, next try in 1 s; last: connection refused"
    assert refused.again_in == 1.0
    assert guarded.told == [False, True]


async def test_an_answer_in_between_begins_the_count_anew(guarded: Guarded) -> None:
    await guarded.fail(2)
    await guarded.ask()
    await guarded.fail(2)
    assert not guarded.breaker.open


async def test_one_whose_questions_are_at_fault_takes_the_dependency_away_from_nobody(guarded: Guarded) -> None:
    await guarded.ask("healthy")
    await guarded.fail(20)
    assert not guarded.breaker.open
    await guarded.ask("healthy")


async def test_who_was_answered_long_ago_and_asks_no_more_keeps_nothing_closed(guarded: Guarded) -> None:
    await guarded.ask("gone", every=15.0)
    guarded.now += 40.0
    await guarded.fail()
    assert guarded.breaker.open


async def test_who_asks_for_the_first_time_is_asked_though_others_failed(guarded: Guarded) -> None:
    await guarded.fail()
    await guarded.ask("new")
    assert not guarded.breaker.open
    assert guarded.told == [False, True, False]


async def test_a_request_that_was_given_up_counts_neither_way(guarded: Guarded) -> None:
    for _ in range(5):
        with suppress(ZeroDivisionError):
            async with guarded.breaker.asking(["a"], within=1.0, every=EVERY):
                raise ZeroDivisionError
    assert not guarded.breaker.open


# — how long it stays open —


async def test_the_wait_doubles_up_to_its_bound_and_is_drawn_below_it(guarded: Guarded) -> None:
    await guarded.fail()
    waits = []
    for _ in range(7):
        waits.append((await guarded.refusal()).again_in)
        guarded.now += waits[-1]
        await guarded.ask(why="still refused")
    assert waits == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    guarded.drawn = 0.4
    guarded.now += 15.0
    await guarded.ask(why="still refused")
    assert (await guarded.refusal()).again_in == pytest.approx(6.0)


async def test_nobody_waits_longer_than_its_own_interval(guarded: Guarded) -> None:
    await guarded.fail()
    for _ in range(5):
        guarded.now += 15.0
        await guarded.ask(why="still refused")
    assert (await guarded.refusal(every=60.0)).again_in == 15.0
    assert (await guarded.refusal(every=5.0)).again_in == 5.0
    guarded.now += 5.0
    await guarded.ask(every=5.0)
    assert not guarded.breaker.open


async def test_who_insists_is_asked_at_any_time(guarded: Guarded) -> None:
    await guarded.fail()
    await guarded.ask(insist=True)
    assert not guarded.breaker.open


# — the probe —


async def test_while_one_finds_out_the_others_wait_and_go_on_with_its_answer(guarded: Guarded) -> None:
    await guarded.fail()
    guarded.now += 1.0
    async with AsyncExitStack() as stack:
        probe = await guarded.enter(stack)
        others = [asyncio.create_task(guarded.ask("a")) for _ in range(3)]
        await settle()
        assert not any(other.done() for other in others)
        probe.heard(["a"])
        await asyncio.gather(*others)
    assert not guarded.breaker.open


async def test_when_the_probe_fails_who_waited_for_it_is_sent_home(guarded: Guarded) -> None:
    await guarded.fail()
    guarded.now += 1.0
    async with AsyncExitStack() as stack:
        probe = await guarded.enter(stack)
        other = asyncio.create_task(guarded.ask("a"))
        await settle()
        probe.heard([], "no route to host")
        with pytest.raises(NotAsked, match="4 failures in a row, next try in 2 s; last: no route to host"):
            await other


async def test_the_failure_of_anothers_probe_does_not_speak_for_who_never_failed(guarded: Guarded) -> None:
    await guarded.fail()
    guarded.now += 1.0
    async with AsyncExitStack() as stack:
        probe = await guarded.enter(stack, "a")
        newcomer = asyncio.create_task(guarded.ask("new"))
        await settle()
        probe.heard([], "the query is wrong")
    await newcomer
    assert not guarded.breaker.open


async def test_a_probe_that_is_given_up_leaves_its_place_to_the_next(guarded: Guarded) -> None:
    await guarded.fail()
    guarded.now += 1.0
    async with AsyncExitStack() as stack:
        await guarded.enter(stack)
        other = asyncio.create_task(guarded.ask("a"))
        await settle()
    await other
    assert not guarded.breaker.open


# — how many at once —


async def test_so_many_are_asked_at_once_so_many_wait_and_the_rest_is_sent_home(guarded: Guarded) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(LIMITS.at_once):
            await guarded.enter(stack)
        waiting = [asyncio.create_task(guarded.ask()) for _ in range(LIMITS.in_line)]
        await settle()
        refused = await guarded.refusal()
        assert str(refused) == "not asked: 3 requests to it are waiting already"
        assert not any(task.done() for task in waiting)
    await asyncio.gather(*waiting)


async def test_who_waits_too_long_for_a_turn_was_not_asked(guarded: Guarded) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(LIMITS.at_once):
            await guarded.enter(stack)
        with pytest.raises(NotAsked, match=r"others were still asking after 0\.01 s"):
            async with guarded.breaker.asking(["a"], within=0.01, every=EVERY):
                pytest.fail("asked")
    await guarded.ask()


async def test_who_gives_up_while_waiting_leaves_no_hole(guarded: Guarded) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(LIMITS.at_once):
            await guarded.enter(stack)
        first, second = (asyncio.create_task(guarded.ask()) for _ in range(2))
        await settle()
        first.cancel()
    await second
    for _ in range(LIMITS.at_once):
        await guarded.ask()


async def test_a_turn_that_comes_when_nobody_is_there_any_more_goes_to_the_next(guarded: Guarded) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(LIMITS.at_once):
            await guarded.enter(stack)
        gone = [asyncio.create_task(guarded.ask()) for _ in range(LIMITS.at_once)]
        await settle()
    for task in gone:
        task.cancel()  # called up a moment ago, and not awake yet
    await settle()
    for _ in range(LIMITS.at_once):
        await guarded.ask()


async def test_who_gave_up_waiting_takes_no_place_in_the_line(guarded: Guarded) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(LIMITS.at_once):
            await guarded.enter(stack)
        for _ in range(2):
            waiting = [asyncio.create_task(guarded.ask()) for _ in range(LIMITS.in_line)]
            await settle()
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await settle()


# — whatever happens —

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "answer", "fail", "give_up", "cancel", "time"]),
        st.integers(0, 4),
        st.floats(0.0, 20.0, allow_nan=False),
    ),
    max_size=60,
)


@given(STEPS, st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_there_is_one_probe_no_wait_beyond_the_bound_and_nobody_is_forgotten(
    steps: list[tuple[str, int, float]], seed: int
) -> None:
    asyncio.run(_anything(steps, random.Random(seed)))


class Request:
    """One caller that keeps its request open until it is told what came of it."""

    def __init__(self, guarded: Guarded, asker: str) -> None:
        self.outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.asker = asker
        self.under_way = False
        self.probes = False
        self.refused: NotAsked | None = None
        self.task = asyncio.create_task(self._run(guarded))

    async def _run(self, guarded: Guarded) -> None:
        try:
            async with guarded.breaker.asking([self.asker], within=60.0, every=EVERY) as ask:
                self.under_way, self.probes = True, guarded.breaker.open
                outcome = await self.outcome
                if outcome != "give_up":
                    ask.heard([self.asker] if outcome == "answer" else [], "it failed")
        except NotAsked as refused:
            self.refused = refused
        finally:
            self.under_way = False


async def _anything(steps: list[tuple[str, int, float]], chance: random.Random) -> None:
    guarded = Guarded()
    requests: list[Request] = []
    for what, which, number in steps:
        guarded.drawn = chance.random()
        busy = [request for request in requests if not request.task.done()]
        if what == "ask":
            requests.append(Request(guarded, f"asker {which}"))
        elif what == "time":
            guarded.now += number
        elif busy:
            request = busy[which % len(busy)]
            if what == "cancel":
                request.task.cancel()
            elif request.under_way and not request.outcome.done():
                request.outcome.set_result(what)
        await settle()
        under_way = [request for request in requests if request.under_way]
        if guarded.breaker.open:
            assert sum(request.probes for request in under_way) <= 1
        else:
            assert len(under_way) <= LIMITS.at_once
    for _ in range(len(requests) + 1):
        for request in requests:
            if request.under_way and not request.outcome.done():
                request.outcome.set_result("answer")
        await settle()
    assert all(request.task.done() for request in requests)
    for refused in [request.refused for request in requests if request.refused]:
        assert refused.again_in <= LIMITS.longest_wait_seconds or "waiting already" in str(refused)
    assert [e for r in requests if not r.task.cancelled() and (e := r.task.exception())] == []
