"""The account and all in it. Every change goes through `change`: all or nothing, counted, in the audit log."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from tests.support.launchdarkly import json_patch
from tests.support.launchdarkly.account import Actor, Environment, Member, Project, Token
from tests.support.launchdarkly.audit import Entry
from tests.support.launchdarkly.errors import ApiError, forbidden, invalid, not_found
from tests.support.launchdarkly.flags import Flag, new_flag, rest_flag
from tests.support.launchdarkly.instructions import Draft, Quirks, action_of, carry_out, touches_environment
from tests.support.launchdarkly.pending import Waiting, overlap
from tests.support.launchdarkly.releases import Release

Json = dict[str, Any]

OnChange = Callable[[str, Flag], None]


class Ledger:
    """`time`: seconds since 1970; a test may put its own in place. `changed` is called after every change."""

    def __init__(self, changed: OnChange) -> None:
        self.time: Callable[[], float] = time.time
        self.quirks = Quirks()
        self.projects: dict[str, Project] = {}
        self.tokens: dict[str, Token] = {}
        self.members: dict[str, Member] = {}
        self.audit: list[Entry] = []
        self.waiting: list[Waiting] = []
        self.releases: list[Release] = []
        self._changed = changed

    def now(self) -> float:
        return self.time()

    @property
    def now_millis(self) -> int:
        return int(self.now() * 1000)

    # — what is there —

    def project(self, key: str) -> Project:
        if key not in self.projects:
            raise not_found(f"there is no project {key!r}")
        return self.projects[key]

    def environment(self, project: str, key: str) -> Environment:
        environments = self.project(project).environments
        if key not in environments:
            raise not_found(f"there is no environment {key!r}")
        return environments[key]

    def flag(self, project: str, key: str) -> Flag:
        flags = self.project(project).flags
        if key not in flags:
            raise not_found(f"there is no flag {key!r}")
        return flags[key]

    def find_waiting(self, project: str, flag: str, environment: str, *, scheduled: bool) -> list[Waiting]:
        self.flag(project, flag)
        self.environment(project, environment)
        return [
            one
            for one in self.waiting
            if (one.project, one.flag, one.environment) == (project, flag, environment)
            and (one.at is not None) == scheduled
        ]

    def running_release(self, project: str, flag: str, environment: str | None = None) -> Release | None:
        for one in self.releases:
            if (
                (one.project, one.flag) == (project, flag)
                and environment in (None, one.environment)
                and one.running
            ):
                return one
        return None

    # — changes —

    def create_flag(self, project: str, key: str, variations: Mapping[str, Any]) -> Flag:
        flags = self.project(project).flags
        flag = flags[key] = new_flag(key, variations, self.project(project).environments, self.now_millis)
        self._changed(project, flag)
        return flag

    def change(
        self,
        actor: Actor,
        project: str,
        key: str,
        environment: str | None,
        instructions: Sequence[Json],
        *,
        comment: str = "",
        ignore_conflicts: bool = False,
        dry_run: bool = False,
        approved: bool = False,
    ) -> Flag:
        """A semantic patch. The flag as it is then, or with `dry_run` would be. Raises ApiError."""
        flag = self.flag(project, key)
        self._check_rights(actor, instructions)
        draft = self._draft(project, flag, environment)
        carry_out(draft, instructions)
        self._check_approval(actor, project, flag, environment, instructions, approved=approved)
        if not ignore_conflicts and not approved:
            self._check_conflicts(draft, project, instructions)
        if not dry_run:
            kinds = [one["kind"] for one in instructions]
            self._keep(
                actor, project, flag, draft, sorted({action_of(one) for one in instructions}), kinds, comment
            )
        return draft.flag

    def json_patch(
        self, actor: Actor, project: str, key: str, operations: Sequence[Json], *, comment: str = ""
    ) -> Flag:
        """A JSON Patch (docs/api/feature-flags/patch-feature-flag#using-json-patches-on-a-feature-flag)."""
        flag = self.flag(project, key)
        self._check_rights(actor, [{"kind": "updateRules"}])
        draft = self._draft(project, flag, None)
        json_patch.carry_out(draft.flag, operations)
        environments = {environment for operation in operations if (environment := json_patch.touches(operation))}
        for environment in environments:
            self._check_approval(actor, project, flag, environment, [{"kind": "updateRules"}], approved=False)
        self._keep(actor, project, flag, draft, ["updateRules"], ["JSON patch"], comment)
        return draft.flag

    def _draft(self, project: str, flag: Flag, environment: str | None) -> Draft:
        return Draft(copy.deepcopy(flag), environment, self.project(project).flags, self.now_millis, self.quirks)

    def _check_rights(self, actor: Actor, instructions: Sequence[Json]) -> None:
        """A role without the action: 403 (docs/api#errors)."""
        for instruction in instructions:
            if isinstance(actor, Token) and not actor.may(action_of(instruction)):
                raise forbidden(f"the role of token {actor.name!r} does not allow {action_of(instruction)}")

    def _check_approval(
        self,
        actor: Actor,
        project: str,
        flag: Flag,
        environment: str | None,
        instructions: Sequence[Json],
        *,
        approved: bool,
    ) -> None:
        """405 where an approval is needed (docs/api/feature-flags/patch-feature-flag#required-approvals).

        The message names the action, as in an answer that users report (launchdarkly/ldcli issue 581). People
        are let through here: they got theirs in the user interface.
        """
        if approved or environment is None or isinstance(actor, Member) or actor.bypass:
            return
        touching = [one for one in instructions if touches_environment(one)]
        if touching and self.environment(project, environment).needs_approval(flag):
            action = action_of(touching[0])
            raise ApiError(
                405, "method_not_allowed", f"changes of this flag need an approval: no {action!r} without"
            )

    def _check_conflicts(self, draft: Draft, project: str, instructions: Sequence[Json]) -> None:
        """400 when something waits that this would spoil; see `pending`."""
        if draft.environment is None:
            return
        for scheduled in (True, False):
            for one in self.find_waiting(project, draft.flag.key, draft.environment, scheduled=scheduled):
                if one.status in ("pending", "scheduled") and (
                    overlap(one, instructions) or not self._would_work(draft, one)
                ):
                    what = "scheduled change" if scheduled else "approval request"
                    raise invalid(f"a pending {what} ({one.id}) would fail after this change")

    def _would_work(self, draft: Draft, waiting: Waiting) -> bool:
        trial = Draft(copy.deepcopy(draft.flag), draft.environment, draft.flags, draft.now, self.quirks)
        try:
            carry_out(trial, waiting.instructions)
        except ApiError:
            return False
        return True

    def _keep(
        self,
        actor: Actor,
        project: str,
        before: Flag,
        draft: Draft,
        actions: Sequence[str],
        kinds: Sequence[str],
        comment: str,
    ) -> None:
        """Versions count what really changed; a patch that changes nothing leaves no trace but its success."""
        flag = draft.flag
        if flag == before:
            return
        shared = _shared(flag) != _shared(before)
        for key, config in flag.environments.items():
            if shared or config != before.environments[key]:
                config.version += 1
                config.last_modified = self.now_millis
        flag.version += 1
        self._discard_releases(project, flag)
        flags = self.project(project).flags
        if flag.deleted:
            flags.pop(flag.key)
        else:
            flags[flag.key] = flag
        environments = list(flag.environments)
        self.audit.append(
            Entry(
                actor,
                self.now_millis,
                project,
                draft.environment,
                flag.key,
                flag.name,
                actions,
                kinds,
                comment,
                rest_flag(before, project, environments),
                rest_flag(flag, project, environments),
                flag.tags,
            )
        )
        self._changed(project, flag)

    def _discard_releases(self, project: str, flag: Flag) -> None:
        """A release ends when its flag is turned off or archived (docs/api/environment-releases-beta)."""
        for one in self.releases:
            if not one.running or (one.project, one.flag) != (project, flag.key):
                continue
            if flag.archived or not flag.environments[one.environment].on:
                one.status, one.status_reason, one.ended_at = "reverted", "reverted_discarded", self.now_millis

    # — what waits —

    def ask(
        self, actor: Actor, project: str, flag: str, environment: str, instructions: Sequence[Json], **more: Any
    ) -> Waiting:
        """An approval request or, with `at`, a scheduled change. Raises ApiError when it is impossible now."""
        draft = self._draft(project, self.flag(project, flag), environment)
        carry_out(draft, instructions)
        waiting = Waiting(actor, self.now_millis, project, environment, flag, list(instructions), **more)
        self.waiting.append(waiting)
        return waiting

    def review(self, actor: Actor, waiting: Waiting, kind: Literal["approve", "decline", "comment"]) -> None:
        if kind != "comment":
            waiting.review = "approved" if kind == "approve" else "declined"
        waiting.reviews.append({
            "_id": waiting.id, "kind": kind, "creationDate": self.now_millis,
            ("serviceTokenId" if isinstance(actor, Token) else "memberId"): actor.id,
        })  # fmt: skip

    def carry_out(self, actor: Actor, waiting: Waiting, comment: str = "") -> None:
        """Apply what was approved, or what was scheduled and is due. Raises ApiError."""
        if waiting.at is None and waiting.review != "approved":
            raise invalid("the request is not approved")
        if waiting.status == "completed":
            raise invalid("the request was applied already")
        try:
            self.change(
                actor, waiting.project, waiting.flag, waiting.environment, waiting.instructions,
                comment=comment, approved=True,
            )  # fmt: skip
        except ApiError:
            waiting.status = "failed"
            raise
        waiting.status, waiting.applied_at, waiting.applied_by = "completed", self.now_millis, actor
        if waiting.at is not None:
            self.waiting.remove(waiting)

    def start_release(
        self,
        actor: Actor,
        project: str,
        key: str,
        environment: str,
        *,
        original: str,
        target: str,
        on_default_rule: bool,
        **more: Any,
    ) -> Release:
        """LaunchDarkly begins to roll the flag out by itself: on a rule or, as before, on the default rule."""
        flag = self.flag(project, key)
        draft = self._draft(project, flag, environment)
        release = Release(
            project,
            environment,
            key,
            flag.variation(original),
            flag.variation(target),
            self.now_millis,
            None,
            **more,
        )
        rollout = release.rollout(flag)
        if on_default_rule:
            draft.config.fallthrough = {"rollout": rollout}
        else:
            clause = {"contextKind": "user", "attribute": "kind", "op": "in", "values": ["user"]}
            carry_out(draft, [{"kind": "addRule", "variationId": release.target["_id"], "clauses": [clause]}])
            rule = draft.config.rules[-1]
            rule.pop("variation")
            rule["rollout"], release.rule_id = rollout, rule["_id"]
        draft.config.on = True
        self._keep(actor, project, flag, draft, ["updateRulesWithMeasuredRollout"], ["startRelease"], "")
        self.releases.insert(0, release)
        return release


def _shared(flag: Flag) -> Any:
    """What every environment's SDKs see of it beside their own part."""
    return [flag.variations, flag.archived_at, flag.deleted, flag.mobile, flag.client_side]
