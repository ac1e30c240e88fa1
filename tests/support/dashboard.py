"""Our dashboard for Grafana: the parts of its format that we use, as strict as Grafana is lenient."""

import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

from tests.support.repository import ROOT

DASHBOARD = ROOT / "helm" / "rampart" / "files" / "dashboard.json"
COLUMNS = 24


class Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Grafana passes over what it does not know, so that a typing error is seen by nobody."""


class Datasource(Strict, frozen=True):
    type: Literal["prometheus"]
    uid: Literal["${datasource}"]


class GridPos(Strict, frozen=True):
    h: int
    w: int
    x: int
    y: int


class Target(Strict, frozen=True, rename={"legend": "legendFormat"}):
    refId: str  # noqa: N815 - as Grafana writes it
    datasource: Datasource
    expr: str
    legend: str
    range: bool
    instant: bool
    format: Literal["table", "time_series"] = "time_series"


class FieldConfig(Strict, frozen=True):
    defaults: dict[str, Any]
    overrides: list[dict[str, Any]]


class Panel(Strict, frozen=True, rename={"grid": "gridPos", "fields": "fieldConfig"}):
    id: int
    type: Literal["row", "timeseries", "stat", "table"]
    title: str
    grid: GridPos
    description: str = ""
    collapsed: bool = False
    panels: list["Panel"] = []
    datasource: Datasource | None = None
    fields: FieldConfig | None = None
    targets: list[Target] = []
    options: dict[str, Any] = {}
    transformations: list[dict[str, Any]] = []


class Annotation(Strict, frozen=True, rename="camel"):
    name: str
    enable: bool
    icon_color: str
    datasource: Datasource
    expr: str
    title_format: str
    text_format: str
    step: str


class Variable(Strict, frozen=True, rename="camel"):
    name: str
    label: str
    type: Literal["datasource", "query"]
    query: Any
    refresh: int
    multi: bool
    include_all: bool
    current: dict[str, Any]
    options: list[Any]
    datasource: Datasource | None = None
    definition: str = ""
    sort: int = 0
    all_value: str = ""


class Annotations(Strict, frozen=True):
    list: list[Annotation]


class Templating(Strict, frozen=True):
    list: list[Variable]


class Dashboard(Strict, frozen=True, rename="camel"):
    uid: str
    title: str
    description: str
    tags: list[str]
    schema_version: int
    version: int
    editable: bool
    graph_tooltip: int
    timezone: str
    refresh: str
    time: dict[str, str]
    annotations: Annotations
    templating: Templating
    links: list[Any]
    panels: list[Panel]


def dashboard() -> Dashboard:
    """Raises msgspec.ValidationError when it is not of this form."""
    return msgspec.json.decode(DASHBOARD.read_bytes(), type=Dashboard)


def expressions() -> Iterator[tuple[str, str, str]]:
    """Of every panel and annotation: where it is, the expression, and the text that shows labels of a result."""
    shown = dashboard()
    for panel in shown.panels:
        for target in panel.targets:
            yield f"{panel.title} {target.refId}", target.expr, target.legend
    for one in shown.annotations.list:
        yield f"annotation {one.name}", one.expr, one.title_format + one.text_format


def as_asked(expr: str, **chosen: str) -> str:
    """As Grafana sends it with everything chosen but what is said here."""
    filled = expr.replace("$__rate_interval", chosen.pop("rate_interval", "1m"))
    for name in ("job", "environment", "rollout"):
        filled = filled.replace(f"${name}", chosen.get(name, ".*"))
    return filled


def labels_shown(text: str) -> set[str]:
    return set(re.findall(r"\{\{(\w+)\}\}", text))
