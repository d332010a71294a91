"""A real API server with etcd on the node of a test, to install the chart into; and the few objects that stand for the node and its pods."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.interop.node import Node, wait_for
from tests.interop.server import Server, binary

Object = dict[str, Any]
ETCD, PEER, PORT = "http://127.0.0.1:2379", "http://127.0.0.1:2380", 6443
URL = f"https://127.0.0.1:{PORT}"
ADMIN = "admin-token"
NODE_NAME, NODE_ADDRESS = "node-a", "10.79.0.254"


class Installation:
    """A cluster without a kubelet. Any failure of a request is an OSError with the server's own words."""

    def __init__(self, here: Node, folder: Path) -> None:
        self.here, self.folder = here, folder
        self.certificate = folder / "certificates/apiserver.crt"
        key = folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        (folder / "tokens.csv").write_text(f'{ADMIN},admin,uid,"system:masters"\n')
        at = [
            "--listen-client-urls",
            ETCD,
            "--advertise-client-urls",
            ETCD,
            "--listen-peer-urls",
            PEER,
            "--initial-advertise-peer-urls",
            PEER,
        ]
        etcd = [binary("etcd"), "--data-dir", f"{folder}/etcd", *at, "--initial-cluster", f"default={PEER}", "--unsafe-no-fsync"]
        command = [
            binary("kube-apiserver"),
            f"--etcd-servers={ETCD}",
            f"--secure-port={PORT}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--cert-dir={folder}/certificates",
            f"--token-auth-file={folder}/tokens.csv",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--endpoint-reconciler-type=none",
            # Without a controller manager no namespace has a default account, and every pod would be refused.
            "--disable-admission-plugins=ServiceAccount",
        ]
        self.etcd = Server(here.host, etcd, lambda: here.ask(f"{ETCD}/health"), folder / "etcd.log")
        self.server = Server(here.host, command, lambda: self.request("GET", "/readyz"), folder / "kube-apiserver.log")

    def request(self, method: str, path: str, body: Object | None = None, content: str = "application/json") -> bytes:
        """One request as administrator."""
        headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": content}
        request = urllib.request.Request(URL + path, json.dumps(body).encode() if body else None, headers, method=method)
        context = ssl.create_default_context(cafile=str(self.certificate))
        try:
            with self.here.host.inside(), urllib.request.urlopen(request, timeout=20, context=context) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            error.msg = f"{error.msg}: {method} {path}: {error.read().decode(errors='replace')[:500]}"
            raise

    def object(self, path: str) -> Object:
        """The object at a path."""
        return dict(json.loads(self.request("GET", path)))

    def create(self, body: Object, namespace: str = "", *, query: str = "") -> Object:
        """Makes an object of a manifest, or finds the one that is there."""
        path = collection(body, namespace)
        try:
            return dict(json.loads(self.request("POST", path + query, body)))
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
            return self.object(f"{path}/{body['metadata']['name']}")

    def namespace(self, name: str, **labels: str) -> None:
        """A namespace."""
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})

    def status(self, path: str, status: Object) -> Object:
        """What a kubelet would report of an object."""
        return dict(json.loads(self.request("PATCH", f"{path}/status", {"status": status}, "application/strategic-merge-patch+json")))

    def token(self, namespace: str, account: str) -> str:
        """A new token of a service account."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        made = json.loads(self.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", body))
        return str(made["status"]["token"])

    def kubeconfig(self) -> Path:
        """The administrator's."""
        file = self.folder / "kubeconfig"
        whole = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": URL, "certificate-authority": str(self.certificate)}}],
            "users": [{"name": "admin", "user": {"token": ADMIN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        file.write_text(yaml.safe_dump(whole))
        return file


def collection(body: Object, namespace: str) -> str:
    """The path of the collection that an object belongs to."""
    version = body["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return root + (f"/namespaces/{namespace}" if namespace else "") + f"/{body['kind'].lower()}s"


@contextlib.contextmanager
def installation(here: Node, folder: Path) -> Iterator[Installation]:
    """A fresh cluster, ready."""
    folder.mkdir()
    made = Installation(here, folder)
    try:
        made.etcd.start()
        made.server.start()
        wait_for(lambda: made.object("/api/v1/namespaces/kube-system"), "kube-system exists")
        yield made
    finally:
        made.server.kill()
        made.etcd.stop()


def workload(cluster: Installation, name: str, address: str) -> Object:
    """A Deployment `name` in `demo` with its ReplicaSet and one pod on the node; returns the pod."""
    template: Object = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "demo:1", "ports": [{"containerPort": 8080}]}]},
    }
    spec: Object = {"selector": {"matchLabels": {"app": name}}, "template": template}
    owners: list[Object] = []
    for kind, made_name in (("Deployment", name), ("ReplicaSet", f"{name}-1")):
        metadata: Object = {"name": made_name, "ownerReferences": owners}
        made = cluster.create({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}, "demo")
        owners = [{"apiVersion": "apps/v1", "kind": kind, "name": made_name, "uid": made["metadata"]["uid"], "controller": True}]
    metadata = {"name": f"{name}-1-x", "ownerReferences": owners, **template["metadata"]}
    cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**template["spec"], "nodeName": NODE_NAME}}, "demo")
    running = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": NODE_ADDRESS}
    return cluster.status(f"/api/v1/namespaces/demo/pods/{name}-1-x", running)
