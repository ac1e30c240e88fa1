"""A kill must feel instant: what the command loads before it acts."""

import subprocess
import sys

import pytest

SERVER_MODULES = ("litestar", "aiohttp", "asyncpg", "structlog", "ldclient", "uvicorn", "apscheduler", "asyncio")
SLOW_MODULES = ("rich", "yaml", "promql_parser", "jinja2", "controller.app", "controller.manifests.lint")


def loaded_after(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_command_line_loads_neither_the_server_nor_a_parser() -> None:
    modules = loaded_after("import controller.cli")
    assert "click" in modules
    assert modules.isdisjoint({*SERVER_MODULES, *SLOW_MODULES})


@pytest.mark.parametrize("arguments", [["kill", "x", "-m", "why"], ["status", "x"], ["--help"]])
def test_a_command_loads_neither_the_server_nor_a_parser(arguments: list[str]) -> None:
    call = f"from controller.cli import main\nmain({arguments!r})"
    script = (
        f"import os\nos.environ['RAMPART_URL'] = 'http://127.0.0.1:1'\nos.environ['RAMPART_TOKEN'] = 't'\n{call}"
    )
    assert loaded_after(script).isdisjoint({*SERVER_MODULES, *SLOW_MODULES})
