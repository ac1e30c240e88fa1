"""Every rule of `rampart lint` as data: docs/lint.md, --explain and SARIF are made of it."""

from controller.manifests.rulebook.about_files import FILE_RULES
from controller.manifests.rulebook.about_flags import FLAG_RULES
from controller.manifests.rulebook.about_plans import PLAN_RULES
from controller.manifests.rulebook.about_policies import POLICY_RULES
from controller.manifests.rulebook.about_tests import TEST_RULES
from controller.manifests.rulebook.rule import Rule

RULES: dict[str, Rule] = {
    rule.code: rule for rule in (*FILE_RULES, *POLICY_RULES, *PLAN_RULES, *FLAG_RULES, *TEST_RULES)
}

__all__ = ["RULES", "Rule"]
