"""Raw objects to small values, and pods to Resources."""

from __future__ import annotations

from typing import Any

import pytest

from otel_ebpf_receiver.identity.address import packed
from otel_ebpf_receiver.identity.kubernetes import attributes, objects
from otel_ebpf_receiver.identity.kubernetes.objects import BadObject, Owner, Wanted
from tests.kubernetes import cluster

RICH = cluster.pod(
    "web-7d4b9c6f5-abcde",
    "10.1.0.2",
    owner=("ReplicaSet", "web-7d4b9c6f5"),
    labels={
        "pod-template-hash": "7d4b9c6f5",
        "app.kubernetes.io/name": "web-app",
        "app.kubernetes.io/version": "9.1",
        "team": "a",
        "x": "y",
    },
    annotations={
        "resource.opentelemetry.io/deployment.environment.name": "prod",
        "resource.opentelemetry.io/k8s.pod.uid": "forged",
        "note/one": "1",
        "other": "2",
    },
)
DEPLOYMENT = Owner("Deployment", "web", "uid-web")
REPLICASET = Owner("ReplicaSet", "web-7d4b9c6f5", "uid-web-7d4b9c6f5")


def resource(raw: dict[str, Any], owners: tuple[Owner, ...] = (), container: int | None = 0, **more: Any) -> dict[str, Any]:
    """The Resource of a raw pod's container."""
    facts = attributes.Cluster(uid="cluster-1", **more)
    pod = objects.pod(raw, facts.wanted)
    return attributes.resource(pod, None if container is None else pod.containers[container], owners, facts)


def test_a_containers_resource_is_whole() -> None:
    """Exactly these attributes, and of labels and annotations those that were asked for."""
    made = resource(
        RICH, (REPLICASET, DEPLOYMENT), name="prod-1", wanted=Wanted(("team",), ("note/*",)), added={"region": "eu", "k8s.pod.name": "no"}
    )

    assert made == {
        "region": "eu",
        "deployment.environment.name": "prod",
        "k8s.cluster.uid": "cluster-1",
        "k8s.cluster.name": "prod-1",
        "k8s.node.name": "node-0",
        "host.name": "node-0",
        "k8s.namespace.name": "shop",
        "k8s.pod.name": "web-7d4b9c6f5-abcde",
        "k8s.pod.uid": "uid-web-7d4b9c6f5-abcde",
        "k8s.pod.start_time": "2026-01-01T00:00:01Z",
        "k8s.pod.ip": "10.1.0.2",
        "k8s.container.name": "main",
        "k8s.replicaset.name": "web-7d4b9c6f5",
        "k8s.replicaset.uid": "uid-web-7d4b9c6f5",
        "k8s.deployment.name": "web",
        "k8s.deployment.uid": "uid-web",
        "container.image.name": "registry.example:5000/shop/web",
        "container.image.tags": ("1.2",),
        "k8s.pod.label.team": "a",
        "k8s.pod.annotation.note/one": "1",
        "service.name": "web",
        "service.namespace": "shop",
        "service.instance.id": "shop.web-7d4b9c6f5-abcde.main",
        "service.version": "9.1",
    }


@pytest.mark.parametrize(
    ("annotations", "labels", "owners", "from_labels", "name"),
    [
        ({"resource.opentelemetry.io/service.name": "a"}, {"app.kubernetes.io/instance": "b"}, (DEPLOYMENT,), True, "a"),
        ({}, {"app.kubernetes.io/instance": "b", "app.kubernetes.io/name": "c"}, (DEPLOYMENT,), True, "b"),
        ({}, {"app.kubernetes.io/name": "c"}, (DEPLOYMENT,), True, "c"),
        ({}, {"app.kubernetes.io/name": "c"}, (REPLICASET, DEPLOYMENT), False, "web"),
        ({}, {}, (REPLICASET,), False, "web-7d4b9c6f5"),
        ({}, {}, (Owner("StatefulSet", "db", "u"),), False, "db"),
        ({}, {}, (Owner("DaemonSet", "log", "u"),), False, "log"),
        ({}, {}, (Owner("Job", "nightly-1", "u"), Owner("CronJob", "nightly", "u")), False, "nightly"),
        ({}, {}, (Owner("Job", "once", "u"),), False, "once"),
        ({}, {}, (), False, "solo"),
    ],
)
def test_service_name_follows_the_conventions_order(
    annotations: dict[str, str], labels: dict[str, str], owners: tuple[Owner, ...], from_labels: bool, name: str
) -> None:
    """Annotation, then (asked for) labels, then owners from the top, then the pod."""
    raw = cluster.pod("solo", "10.1.0.2", annotations=annotations, labels=labels)

    assert resource(raw, owners, name_from_labels=from_labels)["service.name"] == name


def test_annotations_name_the_rest_of_the_service() -> None:
    """Namespace, instance and version by annotation before everything else."""
    keys = ("service.namespace", "service.instance.id", "service.version")
    raw = cluster.pod("solo", "10.1.0.2", annotations={f"resource.opentelemetry.io/{key}": f"my-{key}" for key in keys})

    assert {key: resource(raw)[key] for key in keys} == {key: f"my-{key}" for key in keys}


@pytest.mark.parametrize(
    ("image", "name", "tags", "version"),
    [
        ("nginx", "nginx", ("latest",), "latest"),
        ("nginx:1.25", "nginx", ("1.25",), "1.25"),
        ("localhost:5000/a/b", "localhost:5000/a/b", ("latest",), "latest"),
        ("localhost:5000/a/b:2", "localhost:5000/a/b", ("2",), "2"),
        ("a/b@sha256:12", "a/b", None, "sha256:12"),
        ("a/b:3@sha256:12", "a/b", ("3",), "3@sha256:12"),
    ],
)
def test_images_are_taken_apart(image: str, name: str, tags: tuple[str, ...] | None, version: str) -> None:
    """Registry ports are no tags, and a digest is no tag either."""
    made = resource(cluster.pod("solo", "10.1.0.2", containers=[cluster.container("main", image)]))

    assert (made["container.image.name"], made.get("container.image.tags"), made["service.version"]) == (name, tags, version)


def test_a_pod_whose_container_is_not_known_has_no_container() -> None:
    """Its instance is the pod, and nothing of any container is claimed."""
    made = resource(cluster.pod("duo", "10.1.0.2", containers=[cluster.container("a"), cluster.container("b")]), container=None)

    assert made["service.instance.id"] == "shop.duo"
    assert not [key for key in made if key.startswith(("container.", "k8s.container", "service.version"))]


def test_the_deployment_is_guessed_from_the_hash_until_it_is_known() -> None:
    """A ReplicaSet's name is its Deployment's and the hash of the pod's label; what the server says goes before it."""
    pod = objects.pod(RICH, Wanted())

    assert attributes.chain(pod, {}) == (REPLICASET, Owner("Deployment", "web", ""))
    assert attributes.chain(pod, {REPLICASET.uid: DEPLOYMENT}) == (REPLICASET, DEPLOYMENT)
    assert attributes.chain(pod, {REPLICASET.uid: None}) == (REPLICASET,)


def test_only_controllers_of_known_kinds_are_owners() -> None:
    """A foreign StatefulSet, a node (of static pods) and a mere owner are none."""
    raw = cluster.pod("solo", "10.1.0.2")
    raw["metadata"]["ownerReferences"] = [
        {"apiVersion": "apps.kruise.io/v1", "kind": "StatefulSet", "name": "a", "uid": "1", "controller": True},
        {"apiVersion": "v1", "kind": "Node", "name": "b", "uid": "2", "controller": True},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "c", "uid": "3"},
    ]

    assert objects.pod(raw, Wanted()).owner is None


def test_only_tcp_ports_and_containers_that_stay_count() -> None:
    """UDP is not HTTP's; init containers end before the others start, but for sidecars."""
    raw = cluster.pod("solo", "10.1.0.2", containers=[cluster.container("main", "web", 80)])
    raw["spec"]["containers"][0]["ports"].append({"containerPort": 53, "protocol": "UDP"})
    raw["spec"]["initContainers"] = [cluster.container("setup"), {**cluster.container("proxy", "p", 15001), "restartPolicy": "Always"}]

    assert [(one.name, one.ports) for one in objects.pod(raw, Wanted()).containers] == [("main", (80,)), ("proxy", (15001,))]


def test_an_ended_pod_says_when() -> None:
    """The end of its last container, in the next second as the API rounds down; without it the last change of a condition."""
    finished = objects.pod(cluster.pod("a", "10.1.0.2", phase="Succeeded", finished="2026-01-01T00:05:00Z"), Wanted())
    silent = cluster.pod("b", "10.1.0.2", phase="Failed")
    silent["status"]["conditions"] = [{"type": "Ready", "lastTransitionTime": "2026-01-01T00:06:00Z"}]

    assert finished.end_ns == objects.unix_ns("2026-01-01T00:05:01Z")
    assert objects.pod(silent, Wanted()).end_ns == objects.unix_ns("2026-01-01T00:06:01Z")


def test_services_slices_and_nodes_keep_what_names_addresses() -> None:
    """Headless Services and FQDN slices have no addresses; dual stack has two; names of nodes are no addresses."""
    headless = objects.service(cluster.service("a", "None"))
    fqdn = objects.endpoint_slice({**cluster.endpoint_slice("a", {"10.1.0.2": "node-0"}), "addressType": "FQDN"})
    dual = cluster.service("b", "10.96.0.1", node_port=30080, outer=("203.0.113.1",))
    dual["spec"]["clusterIPs"] = ["10.96.0.1", "fd00::1"]
    made = objects.service(dual)
    host = objects.node(cluster.node())

    assert (headless.addresses, fqdn.endpoints) == ((), ())
    assert (made.addresses, made.outer, made.node_ports) == ((packed("10.96.0.1"), packed("fd00::1")), (packed("203.0.113.1"),), (30080,))
    assert (host.addresses, [str(one) for one in host.networks]) == ((packed("192.168.0.1"),), ["10.1.0.0/24"])


@pytest.mark.parametrize(
    "damage",
    [
        {"metadata": None},
        {"metadata": {"name": "a", "namespace": "b"}},
        {"metadata": {"uid": 7, "name": "a", "namespace": "b"}},
        {"spec": [1]},
        {"spec": {"containers": [None]}},
        {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": "x"}]}]}},
        {"status": {"podIP": "not an address"}},
        {"status": {"podIP": "10.0.0.256"}},
        {"status": {"startTime": "yesterday"}},
    ],
)
def test_a_malformed_object_is_a_bad_object_and_nothing_else(damage: dict[str, Any]) -> None:
    """Whatever stands in it, one error comes out."""
    trim = objects.guarded(lambda raw: objects.pod(raw, Wanted()))

    with pytest.raises(BadObject):
        trim({**cluster.pod("a", "10.1.0.2"), **damage})


@pytest.mark.parametrize("nothing", [None, 7, "text", []])
def test_what_is_no_object_is_a_bad_object(nothing: Any) -> None:
    """Items of a list may be anything."""
    with pytest.raises(BadObject):
        objects.guarded(objects.node)(nothing)


def test_lists_that_are_null_are_empty() -> None:
    """Go writes an empty list as null: such a pod is a pod."""
    raw = cluster.pod("a", "10.1.0.2")
    raw["spec"]["containers"] = raw["metadata"]["labels"] = raw["metadata"]["ownerReferences"] = raw["status"]["podIPs"] = None

    assert objects.pod(raw, Wanted()).addresses == (packed("10.1.0.2"),)
