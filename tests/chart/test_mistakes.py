"""A value that cannot be meant is refused before anything is installed, and the message names it."""

from typing import Any

import pytest

from tests.chart.conftest import Document, Helm, Refused, values_of

TRIAL: Document = {"database": {"embedded": True}}
LIVE: Document = {"database": {"existingSecret": "rampart-database"}}


def settings(**sections: Any) -> Document:
    return LIVE | {"settings": sections}


MISTAKES: dict[str, tuple[Document, list[str]]] = {
    "no database": ({}, ["database.existingSecret is empty", "database.embedded=true"]),
    "two databases": ({"database": {"embedded": True, "existingSecret": "d"}}, ["contradict each other"]),
    "replicas of a trial": (TRIAL | {"replicas": 2}, ["'/replicas': maximum: got 2, want 1"]),
    "replicas without a secret": (LIVE | {"replicas": 3}, ["'/peers/existingSecret': minLength"]),
    "replicas in words": (LIVE | {"replicas": "three"}, ["'/replicas': got string, want integer"]),
    "no replica": (LIVE | {"replicas": 0}, ["'/replicas': minimum"]),
    "a value that is not": (LIVE | {"replicaCount": 3}, ["'replicaCount' not allowed"]),
    "a typing error below": (
        {"database": {"existingSecrets": "d"}},
        ["'/database'", "'existingSecrets' not allowed"],
    ),
    "a secret as a value": ({"database": {"url": "postgresql://"}}, ["'/database'", "'url' not allowed"]),
    "an address instead of a name": (
        {"database": {"existingSecret": "postgresql://u:p@h/d"}},
        ["'/database/existingSecret'", "does not match pattern"],
    ),
    "a listening key without a pooler": (
        {"database": {"existingSecret": "d", "listenUrlKey": "direct"}},
        ["database.listenUrlKey", "database.pooled"],
    ),
    "a migration's secret without the job": (
        LIVE | {"migrations": {"mode": "start", "existingSecret": "owner"}},
        ["migrations.existingSecret", "migrations.mode=hook"],
    ),
    "a mode that is not": (LIVE | {"migrations": {"mode": "init"}}, ["'/migrations/mode'", "'hook', 'start'"]),
    "a setting that is not": (
        settings(engine={"lease_second": 20}),
        ["'/settings/engine'", "'lease_second' not allowed"],
    ),
    "a setting of the wrong type": (
        settings(engine={"lease_seconds": "20s"}),
        ["'/settings/engine/lease_seconds': got string, want number"],
    ),
    "a setting that the chart decides": (settings(database={"url": "x"}), ["'/settings/database'", "'url'"]),
    "the folder of the data": (settings(data_dir="/data"), ["'/settings'", "'data_dir' not allowed"]),
    "a kind that is not": (
        settings(sources={"prom": {"kind": "promteus", "url": "http://p"}}),
        ["'/settings/sources/prom/kind'", "'prometheus'"],
    ),
    "a source without its address": (
        settings(sources={"prom": {"kind": "prometheus"}}),
        ["'/settings/sources/prom'", "missing property 'url'"],
    ),
    "a file that is not mounted": (
        settings(sources={"prom": {"kind": "prometheus", "url": "http://p", "password_file": "/secrets/prom/p"}}),
        ['password_file = "/secrets/prom/p"', "secrets.prom"],
    ),
    "a token in a header": (
        settings(
            sources={"prom": {"kind": "prometheus", "url": "http://p", "headers": {"Authorization": "B hunter2"}}}
        ),
        ["settings.sources.prom.headers.Authorization"],
    ),
    "a key among parameters": (
        settings(
            sources={"d": {"kind": "http_json", "url": "http://d", "value": "v", "params": {"api_key": "hunter2"}}}
        ),
        ["settings.sources.d.params.api_key"],
    ),
    "a password in an address": (
        settings(sources={"prom": {"kind": "prometheus", "url": "http://ana:hunter2@prom:9090"}}),
        ["settings: url", "mount a Secret"],
    ),
    "a secret in a variable": (
        LIVE | {"extraEnv": [{"name": "AWS_SECRET", "value": "hunter2"}]},
        ["AWS_SECRET", "secretKeyRef"],
    ),
    "a name that is taken": (LIVE | {"secrets": {"peers": "mine"}}, ["secrets.peers", "taken"]),
    "a manifest nobody would load": (
        LIVE | {"manifests": {"files": {"checkout.yaml": "kind: Flag"}}},
        ["manifests.files: checkout.yaml", ".rollout.yaml"],
    ),
    "a name that is no name": (LIVE | {"secrets": {"My_Keys": "keys"}}, ["'/secrets'", "'My_Keys' not allowed"]),
    "manifests from two places": (
        LIVE | {"manifests": {"files": {"a.flag.yaml": "x"}, "existingConfigMap": "plans"}},
        ["manifests.files and manifests.existingConfigMap"],
    ),
    "an ingress for no name": (LIVE | {"ingress": {"enabled": True}}, ["ingress.hosts is empty"]),
    "a public address without its scheme": (LIVE | {"publicUrl": "rampart.example"}, ["'/publicUrl'"]),
    "a digest that is none": (LIVE | {"image": {"digest": "latest"}}, ["'/image/digest'"]),
    "a size without meaning": (LIVE | {"persistence": {"size": "big"}}, ["'/persistence/size'"]),
    "a port that is none": (LIVE | {"service": {"port": 84000}}, ["'/service/port': maximum"]),
    "a yes in quotes": (LIVE | {"serviceMonitor": {"enabled": "true"}}, ["'/serviceMonitor/enabled'", "boolean"]),
    "a scrape without its token": (
        settings(server={"allow_unauthenticated_metrics": False}) | {"serviceMonitor": {"enabled": True}},
        ["serviceMonitor.tokenSecret is empty"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_by_its_name(helm: Helm, mistake: str) -> None:
    values, expected = MISTAKES[mistake]
    with pytest.raises(Refused) as refused:
        helm.render(values)
    said = str(refused.value)
    for part in expected:
        assert part in said
    assert "hunter2" not in said


@pytest.mark.parametrize("values", [TRIAL, LIVE, LIVE | {"global": {"imageRegistry": "elsewhere"}}])
def test_without_a_mistake_nothing_is_refused(helm: Helm, values: Document) -> None:
    assert helm.documents(values)


def test_a_password_file_is_no_password(helm: Helm) -> None:
    prometheus = {"kind": "prometheus", "url": "http://p", "username": "ana", "password_file": "/secrets/prom/p"}
    assert helm.documents(settings(sources={"prom": prometheus}) | {"secrets": {"prom": "prom-password"}})


def test_production_needs_nothing_but_what_it_says(helm: Helm) -> None:
    for needed in ("database", "peers"):
        values = values_of("production")
        del values[needed]
        with pytest.raises(Refused, match=needed):
            helm.render(values)
