"""The whole agent in a whole cluster: Deployments and Services that kubectl applied, pods that the real controllers made, scheduled and replaced."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.capture.namespaces import Namespace
from tests.capture.namespaces import namespace as network
from tests.interop import workloads
from tests.interop.apiserver import Object
from tests.interop.collector import CLIENT, SERVER, Span
from tests.interop.node import Load, Node, send, wait_until
from tests.interop.watched import observed
from tests.interop.whole_cluster import DEMO, Network, WholeCluster, address, whole_cluster

PATHS = ["/200/0/a", "/404/0/b", "/500/0/c"]
DURATION = "http.server.request.duration"
IN_TIME_NS = 10_000_000_000
"""How long an address may still be its former owner's, on a busy machine: until its watch and the next table of identities say otherwise."""


@dataclass(frozen=True, slots=True)
class World:
    """`shop`, one pod, asks `api`; the pods' links are `cali-*`."""

    cluster: WholeCluster
    network: Network
    node: Node
    shop: Object
    token: str


def demo(replicas: int) -> list[Object]:
    """What a user applies: two Deployments, and for one of them a Service with an address and one without."""
    headless = workloads.service("api", port=8080)
    headless["metadata"]["name"], headless["spec"]["clusterIP"] = "api-pods", "None"
    return [
        workloads.controller("Deployment", "shop", workloads.template("shop", image="registry.example:5000/demo/shop:3")),
        workloads.controller("Deployment", "api", workloads.template("api"), replicas=replicas),
        workloads.service("api"),
        headless,
    ]


@contextlib.contextmanager
def world(folder: Path, *, replicas: int) -> Iterator[World]:
    """A cluster whose demo runs; `api` has so many pods."""
    with contextlib.ExitStack() as stack:
        host: Namespace = stack.enter_context(network())
        cluster = stack.enter_context(whole_cluster(host, folder))
        host.ip("addr", "add", f"{workloads.NODE_ADDRESS}/32", "dev", "lo")
        wired = Network(host, stack)
        token = cluster.api.install_account()
        cluster.apply(*demo(replicas))
        (shop,) = cluster.wait_pods("shop", 1)
        apis = [wired.plug(pod) for pod in cluster.wait_pods("api", replicas)]
        node = Node(host, wired.plug(shop), apis[0], ("cali-*",))
        yield World(cluster, wired, node, shop, token)


def expected(cluster: WholeCluster, pod: Object) -> dict[str, Any]:
    """The Resource of a Deployment's pod, by what the API server says of it and of its owners."""
    named = pod["metadata"]
    (replica_set,) = named["ownerReferences"]
    (deployment,) = cluster.object("replicaset", replica_set["name"])["metadata"]["ownerReferences"]
    image, _, tag = pod["spec"]["containers"][0]["image"].rpartition(":")
    return {
        "k8s.namespace.name": DEMO,
        "k8s.node.name": workloads.NODE,
        "k8s.pod.name": named["name"],
        "k8s.pod.uid": named["uid"],
        "k8s.pod.ip": address(pod),
        "k8s.pod.start_time": pod["status"]["startTime"],
        "k8s.container.name": "main",
        "k8s.replicaset.name": replica_set["name"],
        "k8s.replicaset.uid": replica_set["uid"],
        "k8s.deployment.name": deployment["name"],
        "k8s.deployment.uid": deployment["uid"],
        "container.image.name": image,
        "container.image.tags": [tag],
        "service.name": named["labels"]["app"],
        "service.namespace": DEMO,
        "service.instance.id": f"{DEMO}.{named['name']}.main",
    }


def known(span: Span, wanted: dict[str, Any]) -> dict[str, Any]:
    """Of a span's Resource what is expected."""
    return {key: span.resource.get(key) for key in wanted}


def uid(span: Span) -> str | None:
    """Of the pod that the span is of."""
    return span.resource.get("k8s.pod.uid")


def test_both_sides_are_what_the_controllers_made(tmp_path: Path) -> None:
    """By a Service's address, and by the pods' own as a headless Service gives them: every span has the Resource that the API server tells of its pod."""
    with world(tmp_path, replicas=2) as made, observed(made.node, made.cluster.api, made.token, tmp_path) as (watched, collector):
        cluster = made.cluster
        pods = cluster.wait_pods("api", 2)
        service = cluster.object("service", "api")
        made.network.forward(service, cluster.wait_endpoints("api", pods))
        by_service = str(service["spec"]["clusterIP"])
        answers: Counter[int] = Counter()
        for _ in range(10):
            answers += send(made.node, PATHS, address=by_service, port=80)
        for direct in cluster.wait_endpoints("api-pods", pods):
            answers += send(made.node, PATHS * 5, {"Host": "api-pods.demo.svc:8080"}, address=direct)
        books = watched.settled("traces", 2 * answers.total())
        wait_until(lambda: len(collector.spans()) >= 2 * answers.total(), "all spans arrived")
        wait_until(lambda: collector.counted(DURATION) == dict(answers), "every request is counted")
        spans = collector.spans()
        resources = {pod["metadata"]["uid"]: expected(cluster, pod) for pod in [*pods, made.shop]}
        counted = {point.resource.get("k8s.pod.uid") for point in collector.points(DURATION)}

    servers = {span.trace_id: span for span in spans if span.kind == SERVER}
    clients = {span.trace_id: span for span in spans if span.kind == CLIENT}
    assert (books.sent, books.balance, len(servers)) == (len(spans), 0, answers.total())
    assert servers.keys() == clients.keys()
    assert [known(span, resources[str(uid(span))]) for span in spans] == [resources[str(uid(span))] for span in spans]
    assert {uid(span) for span in servers.values()} == counted == {pod["metadata"]["uid"] for pod in pods}
    assert {uid(span) for span in clients.values()} == {made.shop["metadata"]["uid"]}
    for trace, server in servers.items():
        client = clients[trace]
        assert server.parent_id == client.span_id
        assert (server.attributes["service.peer.name"], client.attributes["service.peer.name"]) == ("shop", "api")
        assert (server.attributes["service.peer.namespace"], client.attributes["service.peer.namespace"]) == (DEMO, DEMO)
        # By the Service's address either pod may have answered, by its own only that one.
        assert client.attributes["network.peer.address"] in (by_service, server.resource["k8s.pod.ip"])
        is_by_service = client.attributes["network.peer.address"] == by_service
        assert client.attributes["server.address"] == ("api.demo" if is_by_service else "api-pods.demo.svc")
    assert sum(span.attributes["network.peer.address"] == by_service for span in clients.values()) == 10 * len(PATHS)


def test_a_rollout_is_told_from_what_was_before(tmp_path: Path) -> None:
    """A new image makes a new ReplicaSet with new pods, at addresses of the former ones or at others; once a pod is known, each exchange has the pod that
    answered, with its ReplicaSet and image."""
    with world(tmp_path, replicas=2) as made, observed(made.node, made.cluster.api, made.token, tmp_path) as (_, collector):
        cluster = made.cluster
        service = cluster.object("service", "api")

        def servers() -> dict[str, Span]:
            return {span.span_id: span for span in collector.spans() if span.kind == SERVER}

        def ask(pod: Object) -> dict[str, Any]:
            """What is told of exchanges with the pod, from when it is known."""

            def is_known() -> bool:
                send(made.node, ["/200/0/who"], address=address(pod))
                return any(uid(span) == pod["metadata"]["uid"] for span in servers().values())

            wait_until(is_known, f"an exchange with {pod['metadata']['name']} is its own")
            send(made.node, PATHS * 4, address=address(pod))
            wanted = expected(cluster, pod)

            def told() -> list[Span]:
                at = [span for span in servers().values() if span.resource.get("k8s.pod.ip") == address(pod)]
                return [span for span in at if uid(span) == wanted["k8s.pod.uid"] and span.attributes["url.path"] != "/200/0/who"]

            wait_until(lambda: len(told()) == 4 * len(PATHS), f"all exchanges with {pod['metadata']['name']} are its own")
            assert [known(span, wanted) for span in told()] == [wanted] * 4 * len(PATHS)
            return wanted

        before = cluster.wait_pods("api", 2)
        made.network.forward(service, cluster.wait_endpoints("api", before))
        resources = [ask(pod) for pod in before]
        cluster.kubectl("set", "image", "deployment/api", "main=registry.example:5000/demo/api:1.5.0")
        cluster.kubectl("rollout", "status", "deployment/api", "--timeout=60s")
        after = cluster.wait_pods("api", 2)
        for pod in after:
            made.network.plug(pod)
        made.network.forward(service, cluster.wait_endpoints("api", after))
        resources += [ask(pod) for pod in after]

    assert len({one["k8s.pod.uid"] for one in resources}) == 4
    assert {tuple(one["container.image.tags"]) for one in resources} == {("1.4.2",), ("1.5.0",)}
    assert len({one["k8s.replicaset.uid"] for one in resources}) == 2
    assert len({one["k8s.deployment.uid"] for one in resources}) == 1


def test_another_pod_takes_the_address(tmp_path: Path) -> None:
    """Scaled to none and to one again under load, another pod has the same address: from then on, in time and for good, exchanges are its own; none is lost."""
    with world(tmp_path, replicas=1) as made, observed(made.node, made.cluster.api, made.token, tmp_path) as (watched, collector):
        cluster = made.cluster
        (first,) = cluster.wait_pods("api", 1)
        with Load(made.node, PATHS, per_second=50, address=address(first)) as load:
            load.wait_more(50)
            cluster.kubectl("scale", "deployment/api", "--replicas=0")
            wait_until(lambda: not cluster.pods("api"), "the pod is gone")
            gone_ns = time.time_ns()
            load.wait_more(50)
            cluster.kubectl("scale", "deployment/api", "--replicas=1")
            (second,) = cluster.wait_pods("api", 1)
            runs_ns = time.time_ns()

            def is_told() -> bool:
                return any(uid(span) == second["metadata"]["uid"] for span in collector.spans())

            wait_until(is_told, "an exchange is the second pod's")
            load.wait_more(200)
            wait_until(
                lambda: load.ended_s * 1e9 > runs_ns + IN_TIME_NS + 1e9,
                "the load outlasts the time in which the address may still be the first pod's",
            )
        total = load.answers.total()
        books = watched.settled("traces", 2 * total)
        wait_until(lambda: len(collector.spans()) >= 2 * total, "all spans arrived")
        wait_until(lambda: collector.counted(DURATION) == dict(load.answers), "every request is counted")
        spans = sorted((span for span in collector.spans() if span.kind == SERVER), key=lambda span: span.start_ns)

    assert address(second) == address(first)
    assert (books.sent, books.balance, len(spans)) == (2 * total, 0, total)
    owners = [uid(span) for span in spans]
    changed = owners.index(second["metadata"]["uid"])
    assert set(owners[:changed]) == {first["metadata"]["uid"]}
    assert set(owners[changed:]) == {second["metadata"]["uid"]}
    # Not before the first was gone, and no later after the second ran than what the agent waits for news.
    assert gone_ns <= spans[changed].start_ns <= runs_ns + IN_TIME_NS
    assert spans[-1].start_ns > runs_ns + IN_TIME_NS
