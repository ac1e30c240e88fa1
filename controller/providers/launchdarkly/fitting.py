"""Whether a plan fits a flag of LaunchDarkly and what we may do to it there: asked before anything is begun."""

from collections import Counter
from collections.abc import Iterator

from controller.domain.flag import SetShare
from controller.domain.plan import PlanSpec, RolloutPlan
from controller.errors import Refused
from controller.providers.launchdarkly import writing
from controller.providers.launchdarkly.faults import METHOD_NOT_ALLOWED, Failed, explained
from controller.providers.launchdarkly.model import Config, RestFlag
from controller.providers.launchdarkly.reading import label, own_release, running_release
from controller.providers.launchdarkly.rest import RestApi

NOT_IN_EVERY_ACCOUNT = frozenset({403, 404})


class Fitting:
    def __init__(self, rest: RestApi, *, has_sdk_key: bool) -> None:
        self._rest = rest
        self._has_sdk_key = has_sdk_key

    async def objections(self, plan: RolloutPlan) -> list[str]:
        """Writes nothing; a plan that is to be enforced has its changes tried without keeping them."""
        spec = plan.spec
        flag = spec.flag
        try:
            found = await self._rest.flag(flag.key, flag.environment)
        except Failed as failed:
            return [explained(failed, flag=flag.key)]
        config = found.environments.get(flag.environment)
        if config is None:
            return [f"the flag {flag.key} has no environment {flag.environment} at LaunchDarkly"]
        objections = list(_misfits(spec, found, config))
        if objections or spec.mode == "observe":
            return objections
        if not self._has_sdk_key:
            objections.append(
                f"nobody could see what applications in {flag.environment} get: name the file of its SDK key in "
                "sdk_key_files"
            )
        return objections + await self._releases(spec) + await self._turned_down(spec, found, config)

    async def _releases(self, spec: PlanSpec) -> list[str]:
        """Also of those that show nothing in the flag yet."""
        flag = spec.flag
        try:
            under_way = await self._rest.releases(flag.key, flag.environment)
        except Failed as failed:
            if failed.status in NOT_IN_EVERY_ACCOUNT:
                return []  # a beta resource; what is under way shows in the flag, too
            return [f"whether LaunchDarkly runs a release on {flag.key} is unknown: {explained(failed)}"]
        return [own_release(flag.key, f"of the kind {one.kind or 'guarded'} ({one.status})") for one in under_way]

    async def _turned_down(self, spec: PlanSpec, found: RestFlag, config: Config) -> list[str]:
        """What the token may not do, before it matters: the last stage's change and a kill, as a dry run."""
        change = SetShare(
            flag=spec.flag,
            serve=spec.serve,
            exposure=spec.stages[-1].share,
            audience=tuple(spec.audience.always),
            bucket_by=spec.audience.bucket_by,
            comment="",
        )
        try:
            tried = [writing.TURN_OFF, *writing.share(found, config, change)]
            comment = f"Rampart: can {spec.flag.key} be changed as its plan asks?"
            await self._rest.patch(found.key, spec.flag.environment, tried, comment, purpose="raise", dry_run=True)
        except Refused as error:
            return [str(error)]
        except Failed as failed:
            if failed.status == METHOD_NOT_ALLOWED:
                return [f"{explained(failed)}; without that no kill can be automatic"]
            return [explained(failed, flag=found.key)]
        return []


def _misfits(spec: PlanSpec, flag: RestFlag, config: Config) -> Iterator[str]:
    serve, labels = spec.serve, flag.labels
    if flag.archived:
        yield f"the flag {flag.key} is archived at LaunchDarkly"
    for name in dict.fromkeys([serve.rollout, serve.fallback]):
        if name not in labels:
            has = ", ".join(labels)
            yield (
                f'the flag {flag.key} has no variation "{name}", it has {has} '
                "(names; a variation without a name goes by its value as JSON)"
            )
        elif Counter(labels)[name] > 1:
            yield f'several variations of {flag.key} are called "{name}": give them different names'
    if serve.rollout == serve.fallback:
        yield f'serve: rollout and fallback are both "{serve.rollout}"'
    if config.off_variation is None:
        yield f"the flag {flag.key} has no variation for when it is off: choose {serve.fallback} at LaunchDarkly"
    elif (off := label(labels, config.off_variation)) != serve.fallback:
        yield f'the flag {flag.key} serves "{off}" when it is off, the plan\'s fallback is "{serve.fallback}"'
    if (where := running_release(config)) is not None:
        yield own_release(flag.key, where)
