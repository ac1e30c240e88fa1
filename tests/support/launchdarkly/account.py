"""Who may do what in a LaunchDarkly account, and the projects and environments in it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.launchdarkly.flags import Flag
from tests.support.launchdarkly.identity import new_id

Json = dict[str, Any]


@dataclass
class Member:
    """A person with a seat. The audit log names people by e-mail address and name."""

    key: str
    id: str = field(default_factory=new_id)

    @property
    def email(self) -> str:
        return f"{self.key}@acme.example"

    def json(self) -> Json:
        return {
            "_links": {"self": _link(f"/api/v2/members/{self.id}")},
            "_id": self.id,
            "email": self.email,
            "firstName": self.key.capitalize(),
            "lastName": "Example",
        }


@dataclass
class Token:
    """An access token for the REST API. SDK keys are none. Documentation: docs/api#authentication.

    `bypass`: its role has the action bypassRequiredApproval (docs/home/account/roles/role-actions).
    `denied`: actions of flags that its role lacks, such as `updateOn`.
    """

    name: str
    secret: str
    role: Literal["reader", "writer"] = "writer"
    service: bool = True
    bypass: bool = False
    denied: frozenset[str] = frozenset()
    owner: Member = field(default_factory=lambda: Member("robot"))
    id: str = field(default_factory=new_id)

    def may(self, action: str) -> bool:
        return self.role == "writer" and action not in self.denied

    def json(self) -> Json:
        return {
            "_links": {"self": _link(f"/api/v2/tokens/{self.id}")},
            "_id": self.id,
            "name": self.name,
            "ending": self.secret[-4:],
            "serviceToken": self.service,
        }


Actor = Token | Member


@dataclass
class Environment:
    """`approvals`: changes of flags need an approval, with `approval_tags` only of flags with one of these."""

    key: str
    sdk_key: str
    mobile_key: str
    id: str = field(default_factory=new_id)
    approvals: bool = False
    approval_tags: tuple[str, ...] = ()
    segments: dict[str, Json] = field(default_factory=dict)

    @property
    def client_side_id(self) -> str:
        return self.id

    @property
    def name(self) -> str:
        return self.key.capitalize()

    def needs_approval(self, flag: Flag) -> bool:
        return self.approvals and (not self.approval_tags or bool(set(self.approval_tags) & set(flag.tags)))

    def json(self, project: str) -> Json:
        return {
            "_links": {"self": _link(f"/api/v2/projects/{project}/environments/{self.key}")},
            "_id": self.id,
            "key": self.key,
            "name": self.name,
            "apiKey": self.sdk_key,
            "mobileKey": self.mobile_key,
            "color": "417505",
            "defaultTtl": 0,
            "secureMode": False,
            "defaultTrackEvents": False,
            "requireComments": False,
            "confirmChanges": False,
            "tags": [],
            "critical": self.key == "production",
            "approvalSettings": {
                "required": self.approvals,
                "bypassApprovalsForPendingChanges": False,
                "minNumApprovals": 1,
                "canReviewOwnRequest": False,
                "canApplyDeclinedChanges": False,
                "serviceKind": "launchdarkly",
                "serviceConfig": {},
                "requiredApprovalTags": list(self.approval_tags),
            },
        }


@dataclass
class Project:
    key: str
    environments: dict[str, Environment]
    flags: dict[str, Flag] = field(default_factory=dict)
    id: str = field(default_factory=new_id)

    def json(self, *, expanded: bool) -> Json:
        """Environments only when asked for. Documentation: docs/api/projects/get-project."""
        found: Json = {
            "_links": {"self": _link(f"/api/v2/projects/{self.key}")},
            "_id": self.id,
            "key": self.key,
            "name": self.key.capitalize(),
            "includeInSnippetByDefault": False,
            "tags": [],
        }
        return found | {"environments": self.environments_json()} if expanded else found

    def environments_json(self) -> Json:
        items = [environment.json(self.key) for environment in self.environments.values()]
        path = f"/api/v2/projects/{self.key}/environments"
        return {"_links": {"self": _link(path)}, "totalCount": len(items), "items": items}


def _link(path: str) -> Json:
    return {"href": path, "type": "application/json"}
