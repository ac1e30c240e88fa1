"""SDK keys: who may read which environment's flags, verified from memory so that no database is needed."""

from collections.abc import Iterable

from controller.access import digest
from controller.domain.catalogue import SdkKey

SCHEME_PREFIX = "api_key "
"""Some SDKs put this before the key."""


class SdkKeyBook:
    """All live SDK keys by digest. `loaded` is False until there was something to load them from."""

    def __init__(self) -> None:
        self.loaded = False
        self._by_digest: dict[bytes, SdkKey] = {}

    def load(self, keys: Iterable[SdkKey]) -> None:
        self._by_digest = {key.digest: key for key in keys}
        self.loaded = True

    def all(self) -> list[SdkKey]:
        return list(self._by_digest.values())

    def environment_of(self, authorization: str) -> str | None:
        """The environment that the header's key reads, or None. A digest lookup leaks nothing about the key."""
        key = self._by_digest.get(digest(authorization.removeprefix(SCHEME_PREFIX)))
        return key.environment if key else None
