"""Services by IPVS, as kube-proxy sets them up: what the agent on the node sees of a call by ClusterIP. In a guest: see scripts/kernels.

pod a 10.77.0.2 -- poda --+                 +-- podb -- 10.78.0.2 pod b, the Service's only endpoint
                          | node, ipvs0 with |
pod c 10.79.0.2 -- podc --+   10.96.0.1:80   +-- up0 -- 10.80.0.2 outside, asks by the node's own address (NodePort)
"""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.agent.process import http_server
from tests.capture.namespaces import Namespace, join, namespace
from tests.kernels.least import LEAST
from tests.kernels.modules import need
from tests.live.watched import Told, watching

SERVICE, NODE_PORT = "10.96.0.1", "10.80.0.1:30080"
CALLS = 5


@dataclass(frozen=True, slots=True)
class Node:
    """The node and everybody around it."""

    node: Namespace
    a: Namespace
    b: Namespace
    c: Namespace
    outside: Namespace


@contextlib.contextmanager
def cluster() -> Iterator[Node]:
    """A node with pods behind veths, and a Service on an IPVS virtual server. Loads what it needs of the kernel."""
    need("ip_vs", "ip_vs_rr", "dummy", "nf_conntrack")
    with contextlib.ExitStack() as stack:
        made = Node(*(stack.enter_context(namespace()) for _ in range(5)))
        for pod, name, net in (
            (made.a, "poda", "10.77.0"),
            (made.b, "podb", "10.78.0"),
            (made.c, "podc", "10.79.0"),
            (made.outside, "up0", "10.80.0"),
        ):
            join(made.node, pod, names=(name, "eth0"), net=net)
            if pod is not made.outside:
                pod.ip("route", "add", "default", "via", f"{net}.1")
        for setting in ("net.ipv4.ip_forward=1", "net.ipv4.vs.conntrack=1"):
            subprocess.run(made.node.command("sysctl", "-qw", setting), check=True)
        made.node.ip("link", "add", "ipvs0", "type", "dummy")
        made.node.ip("addr", "add", f"{SERVICE}/32", "dev", "ipvs0")
        for service in (f"{SERVICE}:80", NODE_PORT):
            _ipvs(made.node, "--add-service", "--tcp-service", service, "--scheduler", "rr")
            _ipvs(made.node, "--add-server", "--tcp-service", service, "--real-server", "10.78.0.2:8080", "--masquerading")
        # What comes from outside is masqueraded, so that the endpoint answers by this node.
        rules = (
            "add table ip t\nadd chain ip t post { type nat hook postrouting priority 100 ; }\n"
            "add rule ip t post ip saddr 10.80.0.2 oifname podb masquerade\n"
        )
        subprocess.run(made.node.command("nft", "-f", "-"), input=rules, text=True, check=True)
        stack.enter_context(http_server(made.b.command()))
        yield made


def _ipvs(node: Namespace, *arguments: str) -> None:
    subprocess.run(node.command("ipvsadm", *arguments), check=True, capture_output=True)


CALLERS = {"pod": ("a", SERVICE), "other-pod": ("c", SERVICE), "node": ("node", SERVICE), "outside": ("outside", NODE_PORT)}
"""Who asks, and where."""


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    """What the agent on the node told of everybody's calls."""
    # guest_devices watches by the other transport.
    parked = {"OTEL_EBPF_RECEIVER_CAPTURE_TRANSPORT": "hash"}
    with cluster() as made, watching(made.node, env=parked, prefix=LEAST) as watched:
        for caller, (who, where) in CALLERS.items():
            calls = [f"http://{where}/{caller}/{number}" for number in range(CALLS)]
            # Close: each call is a connection of its own, as of many clients.
            quiet = ("-sS", "-o", "/dev/null", "--max-time", "120", "-H", "Connection: close")
            subprocess.run(getattr(made, who).command("curl", *quiet, *calls), check=True)
        yield watched.finish()


@pytest.mark.parametrize("caller", CALLERS)
def test_a_call_by_service_is_told_once(told: Told, caller: str) -> None:
    """By IPVS the caller's link shows the Service's address and the endpoint's link the endpoint's: one line and one span of each call."""
    expected = {f"/{caller}/{number}": 1 for number in range(CALLS)}

    assert Counter(str(line["path"]) for line in told.lines if str(line["path"]).startswith(f"/{caller}/")) == expected
    assert Counter(span.path for span in told.spans if span.path.startswith(f"/{caller}/")) == expected


def test_nothing_else_was_told(told: Told) -> None:
    """Counts are those of the calls; the copies on other links were there and were dropped."""
    # Of the node's own call only the endpoint's link shows frames.
    twice = CALLS * (len(CALLERS) - 1)

    assert told.records["admitted"] == told.counted() == len(told.spans) == CALLS * len(CALLERS)
    assert told.records["copies"] == twice
