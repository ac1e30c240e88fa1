"""The text a target exposes, decoded into samples, or into one sentence why not."""

import math

from prometheus_client.parser import text_string_to_metric_families

from controller.errors import SourceUnavailable
from controller.sources.sample_memory import Identity


def samples(body: bytes) -> list[tuple[Identity, float]]:
    """Raises SourceUnavailable when any line is garbled: half an exposition is none.

    Samples with a timestamp of their own are left out: their age is not that of the scrape.
    """
    found: dict[Identity, float] = {}
    try:
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                if sample.timestamp is not None:
                    continue
                identity = (sample.name, tuple(sorted(sample.labels.items())))
                value = float(sample.value)
                known = found.setdefault(identity, value)
                if known != value and not (math.isnan(known) and math.isnan(value)):
                    raise SourceUnavailable(f"exposes {sample.name} twice with the same labels")
    except (ValueError, KeyError, IndexError) as error:
        raise SourceUnavailable(f"does not expose metrics in Prometheus' text format ({error})") from error
    return list(found.items())
