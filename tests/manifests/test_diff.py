"""A diff names what changed in the words of the YAML."""

from pathlib import Path

from controller.domain.rehearsal import RolloutTest
from controller.domain.status import Change
from controller.manifests.diff import diff
from controller.manifests.loader import Document, load
from tests.manifests.surroundings import SHIPPED


def document(file: str, *changes: tuple[str, str]) -> Document:
    text = Path(SHIPPED / file).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    loaded = load(text, file)
    assert loaded.problems == []
    value = loaded.documents[0].value
    assert not isinstance(value, RolloutTest)
    return value


PLAN, POLICY = "checkout-v2.rollout.yaml", "web-service.policy.yaml"
EARLY = "    - { name: early,    exposure: 10%,  bake: 2h }\n"


def edited(file: str, *changes: tuple[str, str]) -> list[Change]:
    return diff(document(file), document(file, *changes))


def test_the_same_document_has_no_changes() -> None:
    assert edited(PLAN) == []
    assert edited(POLICY) == []


def test_a_new_document_is_one_change() -> None:
    changes = diff(None, document(PLAN))
    assert [(one.path, one.before, one.note) for one in changes] == [("", None, "new")]
    assert changes[0].after["spec"]["flag"]["key"] == "checkout-v2"


def test_a_changed_value_is_named_by_its_path() -> None:
    (change,) = edited(PLAN, ("bake: 2h", "bake: 1h"))
    assert (change.path, change.before, change.after) == ("spec.stages[1].bake", "2h", "1h")
    assert (change.kind, change.name) == ("RolloutPlan", "checkout-v2")


def test_a_removed_item_is_recognised_by_its_name() -> None:
    (change,) = edited(PLAN, (EARLY, ""))
    assert change.path == "spec.stages[1]"
    assert change.before["name"] == "early"
    assert change.after is None


def test_an_inserted_item_does_not_change_those_behind_it() -> None:
    (change,) = edited(PLAN, (EARLY, "    - { name: few, exposure: 5%, bake: 1h }\n" + EARLY))
    assert (change.path, change.before, change.after["name"]) == ("spec.stages[1]", None, "few")


def test_a_removed_kill_rule_is_said_aloud() -> None:
    (change,) = edited(POLICY, ("    - { id: p95-3x, ", "    # - { id: p95-3x, "))
    assert (change.path, change.note) == ("spec.rules[3]", "removes a kill rule")


def test_a_new_order_is_a_change() -> None:
    names = [("name: staff,", "name: x,"), ("name: beta, ", "name: staff,"), ("name: x,", "name: beta,")]
    matches = [('{ email: { endsWith: "@acme.example" } }', "M1"), ("{ plan: { in: [beta] } }", "M2")]
    back = [("M1", "{ plan: { in: [beta] } }"), ("M2", '{ email: { endsWith: "@acme.example" } }')]
    (change,) = edited(PLAN, *names, *matches, *back)
    assert (change.path, change.before, change.after) == (
        "spec.audience.always",
        ["staff", "beta"],
        ["beta", "staff"],
    )


def test_an_optional_key_that_appears_was_absent_before() -> None:
    (change,) = edited(PLAN, ("bake: 2h }", "bake: 2h, minTotal: { requests: 5 } }"))
    assert (change.path, change.before, change.after) == ("spec.stages[1].minTotal", None, {"requests": 5})
