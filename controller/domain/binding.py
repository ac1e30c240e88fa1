"""A policy as one plan uses it: parameters filled in, conditions parsed, questions ready to be asked."""

import re
from collections.abc import Mapping

from msgspec import Struct

from controller.domain.conditions import Condition, ConditionError, metrics_of, parse, parse_limit
from controller.domain.evidence import QuantileQuestion, QueryQuestion, Question, RatioQuestion
from controller.domain.plan import GuardrailUse, RolloutPlan
from controller.domain.policy import (
    Baseline,
    GuardrailPolicy,
    Metric,
    Param,
    Rule,
    WhenUnknown,
)
from controller.errors import Invalid

VALUE_PATTERN = r"^[A-Za-z0-9_.:/-]{1,128}$"
"""What may replace a placeholder: nothing that could end a PromQL string or mean something in it."""

_PLACEHOLDER = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<braced>[^{}]*)\}|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))")
_VALUE = re.compile(VALUE_PATTERN.removesuffix("$") + r"\Z")


class BoundRule(Struct, frozen=True):
    """`floor` is in the metric's base unit."""

    rule: Rule
    condition: Condition
    floor: float | None


class Guardrail(Struct, frozen=True, kw_only=True):
    """What the engine needs of a policy. `values` are the placeholders' values, all but variation and window."""

    policy: str
    source: str
    every_seconds: float
    window_seconds: float
    stale_after_seconds: float
    min_sample: int
    baseline: Baseline | None
    no_data: WhenUnknown
    query_error: WhenUnknown
    rules: tuple[BoundRule, ...]
    metrics: dict[str, Metric]
    values: dict[str, str]

    def question(self, metric: str, variation: str, window_seconds: float | None = None) -> Question:
        """What to ask for one metric of one variation; over the policy's own window unless another is given."""
        window = self.window_seconds if window_seconds is None else window_seconds
        values = {**self.values, "variation": variation, "window": prometheus_duration(window)}
        declared = self.metrics[metric]
        if declared.query is not None:
            return QueryQuestion(query=substitute(declared.query, values), window_seconds=window)
        if declared.histogram is not None and declared.quantile is not None:
            return QuantileQuestion(
                histogram=substitute(declared.histogram, values),
                quantile=declared.quantile,
                window_seconds=window,
            )
        if declared.bad is not None and declared.total is not None:
            return RatioQuestion(
                bad=substitute(declared.bad, values),
                total=substitute(declared.total, values),
                window_seconds=window,
            )
        raise Invalid(
            f'metric "{metric}" of policy "{self.policy}" has no complete shape; '
            "write bad and total, or histogram and quantile, or query"
        )


def bind(use: GuardrailUse, policy: GuardrailPolicy, plan: RolloutPlan) -> Guardrail:
    """Raises Invalid with every problem; paths are as in the YAML: `with.service`, `spec.rules[0]`."""
    spec, serve = policy.spec, plan.spec.serve
    problems = [(f"with.{name}", message) for name, message in param_problems(use.with_, spec.params)]
    for path, variation in (("serve.rollout", serve.rollout), ("serve.fallback", serve.fallback)):
        if not is_value(variation):
            problems.append((path, value_message(variation)))
    rules = _bound_rules(policy, problems)
    if problems:
        text = "; ".join(f"{path}: {message}" for path, message in problems)
        raise Invalid(
            f'policy "{use.policy}" cannot be used by plan "{plan.metadata.name}": {text}', problems=problems
        )
    flag = plan.spec.flag
    return Guardrail(
        policy=policy.metadata.name,
        source=spec.source,
        every_seconds=spec.every_seconds,
        window_seconds=spec.window_seconds,
        stale_after_seconds=spec.stale_after_seconds,
        min_sample=spec.min_sample.requests,
        baseline=spec.baseline,
        no_data=spec.no_data,
        query_error=spec.query_error,
        rules=rules,
        metrics=spec.metrics,
        values={**_param_values(use, policy), "flag": flag.key, "environment": flag.environment},
    )


def bind_all(plan: RolloutPlan, policies: Mapping[str, GuardrailPolicy]) -> tuple[Guardrail, ...]:
    """One for every use, in the plan's order. `policies` are by name, all that the plan uses. Raises Invalid."""
    return tuple(bind(use, policies[use.policy], plan) for use in plan.spec.guardrails)


def param_problems(given: Mapping[str, str], params: Mapping[str, Param]) -> list[tuple[str, str]]:
    """(parameter, message) for every one that is missing, unknown or not usable as a value."""
    problems = []
    for name, param in params.items():
        value = given.get(name, param.default)
        if value is None and param.required:
            problems.append((name, f'the parameter "{name}" is required'))
        elif value is not None and not is_value(value):
            problems.append((name, value_message(value)))
    known = ", ".join(params) or "none"
    problems += [
        (name, f'the policy has no parameter "{name}"; it has: {known}') for name in given if name not in params
    ]
    return problems


def is_value(text: str) -> bool:
    return _VALUE.match(text) is not None


def value_message(text: str) -> str:
    return f'"{text[:40]}" cannot stand in a query: 1 to 128 of letters, digits and _ . : / - are allowed'


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Replaces `$name` and `${name}`; `$$` becomes `$`. Raises Invalid for a name without a value."""

    def replacement(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        name = found["bare"] or found["braced"] or ""
        if name not in values:
            raise Invalid(f'the placeholder "${name}" has no value; known: {", ".join(sorted(values))}')
        return values[name]

    return _PLACEHOLDER.sub(replacement, text)


def placeholders(text: str) -> list[tuple[str, int, int]]:
    """(name, offset, length) of every placeholder, in order."""
    return [
        (found["bare"] or found["braced"] or "", found.start(), len(found.group()))
        for found in _PLACEHOLDER.finditer(text)
        if not found["escaped"]
    ]


def prometheus_duration(duration_seconds: float) -> str:
    """300.0 → `300s`; 0.25 → `250ms`: Prometheus knows no fractions."""
    whole = round(duration_seconds)
    if abs(duration_seconds - whole) < 0.0005:
        return f"{whole}s"
    return f"{round(duration_seconds * 1000)}ms"


def _param_values(use: GuardrailUse, policy: GuardrailPolicy) -> dict[str, str]:
    defaults = {name: param.default for name, param in policy.spec.params.items() if param.default is not None}
    return {**defaults, **use.with_}


def _bound_rules(policy: GuardrailPolicy, problems: list[tuple[str, str]]) -> tuple[BoundRule, ...]:
    bound = []
    for index, rule in enumerate(policy.spec.rules):
        path = f"spec.rules[{index}]"
        try:
            condition = parse(rule.condition)
            floor = parse_limit(rule.floor)[0] if rule.floor is not None else None
        except ConditionError as error:
            problems.append((path, f"{error}; {error.help}".rstrip("; ")))
            continue
        unknown = sorted(metrics_of(condition) - policy.spec.metrics.keys())
        problems += [(path, f'metric "{name}" is not defined in the policy') for name in unknown]
        bound.append(BoundRule(rule, condition, floor))
    return tuple(bound)
