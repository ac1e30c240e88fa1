"""The text a target exposes, decoded into samples, or into one sentence why not."""

import math

from prometheus_client.parser import text_string_to_metric_families

from controller.errors import SourceUnavailable
from controller.sources.sample_memory import Identity

SHOWN_CHARACTERS = 200


def samples(body: bytes) -> list[tuple[Identity, float]]:
    """Raises SourceUnavailable when any line is garbled: half an exposition is none.

    Samples with a timestamp of their own are left out: their age is not that of the scrape.
    """
    found: dict[Identity, float] = {}
    for identity, value in _parsed(body):
        known = found.setdefault(identity, value)
        if known != value and not (math.isnan(known) and math.isnan(value)):
            raise SourceUnavailable(f"exposes {identity[0]} twice with the same labels")
    return list(found.items())


def _parsed(body: bytes) -> list[tuple[Identity, float]]:
    try:
        return [
            ((sample.name, tuple(sorted(sample.labels.items()))), float(sample.value))
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
            if sample.timestamp is None
        ]
    except Exception as error:
        # A foreign parser on foreign bytes: whatever it raises is the target's fault.
        reason = str(error)[:SHOWN_CHARACTERS]
        raise SourceUnavailable(f"does not expose metrics in Prometheus' text format ({reason})") from error
