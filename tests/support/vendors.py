"""Datadog's and New Relic's query APIs, as far as their documentation says what they answer.

Datadog, under docs.datadoghq.com/api/latest/metrics/: query-timeseries-points,
query-scalar-data-across-multiple-products. New Relic, under docs.newrelic.com/docs/:
apis/nerdgraph/examples/nerdgraph-nrql-tutorial, query-your-data/…/get-started/query-time-range.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aiohttp import web

from tests.support.json_api import Seen

INTERVAL_SECONDS = 20


class Point(NamedTuple):
    """`at` in Unix seconds; a value of None is an interval in which nothing came."""

    at: float
    value: float | None


class Datadog:
    """`points` and `scalars` are by query; a query that is not there finds no series."""

    def __init__(self) -> None:
        self.points: dict[str, Sequence[Sequence[Point]]] = {}
        self.scalars: dict[str, Sequence[float | None]] = {}
        self.keys = ("an-api-key", "an-application-key")

    def answer(self, seen: Seen) -> web.Response:
        if (seen.headers.get("DD-API-KEY"), seen.headers.get("DD-APPLICATION-KEY")) != self.keys:
            return web.json_response({"errors": ["Forbidden"]}, status=403)
        if (seen.method, seen.path) == ("GET", "/api/v1/query"):
            return self._timeseries(seen.params)
        if (seen.method, seen.path, seen.params) == ("POST", "/api/v2/query/scalar", {}):
            return self._scalar(seen.body)
        return web.json_response({"errors": ["Not found"]}, status=404)

    def _timeseries(self, params: Mapping[str, str]) -> web.Response:
        query, since, until = params["query"], int(params["from"]), int(params["to"])
        if query.count("{") != query.count("}"):
            return web.json_response({"errors": [f"Error parsing query: {query}"]}, status=400)
        series = [
            {
                "metric": query.partition(":")[2].partition("{")[0],
                "scope": query.partition("{")[2].partition("}")[0],
                "expression": query,
                "interval": INTERVAL_SECONDS,
                "pointlist": [[at * 1000, value] for at, value in points if since <= at < until],
            }
            for points in self.points.get(query, [])
        ]
        return web.json_response(
            {
                "status": "ok",
                "res_type": "time_series",
                "from_date": since * 1000,
                "to_date": until * 1000,
                "series": [one for one in series if one["pointlist"]],
                "query": query,
                "message": "",
            }
        )

    def _scalar(self, body: Any) -> web.Response:
        assert body["data"]["type"] == "scalar_request"
        attributes = body["data"]["attributes"]
        assert isinstance(attributes["from"], int)
        assert isinstance(attributes["to"], int)
        (query,) = attributes["queries"]
        assert (query["data_source"], query["aggregator"]) == ("metrics", "percentile")
        assert [one["formula"] for one in attributes["formulas"]] == [query["name"]]
        values = self.scalars.get(query["query"], [])
        columns = [{"name": query["name"], "type": "number", "values": values, "meta": {"unit": None}}]
        return web.json_response({"data": {"type": "scalar_response", "attributes": {"columns": columns}}})


class NewRelic:
    """Knows events by their type, each with `timestamp` (milliseconds) and attributes."""

    def __init__(self) -> None:
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.key = "a-user-key"
        self.account = 1234567

    def answer(self, seen: Seen) -> web.Response:
        if seen.headers.get("API-Key") != self.key:
            return web.json_response({"errors": [{"message": "The API key provided is invalid"}]}, status=401)
        variables = seen.body["variables"]
        assert (seen.method, seen.path) == ("POST", "/graphql")
        assert variables["account"] == self.account
        assert "nrql(query: $nrql" in seen.body["query"]
        try:
            results = self._rows(variables["nrql"])
        except ValueError as error:
            account = {"account": {"nrql": None}}
            return web.json_response(
                {"data": {"actor": account}, "errors": [{"message": f"NRQL Syntax Error: {error}"}]}
            )
        return web.json_response({"data": {"actor": {"account": {"nrql": {"results": results}}}}})

    def _rows(self, nrql: str) -> list[dict[str, Any]]:
        found = re.fullmatch(
            r"SELECT (.+) FROM (\w+)(?: WHERE (.+?))?( FACET \w+)? SINCE (\d{13}) UNTIL (\d{13})", nrql
        )
        if not found:
            raise ValueError(nrql)
        select, kind, where, facet, since, until = found.groups()
        events = [
            event
            for event in self.events.get(kind, [])
            if int(since) <= event["timestamp"] < int(until) and _matches(event, where or "")
        ]
        if facet:
            values = sorted({event[facet.split()[1]] for event in events})
            return [{"facet": value, "value": 1} for value in values]
        return [dict(_column(text, events) for text in re.split(r", (?=latest)", select))]


def _matches(event: Mapping[str, Any], where: str) -> bool:
    for clause in filter(None, where.split(" AND ")):
        name, equal, value = clause.partition(" = ")
        if equal and event.get(name) != value.strip("'"):
            return False
        if not equal and not event.get(clause.removesuffix(" IS TRUE")):
            return False
    return True


def _column(text: str, events: Sequence[Mapping[str, Any]]) -> tuple[str, Any]:
    expression, _, alias = text.partition(" AS ")
    name = alias.strip("'") or expression
    if expression == "count(*)":
        return name, len(events)
    if expression == "latest(timestamp)":
        return name, max((event["timestamp"] for event in events), default=None)
    percentile = re.fullmatch(r"percentile\((\w+), ([\d.]+)\)", expression)
    if not percentile:
        raise ValueError(expression)
    values = sorted(event[percentile[1]] for event in events)
    rank = min(len(values) - 1, int(len(values) * float(percentile[2]) / 100))
    return name, {percentile[2]: values[rank] if values else None}
