"""Objects of a small cluster, as a user writes them and as a controller or kubelet would complete them."""

from __future__ import annotations

from typing import Any

from tests.interop.apiserver import ApiServer, Object

NODE, NODE_ADDRESS = "node-a", "10.79.0.254"
IMAGE = "registry.example:5000/demo/api:1.4.2"


def node(api: ApiServer, name: str = NODE, address: str = NODE_ADDRESS, network: str = "10.79.0.0/24") -> Object:
    """A node with its address."""
    made = api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"podCIDR": network, "podCIDRs": [network]}})
    addresses = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]
    api.patch(f"/api/v1/nodes/{name}/status", {"status": {"addresses": addresses}})
    return made


def namespace(api: ApiServer, name: str, **labels: str) -> Object:
    """A namespace."""
    return api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def owned(kind: str, owner: Object) -> list[Object]:
    """The reference to its controller of something that a controller has made."""
    group = "batch/v1" if kind in ("Job", "CronJob") else "apps/v1"
    named = owner["metadata"]
    return [{"apiVersion": group, "kind": kind, "name": named["name"], "uid": named["uid"], "controller": True, "blockOwnerDeletion": True}]


def template(name: str, *, annotations: dict[str, str] | None = None, image: str = IMAGE, port: int = 8080) -> Object:
    """What a controller makes its pods from."""
    container = {"name": "main", "image": image, "ports": [{"containerPort": port}]}
    metadata = {"labels": {"app": name}, "annotations": annotations or {}}
    return {"metadata": metadata, "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}}


def controller(kind: str, name: str, made: Object, *, owners: list[Object] | None = None, replicas: int = 1) -> Object:
    """A Deployment, ReplicaSet, StatefulSet or DaemonSet."""
    spec: dict[str, Any] = {"selector": {"matchLabels": {"app": made["metadata"]["labels"]["app"]}}, "template": made}
    if kind != "DaemonSet":
        spec["replicas"] = replicas
    if kind == "StatefulSet":
        spec["serviceName"] = name
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "ownerReferences": owners or []}, "spec": spec}


def service(name: str, port: int = 80, target: int = 8080) -> Object:
    """A Service for the pods labelled `app: NAME`; the API server gives it its address."""
    spec = {"selector": {"app": name}, "ports": [{"port": port, "targetPort": target, "protocol": "TCP"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def endpoint_slice(name: str, pod: Object, address: str, port: int = 8080) -> Object:
    """What the controller manager would make of a Service with one pod."""
    target = {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"], "uid": pod["metadata"]["uid"]}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "nodeName": NODE, "conditions": {"ready": True}, "targetRef": target}],
    }


def pod(
    api: ApiServer, name: str, made: Object, address: str, *, namespace: str = "demo", node: str = NODE, owners: list[Object] | None = None
) -> Object:
    """A pod that runs on a node and has an address, as kubelet would report it."""
    metadata = {"name": name, "namespace": namespace, "ownerReferences": owners or [], **made["metadata"]}
    api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**made["spec"], "nodeName": node}}, namespace)
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": NODE_ADDRESS,
        "startTime": "2026-01-02T03:04:05Z",
    }
    return api.patch(f"/api/v1/namespaces/{namespace}/pods/{name}/status", {"status": status})
