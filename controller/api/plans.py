"""Plans, policies and manifests, and what people command their runs to do."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec.structs import replace

from controller.access import Actor
from controller.api.authentication import needs
from controller.api.bodies import AdoptBody, CompareBody, ManifestsBody, NoteBody
from controller.api.decoding import JsonBody
from controller.domain.catalogue import PlanRevision, PolicyRevision, Scope
from controller.domain.quantities import KEY_PATTERN, NAME_PATTERN
from controller.domain.status import ApplyResult, Explanation, PlanSummary, RunOutlook, RunReport, RunStatus
from controller.errors import NotFound, RampartError, Refused
from controller.facade import Caller, Commands, Served

PathName = Annotated[str, PathParameter(pattern=NAME_PATTERN, description="a name as in the manifest")]
RunNumber = Annotated[int | None, QueryParameter(ge=1, le=2**31 - 1, description="number of the run")]
Revision = Annotated[int | None, QueryParameter(ge=1, le=2**31 - 1, description="the latest, if none is given")]

FlagKey = Annotated[str, PathParameter(pattern=KEY_PATTERN, description="a flag's key, or the name of a plan")]

NO_NOTE = NoteBody()
NOWHERE_ELSE = AdoptBody()


@get("/plans", summary="All plans, each with its latest run", **needs("read"))
async def list_plans(engine: Served) -> list[PlanSummary]:
    return await engine.commands.summaries()


@get("/plans/{plan:str}", summary="A plan as it was applied last, or a revision of it", **needs("read"))
async def get_plan(engine: Served, plan: PathName, revision: Revision = None) -> PlanRevision:
    found = await engine.store.plan(plan, revision)
    if found is None and revision is not None:
        raise NotFound(f'no plan is called "{plan}" and has a revision {revision}')
    if found is None:
        raise NotFound(f'no plan is called "{plan}"; rampart list shows them all')
    return found


@get("/policies", summary="All guardrail policies", **needs("read"))
async def list_policies(engine: Served) -> list[PolicyRevision]:
    return list(await engine.store.policies())


@get("/policies/{name:str}", summary="A policy as it was applied last, or a revision of it", **needs("read"))
async def get_policy(engine: Served, name: PathName, revision: Revision = None) -> PolicyRevision:
    found = await engine.store.policy(name, revision)
    if found is None:
        which = f" and has a revision {revision}" if revision is not None else ""
        raise NotFound(f'no policy is called "{name}"{which}')
    return found


@get("/plans/{plan:str}/status", summary="Where a run is: stage, exposure, rules, kills", **needs("read"))
async def get_status(engine: Served, plan: PathName, run: RunNumber = None) -> RunStatus:
    return await engine.commands.status(plan, run)


@get("/plans/{plan:str}/explain", summary="Why the latest run is where it is", **needs("read"))
async def explain(engine: Served, plan: PathName) -> Explanation:
    return await engine.commands.explain(plan)


@get("/plans/{plan:str}/report", summary="What Rampart did beside what people did", **needs("read"))
async def get_report(engine: Served, plan: PathName, run: RunNumber = None) -> RunReport:
    return await engine.commands.report(plan, run)


@post(
    "/manifests",
    status_code=200,
    dto=JsonBody[ManifestsBody],
    return_dto=None,
    summary="Check, compare and apply manifests; starts nothing",
    **needs("author"),
)
async def apply_manifests(engine: Served, actor: Caller, data: JSONBody[ManifestsBody]) -> ApplyResult:
    files = [(file.name, file.text.encode()) for file in data.files]
    if data.adopt or data.dry_run:
        preview = await engine.registrar.apply(files, actor, dry_run=True, look=True)
        if data.adopt:
            _require_adoptable(preview, actor)
        if data.dry_run:
            return preview
    result = await engine.registrar.apply(files, actor, dry_run=False, note=data.note, look=True)
    return await _adopted(engine.commands, actor, data.note, result) if data.adopt else result


@post(
    "/manifests/compare",
    status_code=200,
    dto=JsonBody[CompareBody],
    return_dto=None,
    summary="Check and compare manifests; changes nothing",
    **needs("read", "author"),
)
async def compare_manifests(engine: Served, actor: Caller, data: JSONBody[CompareBody]) -> ApplyResult:
    files = [(file.name, file.text.encode()) for file in data.files]
    return await engine.registrar.apply(files, actor, dry_run=True, look=True)


def _require_adoptable(preview: ApplyResult, actor: Actor) -> None:
    """Before anything is stored: what would be applied and then not adopted helps nobody."""
    for run in preview.runs:
        actor.require("operate", run.environment)
    obstacles = [f"{run.run}: {why}" for run in preview.runs for why in run.obstacles]
    if obstacles:
        raise Refused("a run under way cannot be moved to this; nothing was applied", blocks=obstacles)
    alone = [run for run in preview.runs if run.second_person and not _is_second_person(actor, run)]
    if alone:
        because = [f"{run.run}: {why}" for run in alone for why in run.second_person]
        authors = sorted({author for run in alone for author in run.authors})
        raise Refused(
            "moving a run to this takes a second person with the scope approve; nothing was applied. Apply it "
            "without --adopt, and let somebody else apply it with --adopt",
            blocks=[*because, f"written by {', '.join(authors)}"],
        )


def _is_second_person(actor: Actor, run: RunOutlook) -> bool:
    return actor.may("approve", run.environment) and actor.name not in run.authors


def _plan_of(run_id: str) -> str:
    return run_id.rpartition("#")[0]


async def _adopted(commands: Commands, actor: Actor, note: str, result: ApplyResult) -> ApplyResult:
    for run in result.pinned_runs:
        try:
            await commands.adopt(_plan_of(run), actor, note)
        except RampartError as error:
            error.args = (f"applied, but {run} was not moved to it: {error}",)
            raise
    return replace(result, pinned_runs=[], adopted_runs=result.pinned_runs)


Command = Callable[[Commands, str, Actor, str], Awaitable[RunStatus]]


def _command(verb: str, summary: str, command: Command, *scopes: Scope) -> HTTPRouteHandler:
    @post(
        f"/plans/{{plan:str}}/{verb}",
        status_code=200,
        dto=JsonBody[NoteBody],
        return_dto=None,
        name=f"command_{verb}",
        summary=summary,
        **needs(*scopes),
    )
    async def command_run(
        engine: Served, actor: Caller, plan: PathName, data: JSONBody[NoteBody] = NO_NOTE
    ) -> RunStatus:
        return await command(engine.commands, plan, actor, data.note)

    return command_run


@post(
    "/flags/{key:str}/adopt",
    status_code=200,
    dto=JsonBody[AdoptBody],
    return_dto=None,
    summary="Begin a run where people have brought the flag; writes nothing to it",
    **needs("operate"),
)
async def adopt_flag(
    engine: Served, actor: Caller, key: FlagKey, data: JSONBody[AdoptBody] = NOWHERE_ELSE
) -> RunStatus:
    return await engine.commands.take_over(key, data.environment, actor, data.note)


COMMANDS = [
    _command("start", "Start a new run", lambda c, *args: c.start(*args), "operate"),
    _command("advance", "Waive the remaining bake", lambda c, *args: c.advance(*args), "operate"),
    _command("pause", "Hold the exposure", lambda c, *args: c.pause(*args), "operate", "kill"),
    _command("resume", "Go on; the bake starts anew", lambda c, *args: c.resume(*args), "operate"),
    _command("step-back", "Lower to the stage before", lambda c, *args: c.step_back(*args), "operate", "kill"),
    _command("abandon", "End the run, leave the flag as it is", lambda c, *args: c.abandon(*args), "operate"),
    _command("approve", "Let the run enter a gated stage", lambda c, *args: c.approve(*args), "approve"),
    _command("adopt", "Move the run to the newest revisions", lambda c, *args: c.adopt(*args), "operate"),
]

HANDLERS = [
    list_plans,
    get_plan,
    list_policies,
    get_policy,
    apply_manifests,
    compare_manifests,
    get_status,
    get_report,
    explain,
    adopt_flag,
    *COMMANDS,
]
