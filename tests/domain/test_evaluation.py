"""What a flag serves: in which order it is asked, what a share means, and that nothing in it ever raises."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.evaluation import Evaluation, Evaluator, bucket, evaluate, parse_context
from controller.domain.evaluation.bucketing import hashed, prefix_of
from controller.domain.evaluation.evaluator import MAX_NESTING
from controller.domain.evaluation.readied import ready_body
from controller.domain.flag import FlagSpec, SetShare
from controller.domain.plan import AttributeMatch, AudienceRule, FlagRef, Serve
from controller.domain.sdkflag import killed, new_flag, turned_on, with_share
from controller.patterns import read_pattern
from tests.support.flag_zoo import draw_zoo

Data = dict[str, Any]
DANA: Data = {"kind": "user", "key": "dana", "email": "dana@acme.example"}
ACME: Data = {"kind": "org", "key": "acme", "plan": "pro"}


def make_flag(key: str = "flag", **changes: Any) -> Data:
    """On; "b" for everybody, "a" when it is off."""
    flag = {
        "key": key, "version": 7, "on": True, "salt": "salt", "variations": ["a", "b", "c"], "offVariation": 0,
        "fallthrough": {"variation": 1}, "rules": [], "targets": [], "contextTargets": [], "prerequisites": [],
    }  # fmt: skip
    return flag | changes


def clause(op: str, *values: Any, attribute: str = "email", **changes: Any) -> Data:
    return {"attribute": attribute, "op": op, "values": list(values), "contextKind": "user", **changes}


def rule(*clauses: Data, variation: int = 2, **changes: Any) -> Data:
    return {"id": "r1", "variation": variation, "clauses": list(clauses), **changes}


def shares(*weights: int, **changes: Any) -> Data:
    """Of the variations in their order."""
    listed = [{"variation": index, "weight": weight} for index, weight in enumerate(weights)]
    return {"rollout": {"contextKind": "user", "variations": listed, **changes}}


def ask(flag: Data, context: Data = DANA, *others: Data, segments: tuple[Data, ...] = ()) -> Evaluation:
    flags = {one["key"]: one for one in (flag, *others)}
    return evaluate(flag["key"], context, flags, {one["key"]: one for one in segments}, patterns=read_pattern)


def served(flag: Data, context: Data = DANA, *others: Data, segments: tuple[Data, ...] = ()) -> tuple[Any, str]:
    answer = ask(flag, context, *others, segments=segments)
    return answer.value, answer.reason["kind"]


ERROR = (None, "ERROR")
MALFORMED = {"kind": "ERROR", "errorKind": "MALFORMED_FLAG"}


# — the order in which a flag is asked —


def test_everybody_gets_the_fallthrough() -> None:
    answer = ask(make_flag())
    assert (answer.value, answer.variation, answer.reason) == ("b", 1, {"kind": "FALLTHROUGH"})
    assert (answer.version, answer.track_events, answer.track_reason, answer.in_experiment) == (
        7,
        False,
        False,
        False,
    )


def test_off_goes_before_everything_else() -> None:
    everything = make_flag(
        on=False, targets=[{"variation": 2, "values": ["dana"]}], rules=[rule(clause("in", DANA["email"]))]
    )
    assert (ask(everything).value, ask(everything).reason) == ("a", {"kind": "OFF"})


def test_a_flag_that_is_off_serves_off_whatever_the_rest_of_it_is_like() -> None:
    assert served(make_flag(on=False, rules="garbled", fallthrough=7)) == ("a", "OFF")


def test_without_an_off_variation_everybody_keeps_the_default() -> None:
    answer = ask(make_flag(on=False, offVariation=None))
    assert (answer.value, answer.variation, answer.reason) == (None, None, {"kind": "OFF"})


def test_a_flag_that_there_is_not_is_not_found() -> None:
    answer = evaluate("other", DANA, {"flag": make_flag()}, patterns=read_pattern)
    assert (answer.variation, answer.reason) == (None, {"kind": "ERROR", "errorKind": "FLAG_NOT_FOUND"})
    assert ask(make_flag(deleted=True)).reason["errorKind"] == "FLAG_NOT_FOUND"


def test_what_is_no_context_is_served_the_default() -> None:
    assert ask(make_flag(), {"kind": "user"}).reason == {"kind": "ERROR", "errorKind": "USER_NOT_SPECIFIED"}


def test_targets_go_before_rules_and_the_first_rule_before_the_second() -> None:
    flag = make_flag(
        targets=[{"variation": 0, "values": ["kim"]}],
        rules=[rule(clause("endsWith", "@acme.example")), rule(clause("contains", "@"), variation=0, id="r2")],
    )
    assert served(flag, {"kind": "user", "key": "kim", "email": "kim@acme.example"}) == ("a", "TARGET_MATCH")
    assert ask(flag).reason == {"kind": "RULE_MATCH", "ruleIndex": 0, "ruleId": "r1"}
    assert ask(flag, DANA | {"email": "dana@other"}).reason == {
        "kind": "RULE_MATCH",
        "ruleIndex": 1,
        "ruleId": "r2",
    }
    assert served(flag, DANA | {"email": "none"}) == ("b", "FALLTHROUGH")


def test_a_rule_without_an_id_has_none_in_its_reason() -> None:
    unnamed = make_flag(rules=[{"variation": 2, "clauses": []}])
    assert ask(unnamed).reason == {"kind": "RULE_MATCH", "ruleIndex": 0}


def test_all_clauses_of_a_rule_must_match() -> None:
    both = make_flag(rules=[rule(clause("contains", "dana"), clause("in", "pro", attribute="plan"))])
    assert served(both) == ("b", "FALLTHROUGH")
    assert served(both, DANA | {"plan": "pro"}) == ("c", "RULE_MATCH")


# — targets —


def test_targets_of_kinds_are_asked_in_their_order_and_users_are_listed_apart() -> None:
    flag = make_flag(
        targets=[{"variation": 2, "values": ["dana"]}, {"variation": 0, "values": ["kim"]}],
        contextTargets=[
            {"contextKind": "org", "variation": 0, "values": ["acme"]},
            {"contextKind": "user", "variation": 2, "values": []},
            {"contextKind": "user", "variation": 1, "values": ["kim"]},
        ],
    )
    assert served(flag) == ("c", "TARGET_MATCH")
    assert served(flag, ACME) == ("a", "TARGET_MATCH")
    assert served(flag, {"kind": "multi", "user": {"key": "dana"}, "org": {"key": "acme"}}) == (
        "a",
        "TARGET_MATCH",
    )
    assert served(flag, {"kind": "user", "key": "kim"}) == ("b", "FALLTHROUGH")


def test_targets_without_kinds_are_users() -> None:
    flag = make_flag(targets=[{"variation": 2, "values": ["acme", "dana"]}])
    assert served(flag) == ("c", "TARGET_MATCH")
    assert served(flag, ACME) == ("b", "FALLTHROUGH")


# — clauses —


def test_a_clause_without_a_kind_is_about_users_and_names_its_attribute_plainly() -> None:
    plain = {"attribute": "/a/b", "op": "in", "values": [1]}
    flag = make_flag(rules=[rule(plain)])
    assert served(flag, DANA | {"/a/b": 1}) == ("c", "RULE_MATCH")
    assert served(flag, DANA | {"a": {"b": 1}}) == ("b", "FALLTHROUGH")
    assert served(make_flag(rules=[rule({**plain, "contextKind": "user"})]), DANA | {"a": {"b": 1}})[0] == "c"
    assert served(flag, ACME | {"/a/b": 1}) == ("b", "FALLTHROUGH")


def test_one_value_of_a_list_is_enough() -> None:
    flag = make_flag(rules=[rule(clause("in", "x", "y", attribute="tags"))])
    assert served(flag, DANA | {"tags": ["a", "y"]})[0] == "c"
    assert served(flag, DANA | {"tags": ["a"]})[0] == "b"


def test_negation_turns_the_answer_but_a_missing_attribute_still_matches_nothing() -> None:
    flag = make_flag(rules=[rule(clause("in", "x", attribute="tag", negate=True))])
    assert served(flag, DANA | {"tag": "y"})[0] == "c"
    assert served(flag, DANA | {"tag": []})[0] == "c"
    for context in (DANA | {"tag": "x"}, DANA | {"tag": None}, DANA, ACME | {"tag": "y"}):
        assert served(flag, context)[0] == "b"


def test_the_kind_is_asked_of_all_parts() -> None:
    flag = make_flag(rules=[rule(clause("in", "org", attribute="kind"))])
    assert served(flag, ACME)[0] == "c"
    assert served(flag, {"kind": "multi", "user": {"key": "dana"}, "org": {"key": "acme"}})[0] == "c"
    assert served(flag)[0] == "b"
    assert served(make_flag(rules=[rule(clause("in", "org", attribute="kind", negate=True))]))[0] == "c"


def test_anonymous_is_false_unless_it_is_said() -> None:
    flag = make_flag(rules=[rule(clause("in", True, attribute="anonymous"))])
    assert served(flag, DANA | {"anonymous": True})[0] == "c"
    assert served(flag)[0] == "b"


def test_a_reference_to_nothing_is_malformed_as_soon_as_it_is_asked() -> None:
    flag = make_flag(rules=[rule(clause("in", "x")), rule(clause("in", "x", attribute="/a//b"), id="r2")])
    assert ask(flag).reason == MALFORMED
    assert ask(flag, ACME).reason == MALFORMED
    assert served(flag, DANA | {"email": "x"}) == ("c", "RULE_MATCH")


# — segments —


def in_segment(*keys: str, **changes: Any) -> Data:
    return make_flag(rules=[rule({"attribute": "", "op": "segmentMatch", "values": list(keys), **changes})])


def test_a_segment_has_whom_it_includes_and_then_not_whom_it_excludes_and_then_whom_a_rule_takes() -> None:
    segment = {
        "key": "s", "included": ["dana"], "excluded": ["dana", "kim"],
        "includedContexts": [{"contextKind": "org", "values": ["acme"]}],
        "excludedContexts": [{"contextKind": "org", "values": ["other"]}],
        "rules": [{"clauses": []}],
    }  # fmt: skip
    assert served(in_segment("s"), segments=(segment,))[0] == "c"
    assert served(in_segment("s"), ACME, segments=(segment,))[0] == "c"
    assert served(in_segment("s"), DANA | {"key": "kim"}, segments=(segment,))[0] == "b"
    assert served(in_segment("s"), ACME | {"key": "other"}, segments=(segment,))[0] == "b"
    assert served(in_segment("s"), DANA | {"key": "kai"}, segments=(segment,))[0] == "c"


def test_one_of_the_segments_is_enough_and_none_is_one_that_there_is_not() -> None:
    segment = {"key": "s", "included": ["dana"]}
    assert served(in_segment("missing", "s"), segments=(segment,))[0] == "c"
    assert served(in_segment("missing"), segments=(segment,))[0] == "b"
    assert served(in_segment("missing", negate=True), segments=(segment,))[0] == "c"
    assert served(in_segment("s"), segments=({**segment, "deleted": True},))[0] == "b"


def test_a_rule_of_a_segment_takes_a_share_of_those_it_matches() -> None:
    segment = {"key": "s", "salt": "pepper", "rules": [{"clauses": [clause("contains", "@")], "weight": 50_000}]}
    for number in range(50):
        context = {"kind": "user", "key": f"u{number}", "email": "a@b"}
        inside = bucket("s", "pepper", f"u{number}") < 0.5
        assert (served(in_segment("s"), context, segments=(segment,))[0] == "c") is inside
        assert served(in_segment("s"), context | {"email": "none"}, segments=(segment,))[0] == "b"


def test_a_share_of_a_segment_may_go_by_an_attribute_of_another_kind() -> None:
    by_plan = {"clauses": [], "weight": 50_000, "rolloutContextKind": "org", "bucketBy": "plan"}
    segment = {"key": "s", "rules": [by_plan]}
    for plan in ("free", "pro", "team", "max"):
        inside = bucket("s", "", plan) < 0.5
        assert (served(in_segment("s"), ACME | {"plan": plan}, segments=(segment,))[0] == "c") is inside
    assert served(in_segment("s"), segments=(segment,))[0] == "c"
    nobody = {"key": "s", "rules": [{**by_plan, "weight": 0}]}
    assert served(in_segment("s"), segments=(nobody,))[0] == "b"
    broken = {"key": "s", "rules": [{**by_plan, "bucketBy": "/a//b"}]}
    assert ask(in_segment("s"), segments=(broken,)).reason == MALFORMED


def test_segments_may_ask_for_segments_but_not_for_themselves() -> None:
    def asking(key: str, other: str) -> Data:
        return {"key": key, "rules": [{"clauses": [{"attribute": "", "op": "segmentMatch", "values": [other]}]}]}

    inner = {"key": "inner", "included": ["dana"]}
    assert served(in_segment("outer"), segments=(asking("outer", "inner"), inner))[0] == "c"
    circle = (asking("outer", "inner"), asking("inner", "outer"))
    assert ask(in_segment("outer"), segments=circle).reason == MALFORMED
    chain = tuple(asking(f"s{number}", f"s{number + 1}") for number in range(2000))
    assert ask(in_segment("s0"), segments=chain).reason == MALFORMED


def test_a_segment_that_only_launchdarkly_holds_says_that_nobody_could_ask_it() -> None:
    segment = {"key": "s", "unbounded": True, "generation": 2, "included": ["dana"], "rules": []}
    answer = ask(in_segment("s"), segments=(segment,))
    assert answer.reason == {"kind": "FALLTHROUGH", "bigSegmentsStatus": "NOT_CONFIGURED"}
    assert ask(in_segment("s"), ACME, segments=(segment,)).reason == {"kind": "FALLTHROUGH"}
    old = {"key": "s", "unbounded": True, "rules": [{"clauses": []}]}
    assert served(in_segment("s"), segments=(old,))[0] == "b"
    assert served(in_segment("s"), segments=({**segment, "rules": [{"clauses": []}]},))[0] == "c"


# — prerequisites —


def wanting(variation: int, *keys: str) -> Data:
    return make_flag(prerequisites=[{"key": key, "variation": variation} for key in keys or ("other",)])


def test_a_prerequisite_must_serve_what_is_wanted_and_be_on() -> None:
    other = make_flag("other")
    failed = {"kind": "PREREQUISITE_FAILED", "prerequisiteKey": "other"}
    assert served(wanting(1), DANA, other) == ("b", "FALLTHROUGH")
    assert (ask(wanting(0), DANA, other).value, ask(wanting(0), DANA, other).reason) == ("a", failed)
    assert ask(wanting(0), DANA, other | {"on": False}).reason == failed
    assert ask(wanting(1)).reason == failed
    assert ask(wanting(1), DANA, other | {"deleted": True}).reason == failed
    assert ask(wanting(1), DANA, other | {"fallthrough": {"variation": 9}}).reason == failed


def test_prerequisites_are_asked_in_their_order_up_to_the_first_that_fails() -> None:
    others = (make_flag("x"), make_flag("y", on=False), make_flag("z"))
    answer = ask(wanting(1, "x", "gone", "y", "z"), DANA, *others)
    assert (answer.reason["prerequisiteKey"], answer.prerequisites) == ("gone", ("x",))
    answer = ask(wanting(1, "x", "y", "z"), DANA, *others)
    assert (answer.reason["prerequisiteKey"], answer.prerequisites) == ("y", ("x", "y"))
    assert ask(wanting(1, "x", "z"), DANA, *others).prerequisites == ("x", "z")


def test_only_those_asked_directly_are_named() -> None:
    others = (wanting(1, "y") | {"key": "x"}, make_flag("y"))
    assert ask(wanting(1, "x"), DANA, *others).prerequisites == ("x",)


@pytest.mark.parametrize("others", [[], [("x", "flag")], [("x", "y"), ("y", "x")], [("x", "y"), ("y", "y")]])
def test_prerequisites_that_lead_back_to_themselves_are_malformed(others: list[tuple[str, str]]) -> None:
    first = wanting(1, others[0][0] if others else "flag")
    answer = ask(first, DANA, *(wanting(1, other) | {"key": key} for key, other in others))
    assert (answer.value, answer.reason, answer.version) == (None, MALFORMED, 7)


def test_a_prerequisite_that_cannot_be_read_makes_the_flag_malformed() -> None:
    assert ask(wanting(1), DANA, make_flag("other", rules="garbled")).reason == MALFORMED


def test_a_chain_of_prerequisites_may_be_long_but_not_without_end() -> None:
    def chain(length: int) -> list[Data]:
        links = [wanting(1, f"f{number + 1}") | {"key": f"f{number}"} for number in range(length)]
        return [*links, make_flag(f"f{length}")]

    first, *others = chain(MAX_NESTING)
    assert served(first, DANA, *others)[0] == "b"
    for longer in (MAX_NESTING + 1, 2000):
        first, *others = chain(longer)
        assert ask(first, DANA, *others).reason == MALFORMED


def test_a_prerequisite_that_many_have_is_asked_once() -> None:
    """Asked anew each time, 60 layers of two would take longer than anybody lives."""
    layers = [wanting(1, f"f{number + 1}", f"g{number + 1}") | {"key": f"f{number}"} for number in range(60)]
    layers += [layer | {"key": layer["key"].replace("f", "g")} for layer in layers]
    assert served(layers[0], DANA, *layers[1:], make_flag("f60"), make_flag("g60")) == ("b", "FALLTHROUGH")


# — shares —


def test_a_bucket_is_the_hash_of_flag_salt_and_value() -> None:
    expected = int(hashlib.sha1(b"flag.salt.dana").hexdigest()[:15], 16) / 0xFFFFFFFFFFFFFFF
    assert bucket("flag", "salt", "dana") == hashed(prefix_of("flag", "salt", None), "dana") == expected
    assert bucket("other", "salt", "dana") != expected != bucket("flag", "other", "dana")
    assert bucket("flag", "salt", "dana", seed=0) == bucket("other", "other", "dana", seed=0) != expected


def test_a_whole_number_is_hashed_as_its_digits_and_anything_else_but_a_text_is_0() -> None:
    assert bucket("f", "s", 5) == bucket("f", "s", "5") == bucket("f", "s", 5.0)
    nothing_of_it = (None, True, 5.5, float("inf"), float("nan"), ["a"], {"a": 1})
    assert {bucket("f", "s", value) for value in nothing_of_it} == {0.0}
    assert 0 < bucket("f", "s", "\ud800") < 1


@given(st.lists(st.integers(0, 100_000), min_size=2, max_size=6).map(sorted), st.text(min_size=1))
def test_raising_a_share_only_adds_contexts(ends: list[int], key: str) -> None:
    def on(exposure: int) -> bool:
        flag = make_flag(fallthrough=shares(100_000 - exposure, exposure))
        return ask(flag, DANA | {"key": key}).variation == 1

    answers = [on(exposure) for exposure in ends]
    assert answers == sorted(answers)


@given(st.text(min_size=1), st.integers(0, 100_000))
def test_our_own_flags_are_raised_by_exactly_those_below_the_share_and_a_kill_takes_all_of_them_back(
    key: str, exposure: int
) -> None:
    ref = FlagRef(provider="main", environment="production", key="checkout-v2")
    staff = AudienceRule(name="staff", match={"email": AttributeMatch(ends_with="@acme.example")})
    change = SetShare(
        flag=ref, serve=Serve(rollout="on", fallback="off"), exposure=exposure, audience=(staff,),
        bucket_by="user", comment="test",
    )  # fmt: skip
    config = turned_on(
        with_share(new_flag(FlagSpec(environment="production", key="checkout-v2"), 1), change, 2), 3
    )
    context = {"kind": "user", "key": key}
    raised = bucket("checkout-v2", config.data["salt"], key) >= (100_000 - exposure) / 100_000
    assert ask(config.data, context).value is raised
    assert ask(config.data, context | {"email": "dana@acme.example"}).value is True
    assert ask(config.data, ACME).value is False, "whoever is no user is never raised"
    assert ask(killed(config, 4).data, context | {"email": "dana@acme.example"}).value is False


def test_shares_go_by_the_attribute_and_the_kind_they_name() -> None:
    flag = make_flag(fallthrough=shares(50_000, 50_000, contextKind="org", bucketBy="/address/city"))
    for city in ("Berlin", "Bern", "Lyon", "Porto", "Turku"):
        inside = bucket("flag", "salt", city) < 0.5
        assert served(flag, ACME | {"address": {"city": city}})[0] == ("a" if inside else "b")
    assert served(flag, ACME)[0] == "a"


def test_whoever_lacks_the_kind_gets_the_first_share_and_whoever_lacks_the_attribute_the_first_with_anybody() -> (
    None
):
    flag = make_flag(fallthrough=shares(0, 100_000, contextKind="org", bucketBy="plan"))
    assert served(flag, DANA)[0] == "a"
    assert served(flag, {"kind": "org", "key": "acme"})[0] == "b"


def test_whoever_is_beyond_the_last_share_gets_its_variation() -> None:
    assert served(make_flag(fallthrough=shares(0, 0, 1)))[0] == "c"


@pytest.mark.parametrize("seed", [0, 61])
def test_a_seed_takes_the_place_of_flag_and_salt(seed: int) -> None:
    for number in range(20):
        context = {"kind": "user", "key": f"u{number}"}
        inside = bucket("", "", f"u{number}", seed=seed) < 0.5
        assert (served(make_flag(fallthrough=shares(50_000, 50_000, seed=seed)), context)[0] == "a") is inside


def test_an_experiment_goes_by_the_key_and_says_who_takes_part() -> None:
    flag = make_flag(fallthrough=shares(50_000, 50_000, kind="experiment", bucketBy="email"))
    for number in range(10):
        key = f"u{number}"
        assert ask(flag, DANA | {"key": key}).variation == (0 if bucket("flag", "salt", key) < 0.5 else 1)
    answer = ask(flag)
    assert answer.reason == {"kind": "FALLTHROUGH", "inExperiment": True}
    assert (answer.in_experiment, answer.track_events, answer.track_reason) == (True, True, True)
    assert ask(flag, ACME).reason == {"kind": "FALLTHROUGH"}


def test_whoever_is_not_measured_takes_no_part_in_an_experiment() -> None:
    untracked = shares(100_000, kind="experiment")
    untracked["rollout"]["variations"][0]["untracked"] = True
    answer = ask(make_flag(fallthrough=untracked))
    assert (answer.in_experiment, answer.track_events, answer.track_reason) == (False, False, False)
    assert not ask(make_flag(fallthrough=shares(100_000))).in_experiment


def test_what_is_to_be_tracked_is_said() -> None:
    asked = clause("contains", "@")
    assert ask(make_flag(trackEvents=True)).track_events
    assert not ask(make_flag(trackEvents=True)).track_reason
    for flag in (make_flag(trackEventsFallthrough=True), make_flag(rules=[rule(asked, trackEvents=True)])):
        assert (ask(flag).track_events, ask(flag).track_reason) == (True, True)
    assert not ask(make_flag(trackEventsFallthrough=True, rules=[rule(asked)])).track_events
    assert not ask(make_flag(trackEventsFallthrough=True, fallthrough={"variation": 9})).track_reason


# — what is malformed —


@pytest.mark.parametrize(
    "changes",
    [
        {"fallthrough": None},
        {"fallthrough": {}},
        {"fallthrough": {"variation": 3}},
        {"fallthrough": {"variation": -1}},
        {"fallthrough": {"variation": True}},
        {"fallthrough": {"variation": 1.5}},
        {"fallthrough": shares()},
        {"fallthrough": shares(100_000, bucketBy="/a//b")},
        {"fallthrough": {"rollout": {"variations": [{"variation": 0}]}}},
        {"variations": None},
        {"variations": "abc"},
        {"on": "yes"},
        {"rules": [{"variation": 1}]},
        {"rules": [rule(clause("in", "x") | {"values": "x"})]},
        {"targets": [{"variation": 0, "values": [1]}]},
        {"prerequisites": [{"key": "x"}]},
        {"salt": 1},
    ],
)
def test_a_flag_that_cannot_be_read_is_malformed(changes: Data) -> None:
    answer = ask(make_flag(**changes))
    assert (answer.value, answer.variation, answer.reason, answer.version) == (None, None, MALFORMED, 7)


def test_a_malformed_part_harms_nobody_who_does_not_come_to_it() -> None:
    flag = make_flag(fallthrough={}, rules=[rule(clause("contains", "dana"))])
    assert served(flag) == ("c", "RULE_MATCH")
    assert served(flag, ACME) == ERROR


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 10), st.floats(), st.sampled_from(["a", "user", "in", "/x"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["key", "a"]), inner)),
    max_leaves=4,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every value inside, as what holds it and where."""
    inside: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for place in value if isinstance(value, dict) else range(len(value)):
            inside += [(value, place), *places(value[place])]
    return inside


@given(st.integers(0, 1000), st.data())
def test_no_flag_segment_or_context_whatever_is_in_it_ever_raises(seed: int, data: st.DataObject) -> None:
    zoo = json.loads(json.dumps(draw_zoo(seed, flags=6, segments=4, contexts=2)))
    for _ in range(data.draw(st.integers(1, 4))):
        holder, place = data.draw(st.sampled_from(places(zoo[:2])))
        holder[place] = data.draw(json_values)
    if not (isinstance(zoo[0], dict) and isinstance(zoo[1], dict)):
        return
    evaluator = Evaluator(zoo[0], zoo[1], patterns=read_pattern)
    for context in (*zoo[2], data.draw(json_values)):
        for key in (*zoo[0], "other"):
            answer = evaluator.evaluate(key, context)
            assert (answer.variation is None) or answer.reason["kind"] != "ERROR"
            json.dumps(answer.reason)


# — asking the same flags again —


def test_a_flag_is_read_once_and_anew_when_another_took_its_place() -> None:
    read: list[str] = []

    def patterns(text: str) -> None:
        read.append(text)

    def asking(pattern: str) -> Data:
        return make_flag(rules=[rule(clause("matches", pattern))])

    flags = {"flag": asking("one")}
    evaluator = Evaluator(flags, patterns=patterns)
    for _ in range(2):
        evaluator.evaluate("flag", parse_context(DANA))
    flags["flag"] = asking("two")
    evaluator.forget("flag")
    for _ in range(2):
        evaluator.evaluate("flag", DANA)
    assert read == ["one", "two"]
    del flags["flag"]
    evaluator.forget("flag")
    assert evaluator.evaluate("flag", DANA).reason["errorKind"] == "FLAG_NOT_FOUND"


def test_a_flag_is_readied_without_a_context() -> None:
    body = ready_body("flag", make_flag(fallthrough=shares(30_000, 70_000)), read_pattern)
    assert [share.end for share in body.fallthrough.shares] == [0.3, 1.0]  # type: ignore[union-attr]
