"""A real gRPC and a real HTTP receiver of OTLP on 127.0.0.1, with answers that a test programs. For the tests of every part that exports.

    with HttpReceiver() as receiver:
        … export to receiver.endpoint …
        receiver.wait_for(spans=10)

`answers` is consumed one a request, in order; when it is empty every request is accepted. What was accepted is in `traces` and `metrics`.
"""

from __future__ import annotations

import gzip
import http.server
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent import futures
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from tests.export.certificates import Certificates

SPANS = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
POINTS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"


@dataclass(frozen=True, slots=True)
class Reply:
    """One programmed answer. `status` is an HTTP status or a `grpc.StatusCode`; the request is stored only when it is success."""

    status: int | grpc.StatusCode = 200
    rejected: int = 0
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    trailers: tuple[tuple[str, bytes], ...] = ()
    delay_s: float = 0.0
    body: bytes | None = None
    hang_up: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived: path or method, headers with names in lower case, the decoded body, the peer as `host:port`."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    peer: str


class Receiver:
    """What both receivers share: stored telemetry, programmed answers, waiting."""

    def __init__(self, answers: Iterable[Reply] = ()) -> None:
        self.answers: deque[Reply] = deque(answers)
        self.traces: list[ResourceSpans] = []
        self.metrics: list[ResourceMetrics] = []
        self.requests: list[Request] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()

    @property
    def spans(self) -> int:
        """Spans accepted so far."""
        with self._changed:
            return sum(len(scope.spans) for resource in self.traces for scope in resource.scope_spans)

    @property
    def metric_count(self) -> int:
        """Metrics (not points) accepted so far."""
        with self._changed:
            return sum(len(scope.metrics) for resource in self.metrics for scope in resource.scope_metrics)

    def wait_for(self, *, spans: int = 0, metrics: int = 0, requests: int = 0, timeout_s: float = 20.0) -> bool:
        """Waits until at least so much has arrived; whether it did."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.spans >= spans and self.metric_count >= metrics and len(self.requests) >= requests:
                return True
            with self._changed:
                self._changed.wait(0.05)
        return False

    def _take(self, path: str, headers: Mapping[str, str], body: bytes, peer: str) -> Reply:
        with self._changed:
            self.requests.append(Request(path, headers, body, peer))
            reply = self.answers.popleft() if self.answers else Reply()
        self._stopping.wait(reply.delay_s)
        return reply

    def _store(self, body: bytes, *, is_traces: bool) -> None:
        with self._changed:
            if is_traces:
                self.traces.extend(ExportTraceServiceRequest.FromString(body).resource_spans)
            else:
                self.metrics.extend(ExportMetricsServiceRequest.FromString(body).resource_metrics)
            self._changed.notify_all()


def response(is_traces: bool, reply: Reply) -> ExportTraceServiceResponse | ExportMetricsServiceResponse:
    """The OTLP response of an accepted request; as real servers do, it holds an empty partial_success when nothing was rejected."""
    message: ExportTraceServiceResponse | ExportMetricsServiceResponse
    if is_traces:
        message = ExportTraceServiceResponse()
        message.partial_success.rejected_spans = reply.rejected
    else:
        message = ExportMetricsServiceResponse()
        message.partial_success.rejected_data_points = reply.rejected
    message.partial_success.error_message = reply.message
    return message


class HttpReceiver(Receiver):
    """OTLP over HTTP/1.1. With `tls` it speaks https, with `client_required` mutual TLS; `unix_path` listens there instead."""

    def __init__(
        self,
        answers: Iterable[Reply] = (),
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        tls: Certificates | None = None,
        client_required: bool = False,
        unix_path: str | None = None,
        max_body: int | None = None,
    ) -> None:
        super().__init__(answers)
        self.max_body = max_body
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._server = _HttpServer(self, host, port, unix_path)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.server, tls.server_key)
            if client_required:
                context.load_verify_locations(tls.authority)
                context.verify_mode = ssl.CERT_REQUIRED
            self._server.tls = context
        self.port = 0 if unix_path else int(self._server.server_address[1])
        shown = f"[{host}]" if ":" in host else host
        self.endpoint = f"unix:{unix_path}" if unix_path else f"{'https' if tls else 'http'}://{shown}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def kill(self) -> None:
        """Stops listening and cuts every connection. Safe twice."""
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        for each in list(self._open):
            try:
                socket.socket.shutdown(each, socket.SHUT_RDWR)
            except OSError:
                continue
        self._thread.join(5)


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, receiver: HttpReceiver, host: str, port: int, unix_path: str | None) -> None:
        self.receiver = receiver
        self.tls: ssl.SSLContext | None = None
        self.address_family = socket.AF_UNIX if unix_path else socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler, bind_and_activate=False)
        if unix_path:
            self.socket.bind(unix_path)
        else:
            self.server_bind()
        self.server_activate()

    def server_bind(self) -> None:
        # The base class asks the name server for this host's name.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = self.socket.accept()
        return connection, address or ("unix", 0)

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.receiver.connections += 1
        self.receiver._open.add(request)
        try:
            if self.tls is not None:
                with self.tls.wrap_socket(request, server_side=True) as secured:
                    self.receiver._open.add(secured)
                    super().finish_request(secured, client_address)
                    self.receiver._open.discard(secured)
            else:
                super().finish_request(request, client_address)
        except OSError:
            pass
        finally:
            self.receiver._open.discard(request)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HttpServer

    def setup(self) -> None:
        super().setup()
        if self.server.address_family != socket.AF_UNIX:
            # Else head and body of an answer, written apart, wait for each other's acknowledgement.
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_POST(self) -> None:
        receiver = self.server.receiver
        length = int(self.headers.get("content-length", "0"))
        body = self.rfile.read(length)
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = receiver._take(self.path, headers, body, f"{self.client_address[0]}:{self.client_address[1]}")
        if receiver.max_body is not None and len(body) > receiver.max_body:
            reply = Reply(413, body=b"request body too large")
        if reply.hang_up:
            self.close_connection = True
            return
        if reply.status == 200:
            receiver._store(body, is_traces="traces" in self.path)
        self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        content = reply.body
        if content is None:
            content = response("traces" in self.path, reply).SerializeToString() if reply.status == 200 else reply.message.encode()
        self.send_response(int(reply.status) if isinstance(reply.status, int) else 500)
        given = {name.lower() for name in reply.headers}
        if "content-type" not in given:
            self.send_header("Content-Type", "application/x-protobuf" if reply.status == 200 else "text/plain")
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """A test's output is its own."""


class GrpcReceiver(Receiver):
    """OTLP over gRPC. With `tls` it speaks TLS, with `client_required` mutual TLS; `unix_path` listens there instead."""

    def __init__(
        self,
        answers: Iterable[Reply] = (),
        *,
        port: int = 0,
        tls: Certificates | None = None,
        client_required: bool = False,
        unix_path: str | None = None,
        max_message: int | None = None,
    ) -> None:
        super().__init__(answers)
        options: list[tuple[str, Any]] = [("grpc.so_reuseport", 0)]
        if max_message is not None:
            options.append(("grpc.max_receive_message_length", max_message))
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
        self._server.add_generic_rpc_handlers((_GrpcHandler(self),))
        address = f"unix:{unix_path}" if unix_path else f"127.0.0.1:{port}"
        if tls is None:
            self.port = self._server.add_insecure_port(address)
        else:
            pair = (tls.server_key.read_bytes(), tls.server.read_bytes())
            credentials = grpc.ssl_server_credentials([pair], tls.authority.read_bytes(), client_required)
            self.port = self._server.add_secure_port(address, credentials)
        self.endpoint = address if unix_path else f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def kill(self) -> None:
        """Stops listening and cuts every call. Safe twice."""
        self._stopping.set()
        self._server.stop(0).wait(5)

    def export(self, body: bytes, context: grpc.ServicerContext, *, method: str) -> bytes:
        """Serves one request."""
        headers = {str(key): str(value) for key, value in context.invocation_metadata()}
        reply = self._take(method, headers, body, context.peer())
        status = reply.status
        if isinstance(status, grpc.StatusCode) and status is not grpc.StatusCode.OK:
            context.set_trailing_metadata(reply.trailers)
            context.abort(status, reply.message)
        self._store(body, is_traces=method == SPANS)
        return response(method == SPANS, reply).SerializeToString()


class _GrpcHandler(grpc.GenericRpcHandler):
    def __init__(self, receiver: GrpcReceiver) -> None:
        self._receiver = receiver

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        if method not in (SPANS, POINTS):
            return None
        return grpc.unary_unary_rpc_method_handler(lambda body, context: self._receiver.export(body, context, method=method))
