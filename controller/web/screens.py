"""Pages that live: each is put together from named parts, which are sent anew whenever they change."""

import zlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from msgspec import Struct

from controller.access import Actor
from controller.domain.status import PlanSummary, RuleStatus
from controller.facade import Engine
from controller.web.curves import curve
from controller.web.orders import permitted
from controller.web.reader import Listing, Reader, Rollout
from controller.web.rendering import Renderer
from controller.web.words import STATES

ROWS_PER_PAGE = 50
LIST_SECONDS = 5.0
"""All runs are read from the database for it."""

ROLLOUT_SECONDS = 2.0
KILL_SECONDS = 0.5
"""From memory alone."""

MOST_OWNERS = 200
PHONE_EVENTS = 5

Parts = Mapping[str, Markup]


class Screen(Struct, frozen=True, kw_only=True):
    """`context` is for what of the page does not live. `every_seconds`: how often to look for what changed."""

    title: str
    template: str
    parts: Parts
    context: dict[str, Any] = {}
    every_seconds: float = ROLLOUT_SECONDS

    def digest(self) -> str:
        """What the page shows already, so that a stream need not begin with all of it."""
        return ".".join(f"{part_digest(part):08x}" for part in self.parts.values())


def part_digest(part: str) -> int:
    return zlib.crc32(part.encode())


class Filter(Struct, frozen=True, kw_only=True):
    """Of the list, as in the address."""

    state: str = ""
    owner: str = ""
    text: str = ""
    page: int = 1

    def query(self, **changes: object) -> str:
        fields = {"state": self.state, "owner": self.owner, "q": self.text, "page": self.page} | changes
        return urlencode({name: value for name, value in fields.items() if value and (name, value) != ("page", 1)})


class Screens:
    def __init__(self, engine: Engine, reader: Reader, renderer: Renderer) -> None:
        self._engine = engine
        self._reader = reader
        self._renderer = renderer

    def _now(self) -> datetime:
        return self._engine.clock.now()

    # — the list —

    async def list(self, chosen: Filter, actor: Actor) -> Screen:
        listing = await self._reader.listing()
        killed = self._reader.killed()
        states = {row.plan: state_of(row, killed, listing) for row in listing.rows}
        rows = sorted(
            (row for row in listing.rows if _fits(row, states[row.plan], chosen)),
            key=lambda row: (_urgency(row, states[row.plan]), row.plan),
        )
        pages = max(1, -(-len(rows) // ROWS_PER_PAGE))
        page = min(chosen.page, pages)
        shown = rows[(page - 1) * ROWS_PER_PAGE : page * ROWS_PER_PAGE]
        part = self._renderer.part(
            "parts/rows.html",
            rows=shown,
            states=states,
            killed=killed,
            total=len(listing.rows),
            found=len(rows),
            first=(page - 1) * ROWS_PER_PAGE + 1,
            page=page,
            pages=pages,
            chosen=chosen,
            listing=listing,
            raises=self._engine.presence.raises(),
            freezes=self._engine.freezebook.holding(self._now()),
            now=self._now(),
        )
        owners = sorted({row.owner for row in listing.rows if row.owner})[:MOST_OWNERS]
        counts = {state: sum(one == state for one in states.values()) for state in STATES}
        return Screen(
            title="Rollouts",
            template="list.html",
            parts={"rows": part},
            context={"chosen": chosen, "owners": owners, "counts": counts},
            every_seconds=LIST_SECONDS,
        )

    # — one rollout —

    async def phone(self, name: str, actor: Actor) -> Screen:
        rollout = await self._reader.rollout(name)
        context = self._context(rollout, actor)
        parts = {
            "state": self._renderer.part("parts/state.html", **context),
            "actions": self._renderer.part("parts/phone_actions.html", **context),
            "events": self._renderer.part("parts/events.html", **context, events=rollout.events[:PHONE_EVENTS]),
        }
        return Screen(title=name, template="phone.html", parts=parts, context=context)

    async def desk(self, name: str, actor: Actor) -> Screen:
        rollout = await self._reader.rollout(name)
        context = self._context(rollout, actor)
        rules = [(rule, self._curve(name, rule)) for rule in rollout.status.rules] if rollout.status else []
        parts = {
            "state": self._renderer.part("parts/state.html", **context),
            "actions": self._renderer.part("parts/desk_actions.html", **context),
            "stages": self._renderer.part("parts/stages.html", **context),
            "waits": self._renderer.part("parts/waits.html", **context),
            "rules": self._renderer.part("parts/rules.html", **context, rules=rules),
            "events": self._renderer.part("parts/events.html", **context, events=rollout.events),
        }
        return Screen(title=name, template="rollout.html", parts=parts, context=context)

    async def killed(self, name: str, actor: Actor) -> Screen:
        """From memory alone, so that it says how the kill goes whatever else is away."""
        flag = self._reader.flag_of(name)
        kills = self._reader.kills_of(flag) if flag else []
        context = {"name": name, "flag": flag, "kills": kills, "now": self._now()}
        may_reset = flag is not None and actor.may("operate", flag.environment)
        done = all(kill.receipt.confirmed_at for kill in kills)
        ticks = self._renderer.part("parts/ticks.html", **context, may_reset=may_reset, done=done)
        return Screen(
            title=f"{name} is killed" if kills else f"{name}: no kill in force",
            template="killed.html",
            parts={"ticks": ticks},
            context={**context, "done": done},
            every_seconds=KILL_SECONDS,
        )

    def _curve(self, name: str, rule: RuleStatus) -> Any:
        return curve(rule, self._engine.recent.curve(name, rule))

    def _context(self, rollout: Rollout, actor: Actor) -> dict[str, Any]:
        return {
            "rollout": rollout,
            "status": rollout.status,
            "name": rollout.name,
            "flag": rollout.flag,
            "orders": permitted(rollout, actor),
            "may_kill": actor.may("kill", rollout.flag.environment),
            "actor": actor,
            "now": self._now(),
            "cause": _cause(rollout),
            "raises": self._engine.presence.raises(),
        }

    # — what a stream asks for —

    def source(
        self, screen: str, query: Mapping[str, str], actor: Actor
    ) -> Callable[[], Awaitable[Screen]] | None:
        """None for a screen that does not live."""
        name = query.get("name", "")
        match screen:
            case "list":
                chosen = chosen_of(query)
                return lambda: self.list(chosen, actor)
            case "phone":
                return lambda: self.phone(name, actor)
            case "desk":
                return lambda: self.desk(name, actor)
            case "killed":
                return lambda: self.killed(name, actor)
        return None


def chosen_of(query: Mapping[str, str]) -> Filter:
    page = query.get("page", "1")
    return Filter(
        state=query.get("state", "") if query.get("state") in STATES else "",
        owner=query.get("owner", "")[:200],
        text=query.get("q", "")[:200].strip(),
        page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 6 else 1,
    )


def state_of(row: PlanSummary, killed: Mapping[Any, Any], listing: Listing) -> str:
    if row.flag in killed:
        return "killed"
    if row.phase is None:
        return "unknown" if row.run or (listing.stale and not row.revision) else "never"
    return row.phase


def _fits(row: PlanSummary, state: str, chosen: Filter) -> bool:
    text = chosen.text.lower()
    return (
        chosen.state in ("", state)
        and chosen.owner in ("", row.owner)
        and (not text or any(text in one.lower() for one in (row.plan, str(row.flag), row.owner, row.reason)))
    )


def _urgency(row: PlanSummary, state: str) -> int:
    """What wants a person comes first, what is over last."""
    if row.waits_for_approval:
        return -1
    return list(STATES).index(state)


def _cause(rollout: Rollout) -> RuleStatus | None:
    """The one rule to show: what is broken, or else what cannot be told."""
    rules = rollout.status.rules if rollout.status else []
    for outcomes in (("breach",), ("no_data", "error"), ("too_few", "inconclusive")):
        for rule in rules:
            if rule.outcome in outcomes and rule.enforced:
                return rule
    return rules[0] if rules else None
