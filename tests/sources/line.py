"""A pipeline over given records, and its output as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_ebpf_receiver.export.queue import Payload
from otel_ebpf_receiver.pipeline import Line, TelemetryOptions
from otel_ebpf_receiver.sources.http import source
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.sources.source import Source, View
from otel_ebpf_receiver.telemetry.columns import Bools, Records
from otel_ebpf_receiver.telemetry.routes import RouteOptions
from otel_ebpf_receiver.telemetry.sampling import SamplingOptions
from otel_ebpf_receiver.telemetry.workload import Flows, Identified, Sides, Workload
from tests.sources.records import MS, START_NS, UnixClock

NOW = START_NS + 1000 * MS
SERVER, CLIENT = 2, 3


class Feed:
    """A transport that gives each of its batches once."""

    def __init__(self, *batches: Records) -> None:
        self._batches = list(batches)
        self._none = batches[0][:0]

    def drain(self) -> Records:
        return self._batches.pop(0) if self._batches else self._none


class Known:
    """Says the same of every flow: both kinds are reported, of the workloads given."""

    def __init__(
        self, server: Workload | None = None, client: Workload | None = None, names: Mapping[bytes, str] | None = None, **more: bool
    ) -> None:
        self.workloads = tuple(workload for workload in (server, client) if workload is not None)
        self._server = 0 if server is not None else -1
        self._client = len(self.workloads) - 1 if client is not None else -1
        self._names, self._more = names or {}, more
        self.exporting: list[tuple[list[int], list[int]]] = []

    @property
    def news(self) -> object:
        return None

    def identify(self, flows: Flows, *, has_waited: bool = False, arrived: Bools | None = None, is_open: bool = False) -> Identified:
        n = len(flows.tap)
        out = Identified(
            self.workloads,
            np.full(n, self._server, np.int32),
            np.full(n, self._client, np.int32),
            np.ones(n, bool),
            np.ones(n, bool),
            np.zeros(n, bool),
        )
        return replace(out, **{name: _column(name, np.full(n, value)) for name, value in self._more.items()})  # type: ignore[arg-type]

    def name(self, address: bytes) -> str:
        return self._names.get(address, "")

    def saw_exports(self, who: Identified, spans: Bools, metrics: Bools) -> None:
        self.exporting.append((np.flatnonzero(spans).tolist(), np.flatnonzero(metrics).tolist()))


def _column(name: str, values: Bools) -> Bools | Sides:
    return Sides(values, values) if name in ("silent", "uncounted") else values


class Sink:
    """Keeps what it is offered."""

    def __init__(self) -> None:
        self.payloads: list[Payload] = []

    def offer(self, payload: Payload) -> None:
        self.payloads.append(payload)


class Ran:
    """A line that has run to its end, and its spans and points as plain data."""

    def __init__(self, line: Line, sink: Sink) -> None:
        self.line = line
        self.spans = [span for payload in sink.payloads for span in _spans(payload)]
        self.collection = line.collect(NOW + MS)[0]
        self.points = [point for payload in self.collection.payloads for point in points(payload)]

    def span(self, kind: int = SERVER) -> dict[str, Any]:
        (span,) = [span for span in self.spans if span["kind"] == kind]
        return span

    def attributes(self, kind: int = SERVER) -> dict[str, Any]:
        found: dict[str, Any] = self.span(kind)["attributes"]
        return found


class Views:
    """Keeps every view it is shown."""

    def __init__(self) -> None:
        self.views: list[View] = []

    def watch(self, source: Source, view: View) -> None:
        self.views.append(view)


def run(
    *batches: Records,
    options: HttpOptions | None = None,
    identity: Known | None = None,
    sampling: SamplingOptions | None = None,
    routes: RouteOptions | None = None,
    watchers: Sequence[Views] = (),
    sources: Sequence[Source] = (),
    begun: Records | None = None,
) -> Ran:
    """Runs batches of one source (HTTP unless told otherwise) through a whole pipeline."""
    telemetry = TelemetryOptions(
        bytes(range(16)),
        {"service.name": "unknown_service"},
        sampling=sampling or SamplingOptions("always_on", spans_per_second=0),
        routes=routes or RouteOptions(),
    )
    used = sources[0] if sources else source(options or HttpOptions())
    line = Line(telemetry, [(used, Feed(*batches))], identity or Known(), UnixClock(), start_unix_ns=START_NS - MS)
    sink = Sink()
    line.sinks, line.watchers, line.begun = [sink], watchers, lambda source: begun
    for _ in batches:
        line.run(now_ns=NOW)
    line.run(now_ns=NOW, is_last=True)
    line.flush()
    return Ran(line, sink)


def value(any_value: Any) -> Any:
    """The plain value of an OTLP `AnyValue`."""
    which = any_value.WhichOneof("value")
    return [item.string_value for item in any_value.array_value.values] if which == "array_value" else getattr(any_value, which)


def plain(attributes: Any) -> dict[str, Any]:
    """OTLP attributes as a dict; none may be there twice."""
    out = {attribute.key: value(attribute.value) for attribute in attributes}
    assert len(out) == len(attributes), "no attribute is there twice"
    return out


def _spans(payload: Payload) -> list[dict[str, Any]]:
    return [
        {
            "resource": plain(resource.resource.attributes),
            "name": span.name,
            "kind": span.kind,
            "status": span.status.code,
            "start": span.start_time_unix_nano,
            "end": span.end_time_unix_nano,
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "parent": span.parent_span_id,
            "trace_state": span.trace_state,
            "flags": span.flags,
            "attributes": plain(span.attributes),
        }
        for resource in ExportTraceServiceRequest.FromString(payload.body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def points(payload: Payload) -> list[dict[str, Any]]:
    """The points of one request as plain data."""
    return [
        {
            "resource": plain(resource.resource.attributes),
            "metric": metric.name,
            "unit": metric.unit,
            "attributes": plain(point.attributes),
            "point": point,
            "sum": metric.sum,
        }
        for resource in ExportMetricsServiceRequest.FromString(payload.body).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in getattr(metric, metric.WhichOneof("data") or "").data_points
    ]
