"""Our rules among those of a flag: how they are marked, found again, and told from what people changed in them.

The description is `rampart: NAME [MARK]`; the mark stands for what the rule says. A rule whose mark does not fit
any more was changed by somebody: it is no longer the one that a plan asked for.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from controller.domain.plan import AttributeMatch, AudienceRule
from controller.providers.launchdarkly.model import USER, Clause, Rule, clause_text

PREFIX = "rampart: "
DESCRIPTION = re.compile(re.escape(PREFIX) + r"(?P<name>\S+) \[(?P<mark>[0-9a-f]{6})\]")


def digest(*parts: str) -> str:
    """Six digits that change when any part does."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:6]


def description(rule: AudienceRule, variation_id: str) -> str:
    return f"{PREFIX}{rule.name} [{_mark(clauses(rule), variation_id)}]"


def clauses(rule: AudienceRule) -> list[Clause]:
    """One each attribute: all of them must fit."""
    return [_clause(attribute, match) for attribute, match in rule.match.items()]


def is_ours(rule: Rule) -> bool:
    return (rule.description or "").startswith(PREFIX)


def name_if_intact(rule: Rule, variation_ids: Sequence[str]) -> str | None:
    """The name in the plan of a rule of ours that says what we wrote, and None of any other."""
    found = DESCRIPTION.fullmatch(rule.description or "")
    if found is None or rule.rollout is not None or rule.disabled:
        return None
    if rule.variation is None or rule.variation >= len(variation_ids):
        return None
    return found["name"] if found["mark"] == _mark(rule.clauses, variation_ids[rule.variation]) else None


def _mark(several: Sequence[Clause], variation_id: str) -> str:
    return digest(*map(clause_text, several), variation_id)


def _clause(attribute: str, match: AttributeMatch) -> Clause:
    operators: dict[str, list[Any] | None] = {
        "endsWith": None if match.ends_with is None else [match.ends_with],
        "startsWith": None if match.starts_with is None else [match.starts_with],
        "contains": None if match.contains is None else [match.contains],
        "in": match.in_,
    }
    ((op, values),) = [(op, values) for op, values in operators.items() if values is not None]
    return Clause(op=op, values=list(values), attribute=attribute, context_kind=USER, negate=False)
