"""Each fault of an API server, and the exact state that a user sees meanwhile and afterwards."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from otel_ebpf_receiver.errors import CaptureError
from otel_ebpf_receiver.identity.address import packed
from otel_ebpf_receiver.identity.directory import Directory
from otel_ebpf_receiver.identity.kubernetes import cluster as following_cluster
from otel_ebpf_receiver.identity.kubernetes.client import Access, Api
from otel_ebpf_receiver.identity.kubernetes.cluster import Cluster
from otel_ebpf_receiver.identity.kubernetes.rows import Options
from otel_ebpf_receiver.identity.kubernetes.store import Store
from otel_ebpf_receiver.identity.kubernetes.watch import Phase
from otel_ebpf_receiver.identity.snapshot import Snapshot
from tests.kubernetes import cluster
from tests.kubernetes.fakeapi import FakeApi, Fault, Handler
from tests.kubernetes.following import QUICK, Following, following, small, until

PODS, SLICES = "/api/v1/pods", "/apis/discovery.k8s.io/v1/endpointslices"
OWN = "spec.nodeName=node-0"


def is_own_watch(query: dict[str, str]) -> bool:
    """A watch of this node's pods."""
    return "watch" in query and query.get("fieldSelector") == OWN


def own_lists(api: FakeApi) -> int:
    """Pages of lists of this node's pods that were asked for."""
    return len([one for one in api.asked(PODS, fieldSelector=OWN) if "watch" not in one.query])


def test_unreachable_at_start(tmp_path: Path) -> None:
    """The agent goes on, knows its own loopback, says what is missing and why; when the server comes everything is named."""
    api = FakeApi()
    with api:
        small(api)
    with following(tmp_path, api.kubeconfig(), peers="auto") as agent:
        until(lambda: all(state.failures_total > 1 for state in agent.cluster.status().watches.values()), "every watch tried again")
        agent.until_who("127.0.0.1", "node-0")
        status = agent.cluster.status()

        assert {state.phase for state in status.watches.values()} == {Phase.RETRYING}
        assert (status.peers, status.is_synced, agent.cluster.is_ready, status.cluster_uid) == ("auto", False, False, "")
        assert len(status.missing) == 5
        assert all("retrying: " in line and "refused" in line for line in status.missing)
        hopes = [agent.directory.snapshot.is_current]

        with api:
            until(lambda: not agent.cluster.status().missing, "nothing is missing")
            named = [agent.who(one) for one in ("10.1.0.2", "10.2.0.2", "10.96.0.1", "192.168.0.2")]
            hopes.append(agent.directory.snapshot.is_current)
            assert {state.phase for state in agent.cluster.status().watches.values()} == {Phase.WATCHING}

    assert named == ["web", "far", "web", "node-1"]
    assert hopes == [False, True]


def test_a_server_that_takes_questions_and_says_nothing(tmp_path: Path) -> None:
    """The node itself is named all the same, long before anybody gives up waiting for an answer."""
    end = threading.Event()

    def say_nothing(handler: Handler) -> None:
        end.wait(60)

    with FakeApi() as api:
        api.fault(Fault("/", act=say_nothing))
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_who("127.0.0.1", "node-0")
            status = agent.cluster.status()
            end.set()

    assert {state.phase for state in status.watches.values()} == {Phase.STARTING}
    assert len(status.missing) == 6


def test_a_list_is_missing_until_it_is_in_a_snapshot(tmp_path: Path) -> None:
    """Whoever asks for a pod of it meanwhile may wait, also where nothing could be hoped for before."""
    (tmp_path / "kubeconfig").write_text(FakeApi().kubeconfig())
    directory = Directory(is_cluster=True)
    made = Cluster(Api(Access(str(tmp_path / "kubeconfig"))), directory, Options(cluster.NODE), peers="services")
    directory.snapshot = replace(directory.snapshot, is_current=False)

    made.replace("nodes", {})
    before = directory.snapshot.is_current
    made.replace("pods", {})

    assert (before, directory.snapshot.is_current) == (False, True)
    assert made.status().listed == {"nodes", "pods"}


def test_whether_remote_pods_are_watched_is_decided_as_soon_as_the_server_answers(tmp_path: Path) -> None:
    """The question is refused for longer than the lists: it stays missing, with the server's words, and comes with the next list."""
    with FakeApi() as api:
        small(api)
        api.fault(Fault(PODS, 503, "no count today", only=lambda query: query.get("limit") == "1"))
        with following(tmp_path, api.kubeconfig(), peers="auto") as agent:
            until(lambda: all(state.is_synced for state in agent.cluster.status().watches.values()), "all is listed")
            until(lambda: not agent.cluster.status().listed, "all is in a snapshot")
            status, named = agent.cluster.status(), agent.who("10.1.0.2")
            api.mend()
            api.send_error("Namespace", 410, "Expired")
            until(lambda: not agent.cluster.status().missing, "nothing is missing")
            remote = agent.who("10.2.0.2")

    assert (status.peers, status.is_synced, named) == ("auto", False, "web")
    assert len(status.missing) == 1
    assert status.missing[0].startswith("peers: ")
    assert "no count today" in status.missing[0]
    assert remote == "far"


def test_gone_and_back_with_all_versions_changed(tmp_path: Path) -> None:
    """While it is gone the last good snapshot serves, visibly stale; afterwards the new state holds, deletions included."""
    with FakeApi() as api:
        small(api)
        with following(tmp_path, api.kubeconfig(), timing=replace(QUICK, outage_s=0.5)) as agent:
            agent.until_synced()
            agent.until_who("10.1.0.2", "web")
            api.stop()
            until(lambda: {state.phase for state in agent.cluster.status().watches.values()} == {Phase.RETRYING}, "all see it")
            until(lambda: agent.cluster.status().age_s > 0.6, "the age grows")
            stale = [agent.who(one) for one in ("10.1.0.2", "10.2.0.2", "10.96.0.1")]
            assert len(agent.cluster.status().missing) == 6

            api.renumber(5000)
            api.delete("Service", "uid-svc-web")
            api.put(cluster.pod("young", "10.1.0.8"))
            api.start()
            agent.until_who("10.1.0.8", "young")
            agent.until_who("10.96.0.1", "-")
            agent.until_synced()

    assert stale == ["web", "far", "web"]


@pytest.mark.parametrize("version", [50, 100_000])
def test_a_server_restored_from_elsewhere_is_listed_anew(tmp_path: Path, version: int) -> None:
    """Versions that jumped back or forth during a short break: the watch is refused, the list tells."""
    with FakeApi() as api:
        small(api)
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            api.stop()
            api.renumber(version)
            api.state.objects["Pod"].pop("uid-web-77-1")
            api.put(cluster.pod("young", "10.1.0.8"))
            api.start()
            agent.until_who("10.1.0.8", "young")
            until(lambda: agent.state("pods").lists_total == 2)
            agent.until_synced()


def test_a_version_that_is_gone_is_listed_anew_at_once(tmp_path: Path) -> None:
    """410 as an ERROR event inside a 200."""
    with FakeApi() as api:
        small(api)
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            api.put(cluster.pod("p3", "10.1.0.3"))
            agent.until_who("10.1.0.3", "p3")
            api.send_error("Pod", 410, "Expired")
            until(lambda: agent.state("pods").lists_total == 2 and agent.state("pods").phase is Phase.WATCHING)
            api.put(cluster.pod("p4", "10.1.0.4"))
            agent.until_who("10.1.0.4", "p4")


def test_a_server_that_only_says_gone_is_not_hammered(tmp_path: Path) -> None:
    """Each watch opened and then refused with 410: the pauses grow; the lists stay few."""

    def gone(handler: Handler) -> None:
        handler.begin_chunks()
        handler.chunk(b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}\n')
        handler.chunk(b"")

    with FakeApi() as api:
        small(api)
        api.fault(Fault(PODS, act=gone, only=is_own_watch))
        with following(tmp_path, api.kubeconfig(), timing=replace(QUICK, back_off_low_s=0.2, back_off_high_s=60.0)) as agent:
            until(lambda: agent.state("pods").failures_total >= 5)
            times = [one.time_s for one in api.asked(PODS, fieldSelector=OWN) if "watch" not in one.query]
            assert agent.who("10.1.0.2") == "web"

    pauses = [later - earlier for earlier, later in pairwise(times)]
    # At once, then 0.4, 0.8 and 1.6 s less up to half of it; a busy machine only makes them longer, but for a late look at one request.
    assert all(pause > 0.75 * least for pause, least in zip(pauses[1:4], (0.2, 0.4, 0.8), strict=True)), pauses


def test_a_continue_token_that_is_gone_starts_the_list_again(tmp_path: Path) -> None:
    """410 in the middle of a list: from its beginning, and whole."""
    with FakeApi() as api:
        small(api)
        api.put(*(cluster.pod(f"p{number}", f"10.1.1.{number}") for number in range(120)))
        api.fault(Fault(PODS, 410, "token too old", times=1, only=lambda query: "continue" in query and query.get("fieldSelector") == OWN))
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            agent.until_who("10.1.1.119", "p119")
            assert agent.state("pods").lists_total == 2
    assert own_lists(api) == 2 + 3


@pytest.mark.parametrize("is_cut", [True, False])
def test_streams_that_break_are_resumed_where_they_were(tmp_path: Path, is_cut: bool) -> None:
    """In the middle of a line or between lines: no list, nothing lost, nothing counted as a bad object."""
    with FakeApi() as api:
        small(api)
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            for number in range(3, 6):
                api.put(cluster.pod(f"p{number}", f"10.1.0.{number}"))
                api.end_streams(cut=is_cut)
                agent.until_who(f"10.1.0.{number}", f"p{number}")
            agent.until_synced()
            state = agent.state("pods")

    assert (state.lists_total, state.bad_objects_total, state.phase) == (1, 0, Phase.WATCHING)
    assert bool(state.failures_total) or not is_cut


def test_a_rotated_token_is_read_again(tmp_path: Path) -> None:
    """401: the state says so; with the new token in the file everything goes on, without a new start."""
    token = tmp_path / "token"
    token.write_text("old\n")
    with FakeApi() as api:
        small(api)
        api.state.tokens = {"old"}
        with following(tmp_path, api.kubeconfig(token_file=str(token))) as agent:
            agent.until_synced()
            api.state.tokens = {"new"}
            api.end_streams()
            until(lambda: {state.phase for state in agent.cluster.status().watches.values()} == {Phase.UNAUTHORIZED})
            assert "pods: unauthorized: 401: Unauthorized; the token was read again" in agent.cluster.status().missing
            assert agent.who("10.1.0.2") == "web"

            token.write_text("new")
            agent.until_synced()
            api.put(cluster.pod("p3", "10.1.0.3"))
            agent.until_who("10.1.0.3", "p3")


def test_a_missing_permission_is_named_and_the_rest_works(tmp_path: Path) -> None:
    """403 on one collection: which permission is missing, seldom asked, everything else named; granted later, it is used."""
    with FakeApi() as api:
        small(api)
        api.fault(Fault(SLICES, 403, 'endpointslices is forbidden: User "agent" cannot list'))
        with following(tmp_path, api.kubeconfig(), peers="services") as agent:
            agent.until_who("10.1.0.2", "web")
            until(lambda: agent.state("endpointslices").phase is Phase.FORBIDDEN)
            assert agent.cluster.status().missing == (
                'endpointslices: forbidden: 403: endpointslices is forbidden: User "agent" cannot list; '
                "allow list and watch of endpointslices.discovery.k8s.io to the agent's service account",
            )
            assert (agent.who("10.2.0.2"), agent.who("10.96.0.1")) == ("-", "web")

            api.mend()
            agent.until_who("10.2.0.2", "web")
            assert not agent.cluster.status().missing


def test_without_the_right_to_owners_names_are_still_good(tmp_path: Path) -> None:
    """The Deployment's name comes from its ReplicaSet's and the hash; the missing permission is named."""
    with FakeApi() as api:
        small(api)
        api.fault(Fault("/apis/apps", 403, "forbidden"))
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_who("10.1.0.2", "web")
            until(lambda: bool(agent.cluster.status().missing))
            assert agent.cluster.status().missing == (
                "owners: 403: forbidden; allow get of replicasets.apps and jobs.batch to the agent's service account",
            )
            api.mend()
            until(lambda: not agent.cluster.status().missing, "allowed later, it is used")
            until(lambda: any(one.attributes.get("k8s.deployment.uid") == "uid-web" for one in agent.directory.snapshot.workloads))


def test_another_fault_of_owners_is_told_as_it_is(tmp_path: Path) -> None:
    """It is no matter of permissions, and none any more when the pod that it is about is gone."""
    with FakeApi() as api:
        small(api)
        api.fault(Fault("/apis/apps", 500, "no answer today"))
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_who("10.1.0.2", "web")
            until(lambda: agent.cluster.status().missing == ("owners: 500: no answer today",))
            api.delete("Pod", "uid-web-77-1")
            until(lambda: not agent.cluster.status().missing, "nothing is missing")


@pytest.mark.parametrize(("status", "retry_after"), [(403, ""), (429, "3600")])
def test_owners_that_are_refused_are_not_asked_for_one_after_the_other(tmp_path: Path, status: int, retry_after: str) -> None:
    """What holds for one holds for all, however much happens meanwhile and whoever comes."""
    with FakeApi() as api:
        small(api)
        api.put(*(cluster.pod(f"w{number}-77-1", f"10.1.0.{number}", owner=("ReplicaSet", f"w{number}-77")) for number in range(10, 40)))
        api.fault(Fault("/apis/apps", status, "refused", retry_after=retry_after))
        with following(tmp_path, api.kubeconfig(), timing=replace(QUICK, forbidden_s=3600.0, gather_s=0.1)) as agent:
            for number in range(40, 45):
                api.put(cluster.pod(f"w{number}-77-1", f"10.1.0.{number}", owner=("ReplicaSet", f"w{number}-77")))
                agent.until_who(f"10.1.0.{number}", f"w{number}-77")
            asked = [one.path for one in api.state.requests if one.path.startswith("/apis/apps")]

    assert len(asked) == 1


@pytest.mark.parametrize("path", [PODS, "/apis/apps"], ids=["how many pods", "owners"])
def test_pods_are_named_while_a_question_has_no_answer(tmp_path: Path, path: str) -> None:
    """At start and later; the answer is used when it comes."""
    answered = threading.Event()
    with FakeApi() as api:
        small(api)
        api.fault(Fault(path, until=answered, only=lambda query: path != PODS or query.get("limit") == "1"))
        try:
            with following(tmp_path, api.kubeconfig(), peers="auto") as agent:
                agent.until_who("10.1.0.2", "web")
                api.put(cluster.pod("new-88-1", "10.1.0.9", owner=("ReplicaSet", "new-88"), labels={"pod-template-hash": "88"}))
                agent.until_who("10.1.0.9", "new")
                status = agent.cluster.status()
                answered.set()
                agent.until_who("10.2.0.2", "far")
                until(lambda: any(one.attributes.get("k8s.deployment.uid") == "uid-web" for one in agent.directory.snapshot.workloads))
        finally:
            answered.set()

    assert (status.peers_error, status.owner_error) == ("", "")


def test_whoever_cannot_be_told_the_addresses_now_is_told_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else depends on it: pods are named meanwhile, and the fault is seen until then."""
    monkeypatch.setattr(following_cluster, "_FAULT_RETRY_S", 0.1)
    told: list[frozenset[bytes]] = []
    is_broken = True

    def tell(addresses: frozenset[bytes]) -> None:
        if is_broken:
            raise CaptureError("too many open files")
        told.append(addresses)

    with FakeApi() as api:
        small(api)
        (tmp_path / "kubeconfig").write_text(api.kubeconfig())
        directory = Directory(is_cluster=True)
        made = Cluster(Api(Access(str(tmp_path / "kubeconfig"))), directory, Options(cluster.NODE), peers="pods", timing=QUICK)
        made.on_addresses = tell
        made.start()
        try:
            agent = Following(made, directory)
            until(lambda: made.status().missing == ("addresses: CaptureError: too many open files",), "the fault is seen")
            api.put(cluster.pod("p3", "10.1.0.3"))
            agent.until_who("10.1.0.3", "p3")
            is_broken = False
            agent.until_synced()
        finally:
            made.stop()

    assert told == [frozenset({packed("192.168.0.1")})]


def test_a_snapshot_that_fails_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what was to be in it is lost, and the fault is seen until then."""
    monkeypatch.setattr(following_cluster, "_FAULT_RETRY_S", 0.1)
    build, is_broken = Store.build, True

    def fail(store: Store, now_ns: int, *, is_current: bool) -> Snapshot:
        if is_broken:
            raise MemoryError("no more")
        return build(store, now_ns, is_current=is_current)

    monkeypatch.setattr(Store, "build", fail)
    with FakeApi() as api:
        small(api)
        with following(tmp_path, api.kubeconfig()) as agent:
            until(lambda: "snapshot: MemoryError: no more" in agent.cluster.status().missing, "the fault is seen")
            is_broken = False
            agent.until_synced()
            named = [agent.who(one) for one in ("10.1.0.2", "10.2.0.2", "10.96.0.1", "192.168.0.2")]

    assert named == ["web", "far", "web", "node-1"]


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    """429 with Retry-After: not before that, however short the own pause would be."""
    with FakeApi() as api:
        small(api)
        api.fault(Fault(PODS, 429, "too many requests", retry_after="1", times=2, only=lambda query: query.get("fieldSelector") == OWN))
        with following(tmp_path, api.kubeconfig()) as agent:
            until(lambda: agent.state("pods").phase is Phase.RETRYING)
            assert "429: too many requests" in agent.state("pods").error
            agent.until_synced()
    times = [one.time_s for one in api.asked(PODS, fieldSelector=OWN)]
    assert times[1] - times[0] >= 1.0
    assert times[2] - times[1] >= 1.0


@pytest.mark.parametrize(
    "line",
    [
        b"this is not JSON\n",
        b'{"type":"ADDED"}\n',
        b'["ADDED"]\n',
        b'{"type":"ADDED","object":{"kind":"Pod","metadata":null}}\n',
        b'{"type":"MODIFIED","object":{"kind":"Pod","metadata":{"uid":"u","name":"n","namespace":"m"},"status":{"podIP":"x"}}}\n',
        b'{"type":"ADDED","object":null}\n',
    ],
)
def test_bad_objects_are_counted_and_skipped(tmp_path: Path, line: bytes) -> None:
    """What cannot be understood harms nothing that can: the stream goes on behind it."""
    with FakeApi() as api:
        small(api)
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            api.send_line("Pod", line)
            api.put(cluster.pod("p3", "10.1.0.3"))
            agent.until_who("10.1.0.3", "p3")
            state = agent.state("pods")

    assert (state.bad_objects_total, state.failures_total) == (1, 0)


def test_bad_objects_in_a_list_are_counted_and_skipped(tmp_path: Path) -> None:
    """One broken pod leaves the others."""
    broken: dict[str, Any] = cluster.pod("broken", "10.1.0.3")
    broken["status"]["podIPs"] = [{"ip": "not an address"}]
    with FakeApi() as api:
        small(api)
        api.put(broken)
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            agent.until_who("10.1.0.2", "web")
            assert agent.state("pods").bad_objects_total == 1


def test_errors_inside_a_watch_are_waited_out(tmp_path: Path) -> None:
    """A 500 as an ERROR event: back-off, then on; after two of them a new list."""
    with FakeApi() as api:
        small(api)
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            for _ in range(2):
                seen = agent.state("pods").watches_total
                api.send_error("Pod", 500, "etcdserver: leader changed")
                until(lambda seen=seen: agent.state("pods").watches_total > seen)  # type: ignore[misc]
            api.put(cluster.pod("p3", "10.1.0.3"))
            agent.until_who("10.1.0.3", "p3")
            assert agent.state("pods").failures_total >= 2


@pytest.mark.parametrize(
    "answer",
    [b"[]", b"not JSON", b"", b'{"items": 7}', b'{"items": [1, null]}', b"{}", b'{"items": 7, "metadata": {"resourceVersion": "9"}}'],
)
def test_answers_that_are_no_lists_are_survived(tmp_path: Path, answer: bytes) -> None:
    """Whatever a proxy in between says instead is no empty cluster but an error like any other, and the next answer counts."""

    def odd(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)

    with FakeApi() as api:
        small(api)
        api.fault(Fault(PODS, act=odd, times=1, only=lambda query: query.get("fieldSelector") == OWN))
        with following(tmp_path, api.kubeconfig()) as agent:
            agent.until_synced()
            agent.until_who("10.1.0.2", "web")
            assert agent.state("pods").failures_total == 1
