"""The flag as SDKs read it: what changes when it is raised or killed, and above all what does not."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.catalogue import FlagConfig
from controller.domain.flag import FlagSpec, SetShare
from controller.domain.plan import AttributeMatch, AudienceRule, FlagRef, Serve
from controller.domain.sdkflag import (
    killed,
    new_flag,
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
    assert state_of(config).foreign == ("individual targets of variation 0", "prerequisite other")


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
