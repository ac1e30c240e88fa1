"""The answers of Prometheus' HTTP query API, decoded into samples, or into one sentence why not."""

import math
import statistics
from itertools import pairwise

import msgspec
from msgspec import Struct

from controller.errors import SourceUnavailable
from controller.sources.coalescing import Sample

# A cache in between that answers for another moment would make old data look fresh.
SAME_MOMENT_SECONDS = 1.0

Point = tuple[float, str]


class Data(Struct, frozen=True, rename="camel"):
    result_type: str
    result: msgspec.Raw


class Envelope(Struct, frozen=True, rename="camel"):
    status: str
    data: Data | None = None
    error_type: str = ""
    error: str = ""
    warnings: list[str] = []
    infos: list[str] = []


class Series(Struct, frozen=True, gc=False):
    """`value` is absent for a native histogram."""

    metric: dict[str, str]
    value: Point | None = None


class Range(Struct, frozen=True, gc=False):
    """`values` is empty for native histograms."""

    values: list[Point] = []


# What the decoder raises for bytes that are no JSON, no text, or nested too deeply.
GARBLED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
ENVELOPE = msgspec.json.Decoder(Envelope)
VECTOR = msgspec.json.Decoder(list[Series])
MATRIX = msgspec.json.Decoder(list[Range])
SCALAR = msgspec.json.Decoder(Point)


def samples(body: bytes, evaluated_at: float) -> list[Sample]:
    """The samples of an instant query asked for `evaluated_at` (Unix seconds). Raises SourceUnavailable.

    An answer with warnings or notes is refused: it may be truncated or partial, and then proves nothing.
    """
    try:
        envelope = ENVELOPE.decode(body)
        if envelope.status != "success":
            raise SourceUnavailable(f"the query failed: {_api_error(envelope)}")
        remarks = [*envelope.warnings, *envelope.infos]
        if remarks:
            raise SourceUnavailable(f"the answer may be incomplete, the source warns: {'; '.join(remarks)}")
        if envelope.data is None:
            raise SourceUnavailable("the answer has no data")
        return _decoded(envelope.data, evaluated_at)
    except msgspec.ValidationError as error:
        raise SourceUnavailable(f"the answer is not what the query API promises: {error}") from error
    except GARBLED as error:
        raise SourceUnavailable(f"the answer is not complete JSON ({_kind(body)}, {len(body)} bytes)") from error


def interval(body: bytes) -> float | None:
    """Seconds that usually lie between two samples of a range selector's one series; None for fewer than two.

    Raises SourceUnavailable.
    """
    try:
        envelope = ENVELOPE.decode(body)
        if envelope.data is None:
            raise SourceUnavailable(f"the query failed: {_api_error(envelope)}")
        found = MATRIX.decode(envelope.data.result)
    except GARBLED as error:
        raise SourceUnavailable(f"the answer is not what the query API promises: {error}") from error
    times = [at for at, _ in found[0].values] if found else []
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return statistics.median(gaps) if gaps else None


def refusal(status: int, content_type: str, body: bytes | bytearray) -> str:
    """Why an answer with an HTTP status other than 200 is none."""
    try:
        envelope = ENVELOPE.decode(body)
    except GARBLED:
        return (
            f"answered HTTP {status} with {content_type}, not with JSON; is a proxy or log-in page in front of it?"
        )
    return f"answered HTTP {status}: {_api_error(envelope)}"


def _decoded(data: Data, evaluated_at: float) -> list[Sample]:
    if data.result_type == "vector":
        return [_sample(series, evaluated_at) for series in VECTOR.decode(data.result)]
    if data.result_type == "scalar":
        return [({}, _number(SCALAR.decode(data.result), evaluated_at))]
    raise SourceUnavailable(f"the query gives a {data.result_type}; one number is needed")


def _sample(series: Series, evaluated_at: float) -> Sample:
    if series.value is None:
        raise SourceUnavailable("the query gives native histograms; one number is needed")
    return series.metric, _number(series.value, evaluated_at)


def _number(point: Point, evaluated_at: float) -> float:
    at, text = point
    if not math.fabs(at - evaluated_at) <= SAME_MOMENT_SECONDS:
        raise SourceUnavailable(
            f"the answer is for another moment ({at - evaluated_at:+.0f} s); is a cache in front of it?"
        )
    try:
        return float(text)
    except ValueError as error:
        raise SourceUnavailable(f"the answer holds {text!r} where a number was expected") from error


def _api_error(envelope: Envelope) -> str:
    return f"{envelope.error_type or envelope.status}: {envelope.error or 'no reason given'}"


def _kind(body: bytes) -> str:
    return "HTML: is a proxy or log-in page in front of it?" if body.lstrip()[:1] == b"<" else "cut off or garbled"
