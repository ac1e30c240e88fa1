"""Documents of tests, as written."""

from typing import Any

import msgspec
import pytest

from controller.domain.levels import Kind
from controller.domain.policy import Metric
from controller.domain.rehearsal import STAND_IN_STAGES, bucket_bound, kind_of


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        ({"bad": "a", "total": "b"}, "ratio"),
        ({"histogram": "a_bucket", "quantile": 0.9, "unit": "seconds"}, "seconds"),
        ({"histogram": "a_bucket", "quantile": 0.9, "unit": "bytes"}, "number"),
        ({"query": "max(a)", "unit": "jobs"}, "number"),
        ({"query": "avg(a)", "unit": "ratio"}, "ratio"),
        ({"query": "max(a)", "unit": "seconds"}, "seconds"),
    ],
)
def test_the_levels_of_a_metric_have_its_unit(metric: dict[str, Any], kind: Kind) -> None:
    assert kind_of(msgspec.convert(metric, Metric)) == kind


@pytest.mark.parametrize(("text", "bound"), [("250ms", 0.25), ("2s", 2.0), ("0.1", 0.1), ("10", 10.0)])
def test_a_bucket_is_a_number_or_a_duration(text: str, bound: float) -> None:
    assert bucket_bound(text) == bound


def test_the_stand_in_stays_where_there_is_a_control_and_the_next_stage_is_not_all() -> None:
    assert [stage.share for stage in STAND_IN_STAGES] == [10_000, 50_000, 100_000]
