"""The whole agent and the Kubernetes API: what it names when, what a user sees of it, and what it leaves out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.agent.process import agent
from tests.capture.namespaces import namespace
from tests.kubernetes import cluster
from tests.kubernetes.fakeapi import FakeApi, Fault
from tests.topologies.stage import PORT, Cluster, Node, Watching, counted, load, made_of, serving, told

WAIT_S = 60.0


@contextmanager
def one_node(folder: Path) -> Iterator[tuple[Cluster, Node]]:
    """A cluster of one node whose pods hang on a bridge."""
    with made_of(folder) as made:
        yield made, made.nodes[0]


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that must come true."""
    end_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end_s, f"{what} did not come true"
        time.sleep(0.1)


def state(watching: Watching) -> dict[str, Any]:
    """The cluster as the status page shows it."""
    found: dict[str, Any] = json.loads(watching.page("/status")[:-3])["kubernetes"]
    return found


def kernel(watching: Watching, name: str) -> int:
    """A counter of the kernel side."""
    return int(json.loads(watching.page("/status")[:-3])["kernel"].get(name, 0))


def demand(api: FakeApi, token: str) -> None:
    """From now on only this token is good."""
    api.state.tokens = {token}


def forbid_services(api: FakeApi) -> None:
    """The agent may not list Services."""
    api.fault(Fault("/api/v1/services", 403, "services is forbidden"))


def tokens(api: FakeApi) -> set[str]:
    """What was shown for watches of pods."""
    return {value for one in api.asked("/api/v1/pods", watch="1") for name, value in one.headers.items() if name.lower() == "authorization"}


def test_an_api_server_that_is_not_there_at_first(tmp_path: Path) -> None:
    """The agent is ready and says what is missing; what it cannot name it tells as its node's; once the server is there it names everybody."""
    with one_node(tmp_path) as (made, node):
        front, back = node.pod("front"), node.pod("back")
        with serving(back), made.watched(FakeApi.stop) as (watching,):
            until(lambda: "kubernetes: pods: retrying" in watching.page("/readyz"), "the missing pods are told")
            ready, before = watching.page("/readyz"), state(watching)
            load(front.command(), f"http://{back.address}:{PORT}/early", 4)
            watching.receiver.wait_for(spans=8)
            watching.start_api()
            until(lambda: watching.page("/readyz") == "ready\n200", "everything is known")
            load(front.command(), f"http://{back.address}:{PORT}/late", 4)
            after = state(watching)
            assert watching.stop() == 0

    assert ready.startswith("ready\n")
    assert ready.endswith("200")
    assert (before["state"], after["state"], after["cluster_uid"]) == ("incomplete", "current", "uid-ns-kube-system")
    assert told(watching, "/early") == {("C", node.name): 4, ("S", node.name): 4}
    assert told(watching, "/late") == {("C", front.uid): 4, ("S", back.uid): 4}


def test_an_api_server_that_goes_and_comes_back_another(tmp_path: Path) -> None:
    """While it is gone everybody keeps the name that was known; back with other versions it is followed again, deletions included."""
    with one_node(tmp_path) as (made, node):
        front, back = node.pod("front"), node.pod("back")
        with serving(back), made.watched() as (watching,):
            until(lambda: watching.page("/readyz") == "ready\n200", "everything is known")
            watching.api.stop()
            until(lambda: "pods: retrying" in watching.page("/readyz"), "the loss is told")
            load(front.command(), f"http://{back.address}:{PORT}/gone", 4)
            gone = state(watching)
            watching.api.renumber(5)
            renamed = {
                **back.body,
                "metadata": {**back.body["metadata"], "annotations": {"resource.opentelemetry.io/service.name": "anew"}},
            }
            watching.api.put(renamed)
            watching.start_api()
            until(lambda: watching.page("/readyz") == "ready\n200", "everything is known again")
            load(front.command(), f"http://{back.address}:{PORT}/back", 4)
            assert watching.stop() == 0

    assert gone["state"] == "stale"
    assert told(watching, "/gone") == told(watching, "/back") == {("C", front.uid): 4, ("S", back.uid): 4}
    names = {resource.resource.SerializeToString() for resource in watching.receiver.traces}
    assert any(b"anew" in one for one in names)


def test_a_token_that_is_rotated(tmp_path: Path) -> None:
    """The old token is refused one day: the file is read again and nothing is lost."""
    token = tmp_path / "token"
    token.write_text("old")
    with one_node(tmp_path) as (made, node):
        front, back = node.pod("front"), node.pod("back")
        with serving(back), made.watched(lambda api: demand(api, "old"), token_file=str(token)) as (watching,):
            until(lambda: watching.page("/readyz") == "ready\n200", "everything is known")
            token.write_text("new")
            demand(watching.api, "new")
            watching.api.end_streams()
            until(lambda: "Bearer new" in tokens(watching.api), "the new token is used")
            until(lambda: watching.page("/readyz") == "ready\n200", "everything is known again")
            load(front.command(), f"http://{back.address}:{PORT}/rotated", 4)
            assert watching.stop() == 0

    assert told(watching, "/rotated") == {("C", front.uid): 4, ("S", back.uid): 4}


def test_a_permission_that_is_missing(tmp_path: Path) -> None:
    """It is named with its remedy, at /readyz and in the status; everything else works."""
    with one_node(tmp_path) as (made, node):
        front, back = node.pod("front"), node.pod("back")
        with (
            serving(back),
            made.watched(forbid_services) as (watching,),
        ):
            until(lambda: "services: forbidden" in watching.page("/readyz"), "the missing permission is told")
            until(lambda: state(watching)["watches"]["pods"]["state"] == "watching", "the pods are known")
            ready, seen = watching.page("/readyz"), state(watching)
            load(front.command(), f"http://{back.address}:{PORT}/allowed", 4)
            assert watching.stop() == 0

    assert "allow list and watch of services to the agent's service account" in ready
    assert (seen["state"], seen["watches"]["services"]["state"]) == ("incomplete", "forbidden")
    assert told(watching, "/allowed") == {("C", front.uid): 4, ("S", back.uid): 4}


def test_without_a_cluster_it_is_off_and_says_so_once() -> None:
    """Neither service account nor kubeconfig: one line, and host traffic as ever."""
    with namespace() as here, agent(prefix=here.command()) as running:
        running.ready()
        assert running.stop() == 0
        lines = running.err.rest()

    assert len([line for line in lines if "Kubernetes is off" in line]) == 1


def test_a_kubeconfig_without_a_node_is_told(tmp_path: Path) -> None:
    """Which node this is cannot be guessed: the remedy is named."""
    file = tmp_path / "kubeconfig"
    file.write_text("{}")
    with namespace() as here, agent(prefix=here.command(), env={"KUBECONFIG": str(file)}) as running:
        running.ready()
        assert running.stop() == 0
        lines = running.err.rest()

    assert [line for line in lines if "K8S_NODE_NAME" in line]


def test_a_pod_is_waited_for(tmp_path: Path) -> None:
    """What a pod does before the API server tells of it is told under its name; what is never known leaves as the node's, nothing is lost."""
    with one_node(tmp_path) as (made, node):
        back = node.pod("back")
        with serving(back), made.watched() as (watching,):
            until(lambda: watching.page("/readyz") == "ready\n200", "everything is known")
            early = node.pod("early")
            never = node.pod("never")
            load(early.command(), f"http://{back.address}:{PORT}/wait", 4)
            load(never.command(), f"http://{back.address}:{PORT}/never", 4)
            watching.api.put(early.body)
            until(lambda: len(told(watching, "/never")) == 2 and len(told(watching, "/wait")) == 2, "both are told")
            metrics = watching.page("/metrics")
            assert watching.stop() == 0

    assert told(watching, "/wait") == {("C", early.uid): 4, ("S", back.uid): 4}
    assert told(watching, "/never") == {("C", node.name): 4, ("S", back.uid): 4}
    assert 'fate="waited"' in metrics


def test_a_service_name_among_the_resource_attributes(tmp_path: Path) -> None:
    """It names the agent and what the node itself does, as OTEL_SERVICE_NAME would; a pod keeps its own."""
    with one_node(tmp_path) as (made, node):
        front = node.pod("front")
        with serving(front), made.watched(env={"OTEL_RESOURCE_ATTRIBUTES": "service.name=edge,team=red"}) as (watching,):
            until(lambda: watching.page("/readyz") == "ready\n200", "everything is known")
            load(node.ns.command(), f"http://{front.address}:{PORT}/named", 4)
            assert watching.stop() == 0

    assert told(watching, "/named") == {("C", node.name): 4, ("S", front.uid): 4}
    names = {(key.value.string_value) for one in watching.receiver.traces for key in one.resource.attributes if key.key == "service.name"}
    assert names == {"edge", "front"}
    own = {(key.value.string_value) for one in watching.receiver.metrics for key in one.resource.attributes if key.key == "service.name"}
    assert own == {"edge", "front"}


def test_who_is_left_out(tmp_path: Path) -> None:
    """Opted out by annotation: nothing. Kubelet's probes: no spans, but metrics. Instrumented already: neither, and each is counted."""
    with one_node(tmp_path) as (made, node):
        front = node.pod("front")
        private = node.pod("private", annotations={"otel-ebpf-receiver/enabled": "false"})
        known = node.pod("known", annotations={"instrumentation.opentelemetry.io/inject-java": "true"})
        with serving(private, known, front), made.watched() as (watching,):
            until(lambda: watching.page("/readyz") == "ready\n200", "everything is known")
            load(front.command(), f"http://{private.address}:{PORT}/private", 4)
            load(front.command(), f"http://{known.address}:{PORT}/known", 4)
            load(node.ns.command(), f"http://{front.address}:{PORT}/probe", 4, "-A", "kube-probe/1.34")
            time.sleep(0.5)
            metrics, named = watching.page("/metrics"), state(watching)["instrumented"]
            assert watching.stop() == 0

    assert named == ["known.shop"]
    assert told(watching, "/private") == {("C", front.uid): 4}
    assert told(watching, "/known") == {("C", front.uid): 4}
    assert told(watching, "/probe") == {}
    assert counted(watching)["S", front.uid] == 4
    assert ("S", private.uid) not in counted(watching)
    assert ("S", known.uid) not in counted(watching)
    assert 'fate="deselected"' in metrics
    assert 'fate="instrumented_spans"' in metrics


def test_only_some_namespaces(tmp_path: Path) -> None:
    """Of pods of other namespaces the kernel yields no record, but for what a wanted pod asks them; one that comes later is watched at once."""
    with one_node(tmp_path) as (made, node):
        made.objects.append(cluster.namespace("aside"))
        front, back = node.pod("front"), node.pod("back")
        aside, other = node.pod("aside", namespace="aside"), node.pod("other", namespace="aside")
        env = {"OTEL_EBPF_RECEIVER_KUBERNETES_NAMESPACES_INCLUDE": "shop"}
        with serving(back, other), made.watched(env=env) as (watching,):
            until(lambda: watching.page("/readyz") == "ready\n200", "everything is known")
            before = kernel(watching, "flows_unwatched")
            load(aside.command(), f"http://{other.address}:{PORT}/unwanted", 4)
            load(aside.command(), f"http://{back.address}:{PORT}/wanted", 4)
            load(front.command(), f"http://{other.address}:{PORT}/asked", 4)
            late = node.pod("late")
            load(late.command(), f"http://{other.address}:{PORT}/late", 4)
            watching.api.put(late.body)
            until(lambda: len(told(watching, "/late")) == 1, "the late pod is told")

            def is_left_alone() -> bool:
                # The kernel is told a moment after the agent knows: connections of before were not refused by it.
                load(aside.command(), f"http://{other.address}:{PORT}/unwanted", 2)
                return kernel(watching, "flows_unwatched") > before

            until(is_left_alone, "the kernel leaves the unwanted alone")
            assert watching.stop() == 0

    assert told(watching, "/unwanted") == {}
    assert told(watching, "/wanted") == {("S", back.uid): 4}
    assert told(watching, "/asked") == {("C", front.uid): 4}
    assert told(watching, "/late") == {("C", late.uid): 4}


def test_the_console_shows_an_exchange_once(tmp_path: Path) -> None:
    """Though both sides are told; and nothing of a pod that opted out."""
    with one_node(tmp_path) as (made, node):
        front, back = node.pod("front"), node.pod("back")
        private = node.pod("private", annotations={"otel-ebpf-receiver/enabled": "false"})
        env = {"OTEL_TRACES_EXPORTER": "console", "OTEL_EBPF_RECEIVER_EXPORTERS_CONSOLE_FORMAT": "json"}
        with serving(back, private), made.watched(env=env) as (watching,):
            until(lambda: watching.page("/readyz") == "ready\n200", "everything is known")
            load(front.command(), f"http://{back.address}:{PORT}/both", 4)
            load(private.command(), f"http://{private.address}:{PORT}/none", 4)
            assert watching.stop() == 0
            lines = watching.running.out.rest()

    shown = [json.loads(line) for line in lines if line.startswith("{")]
    assert [(one["client"].split(":")[0], one["server"]) for one in shown if one["path"] == "/both"] == [
        ("shop/front", "shop/back:8080")
    ] * 4
    assert [one for one in shown if one["path"] == "/none"] == []
