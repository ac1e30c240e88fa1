"""Log lines are JSON with constant event names, and no secret gets into one on any way."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from controller.access import new_secret
from controller.telemetry import configure_logging, hide, logs

CANARY = "canary-7f3c9a1e"
REGISTERED = "plain-value-that-looks-like-nothing"


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    stream = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers, root.level, structlog.get_config())
    configure_logging("info", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers = before[0]
    root.setLevel(before[1])
    structlog.configure(**before[2])
    logging.captureWarnings(capture=False)
    logs._hidden.clear()


def test_a_line_is_json_with_event_level_and_utc_time(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger().warning("kill_accepted", flag="main/production/checkout-v2", attempts=2)
    (line,) = lines()
    assert (line["event"], line["level"], line["attempts"]) == ("kill_accepted", "warning", 2)
    assert line["timestamp"].endswith("Z")


def test_lines_below_the_level_are_not_written(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger().debug("detail")
    logging.getLogger("anything").debug("detail")
    assert lines() == []


def test_an_unknown_level_says_which_are_known() -> None:
    with pytest.raises(ValueError, match="use debug, info, warning or error"):
        configure_logging("loud")


def test_library_logs_come_out_in_the_same_form(lines: Callable[[], list[dict[str, Any]]]) -> None:
    for library in ("uvicorn.error", "apscheduler.scheduler", "ldclient.util", "anything"):
        logging.getLogger(library).warning("something about %s", "flags")
    assert [line["library"] for line in lines()] == [
        "uvicorn.error",
        "apscheduler.scheduler",
        "ldclient.util",
        "anything",
    ]
    assert {line["event"] for line in lines()} == {"library_log"}
    assert {line["message"] for line in lines()} == {"something about flags"}


def test_a_value_json_cannot_hold_is_still_one_valid_line(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger().info("odd", number=float("nan"), thing=object(), raw=b"\xff", several={1, 2})
    (line,) = lines()
    assert line["number"] is None
    assert "object" in line["thing"]


LEAKS: dict[str, Callable[[], object]] = {
    "under a telling key": lambda: structlog.get_logger().info("e", api_token=CANARY),
    "under a header's name": lambda: structlog.get_logger().info("e", headers={"X-Api-Key": CANARY}),
    "deep in a list": lambda: structlog.get_logger().info("e", a=[{"b": ({"password": CANARY},)}]),
    "as a bearer token": lambda: structlog.get_logger().info("e", said=f"Authorization: Bearer {CANARY}"),
    "in an address": lambda: structlog.get_logger().info("e", url=f"postgresql://rampart:{CANARY}@db/rampart"),
    "registered, in a sentence": lambda: structlog.get_logger().info("e", said=f"sent {REGISTERED} there"),
    "registered, as a key": lambda: structlog.get_logger().info("e", seen={REGISTERED: 1}),
    "registered, in bytes": lambda: structlog.get_logger().info("e", raw=REGISTERED.encode()),
    "registered, in an exception": lambda: _fail(structlog.get_logger().exception, "e"),
    "registered, from a library": lambda: logging.getLogger("ldclient").warning("key %s", REGISTERED),
    "registered, in a library's exception": lambda: _fail(logging.getLogger("aiohttp.client").exception, "e"),
}


def _fail(report: Callable[[str], object], event: str) -> None:
    try:
        dict[str, str]()[f"refused with {REGISTERED}"]
    except KeyError:
        report(event)


@pytest.mark.parametrize("way", LEAKS)
def test_a_secret_never_reaches_a_log_line(way: str, lines: Callable[[], list[dict[str, Any]]]) -> None:
    hide(REGISTERED)
    LEAKS[way]()
    (line,) = lines()
    assert CANARY not in json.dumps(line)
    assert REGISTERED not in json.dumps(line)
    assert logs.REMOVED in json.dumps(line)


def test_our_own_tokens_are_known_by_their_shape() -> None:
    secret = new_secret()
    assert secret not in logs.without_secrets(f"token {secret}, and {secret}.")


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=6, max_size=40), st.text(max_size=40))
def test_a_registered_secret_is_removed_from_any_text(secret: str, around: str) -> None:
    hide(secret)
    try:
        assert secret not in logs.without_secrets(f"{around}{secret}{around}").replace(logs.REMOVED, "")
    finally:
        logs._hidden.discard(secret)


def test_names_of_metrics_and_paths_of_secret_files_stay_readable() -> None:
    text = "rampart_source_last_success_timestamp_seconds from /run/secrets/ld-api, see https://runbooks.example/a"
    assert logs.without_secrets(text) == text
    event = logs.remove_secrets(
        None, "info", {"event": "e", "token_file": "/run/secrets/ld-api", "key": "checkout-v2"}
    )
    assert event == {"event": "e", "token_file": "/run/secrets/ld-api", "key": "checkout-v2"}
