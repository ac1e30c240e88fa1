"""Runs inside .chart, where Helm's own library is: one JSON request a line on stdin, one answer a line on stdout.

Answers are `{"result": …}`, or `{"refused": "what Helm or Kubernetes would say"}`.
"""

import json
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import helm_python as helm  # type: ignore[import-not-found]
from kubernetes_validate import utils as kubernetes  # type: ignore[import-not-found]

kubernetes.schema_contents = cache(kubernetes.schema_contents)


def lint(chart: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = helm.lint(chart, values, strict=True, kube_version="v1.30.0")["messages"]
    return found


def render(chart: str, values: dict[str, Any], name: str, namespace: str) -> dict[str, str]:
    """Template → text."""
    with helm.Chart.load(chart) as loaded:
        texts: dict[str, str] = loaded.render(values, name=name, namespace=namespace)
    return texts


def files(chart: str, folder: str) -> dict[str, list[str]]:
    """What is in the archive that people install."""
    with helm.Chart.load(helm.package(chart, destination=folder)) as packed:
        return {
            "files": [one["name"] for one in packed.files],
            "templates": [one["name"] for one in packed.templates],
        }


def check(document: dict[str, Any], version: str) -> None:
    """Against Kubernetes' own schema; unknown fields are refused."""
    kubernetes.validate(document, version, strict=True)


CALLS: dict[str, Callable[..., Any]] = {"lint": lint, "render": render, "files": files, "check": check}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": CALLS[request.pop("call")](**request)}
    except (helm.HelmError, kubernetes.ValidationError, kubernetes.SchemaNotFoundError) as refusal:
        path = "/".join(map(str, getattr(refusal, "absolute_path", ())))
        message = getattr(refusal, "message", None) or str(refusal)
        return {"refused": f"{path}: {message}" if path else message}


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()
