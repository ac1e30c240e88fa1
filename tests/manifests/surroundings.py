"""What a server of the tests knows: one source of each kind, one provider, a channel, groups and policies."""

from pathlib import Path

from controller.domain.policy import GuardrailPolicy
from controller.manifests.lint import Surroundings
from controller.manifests.loader import load

SHIPPED = Path(__file__).parents[2] / "policies"

NO_COHORT = """
apiVersion: rampart/v1
kind: GuardrailPolicy
metadata: { name: no-cohort }
spec:
  source: prod-prometheus
  params: { service: { required: true } }
  baseline: { from: control }
  metrics:
    error_rate:
      bad: requests_total{service="$service",variation="$variation",code=~"5.."}
      total: requests_total{service="$service",variation="$variation"}
  rules:
    - { id: errors-2x, if: error_rate > 2x baseline, floor: 1%, for: 2m, then: kill }
"""
OBSERVING = NO_COHORT.replace("no-cohort", "observing").replace("then: kill", "then: kill, mode: observe")


def policies(*texts: bytes | str) -> dict[str, GuardrailPolicy]:
    values = [manifest.value for text in texts for manifest in load(text, "policy").documents]
    return {value.metadata.name: value for value in values if isinstance(value, GuardrailPolicy)}


SURROUNDINGS = Surroundings(
    sources={"prod-prometheus": "prometheus", "local": "scrape", "track": "events", "datadog": "http_json"},
    providers={"main": "builtin"},
    channels=frozenset({"checkout-oncall", "payments-oncall", "media-oncall"}),
    groups={"release-managers": ["dana", "kim"], "payments-leads": ["ada"], "nobody": []},
    policies=policies(*[path.read_bytes() for path in SHIPPED.glob("*.policy.yaml")], NO_COHORT, OBSERVING),
)
