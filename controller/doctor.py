"""Looks at everything Rampart depends on, and says what to do about what is wrong."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from controller.domain.catalogue import PlanRevision
from controller.domain.flag import Unknown
from controller.domain.plan import RolloutPlan
from controller.domain.status import Check
from controller.errors import StoreUnavailable
from controller.peers import HttpPeers, Sighting
from controller.ports import FlagProvider, Store
from controller.presence import Presence
from controller.sources.kinds import Source


class Doctor:
    """Asks, and changes nothing. `database` names the kind in words."""

    def __init__(
        self,
        *,
        database: str,
        store: Store,
        journal: Path,
        sources: Mapping[str, Source],
        providers: Mapping[str, FlagProvider],
        peers: HttpPeers,
        presence: Presence,
    ) -> None:
        self._database = database
        self._store = store
        self._journal = journal
        self._sources = sources
        self._providers = providers
        self._peers = peers
        self._presence = presence

    async def examine(self) -> list[Check]:
        checks = [await self._check_database(), self._check_journal(), *self._check_replicas()]
        checks += [await self._check_source(name, source) for name, source in self._sources.items()]
        if not self._sources:
            fix = "add [sources.NAME] to rampart.toml; without one no rollout can start"
            checks.append(Check(name="sources", ok=False, detail="none is configured", fix=fix))
        return [*checks, *await self._check_plans()]

    async def _check_database(self) -> Check:
        try:
            sequence, _ = await self._store.audit_head()
        except StoreUnavailable as error:
            fix = "start the database; until then Rampart serves SDKs and kills, and raises nothing"
            return Check(name="database", ok=False, detail=f"{self._database}: {error}", fix=fix)
        return Check(name="database", ok=True, detail=f"{self._database} answers; audit head {sequence}", fix="")

    def _check_journal(self) -> Check:
        writable = os.access(self._journal, os.W_OK)
        fix = "" if writable else "make it writable, or a kill will not survive a restart"
        return Check(name="journal", ok=writable, detail=str(self._journal), fix=fix)

    def _check_replicas(self) -> list[Check]:
        raises = self._presence.raises()
        names = [one.name for one in raises.replicas if one.state in {"here", "present"}]
        seen = self._peers.sightings()
        checks = [_replicas(raises.obstacles, names, self._presence.versions)] if self._presence.merged else []
        checks += [self._check_peer(one, names) for one in seen]
        told = {one.replica for one in seen}
        return checks + [_not_told(name) for name in names[1:] if name not in told]

    def _check_peer(self, seen: Sighting, present: Sequence[str]) -> Check:
        name = f"peer {seen.address}"
        if seen.problem:
            fix = "check that it runs, that it can be reached from here, and [peers] in the rampart.toml of both"
            return Check(name=name, ok=False, detail=seen.problem, fix=fix)
        if self._presence.merged and seen.replica not in present:
            detail = f"answers as {seen.replica}, which has not checked in at our database"
            return Check(
                name=name, ok=False, detail=detail, fix="give both the same [database]; see its own doctor"
            )
        return Check(name=name, ok=True, detail=f"answers as {seen.replica}")

    async def _check_source(self, name: str, source: Source) -> Check:
        problems = await source.problems()
        fix = f"check [sources.{name}] in rampart.toml, and that it can be reached from here" if problems else ""
        return Check(name=f"source {name}", ok=not problems, detail="; ".join(problems) or "answers", fix=fix)

    async def _check_plans(self) -> list[Check]:
        try:
            revisions = await self._store.plans()
        except StoreUnavailable:
            return []  # told by the check of the database
        return [await self._check_plan(revision) for revision in revisions]

    async def _check_plan(self, revision: PlanRevision) -> Check:
        plan = revision.plan
        problems = await self._problems(plan)
        name = f"plan {plan.metadata.name}"
        flag = plan.spec.flag
        if problems:
            fix = "mend the flag at the provider, or the plan and apply it again"
            return Check(name=name, ok=False, detail="; ".join(problems), fix=fix)
        return Check(name=name, ok=True, detail=f"{flag} can be read and turned", fix="")

    async def _problems(self, plan: RolloutPlan) -> Sequence[str]:
        flag = plan.spec.flag
        provider = self._providers.get(flag.provider)
        if provider is None:
            return [f'the settings know no provider "{flag.provider}"']
        observed = (await provider.observe([flag])).get(flag, Unknown("the provider did not answer for it"))
        unread = [f"{flag} cannot be read: {observed.why}"] if isinstance(observed, Unknown) else []
        missing = [
            f'no policy is called "{use.policy}"'
            for use in plan.spec.guardrails
            if await self._store.policy(use.policy) is None
        ]
        return [*provider.objections(plan), *unread, *missing]


def _replicas(obstacles: Sequence[str], names: Sequence[str], versions: Collection[str]) -> Check:
    if obstacles:
        fix = "start what is missing on its data directory; `rampart raises` tells more"
        return Check(name="replicas", ok=False, detail=f"nothing rises: {'; '.join(obstacles)}", fix=fix)
    several = f"; versions {', '.join(sorted(versions))}" if len(versions) > 1 else ""
    return Check(name="replicas", ok=True, detail=f"{', '.join(names)} checked in{several}")


def _not_told(name: str) -> Check:
    """Registered and there, but no address of ours leads to it."""
    detail = "is not among our peers: without the database a kill does not reach it"
    return Check(name=f"replica {name}", ok=False, detail=detail, fix="add its address to [peers] in rampart.toml")
