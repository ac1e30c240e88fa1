"""One flag of a flagd document: read, weighted, turned on, killed. And what people wrote in their own way."""

from typing import Any

import pytest
from msgspec.structs import replace

from controller.domain.flag import FlagState, SetShare, Unknown
from controller.domain.plan import AttributeMatch, AudienceRule, Serve
from controller.providers.flagd.definition import Found, killed, objections, state_of, turned_on, with_share
from tests.contracts.provider_cases import BETA, STAFF, share
from tests.contracts.provider_world import SERVE
from tests.support.rollouts import make_plan

BY_KEY = {"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}
INSIDERS = {"==": [{"var": "team"}, "insiders"]}
GENTLE = Serve(rollout="on", fallback="off", kill="fallthrough")


def flag(**fields: Any) -> Found:
    fresh = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}
    return Found({**fresh, **fields})


def state(found: Found, known: str | None = None) -> FlagState:
    read = state_of(found, known)
    assert isinstance(read, FlagState), read
    return read


def raised(exposure: int, *audience: AudienceRule, **fields: Any) -> Found:
    return turned_on(with_share(flag(**fields), share(exposure, *audience)))


def split(on: int, off: int) -> dict[str, Any]:
    return {"fractional": [BY_KEY, ["on", on], ["off", off]]}


# — what is written —


def test_the_rollout_is_listed_first_and_the_sum_of_the_weights_never_changes() -> None:
    for exposure in (0, 1, 1_000, 50_000, 99_999):
        targeting = raised(exposure).definition["targeting"]
        assert targeting == {"if": [{"var": "targetingKey"}, split(exposure, 100_000 - exposure), "off"]}
    assert raised(100_000).definition["targeting"] == split(100_000, 0), "then nobody has to wait for a key"


def test_a_share_is_bucketed_by_the_attribute_of_the_plan() -> None:
    change = replace(share(1_000), bucket_by="account")
    targeting = turned_on(with_share(flag(), change)).definition["targeting"]
    assert targeting["if"][0] == {"var": "account"}
    assert targeting["if"][1]["fractional"][0] == {"cat": [{"var": "$flagd.flagKey"}, {"var": "account"}]}
    assert state(raised(1_000)).bucketing != state(Found({**flag().definition, "targeting": targeting})).bucketing


def test_every_if_has_three_arguments_because_evaluators_need_not_take_more() -> None:
    found = raised(1_000, STAFF, BETA, targeting={"if": [INSIDERS, "on", {"var": "x"}, "off", None]})

    def lengths(node: Any) -> list[int]:
        if isinstance(node, dict):
            own = [len(node["if"])] if "if" in node else []
            return own + [one for part in node.values() for one in lengths(part)]
        return [one for part in node for one in lengths(part)] if isinstance(node, list) else []

    assert set(lengths(found.definition["targeting"])) == {3}


def test_metadata_stays_flat_because_evaluators_refuse_a_whole_document_for_less() -> None:
    found = raised(1_000, STAFF, metadata={"owner": "web"})
    assert found.definition["metadata"] == {"owner": "web", "rampart.fallback": "off"}


def test_the_keys_of_a_flag_keep_their_order() -> None:
    ordered = Found({"defaultVariant": "off", "targeting": split(1, 9), "state": "ENABLED", **flag().definition})
    assert list(with_share(ordered, share(1_000)).definition)[:3] == ["defaultVariant", "targeting", "state"]


def test_the_key_of_a_context_has_the_name_that_flagd_knows() -> None:
    rule = AudienceRule(name="one", match={"key": AttributeMatch(in_=["user-1"])})
    condition = raised(0, rule).definition["targeting"]["if"][0]["and"]
    assert condition[1] == {"in": [{"var": "targetingKey"}, ["user-1"]]}


def test_a_rule_that_matches_in_two_ways_is_refused() -> None:
    wrong = AudienceRule(name="both", match={"email": AttributeMatch(ends_with="a", starts_with="b")})
    with pytest.raises(ValueError, match="exactly one way"):
        with_share(flag(), share(1_000, wrong))


# — on and off —


def test_a_share_of_a_flag_that_is_off_waits_beside_it() -> None:
    found = with_share(flag(), share(10_000, STAFF))
    assert "targeting" not in found.definition
    assert (state(found).enabled, state(found).exposure, state(found).audience) == (False, 10_000, ("staff",))
    on = turned_on(found)
    assert on.parked is None
    assert state(on) == replace(state(found), enabled=True)
    assert turned_on(on) == on


def test_nothing_can_be_turned_on_that_was_never_weighted() -> None:
    with pytest.raises(ValueError, match="no share"):
        turned_on(flag())


@pytest.mark.parametrize("fields", [{"state": "DISABLED"}, {"defaultVariant": None}, {"defaultVariant": "gone"}])
def test_a_flag_for_which_code_decides_is_unknown_and_cannot_be_raised(fields: dict[str, Any]) -> None:
    found = flag(**fields)
    read = state_of(found)
    assert isinstance(read, Unknown)
    assert "default of their own code" in read.why
    with pytest.raises(ValueError, match="default of their own code"):
        with_share(found, share(1_000))
    with pytest.raises(ValueError, match="default of their own code"):
        turned_on(found)
    assert objections(found, make_plan()) == [read.why]


@pytest.mark.parametrize("definition", [{}, {"variants": []}, {"state": "ENABLED", "variants": {}}])
def test_a_definition_that_is_none_is_unknown(definition: dict[str, Any]) -> None:
    assert isinstance(state_of(Found(definition)), Unknown)


# — a kill —


def test_a_kill_leaves_the_default_variant_alone_to_be_served() -> None:
    for exposure in (0, 1_000, 100_000):
        found = killed(raised(exposure, STAFF), SERVE)
        assert found == Found({**flag().definition, "metadata": {"rampart.fallback": "off"}})
        assert killed(found, SERVE) == found


def test_a_kill_enables_a_disabled_flag_because_code_may_say_on() -> None:
    assert killed(flag(state="DISABLED"), None).definition["state"] == "ENABLED"


def test_a_kill_puts_a_swapped_default_back() -> None:
    tampered = Found({**raised(1_000).definition, "defaultVariant": "on"})
    assert killed(tampered, SERVE).definition["defaultVariant"] == "off"
    assert killed(tampered, None).definition["defaultVariant"] == "off", "its metadata remembers"


def test_without_any_word_of_a_fallback_a_kill_serves_the_only_false_and_else_says_so() -> None:
    assert killed(flag(defaultVariant=None), None).definition["defaultVariant"] == "off"
    with pytest.raises(ValueError, match="fallback"):
        killed(flag(defaultVariant=None, variants={"a": "1", "b": "2"}), None)


def test_a_kill_parks_what_others_wrote_and_a_gentle_one_leaves_it_in_place() -> None:
    targeting = {"if": [INSIDERS, "on", split(50, 50)]}
    off = killed(flag(targeting=targeting), SERVE)
    assert "targeting" not in off.definition
    assert off.parked == {"if": [INSIDERS, "on", "off"]}
    gentle = killed(flag(targeting=targeting), GENTLE)
    assert (gentle.definition["targeting"], gentle.parked) == ({"if": [INSIDERS, "on", "off"]}, None)
    assert (state(gentle).enabled, state(gentle).exposure) == (True, 0)
    assert state(turned_on(off)) == state(gentle), "turning on brings it back, and exposes nobody else"


def test_a_gentle_kill_turns_nothing_on() -> None:
    off = killed(flag(targeting={"if": [INSIDERS, "on", "off"]}), SERVE)
    assert killed(off, GENTLE) == off


# — what other people wrote —


def test_rules_of_others_come_first_and_are_never_touched() -> None:
    found = raised(1_000, STAFF, targeting={"if": [INSIDERS, "off", {"if": [{"var": "vip"}, "on", "off"]}]})
    state_before = state(found)
    assert state_before.foreign == (
        'if {"==": [{"var": "team"}, "insiders"]} then "off"',
        'if {"var": "vip"} then "on"',
    )
    for exposure in (50_000, 0, 100_000):
        found = with_share(found, share(exposure, BETA))
        assert found.definition["targeting"]["if"][:2] == [INSIDERS, "off"]
        assert (state(found).foreign, state(found).audience) == (state_before.foreign, ("beta",))


def test_a_rule_of_ours_that_was_changed_by_hand_is_no_rule_of_ours_and_is_written_anew() -> None:
    found = raised(1_000, STAFF)
    found.definition["targeting"]["if"][0]["and"][1]["ends_with"][1] = ""
    assert (state(found).audience, state(found).foreign) == ((), ("the rule rampart:staff, changed by hand",))
    assert state(with_share(found, share(1_000, STAFF))).audience == ("staff",)
    assert state(with_share(found, share(1_000, STAFF))).foreign == ()


def test_a_rule_of_ours_that_serves_the_fallback_is_not_counted_as_there() -> None:
    found = raised(1_000, STAFF)
    found.definition["targeting"]["if"][1] = "off"
    assert state(found).audience == ()


@pytest.mark.parametrize(
    ("targeting", "exposure"),
    [
        ("on", 100_000),
        ({"fractional": [["on", 10], ["off", 90]]}, 10_000),
        ({"fractional": [["off"], ["on"]]}, 50_000),
        ({"fractional": [BY_KEY, ["on", 1], ["off", 2]]}, 33_334),
        ({"fractional": [BY_KEY, ["on", -5], ["off", 2]]}, 0),
        ({"fractional": [BY_KEY, ["on", {"var": "weight"}], ["off", 2]]}, 100_000),
        ({"fractional": [BY_KEY, ["on", 0], ["off", 0]]}, 100_000),
        ({"fractional": [BY_KEY, [{"var": "which"}, 1], ["off", 1]]}, 100_000),
        ({"fractional": [BY_KEY, ["on", True], ["off", 1]]}, 100_000),
        ({"fractional": []}, 100_000),
        ({"if": [{"var": "targetingKey"}, split(1, 99), "on"]}, 100_000),
        ({"if": [{"var": "targetingKey"}, split(1, 99)]}, 1_000),
        ({"if": [{"var": "targetingKey"}, split(1, 99), None]}, 1_000),
        ({"if": [INSIDERS, "on"]}, 0),
        ({"if": ["off"]}, 100_000),
        ({"$ref": "somewhere"}, 100_000),
        ({"sem_ver": [{"var": "version"}, ">", "1.0.0"]}, 100_000),
        ({"if": [INSIDERS, "off", {"var": "variant"}]}, 100_000),
        ({"if": [INSIDERS, "on", True]}, 100_000),
        ([1, 2], 100_000),
    ],
)
def test_what_is_not_understood_counts_as_everybody(targeting: Any, exposure: int) -> None:
    read = state(flag(targeting=targeting))
    assert (read.enabled, read.exposure) == (True, exposure)


def test_a_default_variant_that_is_not_the_fallback_counts_as_everybody() -> None:
    fresh = flag(defaultVariant="on", metadata={"rampart.fallback": "off"})
    assert (state(fresh).enabled, state(fresh).exposure) == (True, 100_000)
    unmarked = flag(defaultVariant="on")
    assert (state(unmarked).enabled, state(unmarked).off_serves) == (False, "on"), (
        "nobody said what it falls back to"
    )
    assert (state(unmarked, "off").enabled, state(unmarked, "off").exposure) == (True, 100_000)
    ruled = flag(
        defaultVariant="on", targeting={"if": [INSIDERS, "on", "off"]}, metadata={"rampart.fallback": "off"}
    )
    assert 'defaultVariant is "on"' in state(ruled).foreign


def test_a_share_puts_a_changed_default_variant_back() -> None:
    tampered = flag(defaultVariant="on", metadata={"rampart.fallback": "off"})
    mended = with_share(tampered, share(1_000))
    assert (state(mended).enabled, state(mended).exposure, state(mended).off_serves) == (True, 1_000, "off")


def test_a_third_variation_is_too_much_exposure_and_foreign() -> None:
    variants = {"on": "new", "off": "old", "third": "newer"}
    args = [BY_KEY, ["on", 10], ["third", 5], ["off", 85]]
    read = state(flag(variants=variants, targeting={"fractional": args}))
    assert (read.exposure, read.foreign) == (15_000, ('variation "third" for 5 %',))


@pytest.mark.parametrize(
    "other",
    [
        {"fractional": [BY_KEY, ["off", 99_000], ["on", 1_000]]},
        {"fractional": [["on", 1_000], ["off", 99_000]]},
        {"fractional": [{"cat": [{"var": "targetingKey"}, "salt"]}, ["on", 1_000], ["off", 99_000]]},
    ],
)
def test_whoever_is_in_a_share_for_another_reason_is_told_as_another_bucketing(other: Any) -> None:
    assert state(flag(targeting=other)).bucketing != state(raised(1_000)).bucketing


def test_swapped_values_are_told_as_another_bucketing() -> None:
    swapped = Found({**raised(1_000).definition, "variants": {"on": False, "off": True}})
    assert state(swapped).bucketing != state(raised(1_000)).bucketing


def test_a_true_and_a_false_are_names_of_variations_too() -> None:
    found = flag(
        variants={"true": True, "false": False}, defaultVariant=False, targeting={"if": [INSIDERS, True, False]}
    )
    assert (state(found).off_serves, state(found).exposure) == ("false", 0)


def test_two_long_rules_that_begin_alike_are_told_apart() -> None:
    many = [f"team-{number}" for number in range(100)]
    texts = [
        state(flag(targeting={"if": [{"in": [{"var": "team"}, [*many, last]]}, "on", "off"]})).foreign[0]
        for last in ("a", "b")
    ]
    assert texts[0] != texts[1]
    assert all(len(text) < 150 for text in texts)


# — plans that do not fit —


def test_a_plan_is_told_what_it_would_replace() -> None:
    def against(targeting: Any, **plan: Any) -> list[str]:
        return objections(flag(targeting=targeting), make_plan(**plan))

    assert against(split(10, 90)) == []
    assert against({"if": [INSIDERS, "on", "off"]}) == []
    assert "cannot be read" in against({"$ref": "somewhere"})[0]
    assert "split by flag key and targetingKey" in against({"fractional": [["on", 10], ["off", 90]]})[0]
    assert against({"fractional": [["on", 0], ["off", 100]]}) == [], "nobody is in it who could be thrown out"
    assert against({"fractional": [["on", 10], ["off", 90]]}, mode="observe") == []


def test_a_plan_with_a_rule_that_cannot_be_written_is_told_so() -> None:
    plan = make_plan(
        audience={"always": [{"name": "both", "match": {"email": {"endsWith": "a", "contains": "b"}}}]}
    )
    assert objections(flag(), plan) == [
        "audience rule both: the attribute email must be matched in exactly one way, not 2"
    ]


def test_a_plan_needs_two_variations() -> None:
    assert "both" in objections(flag(), make_plan(serve={"rollout": "off", "fallback": "off"}))[0]


def test_a_change_of_a_flag_without_the_variation_is_refused() -> None:
    change = SetShare(
        flag=share(0).flag,
        serve=Serve(rollout="green", fallback="off"),
        exposure=0,
        audience=(),
        bucket_by="user",
        comment="test",
    )
    with pytest.raises(ValueError, match='"green", it has on, off'):
        with_share(flag(), change)
