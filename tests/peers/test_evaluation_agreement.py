"""Our answers beside those of other people's SDKs: 20,000 each, drawn from seeds.

The Node server SDK evaluates by itself, from a stream of the same flags. All others ask a running Rampart, which
evaluates for them; what they show is compared with our evaluator in this process.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from controller.domain.catalogue import FlagConfig
from controller.domain.evaluation import Evaluation, Evaluator
from controller.patterns import read_pattern
from controller.store.migrations import migrate
from controller.store.postgres import PostgresStore
from tests.support.flag_stream import running_stream
from tests.support.flag_zoo import Data, Zoo, draw_zoo
from tests.support.replicas import Database
from tests.support.repository import ROOT
from tests.support.sdk_differences import DIFFERENCES, Answer, disagreements
from tests.support.server import RampartServer, serving

pytestmark = pytest.mark.timeout(1200)

HERE = ROOT / "tests" / "peers"
PYTHON = ROOT / ".peers" / "python" / "bin" / "python"
SEEDS = range(10)
ANSWERS = 20_000

WITH_DETAILS = ("launchdarkly-js-client-sdk", "@launchdarkly/js-client-sdk", "@launchdarkly/react-sdk")
VALUES_ONLY = "launchdarkly-react-client-sdk"
OPENFEATURE_WEB = "@openfeature/ofrep-web-provider"

Answers = Sequence[Mapping[str, Sequence[Any]]]
"""Context by context: value, variation and reason by flag."""


def run(command: Sequence[str | Path], asked: object) -> Any:
    done = subprocess.run(
        list(map(str, command)), cwd=HERE, input=json.dumps(asked), capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


# — the Node server SDK —


def asked_in_node(zoos: Sequence[Zoo]) -> list[list[dict[str, Answer]]]:
    with ExitStack() as streams:
        questions = []
        for zoo in zoos:
            stream = streams.enter_context(running_stream(zoo.segments))
            for flag in zoo.flags.values():
                stream.send(flag)
            questions.append({"url": stream.url, "flags": list(zoo.flags), "contexts": zoo.contexts})
        answers: list[list[dict[str, Answer]]] = run(["node", "agreement/node_server.mjs"], questions)
        return answers


def test_the_node_server_sdk_gives_our_answer_or_differs_in_a_known_way() -> None:
    zoos = [draw_zoo(seed) for seed in SEEDS]
    answers = asked_in_node(zoos)
    differing = [
        (seed, one)
        for seed, zoo in zip(SEEDS, zoos, strict=True)
        for one in disagreements(zoo, answers[seed], "node")
    ]
    assert count(answers) == ANSWERS
    assert [(seed, one) for seed, one in differing if not one.known] == []
    assert len(differing) < 0.05 * ANSWERS, "a zoo that is all exceptions tests nothing"


def as_legacy_user(context: Data) -> Data:
    """As SDKs described users before there were kinds."""
    beside: Data = {name: context[name] for name in ("key", "name", "email", "anonymous") if name in context}
    return {**beside, "custom": {name: value for name, value in context.items() if name not in (*beside, "kind")}}


def test_users_without_a_kind_are_the_same_to_the_node_server_sdk() -> None:
    zoo = draw_zoo(0, contexts=200)
    users = zoo._replace(contexts=[as_legacy_user(one) for one in zoo.contexts if one["kind"] == "user"])
    assert len(users.contexts) > 50
    (answers,) = asked_in_node([users])
    assert [one for one in disagreements(users, answers, "node") if not one.known] == []


def test_every_difference_of_the_node_server_sdk_is_still_there_and_is_nowhere_else() -> None:
    """One that is gone is to be taken out of docs/sdks.md, too."""
    answers = asked_in_node([one.specimen for one in DIFFERENCES])
    for difference, answered in zip(DIFFERENCES, answers, strict=True):
        found = disagreements(difference.specimen, answered, "node")
        shown = [one.known for one in found if one.flag == "specimen"]
        assert [difference.name in known for known in shown] == ([True] if "node" in difference.sdks else []), (
            found
        )


# — what asks Rampart —


class Gate(NamedTuple):
    """A running Rampart that serves one zoo in each environment, and the public ID of each."""

    url: str
    zoos: list[Zoo]
    ids: list[str]

    def questions(self, ask: Callable[[Zoo], Data]) -> list[Data]:
        both = zip(self.zoos, self.ids, strict=True)
        return [{"url": self.url, "id": id_, "flags": list(zoo.flags), **ask(zoo)} for zoo, id_ in both]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    # Many flags for each context: it is contexts that take browsers their time.
    zoos = [draw_zoo(seed, flags=100, segments=0, contexts=20) for seed in SEEDS]
    database = Database(tmp_path_factory.mktemp("database"))
    try:
        asyncio.run(stored(database.url, zoos))
        settings = f'[database]\nurl = "{database.url}"\n'
        with serving(tmp_path_factory.mktemp("rampart"), settings) as server:
            yield Gate(server.url, zoos, [client_id(server, environment(zoo)) for zoo in range(len(zoos))])
    finally:
        database.stop()


async def stored(url: str, zoos: Sequence[Zoo]) -> None:
    """Flags of every shape, which no manifest of ours could make."""
    await migrate(url)
    store = PostgresStore(url, pool_size=2, timeout_seconds=10.0)
    await store.connect()
    for number, zoo in enumerate(zoos):
        for key, flag in zoo.flags.items():
            await store.save_flag_config(config_of(environment(number), key, flag))
    await store.close()


def config_of(environment: str, key: str, flag: Data) -> FlagConfig:
    for_browsers = {
        "clientSide": True,
        "clientSideAvailability": {"usingEnvironmentId": True, "usingMobileKey": True},
    }
    return FlagConfig(
        environment=environment,
        key=key,
        version=flag["version"],
        variations={variant(index): value for index, value in enumerate(flag["variations"])},
        data={**flag, **for_browsers},
    )


def environment(number: int) -> str:
    return f"zoo-{number}"


def variant(index: int) -> str:
    return f"variant-{index}"


def client_id(server: RampartServer, environment: str) -> str:
    made = server.call("POST", "sdk-keys", {"name": environment, "environment": environment, "kind": "client"})
    return str(made["secret"])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bundle") / "web.js"
    esbuild = HERE / "node_modules" / ".bin" / "esbuild"
    options = ["--bundle", "--jsx=automatic", "--format=iife", '--define:process.env.NODE_ENV="production"']
    command = [esbuild, "agreement/web.jsx", *options, f"--outfile={made}", "--log-level=error"]
    subprocess.run(list(map(str, command)), cwd=HERE, check=True, timeout=60)
    return made


def in_chromium(bundle: Path, sdk: str, questions: list[Data]) -> list[Answers]:
    chromium = shutil.which("chromium")
    assert chromium, "tests/peers/install.sh installs it"
    answers: list[Answers] = run(
        ["node", "agreement/browser.mjs", chromium, bundle], {"sdk": sdk, "questions": questions}
    )
    return answers


def count(answers: Sequence[Answers]) -> int:
    return sum(len(answered) for zoo in answers for answered in zoo)


def ours(zoo: Zoo) -> list[dict[str, Evaluation]]:
    evaluator = Evaluator(zoo.flags, zoo.segments, patterns=read_pattern)
    return [{key: evaluator.evaluate(key, context) for key in zoo.flags} for context in zoo.contexts]


@pytest.mark.parametrize("sdk", WITH_DETAILS)
def test_a_browser_shows_our_values_variations_and_reasons(gate: Gate, bundle: Path, sdk: str) -> None:
    answers = in_chromium(bundle, sdk, gate.questions(lambda zoo: {"contexts": zoo.contexts}))
    assert count(answers) == ANSWERS
    for zoo, answered in zip(gate.zoos, answers, strict=True):
        assert disagreements(zoo, answered, sdk) == []


def test_a_page_of_react_shows_our_values(gate: Gate, bundle: Path) -> None:
    answers = in_chromium(bundle, VALUES_ONLY, gate.questions(lambda zoo: {"contexts": zoo.contexts}))
    assert count(answers) == ANSWERS
    for zoo, answered in zip(gate.zoos, answers, strict=True):
        for theirs, own in zip(answered, ours(zoo), strict=True):
            assert {key: value for key, (value, *_) in theirs.items()} == {
                key: one.value for key, one in own.items()
            }


# — OpenFeature —


def as_openfeature(context: Data) -> Data:
    """The same context with OpenFeature's word for its key."""
    if context["kind"] != "multi":
        return {"targetingKey": context["key"], **{name: one for name, one in context.items() if name != "key"}}
    return {"targetingKey": "of no consequence", **context}


def asked_as(zoo: Zoo, types: Callable[[Any], str]) -> Data:
    """OpenFeature asks for a type: the one of what is served."""
    wanted = [{key: types(one.value) for key, one in answered.items()} for answered in ours(zoo)]
    return {"contexts": list(map(as_openfeature, zoo.contexts)), "types": wanted}


def shown(evaluation: Evaluation) -> tuple[Any, str | None]:
    """Value and variant. Without a value the caller keeps its default, which here is nothing."""
    if evaluation.value is None:
        return None, None
    assert evaluation.variation is not None
    return evaluation.value, variant(evaluation.variation)


def json_type(value: Any) -> str:
    names = {bool: "boolean", str: "string", int: "number", float: "number"}
    return names.get(type(value), "object")


def python_type(value: Any) -> str:
    return {int: "integer", float: "float"}.get(type(value)) or json_type(value)


def assert_shown(gate: Gate, answers: Sequence[Answers]) -> None:
    assert count(answers) == ANSWERS
    for zoo, answered in zip(gate.zoos, answers, strict=True):
        for theirs, own in zip(answered, ours(zoo), strict=True):
            found = {key: (value, name if value is not None else None) for key, (value, name, _) in theirs.items()}
            assert found == {key: shown(one) for key, one in own.items()}


def test_openfeature_in_a_browser_shows_our_values_and_variants(gate: Gate, bundle: Path) -> None:
    questions = gate.questions(lambda zoo: asked_as(zoo, json_type))
    assert_shown(gate, in_chromium(bundle, OPENFEATURE_WEB, questions))


def test_openfeature_in_python_shows_our_values_and_variants(gate: Gate) -> None:
    questions = gate.questions(lambda zoo: asked_as(zoo, python_type))
    answers = [run([PYTHON, "agreement/ofrep_client.py"], question) for question in questions]
    assert_shown(gate, answers)
