"""Real Helm, in the environment that `make chart-test` builds beside ours."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.repository import ROOT

CHART = ROOT / "helm" / "rampart"
PYTHON = ROOT / ".chart" / "bin" / "python"
Document = dict[str, Any]


class Refused(Exception):
    pass


class Helm:
    """One process for all tests: it has 80 MB of Helm to load."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def lint(self, values: Document) -> list[str]:
        """Warnings and errors."""
        found = self._ask(call="lint", chart=str(CHART), values=values)
        return [one["error"] for one in found if one["severity"] > 1]

    def render(self, values: Document, *, name: str = "rampart", namespace: str = "releases") -> dict[str, str]:
        """Template → text. Raises Refused."""
        texts = self._ask(call="render", chart=str(CHART), values=values, name=name, namespace=namespace)
        return {template.removeprefix("rampart/templates/"): text for template, text in texts.items()}

    def documents(self, values: Document, **release: str) -> list[Document]:
        """Everything that Kubernetes would get, hooks too."""
        texts = self.render(values, **release)
        texts.pop("NOTES.txt")
        return [one for text in texts.values() for one in yaml.safe_load_all(text) if one]

    def package(self, folder: Path) -> dict[str, list[str]]:
        result: dict[str, list[str]] = self._ask(call="files", chart=str(CHART), folder=str(folder))
        return result

    def check(self, document: Document, version: str) -> None:
        """Raises Refused."""
        self._ask(call="check", document=document, version=version)

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer["result"]


@pytest.fixture(scope="session")
def helm() -> Iterator[Helm]:
    if not PYTHON.exists():
        pytest.fail("Helm is not here: run this by `make chart-test`, which fetches it")
    program = [str(PYTHON), str(Path(__file__).with_name("tool.py"))]
    # Helm says on stderr what a template refused; the answers say it, too.
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield Helm(process)
        process.terminate()


def values_of(name: str) -> Document:
    """helm/rampart/ci/<name>-values.yaml."""
    values: Document = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    return values


CASES = ["trial", "production", "everything"]


@pytest.fixture(params=CASES)
def values(request: pytest.FixtureRequest) -> Document:
    return values_of(request.param)


@pytest.fixture
def documents(helm: Helm, values: Document) -> list[Document]:
    return helm.documents(values)
