"""`python -m tests.chaos`: a course of faults over real replicas, and the table of what came of it."""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from tests.chaos.course import Course
from tests.chaos.faults import FAULTS, schedule
from tests.chaos.report import summary

DEFAULT_FAULTS = 1_000
DEFAULT_ROLLOUTS = 200


def main() -> int:
    options = _options()
    if options.list:
        _print("\n".join(f"{fault.name:<28}{fault.does}" for fault in FAULTS))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: compare, tell, unmount
    folder = Path(tempfile.mkdtemp(prefix="rampart-chaos-"))
    course = Course(folder, seed=options.seed, rollouts=options.rollouts, say=_say)
    report = course.run(schedule(options.seed, options.faults, options.only or ()))
    _print(summary(report))
    if options.json:
        Path(options.json).write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    if report.passed and not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        _print(f"Logs are in {folder}")
    return 0 if report.passed else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="what happens, when and to whom (default: 1)")
    parser.add_argument("--faults", type=int, default=DEFAULT_FAULTS, help=f"how many (default: {DEFAULT_FAULTS})")
    parser.add_argument("--rollouts", type=int, default=DEFAULT_ROLLOUTS, help=f"default: {DEFAULT_ROLLOUTS}")
    parser.add_argument("--only", action="append", metavar="FAULT", help="this kind alone; may be given again")
    parser.add_argument("--json", metavar="FILE", help="write the report there, too")
    parser.add_argument("--keep", action="store_true", help="keep data and logs of a course that passed")
    parser.add_argument("--list", action="store_true", help="list the kinds of faults")
    options = parser.parse_args()
    unknown = set(options.only or []) - {fault.name for fault in FAULTS}
    if unknown:
        parser.error(f"no fault is called {', '.join(sorted(unknown))}; --list shows them all")
    return options


def _say(line: str) -> None:
    _print(f"{time.strftime('%H:%M:%S')} {line}")


def _print(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
