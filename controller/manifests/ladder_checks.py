"""What can be wrong with stages that do rise: too large a step, no time to see anything, nobody to agree."""

from controller.domain.plan import PlanSpec
from controller.manifests.checks import Check, Context, reading
from controller.manifests.loader import Manifest
from controller.manifests.policy_checks import Problems
from controller.manifests.structure import Path

LARGEST_FIRST = 10_000
LARGEST_STEP = 10
LONGEST_BAKE_SECONDS = 14 * 86400.0
SHORTEST_APPROVAL_SECONDS = 15 * 60.0
LONGEST_APPROVAL_SECONDS = 14 * 86400.0


def check_steps(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    first = spec.stages[0]
    if first.share > LARGEST_FIRST:
        message = f'the first stage "{first.name}" is at {first.exposure}'
        yield manifest.problem(("spec", "stages", 0, "exposure"), "R201", message, "begin with 1% or 5%")
    before = first
    for index, stage in enumerate(spec.stages):
        if 0 < before.share * LARGEST_STEP < stage.share:
            message = (
                f'"{stage.name}" ({stage.exposure}) is {stage.share / before.share:.3g} times '
                f'"{before.name}" ({before.exposure})'
            )
            path: Path = ("spec", "stages", index, "exposure")
            yield manifest.problem(path, "R202", message, "put a stage between them")
        before = max(before, stage, key=lambda one: one.share)


def check_bake_lengths(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    for index, stage in enumerate(spec.stages):
        path: Path = ("spec", "stages", index, "bake")
        if stage.bake_seconds == 0:
            message = f'stage "{stage.name}" does not bake'
            yield manifest.problem(path, "R203", message, "write bake: 30m, or leave the stage out")
        if stage.bake_seconds > LONGEST_BAKE_SECONDS:
            message = f'stage "{stage.name}" bakes {stage.bake}'
            yield manifest.problem(path, "R204", message, "14d at most; were hours meant?")


def check_totals(manifest: Manifest, spec: PlanSpec, context: Context) -> Problems:
    known = [context.policies.get(use.policy) for use in spec.guardrails]
    samples = [policy.spec.min_sample.requests for policy in known if policy]
    if len(samples) < len(known):
        return
    for index, stage in enumerate(spec.stages):
        if stage.min_total is None or stage.min_total.requests > min(samples):
            continue
        message = f"minTotal {stage.min_total.requests} is in every pass anyway: minSample is {min(samples)}"
        path: Path = ("spec", "stages", index, "minTotal", "requests")
        yield manifest.problem(path, "R205", message, "ask for what the whole bake must see, or remove it")


def check_approvals(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    for index, stage in enumerate(spec.stages):
        if stage.approval is None:
            continue
        path: Path = ("spec", "stages", index, "approval")
        timeout = stage.approval.timeout_seconds
        if not SHORTEST_APPROVAL_SECONDS <= timeout <= LONGEST_APPROVAL_SECONDS:
            message = f'the approval of "{stage.name}" expires after {stage.approval.timeout}'
            yield manifest.problem((*path, "timeout"), "R206", message, "write a time people answer in, as in 24h")
        for position, group in enumerate(stage.approval.from_):
            if group in stage.approval.from_[:position]:
                message = f'the group "{group}" stands twice'
                yield manifest.problem(
                    (*path, "from", position), "R207", message, "remove it, or name the other group"
                )


LADDER_CHECKS: tuple[Check[PlanSpec], ...] = (
    Check(check_steps, reading("stages")),
    Check(check_bake_lengths, reading("stages")),
    Check(check_totals, reading("stages", "guardrails")),
    Check(check_approvals, reading("stages")),
)
