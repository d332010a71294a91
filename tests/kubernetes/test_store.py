"""Objects in, snapshots out."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from otel_ebpf_receiver.identity.address import packed
from otel_ebpf_receiver.identity.kubernetes import objects
from otel_ebpf_receiver.identity.kubernetes.objects import Owner, Wanted, unix_ns
from otel_ebpf_receiver.identity.kubernetes.rows import Options
from otel_ebpf_receiver.identity.kubernetes.store import NAMESPACES, NODES, PEERS, PODS, SERVICES, SLICES, Store
from otel_ebpf_receiver.identity.snapshot import Certainty, Snapshot, Trait
from otel_ebpf_receiver.telemetry.workload import Workload
from tests.identity.flows import S, addresses
from tests.kubernetes import cluster

NOW = unix_ns("2026-01-01T01:00:00Z")
TRIMS: dict[str, Any] = {
    PODS: lambda raw: objects.pod(raw, Wanted()),
    PEERS: lambda raw: objects.peer(raw, Wanted()),
    SERVICES: objects.service,
    SLICES: objects.endpoint_slice,
    NODES: objects.node,
    NAMESPACES: objects.namespace,
}


class World:
    """A store with a clock."""

    def __init__(self, options: Options | None = None) -> None:
        self.store = Store(options or Options(cluster.NODE))
        self.now_ns = NOW
        self.put(NODES, cluster.node(), cluster.node("node-1", "192.168.0.2", "10.2.0.0/24"))
        self.put(NAMESPACES, cluster.namespace("kube-system"), cluster.namespace("shop"))

    def put(self, kind: str, *raws: Any) -> bool:
        values = [TRIMS[kind](raw) for raw in raws]
        changes = [self.store.apply(kind, value.uid, value, self.now_ns) for value in values]
        return any(changes)

    def gone(self, kind: str, uid: str) -> None:
        self.store.apply(kind, uid, None, self.now_ns)

    def snapshot(self) -> Snapshot:
        return self.store.build(self.now_ns, is_current=True)

    def who(self, address: str, port: int | None = None, after_s: float = 0.0) -> str:
        """service.name of who has an address, or a stroke."""
        workload, _ = self.found(address, port, after_s)
        return str(workload.attributes["service.name"]) if workload else "-"

    def found(self, address: str, port: int | None = None, after_s: float = 0.0) -> tuple[Workload | None, Certainty]:
        snapshot, ports = self.snapshot(), None if port is None else np.array([port])
        answer = snapshot.find(addresses(address), np.array([self.now_ns + int(after_s * S)], np.uint64), ports)
        number = int(answer.workload[0])
        return snapshot.workloads[number] if number >= 0 else None, Certainty(int(answer.certainty[0]))

    def traits(self, address: str, port: int | None = None) -> Trait:
        snapshot = self.snapshot()
        answer = snapshot.find(addresses(address), np.array([self.now_ns], np.uint64), None if port is None else np.array([port]))
        return Trait(int(snapshot.traits[answer.workload[0]]))


def test_a_pod_of_this_node_is_its_container() -> None:
    """With one container the address is that container's; with several, the port says which."""
    world = World()
    world.put(PODS, cluster.pod("one", "10.1.0.2"))
    world.put(PODS, cluster.pod("two", "10.1.0.3", containers=[cluster.container("a", "a", 80), cluster.container("b", "b", 81)]))

    def container(address: str, port: int) -> object:
        workload, _ = world.found(address, port)
        return workload and workload.attributes.get("k8s.container.name")

    assert [container("10.1.0.2", 99), container("10.1.0.3", 80), container("10.1.0.3", 81), container("10.1.0.3", 99)] == [
        "main",
        "a",
        "b",
        None,
    ]
    assert world.traits("10.1.0.2") & Trait.LOCAL


def test_a_job_that_ended_gives_its_address_to_the_next_pod() -> None:
    """Exchanges of the time of each name each, whatever came first; after a minute the next change drops the ended one."""
    world = World()
    world.put(PODS, cluster.pod("job", "10.9.0.2", start="2026-01-01T00:50:00Z"))
    world.put(PODS, cluster.pod("job", "10.9.0.2", start="2026-01-01T00:50:00Z", phase="Succeeded", finished="2026-01-01T00:59:50Z"))
    world.put(PODS, cluster.pod("next", "10.9.0.2", start="2026-01-01T00:59:40Z"))

    assert [world.who("10.9.0.2", after_s=second) for second in (-600, -15, -9, 0)] == ["job", "job", "next", "next"]

    world.now_ns += 120 * S
    world.put(PODS, cluster.pod("other", "10.9.0.3"))
    assert world.who("10.9.0.2", after_s=-200) == "-"


def test_a_deleted_pod_is_believed_for_a_minute_unless_another_has_its_address() -> None:
    """Deleted by force its processes go on; it is named, but not surely."""
    world = World()
    world.put(PODS, cluster.pod("old", "10.9.0.2"))
    world.gone(PODS, "uid-old")

    assert (world.who("10.9.0.2", after_s=-1), world.found("10.9.0.2", after_s=30)[1]) == ("old", Certainty.GRACE)

    world.put(PODS, cluster.pod("new", "10.9.0.2", start="2026-01-01T01:00:10Z"))
    assert [world.who("10.9.0.2", after_s=second) for second in (-1, 5, 20)] == ["old", "old", "new"]

    world.now_ns += 61 * S
    world.gone(PODS, "uid-new")
    assert world.who("10.9.0.2", after_s=-70) == "-"


def test_a_deleted_pod_keeps_its_containers_for_its_minute() -> None:
    """What it did before is the same container's as before; its ports of the node are free at once, and its own with its minute."""
    world = World()
    app, side = cluster.container("app", "shop:1", 8080, host_ports=(8443,)), cluster.container("side", "envoy:1", 9901)
    world.put(PODS, cluster.pod("old", "10.1.0.2", containers=[app, side]))

    def told(port: int) -> dict[str, object]:
        workload, _ = world.found("10.1.0.2", port, after_s=-1)
        return dict(workload.attributes) if workload else {}

    before = [told(port) for port in (8080, 9901, 1)]
    world.gone(PODS, "uid-old")
    after = [told(port) for port in (8080, 9901, 1)]
    for number in range(8):
        world.put(PODS, cluster.pod(f"new-{number}", f"10.1.1.{number}", containers=[cluster.container("a", "a", 8080), side]))
    beside = [told(port) for port in (8080, 9901, 1)]

    assert [one.get("k8s.container.name") for one in before] == ["app", "side", None]
    assert before == after == beside
    assert world.who("192.168.0.1", 8443) == "node-0"

    world.now_ns += 61 * S
    world.put(PODS, cluster.pod("next", "10.1.0.2", containers=[cluster.container("a", "a", 1), cluster.container("b", "b", 2)]))
    assert told(8080)["k8s.pod.name"] == "next"
    assert "k8s.container.name" not in told(8080)


def test_a_pod_that_ended_without_saying_when_ended_when_it_was_seen() -> None:
    """And one that was never seen running had the address for no time."""
    world = World()
    world.put(PODS, cluster.pod("seen", "10.9.0.2"))
    world.put(PODS, cluster.pod("seen", "10.9.0.2", phase="Failed"), cluster.pod("unseen", "10.9.0.3", phase="Failed"))

    assert [world.who("10.9.0.2", after_s=-1), world.who("10.9.0.2", after_s=1), world.who("10.9.0.3", after_s=-1)] == ["seen", "-", "-"]


def test_numbers_and_memory_come_back_after_many_pods() -> None:
    """A thousand pods come and go: nothing of them stays."""
    world = World()
    world.snapshot()
    before = len(world.snapshot().workloads)

    for number in range(1000):
        world.put(PODS, cluster.pod(f"p{number}", f"10.1.{number // 250}.{number % 250 + 1}"))
        world.gone(PODS, f"uid-p{number}")
        world.now_ns += 61 * S
        snapshot = world.snapshot()

    assert len(snapshot.workloads) <= before + 1
    assert len(snapshot.claims.span_ns) <= 8


@pytest.mark.parametrize("seed", range(6))
def test_a_snapshot_after_every_change_and_one_at_the_end_say_the_same(seed: int) -> None:
    """Pods come, change, end and go: what is carried from snapshot to snapshot answers like what is made in one go."""
    random_ = random.Random(seed)
    often, once = World(), World()
    hosts = [f"10.1.0.{number}" for number in range(2, 40)] + [f"fd00::{number}" for number in range(2, 40)]
    alive: dict[str, Any] = {}
    for number in range(150):
        if alive and random_.random() < 0.6:
            name = random_.choice(list(alive))
            if random_.random() < 0.5:
                del alive[name]
                for world in (often, once):
                    world.gone(PODS, f"uid-{name}")
            else:
                phase, version = random_.choice(("Running", "Succeeded", "Failed")), {"app.kubernetes.io/version": str(number)}
                for world in (often, once):
                    world.put(PODS, cluster.pod(name, **alive[name], phase=phase, labels=version))
        else:
            start = (datetime.fromtimestamp(often.now_ns // S, UTC)).isoformat()
            alive[f"p{number}"] = {"address": random_.choice(hosts[1:]), "start": start, "host_network": random_.random() < 0.1}
            for world in (often, once):
                world.put(PODS, cluster.pod(f"p{number}", **alive[f"p{number}"]))
        passed_ns = random_.randrange(1, 10 * S)
        for world in (often, once):
            world.now_ns += passed_ns
        often.snapshot()
    for world in (often, once):
        world.put(PODS, cluster.pod("last", hosts[0], start="2026-01-01T00:30:00Z"))
        world.gone(PODS, "uid-last")

    def answers(world: World) -> list[tuple[Any, int]]:
        snapshot, asked = world.snapshot(), [(host, after) for host in hosts for after in range(-60, 900, 5)]
        at_ns = np.array([world.now_ns - after * S for _, after in asked], np.uint64)
        found = snapshot.find(addresses(*[host for host, _ in asked]), at_ns)
        names = [dict(snapshot.workloads[number].attributes) if number >= 0 else None for number in found.workload.tolist()]
        return list(zip(names, found.certainty.tolist(), strict=True))

    told = answers(often)
    assert told == answers(once)
    assert {certainty for _, certainty in told} >= {int(Certainty.EXACT), int(Certainty.GRACE)}


def test_an_unchanged_pod_is_no_news_and_keeps_its_workload() -> None:
    """Heartbeats change nothing; a new label that was not asked for neither; what others keep by the workload stays valid."""
    world = World()
    world.put(PODS, cluster.pod("one", "10.1.0.2"))
    first, _ = world.found("10.1.0.2")

    assert not world.put(PODS, cluster.pod("one", "10.1.0.2", labels={"beat": "2"}))
    world.put(PODS, cluster.pod("two", "10.1.0.3"))
    assert world.found("10.1.0.2")[0] is first


def test_host_network_pods_are_found_by_their_declared_port_where_that_is_unique() -> None:
    """Never by the node's address alone; two that declare the same port are only the node."""
    world = World()
    for name, ports in (("a", (9100, 9200)), ("b", (9200,))):
        world.put(PODS, cluster.pod(name, "192.168.0.1", host_network=True, containers=[cluster.container("main", "x", *ports)]))

    assert [world.who("192.168.0.1", port) for port in (9100, 9200, 22)] == ["a", "node-0", "node-0"]
    assert world.traits("192.168.0.1", 9100) & Trait.HOST

    world.gone(PODS, "uid-b")
    assert world.who("192.168.0.1", 9200) == "a"


@pytest.mark.parametrize("has_node", [True, False], ids=["node", "no-node"])
def test_host_network_pods_are_found_at_every_address_of_their_node(has_node: bool) -> None:
    """External, internal, of a bridge, the loopback; two that declare one port are the node at each; elsewhere a port says nothing of them."""
    world = World()
    own = ("203.0.113.5", "192.168.0.5", "10.1.0.1")
    world.store = Store(Options(cluster.NODE, own_addresses=tuple(packed(one) for one in own[0 if not has_node else 1 :])))
    node = cluster.node(cluster.NODE, "192.168.0.5")
    node["status"]["addresses"].insert(0, {"type": "ExternalIP", "address": "203.0.113.5"})
    world.put(NODES, *([node] if has_node else []), cluster.node("node-1", "192.168.0.2", "10.2.0.0/24"))
    for name, ports in (("a", (9100, 9200)), ("b", (9200,))):
        world.put(PODS, cluster.pod(name, "192.168.0.5", host_network=True, containers=[cluster.container("main", "x", *ports)]))

    for address in (*own, "127.0.0.1", "127.9.9.9", "::1", *(["10.1.0.77"] if has_node else [])):
        assert [world.who(address, port) for port in (9100, 9200, 22)] == ["a", "node-0", "node-0"], address
    assert world.who("192.168.0.2", 9100) == "node-1"

    world.gone(PODS, "uid-a")
    assert [world.who(address, 9100) for address in (*own, "127.0.0.1")] == ["node-0"] * 4
    assert [world.who(address, 9200) for address in (*own, "127.0.0.1")] == ["b"] * 4


def test_a_port_of_one_address_of_the_node_is_nobodys_at_the_others() -> None:
    """A Service's external address is this node's: there its port is the Service's, or of nobody where a pod of the node's network declares it too."""
    world = World(Options(cluster.NODE, own_addresses=(packed("10.1.0.1"), packed("192.168.0.100"))))
    world.put(PODS, cluster.pod("edge", "192.168.0.1", host_network=True, containers=[cluster.container("main", "x", 443)]))
    world.put(SERVICES, cluster.service("web", "10.96.0.1", port=80, outer=("192.168.0.100",)))
    world.put(SERVICES, cluster.service("web-tls", "10.96.0.2", port=443, outer=("192.168.0.100",)))

    assert [world.who(address, 80) for address in ("192.168.0.100", "192.168.0.1", "127.0.0.1")] == ["web", "node-0", "node-0"]
    assert [world.who(address, 443) for address in ("192.168.0.100", "192.168.0.1", "127.0.0.1")] == ["node-0", "edge", "edge"]


def test_the_range_of_a_node_may_come_after_its_address() -> None:
    """Nobody moved, and all the same who is in it is the node from then on."""
    world = World(Options("node-2"))
    raw = cluster.node("node-2", "192.168.0.3", "10.3.0.0/24")
    world.put(NODES, {**raw, "spec": {}})
    before = world.who("10.3.0.1")
    world.put(NODES, raw)

    assert (before, world.who("10.3.0.1")) == ("-", "node-2")


def test_services_are_their_addresses_ports_of_nodes_and_of_load_balancers() -> None:
    """ClusterIP, NodePort on every node, a load balancer of its own, one that two share, and one that is the nodes' own address."""
    world = World()
    world.put(SERVICES, cluster.service("web", "10.96.0.1", node_port=30080, outer=("203.0.113.1", "192.168.0.1")))
    world.put(SERVICES, cluster.service("api", "10.96.0.2", port=81, outer=("203.0.113.1",)))

    assert [world.who("10.96.0.1", 80), world.who("192.168.0.1", 30080), world.who("192.168.0.2", 30080)] == ["web"] * 3
    assert [world.who("203.0.113.1", 80), world.who("203.0.113.1", 81)] == ["web", "api"]
    assert [world.who("192.168.0.1", 80), world.who("192.168.0.1", 82)] == ["web", "node-0"]


def test_a_host_port_leads_into_its_pod() -> None:
    """Not to the node: it answers nothing there, whatever its address; on its loopback and where nobody is named it does."""
    world = World(Options(cluster.NODE, own_addresses=(packed("10.1.0.1"),)))
    world.put(PODS, cluster.pod("edge", "10.1.0.2", containers=[cluster.container("main", "x", host_ports=(8443,))]))

    assert [world.who(address, 8443) for address in ("192.168.0.1", "10.1.0.1")] == ["edge", "edge"]
    assert [world.who(address, 8443) for address in ("127.0.0.1", "10.1.0.77", "192.168.0.2")] == ["node-0", "node-0", "node-1"]
    assert not world.traits("192.168.0.1", 8443) & Trait.HOST


def test_without_peers_remote_pods_are_what_backs_a_service() -> None:
    """By slices; pods of this node by themselves; a host-network endpoint by its port; the rest stays unknown."""
    world = World()
    world.put(PODS, cluster.pod("own", "10.1.0.2"))
    world.put(SLICES, cluster.endpoint_slice("web", {"10.1.0.2": "node-0", "10.2.0.2": "node-1"}))
    world.put(SLICES, cluster.endpoint_slice("agent", {"192.168.0.2": "node-1"}, port=9100))

    assert [world.who("10.1.0.2"), world.who("10.2.0.2"), world.who("192.168.0.2", 9100)] == ["own", "web", "agent"]
    assert [world.who("192.168.0.2", 22), world.who("10.2.0.3")] == ["node-1", "-"]


def test_with_peers_remote_pods_are_themselves() -> None:
    """Their slices add nothing but endpoints that are no pods; unclaimed addresses of a node's range are that node."""
    world = World()
    world.store.watch_peers(is_on=True)
    world.put(SLICES, cluster.endpoint_slice("web", {"10.2.0.2": "node-1", "10.2.0.9": "node-1"}))
    world.put(SLICES, cluster.endpoint_slice("outside", {"203.0.113.7": ""}, are_pods=False))
    labels = {"pod-template-hash": "77"}
    world.put(PEERS, cluster.pod("front-77-x", "10.2.0.2", node="node-1", owner=("ReplicaSet", "front-77"), labels=labels))

    assert [world.who("10.2.0.2"), world.who("203.0.113.7"), world.who("10.2.0.9")] == ["front", "outside", "node-1"]
    assert world.found("10.2.0.9")[1] is Certainty.GUESS


def test_only_pods_whose_node_runs_an_agent_make_client_spans() -> None:
    """Known from the agents' headless Service; this node's own always."""
    world = World(Options(cluster.NODE, agents_service="ops/agents"))
    world.store.watch_peers(is_on=True)
    world.put(PODS, cluster.pod("own", "10.1.0.2"))
    world.put(PEERS, cluster.pod("far", "10.2.0.2", node="node-1"))

    assert (bool(world.traits("10.1.0.2") & Trait.ASKS_AUDIBLY), bool(world.traits("10.2.0.2") & Trait.ASKS_AUDIBLY)) == (True, False)

    world.put(SLICES, cluster.endpoint_slice("agents", {"192.168.0.2": "node-1"}, namespace="ops"))
    assert world.traits("10.2.0.2") & Trait.ASKS_AUDIBLY


@pytest.mark.parametrize(
    ("conditions", "is_audible"),
    [
        (None, True),
        ({}, True),
        ({"ready": None}, True),
        ({"ready": True}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
    ],
)
def test_an_agent_that_is_not_ready_makes_no_client_spans(conditions: dict[str, bool | None] | None, is_audible: bool) -> None:
    """Nothing said is ready; and what is not still names who is behind its own Service."""
    world = World(Options(cluster.NODE, agents_service="ops/agents"))
    world.put(SLICES, cluster.endpoint_slice("agents", {"10.2.0.9": "node-1"}, namespace="ops", conditions=conditions))
    named = world.who("10.2.0.9")
    world.store.watch_peers(is_on=True)
    world.put(PEERS, cluster.pod("far", "10.2.0.2", node="node-1"))

    assert (named, bool(world.traits("10.2.0.2") & Trait.ASKS_AUDIBLY)) == ("agents", is_audible)

    world.put(SLICES, cluster.endpoint_slice("agents", {"10.2.0.9": "node-1"}, namespace="ops", conditions={"ready": not is_audible}))
    assert bool(world.traits("10.2.0.2") & Trait.ASKS_AUDIBLY) is not is_audible


@pytest.mark.parametrize("has_key", [False, True])
def test_agents_without_a_key_in_common_do_not_hear_each_other(has_key: bool) -> None:
    """Neither a configured one nor the uid of the cluster: who asks from elsewhere has other ids there; pods of this node are heard by this agent."""
    world = World()
    world.store = Store(Options(cluster.NODE, agents_service="ops/agents", has_key=has_key))
    world.store.watch_peers(is_on=True)
    world.put(SLICES, cluster.endpoint_slice("agents", {"192.168.0.2": "node-1"}, namespace="ops"))
    world.put(PODS, cluster.pod("own", "10.1.0.2"))
    world.put(PEERS, cluster.pod("far", "10.2.0.2", node="node-1"))

    def audible() -> list[bool]:
        return [bool(world.traits(address) & Trait.ASKS_AUDIBLY) for address in ("10.1.0.2", "10.2.0.2")]

    assert audible() == [True, has_key]
    world.put(NAMESPACES, cluster.namespace("kube-system"))
    assert audible() == [True, True]


def test_a_pod_that_opts_out_where_it_is_is_left_out() -> None:
    """Nobody moved, and the snapshot says all the same that somebody is not reported any more; and, once the pod is back, that all are."""
    world = World()
    seen = []

    for says in ({}, {objects.ENABLED: "false"}, {}):
        world.put(PODS, cluster.pod("one", "10.1.0.2", annotations=says))
        seen.append(world.snapshot().leaves_out)

    assert seen == [False, True, False]


@pytest.mark.parametrize(
    ("options", "space", "on_space", "on_pod", "is_selected"),
    [
        ({}, "shop", {}, {}, True),
        ({"include": ("shop-*",)}, "shop", {}, {}, False),
        ({"include": ("sh*",)}, "shop", {}, {}, True),
        ({"exclude": ("shop",)}, "shop", {}, {}, False),
        ({"include": ("*",), "exclude": ("shop",)}, "shop", {}, {}, False),
        ({}, "shop", {objects.ENABLED: "false"}, {}, False),
        ({}, "shop", {}, {objects.ENABLED: "false"}, False),
        ({}, "shop", {objects.ENABLED: "false"}, {objects.ENABLED: "true"}, True),
        ({}, "shop", {}, {objects.ENABLED: " False"}, False),
    ],
)
def test_namespaces_and_annotations_select(
    options: dict[str, Any], space: str, on_space: dict[str, str], on_pod: dict[str, str], is_selected: bool
) -> None:
    """Globs of the configuration, then the pod's annotation, then its namespace's."""
    world = World(replace(Options(cluster.NODE), **options))
    world.put(PODS, cluster.pod("one", "10.1.0.2", namespace=space, annotations=on_pod))
    world.put(NAMESPACES, cluster.namespace(space, on_space))

    assert bool(world.traits("10.1.0.2") & Trait.SELECTED) is is_selected


def test_injected_and_exporting_pods_are_instrumented() -> None:
    """By annotation of the pod or its namespace, or because they were seen to export; then they make no CLIENT spans of ours."""
    world = World()
    inject = objects.INJECT_PREFIX + "java"
    world.put(NAMESPACES, cluster.namespace("java", {inject: "true"}))
    world.put(PODS, cluster.pod("plain", "10.1.0.2"), cluster.pod("injected", "10.1.0.3", annotations={inject: "ops/agent"}))
    world.put(PODS, cluster.pod("by-space", "10.1.0.4", namespace="java"))
    world.put(PODS, cluster.pod("not", "10.1.0.5", namespace="java", annotations={inject: "false"}))

    def instrumented() -> list[bool]:
        return [bool(world.traits(f"10.1.0.{last}") & Trait.INSTRUMENTED) for last in (2, 3, 4, 5)]

    assert instrumented() == [False, True, True, False]
    assert world.store.mark_exporting("uid-plain", Trait.TRACED)
    assert not world.store.mark_exporting("uid-plain", Trait.TRACED)
    assert instrumented() == [True, True, True, False]
    assert not world.traits("10.1.0.2") & Trait.ASKS_AUDIBLY


@pytest.mark.parametrize(
    ("on_space", "on_pod", "is_instrumented"),
    [
        (None, "False", False),
        (None, "FALSE", False),
        (None, " false", False),
        (None, "True", True),
        (None, "", False),
        ("true", "", True),
        ("true", " ", True),
        ("False", "", False),
        ("true", "False", False),
        ("False", "true", True),
    ],
)
def test_injection_is_read_as_by_its_operator(on_space: str | None, on_pod: str, is_instrumented: bool) -> None:
    """Whatever the case of false; what is empty on the pod is said by its namespace."""
    world = World()
    inject = objects.INJECT_PREFIX + "python"
    world.put(NAMESPACES, cluster.namespace("shop", {} if on_space is None else {inject: on_space}))
    world.put(PODS, cluster.pod("one", "10.1.0.2", annotations={inject: on_pod}))

    assert bool(world.traits("10.1.0.2") & Trait.INSTRUMENTED) is is_instrumented


def test_owners_are_asked_for_once_and_change_the_resource() -> None:
    """ReplicaSets of this node's pods, Jobs of all; a Deployment's uid comes with the answer."""
    world = World()
    world.store.watch_peers(is_on=True)
    for number in (1, 2):
        world.put(
            PODS, cluster.pod(f"web-77-{number}", f"10.1.0.{number}", owner=("ReplicaSet", "web-77"), labels={"pod-template-hash": "77"})
        )
    world.put(PEERS, cluster.pod("api-88-x", "10.2.0.1", node="node-1", owner=("ReplicaSet", "api-88"), labels={"pod-template-hash": "88"}))
    world.put(PEERS, cluster.pod("nightly-1-x", "10.2.0.2", node="node-1", owner=("Job", "nightly-1")))

    assert {one.name for one in world.store.wanted_owners()} == {"web-77", "nightly-1"}

    world.store.set_owner("uid-web-77", Owner("Deployment", "web", "uid-web"))
    world.store.set_owner("uid-nightly-1", Owner("CronJob", "nightly", "uid-nightly"))
    workload, _ = world.found("10.1.0.2")
    assert workload is not None
    assert workload.attributes["k8s.deployment.uid"] == "uid-web"
    assert world.who("10.2.0.2") == "nightly"
    assert world.store.wanted_owners() == []


def test_owners_are_wanted_as_long_as_there_are_pods_that_need_them() -> None:
    """Not of pods that are gone, that have another owner now, or that ended elsewhere; nor again where the server knows it no more."""
    world = World()
    for number in range(1000):
        world.put(PODS, cluster.pod(f"job-{number}-x", "10.1.0.9", owner=("Job", f"job-{number}")))
        world.gone(PODS, f"uid-job-{number}-x")
    both = [cluster.pod(f"web-77-{number}", f"10.1.0.{number}", owner=("ReplicaSet", "web-77")) for number in (2, 3)]
    elsewhere: dict[str, Any] = {"node": "node-1", "owner": ("Job", "nightly-1")}
    world.put(PODS, *both, cluster.pod("moved", "10.1.0.4", owner=("Job", "old")), cluster.pod("lost", "10.1.0.5", owner=("Job", "lost")))
    world.put(PEERS, cluster.pod("nightly-1-x", "10.2.0.2", **elsewhere))
    world.store.give_up_owner("uid-lost")
    before = {one.name for one in world.store.wanted_owners()}

    world.gone(PODS, "uid-web-77-2")
    world.put(PODS, cluster.pod("moved", "10.1.0.4", owner=("Job", "new")))
    world.put(PODS, cluster.pod("lost", "10.1.0.5", owner=("Job", "lost"), labels={"app.kubernetes.io/name": "lost"}))
    world.put(PEERS, cluster.pod("nightly-1-x", "10.2.0.2", phase="Succeeded", **elsewhere))
    after = {one.name for one in world.store.wanted_owners()}
    world.gone(PODS, "uid-web-77-3")
    world.gone(PODS, "uid-moved")

    assert (before, after) == ({"web-77", "old", "nightly-1"}, {"web-77", "new"})
    assert world.store.wanted_owners() == []
    assert not world.store.lacks_owners(())


def test_the_cluster_is_named_by_kube_system() -> None:
    """Its uid is on every Resource, also of pods known before it."""
    store = Store(Options(cluster.NODE))
    world = World()
    world.store = store
    world.put(PODS, cluster.pod("one", "10.1.0.2"))
    world.put(NAMESPACES, cluster.namespace("kube-system"))

    workload, _ = world.found("10.1.0.2")

    assert workload is not None
    assert (store.cluster_uid, workload.attributes["k8s.cluster.uid"]) == ("uid-ns-kube-system", "uid-ns-kube-system")


def test_this_node_is_known_on_its_loopback_even_without_its_object() -> None:
    """Where nodes may not be listed the name is all there is, and it is enough."""
    world = World()
    world.store = Store(Options(cluster.NODE, node_service_name="box"))

    assert [world.who("127.0.0.1"), world.who("::1")] == ["box", "box"]

    world.put(NODES, cluster.node())
    workload, _ = world.found("192.168.0.1")
    assert workload is not None
    assert workload.attributes["k8s.node.uid"] == "uid-node-0"
    assert world.who("127.0.0.1") == "box"


def test_news_that_moves_nobody_keeps_the_tables() -> None:
    """Only who somebody is changed: the snapshot is a new one with the same tables; a new address makes new tables."""
    world = World()
    world.put(PODS, cluster.pod("one", "10.1.0.2"))
    first = world.snapshot()

    world.put(PODS, cluster.pod("one", "10.1.0.2", annotations={"resource.opentelemetry.io/service.name": "renamed"}))
    second = world.snapshot()
    name = world.who("10.1.0.2")
    world.put(PODS, cluster.pod("two", "10.1.0.3"))

    assert name == "renamed"
    assert "renamed" not in [one.attributes.get("service.name") for one in first.workloads]
    assert second.claims is first.claims
    assert world.snapshot().claims is not first.claims
    assert [world.who(one) for one in ("10.1.0.2", "10.1.0.3")] == ["renamed", "two"]


def test_a_list_replaces_everything_of_its_kind() -> None:
    """What is not in it is gone, what is in it is so; the rest of the store stays."""
    world = World()
    world.put(PODS, cluster.pod("a", "10.1.0.2"), cluster.pod("b", "10.1.0.3"))
    fresh = [TRIMS[PODS](cluster.pod("b", "10.1.0.3")), TRIMS[PODS](cluster.pod("c", "10.1.0.4"))]

    is_news = world.store.replace(PODS, {one.uid: one for one in fresh}, world.now_ns)
    again = world.store.replace(PODS, {one.uid: one for one in fresh}, world.now_ns)

    assert (is_news, again) == (True, False)
    assert [world.who("10.1.0.3"), world.who("10.1.0.4"), world.who("192.168.0.1")] == ["b", "c", "node-0"]
    assert world.found("10.1.0.2")[1] is Certainty.GRACE


@pytest.mark.parametrize("kind", [NODES, SLICES, NAMESPACES])
def test_a_long_list_is_taken_in_one_go(kind: str) -> None:
    """Ten thousand objects that are news: no more than a moment, and what is gone is gone."""
    world = World(Options(cluster.NODE, agents_service="ops/agents"))
    make: dict[str, Any] = {
        NODES: lambda number: cluster.node(f"n{number}", f"172.16.{number // 250}.{number % 250 + 1}", "10.9.0.0/24"),
        SLICES: lambda number: cluster.endpoint_slice(f"s{number}", {f"172.16.{number // 250}.{number % 250 + 1}": "node-1"}),
        NAMESPACES: lambda number: cluster.namespace(f"s{number}"),
    }
    fresh = {one.uid: one for one in (TRIMS[kind](make[kind](number)) for number in range(10_000))}

    start_s = time.thread_time()
    first, again = world.store.replace(kind, fresh, world.now_ns), world.store.replace(kind, dict(fresh), world.now_ns)
    one_less = world.store.replace(kind, dict(list(fresh.items())[1:]), world.now_ns)
    took_s = time.thread_time() - start_s

    assert (first, again, one_less, world.store.counts[kind]) == (True, False, True, 9_999)
    assert took_s < 1


def test_nodes_and_namespaces_of_a_list_are_those_of_the_list() -> None:
    """This node under another uid, its address another's; an annotation of a namespace that was made anew."""
    world = World()
    world.put(PODS, cluster.pod("one", "10.1.0.2"))
    node, other = cluster.node(address="192.168.0.2"), cluster.node("node-1", "192.168.0.1", "10.2.0.0/24")
    node["metadata"]["uid"] = "uid-again"
    space = cluster.namespace("shop", {objects.ENABLED: "false"})
    space["metadata"]["uid"] = "uid-again"
    for kind, raws in ((NODES, (node, other)), (NAMESPACES, (space, cluster.namespace("kube-system")))):
        values = [TRIMS[kind](raw) for raw in raws]
        world.store.replace(kind, {one.uid: one for one in values}, world.now_ns)

    assert (world.who("192.168.0.1"), world.who("192.168.0.2"), world.who("127.0.0.1")) == ("node-1", "node-0", "node-0")
    assert world.store.node_addresses == {packed("192.168.0.2")}
    assert not world.traits("10.1.0.2") & Trait.SELECTED

    world.store.replace(NAMESPACES, {}, world.now_ns)
    world.store.replace(NODES, {}, world.now_ns)
    assert world.traits("10.1.0.2") & Trait.SELECTED
    assert (world.who("192.168.0.1"), world.who("127.0.0.1"), world.store.node_addresses) == ("-", "node-0", frozenset())


def test_addresses_that_the_server_does_not_name_may_be_given() -> None:
    """Bridges and tunnels of this node, told by whoever knows its links."""
    world = World(Options(cluster.NODE, own_addresses=(packed("10.1.0.1"),)))

    assert world.found("10.1.0.1")[1] is Certainty.EXACT
    assert world.who("10.1.0.1") == "node-0"


def test_with_chosen_namespaces_only_some_addresses_matter() -> None:
    """The node's range but for its unwanted pods, the node itself, wanted pods from elsewhere; without a choice, or a range, everything."""
    world = World(Options(cluster.NODE, include=("shop",)))
    world.put(PODS, cluster.pod("web", "10.1.0.2"), cluster.pod("aside", "10.1.0.3", namespace="aside"), cluster.pod("far", "172.20.0.9"))
    every = World()
    bare = World(Options("node-2", include=("shop",)))

    found = world.store.selection()

    assert found is not None
    assert {str(one) for one in found.wanted} == {"10.1.0.0/24", "172.20.0.9/32", "192.168.0.1/32", "127.0.0.0/8", "::1/128"}
    assert {str(one) for one in found.others} == {"10.1.0.3/32"}
    assert (every.store.selection(), bare.store.selection()) == (None, None)
