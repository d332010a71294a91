"""Kubernetes as the agent runs it: whether it is on, what it is told, what is shown of it. Nothing of it is imported where it is off."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from otel_ebpf_receiver.status.counters import Counters, Instrument, Kind, pairs

if TYPE_CHECKING:
    from otel_ebpf_receiver.config.schema import Config
    from otel_ebpf_receiver.identity.directory import Directory
    from otel_ebpf_receiver.identity.kubernetes.client import Access
    from otel_ebpf_receiver.identity.kubernetes.cluster import Cluster

MODULES = ("otel_ebpf_receiver.identity.kubernetes.cluster", "kubernetes.client.api_client", "kubernetes.config.incluster_config")
"""What takes long to import; wanted as soon as there is an access."""
PREFIX = "otel_ebpf_receiver.kubernetes"
NAMES_MAX = 100
"""Workloads named on the status page."""
_LOG = logging.getLogger(__name__)


def find(config: Config) -> Access | None:
    """The way to the API server, or None where Kubernetes is off, which is said. Raises `AgentError` when it is demanded and impossible."""
    wanted = config.kubernetes
    if wanted.enabled is False:
        return None
    from otel_ebpf_receiver.identity.kubernetes.client import find_access

    access = find_access(wanted.enabled, wanted.kubeconfig, os.environ)
    if access is None:
        remedy = "there is neither a service account nor a kubeconfig; workloads are named by `services` only"
        (_LOG.warning if wanted.node_name else _LOG.info)("Kubernetes is off: %s", remedy)
        return None
    if wanted.node_name:
        return access
    _LOG.warning("Kubernetes is off: the name of this node is missing; set K8S_NODE_NAME (in a pod: from the field spec.nodeName)")
    return None


def follow(config: Config, access: Access, directory: Directory, own_addresses: Iterable[bytes]) -> Cluster:
    """The cluster behind `directory`, not started. Raises `KubernetesError` when the access cannot be used as it is written."""
    from otel_ebpf_receiver.agent.options import given_service_name
    from otel_ebpf_receiver.export.http.user_agent import user_agent
    from otel_ebpf_receiver.identity.kubernetes import attributes, rows
    from otel_ebpf_receiver.identity.kubernetes.client import Api
    from otel_ebpf_receiver.identity.kubernetes.cluster import Cluster
    from otel_ebpf_receiver.identity.kubernetes.objects import Wanted

    wanted = config.kubernetes
    options = rows.Options(
        node=wanted.node_name,
        cluster=attributes.Cluster(
            name=wanted.cluster_name,
            wanted=Wanted(wanted.pod_labels, wanted.pod_annotations),
            name_from_labels=wanted.name_from_labels,
        ),
        include=wanted.namespaces.include,
        exclude=wanted.namespaces.exclude,
        grace_ns=round(wanted.grace_s * 1e9),
        agents_service=wanted.agents_service,
        node_service_name=given_service_name(config),
        drops_instrumented_spans=wanted.instrumented.spans == "drop",
        own_addresses=tuple(own_addresses),
        has_key=bool(config.ids.key),
    )
    return Cluster(Api(access, user_agent=user_agent()), directory, options, peers=wanted.peers)


def id_key(cluster_uid: str) -> bytes:
    """The key of the ids where none is configured: all agents of a cluster come to the same one."""
    from otel_ebpf_receiver.telemetry.ids import KEY_BYTES  # needs numpy, which is imported while the kernel side is loaded

    return hashlib.blake2b(cluster_uid.encode(), digest_size=KEY_BYTES, person=b"cluster uid").digest()


def missing(cluster: Cluster | None) -> tuple[str, ...]:
    """What is not known as it should be, a sentence each."""
    return tuple(f"kubernetes: {line}" for line in cluster.status().missing) if cluster else ()


def shown(cluster: Cluster | None, directory: Directory) -> Mapping[str, object]:
    """The cluster on the status page."""
    if cluster is None:
        return {"state": "off"}
    status = cluster.status()
    watches = {
        kind: {
            "state": one.phase.value,
            "error": one.error,
            "lists": one.lists_total,
            "watches": one.watches_total,
            "events": one.events_total,
            "bad_objects": one.bad_objects_total,
            "failures": one.failures_total,
        }
        for kind, one in status.watches.items()
    }
    return {
        "state": "current" if not status.missing else "stale" if status.is_synced else "incomplete",
        "missing": list(status.missing),
        "age_s": round(status.age_s, 1),
        "cluster_uid": status.cluster_uid,
        "peers": status.peers,
        "objects": dict(status.objects),
        "requests": status.requests_total,
        "instrumented": list(directory.instrumented(NAMES_MAX)),
        "watches": watches,
    }


def register(counters: Counters, cluster: Cluster, directory: Directory) -> None:
    """Lets the counters' readers see the cluster, and what became of exchanges for want or because of an identity."""
    age = Instrument(f"{PREFIX}.snapshot.age", "Since the API server last confirmed what is known.", "s", Kind.GAUGE)
    counters.observe(age, lambda: {(): cluster.status().age_s})
    requests = Instrument(f"{PREFIX}.requests", "Requests to the API server.", "{request}")
    counters.observe(requests, lambda: {(): cluster.status().requests_total})
    objects = Instrument(f"{PREFIX}.objects", "Objects known, by kind.", "{object}", Kind.GAUGE)
    counters.observe(objects, lambda: {pairs({"kind": kind}): count for kind, count in cluster.status().objects.items()})
    for name, what in (("events", "Events of watches."), ("bad_objects", "Objects that cannot be understood."), ("failures", "Faults.")):
        counters.observe(Instrument(f"{PREFIX}.{name}", what, "{event}"), lambda name=name: _by_kind(cluster, f"{name}_total"))  # type: ignore[misc]
    identity = Instrument("otel_ebpf_receiver.identity", "Exchanges by what is known of their two sides, or because of it.", "{exchange}")
    names = ("identified", "unnamed_peers", "deselected", "instrumented_spans", "instrumented_metrics")
    counters.observe(identity, lambda: {pairs({"fate": name}): getattr(directory.counters, name) for name in names})


def _by_kind(cluster: Cluster, name: str) -> dict[tuple[tuple[str, str], ...], int]:
    return {pairs({"kind": kind}): getattr(state, name) for kind, state in cluster.status().watches.items()}
