"""Encoded requests of a given number of spans or data points, for tests that care about counts and not about contents."""

from __future__ import annotations

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from otel_ebpf_receiver.export.queue import Payload


def spans(count: int, *, first: int = 0, padding: int = 0) -> Payload:
    """`count` spans named by their number from `first` on, each with `padding` bytes of attribute."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = resource.scope_spans.add()
    scope.scope.name = "tests"
    for number in range(first, first + count):
        span = scope.spans.add(name=str(number), trace_id=number.to_bytes(16), span_id=number.to_bytes(8))
        if padding:
            span.attributes.add(key="padding").value.string_value = "x" * padding
    return Payload(request.SerializeToString(), count)


def points(count: int, *, name: str = "requests") -> Payload:
    """One cumulative sum with `count` points."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    metric = resource.scope_metrics.add().metrics.add(name=name)
    metric.sum.is_monotonic = True
    metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    for number in range(count):
        metric.sum.data_points.add(as_int=number).attributes.add(key="n").value.int_value = number
    return Payload(request.SerializeToString(), count)
