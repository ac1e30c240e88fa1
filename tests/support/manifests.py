# ruff: noqa: E501 - the YAML reads as people write it
"""Manifests for tests against a real server: as people write them, with short durations."""

from collections.abc import Mapping

POLICY = """\
apiVersion: rampart/v1
kind: GuardrailPolicy
metadata: {{ name: quick }}
spec:
  params: {{ service: {{ required: true }} }}
  source: {source}
  every: {every}
  window: {window}
  staleAfter: {stale_after}
  baseline: {{ from: control, fallback: before, before: {before} }}
  metrics:
    error_rate:
      bad:   http_requests_total{{service="$service",flag="$flag",variation="$variation",cohort="share",code=~"5.."}}
      total: http_requests_total{{service="$service",flag="$flag",variation="$variation",cohort="share"}}
    latency_p95:
      quantile: 0.95
      unit: seconds
      histogram: http_request_duration_seconds_bucket{{service="$service",flag="$flag",variation="$variation",cohort="share"}}
  rules:
    - {{ id: errors-high, if: error_rate > 1%, for: {pause_for}, then: pause }}
    - {{ id: errors-jump, if: error_rate > 20%, for: {kill_for}, then: kill }}
    - {{ id: p95-3x, if: latency_p95 > 3x baseline, floor: 20ms, for: {kill_for}, then: kill }}
  minSample: {{ requests: 20 }}
  noData: {{ after: 10m, then: pause }}
  queryError: {{ after: 5m, then: hold }}
"""

PLAN = """\
apiVersion: rampart/v1
kind: RolloutPlan
metadata: {{ name: {flag} }}
spec:
  flag: {{ provider: main, environment: production, key: {flag} }}
  serve: {{ rollout: "on", fallback: "off" }}
  audience:
    always: [{{ name: staff, match: {{ email: {{ endsWith: "@acme.example" }} }} }}]
  stages:
{stages}
  guardrails:
    - {{ policy: {policy}, with: {{ service: shop }} }}
"""

STAGES = {"canary": "1%", "early": "10%", "half": "50%", "everyone": "100%"}

FLAG = """\
apiVersion: rampart/v1
kind: Flag
metadata: {{ name: {flag} }}
spec: {{ environment: production, key: {flag}, clientSide: {client_side} }}
"""


def policy(source: str = "app", **changes: str) -> str:
    values = {
        "every": "200ms", "window": "1s", "stale_after": "1s", "before": "2s", "pause_for": "1s", "kill_for": "600ms",
    }  # fmt: skip
    return POLICY.format(source=source, **{**values, **changes})


def plan(flag: str, bake: str = "1s", *, stages: Mapping[str, str] = STAGES, policy: str = "quick") -> str:
    """`stages` are exposures by name."""
    lines = [f"    - {{ name: {name}, exposure: {exposure}, bake: {bake} }}" for name, exposure in stages.items()]
    return PLAN.format(flag=flag, stages="\n".join(lines), policy=policy)


def flag(key: str, *, client_side: bool = False) -> str:
    return FLAG.format(flag=key, client_side=str(client_side).lower())


def scrape_settings(*urls: str, every: float = 0.1, database_seconds: float = 2.0) -> str:
    targets = ", ".join(f'"{url}"' for url in urls)
    return (
        f'[sources.app]\nkind = "scrape"\ntargets = [{targets}]\nevery_seconds = {every}\ntimeout_seconds = 1.0\n'
        f"[engine]\npoll_seconds = 0.1\nlease_seconds = 2.0\n[database]\ntimeout_seconds = {database_seconds}\n"
    )
