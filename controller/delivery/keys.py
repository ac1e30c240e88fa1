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
        self._environments: dict[bytes, str] = {}

    def load(self, keys: Iterable[SdkKey]) -> None:
        self._environments = {key.digest: key.environment for key in keys}
        self.loaded = True

    def environment_of(self, authorization: str) -> str | None:
        """The environment that the header's key reads, or None. A digest lookup leaks nothing about the key."""
        return self._environments.get(digest(authorization.removeprefix(SCHEME_PREFIX)))
