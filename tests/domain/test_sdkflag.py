"""The flag as SDKs read it: what changes when it is raised or killed, and above all what does not."""

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.catalogue import FlagConfig
from controller.domain.flag import FlagSpec, FlagState, SetShare
from controller.domain.plan import AttributeMatch, AudienceRule, FlagRef, Serve
from controller.domain.sdkflag import (
    exposes_less,
    killed,
    new_flag,
    opens,
    redefined,
    same_but_version,
    state_of,
    turned_on,
    with_share,
    with_version,
)

FLAG = FlagRef(provider="main", environment="production", key="checkout-v2")
SERVE = Serve(rollout="on", fallback="off")
STAFF = AudienceRule(name="staff", match={"email": AttributeMatch(ends_with="@acme.example")})
BETA = AudienceRule(
    name="beta", match={"plan": AttributeMatch(in_=["beta"]), "region": AttributeMatch(contains="eu")}
)
FOREIGN: dict[str, Any] = {
    "id": "legal-hold",
    "variation": 1,
    "clauses": [{"contextKind": "user", "attribute": "hold", "op": "in", "values": [True], "negate": False}],
}


def fresh(**spec: Any) -> FlagConfig:
    return new_flag(FlagSpec(environment="production", key="checkout-v2", **spec), 1)


def share(exposure: int, *audience: AudienceRule, bucket_by: str = "user", serve: Serve = SERVE) -> SetShare:
    return SetShare(
        flag=FLAG, serve=serve, exposure=exposure, audience=audience, bucket_by=bucket_by, comment="test"
    )


def with_data(config: FlagConfig, **fields: Any) -> FlagConfig:
    return msgspec.structs.replace(config, data={**config.data, **fields})


def weights(config: FlagConfig) -> list[tuple[int, int]]:
    return [(one["variation"], one["weight"]) for one in config.data["fallthrough"]["rollout"]["variations"]]


shares = st.integers(0, 100_000)
audiences = st.lists(st.sampled_from([STAFF, BETA]), unique_by=lambda rule: rule.name).map(tuple)


def test_a_new_flag_is_off_and_exposes_nobody_when_it_is_turned_on() -> None:
    state = state_of(fresh())
    assert (state.enabled, state.exposure, state.off_serves) == (False, 0, "off")
    assert state_of(turned_on(fresh(), 2)).effective_exposure == 0


def test_the_salt_is_the_same_when_a_flag_is_made_again() -> None:
    assert fresh().data["salt"] == fresh().data["salt"]
    other = new_flag(FlagSpec(environment="staging", key="checkout-v2"), 1)
    assert other.data["salt"] != fresh().data["salt"]


@given(shares, audiences)
def test_a_share_reads_back_as_it_was_set(exposure: int, audience: tuple[AudienceRule, ...]) -> None:
    state = state_of(turned_on(with_share(fresh(), share(exposure, *audience), 2), 3))
    assert state.exposure == state.effective_exposure == exposure
    assert state.audience == tuple(rule.name for rule in audience)
    assert (state.version, state.foreign) == (3, ())


@given(shares, shares, audiences)
def test_setting_a_share_is_absolute_and_idempotent(
    before: int, after: int, audience: tuple[AudienceRule, ...]
) -> None:
    direct = with_share(fresh(), share(after, *audience), 2)
    detour = with_share(with_share(fresh(), share(before, STAFF, BETA), 2), share(after, *audience), 2)
    assert direct == detour == with_share(direct, share(after, *audience), 2)


@given(st.lists(shares, min_size=1, max_size=6))
def test_neither_the_salt_nor_the_order_of_variations_ever_changes(exposures: list[int]) -> None:
    config = fresh()
    for version, exposure in enumerate(exposures, start=2):
        config = with_share(config, share(exposure), version)
        assert [variation for variation, _ in weights(config)] == [1, 0], "the fallback is listed first"
        assert config.data["salt"] == fresh().data["salt"]
        assert config.data["variations"] == [True, False]


@pytest.mark.parametrize("exposure", [0, 100_000])
def test_the_ends_of_the_ladder_keep_their_weights(exposure: int) -> None:
    assert weights(with_share(fresh(), share(exposure), 2)) == [(1, 100_000 - exposure), (0, exposure)]


@given(shares)
def test_a_share_leaves_on_and_off_alone(exposure: int) -> None:
    assert with_share(fresh(), share(exposure), 2).data["on"] is False
    assert with_share(turned_on(fresh(), 2), share(exposure), 3).data["on"] is True


def test_several_attributes_of_a_rule_are_several_clauses() -> None:
    (rule,) = with_share(fresh(), share(1000, BETA), 2).data["rules"]
    assert rule["id"] == "rampart-always-beta"
    assert [(one["attribute"], one["op"], one["values"]) for one in rule["clauses"]] == [
        ("plan", "in", ["beta"]),
        ("region", "contains", ["eu"]),
    ]
    assert all(one["contextKind"] == "user" and one["negate"] is False for one in rule["clauses"])


def test_an_attribute_matched_in_two_ways_is_refused() -> None:
    unclear = AudienceRule(name="unclear", match={"email": AttributeMatch(contains="a", ends_with="b")})
    with pytest.raises(ValueError, match="exactly one way"):
        with_share(fresh(), share(1000, unclear), 2)


def test_bucket_by_user_is_the_key_and_anything_else_an_attribute_of_the_user() -> None:
    by_user = with_share(fresh(), share(1000), 2).data["fallthrough"]["rollout"]
    by_company = with_share(fresh(), share(1000, bucket_by="company"), 2).data["fallthrough"]["rollout"]
    assert (by_user["contextKind"], by_user["bucketBy"]) == ("user", "key")
    assert (by_company["contextKind"], by_company["bucketBy"]) == ("user", "company")


def test_foreign_rules_are_reported_and_left_alone() -> None:
    config = with_data(fresh(), rules=[FOREIGN])
    raised = with_share(config, share(1000, STAFF), 2)
    assert raised.data["rules"][0] == FOREIGN
    assert state_of(raised).foreign == ("rule legal-hold",)
    assert killed(raised, 3).data["rules"] == [FOREIGN]


def test_targets_and_prerequisites_are_foreign() -> None:
    config = with_data(
        fresh(), targets=[{"variation": 0, "values": ["qa-1"]}], prerequisites=[{"key": "other", "variation": 0}]
    )
    assert state_of(config).foreign == ("1 individual target of variation 0", "prerequisite other")


def test_a_third_variation_counts_as_exposure_and_is_foreign() -> None:
    config = fresh(variations={"off": "a", "blue": "b", "green": "c"})
    config = with_share(config, share(10_000, serve=Serve(rollout="blue", fallback="off")), 2)
    rollout = {**config.data["fallthrough"]["rollout"]}
    rollout["variations"] = [
        {"variation": 0, "weight": 85_000},
        {"variation": 1, "weight": 10_000},
        {"variation": 2, "weight": 5_000},
    ]
    state = state_of(with_data(config, fallthrough={"rollout": rollout}))
    assert state.exposure == 15_000
    assert state.foreign == ("variation 2 for 5 %",)


def test_a_default_rule_without_weights_is_all_or_nothing() -> None:
    assert state_of(with_data(fresh(), fallthrough={"variation": 0})).exposure == 100_000
    assert state_of(with_data(fresh(), fallthrough={"variation": 1})).exposure == 0


@given(shares, audiences, st.booleans())
def test_a_killed_flag_exposes_nobody_even_when_it_is_turned_on_again(
    exposure: int, audience: tuple[AudienceRule, ...], on: bool
) -> None:
    config = with_share(fresh(), share(exposure, *audience), 2)
    dead = killed(turned_on(config, 3) if on else config, 4)
    assert state_of(dead).enabled is False
    revived = state_of(turned_on(dead, 5))
    assert (revived.effective_exposure, revived.audience, revived.off_serves) == (0, (), "off")
    assert same_but_version(dead, killed(dead, 9))


def test_a_kill_keeps_the_salt_so_that_the_next_run_meets_the_same_contexts() -> None:
    raised = with_share(fresh(), share(10_000), 2)
    again = with_share(killed(raised, 3), share(10_000), 4)
    assert same_but_version(raised, again)


def test_an_unknown_variation_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match='no variation "green", it has on, off'):
        with_share(fresh(), share(1, serve=Serve(rollout="green", fallback="off")), 2)


def test_a_version_is_written_in_both_places_and_nothing_handed_out_is_changed() -> None:
    config = fresh()
    newer = with_version(config, 7)
    assert (newer.version, newer.data["version"]) == (7, 7)
    assert (config.version, config.data["version"]) == (1, 1)
    assert same_but_version(config, newer)


# — the whole of what SDKs are sent —


def test_a_new_flag_is_complete() -> None:
    config = new_flag(
        FlagSpec(environment="production", key="checkout-v2", variations={"a": 1, "none": 0, "b": 2}, off="none"),
        7,
    )
    salt = hashlib.sha256(b"rampart/production/checkout-v2").hexdigest()[:32]
    assert config == FlagConfig(
        environment="production",
        key="checkout-v2",
        version=7,
        variations={"a": 1, "none": 0, "b": 2},
        data={
            "key": "checkout-v2",
            "version": 7,
            "on": False,
            "salt": salt,
            "variations": [1, 0, 2],
            "offVariation": 1,
            "fallthrough": {"variation": 1},
            "targets": [],
            "contextTargets": [],
            "rules": [],
            "prerequisites": [],
            "trackEvents": False,
            "trackEventsFallthrough": False,
            "debugEventsUntilDate": None,
            "clientSide": False,
            "clientSideAvailability": {"usingMobileKey": False, "usingEnvironmentId": False},
            "deleted": False,
        },
    )


def test_a_share_changes_the_default_rule_our_rules_and_the_version_and_nothing_else() -> None:
    config = with_share(fresh(), share(1000, STAFF), 2)
    assert config.data == fresh().data | {
        "version": 2,
        "fallthrough": {
            "rollout": {
                "kind": "rollout",
                "contextKind": "user",
                "bucketBy": "key",
                "variations": [{"variation": 1, "weight": 99_000}, {"variation": 0, "weight": 1000}],
            }
        },
        "rules": [
            {
                "id": "rampart-always-staff",
                "variation": 0,
                "clauses": [
                    {
                        "contextKind": "user",
                        "attribute": "email",
                        "op": "endsWith",
                        "values": ["@acme.example"],
                        "negate": False,
                    }
                ],
                "trackEvents": False,
            }
        ],
    }
    assert config.version == 2


@pytest.mark.parametrize(
    ("match", "op", "values"),
    [
        (AttributeMatch(ends_with="x"), "endsWith", ["x"]),
        (AttributeMatch(starts_with="x"), "startsWith", ["x"]),
        (AttributeMatch(contains="x"), "contains", ["x"]),
        (AttributeMatch(in_=["x", "y"]), "in", ["x", "y"]),
    ],
)
def test_each_way_of_matching_has_its_operator(match: AttributeMatch, op: str, values: list[str]) -> None:
    rule = AudienceRule(name="some", match={"email": match})
    (clause,) = with_share(fresh(), share(1, rule), 2).data["rules"][0]["clauses"]
    assert (clause["op"], clause["values"]) == (op, values)


@pytest.mark.parametrize(("match", "ways"), [(AttributeMatch(), 0), (AttributeMatch(contains="", in_=[]), 2)])
def test_how_often_an_attribute_is_matched_is_told(match: AttributeMatch, ways: int) -> None:
    rule = AudienceRule(name="some", match={"email": match})
    with pytest.raises(ValueError, match=f"^the attribute email must be matched in exactly one way, not {ways}$"):
        with_share(fresh(), share(1, rule), 2)


def test_a_kill_puts_all_weight_on_the_off_variation_and_keeps_how_contexts_are_hashed() -> None:
    config = fresh(variations={"b": 1, "off": 0, "c": 2})
    config = with_share(
        config, share(10_000, STAFF, bucket_by="company", serve=Serve(rollout="c", fallback="off")), 2
    )
    rollout = dict(config.data["fallthrough"]["rollout"])
    rollout["variations"] = [*rollout["variations"], {"variation": 0, "weight": 5}]
    config = with_data(
        turned_on(config, 3), fallthrough={"rollout": rollout}, rules=[FOREIGN, *config.data["rules"]]
    )
    assert killed(config, 4).data == config.data | {
        "version": 4,
        "on": False,
        "fallthrough": {
            "rollout": {
                "kind": "rollout",
                "contextKind": "user",
                "bucketBy": "company",
                "variations": [
                    {"variation": 1, "weight": 100_000},
                    {"variation": 0, "weight": 0},
                    {"variation": 2, "weight": 0},
                ],
            }
        },
        "rules": [FOREIGN],
    }


def test_a_kill_of_a_flag_without_weights_serves_the_off_variation() -> None:
    served = with_data(turned_on(fresh(), 2), fallthrough={"variation": 0})
    assert killed(served, 3).data["fallthrough"] == {"variation": 1}


def test_turning_on_changes_nothing_else() -> None:
    assert turned_on(fresh(), 9).data == fresh().data | {"on": True, "version": 9}


def test_the_state_is_complete() -> None:
    config = fresh(variations={"off": "a", "blue": "b"})
    config = with_share(config, share(10_000, STAFF, serve=Serve(rollout="blue", fallback="off")), 2)
    assert state_of(turned_on(config, 3)) == FlagState(
        enabled=True,
        exposure=10_000,
        audience=("staff",),
        foreign=(),
        off_serves="off",
        version=3,
        bucketing=f"user.key by salt {config.data['salt']} in the order 0, 1",
    )


def test_whatever_moves_people_between_the_variations_shows_in_the_bucketing() -> None:
    config = with_share(fresh(), share(10_000), 2)
    rollout = config.data["fallthrough"]["rollout"]
    moved = [
        with_data(config, salt="another"),
        with_data(config, fallthrough={"rollout": rollout | {"seed": 7}}),
        with_data(config, fallthrough={"rollout": rollout | {"bucketBy": "company"}}),
        with_data(config, fallthrough={"rollout": rollout | {"contextKind": "device"}}),
        with_data(config, fallthrough={"rollout": rollout | {"variations": rollout["variations"][::-1]}}),
    ]
    assert len({state_of(one).bucketing for one in [config, *moved]}) == len(moved) + 1
    for exposure in (0, 50_000, 100_000):
        assert state_of(with_share(config, share(exposure), 3)).bucketing == state_of(config).bucketing
    assert state_of(fresh()).bucketing == ""


def test_a_rule_of_ours_that_serves_the_off_variation_exposes_nobody() -> None:
    ours = {"id": "rampart-always-staff", "variation": 1, "clauses": []}
    state = state_of(with_data(fresh(), rules=[ours]))
    assert (state.audience, state.foreign) == ((), ())
    unclear = {"id": "rampart-always-staff", "clauses": []}
    assert state_of(with_data(fresh(), rules=[unclear])).audience == ("staff",)


def test_everything_that_is_not_ours_is_named() -> None:
    config = with_data(
        fresh(),
        rules=[{"variation": 1}, {"id": "", "variation": 1}, {"id": None, "variation": 1}, FOREIGN],
        targets=[{"variation": 0, "values": ["a"]}, {"variation": 1, "values": []}],
        contextTargets=[{"variation": 1, "values": ["b"]}],
        prerequisites=[{"key": "other", "variation": 0}],
    )
    assert state_of(config).foreign == (
        "rule without an id",
        "rule without an id",
        "rule without an id",
        "rule legal-hold",
        "1 individual target of variation 0",
        "1 individual target of variation 1",
        "prerequisite other",
    )


def test_a_flag_that_lacks_lists_has_nothing_in_them() -> None:
    bare = {
        name: value
        for name, value in fresh().data.items()
        if name not in ("targets", "contextTargets", "prerequisites")
    }
    config = msgspec.structs.replace(fresh(), data=bare)
    assert state_of(config).foreign == ()
    assert state_of(with_data(config, fallthrough={})).exposure == 100_000
    assert state_of(with_data(config, fallthrough={"rollout": {"variations": []}})).foreign == ()


def test_a_third_variation_without_weight_is_nothing_foreign() -> None:
    config = fresh(variations={"off": 0, "blue": 1, "green": 2, "red": 3})
    weights = [(0, 70_000), (1, 10_000), (2, 0), (3, 15_000), (0, 5_000)]
    rollout = {"variations": [{"variation": one, "weight": weight} for one, weight in weights]}
    state = state_of(with_data(config, fallthrough={"rollout": rollout}))
    assert (state.exposure, state.foreign) == (25_000, ("variation 3 for 15 %",))


def exposing(exposure: int, *audience: AudienceRule, on: bool = True, archived: bool = False) -> FlagConfig:
    config = with_share(fresh(), share(exposure, *audience), 2)
    return msgspec.structs.replace(turned_on(config, 3) if on else config, archived=archived)


def test_less_is_exposed_by_a_smaller_share_or_by_nobody_at_all() -> None:
    assert exposes_less(exposing(1), exposing(2))
    assert not exposes_less(exposing(2), exposing(1))
    assert not exposes_less(exposing(2), exposing(2))
    assert exposes_less(exposing(2, on=False), exposing(1))
    assert not exposes_less(exposing(1), exposing(2, on=False))


def test_with_equal_shares_less_is_exposed_without_an_audience() -> None:
    assert exposes_less(exposing(2), exposing(2, STAFF))
    assert not exposes_less(exposing(2, STAFF), exposing(2))
    assert not exposes_less(exposing(2, STAFF), exposing(2, STAFF))
    assert exposes_less(exposing(0, STAFF, on=False), exposing(0, STAFF))
    assert not exposes_less(exposing(0), exposing(0, STAFF, on=False))


def test_an_archived_flag_exposes_less_than_any_other() -> None:
    assert exposes_less(exposing(9, STAFF, archived=True), exposing(0, on=False))
    assert not exposes_less(exposing(0), exposing(9, archived=True))
    assert not exposes_less(exposing(0, archived=True), exposing(9, archived=True))


def test_a_flag_differs_from_another_by_more_than_its_version() -> None:
    assert not same_but_version(fresh(), turned_on(fresh(), 1))
    assert same_but_version(with_version(fresh(), 3), with_version(fresh(), 4))


def test_a_flag_that_is_defined_anew_gets_new_values_and_variations_and_keeps_who_gets_what() -> None:
    before = with_share(fresh(), share(10_000), 2)
    spec = FlagSpec(
        environment="production",
        key="checkout-v2",
        variations={"on": "new", "off": "old", "blue": "bluer"},
        client_side=True,
    )
    after = redefined(before, spec, 3)
    assert after.variations == {"on": "new", "off": "old", "blue": "bluer"}
    assert after.data["variations"] == ["new", "old", "bluer"]
    assert state_of(after).exposure == 10_000
    assert (after.version, after.data["version"]) == (3, 3)
    assert opens("client", after.data)


def test_a_flag_that_does_not_say_who_may_see_it_is_for_servers_alone() -> None:
    assert [opens(kind, {}) for kind in ("server", "mobile", "client")] == [True, False, False]
    seen = {"clientSideAvailability": {"usingMobileKey": True, "usingEnvironmentId": False}}
    assert [opens(kind, seen) for kind in ("server", "mobile", "client")] == [True, True, False]
