"""Contexts as JSON: what is understood, and what is refused with words."""

from typing import Any

import pytest

from controller.domain.evaluation import NoContext, parse_context


def test_a_context_of_one_kind_has_its_attributes_under_that_kind() -> None:
    context = parse_context({"kind": "org", "key": "acme", "plan": "pro", "name": "Acme"})
    assert context.parts == {
        "org": {"kind": "org", "key": "acme", "plan": "pro", "name": "Acme", "anonymous": False}
    }


def test_a_context_of_several_kinds_has_each_under_its_own() -> None:
    context = parse_context({"kind": "multi", "user": {"key": "dana", "anonymous": True}, "org": {"key": "acme"}})
    assert context.parts["user"] == {"kind": "user", "key": "dana", "anonymous": True}
    assert context.parts["org"] == {"kind": "org", "key": "acme", "anonymous": False}


def test_a_user_without_a_kind_has_its_own_attributes_beside_the_known_ones() -> None:
    user = {
        "key": "dana",
        "email": "dana@acme.example",
        "country": None,
        "secondary": "no longer read",
        "custom": {"plan": "pro", "email": "overruled", "key": "overruled"},
        "privateAttributeNames": ["plan"],
    }
    assert parse_context(user).parts["user"] == {
        "kind": "user", "key": "dana", "email": "dana@acme.example", "plan": "pro", "anonymous": False,
    }  # fmt: skip


def test_the_key_of_a_user_without_a_kind_may_be_a_number_or_empty() -> None:
    assert parse_context({"key": 7}).parts["user"]["key"] == "7"
    assert parse_context({"key": ""}).parts["user"]["key"] == ""


def test_what_is_said_about_a_context_is_no_attribute_of_it() -> None:
    context = parse_context({"kind": "user", "key": "dana", "_meta": {"privateAttributes": ["email"]}})
    assert "_meta" not in context.parts["user"]


def test_the_kind_of_a_part_is_the_name_it_stands_under() -> None:
    context = parse_context({"kind": "multi", "org": {"key": "acme", "kind": "user"}})
    assert context.parts["org"]["kind"] == "org"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "an object, not a list"),
        ("dana", "an object, not a text"),
        (None, "an object, not nothing"),
        ({"kind": "user"}, 'kind "user" needs a key'),
        ({"kind": "user", "key": ""}, "not empty"),
        ({"kind": "user", "key": 7}, 'kind "user" needs a key'),
        ({"kind": "org", "key": "acme", "name": 7}, "is a text, not a number"),
        ({"kind": "user", "key": "dana", "anonymous": "yes"}, "true or false, not a text"),
        ({"kind": 7, "key": "dana"}, "the kind of a context is a text"),
        ({"kind": None, "key": "dana"}, "the kind of a context is a text, not nothing"),
        ({"kind": "", "key": "dana"}, '"" is no kind'),
        ({"kind": "kind", "key": "dana"}, '"kind" is no kind'),
        ({"kind": "two words", "key": "dana"}, '"two words" is no kind'),
        ({"kind": "multi"}, "at least one context"),
        ({"kind": "multi", "multi": {"key": "dana"}}, '"multi" is no kind'),
        ({"kind": "multi", "user": "dana"}, 'kind "user" is an object, not a text'),
        ({"kind": "multi", "user": {"key": "dana"}, "org": {}}, 'kind "org" needs a key'),
        ({}, "needs a key"),
        ({"key": True}, "needs a key"),
        ({"key": "dana", "custom": []}, "are an object, not a list"),
        ({"key": "dana", "anonymous": 1}, "true or false, not a number"),
    ],
)
def test_what_is_no_context_is_refused_with_words(data: Any, words: str) -> None:
    with pytest.raises(NoContext) as refused:
        parse_context(data)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"kind": "user", "key": "a:b%"}, "a:b%"),
        ({"kind": "org", "key": "a:b%"}, "org:a%3Ab%25"),
        ({"kind": "multi", "user": {"key": "dana"}, "org": {"key": "acme"}}, "org:acme:user:dana"),
        ({"kind": "multi", "user": {"key": "dana"}}, "dana"),
    ],
)
def test_one_text_says_who_a_context_is(data: Any, key: str) -> None:
    assert parse_context(data).canonical_key == key
