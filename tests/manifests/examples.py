"""The examples of the rulebook as whole documents: what an example leaves out is sound and typical."""

import re

from controller.manifests.rulebook import Rule

_LABELS = 'flag="$flag",variation="$variation",environment="$environment",cohort="share"'
KINDS = {"policy": "GuardrailPolicy", "flag": "Flag", "test": "RolloutTest"}
TOP = ("apiVersion", "kind", "metadata")
TEMPLATES: dict[str, dict[str, str]] = {
    "RolloutPlan": {
        "apiVersion": "apiVersion: rampart/v1\n",
        "kind": "kind: RolloutPlan\n",
        "metadata": "metadata:\n  name: checkout-v2\n  owner: team-checkout\n"
        '  links: { runbook: "https://runbooks.example/checkout-v2" }\n',
        "flag": "flag: { provider: main, environment: production, key: checkout-v2 }\n",
        "serve": 'serve: { rollout: "on", fallback: "off" }\n',
        "stages": "stages:\n  - { name: canary, exposure: 1%, bake: 30m }\n"
        "  - { name: early, exposure: 10%, bake: 2h }\n  - { name: everyone, exposure: 100%, bake: 1d }\n",
        "guardrails": "guardrails:\n  - { policy: web-service, with: { service: checkout } }\n",
        "notify": "notify: [{ to: checkout-oncall, events: [killed, paused, approval] }]\n",
    },
    "GuardrailPolicy": {
        "apiVersion": "apiVersion: rampart/v1\n",
        "kind": "kind: GuardrailPolicy\n",
        "metadata": "metadata: { name: shop, owner: team-sre }\n",
        "source": "source: prod-prometheus\n",
        "every": "every: 15s\n",
        "window": "window: 5m\n",
        "baseline": "baseline: { from: control, fallback: before, before: 2h }\n",
        "metrics": "metrics:\n  error_rate:\n"
        f'    bad: http_requests_total{{{_LABELS},code=~"5.."}}\n    total: http_requests_total{{{_LABELS}}}\n'
        "  latency_p95:\n    quantile: 0.95\n    unit: seconds\n"
        f"    histogram: http_request_duration_seconds_bucket{{{_LABELS}}}\n",
        "rules": "rules:\n  - { id: errors-high, if: error_rate > 1%, for: 5m, then: pause }\n"
        "  - { id: errors-jump, if: error_rate > 10%, for: 2m, then: kill }\n"
        "  - { id: p95-3x, if: latency_p95 > 3x baseline, floor: 20ms, for: 2m, then: kill }\n",
        "minSample": "minSample: { requests: 200 }\n",
    },
    "Flag": {
        "apiVersion": "apiVersion: rampart/v1\n",
        "kind": "kind: Flag\n",
        "metadata": "metadata: { name: checkout-v2, owner: team-checkout }\n",
        "environment": "environment: production\n",
        "key": "key: checkout-v2\n",
    },
    "RolloutTest": {
        "apiVersion": "apiVersion: rampart/v1\n",
        "kind": "kind: RolloutTest\n",
        "metadata": "metadata: { name: web-service, owner: team-sre }\n",
    },
}


def file_of(rule: Rule, example: str) -> tuple[str, bytes]:
    """(file name, content) of `bad` or `good`."""
    named = re.match(r"# (\S+\.yaml)\n", example)
    documents = [_document(rule, part) for part in example.split("---\n")]
    if named:
        return named[1], "---\n".join(documents).encode()
    kind, name = _field(documents[0], "kind"), _field(documents[0], "name")
    suffix = {"GuardrailPolicy": "policy", "Flag": "flag", "RolloutTest": "test"}.get(kind, "rollout")
    return f"{name}.{suffix}.yaml", "---\n".join(documents).encode()


def _field(document: str, key: str) -> str:
    found = re.search(rf"\b{key}: ([\w-]+)", document)
    return found[1] if found else ""


def _document(rule: Rule, example: str) -> str:
    """The keys of the example in place of the template's, at their level; a metric in no rule is left out."""
    written = {_key(block): block for block in re.findall(r"^[^\s#].*\n(?:[ ].*\n|\n)*", example, re.MULTILINE)}
    stated = re.match(r"kind: (\w+)", written.get("kind", ""))
    kind = stated[1] if stated and stated[1] in TEMPLATES else KINDS.get(rule.topic, "RolloutPlan")
    if (not stated and "rules" in written) or "metrics" in written or "every" in written:
        kind = "GuardrailPolicy"
    sections = TEMPLATES[kind] | written
    if "rules" in written and "metrics" not in written and rule.code != "R110":
        sections |= {"metrics": _named_metrics(sections["metrics"], written["rules"])}
    if "null" in sections.get("baseline", ""):
        del sections["baseline"]
    head = "".join(sections[key] for key in TOP)
    body = "".join(block for key, block in sections.items() if key not in TOP)
    return head + "spec:\n" + re.sub(r"^(?=.)", "  ", body, flags=re.MULTILINE)


def _key(block: str) -> str:
    return block.partition(":")[0]


def _named_metrics(metrics: str, rules: str) -> str:
    named = re.findall(r"^  (\w+):\n(?:    .*\n)+", metrics, re.MULTILINE)
    blocks = {name: re.search(rf"^  {name}:\n(?:    .*\n)+", metrics, re.MULTILINE) for name in named}
    kept = [found.group() for name, found in blocks.items() if found and name in rules]
    return "metrics:\n" + "".join(kept) if kept else metrics
