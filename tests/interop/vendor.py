"""A strict double of a vendor's OTLP endpoint: HTTPS with a certificate of its own, a key in a header, gzip only, delta metrics only, a limit on requests.

What real vendors refuse it refuses with the answer that they give, so a sender that gets one of the rules wrong delivers nothing.
"""

from __future__ import annotations

import gzip
import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from tests.capture.namespaces import Namespace
from tests.export.certificates import Certificates

PORT = 4443
KEY = "sesame-1234"
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


class Vendor:
    """What was accepted, the status of every answer, and how many of the next requests are above the limit."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.answers: list[int] = []
        self.refusals: list[str] = []
        self.over_limit = 0

    def take(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        """The status, and the reason where it is no success."""
        if headers.get("api-key") != KEY:
            return 401, "the header api-key is missing or wrong"
        if headers.get("content-encoding") != "gzip" or headers.get("content-type") != "application/x-protobuf":
            return 415, "gzip of application/x-protobuf only"
        if self.over_limit > 0:
            self.over_limit -= 1
            return 429, "too many requests"
        content = gzip.decompress(body)
        if path == "/v1/traces":
            self.traces.append(ExportTraceServiceRequest.FromString(content))
            return 200, ""
        if path != "/v1/metrics":
            return 404, f"no {path} here"
        request = ExportMetricsServiceRequest.FromString(content)
        if bad := [metric.name for metric in _metrics(request) if not _is_delta(metric)]:
            return 400, f"not delta: {', '.join(bad)}"
        self.metrics.append(request)
        return 200, ""

    def counted(self, name: str) -> dict[int, int]:
        """Observations of a histogram by status code: the sum of all deltas."""
        totals: dict[int, int] = {}
        for request in self.metrics:
            for metric in _metrics(request):
                for point in metric.histogram.data_points if metric.name == name else ():
                    status = next(one.value.int_value for one in point.attributes if one.key == "http.response.status_code")
                    totals[status] = totals.get(status, 0) + point.count
        return totals

    def span_ids(self) -> list[bytes]:
        """Ids of all spans."""
        return [
            span.span_id
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def _metrics(request: ExportMetricsServiceRequest) -> Iterator[Metric]:
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            yield from scope.metrics


def _is_delta(metric: Metric) -> bool:
    """Gauges have no temporality, and a sum that may fall is told as it is: the specification's `delta` preference keeps it cumulative."""
    match metric.WhichOneof("data"):
        case "histogram":
            return metric.histogram.aggregation_temporality == DELTA
        case "sum":
            return metric.sum.aggregation_temporality == DELTA or not metric.sum.is_monotonic
        case kind:
            return kind == "gauge"


@contextmanager
def vendor(here: Namespace, files: Certificates) -> Iterator[Vendor]:
    """It serves at https://127.0.0.1:PORT there."""
    made = Vendor()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with made.lock:
                status, reason = made.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                made.answers.append(status)
                if reason:
                    made.refusals.append(f"{status} {reason}")
            self.send_response_only(status)
            if status == 429:
                self.send_header("Retry-After", "1")
            self.send_header("Content-Length", str(len(reason)))
            self.end_headers()
            self.wfile.write(reason.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            """A test's output is its own."""

    with here.inside():
        server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server, files.server_key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
