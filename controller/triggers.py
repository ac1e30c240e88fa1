"""Addresses that kill one flag, and do nothing else. They are known here with the database away, too."""

from collections.abc import Iterable

from controller.access import Actor, digest
from controller.domain.catalogue import Trigger


class TriggerBook:
    """All live ones by digest. Loaded from the store, or from the last known copy when that is away."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, Trigger] = {}

    def load(self, triggers: Iterable[Trigger]) -> None:
        self._by_digest = {trigger.digest: trigger for trigger in triggers}

    def all(self) -> list[Trigger]:
        return list(self._by_digest.values())

    def of(self, secret: str) -> Trigger | None:
        """Looking up a digest leaks nothing about the secret's bytes."""
        return self._by_digest.get(digest(secret))


def presser(trigger: Trigger) -> Actor:
    """Who the audit log says it was. No token has such a name: a name holds no colon."""
    return Actor(name=f"trigger:{trigger.name}", scopes=("kill",), environments=(trigger.flag.environment,))
