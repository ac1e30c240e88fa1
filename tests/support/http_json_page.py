"""What docs/http-json.md shows, by the name of the source: settings, policies, and what a plan asks by them."""

import re

from controller.domain.binding import Guardrail, bind
from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.manifests.loader import load
from tests.support.repository import ROOT, blocks

PAGE = ROOT / "docs" / "http-json.md"
SETTINGS = {
    re.search(r"\[sources\.(\w+)\]", block)[1]: block  # type: ignore[index]
    for block in blocks(PAGE, "toml")
}
PLAN = """\
apiVersion: rampart/v1
kind: RolloutPlan
metadata: { name: checkout-v2, owner: team-checkout, links: { runbook: "https://runbooks.example/c" } }
spec:
  flag: { provider: main, environment: production, key: checkout-v2 }
  serve: { rollout: "on", fallback: "off" }
  stages:
    - { name: canary, exposure: 10%, bake: 30m }
    - { name: half, exposure: 50%, bake: 30m }
    - { name: everyone, exposure: 100%, bake: 1h }
  guardrails: [{ policy: POLICY }]
  notify: [{ to: checkout-oncall, events: [killed, paused] }]
"""


def policies() -> dict[str, tuple[GuardrailPolicy, str]]:
    """By the name of their source, with their text."""
    found = {}
    for block in blocks(PAGE, "yaml"):
        for manifest in load(block.encode(), "page.policy.yaml").documents:
            assert isinstance(manifest.value, GuardrailPolicy)
            found[manifest.value.spec.source] = (manifest.value, block)
    return found


POLICIES = policies()


def plan_text(source: str) -> str:
    use = POLICIES[source][0].metadata.name
    with_ = ", with: { service: checkout }" if POLICIES[source][0].spec.params else ""
    return PLAN.replace("POLICY", use + with_)


def guardrail(source: str) -> Guardrail:
    (manifest,) = load(plan_text(source).encode(), "checkout-v2.rollout.yaml").documents
    assert isinstance(manifest.value, RolloutPlan)
    return bind(manifest.value.spec.guardrails[0], POLICIES[source][0], manifest.value)
