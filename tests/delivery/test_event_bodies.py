"""Bodies of events: what an SDK may send, and what nobody should."""

import gzip
import json
import zlib
from typing import Any

import pytest

from controller.delivery.event_bodies import MAX_BYTES, Garbled, TooLarge, events, unpacked

CONTEXT = {"kind": "user", "key": "ann"}


def encoded(*listed: Any) -> bytes:
    return json.dumps(listed).encode()


def test_one_event_that_is_none_does_not_take_the_others_with_it() -> None:
    good = {"kind": "custom", "key": "error", "creationDate": 1, "context": CONTEXT}
    read, garbled = events(encoded(good, {"kind": "custom", "key": 7}, 3, {"no": "kind"}, good))
    assert [event.key for event in read] == ["error", "error"]
    assert garbled == 3


def test_what_is_not_counted_may_be_anything() -> None:
    read, garbled = events(
        encoded({"kind": "of-tomorrow", "data": [1, {"a": None}], "value": {}, "samplingRatio": "x"})
    )
    assert [event.kind for event in read] == ["of-tomorrow"]
    assert garbled == 0


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b'"text"', b"[1,", b"\xff\xfe", b"null", b"[" * 100_000])
def test_what_is_no_list_of_events_is_refused_in_words(body: bytes) -> None:
    with pytest.raises(Garbled, match="JSON"):
        events(body)


@pytest.mark.parametrize("count", [-1, 10**10, 1.5, "1", None])
def test_a_count_that_never_was_is_not_added_up(count: Any) -> None:
    summary = {"kind": "summary", "features": {"checkout": {"counters": [{"variation": 0, "count": count}]}}}
    assert events(encoded(summary)) == ([], 1)


def test_a_gzipped_body_is_unpacked() -> None:
    assert unpacked(gzip.compress(b"[]"), "gzip") == b"[]"
    assert unpacked(b"[]", "") == b"[]"


def test_a_small_body_that_unpacks_to_too_much_is_refused_before_it_is_unpacked() -> None:
    bomb = gzip.compress(b" " * (64 * MAX_BYTES))
    assert len(bomb) < MAX_BYTES
    with pytest.raises(TooLarge):
        unpacked(bomb, "gzip")


@pytest.mark.parametrize(
    "body",
    [b"[]", gzip.compress(b"[]")[:-4], gzip.compress(b"[]") + b"more", zlib.compress(b"[]"), b""],
    ids=["plain", "cut", "followed", "zlib", "empty"],
)
def test_what_is_not_one_whole_gzip_stream_is_refused(body: bytes) -> None:
    with pytest.raises(Garbled, match="gzip"):
        unpacked(body, "gzip")


def test_an_encoding_that_is_not_known_is_named() -> None:
    with pytest.raises(Garbled, match="'br'"):
        unpacked(b"[]", "br")
