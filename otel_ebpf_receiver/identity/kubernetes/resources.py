"""What is asked of the API server: paths, selectors, sizes of pages. Data, beside the permission that each needs.

Pages are small because JSON is parsed under the interpreter's lock, which nothing here may hold for longer than 20 ms: a page is 0.3 to 1
MB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from otel_ebpf_receiver.identity.kubernetes import objects, store
from otel_ebpf_receiver.identity.kubernetes.objects import Wanted

JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PODS_PATH = "/api/v1/pods"
_OWNER_PATHS = {"ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets/{}", "Job": "/apis/batch/v1/namespaces/{}/jobs/{}"}


@dataclass(frozen=True, slots=True)
class Resource:
    """A collection that is listed and watched. `permission` is as RBAC calls it."""

    kind: str
    path: str
    permission: str
    page: int
    trim: Callable[[Any], Any]
    query: Mapping[str, str] = field(default_factory=dict)
    list_accept: str = JSON
    watch_accept: str = JSON


def resources(node: str, wanted: Wanted) -> tuple[Resource, ...]:
    """What is always watched."""
    own = {"fieldSelector": f"spec.nodeName={node}"}
    return (
        Resource(store.PODS, PODS_PATH, "pods", 50, objects.guarded(partial(objects.pod, wanted=wanted)), own),
        Resource(store.SERVICES, "/api/v1/services", "services", 250, objects.guarded(objects.service)),
        Resource(
            store.SLICES,
            "/apis/discovery.k8s.io/v1/endpointslices",
            "endpointslices.discovery.k8s.io",
            100,
            objects.guarded(objects.endpoint_slice),
        ),
        Resource(store.NODES, "/api/v1/nodes", "nodes", 50, objects.guarded(objects.node)),
        Resource(
            store.NAMESPACES,
            "/api/v1/namespaces",
            "namespaces",
            500,
            objects.guarded(objects.namespace),
            list_accept=METADATA_LIST,
            watch_accept=METADATA,
        ),
    )


def peers(node: str, wanted: Wanted) -> Resource:
    """The pods of all other nodes."""
    return Resource(
        store.PEERS,
        PODS_PATH,
        "pods",
        100,
        objects.guarded(partial(objects.peer, wanted=wanted)),
        {"fieldSelector": f"spec.nodeName!={node}"},
    )


def owner_path(owner: store.WantedOwner) -> str:
    """Where the metadata of a ReplicaSet or Job is."""
    return _OWNER_PATHS[owner.kind].format(owner.namespace, owner.name)
