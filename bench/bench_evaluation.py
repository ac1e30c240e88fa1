"""How many evaluations a second one core makes, beside the Python SDK's own evaluator in the same run.

    python -m bench.bench_evaluation [--rounds 7] [--json dist/bench_evaluation.json]

Both have read the same flags and contexts before: our own flags (a share and two audience rules), and the zoo of
tests/support/flag_zoo.py. They take turns, so that both see the same machine; the median of the rounds is given.
The SDK's evaluator stands alone, without its client, its events and its hooks.
"""

import argparse
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ldclient
from ldclient.config import BigSegmentsConfig
from ldclient.impl.big_segments import BigSegmentStoreManager
from ldclient.impl.evaluator import Evaluator as SdkEvaluator
from ldclient.impl.events.types import EventFactory
from ldclient.impl.model import FeatureFlag, Segment

from controller.domain.evaluation import Evaluator, parse_context
from controller.domain.flag import FlagSpec, SetShare
from controller.domain.plan import AttributeMatch, AudienceRule, FlagRef, Serve
from controller.domain.sdkflag import new_flag, turned_on, with_share
from controller.patterns import read_pattern
from tests.support.flag_zoo import Data, Zoo, draw_zoo

FLAGS = 100
CONTEXTS = 100


def own_flags() -> Zoo:
    """As they are in the middle of a rollout: half of the users, staff and beta testers."""
    audience = (
        AudienceRule(name="staff", match={"email": AttributeMatch(ends_with="@acme.example")}),
        AudienceRule(name="beta", match={"plan": AttributeMatch(in_=["beta"])}),
    )
    serve = Serve(rollout="on", fallback="off")
    flags: dict[str, Data] = {}
    for number in range(FLAGS):
        ref = FlagRef(provider="main", environment="production", key=f"flag-{number}")
        change = SetShare(
            flag=ref, serve=serve, exposure=50_000, audience=audience, bucket_by="user", comment="bench"
        )
        new = new_flag(FlagSpec(environment="production", key=ref.key), 1)
        flags[ref.key] = turned_on(with_share(new, change, 2), 3).data
    contexts = [
        {"kind": "user", "key": f"user-{number}", "email": f"user-{number}@mail.example", "plan": "free"}
        for number in range(CONTEXTS)
    ]
    return Zoo(flags, {}, contexts)


def ours(zoo: Zoo) -> Callable[[], None]:
    evaluator = Evaluator(zoo.flags, zoo.segments, patterns=read_pattern)
    contexts = [parse_context(context) for context in zoo.contexts]

    def evaluate() -> None:
        for context in contexts:
            for key in zoo.flags:
                evaluator.evaluate(key, context)

    return evaluate


def theirs(zoo: Zoo) -> Callable[[], None]:
    flags = {key: FeatureFlag(data) for key, data in zoo.flags.items()}
    segments = {key: Segment(data) for key, data in zoo.segments.items()}
    membership = BigSegmentStoreManager(BigSegmentsConfig()).get_user_membership
    evaluator = SdkEvaluator(flags.get, segments.get, membership)
    contexts = [ldclient.Context.from_dict(context) for context in zoo.contexts]
    events = EventFactory(with_reasons=True)

    def evaluate() -> None:
        for context in contexts:
            for flag in flags.values():
                evaluator.evaluate(flag, context, events)

    return evaluate


def per_second(evaluate: Callable[[], None], evaluations: int) -> float:
    begun = time.process_time()
    evaluate()
    return evaluations / (time.process_time() - begun)


def measured(zoo: Zoo, rounds: int) -> dict[str, Any]:
    """Evaluations a second of CPU time, and the flags read a second."""
    evaluations = len(zoo.flags) * len(zoo.contexts)
    both = {"ours": ours(zoo), "python_sdk": theirs(zoo)}
    for evaluate in both.values():
        evaluate()
    speeds: dict[str, list[float]] = {name: [] for name in both}
    for round_ in range(rounds):
        for name in sorted(both, reverse=bool(round_ % 2)):
            speeds[name].append(per_second(both[name], evaluations))
    medians = {name: round(statistics.median(found)) for name, found in speeds.items()}
    return {**medians, "times_as_fast": round(medians["ours"] / medians["python_sdk"], 2)}


def readings(zoo: Zoo) -> int:
    """How many flags are read a second, when each is asked for the first time."""
    context = parse_context(zoo.contexts[0])
    begun = time.process_time()
    for _ in range(10):
        evaluator = Evaluator(zoo.flags, zoo.segments, patterns=read_pattern)
        for key in zoo.flags:
            evaluator.evaluate(key, context)
    return round(10 * len(zoo.flags) / (time.process_time() - begun))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, default=Path("dist/bench_evaluation.json"))
    options = parser.parse_args(arguments)
    # A circle of prerequisites is an error in its log each time.
    logging.disable(logging.CRITICAL)
    zoos = {"own flags": own_flags(), "zoo": draw_zoo(1, flags=FLAGS, contexts=CONTEXTS)}
    found: dict[str, Any] = {name: measured(zoo, options.rounds) for name, zoo in zoos.items()}
    found["flags_read_a_second"] = {name: readings(zoo) for name, zoo in zoos.items()}
    for name in zoos:
        one = found[name]
        print(
            f"{name}: {one['ours']:,} evaluations/s, the Python SDK {one['python_sdk']:,}"
            f" ({one['times_as_fast']} times as fast); {found['flags_read_a_second'][name]:,} flags read/s"
        )
    found["conditions"] = {"python": platform.python_version(), "rounds": options.rounds, "cores": 1}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
