"""SDK keys: who may read which environment's flags, verified from memory so that no database is needed."""

import hashlib
from collections.abc import Iterable

from controller.access import key_digest
from controller.domain.catalogue import SdkKey, SdkKeyKind


class SdkKeyBook:
    """All live SDK keys by digest. `loaded` is False until there was something to load them from.

    `fixed` are keys of other servers that we stand in front of: known from the settings, and kept nowhere else.
    """

    def __init__(self, fixed: Iterable[SdkKey] = ()) -> None:
        self.loaded = False
        self._fixed = {key.digest: key for key in fixed}
        self._by_digest: dict[bytes, SdkKey] = {}
        self._by_stream: dict[str, SdkKey] = {}

    def load(self, keys: Iterable[SdkKey]) -> None:
        self._by_digest = {key.digest: key for key in keys} | self._fixed
        self._by_stream = {self.stream_of(key): key for key in self._by_digest.values()}
        self.loaded = True

    def all(self) -> list[SdkKey]:
        """Those that were loaded."""
        return [key for digest, key in self._by_digest.items() if digest not in self._fixed]

    def find(self, kind: SdkKeyKind, secret: str) -> SdkKey | None:
        """The live key with that secret. A digest lookup leaks nothing about it."""
        key = self._by_digest.get(key_digest(kind, secret))
        return key if key is not None and key.kind == kind else None

    def stream_of(self, key: SdkKey) -> str:
        """A name for the key that gives nothing of it away: browsers cannot send a header with a stream."""
        return hashlib.sha256(b"stream:" + key.digest).hexdigest()[:32]

    def by_stream(self, name: str) -> SdkKey | None:
        return self._by_stream.get(name)

    def holds(self, key: SdkKey) -> bool:
        """Whether it still opens what it opened: it was not revoked, nor made anew for another environment."""
        present = self._by_digest.get(key.digest)
        return present is not None and (present.kind, present.environment) == (key.kind, key.environment)
