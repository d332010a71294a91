"""The part of the agent that follows the cluster against faults of a real API server: 401, 403, 410, 429, and a server that dies.

The same classes as in the agent with shorter pauses; each test asserts the state that a user sees meanwhile, and that it is right again afterwards.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_ebpf_receiver.errors import KubernetesError
from otel_ebpf_receiver.identity.kubernetes.client import Access, Refused
from otel_ebpf_receiver.identity.kubernetes.objects import BadObject
from otel_ebpf_receiver.identity.kubernetes.watch import Phase, Timing, Watch, Worker
from tests.capture.namespaces import namespace as network
from tests.interop import workloads
from tests.interop.apiserver import PORT, ApiServer, apiserver
from tests.interop.node import wait_until
from tests.kubernetes.following import Following, following_access

QUICK = Timing(back_off_low_s=0.05, back_off_high_s=0.5, forbidden_s=0.5, watch_low_s=1, watch_high_s=2, silence_s=30, outage_s=60)
BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/otel-ebpf-receiver"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One for all tests here, with a node and a pod; each test leaves it running and its account allowed."""
    with network() as host, apiserver(host, tmp_path_factory.mktemp("api")) as made:
        workloads.namespace(made, "demo")
        workloads.node(made)
        workloads.pod(made, "first", workloads.template("first"), "10.79.0.2")
        yield made


@contextlib.contextmanager
def following(api: ApiServer, folder: Path, token: str = "") -> Iterator[Following]:
    """As a pod does: token and certificate from files, the address from the environment. The token's file is `folder/token`."""
    (folder / "token").write_text(token or api.install_account())
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(PORT)}
    access = Access(token_file=str(folder / "token"), certificate_file=str(api.certificate), environ=environ)
    # Threads are born into the namespace of their maker.
    with api.here.inside(), following_access(access, node=workloads.NODE, timing=QUICK) as made:
        yield made


def adopt(api: ApiServer, name: str, address: str) -> None:
    """A new pod."""
    workloads.pod(api, name, workloads.template(name), address)


def test_what_is_there_is_known(api: ApiServer, tmp_path: Path) -> None:
    """With the shipped permissions everything is watched, and a pod that comes is known by its address."""
    with following(api, tmp_path) as seen:
        seen.until_synced()
        seen.until_who("10.79.0.2", "first")
        adopt(api, "second", "10.79.0.3")
        seen.until_who("10.79.0.3", "second")
        api.delete("/api/v1/namespaces/demo/pods/second")
        # Gone, and still told for exchanges that come late; only the next owner of the address ends that.
        adopt(api, "third", "10.79.0.3")
        seen.until_who("10.79.0.3", "third")
        api.delete("/api/v1/namespaces/demo/pods/third")

        assert seen.cluster.status().missing == ()


def test_403_until_it_is_allowed(api: ApiServer, tmp_path: Path) -> None:
    """Without the binding each watch is `forbidden` and says what to allow; with it everything is known a moment later."""
    token = api.install_account()
    binding = api.object(BINDING)
    api.delete(BINDING)
    with following(api, tmp_path, token) as seen:
        wait_until(lambda: all(one.phase is Phase.FORBIDDEN for one in seen.cluster.status().watches.values()), "all is forbidden")
        said = seen.cluster.status().missing
        api.create(
            {key: binding[key] for key in ("apiVersion", "kind", "roleRef", "subjects")} | {"metadata": {"name": "otel-ebpf-receiver"}}
        )
        seen.until_synced()
        seen.until_who("10.79.0.2", "first")

    assert any("allow list and watch of pods to the agent's service account" in line for line in said)


def test_401_until_the_token_is_a_new_one(api: ApiServer, tmp_path: Path) -> None:
    """When its account is gone the agent is `unauthorized` and keeps what it knew; a new token in the same file is taken without a restart."""
    with following(api, tmp_path) as seen:
        seen.until_synced()
        seen.until_who("10.79.0.2", "first")
        api.delete("/api/v1/namespaces/otel-ebpf-receiver/serviceaccounts/otel-ebpf-receiver")
        wait_until(lambda: seen.state("pods").phase is Phase.UNAUTHORIZED, "it is unauthorized")
        meanwhile = seen.who("10.79.0.2")
        (tmp_path / "token").write_text(api.install_account())
        wait_until(lambda: not seen.cluster.status().missing, "all is watched again")
        adopt(api, "after401", "10.79.0.4")
        seen.until_who("10.79.0.4", "after401")

    assert meanwhile == "first"


def test_410_by_compaction(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When etcd has forgotten the version that a watch stands at, the server says 410, all is listed anew, and what happened meanwhile is known."""
    told: list[tuple[str, int]] = []
    fail = Watch._fail

    def record(watch: Watch, worker: Worker, error: KubernetesError | BadObject) -> None:
        told.append((watch.kind, error.status if isinstance(error, Refused) else 0))
        fail(watch, worker, error)

    monkeypatch.setattr(Watch, "_fail", record)
    with following(api, tmp_path) as seen:
        seen.until_synced()
        before = seen.cluster.status().watches
        # Versions go on, and all before them are forgotten: by etcd at once, by the server's own cache when it starts again.
        for number in range(20):
            workloads.namespace(api, f"filler-{number}")
        adopt(api, "after410", "10.79.0.5")
        api.compact(int(api.object("/api/v1/namespaces/demo/pods")["metadata"]["resourceVersion"]))
        api.restart()
        wait_until(lambda: any(status == 410 for _, status in told), f"the server has said 410, not {told}")
        seen.until_who("10.79.0.5", "after410")
        wait_until(lambda: not seen.cluster.status().missing, "all is watched again")
        after = seen.cluster.status().watches

    gone = {kind for kind, status in told if status == 410}
    assert all(after[kind].lists_total > before[kind].lists_total for kind in gone)
    assert all(one.bad_objects_total == 0 for one in after.values())


def test_429_when_the_server_is_busy(api: ApiServer, tmp_path: Path) -> None:
    """A server that takes one request at a time refuses with 429 and Retry-After; the agent waits, and knows all in the end."""
    token = api.install_account()
    api.restart("--enable-priority-and-fairness=false", "--max-requests-inflight=1")
    stopping = threading.Event()
    refused: list[str] = []

    def press() -> None:
        while not stopping.is_set():
            with contextlib.suppress(OSError):
                api.get("/api/v1/namespaces/demo/pods?limit=500")

    threads = [threading.Thread(target=press, daemon=True) for _ in range(6)]
    try:
        with following(api, tmp_path, token) as seen:
            for thread in threads:
                thread.start()

            def is_refused() -> bool:
                refused.extend(state.error for state in seen.cluster.status().watches.values() if state.error.startswith("429"))
                return bool(refused)

            wait_until(is_refused, "a request was refused with 429")
            stopping.set()
            seen.until_synced()
            seen.until_who("10.79.0.2", "first")
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
        api.restart()


def test_the_server_dies_and_comes_again(api: ApiServer, tmp_path: Path) -> None:
    """SIGKILL: what was known is still served and the state says `retrying`; afterwards a new pod is known."""
    with following(api, tmp_path) as seen:
        seen.until_synced()
        seen.until_who("10.79.0.2", "first")
        api.server.kill()
        wait_until(lambda: seen.state("pods").phase is Phase.RETRYING, "it tries again")
        meanwhile, missing = seen.who("10.79.0.2"), seen.cluster.status().missing
        api.restart()
        adopt(api, "afterkill", "10.79.0.6")
        seen.until_who("10.79.0.6", "afterkill")

    assert meanwhile == "first"
    assert any(line.startswith("pods: retrying") for line in missing)
