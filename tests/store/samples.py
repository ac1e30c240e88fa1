"""Small plans, policies, runs, kills, secrets and audit entries for the tests of the store."""

import itertools
from datetime import UTC, datetime
from typing import Any

import msgspec

from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Claim, FlagConfig, Kill, SdkKey, Token, Transition
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import Action, Run, transition
from controller.ports import Store

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
FLAG = FlagRef(provider="main", environment="production", key="checkout-v2")

_ids = itertools.count(1)


def flag(key: str = "checkout-v2") -> FlagRef:
    return FlagRef(provider="main", environment="production", key=key)


def plan(name: str = "checkout-v2", *, bake: str = "30m", **metadata: Any) -> RolloutPlan:
    return msgspec.convert(
        {
            "kind": "RolloutPlan",
            "apiVersion": "rampart/v1",
            "metadata": {"name": name, **metadata},
            "spec": {
                "flag": {"provider": "main", "environment": "production", "key": name},
                "serve": {"rollout": "on", "fallback": "off"},
                "stages": [{"name": "canary", "exposure": "1%", "bake": bake}],
                "guardrails": [{"policy": "web-service"}],
            },
        },
        RolloutPlan,
    )


def policy(name: str = "web-service", *, limit: str = "1%") -> GuardrailPolicy:
    return msgspec.convert(
        {
            "kind": "GuardrailPolicy",
            "apiVersion": "rampart/v1",
            "metadata": {"name": name},
            "spec": {
                "source": "prometheus",
                "metrics": {"error_rate": {"bad": "errors", "total": "requests"}},
                "rules": [{"id": "errors-high", "if": f"error_rate > {limit}", "then": "pause"}],
            },
        },
        GuardrailPolicy,
    )


def entry(action: str = "apply", *, actor: str = "dana", reason: str = "because", **values: Any) -> AuditEntry:
    return AuditEntry(
        **{
            "id": f"entry-{next(_ids)}",
            "at": NOW,
            "actor": actor,
            "action": action,
            "cause": "user",
            "subject": "checkout-v2",
            "environment": "production",
            "reason": reason,
            **values,
        }
    )


def pending_run(name: str = "checkout-v2", **values: Any) -> Run:
    return Run(
        **{
            "id": "",
            "plan": name,
            "number": 0,
            "plan_revision": 1,
            "policy_revisions": {"web-service": 1},
            "flag": flag(name),
            "author": "dana",
            "started_by": "kim",
            "created_at": NOW,
            **values,
        }
    )


def kill(kill_id: str = "kill-1", name: str = "checkout-v2") -> Kill:
    return Kill(id=kill_id, flag=flag(name), accepted_at=NOW, actor="kim", reason="errors everywhere")


def token(name: str = "ci", digest: bytes = b"d" * 32) -> Token:
    return Token(name=name, digest=digest, scopes=("read", "kill"), created_at=NOW, created_by="dana")


def sdk_key(name: str = "shop", digest: bytes = b"k" * 32) -> SdkKey:
    return SdkKey(name=name, digest=digest, environment="production", created_at=NOW, created_by="dana")


def flag_config(version: int, *, key: str = "checkout-v2", on: bool = True) -> FlagConfig:
    return FlagConfig(
        environment="production",
        key=key,
        version=version,
        variations={"on": True, "off": False, "also": None},
        data={"version": version, "on": on, "weights": [1, 99_999]},
    )


def change(before: Run, action: Action, *, raises: bool = False, **values: Any) -> Transition:
    """A transition as the reconciler would make it; keyword arguments go to the Transition."""
    after = transition(before, action)
    return Transition(before=before, after=after, entry=entry(action), raises=raises, **values)


async def started(store: Store, name: str = "checkout-v2") -> Run:
    """A run in its first stage: plan and policy applied, run created, start committed."""
    created = await created_run(store, name)
    step = change(created, "start", raises=True)
    await store.commit(step)
    return step.after


async def created_run(store: Store, name: str = "checkout-v2") -> Run:
    await store.save_policy(policy(), entry())
    await store.save_plan(plan(name), entry())
    return await store.create_run(pending_run(name), entry("start"))


async def claim_one(store: Store, owner: str = "replica-a", *, lease_seconds: float = 30.0) -> Claim:
    (claim,) = await store.claim_due(owner, limit=10, lease_seconds=lease_seconds)
    return claim
