"""What a held kill says of itself, to providers, people and the audit log."""

from typing import Any, Literal

import pytest
from msgspec.structs import replace

from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Kill, KillRecord
from controller.domain.flag import FlagKill
from controller.domain.plan import Serve
from controller.domain.status import KillReceipt, KillStatus
from controller.held import Held
from tests.support.rollouts import FLAG, NOW

SERVE = Serve(rollout="on", fallback="off")


def held(cause: Literal["policy", "user"] = "user") -> Held:
    kill = Kill(
        id="k1", flag=FLAG, accepted_at=NOW, actor="dana", reason="INC-1", cause=cause, run="checkout-v2#1"
    )
    record = KillRecord(kill=kill, serve=SERVE, details={"rule": "web/p95"})
    return Held(record=record, since=0.0, durable=True, updated_at=NOW, reached=("sdk",), heard={"b", "a"})


@pytest.mark.parametrize(("cause", "reason"), [("user", "killed by dana: INC-1"), ("policy", "INC-1")])
def test_the_audit_entry_is_complete_and_words_only_what_a_person_did(
    cause: Literal["policy", "user"], reason: str
) -> None:
    assert held(cause).entry() == AuditEntry(
        id="k1",
        at=NOW,
        actor="dana",
        action="kill",
        cause=cause,
        subject="main/production/checkout-v2",
        environment="production",
        reason=reason,
        flag="main/production/checkout-v2",
        run="checkout-v2#1",
        details={"kill_id": "k1", "rule": "web/p95"},
    )


def test_the_provider_is_told_who_killed_and_why() -> None:
    assert held().command() == FlagKill(
        flag=FLAG, kill_id="k1", serve=SERVE, comment="Rampart checkout-v2#1, decision k1 by dana: INC-1"
    )


@pytest.mark.parametrize(
    ("run", "details", "told"),
    [
        (None, {}, "Rampart, decision"),
        ("checkout-v2#1", {"stage": "early"}, "Rampart checkout-v2#1 (early), decision"),
    ],
)
def test_the_provider_is_told_of_run_and_stage_where_there_are_any(
    run: str | None, details: dict[str, Any], told: str
) -> None:
    one = held()
    one.record = replace(one.record, kill=replace(one.kill, run=run), details=details)
    assert one.command().comment == f"{told} k1 by dana: INC-1"


def test_people_are_told_who_has_it_and_who_was_silent() -> None:
    kill = held()
    kill.confirmed_at = NOW
    assert kill.status() == KillStatus(
        kill_id="k1",
        flag=FLAG,
        accepted_at=NOW,
        actor="dana",
        reason="INC-1",
        confirmed_at=NOW,
        run="checkout-v2#1",
    )
    assert kill.receipt(["a", "d", "c"]) == KillReceipt(
        kill_id="k1",
        flag=FLAG,
        accepted_at=NOW,
        durable=True,
        provider_updated_at=NOW,
        confirmed_at=NOW,
        replicas=["a", "b", "sdk"],
        run="checkout-v2#1",
        silent=["c", "d"],
    )
    assert kill.receipt([]).silent == []
