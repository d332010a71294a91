"""Exports go through the proxy that the environment names: https in a tunnel, plain HTTP by the whole URL, and not where `no_proxy` says so."""

from __future__ import annotations

import http.server
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_ebpf_receiver.errors import ExportError
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.http.connection import Endpoint
from otel_ebpf_receiver.export.http.proxy import Proxy, proxy_for
from otel_ebpf_receiver.export.otlp.grpc import GrpcTransport
from otel_ebpf_receiver.export.otlp.http import HttpTransport
from otel_ebpf_receiver.export.otlp.options import OtlpOptions, Protocol
from otel_ebpf_receiver.export.sender import Answer, Verdict
from tests.export.certificates import make_certificates
from tests.export.payloads import spans
from tests.export.receivers import GrpcReceiver, HttpReceiver


class _Handler(http.server.BaseHTTPRequestHandler):
    """Tunnels CONNECT, forwards a POST by its absolute target, and notes both with what came as Proxy-Authorization."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def _note(self) -> bool:
        given = self.headers.get("Proxy-Authorization", "")
        self.server.seen.append((self.command, self.path, given))
        if self.server.is_closed:
            self.send_error(407)
        return not self.server.is_closed

    def do_CONNECT(self) -> None:
        if not self._note():
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: there, there: self.connection}
            while True:
                for one in select.select(list(ends), [], [], 10)[0]:
                    data = one.recv(65536)
                    if not data:
                        self.close_connection = True
                        return
                    ends[one].sendall(data)

    def do_POST(self) -> None:
        if not self._note():
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        host, _, path = self.path.removeprefix("http://").partition("/")
        forwarded = http.client.HTTPConnection(host)
        forwarded.request("POST", f"/{path}", body, {"content-type": self.headers["content-type"]})
        answer = forwarded.getresponse().read()
        forwarded.close()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, str, str]] = []
        self.is_closed = False


@pytest.fixture
def proxy() -> Iterator[_Server]:
    """A real proxy."""
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def send(options: OtlpOptions, **more: Any) -> Answer:
    """Sends one request on a transport of its own."""
    transport = HttpTransport(options, Signal.TRACES, **more)
    try:
        return transport.send(spans(2).body)
    finally:
        transport.close()


def test_plain_http_is_forwarded_by_its_whole_url(proxy: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is given the absolute target and the password; the connection to it is registered as the agent's own."""
    monkeypatch.setenv("http_proxy", f"http://me:pass%20word@127.0.0.1:{proxy.server_port}")
    registered: list[tuple[Endpoint, Endpoint]] = []
    with HttpReceiver() as receiver:
        answer = send(
            OtlpOptions(receiver.endpoint + "/v1/traces"), ignore=lambda *ends: registered.append(ends), unignore=lambda *ends: None
        )

        assert answer == Answer(Verdict.ACCEPTED)
        assert receiver.spans == 2
        assert proxy.seen == [("POST", f"{receiver.endpoint}/v1/traces", "Basic bWU6cGFzcyB3b3Jk")]
    assert [remote for _, remote in registered] == [("127.0.0.1", proxy.server_port)]


def test_https_goes_through_a_tunnel(proxy: _Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The proxy sees CONNECT and nothing else; the server's certificate is verified behind it; a proxy that refuses is said and retried."""
    certificates = make_certificates(tmp_path)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.server_port}")
    with HttpReceiver(tls=certificates) as receiver:
        options = OtlpOptions(receiver.endpoint + "/v1/traces", certificate=str(certificates.authority))

        assert send(options) == Answer(Verdict.ACCEPTED)
        proxy.is_closed = True
        refused = send(options)

        assert receiver.spans == 2
        assert {seen[:2] for seen in proxy.seen} == {("CONNECT", f"127.0.0.1:{receiver.port}")}
    assert refused.verdict is Verdict.RETRY
    assert "answered 407" in refused.words


def test_hosts_can_be_left_out(proxy: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host in `no_proxy` is connected directly."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.server_port}")
    monkeypatch.setenv("no_proxy", "example.com, 127.0.0.1")
    with HttpReceiver() as receiver:
        assert send(OtlpOptions(receiver.endpoint + "/v1/traces")) == Answer(Verdict.ACCEPTED)
    assert not proxy.seen


def test_grpc_goes_through_a_tunnel_too(proxy: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC reads the variables by itself and asks the same proxy for a way."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
    with GrpcReceiver() as receiver:
        transport = GrpcTransport(OtlpOptions(receiver.endpoint, Protocol.GRPC), Signal.TRACES)
        answer = transport.send(spans(2).body)
        transport.close()

        assert answer == Answer(Verdict.ACCEPTED)
        assert receiver.spans == 2
        assert proxy.seen == [("CONNECT", f"127.0.0.1:{receiver.port}", "")]


PROXY = Proxy("p", 3128)


@pytest.mark.parametrize(
    ("environ", "scheme", "host", "expected"),
    [
        ({}, "http", "a", None),
        ({"http_proxy": "http://p:3128"}, "http", "a", PROXY),
        ({"HTTP_PROXY": "p:3128"}, "http", "a", PROXY),
        ({"http_proxy": "http://p:3128", "HTTP_PROXY": "http://other"}, "http", "a", PROXY),
        ({"HTTP_PROXY": "p:3128", "http_proxy": ""}, "http", "a", None),
        ({"http_proxy": "http://p:3128"}, "https", "a", None),
        ({"all_proxy": "http://p:3128"}, "https", "a", PROXY),
        ({"http_proxy": "http://p:3128", "no_proxy": "*"}, "http", "a", None),
        ({"http_proxy": "http://p:3128", "no_proxy": ".b.c"}, "http", "a.B.c", None),
        ({"http_proxy": "http://p:3128", "no_proxy": "b.c"}, "http", "ab.c", PROXY),
        ({"http_proxy": "http://p:3128", "no_proxy": "a:4318"}, "http", "a", None),
        ({"http_proxy": "http://p:3128", "no_proxy": "a:1,"}, "http", "a", PROXY),
    ],
)
def test_variables(environ: dict[str, str], scheme: str, host: str, expected: Proxy | None) -> None:
    """Lower case wins, `all_proxy` is the fallback, `no_proxy` names hosts, domains and ports."""
    assert proxy_for(scheme, host, 4318, environ) == expected


def test_a_proxy_of_another_kind_is_an_error() -> None:
    """SOCKS is not spoken; the message does not repeat the password."""
    with pytest.raises(ExportError, match=r"http_proxy: not a proxy that can be used") as caught:
        proxy_for("http", "a", 80, {"http_proxy": "socks5://me:secret@p"})
    assert "secret" not in str(caught.value)
