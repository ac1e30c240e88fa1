"""The first files of a rollout: they are clean, their test passes, and nothing is overwritten."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from controller.cli.init import as_name, quoted
from controller.manifests.lint import lint
from controller.manifests.problem import render
from tests.cli.conftest import Rampart
from tests.cli.terminal import Terminal
from tests.support.repository import ROOT

MINIMAL = ("init", "--flag", "checkout-v2", "--service", "checkout")
NAMES = ["checkout-v2.flag.yaml", "checkout-v2.rollout.yaml", "checkout.policy.yaml", "checkout.test.yaml"]
COMPLETE = (
    *MINIMAL, "--environment", "staging", "--source", "metrics", "--owner", "Team \"Shop\"", "--runbook",
    "https://runbooks.example/checkout", "--channel", "oncall",
)  # fmt: skip
ODD = ("init", "--flag", "007", "--service", "on", "--environment", "null", "--owner", "it's: #1 {team}")


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.yaml"))


@pytest.mark.parametrize("arguments", [MINIMAL, COMPLETE, ODD])
def test_what_is_written_is_clean_and_its_test_passes(
    rampart: Rampart, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert rampart(*arguments).returncode == 0
    found = lint([(path.name, path.read_bytes()) for path in sorted(tmp_path.glob("*.yaml"))])
    severe = [problem for problem in found if problem.severity != "note"]
    assert severe == [], "\n".join(map(render, severe))
    tested = rampart("test", ".")
    assert (tested.returncode, "4 tests passed" in tested.stderr) == (0, True), tested.stdout


def test_the_answers_are_in_the_files(rampart: Rampart, tmp_path: Path) -> None:
    assert rampart(*COMPLETE).returncode == 0
    plan = yaml.safe_load((tmp_path / "checkout-v2.rollout.yaml").read_text())
    assert plan["metadata"]["owner"] == 'Team "Shop"'
    assert plan["metadata"]["links"] == {"runbook": "https://runbooks.example/checkout"}
    assert plan["spec"]["flag"] == {"provider": "main", "environment": "staging", "key": "checkout-v2"}
    assert plan["spec"]["guardrails"] == [{"policy": "checkout", "with": {"service": "checkout"}}]
    assert plan["spec"]["notify"][0]["to"] == "oncall"
    assert yaml.safe_load((tmp_path / "checkout.policy.yaml").read_text())["spec"]["source"] == "metrics"
    assert "{{" not in "".join(path.read_text() for path in tmp_path.glob("*.yaml"))


def test_the_policy_reads_the_series_of_the_recommended_instrumentation(rampart: Rampart, tmp_path: Path) -> None:
    rampart(*MINIMAL)
    ours = yaml.safe_load((tmp_path / "checkout.policy.yaml").read_text())["spec"]["metrics"]
    example = yaml.safe_load((ROOT / "policies" / "web-service.policy.yaml").read_text())["spec"]["metrics"]
    assert ours == example


def test_the_next_commands_are_the_ones_that_are_told(rampart: Rampart) -> None:
    told = rampart(*MINIMAL, "--folder", "my rollouts").stderr.splitlines()
    assert told == [
        "next:",
        "  rampart lint 'my rollouts'",
        "  rampart test 'my rollouts'",
        "  rampart apply 'my rollouts'",
        "and when its service is measured: rampart start checkout-v2",
    ]
    assert f"  rampart apply {' '.join(NAMES)}" in rampart(*MINIMAL).stderr.splitlines()


def test_nothing_is_overwritten_and_then_nothing_is_written(rampart: Rampart, tmp_path: Path) -> None:
    (tmp_path / "checkout.policy.yaml").write_text("mine")
    told = rampart(*MINIMAL)
    assert told.returncode == 5
    assert "already there: checkout.policy.yaml; nothing was written" in told.stderr
    assert written(tmp_path) == ["checkout.policy.yaml"]
    assert (tmp_path / "checkout.policy.yaml").read_text() == "mine"


def test_for_a_flag_of_another_provider_no_flag_is_written(rampart: Rampart, tmp_path: Path) -> None:
    assert rampart(*MINIMAL, "--provider", "launchdarkly").returncode == 0
    assert written(tmp_path) == NAMES[1:]


def test_without_a_terminal_what_cannot_be_guessed_must_be_given(rampart: Rampart, tmp_path: Path) -> None:
    told = rampart("init", "--environment", "staging")
    assert told.returncode == 2
    assert "--flag and --service must be given" in told.stderr
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--flag", "two words"),
        ("--environment", "Prod"),
        ("--service", 'a"b'),
        ("--runbook", "http://x"),
        ("--owner", ""),
    ],
)
def test_an_answer_that_would_not_pass_the_lint_is_refused(rampart: Rampart, option: str, value: str) -> None:
    told = rampart(*MINIMAL, option, value)
    assert told.returncode == 2
    assert f'"{value}" is not ' in told.stderr


def test_on_a_terminal_it_asks_and_offers_defaults(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    screen = terminal("init", "--folder", "rollouts", "--source", "metrics")
    screen.see("Key of the flag: ")
    screen.type("no key\n")
    screen.see('"no key" is not a flag\'s key')
    screen.type("checkout-v2\n")
    screen.see("Environment [production]: ")
    screen.type("staging\n")
    screen.see("Service that is watched: ")
    screen.type("checkout\n")
    screen.see("Provider of the flag, as in rampart.toml [main]: ")
    screen.type("\n")
    screen.see("Team that answers for it [team-checkout]: ")
    screen.type("\n")
    screen.see("Address of a runbook (Enter: none): ")
    screen.type("\n")
    screen.see("Channel to tell of a pause or kill, as in rampart.toml (Enter: none): ")
    screen.type("\n")
    assert "rampart start checkout-v2" in screen.see("rampart start")
    assert screen.exit_code() == 0
    assert written(tmp_path / "rollouts") == NAMES
    assert "environment: staging" in (tmp_path / "rollouts" / NAMES[0]).read_text()


def test_a_terminal_is_asked_nothing_when_the_defaults_will_do(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(*MINIMAL, "--yes")
    assert screen.exit_code() == 0


@pytest.mark.parametrize(
    "text", ["on", "No", "007", "1.5", "0x1f", "null", "a", "a: b", "~", "checkout-v2", "x#y"]
)
def test_a_word_is_read_back_as_the_text_it_was(text: str) -> None:
    for parsed in (yaml.safe_load(f"[{quoted(text)}]"), yaml.safe_load(f"{{ a: {quoted(text)} }}")["a"]):
        assert parsed in (text, [text])


def test_any_key_gives_a_name() -> None:
    assert [as_name(text) for text in ("Checkout.V2", "__x__", "---", "a/b:c")] == [
        "checkout.v2",
        "x",
        "rollout",
        "a-b-c",
    ]
