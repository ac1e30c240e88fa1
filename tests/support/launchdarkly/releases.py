"""A guarded rollout that LaunchDarkly itself runs on a flag. Documentation: docs/api/environment-releases-beta.

Its rule or, of older ones, the default rule is a rollout with a seed of its own, in which the target and as many
of the original are measured and the rest is `_untracked` (reference for SDKs: `kind: experiment`).
"""

import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.launchdarkly.flags import Flag
from tests.support.launchdarkly.identity import new_uuid

Json = dict[str, Any]

FULL = 100_000


@dataclass
class Release:
    """`rule_id` None: it runs on the default rule. `allocation` in thousandths of a percent."""

    project: str
    environment: str
    flag: str
    original: Json
    target: Json
    created_at: int
    rule_id: str | None
    kind: Literal["guarded", "progressive"] = "guarded"
    allocation: int = 10_000
    status: str = "in_progress"
    status_reason: str | None = None
    ended_at: int | None = None
    id: str = field(default_factory=new_uuid)

    @property
    def running(self) -> bool:
        return self.status in ("pending", "in_progress", "waiting")

    def json(self) -> Json:
        where = f"/api/v2/projects/{self.project}/flags/{self.flag}"
        found: Json = {
            "id": self.id,
            "status": self.status,
            "projectKey": self.project,
            "environmentKey": self.environment,
            "flagKey": self.flag,
            "originalVariationId": self.original["_id"],
            "originalVariationValue": self.original["value"],
            "targetVariationId": self.target["_id"],
            "targetVariationValue": self.target["value"],
            "randomizationUnit": "user",
            "cleanupBehavior": "leave_rules_in_place",
            "kind": self.kind,
            "metrics": [{"metricKey": "http-errors", "autoRollback": True}] if self.kind == "guarded" else [],
            "phases": [self._phase()],
            "currentPhaseIndex": 0 if self.running else None,
            "advancementMode": "automatic",
            "createdAt": self.created_at,
            "startedAt": self.created_at,
            "_links": {
                "self": {
                    "href": f"{where}/environments/{self.environment}/releases/{self.id}",
                    "type": "application/json",
                }
            },
        }
        if self.status_reason:
            found["statusReason"] = self.status_reason
        return found if self.ended_at is None else found | {"endedAt": self.ended_at}

    def _phase(self) -> Json:
        found: Json = {
            "id": str(uuid.UUID(self.id)),
            "phaseIndex": 0,
            "ruleId": self.rule_id,
            "description": "everyone",
            "status": self.status,
            "steps": [
                {"stepIndex": 0, "allocation": self.allocation, "durationMillis": 3_600_000},
                {"stepIndex": 1, "allocation": 50_000, "durationMillis": 3_600_000},
            ],
            "currentStepIndex": 0,
            "startedAt": self.created_at,
            "metricStatuses": {"http-errors": "ok"} if self.kind == "guarded" else {},
        }
        return found | {"statusReason": self.status_reason} if self.status_reason else found

    def rollout(self, flag: Flag) -> Json:
        """What serves it: target and control measured, the rest of the original not."""
        target, original = flag.index(self.target["_id"]), flag.index(self.original["_id"])
        return {
            "variations": [
                {"variation": target, "weight": self.allocation, "_untracked": False},
                {"variation": original, "weight": self.allocation, "_untracked": False},
                {"variation": original, "weight": FULL - 2 * self.allocation, "_untracked": True},
            ],
            "experimentAllocation": {"defaultVariation": original, "canReshuffle": False},
            "seed": self.created_at % 1_000_000_007,
            "contextKind": "user",
        }
