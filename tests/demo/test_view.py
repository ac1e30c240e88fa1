"""What the live view of the demo says of a rollout."""

from msgspec.structs import replace
from rich.console import Console

from controller.demo.view import rollout_panel
from controller.domain.status import KillStatus, RunStatus
from tests.support.demo import AT, FLAG, RUN


def shown(status: RunStatus) -> str:
    console = Console(width=100, force_terminal=False)
    with console.capture() as captured:
        console.print(rollout_panel(status))
    return captured.get()


def test_a_rule_is_shown_with_value_limit_baseline_sample_and_how_long_it_is_breached() -> None:
    (line,) = [line for line in shown(RUN).splitlines() if "p95-3x" in line]
    for figure in ("kill", "429 ms", "366 ms", "122 ms", "2928", "breach, 0.6 of 1.2 s"):
        assert figure in line


def test_the_exposure_is_shown_as_desired_and_as_read_back_with_the_time_to_the_next_stage() -> None:
    assert "exposure desired 1 %, observed 1 %   100 % in 4s" in shown(RUN)


def test_an_unread_exposure_is_unknown_and_not_a_number() -> None:
    assert "observed unknown" in shown(replace(RUN, observed_exposure=None))


def test_a_kill_is_off_only_once_it_was_read_back() -> None:
    kill = KillStatus(
        kill_id="k1", flag=FLAG, accepted_at=AT, actor="rampart", reason="p95", confirmed_at=None, run=RUN.id
    )
    assert "off is not read back yet" in shown(replace(RUN, phase="killed", kills=[kill]))
    read_back = KillStatus(
        kill_id="k1", flag=FLAG, accepted_at=AT, actor="rampart", reason="p95", confirmed_at=AT, run=RUN.id
    )
    assert "off, read back at 03:12:09 UTC" in shown(replace(RUN, phase="killed", kills=[read_back]))
