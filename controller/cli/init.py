"""The first files of a rollout, from a few answers."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import click
from msgspec import Struct

from controller.cli.exits import Exit, Failure
from controller.cli.terminal import on_terminal, say, show
from controller.domain.binding import VALUE_PATTERN
from controller.domain.quantities import KEY_PATTERN, NAME_PATTERN

SCAFFOLD = Path(__file__).with_name("scaffold")
BUILT_IN = "main"
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._-]*\Z")
NOT_WORDS = frozenset({"true", "false", "null", "yes", "no", "y", "n", "on", "off"})


class Form(click.ParamType[str]):
    """Text of one form, which `example` describes. `optional` lets it be empty."""

    name = "text"

    def __init__(self, pattern: str, example: str, *, optional: bool = False) -> None:
        self._pattern = pattern
        self._example = example
        self._optional = optional

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        if re.search(self._pattern, text) or (self._optional and not text):
            return text
        return self.fail(f'"{text}" is not {self._example}', param, ctx)


A_NAME = "a name: lower-case letters, digits, '-', '_' and '.'"
NAME = Form(NAME_PATTERN, A_NAME)
CHANNEL = Form(NAME_PATTERN, A_NAME, optional=True)
KEY = Form(KEY_PATTERN, "a flag's key: letters, digits, '-', '_' and '.'")
VALUE = Form(VALUE_PATTERN, "the value of a label: letters, digits and _ . : / -")
OWNER = Form(r"^[^\x00-\x1f\x7f]{1,100}$", "the name of a team")
LINK = Form(r"^https://\S+$", "an address that begins with https://", optional=True)


class Question(Struct, frozen=True):
    """`default` may name other answers, as in `team-{service}`; None: there is no sensible one."""

    name: str
    form: Form
    text: str
    default: str | None


QUESTIONS = (
    Question("flag", KEY, "Key of the flag", None),
    Question("environment", NAME, "Environment", "production"),
    Question("service", VALUE, "Service that is watched", None),
    Question("source", NAME, "Source of measurements, as in rampart.toml", "prod-prometheus"),
    Question("provider", NAME, "Provider of the flag, as in rampart.toml", BUILT_IN),
    Question("owner", OWNER, "Team that answers for it", "team-{service}"),
    Question("runbook", LINK, "Address of a runbook (Enter: none)", ""),
    Question("channel", CHANNEL, "Channel to tell of a pause or kill, as in rampart.toml (Enter: none)", ""),
)


@click.command()
@click.option("--flag", type=KEY, metavar="KEY", help="The flag that will be raised.")
@click.option("--environment", type=NAME, metavar="NAME", help="Where it is raised. Default: production.")
@click.option("--service", type=VALUE, metavar="NAME", help="What is watched: the label service of its series.")
@click.option("--source", type=NAME, metavar="NAME", help="A source of rampart.toml. Default: prod-prometheus.")
@click.option(
    "--provider",
    type=NAME,
    metavar="NAME",
    help="A provider of rampart.toml. Default: main, the built-in one; for another no flag is written.",
)
@click.option("--owner", type=OWNER, metavar="TEAM", help="Who answers for it. Default: team-SERVICE.")
@click.option("--runbook", type=LINK, metavar="URL", help="What to read when it was paused or killed.")
@click.option("--channel", type=CHANNEL, metavar="NAME", help="A channel of rampart.toml to tell of that.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    metavar="FOLDER",
    help="Where to write. Default: here.",
)
@click.option("-y", "--yes", is_flag=True, help="Ask nothing: take the defaults for what is not given.")
def init(folder: Path, yes: bool, **given: str | None) -> int:
    """Write a plan, a policy, its test and a flag to begin with.

    What is not given is asked for on a terminal; without one, --flag and --service are needed. Nothing is ever
    overwritten. The policy reads the series of the recommended instrumentation: look through it, and at the stages
    of the plan.

    \b
    Example:
      rampart init
      rampart init --flag checkout-v2 --service checkout --folder rollouts
    """
    answers = _answers(given, asking=on_terminal() and not yes)
    files = scaffolded(answers)
    _write(folder, files)
    show(f"wrote {folder / name}" for name in files)
    _tell_what_is_next(folder, list(files), as_name(answers["flag"]))
    return Exit.OK


def _answers(given: Mapping[str, str | None], *, asking: bool) -> dict[str, str]:
    missing = [f"--{one.name}" for one in QUESTIONS if one.default is None and given[one.name] is None]
    if missing and not asking:
        raise Failure(f"without a terminal {' and '.join(missing)} must be given", Exit.USAGE)
    answers: dict[str, str] = {}
    for one in QUESTIONS:
        value = given[one.name]
        default = one.default.format(**answers) if one.default is not None else None
        if value is None and asking:
            value = click.prompt(one.text, type=one.form, default=default, show_default=bool(default), err=True)
        answers[one.name] = default or "" if value is None else value
    return answers


def scaffolded(answers: Mapping[str, str]) -> dict[str, str]:
    """Text by file name."""
    plan, policy = as_name(answers["flag"]), as_name(answers["service"])
    words = {name: quoted(text) for name, text in answers.items()}
    words |= {"plan": quoted(plan), "policy": quoted(policy)}
    runbook, channel = answers["runbook"], words["channel"]
    words["links"] = f"  links: {{ runbook: {json.dumps(runbook)} }}\n" if runbook else ""
    words["notify"] = f"  notify: [{{ to: {channel}, events: [killed, paused] }}]\n" if answers["channel"] else ""
    files = {
        f"{plan}.flag.yaml": "flag.yaml",
        f"{plan}.rollout.yaml": "plan.yaml",
        f"{policy}.policy.yaml": "policy.yaml",
        f"{policy}.test.yaml": "test.yaml",
    }
    if answers["provider"] != BUILT_IN:
        del files[f"{plan}.flag.yaml"]
    return {name: _filled(template, words) for name, template in files.items()}


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = (SCAFFOLD / template).read_text()
    return re.sub(r"\{\{(\w+)\}\}", lambda found: words[found[1]], text)


def as_name(text: str) -> str:
    """What comes nearest to the text and may name a document."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:100].rstrip("._-") or "rollout"


def quoted(text: str) -> str:
    """As YAML takes it for this text: `007` and `on` would be something else."""
    return text if PLAIN.match(text) and text.lower() not in NOT_WORDS else json.dumps(text, ensure_ascii=False)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    there = [str(folder / name) for name in files if (folder / name).exists()]
    if there:
        hint = "give another --folder, or remove what is there"
        raise Failure(f"already there: {', '.join(there)}; nothing was written", Exit.CONFLICT, hint=hint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with (folder / name).open("x") as file:
                file.write(text)
    except OSError as error:
        raise Failure(f"cannot write {error.filename}: {error.strerror}", Exit.USAGE) from error


def _tell_what_is_next(folder: Path, names: Iterable[str], plan: str) -> None:
    where = shlex.join(names) if folder == Path() else shlex.quote(str(folder))
    say("next:")
    for verb in ("lint", "test", "apply"):
        say(f"  rampart {verb} {where}")
    say(f"and when its service is measured: rampart start {plan}")
