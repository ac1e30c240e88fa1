"""A folder of manifests beside the server: loaded at its start and whenever its content changes.

A load is an apply like any other, by the actor `manifests`: all files or none, no run started, none touched. What
was applied last stays in force while the folder holds something that cannot be.

With several replicas one of them leads, and its folder alone counts, so that two that differ for a while, as in a
rolling update, do not overwrite each other in turns. It leads until it goes away or cannot read its folder; the
others compare, and say when theirs holds something else.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import structlog
from msgspec import Struct

from controller.access import MANIFESTS, Actor
from controller.domain.status import ApplyResult, Check
from controller.errors import Invalid, RampartError, Refused, StoreUnavailable
from controller.manifests.folder import SUFFIXES, files_below
from controller.ports import Clock, Store
from controller.registrar import InvalidManifests, Registrar
from controller.telemetry import Metrics

log = structlog.get_logger()

LOOK_SECONDS = 2.0
LEASE_SECONDS = 15.0
AGAIN_SECONDS = 15.0
"""After a refusal: what is in the way may be gone without a change of the folder, as a flag that was missing."""

MOST_FILES = 2000
MOST_BYTES = 16 * 1024 * 1024
MOST_BYTES_OF_ONE = 256 * 1024 + 1
"""One more than a manifest may have: enough to refuse it."""
SHOWN_PROBLEMS = 20
TASK = "manifests"
ACTOR = Actor(name=MANIFESTS, scopes=("author",))


class Content(Struct, frozen=True):
    """Names are relative to the folder."""

    files: tuple[tuple[str, bytes], ...]

    @property
    def digest(self) -> bytes:
        parts = (part for name, text in self.files for part in (name.encode(), text))
        return hashlib.sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).digest()


def read(folder: Path) -> Content:
    """Everything in the folder that is a manifest by its name. Raises OSError and Invalid."""
    paths = files_below(folder, SUFFIXES)
    if len(paths) > MOST_FILES:
        raise Invalid(f"the folder holds {len(paths)} manifests; at most {MOST_FILES} are read")
    files, size = [], 0
    for path in paths:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES_OF_ONE)
        size += len(text)
        if size > MOST_BYTES:
            raise Invalid(f"the folder holds more than {MOST_BYTES // 1024 // 1024} MiB of manifests")
        files.append((str(path.relative_to(folder)), text))
    return Content(tuple(files))


class ManifestFolder:
    """`look` is called every few seconds and never raises: what is wrong is logged once, and shown until over."""

    def __init__(
        self, folder: Path, *, registrar: Registrar, store: Store, owner: str, clock: Clock, metrics: Metrics
    ) -> None:
        self._folder = folder
        self._registrar = registrar
        self._store = store
        self._owner = owner
        self._clock = clock
        self._metrics = metrics
        self._seen = b""
        self._in_force = b""
        self._problem = "not loaded yet"
        self._again_at = 0.0
        self._loaded = ""
        self._left_behind: Sequence[str] = ()

    async def look(self) -> None:
        try:
            await self._look()
        except StoreUnavailable as error:
            self._wrong(f"the database does not answer: {error}")
        except (OSError, RampartError) as error:
            self._wrong(_words(error), error)
        except Exception as error:
            # What is in the folder is people's; it must not end the looking.
            log.exception("manifests_look_failed", folder=str(self._folder))
            self._wrong(f"looking at it failed with {type(error).__name__}")
        self._metrics.manifests(str(self._folder), in_force=not self._problem)

    async def _look(self) -> None:
        content = await asyncio.to_thread(read, self._folder)
        leads = await self._store.lead(TASK, self._owner, lease_seconds=LEASE_SECONDS)
        digest = content.digest
        settled, self._seen = digest == self._seen, digest
        if digest == self._in_force:
            self._problem = ""
        elif settled and self._clock.monotonic() >= self._again_at:
            # Seen twice alike: nobody is in the middle of writing it.
            await self._load(content, leads=leads)
        elif not settled:
            self._again_at = 0.0

    async def _load(self, content: Content, *, leads: bool) -> None:
        self._again_at = self._clock.monotonic() + AGAIN_SECONDS
        result = await self._registrar.apply(content.files, ACTOR, dry_run=not leads)
        if result.changes and not leads:
            self._again_at = 0.0
            self._wait("another replica leads, and its folder held something else when that was loaded last")
            return
        self._in_force, self._problem = content.digest, ""
        self._left_behind = await self._not_in(result)
        files = "1 file" if len(content.files) == 1 else f"{len(content.files)} files"
        self._loaded = f"{files}, loaded {self._clock.now():%Y-%m-%d %H:%M:%S} UTC"
        self._metrics.manifests_loaded(str(self._folder), self._clock.now())
        log.info(
            "manifests_loaded",
            folder=str(self._folder),
            files=len(content.files),
            changed=sorted({f"{change.kind}/{change.name}" for change in result.changes}) if leads else [],
            warnings=result.warnings[:SHOWN_PROBLEMS],
            runs_on_earlier_revisions=result.pinned_runs[:SHOWN_PROBLEMS],
        )
        if self._left_behind:
            log.warning(
                "manifests_left_behind", names=self._left_behind[:SHOWN_PROBLEMS], stay="nothing was deleted"
            )

    async def _not_in(self, result: ApplyResult) -> list[str]:
        """Plans and policies that came from a folder and are in this one no more: they stay."""
        here = {(one.kind, one.name) for one in result.stored}
        here |= {(change.kind, change.name) for change in result.changes}
        plans, policies = await self._store.plans(), await self._store.policies()
        ours = [("RolloutPlan", one.plan.metadata.name) for one in plans if one.author == ACTOR.name]
        ours += [("GuardrailPolicy", one.policy.metadata.name) for one in policies if one.author == ACTOR.name]
        return [f"{kind}/{name}" for kind, name in sorted(set(ours) - here)]

    def _wait(self, why: str) -> None:
        if why != self._problem:
            self._problem = why
            log.info("manifests_wait", folder=str(self._folder), reason=why)

    def _wrong(self, problem: str, error: Exception | None = None) -> None:
        if problem == self._problem:
            return
        self._problem = problem
        findings = error.findings if isinstance(error, InvalidManifests) else ()
        log.error(
            "manifests_not_loaded",
            folder=str(self._folder),
            error=problem,
            findings=[f"{one.file}:{one.line}:{one.column}: {one.code} {one.message}" for one in findings][
                :SHOWN_PROBLEMS
            ],
            in_force=self._loaded or "nothing of the folder",
        )

    def check(self) -> Check:
        """For `doctor`."""
        if self._problem:
            kept = f"; in force: {self._loaded}" if self._loaded else ""
            return Check(
                name="manifests",
                state="fail",
                detail=f"{self._folder}: {self._problem}{kept}",
                fix="mend the folder: it is read again within seconds; `rampart diff` of its files says more",
            )
        if self._left_behind:
            names = ", ".join(self._left_behind[:SHOWN_PROBLEMS])
            return Check(
                name="manifests",
                state="warn",
                detail=f"{self._folder}: {self._loaded}; not in it any more, and still there: {names}",
                fix="nothing is deleted; put them back, or apply them by hand, to say whose they are now",
            )
        return Check(name="manifests", state="ok", detail=f"{self._folder}: {self._loaded}")


def _words(error: Exception) -> str:
    match error:
        case Refused(blocks=blocks) if blocks:
            return f"{error}: {'; '.join(blocks)}"
        case OSError():
            return f"cannot read {Path(error.filename).name if error.filename else 'it'}: {error.strerror}"
        case _:
            return str(error)
