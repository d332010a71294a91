"""How the API server is reached, and that nothing is loaded where it is not."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import certifi
import pytest

from otel_ebpf_receiver.errors import KubernetesError
from otel_ebpf_receiver.identity.directory import Directory
from otel_ebpf_receiver.identity.kubernetes import client
from otel_ebpf_receiver.identity.kubernetes.client import Access, Api, Refused, Unreachable, find_access
from otel_ebpf_receiver.identity.kubernetes.cluster import Cluster
from otel_ebpf_receiver.identity.kubernetes.resources import JSON
from otel_ebpf_receiver.identity.kubernetes.rows import Options
from tests.kubernetes import cluster
from tests.kubernetes.fakeapi import FakeApi, Fault, Handler
from tests.kubernetes.following import QUICK, Following, small, until

IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A server's certificate, which is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = str(folder / "ca.crt"), str(folder / "ca.key")
    subject = ["-subj", "/CN=fake", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-out", files[0], "-keyout", files[1], *subject]
    subprocess.run(command, check=True, capture_output=True)
    return files


def test_a_pods_service_account_goes_before_a_kubeconfig(tmp_path: Path) -> None:
    """In a cluster the account, elsewhere the file, with neither nothing."""
    token = tmp_path / "token"
    token.write_text("t")

    inside = find_access(None, "file", IN_CLUSTER, token_file=str(token))
    outside = find_access(None, "file", {}, token_file=str(token))

    assert inside is not None
    assert (inside.kubeconfig, inside.token_file) == ("", str(token))
    assert outside == Access("file")
    assert find_access(None, "", {}) is None
    assert find_access(False, "file", IN_CLUSTER, token_file=str(token)) is None


def test_kubernetes_asked_for_without_any_way_to_it_is_an_error() -> None:
    """The message says what to set."""
    with pytest.raises(KubernetesError, match="neither a service account nor a kubeconfig"):
        find_access(True, "", {})


def test_off_costs_no_import() -> None:
    """Identity with everything but a connection leaves the client package alone."""
    program = (
        "import sys, otel_ebpf_receiver.identity.kubernetes.cluster, otel_ebpf_receiver.identity.directory as d; "
        "d.Directory(); print([name for name in sys.modules if name.partition('.')[0] in ('kubernetes', 'urllib3', 'pydantic')])"
    )

    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    assert output.strip() == "[]"


def test_models_of_the_client_are_never_loaded(tmp_path: Path) -> None:
    """A connection loads the client's core and not its hundreds of models."""
    file = tmp_path / "kubeconfig"
    file.write_text(FakeApi().kubeconfig())
    program = (
        "import sys; from otel_ebpf_receiver.identity.kubernetes.client import Access, Api; "
        f"Api(Access({str(file)!r})); print(len([name for name in sys.modules if name.startswith('kubernetes.client.models.')]))"
    )

    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    assert int(output) < 5


def test_a_service_account_over_tls_survives_its_rotation(tmp_path: Path, certificate: tuple[str, str]) -> None:
    """Token and authority from files, as in a pod; a new token in the file is used as soon as the old one is refused."""
    token = tmp_path / "token"
    token.write_text("first\n")
    with FakeApi(certificate=certificate) as api:
        small(api)
        api.state.tokens = {"first"}
        access = Access("", str(token), certificate[0], {**IN_CLUSTER, "KUBERNETES_SERVICE_PORT": str(api.port)})
        directory = Directory(is_cluster=True)
        made = Cluster(Api(access), directory, Options(cluster.NODE), peers="pods", timing=QUICK)
        agent = Following(made, directory)
        made.start()
        try:
            agent.until_synced()
            token.write_text("second\n")
            api.state.tokens = {"second"}
            api.end_streams()
            until(lambda: any(state.failures_total for state in made.status().watches.values()), "the old token is refused")
            # One watch that was refused has the token read for all: the others may come with the new one at once, but come they must.
            until(lambda: watches(api, "second") == watches(api, "first"), "every watch goes on with the new token")
            agent.until_synced()
            api.put(cluster.pod("p3", "10.1.0.3"))
            agent.until_who("10.1.0.3", "p3")
        finally:
            made.stop()


def watches(api: FakeApi, token: str) -> set[tuple[str, str]]:
    """What was watched with a token: paths and field selectors."""
    asked = [one for one in api.state.requests if "watch" in one.query and f"Bearer {token}" in one.headers.values()]
    return {(one.path, one.query.get("fieldSelector", "")) for one in asked}


def test_a_server_with_another_authority_is_not_trusted(tmp_path: Path, certificate: tuple[str, str]) -> None:
    """It is unreachable, and the reason says certificate."""
    token = tmp_path / "token"
    token.write_text("first")
    with FakeApi(certificate=certificate) as api:
        environ = {**IN_CLUSTER, "KUBERNETES_SERVICE_PORT": str(api.port)}
        made = Api(Access("", str(token), certifi.where(), environ))
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            made.get("/api/v1/nodes", {}, JSON)


@pytest.mark.parametrize("text", ["", "{", "kind: Config", "clusters: 7"])
def test_a_broken_kubeconfig_is_an_error_of_ours(tmp_path: Path, text: str) -> None:
    """Whatever stands in it, and also when it is not there."""
    file = tmp_path / "kubeconfig"
    file.write_text(text)

    with pytest.raises(KubernetesError):
        Api(Access(str(file)))
    with pytest.raises(KubernetesError):
        Api(Access(str(tmp_path / "absent")))


def test_a_missing_token_is_an_error_of_ours(tmp_path: Path) -> None:
    """In a pod without a mounted account."""
    with pytest.raises(KubernetesError, match="token file does not exist"):
        Api(Access("", str(tmp_path / "absent"), str(tmp_path / "absent"), IN_CLUSTER))


def test_refusals_carry_what_the_server_said(tmp_path: Path) -> None:
    """Status, the Status object's message, Retry-After."""
    file = tmp_path / "kubeconfig"
    with FakeApi() as api:
        file.write_text(api.kubeconfig())
        api.fault(Fault("/api/v1/nodes", 429, "slow down", retry_after="7"))

        with pytest.raises(Refused) as caught:
            Api(Access(str(file))).get("/api/v1/nodes", {}, JSON)

    assert (caught.value.status, str(caught.value), caught.value.retry_after_s) == (429, "429: slow down", 7.0)


def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    """A refused connection says so."""
    file = tmp_path / "kubeconfig"
    api = FakeApi()
    with api:
        file.write_text(api.kubeconfig())

    with pytest.raises(Unreachable, match="refused"):
        Api(Access(str(file))).get("/api/v1/nodes", {}, JSON)


def test_a_broken_connection_is_not_tried_again_by_itself(tmp_path: Path) -> None:
    """Once, not three times in a row as the library would: waiting is the watch's matter."""
    file = tmp_path / "kubeconfig"
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        file.write_text(FakeApi(port=server.getsockname()[1]).kubeconfig())
        server.settimeout(0.5)

        def accept() -> None:
            with contextlib.suppress(TimeoutError):
                while True:
                    connection, _ = server.accept()
                    accepted.append(connection.recv(65536)[:3])
                    connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        with pytest.raises(Unreachable):
            Api(Access(str(file))).get("/api/v1/nodes", {}, JSON)
        thread.join()

    assert accepted == [b"GET"]


def test_a_stream_is_quiet_when_nothing_more_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while events wait to be read, which whoever reads would make wait longer."""
    monkeypatch.setattr(client, "_BLOCK", 65536)
    may_write, has_written = threading.Event(), threading.Event()

    def answer(handler: Handler) -> None:
        handler.begin_chunks()
        may_write.wait(30)
        for _ in range(3):
            # Together more than is read at once, and less than the kernel holds.
            handler.chunk(b"x" * 30_000 + b"\n")
        has_written.set()
        while not handler.state.is_stopped:
            time.sleep(0.01)

    with FakeApi() as api:
        file = tmp_path / "kubeconfig"
        file.write_text(api.kubeconfig())
        api.fault(Fault("/api/v1/pods", act=answer))
        stream = Api(Access(str(file))).watch("/api/v1/pods", {"watch": "1"}, JSON, 30.0)
        is_quiet = stream.is_quiet()
        may_write.set()
        assert has_written.wait(30)
        lines = stream.lines()
        waiting = [(len(next(lines)), stream.is_quiet()) for _ in range(2)]
        stream.stop()
        stream.close()

    assert is_quiet
    assert waiting == [(2, False), (1, True)]
