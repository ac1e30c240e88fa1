"""A flagd document as text: what is not ours stays as it is, to the character."""

import json
import random
from typing import Any

import pytest

from controller.providers.flagd.definition import Found, killed, turned_on, with_share
from controller.providers.flagd.document import Document, Unreadable
from tests.contracts.provider_cases import STAFF, share
from tests.contracts.provider_world import FLAG, SERVE

BY_HAND = """{
    "$schema": "https://flagd.dev/schema/v0/flags.json",
    "flags": {
        "before":   { "state": "ENABLED", "variants": {"a": 1.10, "b": 1e400}, "defaultVariant": "a" },
        "checkout-v2": {
            "state": "ENABLED",
            "variants": {"on": true, "off": false},
            "defaultVariant": "off"
        },

        "after": {"state": "ENABLED", "variants": {"é": "\\u00e9", "n": 123456789012345678901234567890},
\t\t"defaultVariant": "n", "unknown": [ ] }
    },
    "metadata": {"owner": "web",   "version": "7"}
}
"""


def document(text: str = BY_HAND) -> Document:
    return Document.read(text.encode())


def found(one: Document) -> Found:
    flag = one.flag(FLAG.key)
    assert flag is not None
    return flag


def weighted(one: Document, exposure: int = 1_000) -> Document:
    return one.with_flags({FLAG.key: with_share(found(one), share(exposure, STAFF))})


def on(one: Document) -> Document:
    return one.with_flags({FLAG.key: turned_on(found(one))})


def raised(one: Document) -> Document:
    return on(weighted(one))


def down(one: Document) -> Document:
    return one.with_flags({FLAG.key: killed(found(one), SERVE)})


def test_every_character_outside_of_the_flag_stays() -> None:
    changed = on(weighted(document()))
    begin = BY_HAND.index('"checkout-v2"')
    end = BY_HAND.index('        "after"')
    assert changed.text.startswith(BY_HAND[:begin])
    assert changed.text.endswith(BY_HAND[end:])
    assert Document.read(changed.text.encode()).flag(FLAG.key) == found(changed)


def test_what_is_parked_comes_and_goes_without_a_trace() -> None:
    parked = weighted(document())
    assert Document.read(parked.text.encode()).flag(FLAG.key) == found(parked)
    assert "rampart.parked.checkout-v2" in json.loads(parked.text)["$evaluators"]
    killed_again = down(parked)
    assert "$evaluators" not in killed_again.text
    assert down(on(weighted(killed_again))).text == killed_again.text
    assert killed_again.text.endswith(BY_HAND[BY_HAND.index('        "after"') :])


def test_evaluators_of_others_stay_beside_what_is_parked() -> None:
    own = '"$evaluators": { "isStaff": {"ends_with": [ {"var":"email"}, "@acme.example" ]} },'
    text = BY_HAND.replace('"flags"', f'{own}\n    "flags"')
    parked = weighted(document(text))
    assert list(json.loads(parked.text)["$evaluators"]) == ["isStaff", "rampart.parked.checkout-v2"]
    assert '"isStaff": {"ends_with": [ {"var":"email"}, "@acme.example" ]}' in parked.text
    assert own in on(parked).text
    assert own in down(parked).text


def test_a_document_on_one_line_stays_on_one_line() -> None:
    text = json.dumps(json.loads(BY_HAND.replace("1e400", "1")))
    assert "\n" not in on(weighted(document(text))).text
    assert "\n" not in weighted(document(text)).text


def test_what_we_write_is_laid_out_as_the_rest() -> None:
    flag = on(weighted(document())).text.partition('"checkout-v2": ')[2]
    assert flag.startswith(
        '{\n            "state": "ENABLED",\n            "variants": {"on": true, "off": false},\n'
    )
    assert '\n            "targeting": {\n                "if": [\n                    {\n' in flag
    assert all(len(line) < 115 for line in flag.splitlines())


def test_without_a_difference_nothing_is_written() -> None:
    once = on(weighted(document()))
    assert on(once).text == once.text
    assert weighted(once).text == once.text
    assert document().with_flags({FLAG.key: found(document())}).text == BY_HAND


def test_a_flag_that_is_not_there_is_not_made() -> None:
    assert document().flag("nobody") is None
    with pytest.raises(KeyError):
        document().with_flags({"nobody": Found({})})


def test_a_flag_that_is_no_object_has_no_variants() -> None:
    text = BY_HAND.replace('"checkout-v2": {', '"checkout-v2": 7, "x": {')
    assert document(text).flag(FLAG.key) == Found({})


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "not JSON"),
        (BY_HAND[:-3], "line 14, column 51"),
        (BY_HAND[: len(BY_HAND) // 2], "not JSON"),
        ("[]", "flags"),
        ("{}", "flags"),
        ('{"flags": []}', "flags"),
        ('{"flags": {}, "$evaluators": []}', "evaluators"),
        ('{"flags": {"a": {}, "a": {}}}', '"a" is there twice'),
        ('{"flags": {"a": {"x": NaN}}}', "NaN"),
        ("flags:\n  a: {}", "not JSON"),
    ],
)
def test_what_evaluators_would_not_take_is_told_and_not_guessed(text: str, word: str) -> None:
    with pytest.raises(Unreadable, match=word):
        document(text)
    with pytest.raises(Unreadable, match="UTF-8"):
        Document.read(b'{"flags": {"\xff": {}}}')


def test_half_a_character_survives() -> None:
    text = BY_HAND.replace('"defaultVariant": "off"', '"defaultVariant": "off", "metadata": {"x": "\\ud800"}')
    changed = on(weighted(document(text)))
    assert json.loads(changed.text.encode())["flags"][FLAG.key]["metadata"]["x"] == "\ud800"


@pytest.mark.parametrize("seed", range(200))
def test_whatever_a_document_looks_like_only_the_flag_changes(seed: int) -> None:
    chance = random.Random(seed)
    text = drawn(chance)
    before = json.loads(text)
    one = document(text)
    for step in range(6):
        one = chance.choice([weighted, down, raised])(one)
        after = json.loads(one.text)
        assert one.flag(FLAG.key) == Document.read(one.text.encode()).flag(FLAG.key), step
        assert [key for key in after if key != "$evaluators"] == [key for key in before if key != "$evaluators"]
        assert list(after["flags"]) == list(before["flags"])
        ours = {"flags": {FLAG.key: None}, "$evaluators": {"rampart.parked.checkout-v2": None}}
        assert without(after, ours) == without(before, ours), step


def drawn(chance: random.Random) -> str:
    keys = ["a", "b", 'quo"te', "back\\slash", "é", "{", "checkout-v2x", ""]
    chance.shuffle(keys)
    flags: dict[str, Any] = {
        key: {"state": "ENABLED", "n": [1, {"x": "}"}]} for key in keys[: chance.randrange(5)]
    }
    flags[FLAG.key] = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}
    members: list[tuple[str, Any]] = [("flags", dict(chance.sample(list(flags.items()), len(flags))))]
    if chance.random() < 0.5:
        members.append(("$evaluators", {"x": {"var": "y"}} if chance.random() < 0.5 else {}))
    if chance.random() < 0.5:
        members.append(("metadata", {"flags": {"checkout-v2": 1}}))
    chance.shuffle(members)
    return json.dumps(
        dict(members), indent=chance.choice([None, 1, 2, 4, "\t"]), ensure_ascii=chance.random() < 0.5
    )


def without(tree: Any, ours: Any) -> Any:
    """What is not ours; an object that held nothing else counts as none."""
    if not isinstance(tree, dict) or ours is None:
        return None if ours is None else tree
    left = {key: without(value, ours[key]) if key in ours else value for key, value in tree.items()}
    return {key: value for key, value in left.items() if not (key in ours and value in (None, {}))}
