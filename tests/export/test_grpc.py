"""The gRPC transport: the official exporter's class with our bytes, its traps, and the contract that the SDK must keep."""

from __future__ import annotations

import inspect
import threading
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.grpc.exporter import OTLPExporterMixin

from otel_ebpf_receiver.errors import ExportError
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.exporter import OtlpDestination
from otel_ebpf_receiver.export.otlp.grpc import BytesExporter, GrpcTransport
from otel_ebpf_receiver.export.otlp.options import Compression, OtlpOptions, Protocol, options_from_env
from otel_ebpf_receiver.export.queue import Books
from otel_ebpf_receiver.export.sender import Answer, Backoff, Verdict
from tests.export.certificates import Certificates, make_certificates
from tests.export.pausing import tries_at_once
from tests.export.payloads import points, spans
from tests.export.receivers import GrpcReceiver, Reply


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One authority for all tests of this module."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def options_for(endpoint: str, **variables: str) -> OtlpOptions:
    """Options as the environment would give them."""
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    return options_from_env(environ | {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()}, Signal.TRACES)


def send(options: OtlpOptions, body: bytes | None = None, signal: Signal = Signal.TRACES) -> Answer:
    """Sends one request on a transport of its own."""
    transport = GrpcTransport(options, signal)
    try:
        return transport.send(spans(2).body if body is None else body)
    finally:
        transport.close()
        transport.close()


def test_both_signals_arrive_with_their_headers() -> None:
    """Pre-encoded bytes of both signals are parsed by a real server; configured headers are metadata."""
    with GrpcReceiver() as receiver:
        options = replace(options_for(receiver.endpoint), headers=(("api-key", "k"),))

        assert send(options) == Answer(Verdict.ACCEPTED)
        assert send(options, points(3).body, Signal.METRICS) == Answer(Verdict.ACCEPTED)

        assert (receiver.spans, receiver.metric_count) == (2, 1)
        assert all(request.headers["api-key"] == "k" for request in receiver.requests)
        assert receiver.requests[0].headers["user-agent"].startswith("otel_ebpf_receiver")


def test_the_sdk_keeps_what_we_rely_on() -> None:
    """A new SDK that renames what the subclass overrides or passes fails here and not in the field."""
    parameters = inspect.signature(OTLPExporterMixin.__init__).parameters
    passed = ("stub", "result", "endpoint", "insecure", "credentials", "headers", "timeout", "compression", "channel_options", "signal")
    assert set(passed) <= set(parameters)
    assert {"_initialize_channel_and_stub", "_translate_data", "_count_data", "_exporting", "shutdown"} <= set(dir(OTLPExporterMixin))
    assert OTLPExporterMixin.__abstractmethods__ <= {"_translate_data", "_count_data", "_exporting"}

    exporter = BytesExporter(OtlpOptions("http://127.0.0.1:1", Protocol.GRPC, headers=(("a", "b"),), timeout_s=2.0), Signal.TRACES)

    assert exporter._endpoint == "127.0.0.1:1"
    assert exporter._headers == (("a", "b"),)
    assert exporter._timeout == 2.0
    assert exporter._compression is grpc.Compression.NoCompression
    assert exporter._shutdown is False
    exporter.shutdown()


def test_the_environment_is_not_read_behind_our_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that the official class would misread (seconds, none, other headers, missing files) change nothing."""
    for name, value in {
        "TIMEOUT": "abc",
        "COMPRESSION": "none",
        "HEADERS": "x=1",
        "CERTIFICATE": "/missing",
        "ENDPOINT": "http://no:1",
    }.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_TRACES_{name}", value)
    with GrpcReceiver() as receiver:
        assert send(OtlpOptions(receiver.endpoint, Protocol.GRPC)) == Answer(Verdict.ACCEPTED)

        assert "x" not in receiver.requests[0].headers


def test_timeouts_are_milliseconds() -> None:
    """A timeout of 200 ends after 200 milliseconds and not after 200 seconds."""
    with GrpcReceiver([Reply(delay_s=20)]) as receiver:
        answer = send(options_for(receiver.endpoint, TIMEOUT="200"))

    assert answer.verdict is Verdict.RETRY
    assert "DEADLINE_EXCEEDED" in answer.words


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_compression_is_none_or_gzip(compression: str) -> None:
    """Both values that the specification knows work."""
    with GrpcReceiver() as receiver:
        options = options_for(receiver.endpoint, COMPRESSION=compression)

        assert send(options, spans(50, padding=100).body) == Answer(Verdict.ACCEPTED)

        assert options.compression is Compression(compression)
        assert receiver.spans == 50


def test_an_endpoint_without_scheme_means_tls_and_says_so(certificates: Certificates) -> None:
    """`host:port` is TLS unless `…_INSECURE=true`; against a plain server the words explain why nothing works."""
    with GrpcReceiver() as plain, GrpcReceiver(tls=certificates) as secured:
        insecure = send(options_for(f"127.0.0.1:{plain.port}", INSECURE="true"))
        tls = send(options_for(f"127.0.0.1:{secured.port}", CERTIFICATE=str(certificates.authority)))
        mistaken = send(options_for(f"127.0.0.1:{plain.port}", TIMEOUT="2000"))

        assert insecure == tls == Answer(Verdict.ACCEPTED)
        assert (plain.spans, secured.spans) == (2, 2)
        assert mistaken.verdict is Verdict.RETRY
        assert "TLS" in mistaken.words or "DEADLINE" in mistaken.words


def test_dns_and_unix_targets_work(tmp_path: Path) -> None:
    """gRPC's own names are endpoints: `dns:///host:port`, and a unix socket that needs no TLS."""
    path = tmp_path / "otlp.sock"
    with GrpcReceiver() as named, GrpcReceiver(unix_path=str(path)) as local:
        assert send(options_for(f"dns:///127.0.0.1:{named.port}", INSECURE="true")) == Answer(Verdict.ACCEPTED)
        assert send(options_for(f"unix://{path}")) == Answer(Verdict.ACCEPTED)

        assert (named.spans, local.spans) == (2, 2)


def test_a_dns_target_keeps_its_name_beside_its_authority() -> None:
    """Of `dns://server/host:port` the official class keeps the server alone; ours keeps all."""
    exporter = BytesExporter(options_for("dns://192.0.2.1/collector:4317", INSECURE="true"), Signal.TRACES)

    assert exporter._endpoint == "dns://192.0.2.1/collector:4317"
    exporter.shutdown()


def test_tls_and_mutual_tls(certificates: Certificates) -> None:
    """The authority verifies the server, the client certificate is asked for, and without it nothing is sent."""
    files = {"CERTIFICATE": str(certificates.authority), "TIMEOUT": "5000"}
    client = {"CLIENT_KEY": str(certificates.client_key), "CLIENT_CERTIFICATE": str(certificates.client)}
    with GrpcReceiver(tls=certificates, client_required=True) as receiver:
        assert send(options_for(receiver.endpoint, **files, **client)) == Answer(Verdict.ACCEPTED)
        assert send(options_for(receiver.endpoint, **files)).verdict is Verdict.RETRY
        assert send(options_for(receiver.endpoint, TIMEOUT="5000")).verdict is Verdict.RETRY

        assert receiver.spans == 2


def test_a_missing_authority_is_an_error_at_start(tmp_path: Path) -> None:
    """The official class logs it and trusts other roots."""
    with pytest.raises(ExportError, match=r"OTEL_EXPORTER_OTLP_CERTIFICATE.*missing\.pem"):
        GrpcTransport(options_for("https://127.0.0.1:1", CERTIFICATE=str(tmp_path / "missing.pem")), Signal.TRACES)


RETRIED = ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS")


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=lambda code: str(code.name))
def test_each_status_is_retried_or_refused_as_the_specification_says(code: grpc.StatusCode) -> None:
    """Six codes are retried, all others refused; the server's words come along."""
    with GrpcReceiver([Reply(code, message="because")]) as receiver:
        answer = send(options_for(receiver.endpoint))

    assert answer.verdict is (Verdict.RETRY if code.name in RETRIED else Verdict.REFUSED)
    assert "because" in answer.words


def retry_info(seconds: int, nanos: int = 0) -> RetryInfo:
    """A RetryInfo of that delay."""
    info = RetryInfo()
    info.retry_delay.seconds, info.retry_delay.nanos = seconds, nanos
    return info


def test_retry_info_is_found_in_both_places() -> None:
    """RESOURCE_EXHAUSTED with RetryInfo is a pause, in the status details or in a trailer of its own; so it is for UNAVAILABLE."""
    details = Status(code=8, message="slow down")
    details.details.add().Pack(retry_info(3, 500_000_000))
    exhausted, unavailable = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE
    answers = [
        Reply(exhausted, trailers=(("grpc-status-details-bin", details.SerializeToString()),)),
        Reply(exhausted, trailers=(("google.rpc.retryinfo-bin", retry_info(7).SerializeToString()),)),
        Reply(unavailable, trailers=(("google.rpc.retryinfo-bin", retry_info(2).SerializeToString()),)),
        Reply(exhausted, trailers=(("grpc-status-details-bin", b"\xff\xff"),)),
    ]
    with GrpcReceiver(answers) as receiver:
        first, second, third, broken = (send(options_for(receiver.endpoint)) for _ in answers)

    assert [(each.verdict, each.retry_after_s) for each in (first, second, third)] == [
        (Verdict.RETRY, 3.5),
        (Verdict.RETRY, 7.0),
        (Verdict.RETRY, 2.0),
    ]
    assert broken.verdict is Verdict.REFUSED


def test_partial_success_is_read() -> None:
    """The official exporters ignore it; rejected items and the reason come back."""
    with GrpcReceiver([Reply(rejected=1, message="too old"), Reply()]) as receiver:
        assert send(options_for(receiver.endpoint)) == Answer(Verdict.ACCEPTED, "too old", rejected=1)
        assert send(options_for(receiver.endpoint)) == Answer(Verdict.ACCEPTED)


def test_an_oversize_batch_is_split() -> None:
    """What a server refuses for its size (RESOURCE_EXHAUSTED without RetryInfo) arrives in parts, and the books balance."""
    with GrpcReceiver(max_message=4000) as receiver:
        destination = OtlpDestination({Signal.TRACES: options_for(receiver.endpoint)}, backoff=Backoff(0.01, 0.05))
        destination.start()
        destination.offer(Signal.TRACES, spans(60, padding=200))
        destination.offer(Signal.TRACES, spans(1, padding=5000))

        assert destination.flush(20)
        destination.stop()

        assert receiver.spans == 60
        assert destination.books()[Signal.TRACES] == Books(received=61, sent=60, failed=1)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.OUT_OF_RANGE, "Error, decoded message length too large: found 5242880 bytes, the limit is: 4194304 bytes"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (5242880 vs. 4194304)"),
    ],
    ids=["Rust", "Go"],
)
def test_every_servers_words_for_oversize_split_the_batch(code: grpc.StatusCode, words: str) -> None:
    """Implementations of gRPC refuse an oversize request by different codes, which mean other things too: it arrives in halves."""
    with GrpcReceiver([Reply(code, message=words)]) as receiver:
        destination = OtlpDestination({Signal.TRACES: options_for(receiver.endpoint)}, backoff=Backoff(0.01, 0.05))
        destination.start()
        destination.offer(Signal.TRACES, spans(6))

        assert destination.flush(20)
        destination.stop()

    assert destination.books()[Signal.TRACES] == Books(received=6, sent=6)
    assert len(receiver.requests) == 3


def test_a_retry_info_without_a_delay_leaves_the_pause_to_us() -> None:
    """It says that to try again makes sense, not that it should be done at once."""
    reply = Reply(grpc.StatusCode.UNAVAILABLE, trailers=(("google.rpc.retryinfo-bin", b""),))
    with GrpcReceiver([reply]) as receiver:
        assert tries_at_once(receiver, options_for(receiver.endpoint)) == 1


def test_a_server_that_is_killed_and_comes_back_gets_everything() -> None:
    """Kill in mid-load and restart: every span has a fate, and all arrive."""
    with GrpcReceiver() as first:
        destination = OtlpDestination({Signal.TRACES: options_for(first.endpoint)}, backoff=Backoff(0.02, 0.1))
        destination.start()
        for number in range(10):
            destination.offer(Signal.TRACES, spans(2, first=2 * number))
        assert first.wait_for(spans=6)
    for number in range(10, 20):
        destination.offer(Signal.TRACES, spans(2, first=2 * number))
    with GrpcReceiver(port=first.port) as second:
        assert destination.flush(30)
        destination.stop()

        names = {span.name for each in (first, second) for found in each.traces for scope in found.scope_spans for span in scope.spans}
    books = destination.books()[Signal.TRACES]
    assert (books.received, books.sent, books.lost) == (40, 40, 0)
    assert names == {str(number) for number in range(40)}


def test_abort_ends_a_send_that_waits() -> None:
    """abort() from another thread makes send() return long before the timeout, and a closed channel answers too."""
    with GrpcReceiver([Reply(delay_s=30)]) as receiver:
        transport = GrpcTransport(options_for(receiver.endpoint, TIMEOUT="0"), Signal.TRACES)
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(transport.send(spans(1).body)))
        thread.start()
        assert receiver.wait_for(requests=1)

        transport.abort()
        thread.join(10)
        transport.close()
        answers.append(transport.send(spans(1).body))

    assert [answer.verdict for answer in answers] == [Verdict.RETRY] * 2
