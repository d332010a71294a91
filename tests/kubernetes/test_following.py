"""A cluster is followed: what is asked of the API server, and what comes of its answers. Faults are next door."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from otel_ebpf_receiver.identity.kubernetes import cluster as following_cluster
from otel_ebpf_receiver.identity.kubernetes.cluster import PEERS_MAX
from otel_ebpf_receiver.identity.kubernetes.watch import Phase
from otel_ebpf_receiver.identity.snapshot import Trait
from tests.kubernetes import cluster
from tests.kubernetes.fakeapi import COLLECTIONS, FakeApi, Fault, Handler
from tests.kubernetes.following import QUICK, Following, following, small, until

PODS = "/api/v1/pods"


def test_everything_is_named_from_the_first_snapshot_on(tmp_path: Path) -> None:
    """Pods by their owners, remote pods, Services, nodes; the cluster by its uid."""
    with FakeApi() as api:
        small(api)
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            agent.until_who("10.1.0.2", "web")
            named = [agent.who(one) for one in ("10.2.0.2", "10.96.0.1", "192.168.0.2", "127.0.0.1", "203.0.113.1")]
            attributes = next(one.attributes for one in agent.directory.snapshot.workloads if "k8s.pod.uid" in one.attributes)
            uid = agent.cluster.cluster_uid

    assert named == ["far", "web", "node-1", "node-0", "-"]
    assert attributes["k8s.deployment.uid"] == "uid-web"
    assert attributes["k8s.cluster.uid"] == uid == "uid-ns-kube-system"


def test_changes_arrive(tmp_path: Path) -> None:
    """Added, changed and deleted objects of every kind that names something."""
    with FakeApi() as api:
        small(api)
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            api.put(cluster.pod("new", "10.1.0.9"), cluster.service("shiny", "10.96.0.9"))
            agent.until_who("10.1.0.9", "new")
            agent.until_who("10.96.0.9", "shiny")
            api.put(cluster.pod("new", "10.1.0.9", annotations={"resource.opentelemetry.io/service.name": "renamed"}))
            agent.until_who("10.1.0.9", "renamed")
            api.delete("Service", "uid-svc-shiny")
            agent.until_who("10.96.0.9", "-")


def _attributes(agent: Following, pod: str) -> Mapping[str, object]:
    """Those of a pod's Resource; none: nobody knows it yet."""
    return next((one.attributes for one in agent.directory.snapshot.workloads if one.attributes.get("k8s.pod.name") == pod), {})


def test_a_pod_is_not_named_before_its_owners_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked for when it is seen, at start and later, and its first snapshot waits for the answer."""
    monkeypatch.setattr(following_cluster, "_FIRST_WAIT_S", 60.0)
    monkeypatch.setattr(following_cluster, "_OWNERS_WAIT_S", 60.0)
    answered = threading.Event()
    path = "/apis/apps/v1/namespaces/shop/replicasets/"
    with FakeApi() as api:
        small(api)
        api.put(cluster.controller("ReplicaSet", "new-88", ("Deployment", "new")))
        api.fault(Fault(path, until=answered))
        with following(tmp_path, api.kubeconfig(), peers="auto") as agent:
            known = []
            for pod, owner in (("web-77-1", "web-77"), ("new-88-1", "new-88")):
                answered.clear()
                api.put(cluster.pod(pod, "10.1.0.2", owner=("ReplicaSet", owner)))
                until(lambda owner=owner: bool(api.asked(path + owner)), "its owner is asked for")  # type: ignore[misc]
                time.sleep(0.3)
                known.append(_attributes(agent, pod))
                answered.set()
                until(lambda pod=pod: bool(_attributes(agent, pod)), "the pod is known")  # type: ignore[misc]
                known.append(_attributes(agent, pod))
            agent.until_synced()
            asked = [len(api.asked(path + owner)) for owner in ("web-77", "new-88")]

    assert [one.get("k8s.deployment.uid") for one in known] == [None, "uid-web", None, "uid-new"]
    assert not known[0]
    assert not known[2]
    assert asked == [1, 1]


def test_jobs_of_remote_pods_that_have_ended_are_not_asked_for(tmp_path: Path) -> None:
    """Nor is a ReplicaSet of another node; a Job is, while its pod runs, and this node's also afterwards."""
    with FakeApi() as api:
        small(api)
        api.put(
            cluster.pod("old-1-x", "10.2.0.8", node="node-1", owner=("Job", "old-1"), phase="Succeeded"),
            cluster.pod("api-88-x", "10.2.0.9", node="node-1", owner=("ReplicaSet", "api-88")),
            cluster.pod("nightly-1-x", "10.2.0.3", node="node-1", owner=("Job", "nightly-1")),
            cluster.pod("ended-1-x", "10.1.0.8", owner=("Job", "ended-1"), phase="Failed"),
            cluster.controller("Job", "nightly-1", ("CronJob", "nightly")),
        )
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            agent.until_who("10.2.0.3", "nightly")
            asked = {one.path.rpartition("/")[2] for one in api.state.requests if "/namespaces/" in one.path}

    assert asked == {"web-77", "nightly-1", "ended-1"}


def test_lists_come_in_pages_and_watches_go_on_from_them(tmp_path: Path) -> None:
    """No page is larger than asked for; the watch starts at the list's version, asks for bookmarks and for an end of its own."""
    with FakeApi() as api:
        small(api)
        api.put(*(cluster.pod(f"p{number}", f"10.1.{number // 250 + 1}.{number % 250 + 1}") for number in range(120)))
        with following(tmp_path, api.kubeconfig(), peers="services", timing=replace(QUICK, watch_low_s=300, watch_high_s=600)) as agent:
            agent.until_synced()
            agent.until_who("10.1.1.120", "p119")
            until(lambda: bool(api.asked(PODS, watch="1")), "a watch")
            lists = [one for one in api.asked(PODS, fieldSelector="spec.nodeName=node-0") if "watch" not in one.query]
            watch = api.asked(PODS, watch="1")[0]

    assert len(lists) == 3
    assert all(one.query["limit"] == "50" for one in lists)
    assert ["continue" in one.query for one in lists] == [False, True, True]
    assert watch.query["allowWatchBookmarks"] == "true"
    assert 300 <= int(watch.query["timeoutSeconds"]) <= 600
    assert int(watch.query["resourceVersion"]) == api.state.version


def test_no_more_is_asked_than_the_permissions_allow(tmp_path: Path) -> None:
    """The collections, of namespaces only the metadata, and the metadata of owners: nothing else, ever."""
    with FakeApi() as api:
        small(api)
        api.put(
            cluster.pod("nightly-1-x", "10.1.0.3", owner=("Job", "nightly-1")),
            cluster.controller("Job", "nightly-1", ("CronJob", "nightly")),
        )
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            agent.until_who("10.1.0.3", "nightly")
            agent.until_who("10.1.0.2", "web")
        asked = list(api.state.requests)

    paths = {one.path for one in asked}
    assert paths == {*COLLECTIONS, "/apis/apps/v1/namespaces/shop/replicasets/web-77", "/apis/batch/v1/namespaces/shop/jobs/nightly-1"}
    metadata = [one for one in asked if one.path == "/api/v1/namespaces" or one.path.startswith(("/apis/apps", "/apis/batch"))]
    assert all("as=PartialObjectMetadata" in one.headers["Accept"] for one in metadata)
    assert all(one.headers["User-Agent"] == "otel-ebpf-receiver" for one in asked)


@pytest.mark.parametrize(("pods", "peers"), [(10, "pods"), (PEERS_MAX + 1, "services")])
def test_auto_watches_remote_pods_up_to_two_thousand(tmp_path: Path, pods: int, peers: str) -> None:
    """It asks for one pod and is told how many there are."""
    with FakeApi() as api:
        small(api)
        many = (cluster.pod(f"p{number}", f"10.2.{number // 250 + 1}.{number % 250 + 1}", node="node-1") for number in range(pods - 2))
        api.put(*many)
        with following(tmp_path, api.kubeconfig(), peers="auto") as agent:
            until(lambda: agent.cluster.status().peers == peers)
            agent.until_synced()
            asked = api.asked(PODS, limit="1")
            remote = [one for one in api.asked(PODS) if one.query.get("fieldSelector") == "spec.nodeName!=node-0"]

    assert len(asked) == 1
    assert bool(remote) is (peers == "pods")


def test_a_watch_that_ends_as_asked_is_resumed_without_a_new_list(tmp_path: Path) -> None:
    """At once, from the last version that an event or a bookmark told; nothing is lost in between."""
    with FakeApi() as api:
        small(api)
        api.state.bookmark_s = 0.2
        with following(tmp_path, api.kubeconfig(), timing=replace(QUICK, watch_low_s=1.2, watch_high_s=1.3)) as agent:
            agent.until_synced()
            for number in range(3, 6):
                seen = agent.state("pods").watches_total
                api.put(cluster.pod(f"p{number}", f"10.1.0.{number}"))
                agent.until_who(f"10.1.0.{number}", f"p{number}")
                until(lambda seen=seen: agent.state("pods").watches_total > seen, "another watch")  # type: ignore[misc]
            state = agent.state("pods")
            versions = [int(one.query["resourceVersion"]) for one in api.asked(PODS, watch="1", fieldSelector="spec.nodeName=node-0")]

    assert (state.lists_total, state.failures_total, state.phase) == (1, 0, Phase.WATCHING)
    assert versions == sorted(versions)
    assert versions[-1] > versions[0]


def _bookmarks(api: FakeApi) -> list[int]:
    """The versions that the watch of Services was told."""
    return [version for kind, version in api.state.bookmarks if kind == "Service"]


def test_bookmarks_carry_the_version_of_a_quiet_watch(tmp_path: Path) -> None:
    """After others' changes and a compaction, a watch that only saw bookmarks resumes and needs no list."""
    with FakeApi() as api:
        small(api)
        api.state.bookmark_s = 0.1
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            api.put(*(cluster.pod(f"p{number}", f"10.1.0.{number}") for number in range(3, 30)))
            api.compact()
            version = api.state.version
            until(lambda: any(sent >= version for sent in _bookmarks(api)), "a bookmark of the last version")
            until(lambda: agent.state("services").events_total >= len(_bookmarks(api)), "bookmarks")
            api.end_streams()
            until(lambda: int(api.asked("/api/v1/services", watch="1")[-1].query["resourceVersion"]) >= version, "resumed from a bookmark")
            state = agent.state("services")

    assert (state.lists_total, state.failures_total) == (1, 0)


def test_slow_streams_are_read_as_they_come(tmp_path: Path) -> None:
    """An event in pieces, with pauses inside, is one event; what came before it is not held back."""

    def slowly(handler: Handler) -> None:
        handler.begin_chunks()
        raw = cluster.pod("slow", "10.1.0.77")
        raw["metadata"]["resourceVersion"] = "200"
        line = b'{"type":"ADDED","object":%s}\n' % json.dumps(raw).encode()
        for at in range(0, len(line), 100):
            handler.chunk(line[at : at + 100])
            time.sleep(0.01)
        handler.chunk(b"")

    with FakeApi() as api:
        small(api)
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            api.fault(
                Fault(PODS, act=slowly, times=1, only=lambda query: "watch" in query and query["fieldSelector"] == "spec.nodeName=node-0")
            )
            api.end_streams()
            agent.until_who("10.1.0.77", "slow")
            assert agent.state("pods").bad_objects_total == 0


def test_stopping_is_prompt_and_leaves_no_thread(tmp_path: Path) -> None:
    """With watches open and silent, all threads end; stopping twice is nothing."""
    before = threading.active_count()
    with FakeApi() as api:
        small(api)
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            agent.cluster.stop()
            alive = [thread.name for thread in threading.enumerate() if thread.name.startswith("k8s-")]
            agent.cluster.stop()

    assert alive == []
    until(lambda: threading.active_count() <= before, "the server's threads end")


def test_who_is_waited_for_is_known_before_events_were_gathered(tmp_path: Path) -> None:
    """What comes behind another event waits to be read with more, but not while an exchange waits for a name."""
    with FakeApi() as api:
        small(api)
        with following(tmp_path, api.kubeconfig(), timing=replace(QUICK, gather_s=3600.0)) as agent:
            agent.until_synced()
            api.put(cluster.pod("first", "10.1.0.8"))
            agent.until_who("10.1.0.8", "first")
            for name, address in (("second", "10.1.0.9"), ("third", "10.1.0.10")):
                api.put(cluster.pod(name, address))
                agent.directory.on_waiting()
                agent.until_who(address, name)


def test_what_a_pod_exports_marks_it(tmp_path: Path) -> None:
    """Told by the pipeline, in the next snapshot."""
    with FakeApi() as api:
        small(api)
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            before = agent.directory.snapshot
            agent.directory.on_exporting("uid-web-77-1", Trait.TRACED)
            until(lambda: agent.directory.snapshot is not before, "a new snapshot")
            traits = [int(one) for one in agent.directory.snapshot.traits]

    assert any(one & 8 for one in traits)
