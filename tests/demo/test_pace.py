"""Scaling manifests by one factor: durations and nothing else."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.demo import script
from controller.demo.pace import FAST, RELAXED, Pace, scale_durations, shipped_policy
from controller.domain.policy import GuardrailPolicy
from controller.domain.quantities import DURATION_PATTERN, seconds
from controller.manifests.lint import lint
from controller.manifests.loader import load

TIME_KEYS = {"every", "window", "staleAfter", "before", "for", "after", "bake", "timeout"}
PACES = pytest.mark.parametrize("pace", [FAST, RELAXED])


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, str(index)))
    else:
        yield path, value


def document(text: str) -> dict[tuple[str, ...], Any]:
    import yaml

    return dict(leaves(yaml.safe_load(text)))


@PACES
def test_only_the_durations_of_the_shipped_policy_change(pace: Pace) -> None:
    before = document(shipped_policy())
    after = document(scale_durations(shipped_policy(), pace.factor))
    assert before.keys() == after.keys()
    changed = {path for path in before if before[path] != after[path]}
    assert changed == {path for path in before if path[-1] in TIME_KEYS}
    for path in changed:
        assert seconds(after[path]) == pytest.approx(seconds(before[path]) * pace.factor)


@given(
    parts=st.lists(
        st.tuples(st.integers(0, 10_000), st.sampled_from(["ms", "s", "m", "h", "d"])), min_size=1, max_size=3
    ),
    factor=st.floats(1e-4, 10),
)
def test_a_scaled_duration_is_a_duration_of_that_length(parts: list[tuple[int, str]], factor: float) -> None:
    written = "".join(f"{number}{unit}" for number, unit in parts)
    scaled = scale_durations(f"{{ for: {written}, then: kill }}", factor)
    found = re.fullmatch(r"\{ for: (\S+), then: kill \}", scaled)
    assert found
    assert re.match(DURATION_PATTERN, found[1])
    assert seconds(found[1]) == pytest.approx(seconds(written) * factor, rel=1e-12, abs=1e-6)


def test_limits_selectors_and_comments_keep_their_text() -> None:
    lines = [
        "floor: 20ms",
        "if: latency_p95 > 500ms and age > 2s",
        'query: rate(a{for="5m"}[5m])',
        "# for: 5m, then: kill",
        "waitfor: 5m",
    ]
    text = "\n".join(lines)
    assert scale_durations(text, 0.01) == text


@PACES
def test_what_the_demo_applies_has_no_finding(pace: Pace) -> None:
    files = [(name, text.encode()) for name, text in script.manifests(pace).items()]
    assert [problem for problem in lint(files) if problem.severity == "error"] == []


@PACES
def test_the_smallest_stage_sees_its_sample_in_every_window_with_room_to_spare(pace: Pace) -> None:
    (policy,) = [one.value for one in load(scale_durations(shipped_policy(), pace.factor), "policy").documents]
    assert isinstance(policy, GuardrailPolicy)
    requests_per_second = script.SHOPS * pace.visits_per_second * script.REQUESTS_PER_VISIT
    assert 0.01 * requests_per_second * policy.spec.window_seconds > 1.5 * policy.spec.min_sample.requests
    assert policy.spec.stale_after_seconds > 2 * pace.scrape_seconds
