"""The import contracts name everything they are meant to hold."""

from pathlib import Path
from typing import Any

from controller import channels, providers
from controller.sources import kinds as sources
from tests.support.repository import ROOT, pyproject

# Those two are the server, or start it; the first also is where all commands come together.
LOADS_THE_SERVER = {"controller.cli", "controller.cli.server"}


def contracts(kind: str) -> list[dict[str, Any]]:
    return [one for one in pyproject()["tool"]["importlinter"]["contracts"] if one["type"] == kind]


def modules_of(package: str) -> set[str]:
    folder = ROOT / Path(*package.split("."))
    return {package} | {f"{package}.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"}


def test_no_contract_has_exceptions() -> None:
    for contract in pyproject()["tool"]["importlinter"]["contracts"]:
        assert not {"ignore_imports", "unmatched_ignore_imports_alerting", "allow_indirect_imports"} & set(
            contract
        )


def test_every_command_that_is_not_the_server_is_kept_from_loading_it() -> None:
    held = {module for contract in contracts("forbidden") for module in contract["source_modules"]}
    assert modules_of("controller.cli") - LOADS_THE_SERVER <= held


def test_plugs_of_every_socket_are_held_apart() -> None:
    held = {module for contract in contracts("independence") for module in contract["modules"]}
    plugs = [
        build.__module__ for socket in (sources, providers, channels) for build in socket.KINDS.values()
    ]  # fmt: skip
    loose = [plug for plug in plugs if plug not in held and f"{plug.rpartition('.')[0]}.*" not in held]
    assert loose == []


def test_every_module_has_its_floor() -> None:
    (layers,) = contracts("layers")
    assert layers["exhaustive"]
    assert layers["containers"] == ["controller"]
