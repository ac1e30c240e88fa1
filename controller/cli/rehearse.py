"""`rampart test`: policies and plans rehearsed on synthetic series, here and without a server."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import click
import msgspec

from controller.cli.exits import Exit, Failure
from controller.cli.files import collect, paths_argument
from controller.cli.options import output_choice
from controller.cli.terminal import counted, say, show, show_json
from controller.manifests.folder import SUFFIXES, TEST_SUFFIXES

if TYPE_CHECKING:
    from controller.manifests.loader import Manifest
    from controller.rehearsal.running import Finding, Moment, Result

Files = Sequence[tuple[str, bytes]]
LONGEST_TIMELINE = 40


@click.command("test")
@paths_argument
@output_choice("text", "json", "junit")
@click.option("-k", "chosen", metavar="TEXT", default="", help="Only the tests whose name contains it.")
@click.option("-v", "--verbose", is_flag=True, help="Show what happened in the tests that passed too.")
def test(paths: tuple[str, ...], output: str, chosen: str, verbose: bool) -> int:
    """Rehearse policies and plans without a server.

    Of a folder every *.test.yaml is played. The policies and plans they test are those beside them. What is judged
    and decided is what the server would; only the series and the time are made up. Exits with 1 when a test fails.
    docs/policy-tests.md tells how to write one.

    \b
    Examples:
      rampart test policies/
      rampart test web-service.test.yaml --verbose
      rampart test policies/ --output junit > report.xml
    """
    # Here and not above: they load the YAML and PromQL parsers, which a kill has no time for.
    from controller.rehearsal.running import rehearse  # noqa: PLC0415

    manifests = _sound(_with_neighbours(collect(paths, TEST_SUFFIXES)))
    results = list(rehearse(manifests, chosen))
    if not results:
        what = f'no test is called "{chosen}"' if chosen else "there is no test in these files"
        raise Failure(what, Exit.USAGE, hint="their names end in .test.yaml")
    match output:
        case "json":
            show_json(msgspec.json.encode(results))
        case "junit":
            click.echo(_junit(results))
        case _:
            show(_lines(results, verbose))
    failed = sum(not one.passed for one in results)
    say(f"{counted(len(results) - failed, 'test')} passed, {failed} failed")
    return Exit.FINDING if failed else Exit.OK


def _with_neighbours(files: Files) -> Files:
    """And the policies and plans in the folders of these tests, so that a test finds what it is about."""
    given = {Path(name).resolve() for name, _ in files}
    folders = {Path(name).resolve().parent: str(Path(name).parent) for name, _ in files if name != "stdin"}
    beside = [
        str(Path(folder) / one.name)
        for place, folder in folders.items()
        for one in sorted(place.iterdir())
        if one.name.endswith(SUFFIXES) and one.resolve() not in given
    ]
    return [*files, *collect(beside)] if beside else files


def _sound(files: Files) -> list["Manifest"]:
    """The documents of all files. Raises Failure when one of them has an error, after showing all."""
    from controller.manifests.lint import lint  # noqa: PLC0415 - as above
    from controller.manifests.loader import load  # noqa: PLC0415 - as above
    from controller.manifests.problem import render  # noqa: PLC0415 - as above

    errors = [problem for problem in lint(files) if problem.severity == "error"]
    if errors:
        for problem in errors:
            say(render(problem))
        raise Failure(f"{counted(len(errors), 'error')} in what is to be tested", Exit.FINDING)
    return [manifest for name, text in files for manifest in load(text, name).documents]


# — for people —


def _lines(results: Sequence["Result"], verbose: bool) -> Iterator[str]:
    for file, group in groupby(results, key=lambda one: one.file):
        yield click.style(file, bold=True)
        for one in group:
            mark = click.style("✔", fg="green") if one.passed else click.style("✘", fg="red", bold=True)
            yield f"  {mark} {one.test}"
            if not one.passed:
                yield from _failure(one)
            if verbose or not one.passed:
                yield from _timeline(one)


def _failure(result: "Result") -> Iterator[str]:
    for finding in result.findings:
        yield f"    {_place(result, finding)}: " + click.style(f"expected {finding.expected}", fg="red")
        yield f"      {finding.found}"


def _place(result: "Result", finding: "Finding") -> str:
    return f"{result.file}:{finding.line}:{finding.column}"


def _timeline(result: "Result") -> Iterator[str]:
    from controller.rehearsal.comparing import clock  # noqa: PLC0415 - as above

    if not result.timeline:
        return
    yield "    what happened:"
    for moment in result.timeline[:LONGEST_TIMELINE]:
        yield f"    {clock(moment.at_seconds):>9}  {_told(moment)}"
    left = len(result.timeline) - LONGEST_TIMELINE
    if left > 0:
        yield f"               … and {left} more; --output json has them all"
    yield f"          end  {result.ended}"


def _told(moment: "Moment") -> str:
    return click.style(f"held: {moment.reason}", dim=True) if moment.action == "hold" else moment.reason


# — for programs —


def _junit(results: Sequence["Result"]) -> str:
    suites = ElementTree.Element("testsuites", name="rampart test")
    for file, group in groupby(results, key=lambda one: one.file):
        cases = list(group)
        failures = str(sum(not one.passed for one in cases))
        suite = ElementTree.SubElement(suites, "testsuite", name=file, tests=str(len(cases)), failures=failures)
        for one in cases:
            case = ElementTree.SubElement(
                suite, "testcase", classname=one.tested, name=one.test, file=one.file, line=str(one.line)
            )
            if not one.passed:
                message = "; ".join(f"expected {found.expected}: {found.found}" for found in one.findings)
                failure = ElementTree.SubElement(case, "failure", message=message)
                failure.text = "\n".join(click.unstyle(line) for line in (*_failure(one), *_timeline(one)))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True)
