"""The Resource of a workload: what a pod, its container and its owners say, in the order of the semantic conventions.

Pure. Precedence, from the weakest: attributes added by the user, `resource.opentelemetry.io/*` annotations, what the API server says;
`service.*` as the conventions' page on Kubernetes attributes orders them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from opentelemetry.semconv._incubating.attributes import container_attributes as container_keys
from opentelemetry.semconv._incubating.attributes import host_attributes as host_keys
from opentelemetry.semconv._incubating.attributes import k8s_attributes as k8s
from opentelemetry.semconv._incubating.attributes import service_attributes as service_keys

from otel_ebpf_receiver.identity.kubernetes.objects import (
    HASH_LABEL,
    NAME_LABELS,
    NOTHING,
    RESOURCE_PREFIX,
    Container,
    Node,
    Owner,
    Pod,
    Wanted,
    matches,
)
from otel_ebpf_receiver.telemetry.columns import AttributeValue

INSTANCE_LABEL, NAME_LABEL, VERSION_LABEL = NAME_LABELS
_OWNER_KEYS = {
    "Deployment": (k8s.K8S_DEPLOYMENT_NAME, k8s.K8S_DEPLOYMENT_UID),
    "ReplicaSet": (k8s.K8S_REPLICASET_NAME, k8s.K8S_REPLICASET_UID),
    "StatefulSet": (k8s.K8S_STATEFULSET_NAME, k8s.K8S_STATEFULSET_UID),
    "DaemonSet": (k8s.K8S_DAEMONSET_NAME, k8s.K8S_DAEMONSET_UID),
    "CronJob": (k8s.K8S_CRONJOB_NAME, k8s.K8S_CRONJOB_UID),
    "Job": (k8s.K8S_JOB_NAME, k8s.K8S_JOB_UID),
}
"""In the order in which an owner gives the service its name."""
_FACTS = (
    k8s.K8S_CLUSTER_UID,
    k8s.K8S_CLUSTER_NAME,
    k8s.K8S_NODE_NAME,
    host_keys.HOST_NAME,
    k8s.K8S_NAMESPACE_NAME,
    k8s.K8S_POD_NAME,
    k8s.K8S_POD_UID,
    k8s.K8S_POD_START_TIME,
    k8s.K8S_POD_IP,
    k8s.K8S_CONTAINER_NAME,
)
_CACHED = 1024
_RANKS = {kind: rank for rank, kind in enumerate(_OWNER_KEYS)}


@dataclass(frozen=True, slots=True)
class Cluster:
    """What all Resources of a cluster share. `added`: attributes of the user's own, weaker than everything."""

    uid: str = ""
    name: str = ""
    wanted: Wanted = field(default_factory=Wanted)
    name_from_labels: bool = False
    added: Mapping[str, AttributeValue] = field(default_factory=dict)


def resource(pod: Pod, container: Container | None, owners: tuple[Owner, ...], cluster: Cluster) -> dict[str, AttributeValue]:
    """Attributes of a container's Resource; `container` is None where it is not known which of several it is. `owners`: from the pod
    upwards."""
    # hot: benchmarks/identity.py
    annotated = _annotated(pod)
    name, namespace = _service_of(pod, annotated, owners, cluster.name_from_labels)
    made: dict[str, AttributeValue] = {**cluster.added, **annotated}
    _add_facts(made, pod, container, owners, cluster)
    made[service_keys.SERVICE_NAME], made[service_keys.SERVICE_NAMESPACE] = name, namespace
    made[service_keys.SERVICE_INSTANCE_ID] = annotated.get(service_keys.SERVICE_INSTANCE_ID) or (
        f"{pod.namespace}.{pod.name}.{container.name}" if container else f"{pod.namespace}.{pod.name}"
    )
    version = (
        annotated.get(service_keys.SERVICE_VERSION)
        or pod.labels.get(VERSION_LABEL)
        or (image_version(container.image) if container else "")
    )
    if version:
        made[service_keys.SERVICE_VERSION] = version
    return made


def service_of(pod: Pod, owners: tuple[Owner, ...], *, name_from_labels: bool) -> tuple[str, str]:
    """service.name and service.namespace of a pod."""
    return _service_of(pod, _annotated(pod), owners, name_from_labels)


def node_resource(node: Node, service_name: str, cluster: Cluster) -> dict[str, AttributeValue]:
    """What a node's own network does and no pod is known to do."""
    facts = {
        k8s.K8S_CLUSTER_UID: cluster.uid,
        k8s.K8S_CLUSTER_NAME: cluster.name,
        k8s.K8S_NODE_NAME: node.name,
        k8s.K8S_NODE_UID: node.uid,
        host_keys.HOST_NAME: node.name,
        service_keys.SERVICE_NAME: service_name,
        service_keys.SERVICE_INSTANCE_ID: node.name,
    }
    return {**cluster.added, **{key: value for key, value in facts.items() if value}}


def chain(pod: Pod, known: Mapping[str, Owner | None]) -> tuple[Owner, ...]:
    """The owners of a pod from itself upwards. `known`: the owner of each ReplicaSet and Job by its uid, None for one without.

    Until a ReplicaSet's owner is known it is taken from its name, which a Deployment makes of its own and the hash that is also the pod's
    label.
    """
    if pod.owner is None:
        return ()
    if pod.owner.uid in known:
        above = known[pod.owner.uid]
        return (pod.owner, above) if above else (pod.owner,)
    suffix = f"-{pod.labels.get(HASH_LABEL)}"
    if pod.owner.kind == "ReplicaSet" and pod.owner.name.endswith(suffix):
        return pod.owner, Owner("Deployment", pod.owner.name.removesuffix(suffix), "")
    return (pod.owner,)


def image_parts(image: str) -> tuple[str, str, str]:
    """Name, tag and digest of an image reference (github.com/distribution/reference); without either the tag is `latest`."""
    rest, _, digest = image.partition("@")
    head, separator, tag = rest.rpartition(":")
    if not separator or "/" in tag:
        head, tag = rest, "" if digest else "latest"
    return head, tag, digest


@lru_cache(maxsize=_CACHED)
def image_version(image: str) -> str:
    """service.version from an image: `tag@digest`, the digest or the tag."""
    _, tag, digest = image_parts(image) if image else ("", "", "")
    return "@".join(part for part in (tag, digest) if part)


def _service_of(pod: Pod, annotated: Mapping[str, str], owners: tuple[Owner, ...], name_from_labels: bool) -> tuple[str, str]:
    by_labels = (pod.labels.get(INSTANCE_LABEL) or pod.labels.get(NAME_LABEL)) if name_from_labels else None
    name = annotated.get(service_keys.SERVICE_NAME) or by_labels or _highest(owners) or pod.name
    return name, annotated.get(service_keys.SERVICE_NAMESPACE) or pod.namespace


@lru_cache(maxsize=_CACHED)
def _highest(owners: tuple[Owner, ...]) -> str:
    named = [owner for owner in owners if owner.name]
    return min(named, key=_rank).name if named else ""


def _rank(owner: Owner) -> int:
    return _RANKS[owner.kind]


def _add_facts(made: dict[str, AttributeValue], pod: Pod, container: Container | None, owners: tuple[Owner, ...], cluster: Cluster) -> None:
    facts = (
        cluster.uid,
        cluster.name,
        pod.node,
        pod.node,
        pod.namespace,
        pod.name,
        pod.uid,
        pod.start_text,
        pod.address_text,
        container.name if container else "",
    )
    for key, value in zip(_FACTS, facts, strict=True):
        if value:
            made[key] = value
    for owner in owners:
        name_key, uid_key = _OWNER_KEYS[owner.kind]
        if owner.name:
            made[name_key] = owner.name
        if owner.uid:
            made[uid_key] = owner.uid
    if container and container.image:
        made.update(_image_facts(container.image))
    for template, values, globs in (
        (k8s.K8S_POD_LABEL_TEMPLATE, pod.labels, cluster.wanted.labels),
        (k8s.K8S_POD_ANNOTATION_TEMPLATE, pod.annotations, cluster.wanted.annotations),
    ):
        if globs:
            made |= {f"{template}.{key}": value for key, value in values.items() if matches(key, globs)}


@lru_cache(maxsize=_CACHED)
def _image_facts(image: str) -> Mapping[str, AttributeValue]:
    name, tag, _ = image_parts(image)
    facts: dict[str, AttributeValue] = {container_keys.CONTAINER_IMAGE_NAME: name}
    if tag:
        facts[container_keys.CONTAINER_IMAGE_TAGS] = (tag,)
    return facts


def _annotated(pod: Pod) -> Mapping[str, str]:
    if not pod.annotations:
        return NOTHING
    prefix = len(RESOURCE_PREFIX)
    return {key[prefix:]: value for key, value in pod.annotations.items() if key.startswith(RESOURCE_PREFIX) and len(key) > prefix}
