"""The open streams of browsers and apps: told of changes a few at a time, and each says what is true by then.

A stream keeps which flags changed, not what they became: so it cannot fall behind, and needs no more room than
there are flags. It hears nothing of a flag that its key does not open.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from msgspec import Struct

from controller.delivery.evaluations import Evaluations
from controller.domain.catalogue import FlagConfig, SdkKeyKind
from controller.domain.sdkflag import opens
from controller.snapshot import FlagBoard

AT_ONCE = 25
"""Streams told in one turn of the event loop. Each then evaluates and writes, and a kill waits for no more."""

KINDS: tuple[SdkKeyKind, ...] = ("server", "mobile", "client")


class News(Struct, frozen=True):
    """Flags that changed. With `everything`, others may serve something else since then, too."""

    keys: frozenset[str]
    everything: bool


class Listener(Protocol):
    kind: SdkKeyKind

    def tell(self, news: News) -> None: ...

    def end(self) -> None: ...


ListenerT = TypeVar("ListenerT", bound=Listener)

Changes = dict[str, set[SdkKeyKind]]
"""Flags that changed, each with the kinds of key that open it or did."""


class Audience:
    def __init__(self, board: FlagBoard, evaluations: Evaluations, *, at_once: int = AT_ONCE) -> None:
        self._board = board
        self._evaluations = evaluations
        self._at_once = at_once
        self._listeners: defaultdict[str, dict[Listener, None]] = defaultdict(dict)
        self._changes: dict[str, Changes] = {}
        self._closed = False
        board.watch(self)

    @contextmanager
    def joined(self, environment: str, listener: ListenerT) -> Iterator[ListenerT]:
        if self._closed:
            listener.end()
        listeners = self._listeners[environment]
        listeners[listener] = None
        try:
            yield listener
        finally:
            del listeners[listener]

    # — as a watcher of the board —

    def changed(self, environment: str, key: str, before: FlagConfig | None) -> None:
        if not self._listeners[environment]:
            return
        if environment not in self._changes:
            self._changes[environment] = {}
            asyncio.get_running_loop().call_soon(self._begin, environment)
        after = self._board.flags(environment).get(key)
        kinds = self._changes[environment].setdefault(key, set())
        for config in (before, after):
            kinds.update(kind for kind in KINDS if config is not None and opens(kind, config.data))

    def segments_changed(self, environment: str) -> None:
        listeners = list(self._listeners[environment])
        if listeners:
            news = dict.fromkeys(KINDS, News(frozenset(), everything=True))
            asyncio.get_running_loop().call_soon(self._tell_some, listeners, news)

    def closed(self) -> None:
        self._closed = True
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.end()

    # — telling —

    def _begin(self, environment: str) -> None:
        changes = self._changes.pop(environment)
        everything = self._evaluations.is_prerequisite(environment, frozenset(changes))
        news = {
            kind: News(frozenset(key for key, kinds in changes.items() if kind in kinds), everything)
            for kind in KINDS
        }
        self._tell_some(list(self._listeners[environment]), news)

    def _tell_some(self, listeners: list[Listener], news: dict[SdkKeyKind, News]) -> None:
        for listener in listeners[-self._at_once :]:
            one = news[listener.kind]
            if one.keys or one.everything:
                listener.tell(one)
        del listeners[-self._at_once :]
        if listeners:
            asyncio.get_running_loop().call_soon(self._tell_some, listeners, news)
