"""A whole cluster: API server, controller manager, scheduler, and kwok where kubelets would be.

What a user applies becomes pods that run and have addresses, by the real controllers alone. The network is the test's: `Network` makes a namespace for
each address that a pod was given, and does what kube-proxy would do with the EndpointSlices.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.capture.namespaces import Namespace
from tests.interop import workloads
from tests.interop.apiserver import ApiServer, Object, apiserver
from tests.interop.node import answering, forward_service, routed_pod, wait_for
from tests.interop.server import Server, binary, running

ADDRESSES = "10.250.0.0/24"
"""Of the node's pods; kwok gives them out, and gives them out again when a pod is gone."""
CONTROLLERS, SCHEDULER = 10257, 10259
DEMO = "demo"


class WholeCluster:
    """What a user does, and what came of it."""

    def __init__(self, api: ApiServer) -> None:
        self.api = api
        self._kubectl = binary("kubectl")

    def kubectl(self, *arguments: str, given: object = None) -> str:
        """What it prints. `given`: its standard input, as JSON. Raises AssertionError with its own words."""
        command = [self._kubectl, "--kubeconfig", str(self.api.kubeconfig()), "--namespace", DEMO, *arguments]
        text = None if given is None else json.dumps(given)
        environment = {**os.environ, "HOME": str(self.api.folder)}
        done = subprocess.run(
            self.api.here.command(*command), input=text, capture_output=True, text=True, timeout=120, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, *objects: Object) -> None:
        """All of them, as one file."""
        self.kubectl("apply", "--filename", "-", given={"apiVersion": "v1", "kind": "List", "items": list(objects)})

    def object(self, kind: str, name: str) -> Object:
        """One of the demo's objects."""
        return dict(json.loads(self.kubectl("get", kind, name, "--output", "json")))

    def pods(self, app: str) -> list[Object]:
        """The pods of an app that are there, on their way out or not."""
        return self.api.items(f"/api/v1/namespaces/{DEMO}/pods?labelSelector=app%3D{app}")

    def wait_pods(self, app: str, count: int) -> list[Object]:
        """Until exactly so many are there and all run, each with an address of its own."""

        def find() -> list[Object] | None:
            found = self.pods(app)
            at = {address(pod) for pod in found if pod["status"].get("phase") == "Running" and pod["status"].get("podIP")}
            return found if len(found) == len(at) == count else None

        return wait_for(find, f"{count} pods of {app} run")

    def wait_endpoints(self, service: str, pods: list[Object]) -> list[str]:
        """Until the Service's EndpointSlices hold exactly these pods; their addresses."""
        wanted = sorted(address(pod) for pod in pods)
        path = f"/apis/discovery.k8s.io/v1/namespaces/{DEMO}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{service}"

        def find() -> list[str] | None:
            endpoints = [one for made in self.api.items(path) for one in made["endpoints"] or [] if one["conditions"].get("ready")]
            return wanted if sorted(each for one in endpoints for each in one["addresses"]) == wanted else None

        return wait_for(find, f"the EndpointSlices of {service} hold {wanted}")


class Network:
    """Namespaces on `host` by address; one stays when another pod takes its address, as the wire would."""

    def __init__(self, host: Namespace, stack: contextlib.ExitStack) -> None:
        self._host, self._stack = host, stack
        self._made: dict[str, Namespace] = {}

    def plug(self, pod: Object) -> Namespace:
        """The namespace with the pod's address, where something answers."""
        at = address(pod)
        if at not in self._made:
            self._made[at] = made = self._stack.enter_context(routed_pod(self._host, f"pod{len(self._made)}", at))
            self._stack.enter_context(answering(made))
        return self._made[at]

    def forward(self, service: Object, endpoints: list[str]) -> None:
        """The Service's address leads to its endpoints by turns, and to nothing else."""
        forward_service(self._host, service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"], *endpoints)


def address(pod: Object) -> str:
    """The pod's own."""
    return str(pod["status"]["podIP"])


def _is_well(here: Namespace, port: int) -> Callable[[], bool]:
    # Each makes a certificate for itself, and answers everybody here.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def ask() -> bool:
        with here.inside(), urllib.request.urlopen(f"https://127.0.0.1:{port}/healthz", timeout=10, context=context) as answer:
            return bool(answer.read() == b"ok")

    return ask


def _controllers(api: ApiServer) -> Iterator[Server]:
    """The servers beside the API server, in the order in which they start."""
    here, folder, kubeconfig = api.here, api.folder, str(api.kubeconfig())

    def controller(name: str, port: int, *more: str) -> Server:
        bound = ["--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={folder}/{name}"]
        command = [binary(name), "--kubeconfig", kubeconfig, "--leader-elect=false", *bound, *more]
        return Server(here, command, _is_well(here, port), folder / f"{name}.log")

    accounts = [f"--service-account-private-key-file={api.key}", f"--root-ca-file={api.certificate}"]
    yield controller("kube-controller-manager", CONTROLLERS, *accounts)
    yield controller("kube-scheduler", SCHEDULER)
    kwok = binary("kwok")
    nodes = ["--manage-all-nodes=true", f"--cidr={ADDRESSES}", f"--node-ip={workloads.NODE_ADDRESS}"]
    command = [kwok, "--kubeconfig", kubeconfig, "--config", f"{kwok}.stages.yaml", *nodes]
    yield Server(here, command, lambda: _is_node_ready(api), folder / "kwok.log")


def _is_node_ready(api: ApiServer) -> bool:
    conditions = api.object(f"/api/v1/nodes/{workloads.NODE}")["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


@contextlib.contextmanager
def whole_cluster(here: Namespace, folder: Path) -> Iterator[WholeCluster]:
    """One with a node that is ready and the namespace `demo`."""
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(apiserver(here, folder, has_controllers=True))
        workloads.node(api, network=ADDRESSES)
        for server in _controllers(api):
            stack.enter_context(running(server))
        workloads.namespace(api, DEMO)
        yield WholeCluster(api)
