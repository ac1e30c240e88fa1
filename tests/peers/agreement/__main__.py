"""`python -m tests.peers.agreement`: where in the 20,000 answers SDKs differ from ours, seed by seed.

For docs/sdks.md, in Markdown. Needs what `make test-peers` installs.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tests.domain.test_evaluation_agreement import asked as asked_in_python
from tests.peers.test_evaluation_agreement import SEEDS, asked_in_node
from tests.support.flag_zoo import Zoo, draw_zoo
from tests.support.sdk_differences import Answer, Disagreement, disagreements

Answers = Sequence[Mapping[str, Answer]]


def table(zoos: Sequence[Zoo], answers: Mapping[str, Sequence[Answers]]) -> Iterator[str]:
    causes: Counter[tuple[str, str]] = Counter()
    yield "| seed | " + " | ".join(answers) + " |"
    yield "|---" * (len(answers) + 1) + "|"
    for seed, zoo in zip(SEEDS, zoos, strict=True):
        cells = []
        for sdk, answered in answers.items():
            found = disagreements(zoo, answered[seed], sdk.lower())
            causes.update((sdk, cause) for one in found for cause in one.known or ["not known"])
            cells.append(cell(found, zoo, answered[seed]))
        yield f"| {seed} | {' | '.join(cells)} |"
    yield ""
    for (sdk, cause), count in sorted(causes.items(), key=lambda one: (one[0][0], -one[1])):
        yield f"{sdk}: {count} by {cause}"


def cell(found: Sequence[Disagreement], zoo: Zoo, answered: Answers) -> str:
    flags = sorted({one.flag for one in found})
    return f"{len(found)} of {len(answered) * len(zoo.flags)}" + (f" ({', '.join(flags)})" if flags else "")


if __name__ == "__main__":
    zoos = [draw_zoo(seed) for seed in SEEDS]
    answers = {"Python": [asked_in_python(zoo) for zoo in zoos], "Node": asked_in_node(zoos)}
    print("\n".join(table(zoos, answers)))
