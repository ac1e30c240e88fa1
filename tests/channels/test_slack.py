"""Slack's limits: one part that is too long or unknown, and the whole message is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.channels.slack import content, escaped
from tests.contracts.channels_contract import KILLED

WILD = st.text(
    alphabet=st.one_of(st.sampled_from("&<>*_~`@#!|\n\r\x00 "), st.characters(codec="utf-8")), max_size=4000
)


def texts(block: Any) -> list[str]:
    return [part["text"] for part in [block.get("text"), *block.get("fields", [])] if part]


@given(WILD, WILD)
def test_whatever_somebody_wrote_fits_into_slack_and_is_only_text(reason: str, name: str) -> None:
    told = content(replace(KILLED, reason=reason, actor=name, rollout=name, owner=name, run=name))
    assert len(told["blocks"]) <= 50
    for block in told["blocks"]:
        most = 150 if block["type"] == "header" else 2000 if "fields" in block else 3000
        assert len(block.get("fields", [])) <= 10
        assert all(0 < len(text) <= most for text in texts(block))
        if block["type"] != "header":  # which is plain text
            assert not any({"<", ">"} & set(text) for text in texts(block))
    assert not {"<", ">"} & set(told["text"])


@given(st.text(alphabet="&<>a", max_size=60), st.integers(2, 60))
def test_an_escape_is_never_cut_in_two(text: str, most: int) -> None:
    shown = escaped(text, most)
    assert len(shown) <= most
    plain = shown.removesuffix("…").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert text.startswith(plain)
    assert shown.endswith("…") or plain == text


def test_what_fits_exactly_is_not_cut() -> None:
    assert escaped("abc", 3) == "abc"
    assert escaped("abcd", 3) == "ab…"


def test_the_buttons_lead_to_the_page_and_the_runbook() -> None:
    (actions,) = [block for block in content(KILLED)["blocks"] if block["type"] == "actions"]
    assert [(one["text"]["text"], one["url"]) for one in actions["elements"]] == [
        ("Open the rollout", "https://rampart.example/r/checkout-v2"),
        ("Runbook", "https://wiki.example/checkout?step=1&then=2"),
    ]


@pytest.mark.parametrize("runbook", ["", "see the wiki", "https://wiki.example/" + "x" * 3000])
def test_what_slack_would_refuse_as_a_link_is_left_out(runbook: str) -> None:
    told = content(replace(KILLED, link="", runbook=runbook))
    assert [block for block in told["blocks"] if block["type"] == "actions"] == []


def test_a_notification_on_a_phone_shows_the_headline_and_the_reason() -> None:
    assert content(KILLED)["text"] == (
        "Killed: checkout-v2 in production – web/errors-jump: error_rate 12.3 % against a limit of 10 % for 2m"
    )
