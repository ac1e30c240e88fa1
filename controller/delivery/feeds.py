"""What one stream of a browser or an app says: values for its context, or only that something changed."""

import asyncio
from collections.abc import Callable

import msgspec

from controller.delivery.audience import News
from controller.delivery.client_values import Asker, ClientValues
from controller.delivery.turns import Turns
from controller.domain.catalogue import SdkKeyKind


class ValuesFeed:
    """All values first, then those of flags that changed; always as they are when they are said."""

    def __init__(self, asker: Asker, values: ClientValues, turns: Turns) -> None:
        self.kind: SdkKeyKind = asker.kind
        self._asker = asker
        self._values = values
        self._turns = turns
        self._everything = True
        self._keys: set[str] = set()
        self._ended = False
        self._something = asyncio.Event()
        self._something.set()

    def tell(self, news: News) -> None:
        self._keys |= news.keys
        self._everything |= news.everything
        self._something.set()

    def end(self) -> None:
        self._ended = True
        self._something.set()

    async def frame(self) -> bytes | None:
        await self._something.wait()
        if self._ended:
            return None
        if not self._everything:
            return self._changes()
        # Nothing is taken for said before its turn has come: whoever waits for a frame may give up waiting.
        async with self._turns.one():
            return self._all()

    def _all(self) -> bytes:
        self._nothing_left()
        return _frame("put", self._values.all(self._asker))

    def _changes(self) -> bytes:
        keys = sorted(self._keys)
        self._nothing_left()
        return b"".join(map(self._change, keys))

    def _change(self, key: str) -> bytes:
        value = self._values.one(self._asker, key)
        if value is None:
            return _frame("delete", {"key": key, "version": self._values.last_version(self._asker, key)})
        return _frame("patch", {"key": key, **value})

    def _nothing_left(self) -> None:
        self._everything = False
        self._keys = set()
        self._something.clear()


class NoticeFeed:
    """The same short notice for everybody, once at the start, because something may have changed before."""

    def __init__(self, kind: SdkKeyKind, notice: Callable[[], bytes]) -> None:
        self.kind = kind
        self._notice = notice
        self._ended = False
        self._something = asyncio.Event()
        self._something.set()

    def tell(self, news: News) -> None:
        self._something.set()

    def end(self) -> None:
        self._ended = True
        self._something.set()

    async def frame(self) -> bytes | None:
        await self._something.wait()
        if self._ended:
            return None
        self._something.clear()
        return self._notice()


def _frame(event: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(data))
