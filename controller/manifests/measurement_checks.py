"""What can be wrong with how a policy measures: its times, its sample, its selectors and queries."""

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

from controller.domain.binding import placeholders
from controller.domain.conditions import metrics_of
from controller.domain.policy import BUILT_IN_PLACEHOLDERS, Metric, PolicySpec
from controller.manifests import promql
from controller.manifests.checks import Check, Context, reading
from controller.manifests.loader import Manifest
from controller.manifests.policy_checks import Problems, parsed, selectors
from controller.manifests.problem import listed
from controller.manifests.structure import Path

FLAG_LABELS = frozenset({"flag", "flag_key", "feature_flag", "feature_flag_key"})
ENVIRONMENT_LABELS = frozenset({"env", "environment", "deployment_environment", "deployment_environment_name"})
PLACE_LABELS = ENVIRONMENT_LABELS | {"namespace", "cluster", "project", "tenant", "realm"}
STATUS_LABELS = frozenset({"code", "status", "status_code", "http_status", "http_status_code"})
SECONDS = frozenset({"s", "sec", "secs", "second"})
OTHER_UNITS: Mapping[str, str] = {
    **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds"), "divide by 1000 and write seconds"),
    **dict.fromkeys(("%", "percent", "percentage", "share", "fraction"), "let it give 0 to 1, and write ratio"),
}
_NO_COUNTER = re.compile(
    r":|_(?:ratio|percent|percentage|rate|rate\dm|per_second|info|created|timestamp_seconds)$"
)


class Selected(Struct, frozen=True):
    """A selector that parses, and where it stands."""

    metric: str
    key: str
    text: str
    selector: promql.Selector

    @property
    def path(self) -> Path:
        return ("spec", "metrics", self.metric, self.key)


def _selected(spec: PolicySpec) -> Iterator[Selected]:
    """None of a policy in another language, which nobody here can read."""
    if spec.language != "promql":
        return
    for name, metric in spec.metrics.items():
        for key, text in selectors(metric).items():
            try:
                yield Selected(name, key, text, promql.selector(text))
            # It has a finding of its own.
            except promql.PromqlError:
                continue


def _queries(spec: PolicySpec) -> Iterator[tuple[Path, str, promql.Query]]:
    for name, metric in spec.metrics.items():
        if metric.query is None or spec.language != "promql":
            continue
        try:
            yield ("spec", "metrics", name, "query"), metric.query, promql.query(metric.query)
        except promql.PromqlError:
            continue


def _texts(spec: PolicySpec) -> list[str]:
    texts = [text for metric in spec.metrics.values() for text in selectors(metric).values()]
    return texts + [metric.query for metric in spec.metrics.values() if metric.query is not None]


def check_pace(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    every, window = spec.every_seconds, spec.window_seconds
    wide, narrow = f"a window of {spec.window}", f"a window of {spec.window} may hold a single scrape"
    hurried = f"measured every {spec.every}, more often than series change"
    findings = (
        ("window", window > 3600, "R104", wide, "write an hour at most"),
        ("window", 0 < window < 60, "R105", narrow, "write window: 5m"),
        ("every", 0 < every < 5, "R106", hurried, "write every: 15s"),
        ("every", every > 300, "R107", f"measured every {spec.every}; a kill needs two polls", "write every: 1m"),
    )
    for key, found, code, message, help_text in findings:
        if found:
            yield manifest.problem(("spec", key), code, message, help_text)


def check_patience(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for key, unknown in (("noData", spec.no_data), ("queryError", spec.query_error)):
        written = key in manifest.node_at(("spec",)).entries
        if written and unknown.then == "pause" and unknown.after_seconds < 2 * spec.every_seconds:
            message = f"{key} pauses after {unknown.after}, less than two polls ({spec.every} each)"
            yield manifest.problem(("spec", key, "after"), "R124", message, "wait for several polls, as in 10m")


def check_sample(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    sample = spec.min_sample.requests
    path: Path = ("spec", "minSample", "requests")
    if sample <= 1:
        message = f"with minSample {sample} a single request is judged"
        yield manifest.problem(path, "R108", message, "write what makes the limits mean something, as in 200")
        return
    for name, metric in spec.metrics.items():
        if metric.quantile is None:
            continue
        beyond = min(metric.quantile, 1 - metric.quantile)
        if sample * beyond < 2:
            message = f"{name}: {beyond * 100:.2g} % of minSample ({sample}) is less than two requests"
            help_text = f"ask for at least {round(2 / beyond + 0.5)} requests, or take a lower quantile"
            yield manifest.problem(("spec", "metrics", name, "quantile"), "R122", message, help_text)


def check_use(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    conditions = [parsed(rule) for rule in spec.rules]
    used = {name for one in conditions if one for name in metrics_of(one)}
    if None not in conditions and used <= spec.metrics.keys():
        for name in spec.metrics.keys() - used:
            message = f'no rule names the metric "{name}", so it is not measured'
            yield manifest.problem(
                ("spec", "metrics", name), "R110", message, "add a rule, or remove it", at_key=True
            )


def check_param_use(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    named = {name for text in _texts(spec) for name, _, _ in placeholders(text)}
    for name in spec.params.keys() - named - set(BUILT_IN_PLACEHOLDERS):
        message = f'nothing uses the parameter "{name}"'
        help_text = f'put {name}="${name}" into the selectors, or remove it'
        yield manifest.problem(("spec", "params", name), "R111", message, help_text, at_key=True)


def check_queries(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for path, text, query in _queries(spec):
        for part in query.ranges:
            message = f"the query looks at {text[part[0] : sum(part)]}, whatever the policy's window is"
            yield manifest.problem(path, "R112", message, "write [$window]", part=part)
        if not query.single:
            message = "this may answer with several series, and more than one is an error"
            yield manifest.problem(path, "R113", message, "wrap it, as in max(...) or sum(...)")
        if query.estimates:
            shape = "bad and total" if query.estimates == "share" else "histogram and quantile"
            message = f"a {query.estimates} as raw PromQL: how many requests are behind it is not checked"
            yield manifest.problem(path, "R128", message, f"write {shape}")


def check_matchers(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for one in _selected(spec):
        for matcher in one.selector.matchers:
            if matcher.placeholder and matcher.operator == "=~":
                part = _operator_part(one.text, matcher)
                message = f'{matcher.label}=~"${matcher.placeholder}" takes the value for a regular expression'
                yield manifest.problem(one.path, "R115", message, "write =", part=part, fix="=" if part else "")
            meant = "flag" if matcher.label in FLAG_LABELS else "environment"
            literal = matcher.operator == "=" and matcher.value and not matcher.placeholder
            if literal and matcher.label in FLAG_LABELS | ENVIRONMENT_LABELS:
                message = f'{matcher.label}="{matcher.value}" whatever the plan\'s {meant} is'
                help_text = f'write {matcher.label}="${meant}"'
                yield manifest.problem(one.path, "R116", message, help_text, part=_matcher_part(one.text, matcher))


def _matcher_part(text: str, matcher: promql.Matcher) -> tuple[int, int] | None:
    found = re.search(rf"\b{re.escape(matcher.label)}\s*=\s*[\"']{re.escape(matcher.value)}[\"']", text)
    return (found.start(), len(found.group())) if found else None


def _operator_part(text: str, matcher: promql.Matcher) -> tuple[int, int] | None:
    name = re.escape(matcher.placeholder)
    found = re.search(rf"\b{re.escape(matcher.label)}\s*(=~)\s*[\"']\$(?:{name}|{{{name}}})[\"']", text)
    return (found.start(1), 2) if found else None


def check_environment(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    if spec.language != "promql":
        yield from _vendor_environment(manifest, spec)
        return
    found = list(_selected(spec))
    placed = {one.metric for one in found if one.selector.labels & PLACE_LABELS}
    placed |= {one.metric for one in found if "environment" in _names(one.text)}
    mixed = sorted({one.metric for one in found} - placed)
    if mixed:
        message = f"nothing says which environment is measured: {listed(mixed)}"
        help_text = 'add environment="$environment"'
        yield manifest.problem(("spec", "metrics"), "R117", message, help_text, at_key=True)


def _vendor_environment(manifest: Manifest, spec: PolicySpec) -> Problems:
    mixed = sorted(
        name
        for name, metric in spec.metrics.items()
        if selectors(metric) and not any("environment" in _names(text) for text in selectors(metric).values())
    )
    if mixed:
        message = f"nothing says which environment is measured: {listed(mixed)}"
        yield manifest.problem(("spec", "metrics"), "R117", message, "choose by $environment", at_key=True)


def _names(text: str) -> set[str]:
    return {name for name, _, _ in placeholders(text)}


def check_counters(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for one in _selected(spec):
        if one.key == "histogram":
            continue
        if _NO_COUNTER.search(one.selector.name):
            message = f'"{one.selector.name}" is no counter, by its name; Rampart counts how much it grows'
            yield manifest.problem(one.path, "R118", message, "select the counter itself, as in requests_total")
        fitting = [matcher for matcher in one.selector.matchers if matcher.label in STATUS_LABELS]
        if one.key == "bad" and any(not matcher.placeholder and matcher.fits("200") for matcher in fitting):
            message = f"this counts successes as bad: {fitting[0].label} may be 200"
            yield manifest.problem(one.path, "R121", message, f'as in {fitting[0].label}=~"5.."')


def check_pairs(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    found = {(one.metric, one.key): one for one in _selected(spec)}
    for name in spec.metrics:
        bad, total = found.get((name, "bad")), found.get((name, "total"))
        if bad is None or total is None or bad.selector.name != total.selector.name:
            continue
        if set(bad.selector.matchers) == set(total.selector.matchers):
            message = "bad and total are the same selector, so the rate is always 100 %"
            yield manifest.problem(bad.path, "R120", message, 'say what fails, as in code=~"5.."')
        beyond = sorted(total.selector.labels - bad.selector.labels) or _contradictions(bad, total)
        if beyond:
            message = f"bad counts what total leaves out: total is narrower by {listed(beyond)}"
            yield manifest.problem(bad.path, "R119", message, "give bad all the matchers of total")


def _contradictions(bad: Selected, total: Selected) -> list[str]:
    fixed = {
        one.label: one.value for one in total.selector.matchers if one.operator == "=" and not one.placeholder
    }
    return sorted(
        one.label
        for one in bad.selector.matchers
        if one.operator == "=" and not one.placeholder and fixed.get(one.label, one.value) != one.value
    )


def check_metric_units(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    for name, metric in spec.metrics.items():
        unit = (metric.unit or "").lower()
        if unit in SECONDS or unit in OTHER_UNITS:
            message = f'"{metric.unit}" is not understood as a unit'
            help_text, fix = OTHER_UNITS.get(unit, "write seconds"), "seconds" if unit in SECONDS else ""
            yield manifest.problem(("spec", "metrics", name, "unit"), "R129", message, help_text, fix=fix)
        if metric.unit is None and (metric.histogram or "").partition("{")[0].strip().endswith("_seconds_bucket"):
            message = f'"{name}" is a time, and its limits are bare numbers without unit: seconds'
            yield manifest.problem(("spec", "metrics", name), "R130", message, "add unit: seconds", at_key=True)


def check_metric_names(manifest: Manifest, spec: PolicySpec, _: Context) -> Problems:
    seen: dict[tuple[object, ...], str] = {}
    for name, metric in spec.metrics.items():
        path: Path = ("spec", "metrics", name)
        if name in ("and", "or", "baseline"):
            message = f'"{name}" is a word of conditions'
            yield manifest.problem(path, "R132", message, "choose another name", at_key=True)
        first = seen.setdefault(_measured(metric), name)
        if first != name:
            message = f'"{name}" measures the same as "{first}"'
            yield manifest.problem(
                path, "R131", message, "keep one of them, or change what was meant to differ", at_key=True
            )


def _measured(metric: Metric) -> tuple[object, ...]:
    return (metric.bad, metric.total, metric.histogram, metric.quantile, metric.query)


MEASUREMENT_CHECKS: tuple[Check[PolicySpec], ...] = (
    Check(check_pace, reading("every", "window")),
    Check(check_patience, reading("every", "noData", "queryError")),
    Check(check_sample, reading("minSample", "metrics")),
    Check(check_use, reading("rules", "metrics")),
    Check(check_param_use, reading("params", "metrics")),
    Check(check_queries, reading("metrics")),
    Check(check_matchers, reading("metrics")),
    Check(check_environment, reading("metrics")),
    Check(check_counters, reading("metrics")),
    Check(check_pairs, reading("metrics")),
    Check(check_metric_units, reading("metrics")),
    Check(check_metric_names, reading("metrics")),
)
