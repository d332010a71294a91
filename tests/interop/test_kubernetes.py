"""The whole agent beside a real API server: real HTTP between pods with the addresses that the server knows, and what arrives at a real Collector."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.capture.namespaces import namespace as network
from tests.interop import workloads
from tests.interop.apiserver import ApiServer, Object, apiserver
from tests.interop.collector import CLIENT, SERVER, Collector, Span
from tests.interop.node import Load, Node, answering, forward_service, routed_pod, send, wait_until
from tests.interop.watched import observed

SHOP, API = "10.79.0.1", "10.79.0.2"
PATHS = ["/200/0/a", "/404/0/b", "/500/0/c"]
DURATION = "http.server.request.duration"


@dataclass(frozen=True, slots=True)
class World:
    """A node of a cluster: its API server and its pods, `shop` (of a StatefulSet, annotated) and `api` (of a Deployment, behind a Service)."""

    server: ApiServer
    node: Node
    shop: Object
    api: Object
    deployment: Object
    replica_set: Object
    stateful_set: Object
    service: Object
    token: str

    def address(self) -> str:
        """The Service's."""
        return str(self.service["spec"]["clusterIP"])


@contextlib.contextmanager
def world(folder: Path, *, answers: bool = True) -> Iterator[World]:
    """One node with two pods, and the agent's account with the shipped permissions; with `answers` `api` answers as its paths tell."""
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(network())
        server = stack.enter_context(apiserver(host, folder))
        workloads.namespace(server, "demo")
        workloads.node(server)
        host.ip("addr", "add", f"{workloads.NODE_ADDRESS}/32", "dev", "lo")
        shop = stack.enter_context(routed_pod(host, "shop", SHOP))
        api = stack.enter_context(routed_pod(host, "api", API))
        if answers:
            stack.enter_context(answering(api))
        made = workloads.template("api")
        deployment = server.create(workloads.controller("Deployment", "api", made), "demo")
        hashed = {**made, "metadata": {**made["metadata"], "labels": {"app": "api", "pod-template-hash": "6f5b"}}}
        replica_set = server.create(
            workloads.controller("ReplicaSet", "api-6f5b", hashed, owners=workloads.owned("Deployment", deployment)), "demo"
        )
        api_pod = workloads.pod(server, "api-6f5b-x2x4z", hashed, API, owners=workloads.owned("ReplicaSet", replica_set))
        annotations = {"resource.opentelemetry.io/service.version": "7", "resource.opentelemetry.io/team": "till"}
        shop_template = workloads.template("shop", annotations=annotations, image="registry.example:5000/demo/shop@sha256:" + "0" * 64)
        stateful_set = server.create(workloads.controller("StatefulSet", "shop", shop_template), "demo")
        shop_pod = workloads.pod(server, "shop-0", shop_template, SHOP, owners=workloads.owned("StatefulSet", stateful_set))
        service = server.create(workloads.service("api"), "demo")
        server.create(workloads.endpoint_slice("api", api_pod, API), "demo")
        forward_service(host, service["spec"]["clusterIP"], 80, API)
        token = server.install_account()
        node = Node(host, shop, api, ("cali-shop", "cali-api"))
        yield World(server, node, shop_pod, api_pod, deployment, replica_set, stateful_set, service, token)


def traces(collector: Collector, count: int) -> dict[str, dict[int, Span]]:
    """So many traces, each as its spans by kind."""
    wait_until(lambda: len({span.span_id for span in collector.spans()}) >= 2 * count, f"{2 * count} spans arrived")
    found: dict[str, dict[int, Span]] = {}
    for span in collector.spans():
        found.setdefault(span.trace_id, {})[span.kind] = span
    return found


@pytest.fixture
def there(tmp_path: Path) -> Iterator[World]:
    """A cluster of one node."""
    with world(tmp_path) as made:
        yield made


def test_both_sides_carry_their_workload(there: World, tmp_path: Path) -> None:
    """By way of a Service, with the shipped permissions alone: every span has the whole Resource of its own pod, and both are one trace."""
    uid = there.server.object("/api/v1/namespaces/kube-system")["metadata"]["uid"]
    with observed(there.node, there.server, there.token, tmp_path) as (watched, collector):
        answers = send(there.node, PATHS * 20, address=there.address(), port=80)
        found = traces(collector, answers.total())
        wait_until(
            lambda: collector.counted(DURATION) == dict(answers), f"the counts are {dict(answers)}, not {collector.counted(DURATION)}"
        )
        books = watched.settled("traces", 2 * answers.total())

    assert (books.sent, books.balance) == (2 * answers.total(), 0)
    assert len(found) == answers.total()
    common = {"k8s.cluster.uid": uid, "k8s.node.name": workloads.NODE, "k8s.namespace.name": "demo", "service.namespace": "demo"}
    server = common | {
        "k8s.pod.name": "api-6f5b-x2x4z",
        "k8s.pod.uid": there.api["metadata"]["uid"],
        "k8s.pod.ip": API,
        "k8s.pod.start_time": "2026-01-02T03:04:05Z",
        "k8s.container.name": "main",
        "k8s.replicaset.name": "api-6f5b",
        "k8s.replicaset.uid": there.replica_set["metadata"]["uid"],
        "k8s.deployment.name": "api",
        "k8s.deployment.uid": there.deployment["metadata"]["uid"],
        "container.image.name": "registry.example:5000/demo/api",
        "container.image.tags": ["1.4.2"],
        "service.name": "api",
        "service.instance.id": "demo.api-6f5b-x2x4z.main",
        "service.version": "1.4.2",
    }
    client = common | {
        "k8s.pod.name": "shop-0",
        "k8s.pod.uid": there.shop["metadata"]["uid"],
        "k8s.pod.ip": SHOP,
        "k8s.statefulset.name": "shop",
        "k8s.statefulset.uid": there.stateful_set["metadata"]["uid"],
        "service.name": "shop",
        "service.version": "7",
        "team": "till",
    }
    for trace in found.values():
        assert {key: trace[SERVER].resource.get(key) for key in server} == server
        assert {key: trace[CLIENT].resource.get(key) for key in client} == client
        assert trace[SERVER].parent_id == trace[CLIENT].span_id
        assert trace[SERVER].attributes["client.address"] == SHOP
        assert trace[CLIENT].attributes["network.peer.address"] == there.address()


def test_a_pod_that_takes_anothers_address(there: World, tmp_path: Path) -> None:
    """When a pod is gone and another has its address, exchanges are the new one's from then on, and none is lost in between."""
    with observed(there.node, there.server, there.token, tmp_path) as (watched, collector):
        send(there.node, PATHS, address=API)
        watched.wait_seen(6)
        there.server.delete("/api/v1/namespaces/demo/pods/api-6f5b-x2x4z")
        made = workloads.template("other", image="other:2")
        other = workloads.pod(there.server, "other", made, API)
        load = Load(there.node, PATHS, per_second=20)
        with load:

            def is_known() -> bool:
                return any(span.resource.get("k8s.pod.uid") == other["metadata"]["uid"] for span in collector.spans())

            wait_until(is_known, "an exchange is the new pod's")
            load.wait_more(20)
        books = watched.settled("traces", 2 * (load.answers.total() + 3))
        found = collector.spans()

    assert books.sent == 2 * (load.answers.total() + 3)
    servers = [span.resource.get("k8s.pod.name") for span in found if span.kind == SERVER]
    assert set(servers) <= {"api-6f5b-x2x4z", "other"}
    # Never back to the old one.
    assert servers[:3] == ["api-6f5b-x2x4z"] * 3
    assert servers[-20:] == ["other"] * 20


def test_the_api_server_dies_under_load(there: World, tmp_path: Path) -> None:
    """SIGKILL in mid-load: what was known stays known, every exchange arrives with its names, and a pod made afterwards is learned of."""
    with observed(there.node, there.server, there.token, tmp_path) as (watched, collector):
        with Load(there.node, PATHS, per_second=50) as load:
            load.wait_more(50)
            there.server.server.kill()
            load.wait_more(100)
            there.server.restart()
            load.wait_more(50)
        total = load.answers.total()
        watched.settled("traces", 2 * total)
        found = traces(collector, total)
        workloads.pod(there.server, "later", workloads.template("later"), "10.79.0.9")
        with routed_pod(there.node.host, "later", "10.79.0.9") as later, answering(later):

            def is_learned() -> bool:
                send(there.node, ["/200/0/later"], address="10.79.0.9")
                return any(span.attributes.get("network.peer.address") == "10.79.0.9" for span in collector.spans())

            wait_until(is_learned, "an exchange with the later pod arrived")

    assert len(found) == total
    assert {span.resource.get("k8s.pod.name") for trace in found.values() for span in trace.values()} == {"api-6f5b-x2x4z", "shop-0"}


def test_without_permissions_the_agent_works_and_says_what_is_missing(there: World, tmp_path: Path) -> None:
    """An account that may nothing: exchanges are counted all the same, and the log and `readyz` say what to allow."""
    there.server.delete("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/otel-ebpf-receiver")
    with observed(there.node, there.server, there.token, tmp_path) as (watched, collector):
        answers = send(there.node, PATHS, address=API)
        wait_until(lambda: collector.counted(DURATION) == dict(answers), "every request is counted")
        ready = there.node.ask("http://127.0.0.1:14318/readyz").decode()
        running = watched.running

    assert "pods" in ready
    assert any("allow list and watch of" in line for line in running.err.rest())
    assert {span.resource.get("k8s.pod.name") for span in collector.spans()} == {None}
