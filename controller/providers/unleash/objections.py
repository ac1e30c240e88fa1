"""Why Unleash cannot do what a plan says: told when it is applied, not at the stage that needs it."""

from collections.abc import Iterator

from controller.domain.plan import RolloutPlan
from controller.providers.unleash import strategies
from controller.providers.unleash.strategies import FALLBACK, PERCENT, ROLLOUT, SHARE_TITLE, Shown


def objections(plan: RolloutPlan, shown: Shown, most_values: int) -> list[str]:
    """`most_values`: so many values one condition may have. A plan that only observes needs none of this."""
    return [] if plan.spec.mode == "observe" else list(_objections(plan, shown, most_values))


def _objections(plan: RolloutPlan, shown: Shown, most_values: int) -> Iterator[str]:
    serve = plan.spec.serve
    if (serve.rollout, serve.fallback) != (ROLLOUT, FALLBACK):
        yield (
            f"a flag of Unleash is on or off and has no variations to choose from: write serve: "
            f'{{ rollout: "{ROLLOUT}", fallback: "{FALLBACK}" }}, not "{serve.rollout}" and "{serve.fallback}"'
        )
    for stage in plan.spec.stages:
        if stage.share % PERCENT:
            yield (
                f"stage {stage.name}: Unleash takes whole percents only, and its SDKs make of {stage.exposure} "
                f"what each of them likes"
            )
    bucket_by = plan.spec.audience.bucket_by
    if bucket_by == "random":
        yield 'bucketBy: "random" draws anew at every request, so that nobody keeps what they were given'
    yield from _rebucketing(plan, shown)
    yield from _others(shown)
    longest = strategies.most_values(plan.spec.audience.always)
    if longest > most_values:
        yield f"an audience rule lists {longest} values; this Unleash takes {most_values} in a condition"


def _rebucketing(plan: RolloutPlan, shown: Shown) -> Iterator[str]:
    """Ours, with people in it who were chosen in another way than the plan says."""
    wanted = strategies.stickiness(plan.spec.audience.bucket_by)
    for one in shown.shares:
        found = one.parameters.get("stickiness", "default")
        if one.percent and not one.disabled and found != wanted:
            yield (
                f'its strategy "{one.title}" serves {one.percent} % chosen by {found}, the plan says {wanted}: '
                f"write bucketBy: {found}, or bring it to 0 % first"
            )


def _others(shown: Shown) -> Iterator[str]:
    """No stage below them could ever be read back."""
    for one in shown.strategies:
        if not (one.is_share or one.disabled or one.conditional) and one.percent:
            yield (
                f"the flag has another {one} for whoever comes, and whoever fits any strategy is served: "
                f'remove it, or title it "{SHARE_TITLE}" to hand it over'
            )
