"""`lint`: everything that is wrong with some files, taken together and with what the server knows."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from controller.domain.flag import Flag
from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rehearsal import RolloutTest
from controller.manifests.checks import Context, Surroundings, run_checks
from controller.manifests.loader import Loaded, Manifest, load
from controller.manifests.plan_checks import PLAN_CHECKS
from controller.manifests.policy_checks import POLICY_CHECKS
from controller.manifests.problem import Problem, did_you_mean, has_errors
from controller.manifests.reader import MAX_PROBLEMS
from controller.manifests.rehearsal_checks import REHEARSAL_CHECKS

__all__ = ["Surroundings", "lint"]


def lint(files: Sequence[tuple[str, bytes]], surroundings: Surroundings | None = None) -> list[Problem]:
    """All problems of these files, sorted by place. Without surroundings what only a server knows is left open.

    A file whose shape is wrong gets no warnings yet: they would be guesses.
    """
    loaded = [load(text, file) for file, text in files]
    context = _context(loaded, surroundings)
    problems = [problem for one in loaded for problem in _file_problems(one, context)]
    problems += _twins([manifest for one in loaded for manifest in one.documents])
    return sorted(problems, key=lambda problem: problem.order)


def _context(loaded: Iterable[Loaded], surroundings: Surroundings | None) -> Context:
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
    )


def _file_problems(loaded: Loaded, context: Context) -> Iterator[Problem]:
    yield from loaded.problems
    tentative = has_errors(loaded.problems)
    for manifest in (*loaded.documents, *loaded.partial):
        for problem in islice(_checked(manifest, context), MAX_PROBLEMS):
            if problem.severity == "error" or not tentative:
                yield problem


def _checked(manifest: Manifest, context: Context) -> Iterator[Problem]:
    match manifest.value:
        case RolloutPlan(spec=plan):
            yield from run_checks(PLAN_CHECKS, manifest, plan, context)
        case GuardrailPolicy(spec=policy):
            yield from run_checks(POLICY_CHECKS, manifest, policy, context)
        case RolloutTest(spec=test):
            yield from run_checks(REHEARSAL_CHECKS, manifest, test, context)
        case Flag(spec=flag):
            if not manifest.unsound and flag.off not in flag.variations:
                message = f'off: "{flag.off}" is not one of the variations'
                yield manifest.problem(("spec", "off"), "R072", message, did_you_mean(flag.off, flag.variations))


def _twins(manifests: Iterable[Manifest]) -> Iterator[Problem]:
    """Documents that are defined twice in one call: which one counts would be chance."""
    seen: dict[tuple[str, ...], Manifest] = {}
    for manifest in manifests:
        identity = _identity(manifest)
        first = seen.setdefault(identity, manifest)
        if first is not manifest:
            line, _, _ = first.span(("metadata", "name"))
            message = f'{manifest.kind} "{manifest.name}" is defined twice; the other is at {first.file}:{line}'
            yield manifest.problem(("metadata", "name"), "R055", message, "keep one, or rename it")


def _identity(manifest: Manifest) -> tuple[str, ...]:
    if isinstance(manifest.value, Flag):
        return ("Flag", manifest.value.spec.environment, manifest.value.spec.key)
    return (manifest.kind, manifest.name)
