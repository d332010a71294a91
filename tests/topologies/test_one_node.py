"""One node: who is named on both sides, and that the total is the load's, for every way in which frames reach a pod."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.topologies.stage import CLIENT, PORT, SERVER, Node, Pod, Span, Watching, counted, load, made_of, serving, spans, told

COUNT = 20


def both_sides(watching: Watching, path: str) -> tuple[dict[bytes, Span], dict[bytes, Span]]:
    """CLIENT and SERVER spans of a path by trace; each exchange is one trace, the second span below the first, which has no parent."""
    asked, answered = ({one.trace: one for one in spans(watching, path) if one.kind == kind} for kind in (CLIENT, SERVER))
    assert {trace: one.parent for trace, one in answered.items()} == {trace: one.id for trace, one in asked.items()}
    assert {one.parent for one in asked.values()} == {b""}
    return asked, answered


@pytest.mark.parametrize("is_bridged", [True, False], ids=["bridge", "routed"])
def test_two_pods_of_a_node(tmp_path: Path, is_bridged: bool) -> None:
    """CLIENT at the asker, SERVER at the answerer, each exactly as often as was asked."""
    with made_of(tmp_path, is_bridged=is_bridged) as made:
        (node,) = made.nodes
        front, back = node.pod("front"), node.pod("back")
        with serving(back), made.watched() as (watching,):
            load(front.command(), f"http://{back.address}:{PORT}/two", COUNT)
            assert watching.stop() == 0

    assert told(watching, "/two") == {("C", front.uid): COUNT, ("S", back.uid): COUNT}
    assert counted(watching) == {("C", front.uid): COUNT, ("S", back.uid): COUNT}


@pytest.mark.parametrize("is_bridged", [True, False], ids=["bridge", "routed"])
def test_a_service_by_its_address(tmp_path: Path, is_bridged: bool) -> None:
    """The asker's side names the Service, the answerer's the real asker; both spans are one trace, the second below the first."""
    with made_of(tmp_path, is_bridged=is_bridged) as made:
        (node,) = made.nodes
        front, back = node.pod("front"), node.pod("back")
        made.service("store", "10.96.0.1", back)
        with serving(back), made.watched() as (watching,):
            load(front.command(), "http://10.96.0.1/service", COUNT)
            assert watching.stop() == 0

    asked, answered = both_sides(watching, "/service")
    assert told(watching, "/service") == counted(watching) == {("C", front.uid): COUNT, ("S", back.uid): COUNT}
    assert {(one.attributes["server.address"], one.attributes["peer.service"]) for one in asked.values()} == {("store.shop", "store")}
    assert {one.attributes["peer.service"] for one in answered.values()} == {"front"}


def allow_hairpin(node: Node, pod: Pod) -> None:
    """As kube-proxy and the bridge plug-in do, so that a pod can be sent back to itself: its own address would be answered inside it."""
    node.nft(f"post ip saddr {pod.address} ip daddr {pod.address} masquerade")
    if node.is_bridged:
        node.ns.ip("link", "set", f"h{node.pods.index(pod)}", "type", "bridge_slave", "hairpin", "on")


@pytest.mark.parametrize("is_bridged", [True, False], ids=["bridge", "routed"])
def test_a_pod_asks_its_own_service(tmp_path: Path, is_bridged: bool) -> None:
    """Both sides cross one pair, the second behind a masquerade: CLIENT and SERVER of the same pod, in one trace, each naming the other."""
    with made_of(tmp_path, is_bridged=is_bridged) as made:
        (node,) = made.nodes
        solo = node.pod("solo")
        made.service("store", "10.96.0.1", solo)
        allow_hairpin(node, solo)
        with serving(solo), made.watched() as (watching,):
            load(solo.command(), "http://10.96.0.1/self", COUNT)
            assert watching.stop() == 0

    asked, answered = both_sides(watching, "/self")
    assert told(watching, "/self") == counted(watching) == {("C", solo.uid): COUNT, ("S", solo.uid): COUNT}
    assert {one.attributes["peer.service"] for one in asked.values()} == {"store"}
    assert {one.attributes["peer.service"] for one in answered.values()} == {"solo"}


@pytest.mark.parametrize("is_bridged", [True, False], ids=["bridge", "routed"])
def test_a_container_asks_itself_where_nobody_is_known(tmp_path: Path, is_bridged: bool) -> None:
    """Without Kubernetes only the server's side is told: once, though the call crosses its pair twice."""
    with made_of(tmp_path, is_bridged=is_bridged) as made:
        (node,) = made.nodes
        solo = node.pod("solo")
        made.service("store", "10.96.0.1", solo)
        allow_hairpin(node, solo)
        with serving(solo), made.watched(env={"OTEL_EBPF_RECEIVER_KUBERNETES_ENABLED": "false"}) as (watching,):
            load(solo.command(), "http://10.96.0.1/self", COUNT)
            assert watching.stop() == 0

    assert {(one.kind, one.attributes["client.address"]) for one in spans(watching, "/self")} == {
        (SERVER, f"10.{node.number + 1}.0.1" if is_bridged else node.address)
    }
    assert len(spans(watching, "/self")) == len({one.id for one in spans(watching, "/self")}) == COUNT


def test_a_pod_asks_another_behind_a_masquerade(tmp_path: Path) -> None:
    """By a Service that masquerades everything: the answerer sees the node, and is told who asked by the asker's own row."""
    with made_of(tmp_path) as made:
        (node,) = made.nodes
        front, back = node.pod("front"), node.pod("back")
        made.service("store", "10.96.0.1", back)
        node.nft(f"post ip daddr {back.address} tcp dport {PORT} masquerade")
        with serving(back), made.watched() as (watching,):
            load(front.command(), "http://10.96.0.1/masked", COUNT)
            assert watching.stop() == 0

    _, answered = both_sides(watching, "/masked")
    assert told(watching, "/masked") == {("C", front.uid): COUNT, ("S", back.uid): COUNT}
    assert {one.attributes["peer.service"] for one in answered.values()} == {"front"}


def test_a_pod_asks_somebody_outside(tmp_path: Path) -> None:
    """Behind a masquerade: one CLIENT span of the pod, none of the node whose address goes out."""
    with made_of(tmp_path) as made:
        (node,) = made.nodes
        front = node.pod("front")
        node.nft("post oifname up0 masquerade")
        with serving(made.outside), made.watched() as (watching,):
            load(front.command(), f"http://192.168.0.254:{PORT}/outside", COUNT)
            assert watching.stop() == 0

    assert told(watching, "/outside") == counted(watching) == {("C", front.uid): COUNT}


@pytest.mark.parametrize("is_bridged", [True, False], ids=["bridge", "routed"])
def test_somebody_outside_asks_a_node_port(tmp_path: Path, is_bridged: bool) -> None:
    """One SERVER span of the pod; the node, whose address the pod sees, asked nothing."""
    with made_of(tmp_path, is_bridged=is_bridged) as made:
        (node,) = made.nodes
        back = node.pod("back")
        made.service("store", "10.96.0.1", back, node_port=30080)
        with serving(back), made.watched() as (watching,):
            load(made.outside.command(), f"http://{node.address}:30080/port", COUNT)
            assert watching.stop() == 0

    assert told(watching, "/port") == counted(watching) == {("S", back.uid): COUNT}
    assert {one.parent for one in spans(watching, "/port")} == {b""}


@pytest.mark.parametrize("is_bridged", [True, False], ids=["bridge", "routed"])
def test_the_node_asks_a_pod(tmp_path: Path, is_bridged: bool) -> None:
    """CLIENT of the node, SERVER of the pod, by its address and by its Service."""
    with made_of(tmp_path, is_bridged=is_bridged) as made:
        (node,) = made.nodes
        back = node.pod("back")
        made.service("store", "10.96.0.1", back)
        with serving(back), made.watched() as (watching,):
            load(node.ns.command(), f"http://{back.address}:{PORT}/down", COUNT)
            load(node.ns.command(), "http://10.96.0.1/service", COUNT)
            assert watching.stop() == 0

    assert told(watching, "/down") == told(watching, "/service") == {("C", node.name): COUNT, ("S", back.uid): COUNT}
    assert counted(watching) == {("C", node.name): 2 * COUNT, ("S", back.uid): 2 * COUNT}


@pytest.mark.parametrize("is_bridged", [True, False], ids=["bridge", "routed"])
def test_a_pod_asks_a_host_network_pod_of_its_node(tmp_path: Path, is_bridged: bool) -> None:
    """CLIENT of the pod, SERVER of the pod in the node's network that declares the port."""
    with made_of(tmp_path, is_bridged=is_bridged) as made:
        (node,) = made.nodes
        front, exporter = node.pod("front"), node.host_pod("exporter", 9100)
        with serving(exporter, port=9100), made.watched() as (watching,):
            load(front.command(), f"http://{node.address}:9100/up", COUNT)
            assert watching.stop() == 0

    assert told(watching, "/up") == counted(watching) == {("C", front.uid): COUNT, ("S", exporter.uid): COUNT}


def test_a_host_network_pod_asked_from_outside_and_on_loopback(tmp_path: Path) -> None:
    """From outside SERVER alone; on the loopback the node is the client."""
    with made_of(tmp_path) as made:
        (node,) = made.nodes
        exporter = node.host_pod("exporter", 9100)
        with serving(exporter, port=9100), made.watched() as (watching,):
            load(made.outside.command(), f"http://{node.address}:9100/outside", COUNT)
            load(node.ns.command(), "http://127.0.0.1:9100/loop", COUNT)
            assert watching.stop() == 0

    assert told(watching, "/outside") == {("S", exporter.uid): COUNT}
    assert told(watching, "/loop") == {("C", node.name): COUNT, ("S", exporter.uid): COUNT}
    assert counted(watching) == {("C", node.name): COUNT, ("S", exporter.uid): 2 * COUNT}
