"""Sends encoded OTLP requests through the official gRPC exporter's own class: its endpoint, TLS, header and channel handling, our bytes.

Nothing is read from the environment here: every setting is passed explicitly, as the official class reads timeouts as seconds, refuses
`none` as a compression, and falls back to other roots when a file is missing. Its retry, which gives up after six tries, is not used.
gRPC makes its connections itself, so they cannot be registered as the agent's own before they connect; they are HTTP/2 and thereby
opaque to the HTTP/1 source.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc import _USER_AGENT_HEADER_VALUE
from opentelemetry.exporter.otlp.proto.grpc.exporter import OTLPExporterMixin

from otel_ebpf_receiver.errors import ExportError
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.http.user_agent import user_agent
from otel_ebpf_receiver.export.otlp.answers import OVERSIZE, RESPONSES, WORDS_MAX, accepted, retry_delay_s
from otel_ebpf_receiver.export.otlp.credentials import Files, read_credentials
from otel_ebpf_receiver.export.otlp.options import Compression, OtlpOptions
from otel_ebpf_receiver.export.sender import Answer, Verdict

logger = logging.getLogger(__name__)
METHODS: dict[Signal, str] = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
RETRIED = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""By the OTLP specification; RESOURCE_EXHAUSTED joins only with RetryInfo."""
OVERSIZED = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE})
"""What a request is refused with that is too large: the first by gRPC in C, Go and Java, the second in Rust. Both mean other things as well."""
CHANNEL = (
    # gRPC's own pause between connection attempts grows to two minutes; ours decides, so its may not outlast it.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 5000),
    # Two signals to one server are two connections, so that one that is aborted does not take the other with it.
    ("grpc.use_local_subchannel_pool", 1),
)
COMPRESSIONS = {Compression.NONE: grpc.Compression.NoCompression, Compression.GZIP: grpc.Compression.Gzip}


class BytesExporter(OTLPExporterMixin):  # type: ignore[type-arg]
    """The official exporter with a stub that takes encoded requests, for either signal."""

    def __init__(self, options: OtlpOptions, signal: Signal) -> None:
        self._target = options.endpoint
        super().__init__(
            stub=_bytes_stub(signal),
            result=None,
            endpoint=options.endpoint,
            insecure=not options.is_secure,
            credentials=_credentials(options) if options.is_secure else None,
            headers=options.headers,
            timeout=options.timeout_s,
            compression=COMPRESSIONS[options.compression],
            channel_options=(("grpc.primary_user_agent", f"{user_agent()} {_USER_AGENT_HEADER_VALUE}"), *CHANNEL),  # type: ignore[arg-type]
            signal=signal.value,
        )
        # The class takes no headers for "not given" and then reads the environment, which options_from_env has already judged.
        self._headers = options.headers

    def call(self, body: bytes, timeout_s: float | None) -> Any:
        """Starts the call; the future's result is the response message. Raises ValueError on a closed channel."""
        return self._client.future(body, metadata=self._headers, timeout=timeout_s)  # type: ignore[attr-defined]

    def _initialize_channel_and_stub(self) -> None:
        # Of `dns://authority/host:port` the class would keep the authority alone.
        if not self._target.startswith(("http://", "https://")):
            self._endpoint = self._target
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]

    def _translate_data(self, data: Any) -> Any:
        return data

    def _count_data(self, data: Any) -> int:
        return 1

    @property
    def _exporting(self) -> str:
        return self._signal


class GrpcTransport:
    """One channel to one target; `send` belongs to one thread, `abort` and `close` to any."""

    def __init__(self, options: OtlpOptions, signal: Signal) -> None:
        self._options, self._signal = options, signal
        self._files, self._is_stale = Files(options), False
        self._exporter = BytesExporter(options, signal)
        self._call: Any = None
        self._is_closed = False

    def send(self, body: bytes, limit_s: float | None = None) -> Answer:
        """Exports `body`; every status is an answer."""
        self._renew()
        timeout_s = min((limit for limit in (self._options.timeout_s, limit_s) if limit is not None), default=None)
        try:
            self._call = self._exporter.call(body, timeout_s)
            return accepted(self._call.result())
        except grpc.FutureCancelledError:
            return Answer(Verdict.RETRY, "aborted")
        except grpc.RpcError as error:
            return _answer(error, self._hint())
        except ValueError as error:
            return Answer(Verdict.RETRY, str(error))
        finally:
            self._call = None

    def abort(self) -> None:
        """Makes a running `send` return with RETRY."""
        if (call := self._call) is not None:
            call.cancel()

    def close(self) -> None:
        """Closes the channel. Safe twice."""
        self._is_closed = True
        if not self._exporter._shutdown:
            self._exporter.shutdown()

    def _renew(self) -> None:
        """A channel keeps the certificates it was made with: when their files have changed another takes its place."""
        self._is_stale |= self._options.is_secure and self._files.have_changed()
        if not self._is_stale or self._is_closed:
            return
        try:
            old, self._exporter = self._exporter, BytesExporter(self._options, self._signal)
        except ExportError as error:
            logger.warning("changed certificates cannot be used", extra={"reason": str(error)})
            return
        self._is_stale = False
        old.shutdown()

    def _hint(self) -> str:
        if self._options.is_secure and "://" not in self._options.endpoint:
            return f" ('{self._options.endpoint}' without http:// means TLS)"
        return ""


def _bytes_stub(signal: Signal) -> Callable[[Any], Any]:
    def stub(channel: Any) -> Any:
        return channel.unary_unary(METHODS[signal], request_serializer=None, response_deserializer=RESPONSES[signal].FromString)

    return stub


def _credentials(options: OtlpOptions) -> Any:
    credentials = read_credentials(options)
    return grpc.ssl_channel_credentials(credentials.roots, credentials.key, credentials.chain)


def _answer(error: Any, hint: str) -> Answer:
    code: grpc.StatusCode = error.code()
    trailers = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, bytes)}
    words = f"{code.name}: {error.details() or ''}"[:WORDS_MAX]
    delay_s = retry_delay_s(trailers.get("grpc-status-details-bin"), trailers.get("google.rpc.retryinfo-bin"))
    if code in OVERSIZED and delay_s is None and OVERSIZE.search(words):
        return Answer(Verdict.TOO_LARGE, words)
    if code in RETRIED or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay_s is not None):
        return Answer(Verdict.RETRY, words + (hint if code is grpc.StatusCode.UNAVAILABLE else ""), retry_after_s=delay_s)
    return Answer(Verdict.REFUSED, words)
