"""Clusters made of network namespaces: nodes with pods of their own namespaces, an API server that tells of them, an agent on each node.

A node is a namespace whose uplink is a pair like that of a node in a container. Pods hang on a bridge (the model of Flannel and the bridge
plug-in) or on routes of their own (that of Calico and cloud plug-ins). What is exported comes back as plain data.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.agent.process import PATIENCE, AgentProcess, agent, http_server
from tests.capture.namespaces import Namespace, namespace
from tests.export.receivers import HttpReceiver
from tests.kubernetes import cluster
from tests.kubernetes.fakeapi import FakeApi, Object
from tests.sources.line import plain

SERVER, CLIENT = 2, 3
PORT = 8080
STOP_S = 30.0 * PATIENCE
GATEWAY, MAC = "169.254.1.1", "ee:ee:ee:ee:ee:ee"
"""The next hop of routed pods, which no device has."""
SETTINGS = {
    "OTEL_TRACES_SAMPLER": "always_on",
    "OTEL_BSP_SCHEDULE_DELAY": "200",
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    "OTEL_EBPF_RECEIVER_TELEMETRY_SAMPLING_SPANS_PER_SECOND": "0",
    "OTEL_EBPF_RECEIVER_STATUS_ENABLED": "true",
}


@dataclass(frozen=True)
class Pod:
    """A pod: its namespace, and its object at the API server."""

    name: str
    address: str
    ns: Namespace
    body: Object

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])

    def command(self, *arguments: str) -> list[str]:
        return self.ns.command(*arguments)


@dataclass
class Node:
    """A node: its namespace, its place in the cluster, and what it has in it."""

    number: int
    ns: Namespace
    is_bridged: bool
    stack: contextlib.ExitStack
    name: str = field(init=False)
    address: str = field(init=False)
    pods: list[Pod] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name, self.address = f"node-{self.number}", f"192.168.0.{self.number + 1}"
        self.sysctl("net.ipv4.ip_forward=1")
        if self.is_bridged:
            self.ns.ip("link", "add", "cni0", "type", "bridge")
            self.ns.ip("addr", "add", f"10.{self.number + 1}.0.1/24", "dev", "cni0")
            self.ns.ip("link", "set", "cni0", "up")
            self.sysctl("net.bridge.bridge-nf-call-iptables=1")

    def sysctl(self, setting: str) -> None:
        subprocess.run(self.ns.command("sysctl", "-qw", setting), check=True)

    def nft(self, *rules: str) -> None:
        """Adds rules; `pre`, `out` and `post` are chains of NAT."""
        chains = "add table ip t\n" + "".join(
            f"add chain ip t {name} {{ type nat hook {hook} priority {priority} ; }}\n"
            for name, hook, priority in (("pre", "prerouting", -100), ("out", "output", -100), ("post", "postrouting", 100))
        )
        text = chains + "".join(f"add rule ip t {rule}\n" for rule in rules)
        subprocess.run(self.ns.command("nft", "-f", "-"), input=text, text=True, check=True, capture_output=True)

    def pod(self, name: str, **more: Any) -> Pod:
        """A new pod, its link up; the API server does not know it yet (see `Cluster.tell`)."""
        address = f"10.{self.number + 1}.0.{len(self.pods) + 2}"
        ns = self.stack.enter_context(namespace())
        link = f"h{len(self.pods)}"
        self.ns.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", ns.name)
        ns.ip("link", "set", "eth0", "up")
        if self.is_bridged:
            self.ns.ip("link", "set", link, "master", "cni0", "up")
            ns.ip("addr", "add", f"{address}/24", "dev", "eth0")
            ns.ip("route", "add", "default", "via", f"10.{self.number + 1}.0.1")
        else:
            self.ns.ip("link", "set", link, "address", MAC, "up")
            self.ns.ip("route", "add", f"{address}/32", "dev", link)
            ns.ip("addr", "add", f"{address}/32", "dev", "eth0")
            ns.ip("route", "add", GATEWAY, "dev", "eth0", "scope", "link")
            ns.ip("route", "add", "default", "via", GATEWAY, "dev", "eth0")
            ns.ip("neigh", "add", GATEWAY, "lladdr", MAC, "dev", "eth0")
        body = cluster.pod(name, address, node=self.name, host_address=self.address, **more)
        made = Pod(name, address, ns, body)
        self.pods.append(made)
        return made

    def host_pod(self, name: str, *ports: int, **more: Any) -> Pod:
        """A pod in the node's own network that declares these ports."""
        containers = [cluster.container("main", "web:1", *ports)]
        body = cluster.pod(name, self.address, node=self.name, host_address=self.address, host_network=True, containers=containers, **more)
        made = Pod(name, self.address, self.ns, body)
        self.pods.append(made)
        return made


@dataclass
class Watching:
    """An agent on a node and what it exports to."""

    running: AgentProcess
    receiver: HttpReceiver
    api: FakeApi
    ns: Namespace

    def start_api(self) -> None:
        """The API server, which was stopped, is there again, in the node's namespace."""
        with self.ns.inside():
            self.api.start()

    def stop(self) -> int:
        """SIGTERM, and the exit code. How long that may take is the matter of other tests: here two agents and their cluster end together."""
        self.running.process.terminate()
        return self.running.process.wait(STOP_S)

    def page(self, path: str) -> str:
        """A page of the agent's status server."""
        command = self.ns.command("curl", "-sS", "-w", "%{http_code}", "--max-time", "20", f"http://127.0.0.1:14318{path}")
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


class Cluster:
    """Nodes on one wire, with the addresses 192.168.0.1 and so on; `outside` is .254 and has no agent."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, nodes: int, *, is_bridged: bool) -> None:
        self._folder, self._stack = folder, stack
        self.wire = stack.enter_context(namespace())
        self.wire.ip("link", "add", "sw0", "type", "bridge")
        self.wire.ip("link", "set", "sw0", "up")
        self.nodes = [Node(number, stack.enter_context(namespace()), is_bridged, stack) for number in range(nodes)]
        self.outside = stack.enter_context(namespace())
        """What is beyond the nodes: it answers, and forwards nothing."""
        for index, (ns, address) in enumerate([*((one.ns, one.address) for one in self.nodes), (self.outside, "192.168.0.254")]):
            ns.ip("link", "add", "up0", "type", "veth", "peer", "name", f"w{index}", "netns", self.wire.name)
            self.wire.ip("link", "set", f"w{index}", "master", "sw0", "up")
            ns.ip("addr", "add", f"{address}/24", "dev", "up0")
            ns.ip("link", "set", "up0", "up")
            if ns is not self.outside:
                ns.ip("route", "add", "default", "via", "192.168.0.254")
        self.objects: list[Object] = [cluster.namespace("kube-system"), cluster.namespace("shop")]
        self.objects += [cluster.node(one.name, one.address, f"10.{one.number + 1}.0.0/24") for one in self.nodes]

    def route(self) -> None:
        """Each node reaches the pods of the others by their nodes' addresses."""
        for one in self.nodes:
            for other in self.nodes:
                if one is not other:
                    one.ns.ip("route", "add", f"10.{other.number + 1}.0.0/24", "via", other.address)

    def tunnel(self) -> None:
        """Each node reaches the pods of the others through VXLAN, as Flannel does."""
        for one in self.nodes:
            one.ns.ip(
                "link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8472", "nolearning", "dev", "up0", "local", one.address
            )
            one.ns.ip("addr", "add", f"10.{one.number + 1}.0.0/32", "dev", "flannel.1")
            one.ns.ip("link", "set", "flannel.1", "address", f"02:00:00:00:00:{one.number + 1:02x}", "up")
        for one in self.nodes:
            for other in self.nodes:
                if one is not other:
                    net, mac = f"10.{other.number + 1}.0", f"02:00:00:00:00:{other.number + 1:02x}"
                    one.ns.ip("route", "add", f"{net}.0/24", "via", f"{net}.0", "dev", "flannel.1", "onlink")
                    one.ns.ip("neigh", "add", f"{net}.0", "lladdr", mac, "dev", "flannel.1")
                    subprocess.run(one.ns.command("bridge", "fdb", "append", mac, "dev", "flannel.1", "dst", other.address), check=True)

    def service(self, name: str, address: str, backend: Pod, *, node_port: int = 0) -> None:
        """A Service with one backend: its object, and the DNAT of every node."""
        self.objects.append(cluster.service(name, address, node_port=node_port))
        home = next(one for one in self.nodes if backend in one.pods)
        self.objects.append(cluster.endpoint_slice(name, {backend.address: home.name}))
        for one in self.nodes:
            to = f"dnat to {backend.address}:{PORT}"
            rules = [f"{chain} ip daddr {address} tcp dport 80 {to}" for chain in ("pre", "out")]
            if node_port:
                rules += [f"{chain} ip daddr {one.address} tcp dport {node_port} {to}" for chain in ("pre", "out")]
                # Else the answer would not come back by this node.
                rules.append(f"post ip saddr != 10.0.0.0/8 ip daddr {backend.address} tcp dport {PORT} masquerade")
            one.nft(*rules)

    @contextlib.contextmanager
    def watched(
        self, prepare: Callable[[FakeApi], None] = lambda api: None, *, token_file: str = "", env: Mapping[str, str] | None = None
    ) -> Iterator[list[Watching]]:
        """An agent on every node, ready; each has an API server of its own which says the same, `prepare`d before the agent starts."""
        with contextlib.ExitStack() as stack:
            made = []
            for node in self.nodes:
                with node.ns.inside():
                    api = stack.enter_context(FakeApi())
                    receiver = stack.enter_context(HttpReceiver())
                api.put(*self.objects, *(pod.body for one in self.nodes for pod in one.pods))
                prepare(api)
                made.append(self._watch(node, stack, (api, receiver), token_file, env or {}))
            yield made

    def _watch(
        self, node: Node, stack: contextlib.ExitStack, outside: tuple[FakeApi, HttpReceiver], token_file: str, env: Mapping[str, str]
    ) -> Watching:
        api, receiver = outside
        kubeconfig = self._folder / f"kubeconfig-{node.number}"
        kubeconfig.write_text(api.kubeconfig(token_file=token_file))
        environ = {
            **SETTINGS,
            "KUBECONFIG": str(kubeconfig),
            "K8S_NODE_NAME": node.name,
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            **env,
        }
        running = stack.enter_context(agent(prefix=node.ns.command(), env=environ))
        running.ready()
        return Watching(running, receiver, api, node.ns)


@contextlib.contextmanager
def made_of(folder: Path, nodes: int = 1, *, is_bridged: bool = True) -> Iterator[Cluster]:
    """A cluster, gone afterwards."""
    with contextlib.ExitStack() as stack:
        yield Cluster(folder, stack, nodes, is_bridged=is_bridged)


@contextlib.contextmanager
def serving(*pods: Pod | Namespace, port: int = PORT) -> Iterator[None]:
    """An HTTP server in each."""
    with contextlib.ExitStack() as stack:
        for pod in pods:
            stack.enter_context(http_server(pod.command(), port=port))
        yield


def load(prefix: Sequence[str], url: str, count: int, *arguments: str) -> None:
    """`count` requests, half of them on one connection, the others each on its own; every one must be answered."""
    kept = [f"{url}?{number}" for number in range(count // 2)]
    for urls in (kept, *([f"{url}?{number}"] for number in range(count // 2, count))):
        command = [*prefix, "curl", "-sS", "-o", "/dev/null", "--max-time", str(20 * PATIENCE), *arguments, *urls]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60 * PATIENCE)


@dataclass(frozen=True)
class Span:
    """One exported span."""

    kind: int
    path: str
    resource: Mapping[str, Any]
    attributes: Mapping[str, Any]
    trace: bytes
    id: bytes
    parent: bytes

    @property
    def uid(self) -> str:
        """Of the pod that it is reported for; empty: of no pod."""
        return str(self.resource.get("k8s.pod.uid", ""))


def spans(watching: Watching, path: str = "") -> list[Span]:
    """All spans that were exported, or those of one path."""
    found = [
        Span(
            span.kind,
            _path(plain(span.attributes)),
            plain(resource.resource.attributes),
            plain(span.attributes),
            span.trace_id,
            span.span_id,
            span.parent_span_id,
        )
        for resource in watching.receiver.traces
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    return [one for one in found if not path or one.path == path]


def told(watching: Watching, path: str) -> Counter[tuple[str, str]]:
    """How many spans of each kind (C, S) for each pod."""
    return Counter(
        ("C" if one.kind == CLIENT else "S", one.uid or str(one.resource.get("k8s.node.name", ""))) for one in spans(watching, path)
    )


def counted(watching: Watching) -> Counter[tuple[str, str]]:
    """Observations of the duration metrics by kind and pod, as the last export has them."""
    last: dict[tuple[str, str, str], int] = {}
    for resource in watching.receiver.metrics:
        attributes = plain(resource.resource.attributes)
        who = str(attributes.get("k8s.pod.uid") or attributes.get("k8s.node.name", ""))
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name in ("http.server.request.duration", "http.client.request.duration"):
                    kind = "S" if "server" in metric.name else "C"
                    for point in metric.histogram.data_points:
                        last[kind, who, str(sorted(plain(point.attributes).items()))] = point.count
    out: Counter[tuple[str, str]] = Counter()
    for (kind, who, _), count in last.items():
        out[kind, who] += count
    return out


def _path(attributes: Mapping[str, Any]) -> str:
    if "url.path" in attributes:
        return str(attributes["url.path"])
    return "/" + str(attributes["url.full"]).split("//", 1)[1].partition("/")[2].partition("?")[0]
