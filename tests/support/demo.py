"""A run of the demo as the server shows it."""

from datetime import UTC, datetime

from controller.domain.plan import FlagRef
from controller.domain.status import RuleStatus, RunStatus, StageState, StageStatus

AT = datetime(2026, 11, 20, 3, 12, 9, tzinfo=UTC)
FLAG = FlagRef(provider="main", environment="production", key="checkout-v2")
STAGES: list[tuple[str, int, StageState]] = [("canary", 1000, "current"), ("everyone", 100_000, "ahead")]
RULE = RuleStatus(
    policy="web-service",
    rule="p95-3x",
    condition="latency_p95 > 3x baseline",
    then="kill",
    enforced=True,
    outcome="breach",
    detail="",
    unit="seconds",
    value=0.429,
    limit=0.366,
    baseline=0.122,
    sample=2928,
    breached_seconds=0.6,
    for_seconds=1.2,
    query="",
)
RUN = RunStatus(
    id="checkout-v2#1",
    plan="checkout-v2",
    flag=FLAG,
    phase="progressing",
    mode="enforce",
    stage=0,
    stages=[
        StageStatus(
            name=name, exposure=exposure, state=state, bake_seconds=6.0, baked_seconds=2.0, needs_approval=False
        )
        for name, exposure, state in STAGES
    ],
    desired_exposure=1000,
    observed_exposure=1000,
    observed_enabled=True,
    observed_at=AT,
    confirmed=True,
    reason="started at 1 % (canary)",
    blocks=[],
    next_exposure=100_000,
    next_in_seconds=3.2,
    rules=[RULE],
    kills=[],
    plan_revision=1,
    author="admin",
    started_by="admin",
    created_at=AT,
    ended_at=None,
    version=2,
)
