"""What the rendered manifests in this tree ask of a cluster. Whether they are what the chart renders is a test that needs helm (tests/interop)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_ebpf_receiver.config.load import load
from otel_ebpf_receiver.config.show import json_schema
from tests.chart.rendered import CHART, EXAMPLES, PLAIN, Rendered, kept, parsed, values_files

KEPT = dict(kept())
each = pytest.mark.parametrize("rendered", KEPT.values(), ids=KEPT.keys())
SECRET_WORDS = ("token", "password", "headers:", "BEGIN ")


def open_keys(schema: dict[str, Any], path: str = "") -> set[str]:
    """The paths of all keys of a schema that are no secret."""
    found: set[str] = set()
    for name, one in schema["properties"].items():
        if "properties" in one and one.get("additionalProperties") is False:
            found |= open_keys(one, f"{path}{name}.")
        elif not one.get("writeOnly"):
            found.add(path + name)
    return found


def test_every_file_of_values_has_its_example() -> None:
    """What is tried is also shown."""
    assert {file.name.removesuffix("-values.yaml") for file in values_files()} == {file.stem for file in EXAMPLES.glob("*.yaml")}


def test_schema_of_config_is_the_agents_without_its_secrets() -> None:
    """A key that the agent gains or loses is gained or lost by the chart: `scripts/chart` writes it."""
    values = json.loads((CHART / "values.schema.json").read_text())

    assert open_keys(values["properties"]["config"]) == open_keys(json_schema())
    assert "ids" not in values["properties"]["config"]["properties"]


def test_every_value_is_in_the_schema() -> None:
    """The schema is closed and knows each default."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def unknown(value: Any, one: dict[str, Any], path: str) -> list[str]:
        one = schema["$defs"][one["$ref"].rsplit("/", 1)[1]] if "$ref" in one else one
        if not isinstance(value, dict) or "properties" not in one:
            return []
        assert one["additionalProperties"] is False, path
        missing = [f"{path}.{name}" for name in value if name not in one["properties"]]
        return missing + [
            bad for name in value if name in one["properties"] for bad in unknown(value[name], one["properties"][name], f"{path}.{name}")
        ]

    assert unknown(values, schema, "") == []


@each
def test_agent_takes_its_configuration(rendered: Rendered, tmp_path: Path) -> None:
    """The ConfigMap's file is valid, serves the status that the probes ask, and names the headless Service."""
    file = tmp_path / "agent.yaml"
    file.write_text(rendered.config)

    config = load(str(file), environ={}).config

    service = rendered.one("Service")
    assert config.status.enabled
    assert config.status.port == rendered.agent["ports"][0]["containerPort"]
    assert config.kubernetes.agents_service == f"{service['metadata']['namespace']}/{service['metadata']['name']}"


@each
def test_privilege_is_the_least(rendered: Rendered) -> None:
    """UID 0 with three capabilities (four for old kernels), nothing of the host but its network, and no file to write."""
    context = rendered.agent["securityContext"]
    added = set(context["capabilities"].pop("add"))

    assert context == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": False,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert added - {"SYS_RESOURCE"} == {"BPF", "PERFMON", "NET_RAW"}
    assert ("SYS_RESOURCE" in added) is (rendered is KEPT["old-kernel"])
    assert rendered.pod["hostNetwork"] is True
    assert rendered.pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert not rendered.pod["hostPID"]
    assert not rendered.pod["hostIPC"]
    assert not [volume for volume in rendered.pod["volumes"] if "hostPath" in volume]
    assert all(mount["readOnly"] for mount in rendered.agent["volumeMounts"])
    assert rendered.pod["nodeSelector"].items() >= {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}.items()


@each
def test_permissions_are_those_that_the_agent_uses(rendered: Rendered) -> None:
    """Lists and watches of what it follows, single reads of owners, and nothing else."""
    granted = {
        (group, resource, verb)
        for role in rendered.of("ClusterRole")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    followed = {("", name) for name in ("pods", "services", "nodes", "namespaces")} | {("discovery.k8s.io", "endpointslices")}
    wanted = {(*one, verb) for one in followed for verb in ("list", "watch")} | {("apps", "replicasets", "get"), ("batch", "jobs", "get")}

    assert granted == (set() if rendered is KEPT["old-kernel"] else wanted)
    assert not rendered.of("Role")


@each
def test_probes_stay_on_the_node(rendered: Rendered) -> None:
    """All three ask the status port: on the loopback, or where it is told to listen on the node's address there."""
    probes = [rendered.agent[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]
    environment = {one["name"]: one.get("value") for one in rendered.agent["env"]}
    host = environment["OTEL_EBPF_RECEIVER_STATUS_HOST"]

    assert [(one["path"], one["port"]) for one in probes] == [("/healthz", "status"), ("/healthz", "status"), ("/readyz", "status")]
    assert {one.get("host") for one in probes} == ({None} if host == "$(HOST_IP)" else {"127.0.0.1"})
    assert host in ("127.0.0.1", "$(HOST_IP)")


@each
def test_secrets_come_by_reference(rendered: Rendered) -> None:
    """No ConfigMap and no plain variable holds what looks like a secret; the key of ids is read from a Secret or not at all."""
    for one in rendered.of("ConfigMap"):
        assert not [word for word in SECRET_WORDS if word in json.dumps(one["data"])]
    for variable in rendered.agent["env"]:
        if variable["name"] in ("OTEL_EBPF_RECEIVER_IDS_KEY", "OTEL_EXPORTER_OTLP_HEADERS"):
            assert "secretKeyRef" in variable["valueFrom"]
    assert not rendered.of("Secret")


@each
def test_objects_of_a_release_find_each_other(rendered: Rendered) -> None:
    """Selectors match the pod's labels, the binding names the account, and the Service has no address."""
    template = rendered.one("DaemonSet")["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    service = rendered.one("Service")["spec"]

    assert labels >= rendered.one("DaemonSet")["spec"]["selector"]["matchLabels"].items()
    assert labels >= service["selector"].items()
    assert service["clusterIP"] == "None"
    for binding in rendered.of("ClusterRoleBinding"):
        assert binding["subjects"][0]["name"] == template["spec"]["serviceAccountName"]
        assert binding["roleRef"]["name"] == rendered.one("ClusterRole")["metadata"]["name"]


def test_a_change_of_the_configuration_changes_the_pods() -> None:
    """The checksum of two configurations differs, of one it is the same."""
    sums = {name: one.one("DaemonSet")["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for name, one in KEPT.items()}

    assert sums["default"] == sums["old-kernel"]
    assert sums["default"] != sums["collector"]


def test_plain_manifests_bring_a_namespace_that_allows_them() -> None:
    """Pod Security at the level that a pod in the node's network needs; nothing in them says helm."""
    rendered = parsed(PLAIN.read_text())

    labels = rendered.one("Namespace")["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
    assert {one["metadata"].get("namespace", rendered.one("Namespace")["metadata"]["name"]) for one in rendered.objects} == {
        "otel-ebpf-receiver"
    }
    assert "Helm" not in PLAIN.read_text()
