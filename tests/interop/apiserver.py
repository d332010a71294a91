"""A real kube-apiserver with etcd in a namespace, and a small client for what tests put there: JSON over HTTPS, no library.

Nothing runs the pods: a test makes them, and gives them the addresses of its own network namespaces.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.agent.process import ROOT
from tests.capture.namespaces import Namespace
from tests.interop.node import wait_for
from tests.interop.server import Server, binary

ETCD, PEER, PORT = "http://127.0.0.1:2379", "http://127.0.0.1:2380", 6443
URL = f"https://127.0.0.1:{PORT}"
ADMIN = "admin-token"
SERVICES = "10.96.0.0/16"
LISTS_ARE_LISTS = "--feature-gates=WatchList=false"
"""etcd 3.4 has not what lists by watch need. A server that offers them all the same ends the watches of kwok, which then sees changes late."""
MANIFESTS = ROOT / "config/kubernetes/otel-ebpf-receiver.yaml"
Object = dict[str, Any]


class ApiServer:
    """etcd and the API server of one cluster; files of both are in `folder`. `has_controllers`: a controller manager makes every namespace's accounts."""

    def __init__(self, here: Namespace, folder: Path, *, has_controllers: bool = False) -> None:
        self.here, self.folder = here, folder
        self.certificate = folder / "certificates/apiserver.crt"
        self.key = folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(self.key), "2048"], check=True, capture_output=True)
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
        self.etcd = Server(here, etcd, lambda: self._plain(f"{ETCD}/health"), folder / "etcd.log")
        self._command = [
            binary("kube-apiserver"),
            f"--etcd-servers={ETCD}",
            f"--secure-port={PORT}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--cert-dir={folder}/certificates",
            f"--token-auth-file={folder}/tokens.csv",
            "--authorization-mode=RBAC",
            f"--service-cluster-ip-range={SERVICES}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.key}",
            f"--service-account-signing-key-file={self.key}",
            "--endpoint-reconciler-type=none",
            # Without a controller manager no namespace has a default account, and every pod would be refused.
            *([LISTS_ARE_LISTS] if has_controllers else ["--disable-admission-plugins=ServiceAccount"]),
        ]
        self.server = self._server()

    def _server(self, *more: str) -> Server:
        return Server(self.here, [*self._command, *more], lambda: self.get("/readyz?verbose"), self.folder / "kube-apiserver.log")

    def start(self) -> None:
        """Both, until ready."""
        self.etcd.start()
        self.server.start()

    def restart(self, *more: str) -> None:
        """Kills the API server as a crash would and starts it again, with further arguments."""
        self.server.kill()
        self.server = self._server(*more)
        self.server.start()

    def stop(self) -> None:
        """Both."""
        self.server.kill()
        self.etcd.stop()

    def compact(self, revision: int) -> None:
        """etcd forgets what was before."""
        self._plain(f"{ETCD}/v3/kv/compaction", json.dumps({"revision": str(revision), "physical": True}).encode())

    def request(self, method: str, path: str, body: Object | None = None, content: str = "application/json", token: str = ADMIN) -> bytes:
        """One request. Raises OSError, also for an answer that is no success."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": content}
        request = urllib.request.Request(URL + path, json.dumps(body).encode() if body else None, headers, method=method)
        context = ssl.create_default_context(cafile=str(self.certificate))
        try:
            with self.here.inside(), urllib.request.urlopen(request, timeout=20, context=context) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            # The server's own words are worth more than the number.
            error.msg = f"{error.msg}: {method} {path}: {error.read().decode(errors='replace')[:500]}"
            raise

    def get(self, path: str) -> bytes:
        """The answer's bytes."""
        return self.request("GET", path)

    def object(self, path: str) -> Object:
        """The object at a path."""
        return dict(json.loads(self.get(path)))

    def items(self, path: str) -> list[Object]:
        """The objects of a collection."""
        return list(self.object(path)["items"])

    def create(self, body: Object, namespace: str = "", *, query: str = "") -> Object:
        """Makes an object of a manifest; the one that is there when it is there. Returns it as the server keeps it."""
        path = collection(body, namespace)
        try:
            return dict(json.loads(self.request("POST", path + query, body)))
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
            return self.object(f"{path}/{body['metadata']['name']}")

    def patch(self, path: str, body: Object) -> Object:
        """Merges something into an object or its `/status`."""
        return dict(json.loads(self.request("PATCH", path, body, "application/strategic-merge-patch+json")))

    def delete(self, path: str, *, grace_s: int = 0) -> None:
        """Removes an object."""
        self.request("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": grace_s})

    def token(self, namespace: str, account: str) -> str:
        """A new token of a service account."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        return str(json.loads(self.request("POST", path, body))["status"]["token"])

    def install_account(self, kinds: Sequence[str] = ("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding")) -> str:
        """The agent's own account with the permissions of the shipped manifests and no other; its token."""
        for body in manifests():
            if body["kind"] in kinds:
                self.create(body, body["metadata"].get("namespace", ""))
        account = next(body for body in manifests() if body["kind"] == "ServiceAccount")
        return self.token(account["metadata"]["namespace"], account["metadata"]["name"])

    def kubeconfig(self, token: str = ADMIN, name: str = "kubeconfig") -> Path:
        """A kubeconfig file with this token, the administrator's by default."""
        file = self.folder / name
        cluster = {"server": URL, "certificate-authority": str(self.certificate)}
        whole = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        file.write_text(yaml.safe_dump(whole))
        return file

    def _plain(self, url: str, body: bytes | None = None) -> bytes:
        with self.here.inside(), urllib.request.urlopen(url, body, timeout=10) as answer:
            return bytes(answer.read())


def manifests() -> list[Object]:
    """The objects that a user installs by `kubectl apply -k config/kubernetes`."""
    return [body for body in yaml.safe_load_all(MANIFESTS.read_text()) if body]


def collection(body: Mapping[str, Any], namespace: str) -> str:
    """The path of the collection that an object of this kind belongs to."""
    version = body["apiVersion"]
    kind = str(body["kind"]).lower()
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    inside = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{inside}/{kind}s"


@contextlib.contextmanager
def apiserver(here: Namespace, folder: Path, *, has_controllers: bool = False) -> Iterator[ApiServer]:
    """A fresh cluster without a node, ready."""
    made = ApiServer(here, folder, has_controllers=has_controllers)
    try:
        made.start()
        # The controllers inside the API server make these a moment after it is ready.
        wait_for(lambda: made.object("/api/v1/namespaces/kube-system"), "kube-system exists")
        yield made
    finally:
        made.stop()
