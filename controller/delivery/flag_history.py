"""What the flags of an environment were, not long ago: to tell what somebody was served when an event happened.

A version is the millisecond in which it was made, or later: so a flag has been what it is since its version.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from controller.domain.catalogue import FlagConfig
from controller.domain.evaluation import Evaluator
from controller.domain.sdkflag import CONTEXT_KIND, state_of
from controller.patterns import read_pattern
from controller.snapshot import FlagBoard

MAX_CHANGES = 1024
"""Remembered of each environment. What happened before the oldest is not assigned to a variation."""

Flags = Mapping[str, FlagConfig]
Need = tuple[str, str]
"""A kind of context, and an attribute of it."""


class Change(NamedTuple):
    key: str
    before: FlagConfig


class State(NamedTuple):
    """What was served from `since` on, in seconds since 1970, until the next state began."""

    since: float
    evaluator: Evaluator


class Story:
    """One flag as it is, and was. `needs` are the attributes that its answers depend on, now or before."""

    def __init__(self, key: str, flags: Flags, evaluator: Evaluator, changes: Sequence[Change]) -> None:
        config = flags[key]
        self.variations = list(config.variations)
        self.version = config.version
        self.data = config.data
        self.exposure = state_of(config).effective_exposure
        self._keys = _with_prerequisites(key, flags, changes)
        self._changes = [change for change in changes if change.key in self._keys]
        configs = [*(flags[one] for one in self._keys if one in flags), *(one.before for one in self._changes)]
        self.needs = frozenset(need for one in configs for need in _needs(one.data))
        self.present = State(self._since(flags), evaluator)
        self._known = [self.present]
        self._earlier = self._walk(flags)

    def states(self) -> Iterator[State]:
        """The latest first; those before it are made when somebody asks for them."""
        yield from self._known
        for state in self._earlier:
            self._known.append(state)
            yield state

    def _walk(self, flags: Flags) -> Iterator[State]:
        present = dict(flags)
        for change in self._changes:
            present[change.key] = change.before
            yield State(self._since(present), evaluator_of(present))

    def _since(self, flags: Flags) -> float:
        return max((flags[key].version for key in self._keys if key in flags), default=0) / 1000


class View:
    """The flags of an environment as they are now, and what they were. For one thread at a time."""

    def __init__(self, flags: Flags, changes: Sequence[Change]) -> None:
        self._flags = flags
        self._changes = changes
        self._evaluator = evaluator_of(flags)
        self._stories: dict[str, Story] = {}

    def story(self, key: str) -> Story | None:
        if key not in self._stories and key in self._flags:
            self._stories[key] = Story(key, self._flags, self._evaluator, self._changes)
        return self._stories.get(key)


class FlagHistory:
    """Watches the board. A view is made when it is first asked for after a change, and shared."""

    def __init__(self, board: FlagBoard) -> None:
        self._board = board
        self._changes: defaultdict[str, deque[Change]] = defaultdict(lambda: deque(maxlen=MAX_CHANGES))
        self._views: dict[str, View] = {}
        board.watch(self)

    def view(self, environment: str) -> View:
        present = self._views.get(environment)
        if present is None:
            present = View(dict(self._board.flags(environment)), tuple(self._changes[environment]))
            self._views[environment] = present
        return present

    # — as a watcher of the board —

    def changed(self, environment: str, key: str, before: FlagConfig | None) -> None:
        self._views.pop(environment, None)
        if before is not None:
            self._changes[environment].appendleft(Change(key, before))

    def segments_changed(self, environment: str) -> None:
        """Our own flags refer to none, and events about others' are not counted."""

    def closed(self) -> None:
        pass


def evaluator_of(flags: Flags) -> Evaluator:
    return Evaluator({key: config.data for key, config in flags.items()}, patterns=read_pattern)


def _with_prerequisites(key: str, flags: Flags, changes: Iterable[Change]) -> frozenset[str]:
    """The flags that its answers depend on, or did."""
    versions: defaultdict[str, list[FlagConfig]] = defaultdict(list)
    for one, config in [*flags.items(), *changes]:
        versions[one].append(config)
    found: set[str] = set()
    waiting = [key]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += [each["key"] for config in versions[one] for each in config.data.get("prerequisites") or ()]
    return frozenset(found)


def _needs(data: Mapping[str, Any]) -> list[Need]:
    """What the flag asks of a context beyond its keys."""
    rules = data.get("rules") or []
    clauses = [clause for rule in rules for clause in rule.get("clauses") or ()]
    shares = [one["rollout"] for one in (data.get("fallthrough") or {}, *rules) if one.get("rollout")]
    found = [(one.get("contextKind"), one.get("attribute") or "") for one in clauses]
    found += [(one.get("contextKind"), one.get("bucketBy") or "key") for one in shares]
    return [(kind or CONTEXT_KIND, outermost(name)) for kind, name in found if name not in ("key", "kind")]


def outermost(reference: str) -> str:
    """`/address/city` → `address`: a part of what is held back may be all that is asked for."""
    if not reference.startswith("/"):
        return reference
    return reference[1:].partition("/")[0].replace("~1", "/").replace("~0", "~")
