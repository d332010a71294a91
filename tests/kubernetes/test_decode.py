"""Reading only what is used gives what reading everything gives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otel_ebpf_receiver.identity.kubernetes import decode, objects
from otel_ebpf_receiver.identity.kubernetes.objects import Wanted
from tests.kubernetes import cluster
from tests.kubernetes.fakeapi import FakeApi, Object

WANTED = Wanted(labels=("*",), annotations=("*",))
PORTS = [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "protocol": "UDP"}]
FULL: list[tuple[Any, Object]] = [
    (
        lambda raw: objects.pod(raw, WANTED),
        {
            "metadata": {
                **cluster.pod("full", "")["metadata"],
                "labels": {"a": "b"},
                "annotations": {"c": "d"},
                "ownerReferences": [cluster.reference("Job", "nightly")],
                "managedFields": [{"manager": "kubelet"}],
            },
            "spec": {
                "nodeName": "node-0",
                "hostNetwork": True,
                "containers": [{"name": "main", "image": "web:1", "ports": PORTS, "env": [{"name": "A"}]}],
                "initContainers": [{"name": "side", "restartPolicy": "Always", "ports": PORTS}, {"name": "first", "image": "init:1"}],
            },
            "status": {
                "phase": "Failed",
                "startTime": "2026-01-01T00:00:01Z",
                "podIP": "10.1.0.2",
                "podIPs": [{"ip": "10.1.0.2"}, {"ip": "fd00::2"}],
                "hostIP": "192.168.0.1",
                "hostIPs": [{"ip": "192.168.0.1"}, {"ip": "fd00::1"}],
                "containerStatuses": [{"name": "main", "state": {"terminated": {"finishedAt": "2026-01-01T00:05:01Z"}}}],
            },
        },
    ),
    (
        lambda raw: objects.pod(raw, WANTED),
        {
            "metadata": {"uid": "u", "name": "silent", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"phase": "Failed", "podIP": "10.1.0.3", "conditions": [{"lastTransitionTime": "2026-01-01T00:06:01Z"}]},
        },
    ),
    (
        objects.service,
        {
            "metadata": {"uid": "u", "name": "web", "namespace": "shop"},
            "spec": {
                "clusterIP": "10.96.0.1",
                "clusterIPs": ["10.96.0.1", "fd00::96"],
                "externalIPs": ["203.0.113.1"],
                "ports": [{"port": 80, "nodePort": 30080}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.2"}]}},
        },
    ),
    (objects.service, {"metadata": {"uid": "u", "name": "old", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.2"}}),
    (objects.endpoint_slice, cluster.endpoint_slice("web", {"10.1.0.2": "node-0"})),
    (objects.endpoint_slice, {**cluster.endpoint_slice("web", {"10.1.0.2": "node-0"}), "addressType": "FQDN"}),
    (objects.endpoint_slice, cluster.endpoint_slice("web", {"10.1.0.2": "node-0"}, conditions={"ready": False, "serving": True})),
    (objects.node, cluster.node()),
    (objects.node, {"metadata": {"uid": "u", "name": "old"}, "spec": {"podCIDR": "10.3.0.0/24"}}),
    (objects.namespace, cluster.namespace("shop", {objects.ENABLED: "false"})),
    (objects.owner, cluster.controller("ReplicaSet", "web-77", ("Deployment", "web"))),
]


@pytest.mark.parametrize(("trim", "raw"), FULL)
def test_objects_are_read_as_far_as_they_are_used(trim: Any, raw: Object) -> None:
    """Each field that makes a difference is there: alone, in an event and in a page."""
    text = json.dumps(raw).encode()

    event = decode.event(b'{"type": "ADDED", "object": ' + text + b"}")
    page = decode.page(b'{"metadata": {"resourceVersion": "5", "continue": "t", "remainingItemCount": 3}, "items": [' + text + b"]}")

    assert [trim(decode.one(text)), trim(event["object"]), trim(page["items"][0])] == [trim(raw)] * 3
    assert event["type"] == "ADDED"
    assert page["metadata"] == {"resourceVersion": "5", "continue": "t", "remainingItemCount": 3}


def test_what_nobody_reads_becomes_no_object() -> None:
    """A pod as large as real ones keeps less than a quarter of itself."""
    raw = cluster.populate(FakeApi(), pods=1, services=1, nodes=1)[0]
    text = json.dumps(raw).encode()

    assert len(json.dumps(decode.one(text))) < len(text) / 4
    assert objects.pod(decode.one(text), WANTED) == objects.pod(raw, WANTED)


@pytest.mark.parametrize(
    "raw",
    [
        {"metadata": {"uid": "u"}, "spec": {"containers": 5}},
        {"metadata": {"uid": "u"}, "spec": {"containers": [None]}},
        {"metadata": {"uid": "u"}, "status": [1]},
        {"metadata": ["u"]},
        [],
    ],
)
def test_what_has_another_shape_is_read_whole(raw: Any) -> None:
    """So that it is refused where it is understood, one object at a time."""
    text = json.dumps(raw).encode()

    assert decode.one(text) == raw
    assert decode.event(b'{"type": "ADDED", "object": ' + text + b"}") == {"type": "ADDED", "object": raw}
    assert decode.page(b'{"metadata": {}, "items": [' + text + b"]}") == {"metadata": {}, "items": [raw]}


@pytest.mark.parametrize("text", [b"", b"{", b'{"type": "ADDED", "obj', b"\xff\xfe\xfd"])
def test_what_is_no_json_is_a_value_error(text: bytes) -> None:
    """Whatever the two readers call it."""
    for read in (decode.one, decode.event, decode.page):
        with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
            read(text)
