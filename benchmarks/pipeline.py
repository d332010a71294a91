"""CPU of the user side per exchange: records in, OTLP out to a receiver in another process that parses and throws away.

    .venv/bin/python -m benchmarks.pipeline [--rounds N] [--no-sdk]

50 workloads, 2,000 routes, half of the paths never seen before, templating on, nothing dropped. Counted is the CPU of this whole process (all
threads, user and system) while batches pass; making them is not. Rounds of the variants alternate; printed are medians.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.traffic import KnownByPort, SameClock, batches, workloads
from otel_ebpf_receiver import memory
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.exporter import OtlpDestination
from otel_ebpf_receiver.export.otlp.options import Compression, OtlpOptions
from otel_ebpf_receiver.export.queue import Payload, QueueLimits
from otel_ebpf_receiver.kernel.room import Room
from otel_ebpf_receiver.pipeline import Line, TelemetryOptions
from otel_ebpf_receiver.sources.http import source
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.telemetry.columns import Records
from otel_ebpf_receiver.telemetry.routes import RouteOptions
from otel_ebpf_receiver.telemetry.sampling import SamplingOptions

ROWS = 8192
WARM = 40
MEASURED = 50
UNIX_NS = 1_700_000_100_000_000_000
VARIANTS = {
    "metrics only": (False, Compression.NONE),
    "every exchange a span": (True, Compression.NONE),
    "the same, gzip": (True, Compression.GZIP),
}


class Handler(BaseHTTPRequestHandler):
    """Parses each request and forgets it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") != "gzip":
            (ExportTraceServiceRequest if self.path.endswith("traces") else ExportMetricsServiceRequest).FromString(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def receive(port: Connection) -> None:
    """The receiver's process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.send(server.server_port)
    server.serve_forever()


class Feed:
    """Gives prepared batches, one a call, as copies: so does a ring."""

    def __init__(self, prepared: list[Records]) -> None:
        self._prepared = prepared
        self._room = Room(prepared[0].dtype)
        self._next = 0

    def drain(self) -> Records:
        self._next += 1
        batch = self._prepared[self._next - 1]
        rows = self._room.take(len(batch))
        rows[:] = batch.view(rows.dtype)
        return rows.view(batch.dtype)


class ToTraces:
    """A sink of spans that waits while the queue is half full, as no queue in a benchmark may drop."""

    def __init__(self, destination: OtlpDestination) -> None:
        self._destination = destination

    def offer(self, payload: Payload) -> None:
        self._destination.offer(Signal.TRACES, payload)
        while self._destination.books()[Signal.TRACES].queued_bytes > 12 << 20:
            time.sleep(0.002)


def once(prepared: list[Records], port: int, *, makes_spans: bool, compression: Compression) -> float:
    """CPU seconds per exchange of one round."""
    url = f"http://127.0.0.1:{port}/v1/"
    options = {signal: OtlpOptions(url + signal.value, compression=compression) for signal in Signal}
    destination = OtlpDestination(options, limits=QueueLimits())
    destination.start()
    telemetry = TelemetryOptions(
        bytes(16),
        {"service.name": "unknown_service"},
        sampling=SamplingOptions("always_on", spans_per_second=0),
        routes=RouteOptions(templating=True),
        makes_spans=makes_spans,
    )
    line = Line(telemetry, [(source(HttpOptions()), Feed(prepared))], KnownByPort(workloads()), SameClock(), start_unix_ns=1)
    line.sinks = [ToTraces(destination)]
    for number in range(WARM):
        line.run(now_ns=UNIX_NS + number)
    destination.flush(60)
    start = time.process_time()
    for number in range(MEASURED):
        line.run(now_ns=UNIX_NS + WARM + number)
    line.flush()
    collection = line.collect(UNIX_NS + 10**9)[0]
    for payload in collection.payloads:
        destination.offer(Signal.METRICS, payload)
    destination.flush(60)
    spent = time.process_time() - start
    books = destination.books()
    lost = sum(one.lost for one in books.values())
    destination.finish(time.monotonic())
    destination.stop()
    if lost or line.counts.admitted != ROWS * (WARM + MEASURED):
        raise SystemExit(f"something was dropped: {books}")
    return spent / (ROWS * MEASURED)


def sdk(count: int = 20_000) -> tuple[float, float]:
    """The same work through the SDK: a span with 15 attributes, and a histogram's record; seconds each."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Encode(SpanExporter):
        def export(self, spans: tuple[ReadableSpan, ...]) -> SpanExportResult:  # type: ignore[override]
            encode_spans(spans).SerializeToString()
            return SpanExportResult.SUCCESS

    provider = TracerProvider(resource=Resource(dict(workloads()[0].attributes)), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Encode(), max_queue_size=2 * count))
    tracer = provider.get_tracer("benchmark")
    attributes = {f"attribute.{number}": "value" if number % 2 else number for number in range(15)}
    start = time.process_time()
    for _ in range(count):
        tracer.start_span("GET /x", attributes=attributes).end()
    provider.shutdown()
    span = (time.process_time() - start) / count
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    histogram = meters.get_meter("benchmark").create_histogram("duration")
    start = time.process_time()
    for number in range(count):
        histogram.record(0.01, {"a": number % 40, "b": "GET", "c": 200, "d": "http", "e": "1.1", "f": "x"})
    return span, (time.process_time() - start) / count


def main() -> None:
    memory.in_large_pages()
    memory.tune()
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--sdk", action=argparse.BooleanOptionalAction, default=True, help="measure the same work through the SDK too")
    chosen = arguments.parse_args()
    ours, theirs = multiprocessing.Pipe()
    receiver = multiprocessing.Process(target=receive, args=(theirs,), daemon=True)
    receiver.start()
    port = ours.recv()
    prepared = batches(WARM + MEASURED, ROWS)
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(chosen.rounds):
        for name, (makes_spans, compression) in VARIANTS.items():
            found[name].append(once(prepared, port, makes_spans=makes_spans, compression=compression))
    receiver.terminate()
    receiver.join()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}"
    )
    for name, values in found.items():
        median = statistics.median(values)
        print(f"{name:24} {median * 1e6:6.2f} µs CPU per exchange, {1 / median / 1e3:8.0f} k/s per core")
    if chosen.sdk:
        span, record = sdk()
        print(f"{'one span by the SDK':24} {span * 1e6:6.2f} µs: tracer.start_span, BatchSpanProcessor, OTLP encoder")
        print(f"{'one record by the SDK':24} {record * 1e6:6.2f} µs: Histogram.record")


if __name__ == "__main__":
    main()
