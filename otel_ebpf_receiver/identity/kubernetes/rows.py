"""What each Kubernetes object says about addresses and ports, as rows of a snapshot.

Pure: an object and what is known around it in, rows out. Numbers of workloads come from `Slots`; whoever takes rows releases the keys
they hold.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache

from msgspec import Struct

from otel_ebpf_receiver.identity.kubernetes import attributes
from otel_ebpf_receiver.identity.kubernetes.objects import (
    ENABLED,
    INJECT_PREFIX,
    NOTHING,
    Container,
    Namespace,
    Node,
    Owner,
    Pod,
    Service,
    Slice,
)
from otel_ebpf_receiver.identity.kubernetes.slots import Slots
from otel_ebpf_receiver.identity.snapshot import NO_GROUP, OPEN_NS, SHARED, Trait
from otel_ebpf_receiver.telemetry import names
from otel_ebpf_receiver.telemetry.columns import AttributeValue

_CLAIM = struct.Struct("<16sQQQii")
_PORT = struct.Struct("<iHi")
LOOPBACK = bytes(15) + b"\x01"
"""::1; its IPv4 sisters are a whole network."""
ELSEWHERE = b""
"""Stands for the addresses of this node that nobody names: of bridges and tunnels that came later."""
_NO_TRAIT = Trait(0)


class Rows(Struct, frozen=True):
    """Packed rows of CLAIM and of PORT, and the keys that are held for them."""

    claims: bytes = b""
    ports: bytes = b""
    held: tuple[Hashable, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """What the configuration says. `node_service_name`: service.name of what a node does itself; empty: its own name."""

    node: str
    cluster: attributes.Cluster = field(default_factory=attributes.Cluster)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    grace_ns: int = 60 * 10**9
    agents_service: str = ""
    node_service_name: str = ""
    drops_instrumented_spans: bool = True
    own_addresses: tuple[bytes, ...] = ()
    """Addresses of this node that the API server does not name: of its bridges and tunnels."""
    has_key: bool = False
    """The key of the ids is configured; else it comes from the uid of the cluster."""


@dataclass(slots=True)
class Around:
    """What is known besides the object at hand."""

    options: Options
    slots: Slots
    cluster: attributes.Cluster
    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    """By name."""
    owners: Mapping[str, Owner | None] = field(default_factory=dict)
    node_addresses: frozenset[bytes] = frozenset()
    here: tuple[bytes, ...] = ()
    """This node's addresses but for its loopback."""
    agent_nodes: frozenset[str] = frozenset()
    exporting: Mapping[str, Trait] = field(default_factory=dict)
    """What the SDKs of pods (by uid) were seen to make."""
    watches_peers: bool = False
    groups: dict[bytes, int] = field(default_factory=dict)

    def group(self, address: bytes) -> int:
        """The group of ports of one address of a node or a load balancer. Even numbers; odd ones are pods'."""
        return self.groups.setdefault(address, 2 * len(self.groups) + 2)

    @property
    def is_key_shared(self) -> bool:
        """The agents of other nodes make the same ids. Without a configured key and the uid of the cluster each has a key of its own."""
        return self.options.has_key or bool(self.cluster.uid)


def here(node: Node | None, options: Options) -> tuple[bytes, ...]:
    """Of `Around`; `node`: this one, None: not known."""
    return tuple(dict.fromkeys((*(node.addresses if node else ()), *options.own_addresses)))


def pod_rows(pod: Pod, around: Around) -> Rows:
    """A pod of this node: one workload per container, and one for when it is not known which."""
    owners = attributes.chain(pod, around.owners)
    traits = _pod_traits(pod, around, is_here=True)
    only = pod.containers[0] if len(pod.containers) == 1 else None
    held: list[Hashable] = []

    def hold(container: Container | None) -> int:
        held.append(("pod", pod.uid, container.name if container else ""))
        resource = attributes.resource(pod, container, owners, around.cluster)
        return around.slots.hold(held[-1], traits, resource, f"{resource[names.SERVICE_NAME]}.{resource[names.SERVICE_NAMESPACE]}")

    whole = hold(only)
    numbers = [whole] if only else [hold(container) for container in pod.containers]
    group = NO_GROUP if only else 2 * whole + 1
    ports = _host_ports(pod, numbers, around)
    if pod.is_host_network or not only:
        listens = [(port, number) for container, number in zip(pod.containers, numbers, strict=True) for port in container.ports]
        # What listens on the node listens on all of its addresses.
        ports += (
            _at_addresses((*around.here, LOOPBACK, ELSEWHERE), pod, listens, around)
            if pod.is_host_network
            else [_PORT.pack(group, port, number) for port, number in listens]
        )
    return Rows(_pod_claims(pod, whole, group), b"".join(ports), tuple(held))


def peer_rows(pod: Pod, around: Around) -> Rows:
    """A pod of another node: all pods of one service share a workload, which only names it."""
    owners = attributes.chain(pod, around.owners)
    name, namespace = attributes.service_of(pod, owners, name_from_labels=around.cluster.name_from_labels)
    hears = around.is_key_shared and pod.node in around.agent_nodes
    is_audible = hears and _pod_traits(pod, around, is_here=False) & Trait.ASKS_AUDIBLY
    traits = Trait.ASKS_AUDIBLY if is_audible else _NO_TRAIT
    key, number = _hold_peer(name, namespace, traits, around)
    listens = [(port, number) for container in pod.containers for port in container.ports]
    ports = _at_addresses(pod.addresses, pod, listens, around) if pod.is_host_network else []
    return Rows(_pod_claims(pod, number, NO_GROUP), b"".join(ports), (key,))


def service_rows(service: Service, around: Around) -> Rows:
    """A Service's own addresses are all its own; a node's or a shared load balancer's are its own by port."""
    key, number = _hold_peer(service.name, service.namespace, _NO_TRAIT, around)
    claims = [_open_claim(address, number, NO_GROUP) for address in service.addresses]
    claims += [_open_claim(address, number, around.group(address)) for address in service.outer if address not in around.node_addresses]
    ports = [_PORT.pack(SHARED, port, number) for port in service.node_ports]
    ports += [_PORT.pack(around.group(address), port, number) for address in service.outer for port in service.ports]
    return Rows(b"".join(claims), b"".join(ports), (key,))


def slice_rows(endpoint_slice: Slice, around: Around) -> Rows:
    """Endpoints that are known no better: of other nodes while their pods are not watched, and those that are no pods."""
    wanted = [one for one in endpoint_slice.endpoints if not one.is_pod or not (around.watches_peers or one.node == around.options.node)]
    if not wanted or not endpoint_slice.service:
        return Rows()
    key, number = _hold_peer(endpoint_slice.service, endpoint_slice.namespace, _NO_TRAIT, around)
    addresses = [address for one in wanted for address in one.addresses]
    claims = [_open_claim(address, number, NO_GROUP) for address in addresses if address not in around.node_addresses]
    ports = [
        _PORT.pack(around.group(address), port, number)
        for address in addresses
        if address in around.node_addresses
        for port in endpoint_slice.ports
    ]
    return Rows(b"".join(claims), b"".join(ports), (key,))


def node_rows(node: Node, around: Around) -> Rows:
    """A node's addresses; what listens there is told apart by port."""
    key = ("node", node.name)
    is_own = node.name == around.options.node
    traits = Trait.NODE | (Trait.HOST if is_own else _NO_TRAIT) | (Trait.SELECTED if not around.options.include else _NO_TRAIT)
    service_name = (around.options.node_service_name if is_own else "") or node.name
    number = around.slots.hold(key, traits, attributes.node_resource(node, service_name, around.cluster), node.name)
    own = (*around.options.own_addresses, LOOPBACK) if is_own else ()
    claims = [_open_claim(address, number, around.group(address)) for address in dict.fromkeys((*node.addresses, *own))]
    return Rows(b"".join(claims), b"", (key,))


def is_selected(pod_namespace: str, annotations: Mapping[str, str], around: Around) -> bool:
    """What the namespaces of the configuration and the annotation on the pod, else on its namespace, say."""
    options = around.options
    if options.include and not any(fnmatchcase(pod_namespace, glob) for glob in options.include):
        return False
    if options.exclude and any(fnmatchcase(pod_namespace, glob) for glob in options.exclude):
        return False
    says = annotations.get(ENABLED) or _annotations(pod_namespace, around).get(ENABLED) or ""
    return says.strip().lower() != "false"


def instrumented(pod: Pod, around: Around) -> Trait:
    """What an SDK makes for the pod: both signals where one is injected, and what it was seen to export."""
    # As the operator that injects reads them: what is empty on the pod is said by its namespace.
    said = {**_annotations(pod.namespace, around), **{key: value for key, value in pod.annotations.items() if value.strip()}}
    if said and any(key.startswith(INJECT_PREFIX) and value.strip().lower() not in ("", "false") for key, value in said.items()):
        return Trait.INSTRUMENTED
    return around.exporting.get(pod.uid, _NO_TRAIT)


def _pod_traits(pod: Pod, around: Around, *, is_here: bool) -> Trait:
    wanted = is_selected(pod.namespace, pod.annotations, around)
    return _traits(wanted, int(instrumented(pod, around)), is_here, pod.is_host_network, around.options.drops_instrumented_spans)


@lru_cache(maxsize=64)
def _traits(is_wanted: bool, instrumented: int, is_here: bool, is_host_network: bool, drops_instrumented_spans: bool) -> Trait:
    # hot: benchmarks/identity.py. Before Python 3.12 each of these operations costs a microsecond, even a member's hash, and there are few outcomes.
    made = Trait(instrumented)
    is_audible = is_wanted and not is_host_network and not (made & Trait.TRACED and drops_instrumented_spans)
    place = (Trait.HOST if is_host_network else Trait.LOCAL) if is_here else _NO_TRAIT
    return made | place | (Trait.SELECTED if is_wanted else _NO_TRAIT) | (Trait.ASKS_AUDIBLY if is_audible else _NO_TRAIT)


def _annotations(namespace: str, around: Around) -> Mapping[str, str]:
    known = around.namespaces.get(namespace)
    return known.annotations if known else NOTHING


def _hold_peer(name: str, namespace: str, traits: Trait, around: Around) -> tuple[Hashable, int]:
    key = ("peer", namespace, name, int(traits))
    attributes_of: dict[str, AttributeValue] = {names.SERVICE_NAME: name, names.SERVICE_NAMESPACE: namespace}
    return key, around.slots.hold(key, traits, attributes_of, f"{name}.{namespace}")


def _pod_claims(pod: Pod, workload: int, group: int) -> bytes:
    if pod.is_host_network:
        return b""
    end = pod.end_ns if pod.is_ended else OPEN_NS
    if len(pod.addresses) == 1:
        # hot: benchmarks/identity.py. Before Python 3.12 a comprehension costs as much as the row.
        return _CLAIM.pack(pod.addresses[0], pod.start_ns, end, end, workload, group)
    return b"".join([_CLAIM.pack(address, pod.start_ns, end, end, workload, group) for address in pod.addresses])


def _at_addresses(addresses: Iterable[bytes], pod: Pod, listens: list[tuple[int, int]], around: Around) -> list[bytes]:
    if pod.is_ended:
        return []
    return [_PORT.pack(around.group(address), port, number) for address in addresses for port, number in listens]


def _host_ports(pod: Pod, numbers: list[int], around: Around) -> list[bytes]:
    """Ports of the node that lead into a pod with an own network."""
    if pod.is_host_network or pod.is_ended:
        return []
    leads = [(port, number) for container, number in zip(pod.containers, numbers, strict=True) for port in container.host_ports]
    return _at_addresses(dict.fromkeys((*around.here, *pod.host_addresses)), pod, leads, around) if leads else []


def _open_claim(address: bytes, workload: int, group: int) -> bytes:
    return _CLAIM.pack(address, 0, OPEN_NS, OPEN_NS, workload, group)
