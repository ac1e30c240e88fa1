"""What a flag serves to a context: the answer that LaunchDarkly's SDKs would give, from the same JSON.

`Evaluator` holds the flags of one environment; `evaluate` asks once. docs/sdks.md says where SDKs differ among
themselves, and which of them is followed.
"""

from controller.domain.evaluation.bucketing import bucket
from controller.domain.evaluation.contexts import Context, NoContext, parse_context
from controller.domain.evaluation.evaluator import Evaluation, Evaluator, evaluate
from controller.domain.evaluation.operators import Patterns

__all__ = ["Context", "Evaluation", "Evaluator", "NoContext", "Patterns", "bucket", "evaluate", "parse_context"]
