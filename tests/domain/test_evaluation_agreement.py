"""Our answers beside those of LaunchDarkly's Python SDK, connected to a stream of the same flags.

tests/peers does the same with more flags, and with SDKs in other languages.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ldclient
import pytest
from ldclient.config import Config

from controller.domain.evaluation import Evaluator
from controller.patterns import read_pattern
from tests.support.flag_stream import running_stream
from tests.support.flag_zoo import Zoo, draw_zoo
from tests.support.repository import ROOT
from tests.support.sdk_differences import DIFFERENCES, Answer, Difference, disagreements

SEEDS = range(5)


@contextmanager
def connected(zoo: Zoo) -> Iterator[Any]:
    with running_stream(zoo.segments) as stream:
        for flag in zoo.flags.values():
            stream.send(flag)
        options: dict[str, Any] = dict.fromkeys(("base_uri", "stream_uri", "events_uri"), stream.url)
        config = Config("sdk-key", send_events=False, diagnostic_opt_out=True, **options)
        client: Any = ldclient.LDClient(config, start_wait=10)
        try:
            assert client.is_initialized()
            yield client
        finally:
            client.close()


def asked(zoo: Zoo) -> list[dict[str, Answer]]:
    """What the SDK answers for every flag, context by context."""
    with connected(zoo) as client:
        contexts = [ldclient.Context.from_dict(context) for context in zoo.contexts]
        assert all(context.valid for context in contexts)
        return [{key: _answer(client, key, context) for key in zoo.flags} for context in contexts]


def _answer(client: Any, key: str, context: ldclient.Context) -> Answer:
    detail = client.variation_detail(key, context, None)
    return detail.value, detail.variation_index, detail.reason


@pytest.mark.parametrize("seed", SEEDS)
def test_the_python_sdk_gives_our_answer_or_differs_in_a_known_way(seed: int) -> None:
    zoo = draw_zoo(seed, flags=30, contexts=40)
    differing = disagreements(zoo, asked(zoo), "python")
    assert [one for one in differing if not one.known] == []
    assert len(differing) < 0.02 * len(zoo.flags) * len(zoo.contexts), "a zoo that is all exceptions tests nothing"


def test_the_zoo_shows_every_reason_there_is() -> None:
    kinds: Counter[str] = Counter()
    for seed in SEEDS:
        zoo = draw_zoo(seed, flags=30, contexts=40)
        evaluator = Evaluator(zoo.flags, zoo.segments, patterns=read_pattern)
        kinds += Counter(evaluator.evaluate(key, one).reason["kind"] for key in zoo.flags for one in zoo.contexts)
    assert kinds.keys() == {"OFF", "PREREQUISITE_FAILED", "TARGET_MATCH", "RULE_MATCH", "FALLTHROUGH", "ERROR"}
    assert min(kinds.values()) > 50, kinds


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda one: one.name)
def test_every_difference_is_still_there_and_is_nowhere_else(difference: Difference) -> None:
    """One that is gone is to be taken out of docs/sdks.md, too."""
    found = disagreements(difference.specimen, asked(difference.specimen), "python")
    shown = [one.known for one in found if one.flag == "specimen"]
    assert [difference.name in known for known in shown] == ([True] if "python" in difference.sdks else [])


def test_the_page_about_sdks_tells_every_difference_and_no_other() -> None:
    rows = re.findall(r"^\| (.+?) +\| (×?) *\| (×?) *\|$", (ROOT / "docs" / "sdks.md").read_text(), re.MULTILINE)
    told = {name: (bool(python), bool(node)) for name, python, node in rows}
    assert told == {one.name: ("python" in one.sdks, "node" in one.sdks) for one in DIFFERENCES}
