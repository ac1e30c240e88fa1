"""`lint`: everything that is wrong with some files, taken together and with what the server knows."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import islice

from controller.domain.flag import Flag
from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rehearsal import RolloutTest
from controller.manifests.checks import Context, Surroundings, run_checks
from controller.manifests.condition_checks import CONDITION_CHECKS
from controller.manifests.file_checks import allowing, check_file, check_twins
from controller.manifests.flag_checks import FLAG_CHECKS
from controller.manifests.ladder_checks import LADDER_CHECKS
from controller.manifests.loader import Loaded, Manifest, load
from controller.manifests.measurement_checks import MEASUREMENT_CHECKS
from controller.manifests.people_checks import PEOPLE_CHECKS
from controller.manifests.plan_checks import PLAN_CHECKS, check_shared_flags
from controller.manifests.policy_checks import POLICY_CHECKS
from controller.manifests.problem import Problem, has_errors
from controller.manifests.reader import MAX_PROBLEMS
from controller.manifests.rehearsal_checks import REHEARSAL_CHECKS
from controller.manifests.schedule_checks import SCHEDULE_CHECKS

__all__ = ["Surroundings", "lint"]


def lint(
    files: Sequence[tuple[str, bytes]], surroundings: Surroundings | None = None, today: date | None = None
) -> list[Problem]:
    """All problems of these files, sorted by place.

    Without surroundings what only a server knows is left open; with them there are no notes, which are for the
    author's desk. A file whose shape is wrong gets no warnings yet: they would be guesses.
    """
    loaded = [load(text, file) for file, text in files]
    context = _context(loaded, surroundings, today)
    sound = [manifest for one in loaded for manifest in one.documents]
    together = [*check_twins(sound), *check_shared_flags(sound)]
    problems = [problem for one in loaded for problem in _of_file(one, together, context)]
    shown = [problem for problem in problems if surroundings is None or problem.severity != "note"]
    return sorted(shown, key=lambda problem: problem.order)


def _context(loaded: Iterable[Loaded], surroundings: Surroundings | None, today: date | None) -> Context:
    sound = [manifest.value for one in loaded for manifest in one.documents]
    stored = surroundings.policies if surroundings else {}
    unsound = {one.name for file in loaded for one in file.partial if one.kind == GuardrailPolicy.__name__}
    policies = {name: policy for name, policy in stored.items() if name not in unsound}
    policies |= {one.metadata.name: one for one in sound if isinstance(one, GuardrailPolicy)}
    return Context(
        surroundings=surroundings,
        policies=policies,
        declared=frozenset(policies) | unsound,
        flags={(one.spec.environment, one.spec.key): one for one in sound if isinstance(one, Flag)},
        plans={one.metadata.name: one for one in sound if isinstance(one, RolloutPlan)},
        today=today,
    )


def _of_file(loaded: Loaded, together: Sequence[Problem], context: Context) -> Iterator[Problem]:
    tentative = has_errors(loaded.problems)
    found = [*loaded.problems, *(one for one in together if one.file == loaded.source.file), *check_file(loaded)]
    for manifest in (*loaded.documents, *loaded.partial):
        found += islice(_checked(manifest, context), MAX_PROBLEMS)
    known = [problem for problem in found if problem.severity == "error" or not tentative]
    return allowing(known, loaded.source, complete=not tentative)


def _checked(manifest: Manifest, context: Context) -> Iterator[Problem]:
    match manifest.value:
        case RolloutPlan(spec=plan):
            checks = (*PLAN_CHECKS, *LADDER_CHECKS, *SCHEDULE_CHECKS, *PEOPLE_CHECKS)
            yield from run_checks(checks, manifest, plan, context)
        case GuardrailPolicy(spec=policy):
            checks_ = (*POLICY_CHECKS, *CONDITION_CHECKS, *MEASUREMENT_CHECKS)
            yield from run_checks(checks_, manifest, policy, context)
        case Flag(spec=flag):
            yield from run_checks(FLAG_CHECKS, manifest, flag, context)
        case RolloutTest(spec=test):
            yield from run_checks(REHEARSAL_CHECKS, manifest, test, context)
