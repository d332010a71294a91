"""Kubernetes objects as far as identity needs them: raw JSON in, small immutable values out.

Pure. What an object lacks is empty; an object without a uid or of the wrong shape raises `BadObject` and nothing else, whatever stands in
it. The values are structs of msgspec: made and compared in a fraction of the time that dataclasses take, and that is most of what an event costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from sys import intern
from typing import Any

from msgspec import Struct

from otel_ebpf_receiver.identity.address import Network, network_of, packed
from otel_ebpf_receiver.identity.snapshot import OPEN_NS

RESOURCE_PREFIX = "resource.opentelemetry.io/"
INJECT_PREFIX = "instrumentation.opentelemetry.io/inject-"
ENABLED = "otel-ebpf-receiver/enabled"
"""Annotation of a pod or a namespace; "false" opts out, "true" on a pod overrules its namespace."""
NAME_LABELS = ("app.kubernetes.io/instance", "app.kubernetes.io/name", "app.kubernetes.io/version")
HASH_LABEL = "pod-template-hash"
_OWNER_KINDS = {"apps": ("ReplicaSet", "Deployment", "StatefulSet", "DaemonSet"), "batch": ("Job", "CronJob")}
_TERMINAL = frozenset({"Succeeded", "Failed"})
_KEPT_LABELS = frozenset({*NAME_LABELS, HASH_LABEL})
_CACHED = 1024
NOTHING: Mapping[str, str] = {}
Raw = Mapping[str, Any]


class BadObject(ValueError):
    """An object that cannot be understood; it is counted and skipped."""


class Owner(Struct, frozen=True):
    """A controller: of a pod, or of a controller."""

    kind: str
    name: str
    uid: str


class Container(Struct, frozen=True):
    """One container of a pod; `ports` and `host_ports` are TCP."""

    name: str
    image: str
    ports: tuple[int, ...] = ()
    host_ports: tuple[int, ...] = ()


class Pod(Struct, frozen=True):
    """A pod. Labels and annotations are only those that somebody asked for."""

    uid: str
    namespace: str
    name: str
    node: str
    addresses: tuple[bytes, ...] = ()
    host_addresses: tuple[bytes, ...] = ()
    address_text: str = ""
    is_host_network: bool = False
    is_ended: bool = False
    start_text: str = ""
    start_ns: int = 0
    end_ns: int = 0
    """When its last container ended, as far as it is said; 0: not."""
    owner: Owner | None = None
    labels: Mapping[str, str] = NOTHING
    annotations: Mapping[str, str] = NOTHING
    containers: tuple[Container, ...] = ()


class Service(Struct, frozen=True):
    """A Service. `addresses` are its own (ClusterIP), `outer` load balancers' and external ones."""

    uid: str
    namespace: str
    name: str
    addresses: tuple[bytes, ...] = ()
    outer: tuple[bytes, ...] = ()
    ports: tuple[int, ...] = ()
    node_ports: tuple[int, ...] = ()


class Endpoint(Struct, frozen=True):
    """One endpoint of a slice."""

    addresses: tuple[bytes, ...]
    node: str
    is_pod: bool
    is_ready: bool = True


class Slice(Struct, frozen=True):
    """An EndpointSlice of one Service."""

    uid: str
    namespace: str
    service: str
    ports: tuple[int, ...]
    endpoints: tuple[Endpoint, ...]


class Node(Struct, frozen=True):
    """A node."""

    uid: str
    name: str
    addresses: tuple[bytes, ...] = ()
    networks: tuple[Network, ...] = ()


class Namespace(Struct, frozen=True):
    """A namespace; annotations as far as they say who is reported."""

    uid: str
    name: str
    annotations: Mapping[str, str] = NOTHING


@dataclass(frozen=True, slots=True)
class Wanted:
    """Globs of the labels and annotations that become attributes."""

    labels: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()


def guarded(trim: Callable[[Raw], Any]) -> Callable[[Any], Any]:
    """`trim`, with everything that a malformed object makes Python raise turned into `BadObject`."""

    def guard(raw: Any) -> Any:
        try:
            return trim(raw)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise BadObject(f"{type(error).__name__}: {error}") from error

    return guard


def pod(raw: Raw, wanted: Wanted) -> Pod:
    """A pod of this node, with all that its Resource is made of."""
    return _pod(raw, wanted, keeps_containers=True)


def peer(raw: Raw, wanted: Wanted) -> Pod:
    """A pod of another node: only what names it."""
    return _pod(raw, wanted, keeps_containers=False)


def service(raw: Raw) -> Service:
    """A Service. ExternalName has no address; headless ones say None."""
    metadata, spec = raw["metadata"], raw.get("spec") or {}
    own = spec.get("clusterIPs") or [spec.get("clusterIP")]
    ingress = ((raw.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    outer = [*(spec.get("externalIPs") or []), *[one.get("ip") for one in ingress]]
    ports = [port for port in spec.get("ports") or [] if port.get("protocol", "TCP") == "TCP"]
    return Service(
        uid=_uid(metadata),
        namespace=intern(metadata["namespace"]),
        name=intern(metadata["name"]),
        addresses=_addresses([one for one in own if one != "None"]),
        outer=_addresses(outer),
        ports=tuple(_port(port["port"]) for port in ports),
        node_ports=tuple(_port(port["nodePort"]) for port in ports if port.get("nodePort")),
    )


def endpoint_slice(raw: Raw) -> Slice:
    """An EndpointSlice; one that belongs to no Service has an empty `service`."""
    metadata = raw["metadata"]
    endpoints = (raw.get("endpoints") or []) if raw.get("addressType") != "FQDN" else []
    ports = (port for port in raw.get("ports") or [] if port.get("protocol", "TCP") == "TCP" and port.get("port"))
    return Slice(
        uid=_uid(metadata),
        namespace=intern(metadata["namespace"]),
        service=intern((metadata.get("labels") or {}).get("kubernetes.io/service-name") or ""),
        ports=tuple(_port(port["port"]) for port in ports),
        endpoints=tuple(_endpoint(one) for one in endpoints),
    )


def node(raw: Raw) -> Node:
    """A node with its addresses (not its host name, nor its DNS names) and the ranges of its pods."""
    metadata, spec = raw["metadata"], raw.get("spec") or {}
    addresses = (raw.get("status") or {}).get("addresses") or []
    ranges = spec.get("podCIDRs") or [spec.get("podCIDR")]
    return Node(
        uid=_uid(metadata),
        name=intern(metadata["name"]),
        addresses=_addresses([one["address"] for one in addresses if one.get("type") in ("InternalIP", "ExternalIP")]),
        networks=tuple(network_of(one) for one in ranges if one),
    )


def namespace(raw: Raw) -> Namespace:
    """A namespace from its metadata."""
    metadata = raw["metadata"]
    return Namespace(_uid(metadata), intern(metadata["name"]), _kept(metadata.get("annotations"), _decides, ()))


def owner(raw: Raw) -> Owner | None:
    """The controller that an object's metadata names, if it is of a kind that identity knows."""
    for reference in raw["metadata"].get("ownerReferences") or []:
        group = str(reference["apiVersion"]).partition("/")[0]
        if reference.get("controller") and reference["kind"] in _OWNER_KINDS.get(group, ()):
            return Owner(intern(reference["kind"]), intern(reference["name"]), reference["uid"])
    return None


@lru_cache(maxsize=_CACHED)
def unix_ns(text: str | None) -> int:
    """A time of the API (RFC 3339) in Unix nanoseconds; 0 for none. Raises ValueError."""
    ns = int(datetime.fromisoformat(text).timestamp()) * 10**9 if text else 0
    if not 0 <= ns < OPEN_NS:
        raise ValueError(f"the time {text!r} is out of range")
    return ns


def _pod(raw: Raw, wanted: Wanted, *, keeps_containers: bool) -> Pod:
    # hot: benchmarks/identity.py
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    start = status.get("startTime") or metadata.get("creationTimestamp") or ""
    is_ended = status.get("phase") in _TERMINAL
    is_host_network = bool(spec.get("hostNetwork"))
    labels, annotations = (wanted.labels, wanted.annotations) if keeps_containers else ((), ())
    return Pod(
        uid=_uid(metadata),
        namespace=intern(metadata["namespace"]),
        name=metadata["name"],
        node=intern(spec.get("nodeName") or ""),
        addresses=_own_addresses(status, "podIPs", "podIP"),
        host_addresses=_own_addresses(status, "hostIPs", "hostIP") if keeps_containers else (),
        address_text=status.get("podIP") or "",
        is_host_network=is_host_network,
        is_ended=is_ended,
        start_text=start,
        start_ns=unix_ns(start),
        end_ns=_ended_ns(metadata, status) if is_ended else 0,
        owner=owner(raw),
        labels=_kept(metadata.get("labels"), _is_kept_label, labels),
        annotations=_kept(metadata.get("annotations"), _is_kept_annotation, annotations),
        containers=_containers(spec) if keeps_containers or is_host_network else (),
    )


def _own_addresses(status: Raw, several: str, single: str) -> tuple[bytes, ...]:
    # hot: benchmarks/identity.py. Before Python 3.12 each comprehension is a function that is made and called.
    found = status.get(several)
    own = [packed(one["ip"]) for one in found if one.get("ip")] if found else ()
    return tuple(own) or _addresses([status.get(single)])


def _containers(spec: Raw) -> tuple[Container, ...]:
    """Those that run beside each other: init containers only where they are sidecars."""
    containers, first = spec.get("containers") or (), spec.get("initContainers")
    if first:
        containers = (*containers, *[one for one in first if one.get("restartPolicy") == "Always"])
    return tuple([_container(one) for one in containers])


def _container(raw: Raw) -> Container:
    name, image, ports = intern(raw["name"]), intern(raw.get("image") or ""), raw.get("ports")
    if not ports:
        return Container(name, image)
    ports = [port for port in ports if port.get("protocol", "TCP") == "TCP"]
    return Container(
        name,
        image,
        tuple([_port(port["containerPort"]) for port in ports]),
        tuple([_port(port["hostPort"]) for port in ports if port.get("hostPort")]),
    )


def _endpoint(raw: Raw) -> Endpoint:
    return Endpoint(
        _addresses(raw.get("addresses") or []),
        intern(raw.get("nodeName") or ""),
        is_pod=(raw.get("targetRef") or {}).get("kind") == "Pod",
        # Not said means ready: of whom nobody looks after.
        is_ready=(raw.get("conditions") or {}).get("ready") is not False,
    )


def _port(value: Any) -> int:
    if not 0 <= int(value) <= 0xFFFF:
        raise ValueError(f"{value} is no port")
    return int(value)


def _ended_ns(metadata: Raw, status: Raw) -> int:
    """The end of the last container, rounded up to the next second as the API rounds down; without containers' ends the last change of a
    condition."""
    states = [(one.get("state") or {}).get("terminated") or {} for one in status.get("containerStatuses") or []]
    ends = [unix_ns(state.get("finishedAt")) for state in states]
    latest = max(ends, default=0) or max((unix_ns(one.get("lastTransitionTime")) for one in status.get("conditions") or []), default=0)
    return latest + 10**9 if latest else 0


@lru_cache(maxsize=_CACHED)
def matches(key: str, globs: tuple[str, ...]) -> bool:
    """The key is one of these, or fits one."""
    return key in globs or any(fnmatchcase(key, glob) for glob in globs if "*" in glob or "?" in glob or "[" in glob)


def _is_kept_label(key: str, globs: tuple[str, ...]) -> bool:
    return key in _KEPT_LABELS or bool(globs and matches(key, globs))


def _decides(key: str, globs: tuple[str, ...]) -> bool:
    return key == ENABLED or key.startswith(INJECT_PREFIX) or matches(key, globs)


def _is_kept_annotation(key: str, globs: tuple[str, ...]) -> bool:
    return key.startswith(RESOURCE_PREFIX) or _decides(key, globs)


def _kept(mapping: Mapping[str, str] | None, is_kept: Callable[[str, tuple[str, ...]], bool], globs: tuple[str, ...]) -> Mapping[str, str]:
    return {key: str(value) for key, value in mapping.items() if is_kept(key, globs)} if mapping else NOTHING


def _addresses(texts: list[str | None]) -> tuple[bytes, ...]:
    return tuple([packed(text) for text in texts if text])


def _uid(metadata: Raw) -> str:
    uid = metadata["uid"]
    if not uid or not isinstance(uid, str):
        raise BadObject("metadata.uid is missing")
    return uid
