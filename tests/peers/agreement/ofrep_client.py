"""Asks OpenFeature's OFREP provider for Python, which is installed beside Rampart and not with it.

Reads {url, id, flags, contexts, types} from standard input, and writes a list by context of
{flag key: [value, variant, reason]}.
"""

import json
import sys
from typing import Any

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext


def main() -> None:
    asked: dict[str, Any] = json.load(sys.stdin)
    headers = {"Authorization": f"Bearer {asked['id']}"}
    api.set_provider(OFREPProvider(asked["url"], headers_factory=lambda: headers))
    client = api.get_client()
    ask = {
        "boolean": client.get_boolean_details,
        "string": client.get_string_details,
        "integer": client.get_integer_details,
        "float": client.get_float_details,
        "object": client.get_object_details,
    }
    answers = []
    for context, types in zip(asked["contexts"], asked["types"], strict=True):
        rest = {name: value for name, value in context.items() if name != "targetingKey"}
        who = EvaluationContext(context["targetingKey"], rest)
        details = {key: ask[types[key]](key, None, who) for key in asked["flags"]}
        answers.append({key: [one.value, one.variant, one.reason] for key, one in details.items()})
    json.dump(answers, sys.stdout)


main()
