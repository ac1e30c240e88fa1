"""A person at LaunchDarkly's user interface, who changes flags behind our back. The audit log names her."""

from typing import Any

from tests.support.launchdarkly.account import Member
from tests.support.launchdarkly.flags import Flag
from tests.support.launchdarkly.ledger import Ledger
from tests.support.launchdarkly.pending import Waiting
from tests.support.launchdarkly.releases import FULL, Release

Json = dict[str, Any]


class Person:
    def __init__(self, member: Member, ledger: Ledger, project: str, environment: str) -> None:
        self.member = member
        self._ledger = ledger
        self._project = project
        self._environment = environment

    @property
    def email(self) -> str:
        return self.member.email

    def patch(self, flag: str, *instructions: Json, comment: str = "") -> Flag:
        """In the environment that she looks at. Raises ApiError."""
        return self._ledger.change(
            self.member, self._project, flag, self._environment, instructions,
            comment=comment, ignore_conflicts=True,
        )  # fmt: skip

    def turn_on(self, flag: str) -> None:
        self.patch(flag, {"kind": "turnFlagOn"})

    def turn_off(self, flag: str) -> None:
        self.patch(flag, {"kind": "turnFlagOff"})

    def share(self, flag: str, exposure: int, *, of: str = "on", rest: str = "off", **bucketing: str) -> None:
        """`exposure` thousandths of a percent of the default rule get `of`."""
        found = self._ledger.flag(self._project, flag)
        weights = {found.variation(of)["_id"]: exposure, found.variation(rest)["_id"]: FULL - exposure}
        self.patch(flag, {"kind": "updateFallthroughVariationOrRollout", "rolloutWeights": weights, **bucketing})

    def serve(self, flag: str, variation: str) -> None:
        """One variation to everybody, by the default rule."""
        found = self._ledger.flag(self._project, flag).variation(variation)["_id"]
        self.patch(flag, {"kind": "updateFallthroughVariationOrRollout", "variationId": found})

    def add_rule(
        self, flag: str, variation: str, attribute: str, *values: str, op: str = "in", **more: Any
    ) -> None:
        found = self._ledger.flag(self._project, flag).variation(variation)["_id"]
        clause = {"contextKind": "user", "attribute": attribute, "op": op, "values": list(values), "negate": False}
        self.patch(flag, {"kind": "addRule", "variationId": found, "clauses": [clause], **more})

    def add_targets(self, flag: str, variation: str, *keys: str, kind: str = "user") -> None:
        found = self._ledger.flag(self._project, flag).variation(variation)["_id"]
        self.patch(flag, {"kind": "addTargets", "contextKind": kind, "variationId": found, "values": list(keys)})

    def swap_order(self, flag: str) -> None:
        """The variations of the default rollout the other way round: the same shares, of other users.

        Only a JSON Patch can: a semantic patch names weights in a map, which has no order.
        """
        config = self._ledger.flag(self._project, flag).environments[self._environment]
        rollout = config.fallthrough["rollout"]
        swapped = {"rollout": rollout | {"variations": rollout["variations"][::-1]}}
        path = f"/environments/{self._environment}/fallthrough"
        self._ledger.json_patch(
            self.member, self._project, flag, [{"op": "replace", "path": path, "value": swapped}]
        )

    def archive(self, flag: str) -> None:
        self.patch(flag, {"kind": "archiveFlag"})

    def restore(self, flag: str) -> None:
        self.patch(flag, {"kind": "restoreFlag"})

    def delete(self, flag: str) -> None:
        self.patch(flag, {"kind": "deleteFlag"})

    def rename(self, flag: str, name: str) -> None:
        """The name people see. The key of a flag never changes: there is no instruction for it."""
        self.patch(flag, {"kind": "updateName", "value": name})

    def rename_variation(self, flag: str, variation: str, name: str) -> None:
        found = self._ledger.flag(self._project, flag).variation(variation)["_id"]
        self.patch(flag, {"kind": "updateVariation", "variationId": found, "name": name})

    # — what takes effect later —

    def schedule(self, flag: str, *instructions: Json, in_seconds: float = 3600.0) -> Waiting:
        at = self._ledger.now_millis + int(in_seconds * 1000)
        return self._ledger.ask(
            self.member, self._project, flag, self._environment, instructions, at=at, status="scheduled"
        )

    def approve(self, waiting: Waiting | str) -> None:
        self._ledger.review(self.member, self._find(waiting), "approve")

    def decline(self, waiting: Waiting | str) -> None:
        self._ledger.review(self.member, self._find(waiting), "decline")

    def apply(self, waiting: Waiting | str) -> None:
        """What was approved; of what is scheduled, its time has come."""
        self._ledger.carry_out(self.member, self._find(waiting))

    def _find(self, waiting: Waiting | str) -> Waiting:
        return next(one for one in self._ledger.waiting if one is waiting or one.id == waiting)

    def start_release(
        self, flag: str, *, original: str = "off", target: str = "on", on_default_rule: bool = False, **more: Any
    ) -> Release:
        """A guarded rollout of LaunchDarkly's own, on a rule as of today or, as before, on the default rule."""
        return self._ledger.start_release(
            self.member, self._project, flag, self._environment,
            original=original, target=target, on_default_rule=on_default_rule, **more,
        )  # fmt: skip
