"""What the demo plays: two flags of one service, two plans under the shipped policy, and a well-timed fault."""

from collections.abc import Sequence
from pathlib import Path

from controller.demo.pace import POLICY, Pace, scale_durations, shipped_policy

ENVIRONMENT = "production"
SERVICE = "shop"
SHOPS = 3
REQUESTS_PER_VISIT = 5
# The shipped policy names its source; here a source of that name scrapes the shops.
SOURCE = "prod-prometheus"
GOOD, BAD = "search-v2", "checkout-v2"
FLAGS = (GOOD, BAD)
# The release turns bad when its second stage is confirmed, as releases do that only fail under load.
FAULT_STAGE = 1
FAULT = {"latency_factor": 3.6, "extra_error_rate": 0.05}
FAULT_TEXT = "p95 goes to 3.6 times its baseline, and 5 % of the requests fail"

FLAG_MANIFEST = """\
apiVersion: rampart/v1
kind: Flag
metadata: {{ name: {name} }}
spec:
  environment: {environment}
  key: {name}
  variations: {{ "on": true, "off": false }}
  off: "off"
"""
PLAN_MANIFEST = """\
apiVersion: rampart/v1
kind: RolloutPlan
metadata: {{ name: {name}, owner: team-shop }}
spec:
  flag: {{ provider: main, environment: {environment}, key: {name} }}
  serve: {{ rollout: "on", fallback: "off" }}
  audience:
    always:
      - {{ name: staff, match: {{ email: {{ endsWith: "@acme.example" }} }} }}
  stages:
    - {{ name: canary,   exposure: 1%,   bake: 10m }}
    - {{ name: early,    exposure: 10%,  bake: 10m }}
    - {{ name: half,     exposure: 50%,  bake: 10m }}
    - {{ name: everyone, exposure: 100%, bake: 10m }}
  guardrails:
    - {{ policy: web-service, with: {{ service: {service} }} }}
"""


def manifests(pace: Pace) -> dict[str, str]:
    """File name → content of everything the demo applies, at its pace."""
    files = {POLICY: shipped_policy()}
    for name in FLAGS:
        files[f"{name}.flag.yaml"] = FLAG_MANIFEST.format(name=name, environment=ENVIRONMENT)
        files[f"{name}.rollout.yaml"] = PLAN_MANIFEST.format(name=name, environment=ENVIRONMENT, service=SERVICE)
    return {name: scale_durations(text, pace.factor) for name, text in files.items()}


def settings_text(data: Path, port: int, targets: Sequence[str], pace: Pace) -> str:
    """A rampart.toml: embedded PostgreSQL, the built-in provider, and a source that scrapes `targets`."""
    listed = ", ".join(f'"{target}"' for target in targets)
    return f"""\
data_dir = "{data}"

[server]
bind = "127.0.0.1:{port}"

[engine]
poll_seconds = {pace.poll_seconds}

[sources.{SOURCE}]
kind = "scrape"
targets = [{listed}]
every_seconds = {pace.scrape_seconds}
timeout_seconds = 2
retention_seconds = 900
"""
