"""Takes in what people apply: checks it, compares it with what is stored, and stores the difference.

It starts nothing. Runs that are under way stay with the revisions they were started with.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from controller.access import Actor
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Applied, FlagConfig, PlanRevision, PolicyRevision, Unreadable
from controller.domain.flag import Flag, FlagSpec
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rehearsal import RolloutTest
from controller.domain.sdkflag import new_flag, opens, redefined
from controller.domain.status import ApplyResult, Change, FlagOutlook, StoredDocument
from controller.errors import Invalid, RampartError, Refused
from controller.manifests.diff import diff
from controller.manifests.lint import Surroundings, lint
from controller.manifests.loader import Document, load
from controller.manifests.problem import Problem, has_errors
from controller.ports import Clock, FlagProvider, Store
from controller.preview import Newest, Observe, Preview, Situation, behind
from controller.settings import Settings

log = structlog.get_logger()

Files = Sequence[tuple[str, bytes]]
"""(name as the author knows it, content)."""

DocumentT = TypeVar("DocumentT", RolloutPlan, GuardrailPolicy, Flag)

KIND_WORDS = {"RolloutPlan": "plan", "GuardrailPolicy": "policy", "Flag": "flag"}


class InvalidManifests(Invalid):
    """`findings` are lint's, warnings included, each with file, line and column."""

    def __init__(self, findings: Sequence[Problem]) -> None:
        errors = [finding for finding in findings if finding.severity == "error"]
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{first.file}:{first.line}:{first.column}: {first.message}{more}")
        self.findings = tuple(findings)


class Edit(Struct, frozen=True, kw_only=True):
    """One document beside what is stored under its name; `revision` is the stored one, 0 for none."""

    document: Document
    before: Document | None
    changes: list[Change]
    revision: int

    @property
    def label(self) -> str:
        return f"{type(self.document).__name__}/{self.document.metadata.name}"


class Stored(Struct, frozen=True, kw_only=True):
    """Everything that matters to an apply, as it was when the apply began."""

    plans: Mapping[str, PlanRevision]
    policies: Mapping[str, PolicyRevision]
    flags: Mapping[tuple[str, str], FlagConfig]
    situation: Situation
    unreadable: Sequence[Unreadable] = ()


class Registrar:
    """`applied` is called after something was stored, so that this replica need not wait for its next look."""

    def __init__(
        self,
        store: Store,
        providers: Mapping[str, FlagProvider],
        settings: Settings,
        clock: Clock,
        observe: Observe,
        applied: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._providers = providers
        self._settings = settings
        self._clock = clock
        self._preview = Preview(store, observe)
        self._applied = applied

    async def apply(
        self, files: Files, actor: Actor, *, dry_run: bool, note: str = "", look: bool = False
    ) -> ApplyResult:
        """Policies, then flags, then plans, in whatever order and files they came.

        All of it or nothing. `look`: also tell what it means to runs, and what providers show. Raises
        InvalidManifests, Invalid, Refused, Forbidden or Conflict, and nothing was stored; after StoreUnavailable
        everything may have been, and applying again does no harm.
        """
        stored = await self._stored()
        documents, warnings = await asyncio.to_thread(self._read, files, stored)
        edits = [_edit(document, stored) for document in documents]
        changed = [edit for edit in edits if edit.changes]
        if not dry_run or actor.may("author"):  # whoever may only read may compare
            _authorise(actor, changed, stored)
        await self._object(changed, stored)
        newest = _newest(stored, changed, actor, self._clock.now())
        names = {edit.document.metadata.name for edit in edits if not isinstance(edit.document, Flag)}
        left = behind(newest, stored.situation, names)
        runs = await self._preview.of_runs(left, newest) if look else []
        flags = await self._flags(edits, stored) if look else []
        revisions = {edit.label: edit.revision for edit in edits if edit.revision}
        if not dry_run:
            revisions |= await self._save(changed, stored, actor, note)
        return ApplyResult(
            applied=not dry_run,
            changes=[change for edit in edits for change in edit.changes],
            revisions=revisions,
            pinned_runs=[run.id for run, _ in left],
            warnings=warnings,
            stored=[one for edit in edits if (one := _as_stored(edit, stored)) is not None],
            runs=runs,
            flags=flags,
        )

    async def _flags(self, edits: Sequence[Edit], stored: Stored) -> list[FlagOutlook]:
        new = {
            ref
            for flag in _of(Flag, edits)
            if (flag.spec.environment, flag.spec.key) not in stored.flags
            for ref in self._refs(flag.spec)
        }
        return await self._preview.of_flags(_of(RolloutPlan, edits), stored.situation, coming=new)

    async def _save(self, changed: Sequence[Edit], stored: Stored, actor: Actor, note: str) -> dict[str, int]:
        """Revision by label."""
        in_order = sorted(changed, key=lambda edit: SAVE_ORDER.index(type(edit.document)))
        entries = [(self._applied_as(edit.document, stored), self._entry(edit, actor, note)) for edit in in_order]
        saved = await self._store.save_together(entries)
        await self._take_up(changed)
        return {edit.label: revision for edit, revision in zip(in_order, saved, strict=True)}

    async def _take_up(self, changed: Sequence[Edit]) -> None:
        if self._applied is None or not changed:
            return
        try:
            await self._applied()
        except RampartError as error:
            # It is stored, and every replica looks again within seconds.
            log.warning("apply_not_taken_up_yet", error=str(error))

    async def _stored(self) -> Stored:
        plans, policies = await self._store.plans(), await self._store.policies()
        flags = await self._store.flag_configs()
        runs = [(run, seen) for run, seen in await self._store.latest_runs() if run.active]
        kills: dict[FlagRef, list[str]] = {}
        for one in await self._store.active_kills():
            kills.setdefault(one.kill.flag, []).append(one.kill.id)
        return Stored(
            plans={one.plan.metadata.name: one for one in plans},
            policies={one.policy.metadata.name: one for one in policies},
            flags={(flag.environment, flag.key): flag for flag in flags},
            situation=Situation(runs=runs, kills=kills),
            unreadable=await self._store.unreadable(),
        )

    def _read(self, files: Files, stored: Stored) -> tuple[list[Document], list[str]]:
        findings = lint(files, self._surroundings(stored))
        if has_errors(findings):
            raise InvalidManifests(findings)
        written = [one.value for name, text in files for one in load(text, name).documents]
        documents = [one for one in written if not isinstance(one, RolloutTest)]  # those are for the author's desk
        warnings = [one for one in findings if one.severity == "warning"]
        return documents, [f"{one.file}:{one.line}:{one.column}: {one.code} {one.message}" for one in warnings]

    def _surroundings(self, stored: Stored) -> Surroundings:
        return Surroundings(
            sources=_kinds(self._settings.sources),
            providers=_kinds(self._settings.providers),
            channels=frozenset(self._settings.channels),
            groups=self._settings.groups,
            policies={name: one.policy for name, one in stored.policies.items()},
        )

    async def _object(self, changed: Sequence[Edit], stored: Stored) -> None:
        """All that stands against it at once: a second try should not find a second reason."""
        changed_flags = _of(Flag, changed)
        blocks = [
            block for flag in changed_flags for block in _flag_objections(flag, self._refs(flag.spec), stored)
        ]
        together = {ref: flag.spec for flag in changed_flags for ref in self._refs(flag.spec)}
        for plan in _of(RolloutPlan, changed):
            blocks += [f"{plan.metadata.name}: {why}" for why in await self._plan_objections(plan, together)]
        if blocks:
            raise Refused("this cannot be applied as it is", blocks=blocks)

    async def _plan_objections(self, plan: RolloutPlan, together: Mapping[FlagRef, FlagSpec]) -> Sequence[str]:
        ref = plan.spec.flag
        provider = self._providers.get(ref.provider)
        if provider is None:
            return [f'the settings know no provider "{ref.provider}"']
        # The provider cannot know a flag that is only just being applied beside the plan.
        return _misfits(plan, together[ref]) if ref in together else await provider.objections(plan)

    def _refs(self, flag: FlagSpec) -> set[FlagRef]:
        """The flag under each name of the built-in provider. The same key elsewhere is another flag."""
        names = self._settings.built_in_providers
        return {FlagRef(provider=name, environment=flag.environment, key=flag.key) for name in names}

    def _applied_as(self, document: Document, stored: Stored) -> Applied:
        return self._config(document, stored) if isinstance(document, Flag) else document

    def _config(self, flag: Flag, stored: Stored) -> FlagConfig:
        spec = flag.spec
        known = stored.flags.get((spec.environment, spec.key))
        # Versions that follow the clock stay above those of a flag that was here before a lost database.
        version = int(self._clock.now().timestamp() * 1000)
        if known is None:
            return new_flag(spec, version)
        return redefined(known, spec, max(version, known.version + 1))

    def _entry(self, edit: Edit, actor: Actor, note: str) -> AuditEntry:
        document = edit.document
        what = KIND_WORDS[type(document).__name__]
        made = "changed" if edit.before else "created"
        name = document.metadata.name
        return AuditEntry(
            id=uuid.uuid4().hex,
            at=self._clock.now(),
            actor=actor.name,
            action="apply",
            cause="user",
            subject=name if isinstance(document, RolloutPlan) else f"{what}/{name}",
            environment=_environment(document),
            reason=f"{actor.name} {made} the {what} {name}" + (f": {note}" if note else ""),
            details={"changes": msgspec.to_builtins(edit.changes)},
        )


SAVE_ORDER: tuple[type[Document], ...] = (GuardrailPolicy, Flag, RolloutPlan)


def _of(kind: type[DocumentT], edits: Iterable[Edit]) -> list[DocumentT]:
    return [edit.document for edit in edits if isinstance(edit.document, kind)]


def _kinds(sections: Mapping[str, Struct]) -> dict[str, str]:
    return {name: str(section.__struct_config__.tag) for name, section in sections.items()}


def _environment(document: Document) -> str:
    match document:
        case RolloutPlan():
            return document.spec.flag.environment
        case Flag():
            return document.spec.environment
        case GuardrailPolicy():
            return ""


def _edit(document: Document, stored: Stored) -> Edit:
    before, revision = _before(document, stored)
    return Edit(document=document, before=before, changes=diff(before, document), revision=revision)


def _before(document: Document, stored: Stored) -> tuple[Document | None, int]:
    match document:
        case RolloutPlan():
            plan = stored.plans.get(document.metadata.name)
            return (plan.plan, plan.revision) if plan else (None, 0)
        case GuardrailPolicy():
            policy = stored.policies.get(document.metadata.name)
            return (policy.policy, policy.revision) if policy else (None, 0)
        case Flag(spec=spec):
            config = stored.flags.get((spec.environment, spec.key))
            return (_as_manifest(config, document), config.version) if config else (None, 0)


def _as_manifest(config: FlagConfig, beside: Flag) -> Flag:
    """What a stored flag looks like as a manifest. Its metadata is not kept, so it never differs."""
    spec = FlagSpec(
        environment=config.environment,
        key=config.key,
        variations=config.variations,
        off=_off_variation(config),
        client_side=opens("client", config.data),
    )
    return replace(beside, spec=spec)


def _off_variation(config: FlagConfig) -> str:
    index: int = config.data["offVariation"]
    return list(config.variations)[index]


def _authorise(actor: Actor, changed: Sequence[Edit], stored: Stored) -> None:
    for edit in changed:
        for environment in sorted(_touched(edit, stored)):
            actor.require("author", environment)


def _touched(edit: Edit, stored: Stored) -> set[str]:
    """The environments a change reaches: a plan's old one too, and those of all plans that use a policy."""
    if isinstance(edit.document, GuardrailPolicy):
        name = edit.document.metadata.name
        return {
            one.plan.spec.flag.environment
            for one in stored.plans.values()
            if any(use.policy == name for use in one.plan.spec.guardrails)
        }
    return {_environment(one) for one in (edit.before, edit.document) if one is not None}


def _misfits(plan: RolloutPlan, flag: FlagSpec) -> list[str]:
    """What lint leaves open: it has checked already that the variations are there."""
    fallback = plan.spec.serve.fallback
    if fallback == flag.off:
        return []
    return [
        f'the flag {flag.key} serves "{flag.off}" when it is off, and the fallback of the plan is "{fallback}"'
    ]


def _flag_objections(flag: Flag, refs: Collection[FlagRef], stored: Stored) -> list[str]:
    spec = flag.spec
    known = stored.flags.get((spec.environment, spec.key))
    objections = [
        f"{spec.key}: the {one.kind} {one.name} cannot be read from the database ({one.why}), so whom a change "
        "would hit is unknown; mend that first"
        for one in stored.unreadable
        if (one.kind == "flag" and one.name == f"{spec.environment}/{spec.key}") or one.flag in refs
    ]
    if known is None:
        return objections
    names = list(known.variations)
    if spec.off != _off_variation(known):
        objections.append(f'{spec.key}: "{_off_variation(known)}" stays what it serves when off; make a new flag')
    if list(spec.variations)[: len(names)] != names:
        objections.append(
            f"{spec.key}: variations cannot be removed, renamed or reordered ({', '.join(names)}): contexts are "
            "already assigned to them; add new ones at the end, or make a new flag"
        )
    for run, _ in stored.situation.runs:
        if run.flag in refs:
            objections.append(f"{spec.key}: {run.id} is using its variations; end that run first")
    if any(ref in refs for ref in stored.situation.kills):
        objections.append(f"{spec.key}: a kill holds the flag down; reset it first")
    return objections


def _newest(stored: Stored, changed: Sequence[Edit], actor: Actor, now: datetime) -> Newest:
    """Everything as it stands once the changes are stored."""
    plans, policies = dict(stored.plans), dict(stored.policies)
    for edit in changed:
        document, revision = edit.document, edit.revision + 1
        name = document.metadata.name
        if isinstance(document, RolloutPlan):
            plans[name] = PlanRevision(plan=document, revision=revision, author=actor.name, applied_at=now)
        elif isinstance(document, GuardrailPolicy):
            policies[name] = PolicyRevision(policy=document, revision=revision, author=actor.name, applied_at=now)
    return Newest(plans=plans, policies=policies)


def _as_stored(edit: Edit, stored: Stored) -> StoredDocument | None:
    """None for what is new, and for flags: who wrote them is in the audit log alone."""
    name, kind = edit.document.metadata.name, type(edit.document).__name__
    by_kind: Mapping[str, Mapping[str, PlanRevision | PolicyRevision]] = {
        "RolloutPlan": stored.plans,
        "GuardrailPolicy": stored.policies,
    }
    found = by_kind.get(kind, {}).get(name)
    if found is None:
        return None
    return StoredDocument(
        kind=kind, name=name, revision=found.revision, author=found.author, applied_at=found.applied_at
    )
