"""What the chart hands to Kubernetes holds together, and with the program."""

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from controller import api, settings
from controller.cli import root
from controller.errors import SettingsError
from controller.manifests.lint import lint
from tests.chart.conftest import CHART, Document, Helm, values_of

OLDEST, NEWEST = "1.27", "1.37"
OPERATORS = {"ServiceMonitor", "PrometheusRule"}  # kinds that Kubernetes itself does not know


def of(documents: list[Document], kind: str, ending: str = "") -> Document:
    (found,) = [one for one in documents if one["kind"] == kind and one["metadata"]["name"].endswith(ending)]
    return found


def pods(documents: list[Document]) -> dict[str, Document]:
    """Kind → the specification of its pods."""
    bare = {one["kind"]: one["spec"] for one in documents if one["kind"] == "Pod"}
    return bare | {
        one["kind"]: one["spec"]["template"]["spec"] for one in documents if "template" in one.get("spec", {})
    }


def container(documents: list[Document], kind: str = "StatefulSet") -> Document:
    (only,) = pods(documents)[kind]["containers"]
    found: Document = only
    return found


def labels_of_pods(documents: list[Document]) -> dict[str, str]:
    labels: dict[str, str] = of(documents, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    return labels


def rampart_toml(documents: list[Document]) -> str:
    (text,) = [one["data"]["rampart.toml"] for one in documents if "rampart.toml" in one.get("data", {})]
    return str(text)


def loaded(documents: list[Document], tmp_path: Path) -> settings.Settings:
    """As the program reads them in its pod."""
    (tmp_path / "rampart.toml").write_text(rampart_toml(documents))
    environ = {one["name"]: one.get("value", "") for one in container(documents)["env"]}
    assert environ["RAMPART_CONFIG"] == "/etc/rampart/rampart.toml"
    return settings.load(str(tmp_path / "rampart.toml"), environ)


def mounts(documents: list[Document], kind: str = "StatefulSet") -> dict[str, Document]:
    """Path → its volume."""
    spec = pods(documents)[kind]
    volumes = {one["name"]: one for one in spec.get("volumes", [])}
    if kind == "StatefulSet":
        claims = of(documents, "StatefulSet")["spec"]["volumeClaimTemplates"]
        volumes |= {one["metadata"]["name"]: one for one in claims}
    return {one["mountPath"]: volumes[one["name"]] for one in container(documents, kind).get("volumeMounts", [])}


def understood(words: list[str]) -> None:
    command: click.Command = root
    context = click.Context(root, info_name="rampart")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found, f"rampart has no command {words[0]}"
        command, words = found, words[1:]
    command.make_context(command.name, list(words), parent=context)


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_helm_finds_nothing_to_warn_of(helm: Helm, values: Document) -> None:
    assert helm.lint(values) == []


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_every_object(helm: Helm, documents: list[Document], version: str) -> None:
    for one in documents:
        if one["kind"] not in OPERATORS:
            helm.check(one, version)


def test_a_field_that_kubernetes_does_not_know_is_noticed(helm: Helm) -> None:
    service = of(helm.documents(values_of("trial")), "Service", "headless")
    service["spec"]["publishUnreadyAddresses"] = True
    with pytest.raises(Exception, match="publishUnreadyAddresses"):
        helm.check(service, NEWEST)


def test_the_oldest_version_that_is_checked_is_the_oldest_the_chart_allows() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={OLDEST}.0-0"


def test_no_two_objects_have_the_same_name(documents: list[Document]) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in documents]
    assert len(names) == len(set(names))


def test_the_program_takes_the_settings(documents: list[Document], tmp_path: Path) -> None:
    found = loaded(documents, tmp_path)
    assert mounts(documents)[found.data_dir]["metadata"]["name"] == "data"
    assert found.server.bind.endswith(f":{container(documents)['ports'][0]['containerPort']}")
    assert found.database.shared == (found.database.url_file != "")


def test_what_values_say_arrives_in_the_program(helm: Helm, tmp_path: Path) -> None:
    found = loaded(helm.documents(values_of("everything")), tmp_path)
    assert found.database.pool_size == 12
    assert found.database.pooled
    assert found.database.url_file == "/secrets/database/pooler-url"
    assert found.database.listen_url_file == "/secrets/database/direct-url"
    assert found.engine.batch == 30_000_000
    assert found.server.public_url == "https://flags.example"
    datadog = found.sources["datadog"]
    assert isinstance(datadog, settings.HttpJsonSourceSettings)
    assert datadog.counter.query == 'sum:{{query}}.as_count() # a "quoted" \\ thing = 1.0'
    unleash = found.providers["unleash"]
    assert isinstance(unleash, settings.UnleashProviderSettings)
    assert unleash.environments == {"production": "prod"}


def test_without_a_public_address_links_lead_to_the_ingress(helm: Helm, tmp_path: Path) -> None:
    found = loaded(helm.documents(values_of("production")), tmp_path)
    assert found.server.public_url == "https://rampart.example"


def test_every_file_that_the_settings_name_is_mounted(documents: list[Document]) -> None:
    mounted = mounts(documents)
    named = re.findall(r'"(/[\w./-]+)"', rampart_toml(documents))
    assert named
    for path in named:
        assert any(path == mount or path.startswith(f"{mount}/") for mount in mounted), path


def test_every_secret_is_a_reference(helm: Helm, documents: list[Document]) -> None:
    assert [one for one in documents if one["kind"] == "Secret"] == []
    for path, volume in mounts(documents).items():
        if path.startswith("/secrets/"):
            assert volume["secret"]["secretName"]
    inline = [one["name"] for one in container(documents)["env"] if "value" in one and "SECRET" in one["name"]]
    assert inline == []


def test_no_setting_can_be_mistaken_for_a_variable_of_kubernetes(documents: list[Document]) -> None:
    # A Service called rampart would put RAMPART_PORT into every pod beside it.
    with pytest.raises(SettingsError):
        settings.load(environ={"RAMPART_PORT": "tcp://10.0.0.1:8400"})
    assert {one["enableServiceLinks"] for one in pods(documents).values()} == {False}


def test_the_manifests_pass_the_lint_and_are_named_as_the_program_looks_for_them(
    helm: Helm, tmp_path: Path
) -> None:
    documents = helm.documents(values_of("everything"))
    files = of(documents, "ConfigMap", "-manifests")["data"]
    assert lint([(name, text.encode()) for name, text in files.items()]) == []
    folder = loaded(documents, tmp_path).server.manifests
    assert mounts(documents)[folder]["configMap"]["name"] == "flags-of-all-manifests"


def test_a_config_map_of_the_users_takes_the_place_of_ours(helm: Helm) -> None:
    documents = helm.documents(values_of("trial") | {"manifests": {"existingConfigMap": "plans"}})
    assert mounts(documents)["/manifests"]["configMap"]["name"] == "plans"
    assert "plans" not in {one["metadata"]["name"] for one in documents}


def test_changed_settings_restart_the_pods_and_changed_manifests_do_not(helm: Helm) -> None:
    def template(**more: Any) -> Document:
        found: Document = of(helm.documents(values_of("trial") | more), "StatefulSet")["spec"]["template"]
        return found

    first = {"files": {"a.flag.yaml": "kind: Flag"}}
    assert template(manifests=first) == template(manifests={"files": {"b.flag.yaml": "kind: Flag"}})
    assert template() != template(settings={"server": {"log_level": "debug"}})


def test_the_command_line_understands_what_containers_run(documents: list[Document]) -> None:
    ran = [container(documents, kind)["args"] for kind in pods(documents)]
    assert ["serve"] in ran
    for words in ran:
        understood(words)


def test_probes_ask_for_what_is_there(documents: list[Document]) -> None:
    served = {path for handler in api.HEALTH for path in handler.paths}
    found = container(documents)
    ports = {one["name"] for one in found["ports"]}
    probes = [found[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]
    assert {one["path"] for one in probes} == {"/healthz", "/readyz"}
    assert {one["path"] for one in probes} <= served
    assert {one["port"] for one in probes} <= ports


def test_a_dead_database_restarts_nobody(documents: list[Document]) -> None:
    assert container(documents)["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert of(documents, "StatefulSet")["spec"]["podManagementPolicy"] == "Parallel"


def test_every_selector_finds_the_pods_and_only_the_server(documents: list[Document]) -> None:
    server = labels_of_pods(documents)
    spread = pods(documents)["StatefulSet"]["topologySpreadConstraints"]
    selectors = [one["spec"]["selector"] for one in documents if one["kind"] == "Service"]
    selectors += [one["labelSelector"]["matchLabels"] for one in spread]
    selectors += [of(documents, "StatefulSet")["spec"]["selector"]["matchLabels"]]
    selectors += [
        one["spec"]["selector"]["matchLabels"] for one in documents if one["kind"] == "PodDisruptionBudget"
    ]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in documents if one["kind"] == "NetworkPolicy"]
    others = [one["spec"]["template"]["metadata"]["labels"] for one in documents if one["kind"] == "Job"]
    others += [one["metadata"]["labels"] for one in documents if one["kind"] == "Pod"]
    assert len(selectors) >= 5
    for selector in selectors:
        assert selects(selector, server)
        assert not any(selects(selector, labels) for labels in others)


def test_one_replica_at_a_time_may_be_evicted(helm: Helm) -> None:
    spec = of(helm.documents(values_of("production")), "PodDisruptionBudget")["spec"]
    assert {name for name in spec if name != "selector"} == {"maxUnavailable"}
    assert spec["maxUnavailable"] == 1
    without = helm.documents(values_of("production") | {"podDisruptionBudget": {"enabled": False}})
    assert "PodDisruptionBudget" not in {one["kind"] for one in without}


def test_labels_of_the_users_cannot_take_a_pod_out_of_its_service(helm: Helm) -> None:
    values = values_of("trial") | {"podLabels": {"app.kubernetes.io/component": "mine", "team": "release"}}
    documents = helm.documents(values)
    assert labels_of_pods(documents)["team"] == "release"
    assert selects(of(documents, "StatefulSet")["spec"]["selector"]["matchLabels"], labels_of_pods(documents))


def test_an_upgrade_changes_nothing_that_cannot_be_changed(documents: list[Document]) -> None:
    spec = of(documents, "StatefulSet")["spec"]
    fixed = yaml.safe_dump([spec["selector"], spec["volumeClaimTemplates"], spec["serviceName"]])
    assert "helm.sh/chart" not in fixed
    assert "version" not in fixed.replace("apiVersion", "")


def test_replicas_find_each_other_also_when_none_is_ready(helm: Helm, tmp_path: Path) -> None:
    for name in ("production", "everything"):
        documents = helm.documents(values_of(name), namespace="elsewhere")
        headless = of(documents, "Service", "-headless")
        (port,) = headless["spec"]["ports"]
        assert headless["spec"]["publishNotReadyAddresses"] is True
        assert headless["spec"]["clusterIP"] == "None"
        assert of(documents, "StatefulSet")["spec"]["serviceName"] == headless["metadata"]["name"]
        peers = loaded(documents, tmp_path).peers
        domain = values_of(name).get("clusterDomain", "cluster.local")
        assert peers.dns == f"{headless['metadata']['name']}.elsewhere.svc.{domain}:{port['port']}"
        # A pod's address is not translated: the port must be the container's own.
        assert port["port"] == container(documents)["ports"][0]["containerPort"]
        assert mounts(documents)[str(Path(peers.secret_file).parent)]["secret"]["secretName"] == "rampart-peers"


def test_people_reach_a_replica_also_when_none_is_ready(helm: Helm) -> None:
    documents = helm.documents(values_of("production"))
    (service,) = [one for one in documents if one["kind"] == "Service" and one["spec"].get("clusterIP") != "None"]
    assert service["spec"]["publishNotReadyAddresses"] is True
    backend = of(documents, "Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"]["name"] in {one["name"] for one in service["spec"]["ports"]}


def test_every_pod_runs_without_rights_on_a_root_it_cannot_write(documents: list[Document]) -> None:
    for kind, spec in pods(documents).items():
        assert spec["automountServiceAccountToken"] is False, kind
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in spec["containers"]:
            confined = one["securityContext"]
            assert confined["readOnlyRootFilesystem"] is True
            assert confined["allowPrivilegeEscalation"] is False
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in one["resources"]["limits"]
            assert "cpu" not in one["resources"]["limits"]


def test_it_runs_as_the_user_of_the_image_unless_the_cluster_chooses_one(helm: Helm) -> None:
    for spec in pods(helm.documents(values_of("production"))).values():
        assert {spec["securityContext"][name] for name in ("runAsUser", "runAsGroup", "fsGroup")} == {10001}
    for spec in pods(helm.documents(values_of("everything"))).values():
        assert spec["securityContext"].get("runAsUser") is None
        assert spec["securityContext"]["fsGroup"] == 12345


def test_the_volume_of_secrets_can_be_read_by_the_program_alone(documents: list[Document]) -> None:
    for kind in pods(documents):
        for volume in pods(documents)[kind].get("volumes", []):
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440


def test_the_migration_needs_nothing_that_is_installed_after_it(helm: Helm) -> None:
    documents = helm.documents(values_of("production"))
    job = of(documents, "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    spec = pods(documents)["Job"]
    assert "serviceAccountName" not in spec
    assert [kind for one in spec["volumes"] for kind in one if kind != "name"] == ["emptyDir", "secret"]
    assert {one["name"]: one["value"] for one in container(documents, "Job")["env"]} == {
        "RAMPART_DATABASE__URL_FILE": "/secrets/database/url",
        "TMPDIR": "/tmp",
    }
    assert mounts(documents, "Job")["/secrets/database"]["secret"]["secretName"] == "rampart-database"


def test_the_migration_goes_around_a_pooler_or_uses_a_role_of_its_own(helm: Helm) -> None:
    pooled = {"existingSecret": "d", "urlKey": "pooler", "pooled": True, "listenUrlKey": "direct"}
    around = helm.documents({"database": pooled})
    assert container(around, "Job")["env"][0]["value"] == "/secrets/database/direct"
    own = helm.documents(values_of("everything"))
    assert container(own, "Job")["env"][0]["value"] == "/secrets/database/owner-url"
    assert mounts(own, "Job")["/secrets/database"]["secret"]["secretName"] == "rampart-database-owner"


@pytest.mark.parametrize("more", [{"database": {"embedded": True}}, {"migrations": {"mode": "start"}}])
def test_there_is_no_job_where_the_replicas_migrate(helm: Helm, more: Document) -> None:
    documents = helm.documents({"database": {"existingSecret": "d"}} | more)
    assert "Job" not in {one["kind"] for one in documents}


def test_the_first_token_is_the_same_for_all_replicas(helm: Helm) -> None:
    documents = helm.documents(values_of("everything"))
    environ = {one["name"]: one.get("value") for one in container(documents)["env"]}
    assert environ["RAMPART_ADMIN_TOKEN_FILE"] == "/secrets/admin/first"
    assert mounts(documents)["/secrets/admin"]["secret"]["secretName"] == "rampart-admin"


def test_a_digest_wins_over_a_tag_and_the_version_of_the_program_is_the_default(helm: Helm) -> None:
    assert container(helm.documents(values_of("everything")))["image"].endswith(
        "@sha256:" + "0123456789abcdef" * 4
    )
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert container(helm.documents(values_of("trial")))["image"] == f"rampart/rampart:{version}"


def test_prometheus_scrapes_each_replica_once_with_the_token(helm: Helm) -> None:
    documents = helm.documents(values_of("production"))
    spec = of(documents, "ServiceMonitor")["spec"]
    services = [one for one in documents if one["kind"] == "Service"]
    (found,) = [one for one in services if selects(spec["selector"]["matchLabels"], one["metadata"]["labels"])]
    (endpoint,) = spec["endpoints"]
    assert endpoint["port"] in {one["name"] for one in found["spec"]["ports"]}
    assert endpoint == {
        "port": "http",
        "path": "/metrics",
        "interval": "15s",
        "authorization": {"credentials": {"name": "rampart-metrics", "key": "token"}},
    }


def test_the_alerts_are_those_of_the_file_and_name_the_pages_where_they_are_read(helm: Helm) -> None:
    file = (CHART / "files" / "alerts.yaml").read_text()
    base = "https://rampart.example/docs/runbooks"
    assert base in file
    spec = of(helm.documents(values_of("everything")), "PrometheusRule")["spec"]
    assert spec == yaml.safe_load(file.replace(base, "https://wiki.example/rampart"))


def test_alerts_name_no_page_that_is_nowhere(helm: Helm) -> None:
    values = values_of("trial") | {"prometheusRule": {"enabled": True}}
    spec = of(helm.documents(values), "PrometheusRule")["spec"]
    rules = [rule for group in spec["groups"] for rule in group["rules"]]
    assert rules
    assert [rule for rule in rules if "runbook_url" in rule["annotations"]] == []
    assert all(rule["annotations"]["summary"] for rule in rules)


def test_the_dashboard_is_the_file(helm: Helm) -> None:
    shown = of(helm.documents(values_of("production")), "ConfigMap", "-dashboard")
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert shown["data"]["rampart.json"].strip() == (CHART / "files" / "dashboard.json").read_text().strip()


def test_a_network_policy_lets_replicas_names_and_named_targets_through(helm: Helm) -> None:
    documents = helm.documents(values_of("everything"))
    spec = of(documents, "NetworkPolicy")["spec"]
    among, shop = spec["ingress"]
    assert [one["port"] for one in among["ports"]] == [8400]
    assert [one["port"] for one in shop["ports"]] == [8400, 8015]
    assert len(shop["from"]) == 2
    assert [[one["port"] for one in rule["ports"]] for rule in spec["egress"]] == [
        [8400], [53, 53], [6432], [9091], [8443], [587],
    ]  # fmt: skip
    (ours,) = [one["podSelector"]["matchLabels"] for one in among["from"]]
    assert selects(ours, labels_of_pods(documents))
    assert selects(ours, of(documents, "Pod")["metadata"]["labels"])
    assert ["to" in rule for rule in spec["egress"]] == [True, False, True, True, True, False]


@pytest.mark.parametrize("name", ["rampart", "our-rampart", "flags", "a" * 53])
def test_names_are_short_enough_for_what_kubernetes_appends(helm: Helm, name: str) -> None:
    documents = helm.documents(values_of("production"), name=name)
    for one in documents:
        assert len(one["metadata"]["name"]) <= 63
    # Its revisions are called by its name, a hyphen and ten characters, in a label.
    assert len(of(documents, "StatefulSet")["metadata"]["name"]) <= 52


def test_everything_else_is_installed_as_it_is_given(helm: Helm) -> None:
    documents = helm.documents(values_of("everything"))
    assert of(documents, "ConfigMap", "beside")["data"] == {"key": "{{ not a template }}"}
    spec = pods(documents)["StatefulSet"]
    assert mounts(documents)["/flags"]["persistentVolumeClaim"] == {"claimName": "flagd-flags"}
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert spec["serviceAccountName"] == "rampart-account"
    assert spec["terminationGracePeriodSeconds"] == 90
    assert "ServiceAccount" not in {one["kind"] for one in documents}
