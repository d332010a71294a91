"""A cluster that is followed from a fake API server, for tests of what a user sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from otel_ebpf_receiver.identity.directory import Directory
from otel_ebpf_receiver.identity.kubernetes.client import Access, Api
from otel_ebpf_receiver.identity.kubernetes.cluster import Cluster, Peers
from otel_ebpf_receiver.identity.kubernetes.rows import Options
from otel_ebpf_receiver.identity.kubernetes.watch import State, Timing
from tests.identity.flows import addresses
from tests.kubernetes import cluster
from tests.kubernetes.fakeapi import FakeApi

QUICK = Timing(back_off_low_s=0.05, back_off_high_s=0.2, forbidden_s=0.3, watch_low_s=300, watch_high_s=600, silence_s=30, outage_s=60)


def until(holds: Callable[[], bool], what: str = "the condition") -> None:
    """Wait for something that must come true; how long it takes is not the test's matter."""
    end_s = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end_s, f"{what} did not come true"
        time.sleep(0.01)


def small(api: FakeApi) -> None:
    """Two nodes, one pod on each, one Service."""
    api.put(
        cluster.namespace("kube-system"), cluster.namespace("shop"), cluster.node(), cluster.node("node-1", "192.168.0.2", "10.2.0.0/24")
    )
    api.put(cluster.pod("web-77-1", "10.1.0.2", owner=("ReplicaSet", "web-77"), labels={"pod-template-hash": "77"}))
    api.put(cluster.pod("far", "10.2.0.2", node="node-1"), cluster.controller("ReplicaSet", "web-77", ("Deployment", "web")))
    api.put(cluster.service("web", "10.96.0.1"), cluster.endpoint_slice("web", {"10.1.0.2": "node-0", "10.2.0.2": "node-1"}))


class Following:
    """The agent's side."""

    def __init__(self, cluster_: Cluster, directory: Directory) -> None:
        self.cluster = cluster_
        self.directory = directory

    def state(self, kind: str) -> State:
        return self.cluster.status().watches[kind]

    def who(self, address: str) -> str:
        """service.name of who has an address now."""
        snapshot = self.directory.snapshot
        number = int(snapshot.find(addresses(address), np.array([time.time_ns()], np.uint64)).workload[0])
        return str(snapshot.workloads[number].attributes["service.name"]) if number >= 0 else "-"

    def until_who(self, address: str, name: str) -> None:
        until(lambda: self.who(address) == name, f"{address} is {name}")

    def until_synced(self) -> None:
        """Until everything is known and every watch has begun."""
        until(lambda: self.cluster.is_ready and not self.cluster.status().missing, "everything is known")
        until(lambda: all(state.watches_total for state in self.cluster.status().watches.values()), "everything is watched")


@contextmanager
def following(
    folder: Path, kubeconfig: str, *, peers: Peers = "pods", timing: Timing = QUICK, options: Options | None = None
) -> Iterator[Following]:
    """Follow the cluster of a kubeconfig."""
    file = folder / "kubeconfig"
    file.write_text(kubeconfig)
    with following_access(Access(str(file)), peers=peers, timing=timing, options=options) as made:
        yield made


@contextmanager
def following_access(
    access: Access, *, node: str = cluster.NODE, peers: Peers = "pods", timing: Timing = QUICK, options: Options | None = None
) -> Iterator[Following]:
    """Follow the cluster that is reached so, from a node."""
    directory = Directory(is_cluster=True)
    made = Cluster(Api(access), directory, options or Options(node), peers=peers, timing=timing)
    made.start()
    try:
        yield Following(made, directory)
    finally:
        made.stop()
