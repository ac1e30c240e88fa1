"""JSON Schemas of the manifest kinds, made from the types; editors complete and check with them."""

from typing import Any

import msgspec

from controller.manifests.loader import KINDS

DIALECT = "https://json-schema.org/draft/2020-12/schema"

TITLES = {
    "RolloutPlan": "Rampart rollout plan: how far, how fast and for whom a flag is raised",
    "GuardrailPolicy": "Rampart guardrail policy: what is measured, and what happens when it looks bad",
    "Flag": "Rampart flag of the built-in provider",
    "RolloutTest": "Rampart test: what a policy or a plan must do when its metrics do this",
}

DESCRIPTIONS: dict[str, dict[str, str]] = {
    "RolloutPlan": {"spec": "What is raised, in which steps, and under which guardrails."},
    "GuardrailPolicy": {"spec": "Where measurements come from, the metrics, and the rules about them."},
    "Flag": {"spec": "The flag's environment, key and variations."},
    "RolloutTest": {"spec": "What is tested, and the tests."},
    "Metadata": {
        "name": "The handle people use, as in `rampart start NAME`. Lower-case letters, digits, '-', '_' and '.'.",
        "owner": "The team that answers for it.",
        "labels": "Free text by key, for filters.",
        "links": "Addresses by key, shown where people decide: runbook, issue, change.",
    },
    "PlanSpec": {
        "flag": "The flag that is raised.",
        "serve": "The two variations of the rollout.",
        "stages": "Steps in rising order; the last one is 100%.",
        "guardrails": "The policies that must pass before exposure rises.",
        "audience": "Who is bucketed, and who is always in.",
        "schedule": "When exposure may rise. Lowering is never held back.",
        "notify": "Who is told of what.",
        "alerts": "What alerts of an Alertmanager may do to the rollout.",
        "mode": "observe: decide, record and notify, but never write to the provider.",
    },
    "AlertLimits": {
        "maxAction": "pause: never more than a pause. kill: also a kill, where the alert asks for it."
    },
    "FlagRef": {
        "provider": "A provider of the settings.",
        "environment": "The environment's name at the provider.",
        "key": "The flag's key at the provider.",
    },
    "Serve": {
        "rollout": "The variation whose share rises.",
        "fallback": "The variation everybody else gets, and everybody after a kill.",
        "kill": "off: a kill turns the flag off. fallthrough: it stays on, and rules that are not ours survive.",
    },
    "Stage": {
        "name": "What people call this step.",
        "exposure": "The share of contexts that get the rollout, as in 0.1%, 1%, 50%.",
        "bake": "How long all rules must pass here before the next stage, as in 30m or 12h.",
        "minTotal": "How much traffic must have been judged since the stage was confirmed.",
        "approval": "Who must agree before this stage is entered.",
    },
    "Sample": {"requests": "Number of requests."},
    "Approval": {
        "from": "Groups of the settings, any one member of which may approve; never the plan's author.",
        "timeout": "Paused when nobody has answered for so long within the allowed hours.",
    },
    "GuardrailUse": {"policy": "Name of a GuardrailPolicy.", "with": "Values of the policy's parameters."},
    "Audience": {
        "bucketBy": "The context kind or attribute whose hash decides who is in the share.",
        "always": "Rules for contexts that are in from the first stage, outside the share.",
    },
    "AudienceRule": {"name": "What people call these contexts.", "match": "Attributes that must all fit."},
    "AttributeMatch": {
        "endsWith": "The attribute ends with this text.",
        "startsWith": "The attribute starts with this text.",
        "contains": "The attribute contains this text.",
        "in": "The attribute is one of these texts.",
    },
    "Schedule": {
        "timezone": "IANA name of the zone of all times here, as in Europe/Berlin.",
        "advanceOnly": "Weekly hours in which exposure may rise; always when empty.",
        "freezes": "Dated spans in which exposure may not rise.",
    },
    "AllowedWindow": {
        "days": "Days, as in mon-thu or sat,sun.",
        "from": 'First minute, in quotes: "09:00".',
        "to": 'End, in quotes: "16:00"; before `from` it means the next day.',
    },
    "Freeze": {
        "name": "What people call this freeze.",
        "from": "Local date or time, as in 2026-11-26T00:00.",
        "to": "Local date or time at which it ends.",
    },
    "Notify": {"to": "A channel of the settings.", "events": "What it is told of."},
    "PolicySpec": {
        "source": "A source of the settings.",
        "language": "What bad, total, histogram and query are written in: vendor for a source of kind http_json.",
        "metrics": "What is measured, by name.",
        "rules": "What is harm, and what happens then.",
        "params": "Placeholders that a plan fills in with `with`.",
        "every": "How often it is measured and judged.",
        "window": "The span every measurement looks back over.",
        "staleAfter": "How old the newest sample may be before it is no evidence; two polls unless written.",
        "baseline": "What `2x baseline` and `baseline(metric)` compare with.",
        "minSample": "Requests per window, on each side a rule uses, below which nothing is judged.",
        "noData": "What happens when series are missing, stale or not a number.",
        "queryError": "What happens when the source does not answer.",
    },
    "Param": {"required": "Whether every plan must give a value.", "default": "The value when a plan gives none."},
    "Baseline": {
        "from": "control: the fallback variation now. before: the time before the run's first exposure.",
        "fallback": "What is used while the control has too little data.",
        "before": "How long a span before the first exposure, and before 100%, is measured.",
    },
    "Metric": {
        "bad": "Selector of the counter of failures.",
        "total": "Selector of the counter of all requests.",
        "histogram": "Selector of a classic histogram's _bucket series.",
        "quantile": "Which quantile of the histogram, between 0 and 1.",
        "query": "A raw query that gives one number; not for sources that scrape targets themselves.",
        "unit": "What the number counts: seconds, ratio, or any word to show.",
    },
    "Rule": {
        "id": "What people call this rule.",
        "if": "When it is harm, as in `error_rate > 1%` or `latency_p95 > 2x baseline`.",
        "then": "What happens: pause, step_back or kill.",
        "for": "How long the condition must have held.",
        "floor": "The least a limit relative to the baseline can be, as in 20ms.",
        "mode": "observe: judged, shown and exported, but never acting.",
        "evenIfControlFails": "Kill also when the control breaks the same condition.",
    },
    "RehearsalSpec": {
        "tests": "Rollouts that are rehearsed, each on its own.",
        "policy": "The policy that is tested, under a stand-in plan that stays at 10%.",
        "plan": "The plan that is tested, with all its policies.",
        "with": "Values of the policy's parameters; `example` for one that is required and not given.",
    },
    "Case": {
        "name": "What must be so, as a sentence.",
        "expect": "What happens when, as in `kill at 12m by errors-jump`. Times count from the start of the run.",
        "rollout": "Levels of the rollout's metrics, as in `error_rate: 0.2% for 20m then 12%`.",
        "control": "Levels of the control's metrics; the rollout's first level unless written.",
        "before": "Levels of the control before the start; its first level unless written.",
        "traffic": "All requests, shared out by exposure, as in 1000/s.",
        "noise": "Draw requests, errors and latencies by lot.",
        "series": "Series as targets expose them, in place of the levels of the metrics that read them.",
        "interval": "Time between two scrapes, and the length of a step; the policy's `every` unless written.",
        "buckets": "Upper bounds of the histograms, by metric, as the service really has them.",
        "events": "What people and dependencies do, as in `approve half at 3h by kim`.",
        "startsAt": "Local date and time of the start, in the plan's time zone, as in 2026-11-24T09:00.",
        "until": "How long it goes on; long enough for everything it speaks of unless written.",
        "stages": "Stages in place of the stand-in plan's.",
    },
    "RawSeries": {
        "series": 'A metric with its labels, as in `http_requests_total{variation="on"}`.',
        "values": "Its samples in Prometheus' notation, as in `0+10x40 _x4 3x5 stale`.",
    },
    "Noise": {
        "seed": "Another seed is another lot; the same one is always the same.",
        "spread": "How far traffic and levels wander from minute to minute beside it, as in 20%.",
    },
    "WhenUnknown": {
        "after": "After how much accumulated time of it.",
        "then": "hold: nothing rises. pause: and a person must resume.",
    },
    "FlagSpec": {
        "environment": "The environment this flag lives in.",
        "key": "The key applications ask for.",
        "variations": "Name to JSON value, in the order SDKs index them.",
        "off": "The variation an off flag serves.",
        "clientSide": "Whether browsers and apps may see it; what they see, everybody can read.",
    },
}
ENVELOPE = {
    "kind": "What the document is.",
    "apiVersion": "The version of the format.",
    "metadata": "What it is called, and whose it is.",
}


def schema_for(kind: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `RolloutPlan`, `GuardrailPolicy` or `Flag`."""
    _, components = msgspec.json.schema_components([KINDS[kind]], ref_template="#/$defs/{name}")
    for name, component in components.items():
        described = {**ENVELOPE, **DESCRIPTIONS[name]} if name in KINDS else DESCRIPTIONS[name]
        for key, field in component["properties"].items():
            field["description"] = described[key]
    root = components.pop(kind)
    return {"$schema": DIALECT, **root, "title": TITLES[kind], "$defs": components}
