"""What the rollouts of the chaos cluster look like, and what their audit rows must therefore never show."""

from msgspec import Struct

from tests.support import manifests

EXPOSURES = (1_000, 20_000, 50_000, 100_000)


class Pace(Struct, frozen=True, kw_only=True):
    """How often a rollout is looked at and how long its stages bake, in seconds."""

    policy: str
    every: float
    window: float
    bake: float


QUICK = Pace(policy="quick", every=3.0, window=6.0, bake=6.0)
STEADY = Pace(policy="steady", every=15.0, window=30.0, bake=20.0)
QUICK_ONE_IN = 5
"""Most are steady, so that two hundred of them leave a small machine time for its faults."""

POLICY = """\
apiVersion: rampart/v1
kind: GuardrailPolicy
metadata: {{ name: {policy} }}
spec:
  params: {{ service: {{ required: true }} }}
  source: app
  every: {every:g}s
  window: {window:g}s
  staleAfter: {stale_after:g}s
  baseline: {{ from: control, fallback: before, before: {before:g}s }}
  metrics:
    error_rate:
      bad:   http_requests_total{{service="$service",flag="$flag",variation="$variation",code=~"5.."}}
      total: http_requests_total{{service="$service",flag="$flag",variation="$variation"}}
  rules:
    - {{ id: errors-jump, if: error_rate > 20%, for: {every:g}s, then: kill }}
  minSample: {{ requests: 20 }}
  noData: {{ after: 10m, then: pause }}
  queryError: {{ after: 5m, then: hold }}
"""


def pace(flag: str) -> Pace:
    """By the number in its name."""
    return STEADY if int(flag.rpartition("-")[2]) % QUICK_ONE_IN else QUICK


def policy(one: Pace) -> str:
    return POLICY.format(
        policy=one.policy,
        every=one.every,
        window=one.window,
        stale_after=2 * one.every,
        before=one.window + one.every,
    )


def plan(flag: str) -> str:
    own = pace(flag)
    stages = {f"stage-{number}": f"{share / 1000:g}%" for number, share in enumerate(EXPOSURES, start=1)}
    return manifests.plan(flag, f"{own.bake:g}s", stages=stages, policy=own.policy)


def files(flags: list[str]) -> list[dict[str, str]]:
    """The body of an apply: the policies, and flag and plan of each."""
    listed = [(f"{one.policy}.policy.yaml", policy(one)) for one in (QUICK, STEADY)]
    for flag in flags:
        listed += [(f"{flag}.flag.yaml", manifests.flag(flag)), (f"{flag}.rollout.yaml", plan(flag))]
    return [{"name": name, "text": text} for name, text in listed]
