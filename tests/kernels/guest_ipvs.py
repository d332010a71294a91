"""A Service by IPVS under Kubernetes names: who is named on both sides, and that the total is the load's. In a guest: see scripts/kernels.

The node and its pods are those of tests/topologies, on routes of their own; the Service is a virtual server on `ipvs0`, as kube-proxy sets it up.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.kernels.modules import need
from tests.kubernetes import cluster
from tests.topologies.stage import CLIENT, PORT, SERVER, Cluster, Node, Pod, Watching, counted, load, made_of, serving, spans, told

SERVICE, NODE_PORT = "10.96.0.1", 30080
COUNT = 6
World = tuple[Watching, Node, Pod, Pod]


def serve_by_ipvs(made: Cluster, node: Node, backend: Pod) -> None:
    """The Service `store`, by its own address and by a port of the node."""
    made.objects.append(cluster.service("store", SERVICE, node_port=NODE_PORT))
    made.objects.append(cluster.endpoint_slice("store", {backend.address: node.name}))
    node.sysctl("net.ipv4.vs.conntrack=1")
    node.ns.ip("link", "add", "ipvs0", "type", "dummy")
    node.ns.ip("addr", "add", f"{SERVICE}/32", "dev", "ipvs0")
    for virtual in (f"{SERVICE}:80", f"{node.address}:{NODE_PORT}"):
        server = ("--add-server", "--tcp-service", virtual, "--real-server", f"{backend.address}:{PORT}", "--masquerading")
        for arguments in (("--add-service", "--tcp-service", virtual, "--scheduler", "rr"), server):
            subprocess.run(node.ns.command("ipvsadm", *arguments), check=True, capture_output=True)
    # What does not come from a pod is masqueraded, as kube-proxy does where it knows the range of the pods.
    node.nft(f"post ip saddr != 10.1.0.0/24 ip daddr {backend.address} tcp dport {PORT} masquerade")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """What the agent told of calls by a pod, by the node and from outside."""
    need("ip_vs", "ip_vs_rr", "dummy", "nf_conntrack")
    with made_of(tmp_path_factory.mktemp("ipvs"), is_bridged=False) as made:
        (node,) = made.nodes
        front, back = node.pod("front"), node.pod("back")
        serve_by_ipvs(made, node, back)
        with serving(back), made.watched() as (watching,):
            load(front.command(), f"http://{SERVICE}/pod", COUNT)
            load(node.ns.command(), f"http://{SERVICE}/node", COUNT)
            load(made.outside.command(), f"http://{node.address}:{NODE_PORT}/outside", COUNT)
            assert watching.stop() == 0
        yield watching, node, front, back


def test_a_pod_is_told_as_client_and_the_endpoint_as_server(world: World) -> None:
    """One trace of two spans for each call; the asker's side names the Service, the endpoint's the real asker."""
    watching, _, front, back = world
    asked = {one.trace: one for one in spans(watching, "/pod") if one.kind == CLIENT}
    answered = {one.trace: one for one in spans(watching, "/pod") if one.kind == SERVER}

    assert told(watching, "/pod") == {("C", front.uid): COUNT, ("S", back.uid): COUNT}
    assert {trace: one.parent for trace, one in answered.items()} == {trace: one.id for trace, one in asked.items()}
    assert {(one.attributes["server.address"], one.attributes["peer.service"]) for one in asked.values()} == {("store.shop", "store")}
    assert {one.attributes["peer.service"] for one in answered.values()} == {"front"}


def test_the_node_and_somebody_outside_ask_the_same_endpoint(world: World) -> None:
    """The node's call is its own and the endpoint's; of one from outside there is the endpoint's side alone."""
    watching, node, _, back = world

    assert told(watching, "/node") == {("C", node.name): COUNT, ("S", back.uid): COUNT}
    assert told(watching, "/outside") == {("S", back.uid): COUNT}


def test_the_total_is_the_loads(world: World) -> None:
    """Metrics hold every call once at each side that is reported."""
    watching, node, front, back = world

    assert counted(watching) == {("C", front.uid): COUNT, ("C", node.name): COUNT, ("S", back.uid): 3 * COUNT}
