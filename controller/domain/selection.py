"""Which flags an order to kill several means: by labels of their plans, or because they rose lately."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from msgspec import Struct

from controller.domain.plan import FlagRef
from controller.domain.rollout import Phase
from controller.domain.selector import fits


class Raised(Struct, frozen=True, kw_only=True):
    """The latest raise of a flag: what was decided when, and the exposure it led to, where that is known."""

    flag: FlagRef
    plan: str
    run: str
    action: str
    at: datetime
    exposure: int | None = None


class Selection(Struct, frozen=True, kw_only=True):
    """All that is given must fit. Without labels and without a time nothing is selected."""

    labels: dict[str, str] = {}
    raised_since: datetime | None = None
    environment: str | None = None
    provider: str | None = None

    def selects(self, flag: FlagRef, labels: Iterable[Mapping[str, str]], raised: Raised | None) -> bool:
        """`labels` are those of each plan of the flag."""
        if not self.labels and self.raised_since is None:
            return False
        if self.environment not in (None, flag.environment) or self.provider not in (None, flag.provider):
            return False
        if self.raised_since is not None and (raised is None or raised.at < self.raised_since):
            return False
        return not self.labels or any(fits(self.labels, one) for one in labels)


class KillTarget(Struct, frozen=True, kw_only=True):
    """A flag that a kill would hit. `exposure` None: nobody knows. `allowed`: the token that asks may kill it."""

    flag: FlagRef
    plans: list[str]
    owner: str
    run: str | None = None
    phase: Phase | None = None
    exposure: int | None = None
    raised_at: datetime | None = None
    allowed: bool = True


class KillPreview(Struct, frozen=True, kw_only=True):
    """`targets` would be killed, the most exposed first; `killed` fit, too, and are killed already.

    `doubts` say what may be missing, because the database does not answer; empty when it does.
    """

    targets: list[KillTarget]
    killed: list[KillTarget] = []
    doubts: list[str] = []
