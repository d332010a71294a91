"""The agent started as the chart says, nothing by hand: installed by helm into a real API server, and what came of it run by a real runc in the image's file system."""

from __future__ import annotations

import os
import subprocess
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.rendered import CHART, EXAMPLES, PLAIN, Object, parsed
from tests.interop import container, workloads
from tests.interop.apiserver import PORT, ApiServer, apiserver
from tests.interop.collector import CLIENT, SERVER, Collector, Span
from tests.interop.helm import helm
from tests.interop.node import API, SHOP, Node, send, wait_for, wait_until
from tests.interop.server import binary, running

NAMESPACE, RELEASE = "observability", "agents"
NAME = "agents-otel-ebpf-receiver"
BITS = {"NET_RAW": 13, "PERFMON": 38, "BPF": 39}
VALUES = {
    "otlp": {"endpoint": "http://127.0.0.1:4318"},
    "config": {
        "telemetry": {
            "sampling": {"sampler": "always_on", "spans_per_second": 0},
            "metrics": {"interval_s": 1},
            "spans": {"interval_s": 0.2},
        }
    },
}


@pytest.fixture
def api(here: Node, tmp_path: Path) -> Iterator[ApiServer]:
    """A real API server on the node, with the namespace that the chart goes to."""
    folder = tmp_path / "api"
    folder.mkdir()
    with apiserver(here.host, folder) as made:
        workloads.namespace(made, NAMESPACE)
        yield made


def installed(api: ApiServer, *arguments: str) -> None:
    """helm against that server."""
    environment = {**os.environ, "HOME": str(api.folder)}
    command = api.here.command(binary("helm"), *arguments, "--kubeconfig", str(api.kubeconfig()), "--namespace", NAMESPACE)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def key(api: ApiServer) -> str:
    """The key of ids that the chart made."""
    return str(api.object(f"/api/v1/namespaces/{NAMESPACE}/secrets/{NAME}-ids")["data"]["key"])


def test_server_takes_every_rendering_strictly(api: ApiServer) -> None:
    """Each object passes the server's own schema, validation and defaults; kinds of the Prometheus operator have none there."""
    judged: set[tuple[str, str]] = set()
    for file in [*sorted(EXAMPLES.glob("*.yaml")), PLAIN]:
        for one in parsed(file.read_text()).objects:
            namespace = one["metadata"].get("namespace", "")
            if namespace:
                workloads.namespace(api, namespace)
            if one["kind"] == "Namespace" or one["apiVersion"].startswith("monitoring.coreos.com/"):
                continue
            api.create(one, namespace, query="?dryRun=All&fieldValidation=Strict")
            judged.add((file.stem, one["kind"]))

    assert judged >= {(file.stem, kind) for file in EXAMPLES.glob("*.yaml") for kind in ("DaemonSet", "Service", "ConfigMap")}


def test_pod_security_wants_the_level_that_the_notes_name(api: ApiServer) -> None:
    """The pod is refused in a namespace of the level baseline, and taken at privileged."""
    pod = {**parsed(PLAIN.read_text()).one("DaemonSet")["spec"]["template"], "apiVersion": "v1", "kind": "Pod"}
    pod["metadata"] = {"name": "agent"}
    for level in ("baseline", "privileged"):
        workloads.namespace(api, level, **{"pod-security.kubernetes.io/enforce": level})

    api.request("POST", "/api/v1/namespaces/privileged/pods?dryRun=All", pod)
    with pytest.raises(urllib.error.HTTPError, match="violates PodSecurity"):
        api.request("POST", "/api/v1/namespaces/baseline/pods?dryRun=All", pod)


def test_key_is_kept_over_upgrades_and_made_anew_after_removal(api: ApiServer) -> None:
    """helm install makes a key, upgrade keeps it, uninstall leaves nothing behind."""
    installed(api, "install", RELEASE, str(CHART))
    first = key(api)
    installed(api, "upgrade", RELEASE, str(CHART), "--set", "priorityClassName=system-node-critical")
    second = key(api)
    installed(api, "uninstall", RELEASE, "--wait")

    assert len(first) > 40
    assert first == second
    assert not [one for one in api.object("/apis/rbac.authorization.k8s.io/v1/clusterroles")["items"] if one["metadata"]["name"] == NAME]
    with pytest.raises(urllib.error.HTTPError, match="not found"):
        key(api)


def test_without_a_cluster_no_key_is_invented() -> None:
    """`helm template` has no Secret: another one at each rendering would tear traces apart."""
    assert "kind: Secret" not in helm("template", "x", str(CHART), "--kube-version", "1.34.0").stdout


def populate(api: ApiServer) -> dict[str, Object]:
    """The node, and the two pods that the test's own network namespaces are, each with its controllers."""
    workloads.node(api)
    workloads.namespace(api, "demo")
    return {name: deployed(api, name, address) for name, address in (("shop", SHOP), ("api", API))}


def deployed(api: ApiServer, name: str, address: str) -> Object:
    """A Deployment `name` in `demo` with its ReplicaSet and one pod on the node; returns the pod."""
    made = workloads.template(name)
    deployment = api.create(workloads.controller("Deployment", name, made), "demo")
    replica_set = api.create(
        workloads.controller("ReplicaSet", f"{name}-1", made, owners=workloads.owned("Deployment", deployment)), "demo"
    )
    return workloads.pod(api, f"{name}-1-x", made, address, owners=workloads.owned("ReplicaSet", replica_set))


def answered(collector: Collector, pod: str) -> dict[int, int]:
    """Exchanges by status of the answering pod's metrics, the newest point of each series; kubelet's probes are the node's and not in it."""
    points = [one for one in collector.points("http.server.request.duration") if one.resource.get("k8s.pod.name") == pod]
    return {int(one.attributes["http.response.status_code"]): one.count for one in sorted(points, key=lambda one: one.time_ns)}


def probe(here: Node, pod: Object, kind: str) -> int:
    """What kubelet's probe of this kind gets, from the node."""
    asked = pod["containers"][0][f"{kind}Probe"]["httpGet"]
    ports = {one["name"]: one["containerPort"] for one in pod["containers"][0]["ports"]}
    try:
        here.ask(f"http://{asked['host']}:{ports[asked['port']]}{asked['path']}", headers={"User-Agent": "kube-probe/1.34"})
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
    return 200


def test_agent_runs_as_rendered(here: Node, api: ApiServer, tmp_path: Path) -> None:
    """With three capabilities, a read-only root, containerd's seccomp profile and the account's permissions it watches, names and exports."""
    pods = populate(api)
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES))
    installed(api, "install", RELEASE, str(CHART), "--values", str(values))
    spec = api.object(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{NAME}")["spec"]["template"]["spec"]
    host = container.Host(
        here.host,
        workloads.NODE,
        workloads.NODE_ADDRESS,
        {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(PORT)},
    )
    collector = Collector(here, tmp_path)

    with running(collector.server), container.running(spec, NAMESPACE, api, host, tmp_path / "agent") as agent:

        def is_up() -> bool:
            assert agent.process.poll() is None, agent.log.read_text()
            return all(probe(here, spec, kind) == 200 for kind in ("startup", "liveness", "readiness"))

        wait_until(is_up, "all three probes succeed")
        wait_until(lambda: "ready" in agent.log.read_text(), "it says ready")
        before = len(collector.spans())
        send(here, ["/200/5/a", "/500/5/b"] * 5)

        def both() -> list[Span] | None:
            spans = collector.spans()[before:]
            return spans if len(spans) >= 20 else None

        spans = wait_for(both, "ten exchanges gave twenty spans")
        wait_until(lambda: answered(collector, "api-1-x") == {200: 5, 500: 5}, "the metrics of the answering pod have all ten")

        assert int(agent.status("CapBnd"), 16) == int(agent.status("CapEff"), 16) == sum(1 << bit for bit in BITS.values())
        assert int(agent.status("CapAmb"), 16) == int(agent.status("CapInh"), 16) == 0
        assert agent.status("NoNewPrivs") == "1"
        assert agent.status("Seccomp") == "2"
        assert "Read-only file system" in agent.execute("touch", "/tmp/x").stderr
        preflight = agent.execute("otel-ebpf-receiver", "preflight", "--seconds", "1")
        assert preflight.returncode == 0, preflight.stdout + preflight.stderr
        print("memory control group, at most and now:", agent.memory("memory.max_usage_in_bytes"), agent.memory("memory.usage_in_bytes"))
        assert agent.terminate(spec["terminationGracePeriodSeconds"]) == 0, agent.log.read_text()

    kinds = {(span.kind, span.resource.get("k8s.pod.name"), span.resource.get("k8s.pod.uid")) for span in spans}
    assert kinds == {(CLIENT, "shop-1-x", pods["shop"]["metadata"]["uid"]), (SERVER, "api-1-x", pods["api"]["metadata"]["uid"])}
    assert {span.resource.get("k8s.deployment.name") for span in spans} == {"shop", "api"}
    assert len({span.trace_id for span in spans}) == 10
    assert "forbidden" not in agent.log.read_text()
