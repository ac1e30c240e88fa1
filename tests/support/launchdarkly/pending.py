"""Changes that wait for an approval or for their time. Documentation: docs/api/{approvals,scheduled-changes}.

A change that would make one of these fail is refused with 400, unless it says ignoreConflicts
(docs/api/feature-flags/patch-feature-flag#conflicts). Which changes these are is not documented beyond
"invalidates" (docs/home/releases/scheduled-changes-manage). Here it is everything that makes the waiting one
impossible, and also what changes the same part of the flag, so that an adapter meets it more often, not less.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.launchdarkly.account import Actor, Token
from tests.support.launchdarkly.identity import new_id
from tests.support.launchdarkly.instructions import action_of

Json = dict[str, Any]


@dataclass
class Waiting:
    """`at` None: waits for an approval; otherwise for that time, in milliseconds."""

    actor: Actor
    created_at: int
    project: str
    environment: str
    flag: str
    instructions: list[Json]
    description: str = ""
    at: int | None = None
    review: Literal["pending", "approved", "declined"] = "pending"
    reviews: list[Json] = field(default_factory=list)
    status: Literal["pending", "completed", "failed", "scheduled"] = "pending"
    applied_at: int | None = None
    applied_by: Actor | None = None
    id: str = field(default_factory=new_id)

    @property
    def parts(self) -> set[str]:
        """Of the flag that it changes: an action, and the rule where it names one."""
        return {parts_of(one) for one in self.instructions}

    @property
    def _path(self) -> str:
        where = f"/api/v2/projects/{self.project}/flags/{self.flag}/environments/{self.environment}"
        return f"{where}/{'approval-requests' if self.at is None else 'scheduled-changes'}/{self.id}"

    def json(self) -> Json:
        links = {"self": {"href": self._path, "type": "application/json"}}
        if self.at is not None:
            return {
                "_id": self.id,
                "_creationDate": self.created_at,
                "_maintainerId": self.actor.owner.id if isinstance(self.actor, Token) else self.actor.id,
                "_version": 1,
                "executionDate": self.at,
                "instructions": self.instructions,
                "_links": links,
            }
        found = {
            "_id": self.id,
            "_version": 1,
            "creationDate": self.created_at,
            "serviceKind": "launchdarkly",
            "requestorId": self.actor.owner.id if isinstance(self.actor, Token) else self.actor.id,
            "description": self.description,
            "reviewStatus": self.review,
            "allReviews": self.reviews,
            "notifyMemberIds": [],
            "status": self.status,
            "instructions": self.instructions,
            "conflicts": [],
            "_links": links,
        }
        return found | self._applied()

    def _applied(self) -> Json:
        if self.applied_by is None:
            return {}
        who = "appliedByServiceTokenId" if isinstance(self.applied_by, Token) else "appliedByMemberId"
        return {"appliedDate": self.applied_at, who: self.applied_by.id}


def parts_of(instruction: Json) -> str:
    action = action_of(instruction)
    rule = instruction.get("ruleId", "")
    return f"{action}:{rule or instruction['kind']}" if action == "updateRules" else action


def overlap(waiting: Waiting, instructions: Sequence[Json]) -> bool:
    return bool(waiting.parts & {parts_of(one) for one in instructions})
