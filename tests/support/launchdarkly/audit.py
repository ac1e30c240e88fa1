"""The audit log: who changed what, when, and with which comment. Documentation: docs/api/audit-log."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from tests.support.launchdarkly.account import Actor, Token
from tests.support.launchdarkly.identity import new_id

Json = dict[str, Any]


@dataclass
class Entry:
    """`before` and `after` are the flag as the REST API shows it."""

    actor: Actor
    at: int
    project: str
    environment: str | None
    flag: str
    flag_name: str
    actions: Sequence[str]
    kinds: Sequence[str]
    comment: str
    before: Json
    after: Json
    tags: Sequence[str] = ()
    id: str = field(default_factory=new_id)

    @property
    def resource(self) -> str:
        return f"proj/{self.project}:env/{self.environment or '*'}:flag/{self.flag}"

    def fits(self, spec: str) -> bool:
        """`proj/*:env/production:flag/checkout`. Documentation: docs/home/account/roles/role-resources."""
        wanted, here = spec.split(":"), self.resource.split(":")
        return len(wanted) == len(here) and all(
            fnmatchcase(one, part.partition(";")[0]) or (one.endswith("/*") and part.endswith("/*"))
            for one, part in zip(here, wanted, strict=True)
        )

    def json(self) -> Json:
        """A member who acted, or the token; with a personal token it is both."""
        tags = f";{','.join(self.tags)}" if self.tags else ""
        verb = "turned on the flag" if list(self.kinds) == ["turnFlagOn"] else "updated the flag"
        found: Json = {
            "_links": {"self": _link(f"/api/v2/auditlog/{self.id}"), "parent": _link("/api/v2/auditlog")},
            "_id": self.id,
            "_accountId": "5f0000000000000000000001",
            "date": self.at,
            "accesses": [{"action": action, "resource": self.resource + tags} for action in self.actions],
            "kind": "flag",
            "name": self.flag_name,
            "description": f"- {', '.join(self.kinds)}",
            "shortDescription": "",
            "comment": self.comment,
            "relatedFlag": {"key": self.flag},
            "titleVerb": verb,
            "title": f"{self._who} {verb} {self.flag_name}",
            "target": {
                "_links": {"canonical": _link(f"/api/v2/flags/{self.project}/{self.flag}")},
                "name": self.flag_name,
                "resources": [self.resource + tags],
            },
        }
        if not isinstance(self.actor, Token):
            return found | {"member": self.actor.json()}
        found["token"] = self.actor.json()
        return found if self.actor.service else found | {"member": self.actor.owner.json()}

    def detail(self) -> Json:
        """With both versions; `delta` is null after a semantic patch (docs/api/audit-log/get-audit-log-entry)."""
        return self.json() | {"delta": None, "previousVersion": self.before, "currentVersion": self.after}

    @property
    def _who(self) -> str:
        return (
            self.actor.name if isinstance(self.actor, Token) else f"[{self.actor.key}](mailto:{self.actor.email})"
        )


def listing(
    entries: Sequence[Entry], *, before: int | None, after: int | None, q: str, spec: str, limit: int
) -> Json:
    """Newest first. Documentation: docs/api/audit-log/get-audit-log-entries."""
    found = [
        entry
        for entry in reversed(entries)
        if (before is None or entry.at < before)
        and (after is None or entry.at > after)
        and q.lower() in f"{entry.flag_name} {entry.flag}".lower()
        and (not spec or any(entry.fits(one) for one in spec.split(",")))
    ]
    return {"items": [entry.json() for entry in found[:limit]], "_links": {"self": _link("/api/v2/auditlog")}}


def _link(path: str) -> Json:
    return {"href": path, "type": "application/json"}
