"""What the rollouts of the chaos cluster look like, and what their audit rows must therefore never show."""

from tests.support import manifests

EVERY_SECONDS = 3.0
WINDOW_SECONDS = 6.0
BAKE_SECONDS = 6.0
EXPOSURES = (1_000, 20_000, 50_000, 100_000)

POLICY = f"""\
apiVersion: rampart/v1
kind: GuardrailPolicy
metadata: {{ name: quick }}
spec:
  params: {{ service: {{ required: true }} }}
  source: app
  every: {EVERY_SECONDS:g}s
  window: {WINDOW_SECONDS:g}s
  staleAfter: 6s
  baseline: {{ from: control, fallback: before, before: 9s }}
  metrics:
    error_rate:
      bad:   http_requests_total{{service="$service",flag="$flag",variation="$variation",code=~"5.."}}
      total: http_requests_total{{service="$service",flag="$flag",variation="$variation"}}
  rules:
    - {{ id: errors-jump, if: error_rate > 20%, for: 3s, then: kill }}
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
    - {{ policy: quick, with: {{ service: shop }} }}
"""


def plan(flag: str) -> str:
    stages = "\n".join(
        f"    - {{ name: stage-{number}, exposure: {share / 1000:g}%, bake: {BAKE_SECONDS:g}s }}"
        for number, share in enumerate(EXPOSURES, start=1)
    )
    return PLAN.format(flag=flag, stages=stages)


def files(flags: list[str]) -> list[dict[str, str]]:
    """The body of an apply: the policy, and flag and plan of each."""
    listed = [("quick.policy.yaml", POLICY)]
    for flag in flags:
        listed += [(f"{flag}.flag.yaml", manifests.flag(flag)), (f"{flag}.rollout.yaml", plan(flag))]
    return [{"name": name, "text": text} for name, text in listed]
