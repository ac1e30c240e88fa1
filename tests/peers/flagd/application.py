"""An application that reads flags through OpenFeature and flagd's own provider, asked line by line.

Called as `application.py file PATH` or `application.py sync PORT [SELECTOR]`. Each question and each answer is a
line of JSON; the first answer comes unasked, when the flags are there.
"""

import json
import sys
import time
from typing import Any

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext

DEADLINE_MS = 500
"""What the provider begins with, too: in a file it looks as often as this."""


def provider(kind: str, where: str, selector: str | None = None) -> FlagdProvider:
    if kind == "file":
        return FlagdProvider(
            resolver_type=ResolverType.FILE, offline_flag_source_path=where, deadline_ms=DEADLINE_MS
        )
    return FlagdProvider(
        resolver_type=ResolverType.IN_PROCESS,
        host="127.0.0.1",
        port=int(where),
        deadline_ms=10_000,
        retry_backoff_ms=100,
        retry_backoff_max_ms=200,
        selector=selector,
    )


def answer(asked: dict[str, Any]) -> object:
    client = api.get_client()
    if asked["ask"] == "details":
        context = EvaluationContext(asked.get("key"), asked.get("attributes", {}))
        found = client.get_boolean_details(asked["flag"], asked["default"], context)
        return {"value": found.value, "variant": found.variant, "reason": found.reason, "error": found.error_code}
    if asked["ask"] == "exposed":
        return [
            number
            for number in range(asked["users"])
            if client.get_boolean_value(asked["flag"], False, EvaluationContext(f"user-{number}"))
        ]
    # Until it is served: the time at which that was seen, on the clock all processes here share.
    context, deadline = EvaluationContext(asked["key"]), time.monotonic() + asked["seconds"]
    while client.get_boolean_value(asked["flag"], not asked["value"], context) != asked["value"]:
        if time.monotonic() > deadline:
            return None
        time.sleep(0.0002)
    return time.monotonic()


def say(something: object) -> None:
    sys.stdout.write(json.dumps(something) + "\n")
    sys.stdout.flush()


def main() -> None:
    api.set_provider_and_wait(provider(*sys.argv[1:]))
    say("ready")
    for line in sys.stdin:
        say(answer(json.loads(line)))


main()
