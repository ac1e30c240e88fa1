"""What docs/replicas.md says of settings is so; that three replicas run with them is told by the e2e tests."""

import tomllib

import msgspec

from controller.engine import quiet_seconds
from controller.settings import PeersSettings, Settings
from tests.support.repository import ROOT, blocks

PAGE = ROOT / "docs" / "replicas.md"


def test_all_settings_that_are_shown_are_settings() -> None:
    shown = [msgspec.convert(tomllib.loads(block), Settings, strict=True) for block in blocks(PAGE, "toml")]
    assert len(shown) == 2
    assert all(one.peers != PeersSettings() and one.peers.secret_file for one in shown)


def test_the_time_after_which_a_silent_replica_can_undo_no_kill_is_as_said() -> None:
    assert f"with the usual settings {quiet_seconds(Settings()):g} s after the kill" in " ".join(
        PAGE.read_text().split()
    )
