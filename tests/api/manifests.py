"""Manifests as people write them, small enough to read in a test."""

from controller.settings import PrometheusSourceSettings, Settings

POLICY = """
apiVersion: rampart/v1
kind: GuardrailPolicy
metadata: { name: web }
spec:
  source: prom
  metrics:
    error_rate:
      bad: requests_total{flag="$flag",variation="$variation",cohort="share",code=~"5.."}
      total: requests_total{flag="$flag",variation="$variation",cohort="share"}
  rules:
    - { id: errors-high, if: error_rate > 1%, for: 5m, then: pause }
    - { id: errors-jump, if: error_rate > 10%, for: 2m, then: kill }
"""
PLAN = """
apiVersion: rampart/v1
kind: RolloutPlan
metadata: { name: checkout }
spec:
  flag: { provider: main, environment: production, key: checkout }
  serve: { rollout: "on", fallback: "off" }
  stages:
    - { name: canary, exposure: 1%, bake: 30m }
    - { name: everyone, exposure: 100%, bake: 24h }
  guardrails:
    - { policy: web }
"""
FLAG = """
apiVersion: rampart/v1
kind: Flag
metadata: { name: checkout }
spec:
  environment: production
  key: checkout
"""
SETTINGS = Settings(sources={"prom": PrometheusSourceSettings(url="http://127.0.0.1:9090")})


def files(*texts: str) -> list[tuple[str, bytes]]:
    return [(f"file-{number}.yaml", text.encode()) for number, text in enumerate(texts)]
