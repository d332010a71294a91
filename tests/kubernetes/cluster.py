"""Kubernetes objects for tests, as an API server would give them: small ones for a single test, a large cluster for measurements."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from typing import Any

from tests.kubernetes.fakeapi import COLLECTIONS, FakeApi, Object

NODE = "node-0"


def pod(name: str, address: str, *, node: str = NODE, namespace: str = "shop", **more: Any) -> Object:
    """A running pod. `more`: uid, phase, labels, annotations, owner, containers, host_network, start, host_address, finished."""
    owner = more.get("owner")
    ended = [{"state": {"terminated": {"finishedAt": more["finished"]}}}] if "finished" in more else []
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "uid": more.get("uid", f"uid-{name}"),
            "name": name,
            "namespace": namespace,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": more.get("labels", {}),
            "annotations": more.get("annotations", {}),
            "ownerReferences": [reference(*owner)] if owner else [],
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": more.get("host_network", False),
            "containers": more.get("containers", [container("main", "registry.example:5000/shop/web:1.2")]),
        },
        "status": {
            "phase": more.get("phase", "Running"),
            "podIP": address,
            "podIPs": [{"ip": address}] if address else [],
            "hostIP": more.get("host_address", "192.168.0.1"),
            "startTime": more.get("start", "2026-01-01T00:00:01Z"),
            "containerStatuses": ended,
        },
    }


def container(name: str, image: str = "web:1", *ports: int, host_ports: tuple[int, ...] = ()) -> Object:
    """A container of a pod's spec."""
    declared = [{"containerPort": port} for port in ports] + [{"containerPort": port, "hostPort": port} for port in host_ports]
    return {"name": name, "image": image, "ports": declared}


def reference(kind: str, name: str, uid: str = "") -> Object:
    """An owner reference of a controller."""
    group = "batch/v1" if kind in ("Job", "CronJob") else "apps/v1"
    return {"apiVersion": group, "kind": kind, "name": name, "uid": uid or f"uid-{name}", "controller": True}


def controller(kind: str, name: str, owner: tuple[str, str] | None = None, namespace: str = "shop") -> Object:
    """A ReplicaSet or Job."""
    owners = [reference(*owner)] if owner else []
    return {
        "kind": kind,
        "apiVersion": "v1",
        "metadata": {"uid": f"uid-{name}", "name": name, "namespace": namespace, "ownerReferences": owners},
    }


def service(name: str, address: str, *, namespace: str = "shop", port: int = 80, node_port: int = 0, outer: tuple[str, ...] = ()) -> Object:
    """A Service; with `outer` addresses of a load balancer."""
    ports: Object = {"port": port, **({"nodePort": node_port} if node_port else {})}
    return {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {"uid": f"uid-svc-{name}", "name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [ports]},
        "status": {"loadBalancer": {"ingress": [{"ip": one} for one in outer]}},
    }


def endpoint_slice(
    name: str,
    endpoints: dict[str, str],
    *,
    namespace: str = "shop",
    port: int = 8080,
    are_pods: bool = True,
    conditions: dict[str, bool | None] | None = None,
) -> Object:
    """A slice of the Service `name`: addresses to nodes. `conditions`: of every endpoint."""
    target: Object = {"targetRef": {"kind": "Pod"}} if are_pods else {}
    if conditions is not None:
        target["conditions"] = conditions
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "uid": f"uid-slice-{name}",
            "name": f"{name}-x",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "nodeName": node, **target} for address, node in endpoints.items()],
    }


def node(name: str = NODE, address: str = "192.168.0.1", network: str = "10.1.0.0/24") -> Object:
    """A node with its address and the range of its pods."""
    addresses = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"uid": f"uid-{name}", "name": name},
        "spec": {"podCIDR": network, "podCIDRs": [network]},
        "status": {"addresses": addresses},
    }


def namespace(name: str, annotations: dict[str, str] | None = None) -> Object:
    """A namespace."""
    return {"kind": "Namespace", "apiVersion": "v1", "metadata": {"uid": f"uid-ns-{name}", "name": name, "annotations": annotations or {}}}


def populate(api: FakeApi, *, pods: int, services: int, nodes: int) -> list[Object]:
    """A cluster as large as asked for, with the ballast that real objects have. The pods of `NODE` come first in the answer."""
    api.put(*(namespace(name) for name in ("kube-system", "shop")))
    api.put(*(node(f"node-{number}", f"192.168.{number // 250}.{number % 250 + 1}", f"10.{number + 1}.0.0/16") for number in range(nodes)))
    made = []
    by_service: dict[int, dict[str, str]] = {}
    for number in range(pods):
        home, of = number % nodes, number % services
        address = f"10.{home + 1}.{number // nodes // 250}.{number // nodes % 250 + 2}"
        by_service.setdefault(of, {})[address] = f"node-{home}"
        body = pod(f"web-{of}-7d4b9c6f5-{number:05x}", address, node=f"node-{home}", owner=("ReplicaSet", f"web-{of}-7d4b9c6f5"))
        body["metadata"]["labels"] = {"pod-template-hash": "7d4b9c6f5", "app.kubernetes.io/name": f"web-{of}"}
        body["metadata"]["managedFields"] = [{"manager": "kubelet", "fieldsV1": {f"f:key-{entry}": {"f:value": {}} for entry in range(60)}}]
        body["spec"]["volumes"] = [{"name": f"volume-{entry}", "configMap": {"name": f"settings-{entry}"}} for entry in range(6)]
        body["spec"]["containers"][0]["env"] = [{"name": f"SETTING_{entry}", "value": "x" * 40} for entry in range(20)]
        made.append(body)
    api.put(*made)
    api.put(*(controller("ReplicaSet", f"web-{of}-7d4b9c6f5", ("Deployment", f"web-{of}")) for of in range(services)))
    api.put(*(service(f"web-{of}", f"10.200.{of // 250}.{of % 250 + 1}") for of in range(services)))
    api.put(*(endpoint_slice(f"web-{of}", endpoints) for of, endpoints in by_service.items()))
    return sorted(made, key=lambda body: str(body["spec"]["nodeName"]) != NODE)


def main() -> None:
    """A server in a process of its own with a made-up cluster: prints its kubeconfig, then a line for each that it is given.

    `touch N` changes N pods of `NODE`; `relist` makes all watches begin anew; `requests` tells what was asked for, by kind of request.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--services", type=int, default=500)
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--answering", help="address of one more pod of the node")
    options = parser.parse_args()
    with FakeApi() as api:
        made = populate(api, pods=options.pods, services=options.services, nodes=options.nodes)
        pods = [body for body in made if body["spec"]["nodeName"] == NODE]
        if options.answering:
            api.put(pod("answering", options.answering))
        api.encode()
        print(api.kubeconfig(), flush=True)
        done = 0
        for line in sys.stdin:
            word, *rest = line.split()
            if word == "touch":
                _touch(api, pods, range(done, done + int(rest[0])))
                done += int(rest[0])
            elif word == "relist":
                api.compact()
                api.end_streams()
            print(json.dumps(_asked(api)), flush=True)


def _touch(api: FakeApi, pods: list[Object], numbers: range) -> None:
    for number in numbers:
        body = pods[number % len(pods)]
        ready = {"type": "Ready", "status": str(number % 2 == 0)}
        labels = {**body["metadata"].get("labels", {}), "app.kubernetes.io/version": str(number)}
        api.put({**body, "metadata": {**body["metadata"], "labels": labels}, "status": {**body["status"], "conditions": [ready]}})


def _asked(api: FakeApi) -> dict[str, int]:
    """Requests by what they ask for: `list pods` (one a page), `watch pods`, `get replicasets`."""
    with api.state.changed:
        asked = [(one.path.split("/"), one.query) for one in api.state.requests]
    verbs = ("watch" if query.get("watch") else "list" if f"/{'/'.join(path[1:])}" in COLLECTIONS else "get" for path, query in asked)
    return dict(Counter(f"{verb} {path[-2 if verb == 'get' else -1]}" for verb, (path, _) in zip(verbs, asked, strict=True)))


if __name__ == "__main__":
    main()
