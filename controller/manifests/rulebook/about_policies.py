# ruff: noqa: E501, UP031 - the YAML reads as people write it
"""Rules about guardrail policies: metrics, conditions, times, selectors."""

from controller.manifests.rulebook.rule import Rule

_RATE = """\
metrics:
  error_rate:
    bad: http_requests_total{%s,code=~"5.."}
    total: http_requests_total{%s}
rules:
  - { id: errors-high, if: error_rate > 1%%, for: 2m, then: kill }
"""
_LABELS = 'flag="$flag",variation="$variation",environment="$environment",cohort="share"'
_GOOD_RATE = _RATE % (_LABELS, _LABELS)
_VENDOR_RATE = """\
metrics:
  error_rate:
    bad: sum:shop.errors{flag:$flag,variation:$variation,env:$environment}.as_count()
    total: sum:shop.requests{flag:$flag,variation:$variation,env:$environment}.as_count()
rules:
  - { id: errors-high, if: error_rate > 1%, for: 2m, then: kill }
"""


def _rules(*lines: str) -> str:
    return "rules:\n" + "".join(f"  - {{ {line} }}\n" for line in lines)


def _query(query: str, limit: str = "1000") -> str:
    return (
        f"metrics:\n  waiting: {{ unit: jobs, query: '{query}' }}\n"
        f"rules:\n  - {{ id: backlog, if: waiting > {limit}, for: 5m, then: kill }}\n"
    )


_WAITING = 'jobs_waiting{variation="$variation",environment="$environment"}'

POLICY_RULES = (
    Rule(
        code="R010",
        name="bad-condition",
        topic="policy",
        what="A condition that does not parse, names an unknown metric, or has a limit whose unit does not fit.",
        why="A limit of 1 on an error rate means 100 %, which never comes. Limits carry their unit.",
        bad=_rules("id: errors-high, if: error_rate > 1, for: 2m, then: kill"),
        good=_rules("id: errors-high, if: error_rate > 1%, for: 2m, then: kill"),
        fix="writes >= for => and <= for =<, and the metric that differs by one letter, when there is exactly one",
    ),
    Rule(
        code="R011",
        name="bad-promql",
        topic="policy",
        what="PromQL that does not parse, a selector that is more than a selector, or a histogram that is none.",
        why="Rampart adds rate() and the window itself, and asks for many flags at once; that needs plain selectors.",
        bad=_RATE % (_LABELS, _LABELS + "}[5m"),
        good=_GOOD_RATE,
    ),
    Rule(
        code="R012",
        name="bad-metric",
        topic="policy",
        what="A metric with none or several of the three shapes, or half of one.",
        why="bad and total, histogram and quantile, or query: anything else cannot be measured.",
        bad='metrics:\n  error_rate:\n    bad: http_requests_total{%s,code=~"5.."}\n' % _LABELS
        + _rules("id: errors-high, if: error_rate > 1%, for: 2m, then: kill"),
        good=_GOOD_RATE,
    ),
    Rule(
        code="R013",
        name="no-baseline",
        topic="policy",
        what="A rule compares with a baseline, and the policy declares none.",
        why="Without one there is nothing to compare with.",
        bad="baseline: null\n"
        + _rules("id: p95-3x, if: latency_p95 > 3x baseline, floor: 20ms, for: 2m, then: kill"),
        good="baseline: { from: control, fallback: before }\n"
        + _rules("id: p95-3x, if: latency_p95 > 3x baseline, floor: 20ms, for: 2m, then: kill"),
    ),
    Rule(
        code="R014",
        name="query-on-scrape",
        topic="policy",
        server=True,
        what="Raw PromQL on a source that scrapes targets itself.",
        why="Such a source has no query engine. It can answer bad/total and histogram/quantile.",
        bad="source: local\n" + _query(f"max({_WAITING})"),
        good="source: prod-prometheus\n" + _query(f"max({_WAITING})"),
    ),
    Rule(
        code="R023",
        name="hasty-kill",
        topic="policy",
        severity="warning",
        what="A kill rule that waits less than two polls.",
        why="One bad reading could kill.",
        bad="every: 15s\n" + _rules("id: errors-high, if: error_rate > 1%, for: 15s, then: kill"),
        good="every: 15s\n" + _rules("id: errors-high, if: error_rate > 1%, for: 1m, then: kill"),
    ),
    Rule(
        code="R024",
        name="impossible-times",
        topic="policy",
        what="Times that make no sense together: a window below two polls, samples stale before the next poll.",
        why="Such a policy could never see fresh data, and would hold every rollout for ever.",
        bad="every: 4m\nwindow: 5m\n" + _rules("id: errors-high, if: error_rate > 1%, for: 8m, then: kill"),
        good="every: 15s\nwindow: 5m\n" + _rules("id: errors-high, if: error_rate > 1%, for: 8m, then: kill"),
    ),
    Rule(
        code="R050",
        name="nothing-kills",
        topic="policy",
        severity="warning",
        what="No enforced rule kills.",
        why="However bad a release is, it stays exposed until a person wakes up.",
        bad=_rules("id: errors-high, if: error_rate > 1%, for: 5m, then: pause"),
        good=_rules(
            "id: errors-high, if: error_rate > 1%, for: 5m, then: pause",
            "id: errors-jump, if: error_rate > 10%, for: 2m, then: kill",
        ),
    ),
    Rule(
        code="R052",
        name="same-name-twice",
        topic="policy",
        what="The same rule id, audience name, freeze name or policy twice.",
        why="The audit log, alerts and people name rules by their ids.",
        bad=_rules(
            "id: errors, if: error_rate > 1%, for: 5m, then: pause",
            "id: errors, if: error_rate > 10%, for: 2m, then: kill",
        ),
        good=_rules(
            "id: errors-high, if: error_rate > 1%, for: 5m, then: pause",
            "id: errors-jump, if: error_rate > 10%, for: 2m, then: kill",
        ),
    ),
    Rule(
        code="R053",
        name="bad-placeholder",
        topic="policy",
        what="A placeholder or parameter that is unknown, missing or unusable.",
        why="The selector would match nothing, and nothing looks like no errors.",
        bad="params: { service: { required: true } }\n"
        + _RATE % ('service="$servce",' + _LABELS, 'service="$service",' + _LABELS),
        good="params: { service: { required: true } }\n"
        + _RATE % ('service="$service",' + _LABELS, 'service="$service",' + _LABELS),
        fix="writes the placeholder or parameter that differs by one slip, when there is exactly one",
    ),
    Rule(
        code="R060",
        name="diluted-selector",
        topic="policy",
        severity="warning",
        what="A selector that does not distinguish variations.",
        why="At a 1 % stage a rollout that fails every request moves such a metric by 1 % only, and the baseline with it.",
        bad=_RATE % ('environment="$environment",cohort="share"', 'environment="$environment",cohort="share"'),
        good=_GOOD_RATE,
    ),
    Rule(
        code="R062",
        name="nothing-judged",
        topic="policy",
        what="Nothing that could be judged: a rule about the baseline alone, no enforced rule, or no control at 100 %.",
        why="A stage passes only on recorded passes, and a rule that never sees the rollout cannot give one.",
        bad=_rules("id: errors-high, if: baseline(error_rate) > 1%, for: 2m, then: kill"),
        good=_rules("id: errors-high, if: error_rate > 1%, for: 2m, then: kill"),
    ),
    Rule(
        code="R071",
        name="unknown-source",
        topic="policy",
        server=True,
        what="The settings know no such source or provider.",
        why="Nothing could be measured, or turned.",
        bad="source: prod-prom\n",
        good="source: prod-prometheus\n",
    ),
    Rule(
        code="R101",
        name="never-fires",
        topic="policy",
        what="A condition that can never hold.",
        why="The rule looks like protection and is none: no share is above 100 %, and no number is both above 5 and below 1.",
        bad=_rules("id: errors-high, if: error_rate > 100%, for: 2m, then: kill"),
        good=_rules("id: errors-high, if: error_rate > 10%, for: 2m, then: kill"),
    ),
    Rule(
        code="R102",
        name="always-fires",
        topic="policy",
        what="A condition that always holds.",
        why="Every rollout would be stopped, the good ones too.",
        bad=_rules("id: errors-high, if: error_rate >= 0%, for: 2m, then: kill"),
        good=_rules("id: errors-high, if: error_rate > 10%, for: 2m, then: kill"),
    ),
    Rule(
        code="R103",
        name="never-first",
        topic="policy",
        severity="warning",
        what="A rule that another one always precedes: that one fires whenever this one would, no later and no milder.",
        why="It does nothing. Usually two limits or two times were swapped.",
        bad=_rules(
            "id: errors-jump, if: error_rate > 1%, for: 2m, then: kill",
            "id: errors-high, if: error_rate > 5%, for: 5m, then: pause",
        ),
        good=_rules(
            "id: errors-jump, if: error_rate > 5%, for: 2m, then: kill",
            "id: errors-high, if: error_rate > 1%, for: 5m, then: pause",
        ),
    ),
    Rule(
        code="R104",
        name="long-window",
        topic="policy",
        severity="warning",
        what="A window of more than an hour.",
        why="A regression is averaged with hours of health, and after every stage a whole window passes before the bake begins.",
        bad="window: 2h\nbaseline: { from: control, fallback: before, before: 1d }\n",
        good="window: 30m\n",
    ),
    Rule(
        code="R105",
        name="short-window",
        topic="policy",
        severity="warning",
        what="A window of less than a minute.",
        why="A counter's increase needs two samples, and targets are commonly scraped every 15 to 30 seconds.",
        bad="every: 5s\nwindow: 20s\n",
        good="every: 5s\nwindow: 5m\n",
    ),
    Rule(
        code="R106",
        name="fast-polling",
        topic="policy",
        severity="warning",
        what="Measured more often than every 5 seconds.",
        why="Series change with every scrape and no sooner; the rest is load on Prometheus.",
        bad="every: 1s\n",
        good="every: 15s\n",
    ),
    Rule(
        code="R107",
        name="slow-polling",
        topic="policy",
        severity="warning",
        what="Measured less often than every 5 minutes.",
        why="A kill needs two polls at least, and all that time the harm goes on.",
        bad="every: 10m\nwindow: 1h\n" + _rules("id: errors-high, if: error_rate > 1%, for: 20m, then: kill"),
        good="every: 1m\nwindow: 1h\n",
    ),
    Rule(
        code="R108",
        name="no-min-sample",
        topic="policy",
        severity="warning",
        what="minSample of 0 or 1 request.",
        why="A single request would decide, and one that fails is an error rate of 100 %.",
        bad="minSample: { requests: 0 }\n",
        good="minSample: { requests: 200 }\n",
    ),
    Rule(
        code="R109",
        name="one-error-breaches",
        topic="policy",
        severity="warning",
        what="With minSample requests a single failure is already above the limit.",
        why="The rule acts on bad luck. 1 of 50 is 2 %.",
        bad="minSample: { requests: 50 }\n" + _rules("id: errors-high, if: error_rate > 1%, for: 2m, then: kill"),
        good="minSample: { requests: 200 }\n"
        + _rules("id: errors-high, if: error_rate > 1%, for: 2m, then: kill"),
    ),
    Rule(
        code="R110",
        name="unused-metric",
        topic="policy",
        severity="warning",
        what="A metric that no rule names.",
        why="It is not even measured. Somebody may believe that it is guarded.",
        bad=_rules("id: errors-high, if: error_rate > 1%, for: 2m, then: kill"),
        good=_GOOD_RATE,
    ),
    Rule(
        code="R111",
        name="unused-param",
        topic="policy",
        severity="warning",
        what="A parameter that no selector and no query uses.",
        why="Plans must give it and it changes nothing: two services would share their measurements.",
        bad="params: { service: { required: true } }\n" + _GOOD_RATE,
        good="params: { service: { required: true } }\n"
        + _RATE % ('service="$service",' + _LABELS, 'service="$service",' + _LABELS),
    ),
    Rule(
        code="R112",
        name="literal-range",
        topic="policy",
        severity="warning",
        what="A range in a raw query that is not $window.",
        why="The policy's window, and the longer span of its baseline, are not what this query looks at.",
        bad=_query(f"max(max_over_time({_WAITING}[1m]))"),
        good=_query(f"max(max_over_time({_WAITING}[$window]))"),
    ),
    Rule(
        code="R113",
        name="several-results",
        topic="policy",
        severity="warning",
        what="A raw query that may answer with several series.",
        why="More than one result is an error, and errors hold the rollout.",
        bad=_query(_WAITING),
        good=_query(f"max({_WAITING})"),
    ),
    Rule(
        code="R114",
        name="blind-kill",
        topic="policy",
        severity="warning",
        what="A kill rule on raw queries that cannot tell variations apart.",
        why="Whatever else makes the number rise would kill a healthy rollout. Let such a rule pause.",
        bad=_query('max(jobs_waiting{environment="$environment"})'),
        good=_query(f"max({_WAITING})"),
    ),
    Rule(
        code="R115",
        name="regex-on-placeholder",
        topic="policy",
        severity="warning",
        what='A placeholder as a regular expression: variation=~"$variation".',
        why="A dot in the value would match any character, and only equal signs let many flags share one query.",
        bad=_RATE % (_LABELS.replace('variation="', 'variation=~"'), _LABELS),
        good=_GOOD_RATE,
        fix="writes = for =~",
    ),
    Rule(
        code="R116",
        name="literal-for-placeholder",
        topic="policy",
        severity="warning",
        what="A selector names a flag, variation or environment itself.",
        why="The policy would judge that one whatever flag or environment the plan is about.",
        bad=_RATE % ((_LABELS.replace("$environment", "production"),) * 2),
        good=_GOOD_RATE,
    ),
    Rule(
        code="R117",
        name="mixed-environments",
        topic="policy",
        severity="warning",
        what="No selector of the policy says which environment it means.",
        why="If staging and production share a Prometheus, a load test in staging stops the rollout in production. "
        "With one Prometheus for each environment, allow it with a comment.",
        bad=_RATE % (('flag="$flag",variation="$variation",cohort="share"',) * 2),
        good=_GOOD_RATE,
    ),
    Rule(
        code="R118",
        name="not-a-counter",
        topic="policy",
        severity="warning",
        what="bad or total selects what is no counter, by its name: a recorded rate, a ratio, an info series.",
        why="The increase of a rate is noise around zero, and zero errors look healthy.",
        bad=(_RATE % (_LABELS, _LABELS)).replace("http_requests_total", "job:http_requests:rate5m"),
        good=_GOOD_RATE,
    ),
    Rule(
        code="R119",
        name="bad-beyond-total",
        topic="policy",
        severity="warning",
        what="bad counts requests that total leaves out.",
        why="The rate is then no share: it can exceed 100 %, and another service's errors stop this one.",
        bad=_RATE % (_LABELS, 'service="cart",' + _LABELS),
        good=_RATE % ('service="cart",' + _LABELS, 'service="cart",' + _LABELS),
    ),
    Rule(
        code="R120",
        name="everything-bad",
        topic="policy",
        what="bad and total are the same selector.",
        why="The rate is always 100 %.",
        bad=(_RATE % (_LABELS, _LABELS)).replace(',code=~"5.."', ""),
        good=_GOOD_RATE,
    ),
    Rule(
        code="R121",
        name="successes-as-bad",
        topic="policy",
        severity="warning",
        what="bad counts successful answers: its status matcher also fits 200.",
        why="A healthy service would look broken, or a broken one healthy.",
        bad=(_RATE % (_LABELS, _LABELS)).replace('code=~"5.."', 'code!~"5.."'),
        good=_GOOD_RATE,
    ),
    Rule(
        code="R122",
        name="quantile-of-few",
        topic="policy",
        severity="warning",
        what="A quantile that two requests of minSample decide.",
        why="The 99th percentile of 100 requests is the slowest one of them.",
        bad="minSample: { requests: 30 }\n"
        + _rules("id: p95-3x, if: latency_p95 > 3x baseline, floor: 20ms, for: 2m, then: kill"),
        good="minSample: { requests: 200 }\n"
        + _rules("id: p95-3x, if: latency_p95 > 3x baseline, floor: 20ms, for: 2m, then: kill"),
    ),
    Rule(
        code="R123",
        name="no-floor",
        topic="policy",
        severity="warning",
        what="A limit relative to the baseline without a floor or an absolute limit beside it.",
        why="2 ms against 1 ms is twice as slow, and one error against none is infinitely many.",
        bad=_rules("id: p95-3x, if: latency_p95 > 3x baseline, for: 2m, then: kill"),
        good=_rules("id: p95-3x, if: latency_p95 > 3x baseline, floor: 20ms, for: 2m, then: kill"),
    ),
    Rule(
        code="R124",
        name="impatient-silence",
        topic="policy",
        severity="warning",
        what="noData or queryError pauses after less than two polls.",
        why="One lost scrape would stop the rollout and wake a person.",
        bad="every: 1m\nwindow: 10m\nnoData: { after: 90s, then: pause }\n",
        good="every: 1m\nwindow: 10m\nnoData: { after: 10m, then: pause }\n",
    ),
    Rule(
        code="R125",
        name="idle-even-if-control-fails",
        topic="policy",
        severity="warning",
        what="evenIfControlFails on a rule that does not kill.",
        why="Only kills become pauses when the control fails too; the key does nothing here.",
        bad=_rules(
            "id: errors-high, if: error_rate > 1%, for: 5m, then: pause, evenIfControlFails: true",
            "id: errors-jump, if: error_rate > 10%, for: 2m, then: kill",
        ),
        good=_rules(
            "id: errors-high, if: error_rate > 1%, for: 5m, then: pause",
            "id: errors-jump, if: error_rate > 10%, for: 2m, then: kill, evenIfControlFails: true",
        ),
    ),
    Rule(
        code="R126",
        name="slow-kill",
        topic="policy",
        severity="warning",
        what="A kill rule that waits more than a quarter of an hour.",
        why="Harm that may go on so long is what pause is for; a kill is for what may not.",
        bad=_rules("id: errors-high, if: error_rate > 10%, for: 1h, then: kill"),
        good=_rules("id: errors-high, if: error_rate > 10%, for: 2m, then: kill"),
    ),
    Rule(
        code="R127",
        name="health-as-harm",
        topic="policy",
        severity="warning",
        what="A rule that acts when errors or latencies are low.",
        why="A condition says when it is harm. The sign is probably turned round.",
        bad=_rules("id: errors-high, if: error_rate < 1%, for: 2m, then: kill"),
        good=_rules("id: errors-high, if: error_rate > 1%, for: 2m, then: kill"),
    ),
    Rule(
        code="R128",
        name="ratio-as-query",
        topic="policy",
        severity="warning",
        what="A share or a quantile written as raw PromQL.",
        why="Rampart then sees one number and not the requests behind it: minSample and the age of samples are not checked.",
        bad="metrics:\n  error_rate:\n    unit: ratio\n"
        f"    query: 'sum(rate(errors_total{{{_LABELS}}}[$window])) / sum(rate(requests_total{{{_LABELS}}}[$window]))'\n"
        + _rules("id: errors-high, if: error_rate > 1%, for: 2m, then: kill"),
        good=_GOOD_RATE,
    ),
    Rule(
        code="R129",
        name="unit-spelling",
        topic="policy",
        severity="warning",
        what="A unit that is a unit of time or a share under another name.",
        why="Only seconds and ratio are understood: with them a limit can be 250ms or 1%, and is checked.",
        bad=_query(f"max({_WAITING})").replace("unit: jobs", "unit: sec"),
        good=_query(f"max({_WAITING})", "60s").replace("unit: jobs", "unit: seconds"),
        fix="writes seconds for s, sec, secs and second; never for milliseconds",
    ),
    Rule(
        code="R130",
        name="seconds-without-unit",
        topic="policy",
        severity="warning",
        what="A quantile of a histogram in seconds whose metric has no unit.",
        why="Its limits are bare numbers then, and 250 is four minutes.",
        bad="metrics:\n  latency_p95:\n    quantile: 0.95\n"
        f"    histogram: http_request_duration_seconds_bucket{{{_LABELS}}}\n"
        + _rules("id: slow, if: latency_p95 > 250, for: 2m, then: kill"),
        good="metrics:\n  latency_p95:\n    quantile: 0.95\n    unit: seconds\n"
        f"    histogram: http_request_duration_seconds_bucket{{{_LABELS}}}\n"
        + _rules("id: slow, if: latency_p95 > 250ms, for: 2m, then: kill"),
    ),
    Rule(
        code="R131",
        name="same-metric-twice",
        topic="policy",
        severity="warning",
        what="Two metrics that measure the same.",
        why="Everything is asked twice, and one of them was probably meant to differ.",
        bad=f"metrics:\n  a:\n    query: 'max(queue_depth{{{_LABELS}}})'\n  b:\n    query: 'max(queue_depth{{{_LABELS}}})'\n"
        + _rules("id: a, if: a > 1000, for: 2m, then: kill", "id: b, if: b > 50, for: 2m, then: pause"),
        good=f"metrics:\n  a:\n    query: 'max(queue_depth{{{_LABELS}}})'\n"
        + _rules("id: a, if: a > 1000, for: 2m, then: kill", "id: b, if: a > 50, for: 2m, then: pause"),
    ),
    Rule(
        code="R132",
        name="reserved-metric-name",
        topic="policy",
        severity="warning",
        what="A metric called and, or, or baseline.",
        why="Conditions that name it cannot be read, at least not by people.",
        bad=_GOOD_RATE.replace("error_rate", "baseline"),
        good=_GOOD_RATE,
    ),
    Rule(
        code="R133",
        name="other-language",
        topic="policy",
        server=True,
        what="Metrics in another language than the one their source is asked in.",
        why="A source of kind http_json hands the texts on as they are, to a system that has a language of its own.",
        bad="source: datadog\n" + _GOOD_RATE,
        good="source: datadog\nlanguage: vendor\n" + _VENDOR_RATE,
    ),
)
