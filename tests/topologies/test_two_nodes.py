"""Two nodes with an agent each, which share nothing but the uid of their cluster: one exchange is one trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kubernetes import cluster
from tests.kubernetes.fakeapi import FakeApi, Fault
from tests.topologies.stage import CLIENT, SERVER, Cluster, counted, load, made_of, serving, spans, told

COUNT = 20
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def agents_service(made: Cluster) -> dict[str, str]:
    """The headless Service of the agents, which are on both nodes; and the setting that names it."""
    endpoints = {one.address: one.name for one in made.nodes}
    made.objects.append(cluster.endpoint_slice("agents", endpoints, namespace="kube-system", port=14318))
    return {"OTEL_EBPF_RECEIVER_KUBERNETES_AGENTS_SERVICE": "kube-system/agents"}


def forbid_namespaces(api: FakeApi) -> None:
    """The agent may not list Namespaces."""
    api.fault(Fault("/api/v1/namespaces", 403, "namespaces is forbidden"))


@pytest.mark.parametrize("is_traced", [False, True], ids=["plain", "traceparent"])
@pytest.mark.parametrize("is_tunnelled", [True, False], ids=["vxlan", "routes"])
def test_one_exchange_is_one_trace(tmp_path: Path, *, is_tunnelled: bool, is_traced: bool) -> None:
    """By a Service, through DNAT and a tunnel: each node tells its side once, and the SERVER span hangs from the CLIENT span."""
    headers = ("-H", f"traceparent: 00-{TRACE}-{PARENT}-01") if is_traced else ()
    with made_of(tmp_path, 2) as made:
        one, other = made.nodes
        front, back = one.pod("front"), other.pod("back")
        made.tunnel() if is_tunnelled else made.route()
        made.service("store", "10.96.0.1", back)
        with serving(back), made.watched(env=agents_service(made)) as (asking, answering):
            load(front.command(), "http://10.96.0.1/far", COUNT, *headers)
            assert (asking.stop(), answering.stop()) == (0, 0)

    assert told(asking, "/far") == counted(asking) == {("C", front.uid): COUNT}
    assert told(answering, "/far") == counted(answering) == {("S", back.uid): COUNT}
    asked = {(one.trace, one.id): one for one in spans(asking, "/far") if one.kind == CLIENT}
    answered = {(one.trace, one.parent): one for one in spans(answering, "/far") if one.kind == SERVER}
    assert asked.keys() == answered.keys()
    assert len(asked) == COUNT
    assert {one.trace.hex() for one in asked.values()} == {TRACE} if is_traced else len({one.trace for one in asked.values()}) == COUNT
    assert {one.parent.hex() for one in asked.values()} == {PARENT if is_traced else ""}
    assert {one.attributes["peer.service"] for one in answered.values()} == {"front"}


def test_a_node_without_an_agent_gives_no_parent(tmp_path: Path) -> None:
    """The peer's node runs no agent by what the Service says: the SERVER span is a root, hanging from nothing that nobody sent."""
    with made_of(tmp_path, 2) as made:
        one, other = made.nodes
        front, back = one.pod("front"), other.pod("back")
        made.tunnel()
        with serving(back), made.watched() as (_, answering):
            load(front.command(), f"http://{back.address}:8080/root", COUNT)
            assert answering.stop() == 0

    assert told(answering, "/root") == {("S", back.uid): COUNT}
    assert {one.parent for one in spans(answering, "/root")} == {b""}


@pytest.mark.parametrize("key", ["", "secret"], ids=["no-key", "key"])
def test_agents_that_cannot_have_the_same_ids_give_no_parent(tmp_path: Path, key: str) -> None:
    """The uid of the cluster is kept from them: without a configured key the SERVER span is a root, with one it hangs from the CLIENT span."""
    with made_of(tmp_path, 2) as made:
        one, other = made.nodes
        front, back = one.pod("front"), other.pod("back")
        made.route()
        env = {**agents_service(made), "OTEL_EBPF_RECEIVER_IDS_KEY": key}
        with serving(back), made.watched(forbid_namespaces, env=env) as (asking, answering):
            load(front.command(), f"http://{back.address}:8080/key", COUNT)
            assert (asking.stop(), answering.stop()) == (0, 0)

    assert told(answering, "/key") == {("S", back.uid): COUNT}
    asked = {one.id for one in spans(asking, "/key")}
    assert len(asked) == COUNT
    assert {one.parent for one in spans(answering, "/key")} == (asked if key else {b""})


def test_a_pod_asks_a_host_network_pod_elsewhere(tmp_path: Path) -> None:
    """Told once at each end, whatever devices it crosses, and joined."""
    with made_of(tmp_path, 2) as made:
        one, other = made.nodes
        front, exporter = one.pod("front"), other.host_pod("exporter", 9100)
        made.route()
        with serving(exporter, port=9100), made.watched(env=agents_service(made)) as (asking, answering):
            load(front.command(), f"http://{other.address}:9100/host", COUNT)
            assert (asking.stop(), answering.stop()) == (0, 0)

    assert told(asking, "/host") == counted(asking) == {("C", front.uid): COUNT}
    assert told(answering, "/host") == counted(answering) == {("S", exporter.uid): COUNT}
    assert {one.parent for one in spans(answering, "/host")} == {one.id for one in spans(asking, "/host")}


def test_a_node_asks_a_pod_elsewhere(tmp_path: Path) -> None:
    """CLIENT of the node at its uplink or tunnel, SERVER of the pod."""
    with made_of(tmp_path, 2) as made:
        one, other = made.nodes
        back = other.pod("back")
        made.tunnel()
        with serving(back), made.watched(env=agents_service(made)) as (asking, answering):
            load(one.ns.command(), f"http://{back.address}:8080/node", COUNT)
            assert (asking.stop(), answering.stop()) == (0, 0)

    assert told(asking, "/node") == counted(asking) == {("C", one.name): COUNT}
    assert told(answering, "/node") == counted(answering) == {("S", back.uid): COUNT}
