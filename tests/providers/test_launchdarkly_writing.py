"""What is written to a flag of LaunchDarkly, given the flag as it is."""

from typing import Any

import msgspec
import pytest

from controller.domain.flag import SetShare
from controller.domain.plan import AttributeMatch, AudienceRule, FlagRef, Serve
from controller.errors import Refused
from controller.providers.launchdarkly import writing
from controller.providers.launchdarkly.model import Config, RestFlag
from controller.providers.launchdarkly.reading import our_rules, running_release, state_of
from controller.providers.launchdarkly.rules import description

FLAG = FlagRef(provider="ld", environment="production", key="checkout-v2")
STAFF = AudienceRule(name="staff", match={"email": AttributeMatch(ends_with="@acme.example")})
MOVED = AudienceRule(name="staff", match={"email": AttributeMatch(ends_with="@acme.test")})
BETA = AudienceRule(
    name="beta", match={"plan": AttributeMatch(in_=["beta", "gold"]), "country": AttributeMatch(starts_with="D")}
)
SERVE = Serve(rollout="on", fallback="off")


def make_flag(names: tuple[str, ...] = ("on", "off"), **config: Any) -> RestFlag:
    """Variation `on` has the id `id-on`. The last one is the off-variation."""
    variations = [{"_id": f"id-{name}", "name": name, "value": name == "on"} for name in names]
    shown = {"on": False, "version": 3, "salt": "s", "offVariation": len(names) - 1, "lastModified": 0}
    shown |= {"fallthrough": {"variation": 0}, "rules": [], "targets": [], "prerequisites": []}
    data = {"key": FLAG.key, "variations": variations, "environments": {FLAG.environment: {**shown, **config}}}
    return msgspec.convert(data, RestFlag)


def config_of(flag: RestFlag) -> Config:
    return flag.environments[FLAG.environment]


def weights(*by_index: tuple[int, int], **rollout: Any) -> dict[str, Any]:
    listed = [{"variation": index, "weight": weight} for index, weight in by_index]
    return {"rollout": {"variations": listed, "bucketBy": "key", "contextKind": "user", **rollout}}


def rule_of(one: AudienceRule, identity: str = "r-staff", **fields: Any) -> dict[str, Any]:
    """As the REST API shows what we wrote."""
    added = written(make_flag(), 0, one)[-1]
    clauses = [{"_id": f"c-{place}", **clause} for place, clause in enumerate(added["clauses"])]
    return {"_id": identity, "variation": 0, "description": added["description"], "clauses": clauses, **fields}


def written(
    flag: RestFlag, exposure: int, *audience: AudienceRule, bucket_by: str = "user", serve: Serve = SERVE
) -> Any:
    change = SetShare(
        flag=FLAG, serve=serve, exposure=exposure, audience=audience, bucket_by=bucket_by, comment="a test"
    )
    return writing.share(flag, config_of(flag), change)


def killed(flag: RestFlag, serve: Serve | None = SERVE) -> Any:
    return writing.kill(flag, config_of(flag), serve)


def kinds(instructions: Any) -> list[str]:
    return [one["kind"] for one in instructions]


# — the share —


def test_a_share_is_weights_by_variation_id_and_adds_up() -> None:
    (served,) = written(make_flag(), 1_000)
    assert served == {
        "kind": "updateFallthroughVariationOrRollout",
        "rolloutContextKind": "user",
        "rolloutBucketBy": "key",
        "rolloutWeights": {"id-off": 99_000, "id-on": 1_000},
    }


def test_nobody_and_everybody_are_weights_too_so_that_the_order_stays() -> None:
    flag = make_flag(fallthrough=weights((0, 1_000), (1, 99_000)))
    for exposure in (0, 100_000):
        (served,) = written(flag, exposure)
        assert served["rolloutWeights"] == {"id-on": exposure, "id-off": 100_000 - exposure}


def test_the_order_in_which_variations_are_listed_is_kept() -> None:
    for first, second in ((0, 1), (1, 0)):
        flag = make_flag(fallthrough=weights((first, 1_000), (second, 99_000)))
        (served,) = written(flag, 10_000)
        assert list(served["rolloutWeights"]) == [["id-on", "id-off"][first], ["id-on", "id-off"][second]]


def test_a_third_variation_that_is_listed_gets_nothing_and_keeps_its_place() -> None:
    flag = make_flag(("on", "blue", "off"), fallthrough=weights((0, 10_000), (1, 40_000), (2, 50_000)))
    (served,) = written(flag, 20_000)
    assert list(served["rolloutWeights"].items()) == [("id-on", 20_000), ("id-blue", 0), ("id-off", 80_000)]


def test_what_is_so_already_is_not_written() -> None:
    flag = make_flag(fallthrough=weights((0, 1_000), (1, 99_000)), rules=[rule_of(STAFF)])
    assert written(flag, 1_000, STAFF) == []


@pytest.mark.parametrize("change", [{"bucketBy": "email"}, {"contextKind": "device"}])
def test_a_share_of_something_else_than_asked_is_written_anew(change: dict[str, str]) -> None:
    flag = make_flag(fallthrough=weights((0, 1_000), (1, 99_000), **change))
    (served,) = written(flag, 1_000)
    assert (served["rolloutBucketBy"], served["rolloutContextKind"]) == ("key", "user")


def test_shares_may_go_by_another_attribute_of_the_user() -> None:
    (served,) = written(make_flag(), 1_000, bucket_by="company")
    assert (served["rolloutBucketBy"], served["rolloutContextKind"]) == ("company", "user")


def test_unnamed_variations_go_by_their_value_as_json() -> None:
    flag = msgspec.convert(
        {
            "key": FLAG.key,
            "variations": [{"_id": "t", "value": True}, {"_id": "f", "value": False}],
            "environments": {"production": {"on": False, "version": 1, "offVariation": 1}},
        },
        RestFlag,
    )
    (served,) = written(flag, 1_000, serve=Serve(rollout="true", fallback="false"))
    assert served["rolloutWeights"] == {"f": 99_000, "t": 1_000}


def test_a_variation_that_is_not_there_is_refused_by_its_name() -> None:
    with pytest.raises(Refused, match='no variation "green", it has on, off'):
        written(make_flag(), 1_000, serve=Serve(rollout="green", fallback="off"))


# — our rules —


def test_a_rule_is_added_with_a_clause_for_each_attribute() -> None:
    *_, added = written(make_flag(), 0, BETA)
    assert (added["kind"], added["variationId"]) == ("addRule", "id-on")
    assert [(one["attribute"], one["op"], one["values"]) for one in added["clauses"]] == [
        ("plan", "in", ["beta", "gold"]),
        ("country", "startsWith", ["D"]),
    ]
    assert all(one["contextKind"] == "user" and one["negate"] is False for one in added["clauses"])
    assert added["description"].startswith("rampart: beta [")


def test_a_rule_that_is_not_asked_for_any_more_is_removed_and_the_others_stay() -> None:
    foreign = {"_id": "r-theirs", "variation": 0, "description": "sales", "clauses": []}
    flag = make_flag(rules=[foreign, rule_of(STAFF), rule_of(BETA, "r-beta")])
    assert written(flag, 0, BETA)[1:] == [{"kind": "removeRule", "ruleId": "r-staff"}]


def test_a_rule_that_reads_differently_now_is_replaced_in_one_step() -> None:
    flag = make_flag(rules=[rule_of(STAFF)])
    removed, added = written(flag, 0, MOVED)[1:]
    assert removed == {"kind": "removeRule", "ruleId": "r-staff"}
    assert added["clauses"][0]["values"] == ["@acme.test"]


@pytest.mark.parametrize("edit", ["values", "variation", "disabled", "rollout"])
def test_a_rule_of_ours_that_somebody_changed_is_not_found_and_is_put_right(edit: str) -> None:
    changed = rule_of(STAFF)
    match edit:
        case "values":
            changed["clauses"][0]["values"] = ["@everybody.example"]
        case "variation":
            changed["variation"] = 1
        case "disabled":
            changed["disabled"] = True
        case "rollout":
            changed["rollout"] = weights((0, 50_000), (1, 50_000))["rollout"]
    flag = make_flag(on=True, rules=[changed])
    state = state_of(config_of(flag), flag.labels, our_rules(flag, config_of(flag)))
    assert state.audience == ()
    assert (state.foreign == ()) == (edit == "disabled")
    assert kinds(written(flag, 0, STAFF)[1:]) == ["removeRule", "addRule"]


def test_a_rule_that_is_there_twice_is_there_once_afterwards() -> None:
    flag = make_flag(rules=[rule_of(STAFF), rule_of(STAFF, "r-again")])
    assert written(flag, 0, STAFF)[1:] == [{"kind": "removeRule", "ruleId": "r-again"}]


def test_the_mark_of_a_rule_depends_on_what_it_says_and_on_nothing_else() -> None:
    assert description(STAFF, "id-on") == description(STAFF, "id-on")
    assert len({description(STAFF, "id-on"), description(MOVED, "id-on"), description(STAFF, "id-off")}) == 3


# — the kill —


def test_a_kill_is_off_with_nobody_in_the_share_and_our_rules_gone() -> None:
    foreign = {"_id": "r-theirs", "variation": 0, "clauses": []}
    flag = make_flag(on=True, fallthrough=weights((0, 50_000), (1, 50_000)), rules=[rule_of(STAFF), foreign])
    off, served, removed = killed(flag)
    assert off == {"kind": "turnFlagOff"}
    assert list(served["rolloutWeights"].items()) == [("id-on", 0), ("id-off", 100_000)]
    assert removed == {"kind": "removeRule", "ruleId": "r-staff"}


def test_a_kill_that_leaves_it_on_does_everything_else() -> None:
    flag = make_flag(on=True, fallthrough=weights((0, 50_000), (1, 50_000)), rules=[rule_of(STAFF)])
    gentle = Serve(rollout="on", fallback="off", kill="fallthrough")
    assert kinds(killed(flag, gentle)) == ["updateFallthroughVariationOrRollout", "removeRule"]


def test_a_flag_that_would_serve_the_rollout_when_off_is_told_to_serve_the_fallback() -> None:
    flag = make_flag(on=True, offVariation=0)
    assert {"kind": "updateOffVariation", "variationId": "id-off"} in killed(flag)


def test_without_a_plan_a_kill_serves_what_the_flag_serves_when_off() -> None:
    assert killed(make_flag(on=True), None)[1]["variationId"] == "id-off"


def test_a_fallback_that_was_renamed_since_does_not_stop_a_kill() -> None:
    instructions = killed(make_flag(on=True), Serve(rollout="on", fallback="classic"))
    assert instructions[0] == {"kind": "turnFlagOff"}
    assert instructions[1]["variationId"] == "id-off"


@pytest.mark.parametrize("off", [None, 7])
def test_a_flag_that_serves_nothing_known_when_off_is_turned_off_all_the_same(off: int | None) -> None:
    flag = make_flag(on=True, offVariation=off, rules=[rule_of(STAFF)])
    assert kinds(killed(flag, None)) == ["turnFlagOff", "removeRule"]
    assert kinds(killed(flag)) == [
        "turnFlagOff", "updateOffVariation", "updateFallthroughVariationOrRollout", "removeRule",
    ]  # fmt: skip


def test_what_is_killed_needs_nothing() -> None:
    assert killed(make_flag(fallthrough=weights((0, 0), (1, 100_000)))) == []
    assert killed(make_flag(fallthrough={"variation": 1})) == []


def test_a_rule_of_ours_that_somebody_changed_goes_with_a_kill() -> None:
    changed = rule_of(STAFF)
    changed["clauses"][0]["values"] = ["@everybody.example"]
    assert {"kind": "removeRule", "ruleId": "r-staff"} in killed(make_flag(rules=[changed]))


# — what LaunchDarkly does itself —


@pytest.mark.parametrize(
    "mark", [{"seed": 61}, {"experimentAllocation": {"defaultVariation": 1}}, {"kind": "experiment"}]
)
def test_a_release_of_its_own_is_noticed_on_the_default_rule_and_on_rules(mark: dict[str, Any]) -> None:
    own = weights((0, 10_000), (1, 90_000), **mark)
    assert running_release(config_of(make_flag(fallthrough=own))) == "on its default rule"
    ruled = make_flag(rules=[{"_id": "r-1", "clauses": [], "description": "guarded", **own}])
    assert running_release(config_of(ruled)) == 'on its rule "guarded"'
    assert running_release(config_of(make_flag(fallthrough=weights((0, 10_000), (1, 90_000))))) is None
