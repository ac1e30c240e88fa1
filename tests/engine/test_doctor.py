"""What the doctor finds wrong, made wrong for real, and what it says to do about it."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from controller.doctor import findings
from controller.doctor.measures import Ask, looked_at
from controller.domain.catalogue import Replica
from controller.domain.evidence import Examination, Examined, Question, Reading
from controller.domain.flag import FlagState
from controller.errors import NotFound, StoreUnavailable, Unavailable, Undeliverable
from controller.peers import Sighting
from controller.providers.host import Provider
from controller.settings import PrometheusSourceSettings, ScrapeSourceSettings, Settings
from controller.sources.kinds import Source
from controller.sources.scrape import ScrapeSource
from tests.support.engine import World
from tests.support.practice import Practice
from tests.support.prometheus import ExpositionServer
from tests.support.rollouts import make_guardrails, make_plan, make_policy
from tests.support.sources import lent

STAGES = [{"name": "everyone", "exposure": "100%", "bake": "30m"}]
ANY = {"requests": 1}
NOTIFY = [{"to": "oncall"}]
WITHOUT_ALWAYS: dict[str, Any] = {"audience": {"always": []}, "notify": NOTIFY}


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    await made.presence.check_in()
    return made


# — a shop that is scraped, once a second of the world's time —


class Shop:
    """Serves what it is told to. `pass_seconds` moves the world's clock, one scrape each second."""

    def __init__(self, world: World, source: ScrapeSource, server: ExpositionServer) -> None:
        self.world, self.source, self.server = world, source, server
        self.began = world.clock.elapsed
        self.labels = ['flag="checkout-v2",variation="off",cohort="share"']
        self.rate = 2000.0
        self.status = 'code="200"'
        server.render = self.text

    def text(self) -> str:
        grown = 50 + (self.world.clock.elapsed - self.began) * self.rate
        return (
            "\n".join(
                f"requests_total{{{labels},{self.status}}} {grown}\n"
                f'seconds_bucket{{{labels},le="0.1"}} {grown}\nseconds_bucket{{{labels},le="+Inf"}} {grown}'
                for labels in self.labels
            )
            + "\n"
        )

    async def pass_seconds(self, count: int) -> None:
        for _ in range(count):
            self.world.clock.elapsed += 1
            await self.source.scrape()


@asynccontextmanager
async def opened(practice: Practice, **spec: Any) -> AsyncIterator[Shop]:
    """`spec` changes the policy, whose window is 20 s here."""
    short = {"window": "20s", "every": "2s", "noData": {"after": "1m", "then": "pause"}, **spec}
    await practice.world.apply(make_plan(**WITHOUT_ALWAYS), make_policy(**short))
    with ExpositionServer(lambda: "") as server:
        settings = ScrapeSourceSettings(targets=[server.address], every_seconds=1.0)
        source = ScrapeSource("prom", settings, lent(practice.world.clock))
        practice.sources = {"prom": source}
        shop = Shop(practice.world, source, server)
        try:
            yield shop
        finally:
            await source.close()


@pytest.fixture
def practice(world: World) -> Practice:
    return Practice(world)


@pytest.fixture
async def shop(practice: Practice) -> AsyncIterator[Shop]:
    async with opened(practice) as shop:
        await shop.pass_seconds(25)
        await practice.world.presence.check_in()
        yield shop


async def test_a_healthy_installation_has_nothing_to_fix(practice: Practice, shop: Shop) -> None:
    found = await practice.examined()
    assert set(found) == {
        "database", "clock of database", "journal", "replicas", "secrets", "channels", "source prom",
        "plan checkout-v2",
    }  # fmt: skip
    assert [check for several in found.values() for check in several if check.state != "ok" or check.fix] == []
    assert found["plan checkout-v2"][0].detail == (
        "main/production/checkout-v2 is off; web answers for off "
        "(error_rate, latency_p95, 40000 requests or more in 20s, newest sample 0 s old)"
    )


# — what a plan measures —


async def test_what_nobody_exports_is_named_with_the_labels_it_needs(practice: Practice, shop: Shop) -> None:
    shop.labels = ['flag="another",variation="off",cohort="share"']
    await shop.pass_seconds(25)
    errors, latency = (await practice.examined())["plan checkout-v2"]
    assert (errors.state, latency.state) == ("fail", "fail")
    assert errors.detail == 'web/error_rate of "off": the total returned nothing'
    assert 'variation="off"' in errors.fix
    assert "docs/measuring.md" in errors.fix


async def test_the_exposed_variation_is_asked_for_only_once_somebody_gets_it(
    practice: Practice, shop: Shop
) -> None:
    assert (await practice.one("plan checkout-v2")).state == "ok"
    await practice.world.started(practice.world.plan, make_policy(window="20s", every="2s", staleAfter="30s"))
    await practice.world.until(1000)
    await shop.pass_seconds(25)
    found = (await practice.examined())["plan checkout-v2"]
    assert {check.detail for check in found if 'of "on"' in check.detail and check.state == "fail"} == {
        'web/error_rate of "on": the total returned nothing',
        'web/latency_p95 of "on": the total returned nothing',
    }


async def test_a_target_that_died_is_stale_and_not_merely_silent(practice: Practice) -> None:
    async with opened(practice, staleAfter="10s", window="1m") as shop:
        await shop.pass_seconds(60)
        shop.server.close()
        await shop.pass_seconds(1)
        found = await practice.examined()
    assert found["source prom"][0].state == "fail"
    assert "[sources.prom]" in found["source prom"][0].fix
    assert {check.state for check in found["plan checkout-v2"]} == {"fail"}


async def test_a_stage_that_would_never_see_enough_is_found_before_the_start(
    practice: Practice, shop: Shop
) -> None:
    small = make_plan(**WITHOUT_ALWAYS, stages=[{"name": "tiny", "exposure": "0.1%", "bake": "30m"}, *STAGES])
    await practice.world.apply(small, make_policy(window="20s", every="2s"))
    check = (await practice.examined())["plan checkout-v2"][0]
    assert check.state == "warn"
    assert "stage tiny (0.1 %) would see about 40 requests in 20s, and web needs 200" in check.detail
    assert "begin with about 1 %" in check.fix


async def test_a_service_that_nobody_asks_is_told_before_the_start_and_too_little_control_after_it(
    practice: Practice, shop: Shop
) -> None:
    shop.rate = 0.0
    await shop.pass_seconds(25)
    check = (await practice.examined())["plan checkout-v2"][0]
    assert (check.state, check.detail) == ("warn", 'web/error_rate of "off": not one request in 20s')
    await practice.world.presence.check_in()
    await practice.world.started(practice.world.plan, make_policy(window="20s", every="2s", staleAfter="30s"))
    await practice.world.until(1000)
    await shop.pass_seconds(25)
    details = [check.detail for check in (await practice.examined())["plan checkout-v2"]]
    assert 'web/error_rate of "off": 0 requests in the window, 200 needed' in details


async def test_an_error_label_that_does_not_exist_is_found(practice: Practice, shop: Shop) -> None:
    """The rule would pass for ever: total is there, and bad can match nothing."""
    shop.status = 'status="200"'
    await shop.pass_seconds(25)
    (check,) = (await practice.examined())["plan checkout-v2"]
    assert check.state == "fail"
    assert "no series of requests_total has the label code, so no error would ever be seen" in check.detail
    assert "cohort, flag, instance, status, variation" in check.fix


async def test_series_of_a_pair_of_servers_are_found_out_as_one_counted_twice(
    practice: Practice, shop: Shop
) -> None:
    labels = shop.labels[0]
    shop.labels = [f'{labels},prometheus_replica="a"', f'{labels},prometheus_replica="b"']
    await shop.pass_seconds(25)
    check = (await practice.examined())["plan checkout-v2"][0]
    assert check.state == "fail"
    assert (
        "series differ in nothing but prometheus_replica (a, b), and their sum counts each twice" in check.detail
    )
    assert 'prometheus_replica="a"' in check.fix


async def test_servers_that_differ_in_several_labels_are_still_a_pair(practice: Practice, shop: Shop) -> None:
    labels = shop.labels[0]
    shop.labels = [f'{labels},prometheus="k8s-{one}",prometheus_replica="{one}-0"' for one in "ab"]
    await shop.pass_seconds(25)
    check = (await practice.examined())["plan checkout-v2"][0]
    assert check.state == "fail"
    assert "prometheus (k8s-a, k8s-b)" in check.detail


async def test_one_process_scraped_by_two_jobs_is_a_suspicion(practice: Practice, shop: Shop) -> None:
    labels = shop.labels[0]
    shop.labels = [f'{labels},job="pods"', f'{labels},job="services"']
    await shop.pass_seconds(25)
    check = (await practice.examined())["plan checkout-v2"][0]
    assert check.state == "warn"
    assert "job (pods, services)" in check.detail
    assert "nearly the same" in check.detail


async def test_processes_that_share_the_load_evenly_are_no_twins(practice: Practice, shop: Shop) -> None:
    labels = shop.labels[0]
    shop.labels = [f'{labels},pod="a"', f'{labels},pod="b"']
    await shop.pass_seconds(25)
    assert (await practice.one("plan checkout-v2")).state == "ok"


async def test_people_who_are_always_in_and_not_told_apart_are_a_risk(practice: Practice, shop: Shop) -> None:
    always = {"always": [{"name": "staff", "match": {"email": {"endsWith": "@acme.example"}}}]}
    await practice.world.apply(make_plan(audience=always, notify=NOTIFY), make_policy(window="20s", every="2s"))
    shop.labels = ['flag="checkout-v2",variation="off"']
    await shop.pass_seconds(25)
    check = (await practice.examined())["plan checkout-v2"][0]
    assert check.state == "warn"
    assert "no label cohort, so staff are judged together with the share" in check.detail
    shop.labels = [f'flag="checkout-v2",variation="off",cohort="{one}"' for one in ("share", "always")]
    await shop.pass_seconds(40)
    check = (await practice.examined())["plan checkout-v2"][0]
    assert "of what was counted so far is of staff" in check.detail
    assert 'cohort="share"' in check.fix


async def test_a_window_that_holds_too_few_samples_is_found(practice: Practice) -> None:
    async with opened(practice, window="3s", every="500ms", staleAfter="2s", minSample=ANY) as shop:
        await shop.pass_seconds(10)
        check = (await practice.examined())["plan checkout-v2"][0]
        assert check.state == "warn"
        assert "a window of 3s holds 3" in check.detail
    async with opened(practice, window="3s", every="200ms", minSample=ANY) as shop:
        await shop.pass_seconds(10)
        check = (await practice.examined())["plan checkout-v2"][0]
        assert check.state == "fail"
        assert "is taken for stale after 400ms" in check.detail
        assert "staleAfter: 2s" in check.fix


def test_a_window_shorter_than_two_samples_measures_nothing() -> None:
    plan = make_plan(**WITHOUT_ALWAYS)
    (guardrail,) = make_guardrails(plan, window="5m")
    ask = Ask(guardrail=guardrail, metric="error_rate", variation="off", exposed=False)

    def found(interval: float) -> list[str]:
        return [check.state for check in looked_at("plan", ask, plan, Examination(interval_seconds=interval))]

    assert found(151) == ["fail"]
    assert found(29) == []
    (check,) = looked_at("plan", ask, plan, Examination(interval_seconds=200))
    assert "a sample comes every 3m 20s, so a window of 5m never holds two" in check.detail
    assert check.fix == "make the window 13m 20s or more"


async def test_a_raw_query_is_refused_where_nobody_can_answer_it(practice: Practice) -> None:
    metrics = {"depth": {"unit": "items", "query": "max(queue_depth)"}}
    rules = [{"id": "deep", "if": "depth > 10", "then": "pause"}]
    async with opened(practice, metrics=metrics, rules=rules) as shop:
        await shop.pass_seconds(3)
        check = (await practice.examined())["plan checkout-v2"][0]
    assert check.state == "fail"
    assert "see source prom" in check.fix or "raw query" in check.detail


# — flag, people and policies of a plan —


async def test_a_flag_that_cannot_be_read_is_found_before_a_start(practice: Practice, shop: Shop) -> None:
    practice.world.provider.unreadable = "404"
    assert "cannot be read: 404" in (await practice.one("plan checkout-v2")).detail


async def test_rules_of_somebody_else_a_wrong_off_state_and_a_kill_are_told(
    practice: Practice, shop: Shop
) -> None:
    flag = practice.world.plan.spec.flag
    foreign = FlagState(enabled=False, exposure=0, off_serves="on", foreign=("rule vip",))
    practice.world.provider.flags[flag] = foreign
    checks = (await practice.examined())["plan checkout-v2"]
    assert [(check.state, check.detail) for check in checks] == [
        ("fail", f'{flag} serves "on" when it is off; the plan\'s fallback is "off"'),
        ("warn", f"{flag} has what is not Rampart's: rule vip"),
    ]
    await practice.world.commands_kill()
    killed = (await practice.examined())["plan checkout-v2"][-1]
    assert "is killed" in killed.detail
    assert "rampart reset" in killed.fix


async def test_who_is_to_be_told_and_who_is_to_approve_must_exist(practice: Practice, shop: Shop) -> None:
    stage = {"name": "all", "exposure": "100%", "bake": "1h", "approval": {"from": ["managers"]}}
    plan = make_plan(**{**WITHOUT_ALWAYS, "notify": [{"to": "pager"}]}, stages=[stage])
    await practice.world.apply(plan, make_policy(window="20s", every="2s"))
    pager, approval = (await practice.examined())["plan checkout-v2"]
    assert (pager.state, pager.fix.split(",")[0]) == ("fail", "add [channels.pager] to rampart.toml")
    assert "stage all needs an approval from managers, and there is nobody in it" in approval.detail
    practice.settings = replace(practice.settings, groups={"managers": ["kim"]})
    assert len((await practice.examined())["plan checkout-v2"]) == 1


async def test_a_policy_whose_source_is_gone_from_the_settings_is_found(practice: Practice) -> None:
    await practice.world.apply(make_plan(**WITHOUT_ALWAYS))
    found = await practice.examined()
    assert 'no source "prom"' in found["plan checkout-v2"][0].detail
    assert found["sources"][0].state == "fail"


class Elsewhere:
    """Flags of another system, which knows one environment."""

    async def problems(self, environments: Collection[str]) -> Sequence[str]:
        return [f"no environment {one}" for one in environments if one != "staging"]


async def test_a_provider_is_asked_about_the_environments_where_plans_turn_its_flags(practice: Practice) -> None:
    practice.providers = {"main": cast("Provider", Elsewhere()), "other": cast("Provider", Elsewhere())}
    for number, (environment, mode) in enumerate([("staging", "enforce"), ("production", "observe")]):
        flag = {"provider": "other", "environment": environment, "key": "checkout-v2"}
        plan = make_plan(**WITHOUT_ALWAYS, flag=flag, mode=mode)
        await practice.world.apply(replace(plan, metadata=replace(plan.metadata, name=f"plan-{number}")))
    assert (await practice.one("provider other")).state == "ok"
    flag = {"provider": "other", "environment": "production", "key": "checkout-v2"}
    await practice.world.apply(make_plan(**WITHOUT_ALWAYS, flag=flag))
    told = await practice.one("provider other")
    assert (told.state, told.detail) == ("fail", "no environment production")
    assert "provider main" not in await practice.examined(), "our own flags are in the database"


async def test_a_plan_that_is_not_there_is_an_error_and_no_finding(practice: Practice, shop: Shop) -> None:
    with pytest.raises(NotFound, match='no plan "checkout-v3"; there are: checkout-v2'):
        await practice.examined("checkout-v3")
    assert "plan checkout-v2" in await practice.examined("checkout-v2")


async def test_a_completed_plan_needs_no_measurements_any_more(practice: Practice, shop: Shop) -> None:
    world = practice.world
    run = await world.started(world.plan, make_policy(window="20s", every="2s", staleAfter="30s"))
    row = world.store.rows[run.id]
    row.run = replace(row.run, phase="completed")
    shop.labels = []
    await shop.pass_seconds(30)
    check = await practice.one("plan checkout-v2")
    assert check.state == "ok"
    assert "completed: nothing is watched any more" in check.detail


# — hundreds of plans —


class Counting:
    """A source that answers everything and counts how it was asked."""

    def __init__(self) -> None:
        self.measured: list[int] = []
        self.examined: list[int] = []

    async def problems(self) -> Sequence[str]:
        return []

    async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
        self.measured.append(len(questions))
        return {one: Reading(query="q", bad=0, value=0.1, total=1e6, age_seconds=1.0) for one in questions}

    async def examine(self, questions: Collection[Question]) -> Any:
        self.examined.append(len(questions))
        return Examined(clock_ahead_seconds=0.1)


async def test_hundreds_of_plans_cost_a_source_one_measurement_and_a_few_looks(practice: Practice) -> None:
    source = Counting()
    practice.sources = {"prom": cast("Source", source)}
    for number in range(300):
        flag = {"provider": "main", "environment": "production", "key": f"flag-{number}"}
        plan = make_plan(**WITHOUT_ALWAYS, flag=flag)
        await practice.world.apply(replace(plan, metadata=replace(plan.metadata, name=f"plan-{number}")))
    found = await practice.examined()
    assert sum(name.startswith("plan ") for name in found) == 300
    assert source.measured == [600]
    assert source.examined == [2]
    assert found["clock of source prom"][0].state == "ok"


async def test_a_plan_that_cannot_be_thought_about_hides_no_other(practice: Practice) -> None:
    practice.sources = {"prom": cast("Source", Counting())}
    for name in ("poison", "fine"):
        flag = {"provider": "main", "environment": "production", "key": name}
        plan = make_plan(**WITHOUT_ALWAYS, flag=flag)
        await practice.world.apply(replace(plan, metadata=replace(plan.metadata, name=name)))

    async def objections(plan: Any) -> Sequence[str]:
        if plan.metadata.name == "poison":
            raise ZeroDivisionError
        return []

    practice.world.provider.objections = objections  # type: ignore[method-assign]
    found = await practice.examined()
    assert found["plan poison"][0].detail.startswith("asking it failed with ZeroDivisionError")
    assert found["plan fine"][0].state == "ok"


async def test_a_source_that_hangs_delays_nothing_for_longer_than_its_deadline(
    practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "DEADLINE_SECONDS", 0.05)

    class Hanging(Counting):
        async def problems(self) -> Sequence[str]:
            await asyncio.Event().wait()
            return []

        async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
            await asyncio.Event().wait()
            return {}

    practice.sources = {"prom": cast("Source", Hanging())}
    await practice.world.apply(make_plan(**WITHOUT_ALWAYS))
    found = await asyncio.wait_for(practice.examined(), 5)
    assert "no answer within" in found["source prom"][0].detail
    assert found["plan checkout-v2"][0].detail == "source prom answers none of its questions"


# — database, disk, clock, settings —


async def test_a_database_that_is_away_is_told_once(practice: Practice, shop: Shop) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("frozen")

    practice.away = StoreUnavailable("frozen")
    practice.world.store.plans = away  # type: ignore[method-assign, assignment]
    found = await practice.examined()
    assert [name for name, checks in found.items() for check in checks if check.state == "fail"] == ["database"]
    assert "kills" in found["database"][0].fix


@pytest.mark.parametrize(
    ("condition", "state", "says"),
    [
        ({"read_only": True}, "fail", "it takes no writes"),
        ({"fsync": False}, "fail", "fsync is off"),
        ({"synchronous_commit": "off"}, "warn", "loses the latest commits"),
        ({"connections": 58}, "warn", "58 of 60 connections are taken"),
    ],
)
async def test_a_database_that_would_lose_or_refuse_things_is_found(
    practice: Practice, condition: dict[str, Any], state: str, says: str
) -> None:
    practice.condition = condition
    check = await practice.one("database")
    assert check.state == state
    assert says in check.detail
    assert check.fix


@pytest.mark.parametrize(("seconds", "state"), [(0.5, "ok"), (-5.0, "warn"), (3600.0, "fail")])
async def test_a_database_whose_clock_is_elsewhere_is_found(
    practice: Practice, seconds: float, state: str
) -> None:
    practice.condition = {"now": practice.world.clock.now() + timedelta(seconds=seconds)}
    check = await practice.one("clock of database")
    assert check.state == state
    if state == "fail":
        assert check.detail == "3600.0 s ahead of this host's"


async def test_a_schema_of_another_version_is_told(practice: Practice) -> None:
    practice.schema_problem = "the database is at 0003, this version needs 0005; run rampart migrate"
    assert (await practice.one("database")).detail == practice.schema_problem


async def test_a_disk_that_cannot_be_written_would_lose_a_kill(practice: Practice) -> None:
    practice.world.folder = practice.world.folder / "gone"
    check = await practice.one("journal")
    assert check.state == "fail"
    assert "a kill will not survive a restart" in check.fix


async def test_nothing_is_left_behind_in_the_data_directory(practice: Practice) -> None:
    before = sorted(practice.world.folder.iterdir())
    await practice.examined()
    assert sorted(practice.world.folder.iterdir()) == before


async def test_secrets_that_others_may_read_or_that_are_missing_are_found(
    practice: Practice, tmp_path: Path
) -> None:
    password, token = tmp_path / "password", tmp_path / "token"
    password.write_text("hunter2-and-more")
    password.chmod(0o644)
    source = PrometheusSourceSettings(url="http://p", password_file=str(password), bearer_token_file=str(token))
    practice.settings = replace(practice.settings, sources={"prom": source})
    open_, missing = (await practice.examined())["secrets"]
    assert (open_.state, open_.fix) == ("warn", f"chmod o-rwx {password}")
    assert (missing.state, str(token) in missing.detail) == ("fail", True)
    assert "hunter2" not in open_.detail
    password.chmod(0o600)
    token.touch(0o600)
    assert (await practice.one("secrets")).detail == "2 of them in files, none open to others"


async def test_nobody_to_tell_is_a_risk_and_messages_that_wait_are_a_failure(practice: Practice) -> None:
    practice.world.clock.elapsed += 3600
    await practice.world.apply(make_plan(**WITHOUT_ALWAYS))
    await practice.world.engine.announce()
    assert (await practice.one("channels")).state == "ok"
    await practice.world.commands_kill()
    await practice.world.engine.kill_ledger.merge()
    practice.world.clock.elapsed += 3600
    check = await practice.one("channels")
    assert (check.state, "nobody is told of anything since" in check.detail) == ("fail", True)
    practice.settings = Settings()
    assert (await practice.one("channels")).state == "warn"


async def test_what_a_channel_did_not_take_is_told_with_what_to_do(practice: Practice) -> None:
    world = practice.world
    deaf = Deaf(Unavailable("no route"))
    world.channels["oncall"] = deaf
    world.restart()
    await world.apply(make_plan(**WITHOUT_ALWAYS))
    await world.commands_kill()
    await world.engine.kill_ledger.merge()
    await world.engine.announce()
    world.clock.elapsed += 600
    check = await practice.one("channels")
    assert (check.state, check.detail) == ("fail", "oncall has not taken 1 message, the oldest for 10m: no route")
    deaf.error = Undeliverable("410: gone")
    await world.engine.announce()
    check = await practice.one("channels")
    assert (check.state, check.detail) == ("warn", "1 message to oncall could not be delivered")
    assert "rampart notifications" in check.fix


class Deaf:
    """A channel that takes nothing, or anything."""

    resolves = False

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.heard: list[str] = []

    async def announce(self, entry: Any) -> None:
        if self.error:
            raise self.error
        self.heard.append(f"{entry.actor}: {entry.reason}")

    async def close(self) -> None:
        """Nothing is held open."""


async def test_a_test_message_says_that_it_is_one_and_who_takes_it_is_told(practice: Practice) -> None:
    good, bad = Deaf(None), Deaf(Unavailable("401"))
    practice.channels = {"oncall": good, "pager": bad}
    told = await practice.doctor().send_test("dana")
    assert good.heard == ["dana: this is a test of the channel; nothing has happened"]
    assert [(check.name, check.state) for check in told] == [("channel oncall", "ok"), ("channel pager", "fail")]
    assert "[channels.pager]" in told[1].fix


async def test_a_look_that_fails_hides_nothing_else(practice: Practice) -> None:
    practice.away = RuntimeError("a defect")
    found = await practice.examined()
    assert "RuntimeError" in found["database"][0].detail
    assert found["journal"][0].state == "ok"


# — several replicas —

WEB_2 = Sighting("http://web-2:8400", replica="web-2", problem="")


async def joined(world: World, name: str) -> None:
    await world.store.check_in(
        Replica(name=name, version="2"), life=world.store.life, valid_seconds=5.0, remembered=0
    )
    await world.presence.check_in()


async def test_replicas_that_reach_each_other_and_one_database_have_nothing_to_fix(practice: Practice) -> None:
    await joined(practice.world, "web-2")
    practice.peers = [WEB_2]
    assert (await practice.one("replicas")).detail == "replica-1, web-2 checked in; versions 1, 2"
    assert (await practice.one("peer http://web-2:8400")).detail == "answers as web-2"


async def test_a_replica_alone_on_a_shared_database_is_a_risk(practice: Practice) -> None:
    assert (await practice.one("replicas")).state == "ok"
    database = replace(practice.settings.database, url="postgres://db/rampart")
    practice.settings = replace(practice.settings, database=database)
    check = await practice.one("replicas")
    assert check.state == "warn"
    assert "while it restarts nobody can kill" in check.detail


async def test_a_missing_replica_is_named_with_the_way_out(practice: Practice) -> None:
    await joined(practice.world, "web-2")
    practice.world.clock.elapsed += 60
    await practice.world.presence.check_in()
    check = await practice.one("replicas")
    assert check.state == "fail"
    assert "nothing rises: replica web-2 has not checked in" in check.detail
    assert "rampart raises" in check.fix


async def test_a_peer_that_is_silent_or_has_another_secret_is_named(practice: Practice) -> None:
    practice.peers = [Sighting("http://web-2:8400", problem="answers 401: it has another secret")]
    check = await practice.one("peer http://web-2:8400")
    assert (check.state, check.detail) == ("fail", "answers 401: it has another secret")
    assert "[peers]" in check.fix


async def test_a_peer_on_another_database_is_found(practice: Practice) -> None:
    practice.peers = [WEB_2]
    check = await practice.one("peer http://web-2:8400")
    assert check.state == "fail"
    assert "has not checked in at our database" in check.detail
    assert "[database]" in check.fix


async def test_a_replica_that_no_address_leads_to_is_found(practice: Practice) -> None:
    await joined(practice.world, "web-2")
    check = await practice.one("replica web-2")
    assert check.state == "fail"
    assert "without the database a kill does not reach it" in check.detail
