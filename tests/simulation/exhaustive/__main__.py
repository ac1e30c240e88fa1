"""`python -m tests.simulation.exhaustive`: every interleaving of a small model of several replicas."""

import argparse
import sys

from tests.simulation.exhaustive.checker import Explorer, Report
from tests.simulation.exhaustive.scopes import BUGS, LARGE, SMALL, Bug
from tests.simulation.exhaustive.state import Left, Scope

LIMIT = 3_000_000


def main() -> int:
    arguments = _arguments()
    scopes = [one for one in (*SMALL, *LARGE) if not arguments.scope or one.name in arguments.scope]
    broken = 0
    if not arguments.only_bugs:
        print(f"{'scope':<20} {'states':>9} {'transitions':>12} {'depth':>5} {'seconds':>8} {'broken':>6}  bounds")
        for scope in scopes:
            broken += _show(Explorer(scope, limit=arguments.limit).explore())
    if arguments.bugs or arguments.only_bugs:
        print(f"\n{'planted bug':<48} {'steps':>5} {'states':>9}  promise that breaks")
        for bug in BUGS:
            broken += not _found(bug, Explorer(bug.planted(), limit=arguments.limit).explore(), arguments.traces)
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.exhaustive", description=__doc__)
    names = [scope.name for scope in (*SMALL, *LARGE)]
    parser.add_argument("--scope", action="append", choices=names, help="explore only this one; may be repeated")
    parser.add_argument("--limit", type=int, default=LIMIT, help=f"give a scope up after so many states ({LIMIT})")
    parser.add_argument("--bugs", action="store_true", help="afterwards plant every bug, and show how it is found")
    parser.add_argument("--only-bugs", action="store_true", help="plant the bugs and explore nothing else")
    parser.add_argument("--traces", action="store_true", help="with the bugs: tell the shortest way to each")
    return parser.parse_args()


def _show(report: Report) -> bool:
    """Whether something is wrong. A scope that was not finished proves nothing, and says so."""
    scope = report.scope
    print(
        f"{scope.name:<20} {report.states:>9} {report.transitions:>12} {report.depth:>5} {report.seconds:>8.1f} "
        f"{report.violations:>6}  {bounds(scope)}"
        + ("" if report.complete or report.violation else "  NOT FINISHED"),
        flush=True,
    )
    if report.violation is not None:
        print("  " + "\n  ".join(report.violation.trace))
    return report.violation is not None or not report.complete


def bounds(scope: Scope) -> str:
    left: Left = scope.left
    counted = [f"{name.replace('_', ' ')} ≤ {most}" for name, most in left._asdict().items() if most]
    moves = "ticks" if scope.ticks else "commands"
    return ", ".join([f"{scope.replicas} replicas", scope.provider, moves, f"exposure ≤ {scope.top}", *counted])


def _found(bug: Bug, report: Report, telling: bool) -> bool:
    violation = report.violation
    if violation is None:
        print(f"{bug.name:<48} {'-':>5} {report.states:>9}  NOT FOUND", flush=True)
        return False
    print(f"{bug.name:<48} {len(violation.trace) - 1:>5} {report.states:>9}  {violation.promise}", flush=True)
    if telling:
        print("  " + "\n  ".join(violation.trace))
    return violation.promise == bug.promise


if __name__ == "__main__":
    sys.exit(main())
