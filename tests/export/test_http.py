"""The HTTP transport: connection, TLS, registration before connecting, and what it puts on the wire."""

from __future__ import annotations

import gzip
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from otel_ebpf_receiver.errors import ExportError
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.http.connection import Endpoint
from otel_ebpf_receiver.export.otlp.http import HttpTransport
from otel_ebpf_receiver.export.otlp.options import Compression, OtlpOptions
from otel_ebpf_receiver.export.sender import Answer, Verdict
from tests.export.certificates import Certificates, make_certificates
from tests.export.payloads import points, spans
from tests.export.receivers import HttpReceiver, Reply


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One authority for all tests of this module."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def send(options: OtlpOptions, signal: Signal = Signal.TRACES) -> Answer:
    """Sends one request on a transport of its own."""
    transport = HttpTransport(options, signal)
    try:
        return transport.send((spans(2) if signal is Signal.TRACES else points(2)).body)
    finally:
        transport.close()


def test_one_connection_serves_many_requests() -> None:
    """The connection is kept; a server that closes it in between costs no answer."""
    with HttpReceiver([Reply(), Reply(), Reply(headers={"Connection": "close"})]) as receiver:
        transport = HttpTransport(OtlpOptions(receiver.endpoint + "/v1/traces"), Signal.TRACES)

        answers = [transport.send(spans(1).body) for _ in range(5)]

        transport.close()
        assert [answer.verdict for answer in answers] == [Verdict.ACCEPTED] * 5
        assert receiver.connections == 2
        assert receiver.spans == 5


def test_a_kept_connection_that_died_meanwhile_is_replaced_within_one_send() -> None:
    """A restart of the server between two requests is not a failure."""
    with HttpReceiver() as first:
        transport = HttpTransport(OtlpOptions(first.endpoint + "/v1/traces"), Signal.TRACES)
        transport.send(spans(1).body)

    with HttpReceiver(port=first.port) as second:
        answer = transport.send(spans(1).body)
        transport.close()

        assert answer == Answer(Verdict.ACCEPTED)
        assert second.spans == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_is_registered_before_its_first_packet(host: str) -> None:
    """`ignore` gets the very pair of endpoints of the connection while the server has not seen it, `unignore` the same after its end."""
    events: list[tuple[str, Endpoint, Endpoint]] = []
    seen_by_server: list[int] = []
    with HttpReceiver(host=host) as receiver:

        def ignore(local: Endpoint, remote: Endpoint) -> None:
            events.append(("ignore", local, remote))
            seen_by_server.append(receiver.connections)

        def unignore(local: Endpoint, remote: Endpoint) -> None:
            events.append(("unignore", local, remote))

        transport = HttpTransport(OtlpOptions(receiver.endpoint + "/v1/traces"), Signal.TRACES, ignore=ignore, unignore=unignore)
        transport.send(spans(1).body)
        transport.send(spans(1).body)
        transport.close()

        local = (host, int(receiver.requests[0].peer.rpartition(":")[2]))
        assert events == [("ignore", local, (host, receiver.port)), ("unignore", local, (host, receiver.port))]
        assert seen_by_server == [0]


def test_a_connection_that_fails_is_forgotten_too() -> None:
    """A refused connection leaves no registration behind, and is retried."""
    registered: set[tuple[Endpoint, Endpoint]] = set()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}/v1/traces"
    transport = HttpTransport(
        OtlpOptions(endpoint),
        Signal.TRACES,
        ignore=lambda local, remote: registered.add((local, remote)),
        unignore=lambda local, remote: registered.remove((local, remote)),
    )

    answer = transport.send(b"")

    assert answer.verdict is Verdict.RETRY
    assert "refused" in answer.words
    assert not registered


def test_headers_and_compression_reach_the_server() -> None:
    """Configured headers, the content type and gzip arrive; uncompressed is the default; what is configured cannot break the type."""
    with HttpReceiver() as receiver:
        options = OtlpOptions(receiver.endpoint + "/v1/metrics?tenant=a", headers=(("authorization", "Basic x="), ("content-type", "no")))

        send(options, Signal.METRICS)
        send(replace(options, compression=Compression.GZIP), Signal.METRICS)

        plain, packed = (request.headers for request in receiver.requests)
        assert plain["authorization"] == "Basic x="
        assert plain["content-type"] == packed["content-type"] == "application/x-protobuf"
        assert plain["user-agent"].startswith("otel_ebpf_receiver")
        assert plain["host"] == f"127.0.0.1:{receiver.port}"
        assert "content-encoding" not in plain
        assert packed["content-encoding"] == "gzip"
        assert int(packed["content-length"]) == len(gzip.compress(points(2).body, 1, mtime=0))
        assert receiver.requests[0].path == "/v1/metrics?tenant=a"
        assert receiver.metric_count == 2


def test_tls_is_verified(certificates: Certificates) -> None:
    """https works with the authority's certificate, and without it nothing is sent."""
    with HttpReceiver(tls=certificates) as receiver:
        options = OtlpOptions(receiver.endpoint + "/v1/traces", certificate=str(certificates.authority))

        assert send(options) == Answer(Verdict.ACCEPTED)
        refused = send(replace(options, certificate=None))

        assert refused.verdict is Verdict.RETRY
        assert "certificate verify failed" in refused.words
        assert receiver.spans == 2


def test_mutual_tls_needs_the_clients_certificate(certificates: Certificates) -> None:
    """A server that asks for a certificate accepts ours and refuses a client without one."""
    with HttpReceiver(tls=certificates, client_required=True) as receiver:
        bare = OtlpOptions(receiver.endpoint + "/v1/traces", certificate=str(certificates.authority))
        full = replace(bare, client_key=str(certificates.client_key), client_certificate=str(certificates.client))

        assert send(full) == Answer(Verdict.ACCEPTED)
        assert send(bare).verdict is Verdict.RETRY
        assert receiver.spans == 2


@pytest.mark.parametrize("field", ["certificate", "client_certificate", "client_key"])
def test_a_missing_certificate_file_is_an_error_at_start(certificates: Certificates, tmp_path: Path, field: str) -> None:
    """No other roots are used silently: the error names the variable and the file."""
    good = OtlpOptions(
        "https://127.0.0.1:1/",
        certificate=str(certificates.authority),
        client_key=str(certificates.client_key),
        client_certificate=str(certificates.client),
    )
    options = {
        "certificate": replace(good, certificate=str(tmp_path / "missing.pem")),
        "client_certificate": replace(good, client_certificate=str(tmp_path / "missing.pem")),
        "client_key": replace(good, client_key=str(tmp_path / "missing.pem")),
    }[field]

    with pytest.raises(ExportError, match=rf"OTEL_EXPORTER_OTLP_{field.upper()}.*missing\.pem"):
        HttpTransport(options, Signal.TRACES)


def test_a_key_of_another_certificate_is_an_error_at_start(certificates: Certificates) -> None:
    """A pair that does not belong together never gets as far as a handshake."""
    options = OtlpOptions("https://127.0.0.1:1/", client_key=str(certificates.server_key), client_certificate=str(certificates.client))

    with pytest.raises(ExportError, match="CLIENT_CERTIFICATE"):
        HttpTransport(options, Signal.TRACES)


def test_a_unix_socket_is_an_endpoint(tmp_path: Path) -> None:
    """`unix:///path` speaks HTTP over a socket file, with the standard path."""
    path = str(tmp_path / "otlp.sock")
    with HttpReceiver(unix_path=path) as receiver:
        assert send(OtlpOptions(f"unix://{path}")) == Answer(Verdict.ACCEPTED)

        assert receiver.requests[0].path == "/v1/traces"
        assert receiver.spans == 2


def test_a_redirect_is_refused_with_its_target() -> None:
    """A POST that would be repeated elsewhere is not success, and the words say where to point the exporter."""
    with HttpReceiver([Reply(301, headers={"Location": "https://elsewhere/"})]) as receiver:
        answer = send(OtlpOptions(receiver.endpoint + "/v1/traces"))

    assert answer.verdict is Verdict.REFUSED
    assert "https://elsewhere/" in answer.words


def test_an_empty_answer_is_success_and_a_foreign_one_is_remarked() -> None:
    """Prometheus answers 200 with nothing; a page of HTML is no OTLP, and that is said."""
    with HttpReceiver([Reply(body=b""), Reply(body=b"<html>login</html>")]) as receiver:
        assert send(OtlpOptions(receiver.endpoint + "/v1/traces")) == Answer(Verdict.ACCEPTED)

        answer = send(OtlpOptions(receiver.endpoint + "/v1/traces"))

    assert answer.verdict is Verdict.ACCEPTED
    assert "<html>" in answer.words


def test_a_dripping_answer_is_cut_off_by_the_timeout() -> None:
    """The timeout bounds the whole exchange, not each byte of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    while True:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nX-A: b\r\n"[:1])
                        if ended.wait(0.05):
                            return
                except OSError:
                    return

        ended = threading.Event()
        thread = threading.Thread(target=drip)
        thread.start()

        answer = send(OtlpOptions(f"http://127.0.0.1:{listener.getsockname()[1]}/v1/traces", timeout_s=0.3))
        ended.set()
        thread.join()

    assert answer.verdict is Verdict.RETRY
    assert "within 0.3 s" in answer.words


def test_abort_ends_a_send_that_waits() -> None:
    """abort() from another thread makes send() return long before the timeout."""
    with HttpReceiver([Reply(delay_s=30)]) as receiver:
        transport = HttpTransport(OtlpOptions(receiver.endpoint + "/v1/traces", timeout_s=None), Signal.TRACES)
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(transport.send(spans(1).body)))
        thread.start()
        assert receiver.wait_for(requests=1)

        transport.abort()
        thread.join(10)
        transport.close()

    assert [answer.verdict for answer in answers] == [Verdict.RETRY]


def test_abort_ends_a_handshake_that_waits() -> None:
    """A server that accepts and never speaks TLS does not hold the sender."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"https://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        registered: list[tuple[Endpoint, Endpoint]] = []
        transport = HttpTransport(
            OtlpOptions(endpoint, timeout_s=None),
            Signal.TRACES,
            ignore=lambda local, remote: registered.append((local, remote)),
            unignore=lambda local, remote: registered.remove((local, remote)),
        )
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(transport.send(spans(1).body)))
        thread.start()
        connection, _ = silent.accept()
        # Its ClientHello has come: it waits for ours.
        assert connection.recv(1)

        transport.abort()
        thread.join(10)
        transport.close()
        connection.close()

    assert [answer.verdict for answer in answers] == [Verdict.RETRY]
    assert not registered
