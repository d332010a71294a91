"""Splitting encoded requests: nothing lost, nothing twice, order and surroundings kept."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.split import cut, halve
from otel_ebpf_receiver.export.queue import Payload
from tests.export.payloads import points, spans


def nested() -> Payload:
    """Seven spans in three resources and several scopes."""
    request = ExportTraceServiceRequest()
    number = 0
    for resource_number, scopes in enumerate([[2], [1, 3], [1]]):
        resource = request.resource_spans.add(schema_url=f"schema{resource_number}")
        resource.resource.attributes.add(key="service.name").value.string_value = f"service{resource_number}"
        for scope_number, count in enumerate(scopes):
            scope = resource.scope_spans.add(schema_url="s")
            scope.scope.name = f"scope{scope_number}"
            for _ in range(count):
                scope.spans.add(name=str(number))
                number += 1
    return Payload(request.SerializeToString(), number)


def described(payload: Payload) -> list[tuple[str, str, str, str]]:
    """Every span with all that surrounds it."""
    request = ExportTraceServiceRequest.FromString(payload.body)
    return [
        (resource.resource.attributes[0].value.string_value, resource.schema_url, scope.scope.name + scope.schema_url, span.name)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def test_halves_hold_every_span_in_its_surroundings() -> None:
    """Resources, scopes and schema URLs are repeated where a cut goes through them, and only there."""
    whole = nested()

    first, second = halve(Signal.TRACES, whole)

    assert (first.items, second.items) == (3, 4)
    assert described(first) + described(second) == described(whole)
    assert len(ExportTraceServiceRequest.FromString(first.body).resource_spans) == 2


@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_a_cut_obeys_its_bound(most: int) -> None:
    """Parts hold at most so many items, and together all of them in order."""
    parts = cut(Signal.TRACES, nested(), most)

    assert all(part.items <= most for part in parts)
    assert [row for part in parts for row in described(part)] == described(nested())


def test_data_points_of_one_metric_are_divided() -> None:
    """Both halves carry the metric's name, kind and temporality."""
    first, second = halve(Signal.METRICS, points(5, name="requests"))

    halves = [ExportMetricsServiceRequest.FromString(half.body) for half in (first, second)]
    metrics = [half.resource_metrics[0].scope_metrics[0].metrics[0] for half in halves]
    assert [[point.as_int for point in metric.sum.data_points] for metric in metrics] == [[0, 1], [2, 3, 4]]
    assert all((metric.name, metric.sum.is_monotonic, metric.sum.aggregation_temporality) == ("requests", True, 2) for metric in metrics)


@pytest.mark.parametrize("kind", ["gauge", "histogram", "exponential_histogram", "summary"])
def test_every_kind_of_metric_can_be_divided(kind: str) -> None:
    """The kind survives even where a half holds a single point."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    for moment in (1, 2):
        getattr(metric, kind).data_points.add(time_unix_nano=moment)

    halves = halve(Signal.METRICS, Payload(request.SerializeToString(), 2))

    found = [ExportMetricsServiceRequest.FromString(half.body).resource_metrics[0].scope_metrics[0].metrics[0] for half in halves]
    assert [[point.time_unix_nano for point in getattr(each, kind).data_points] for each in found] == [[1], [2]]


def test_a_single_item_cannot_be_divided() -> None:
    """It comes back as it is."""
    assert halve(Signal.TRACES, spans(1)) == [spans(1)]


def test_a_wrong_count_stays_balanced() -> None:
    """Items add up to what the payload said of itself, whatever it holds."""
    assert [part.items for part in halve(Signal.TRACES, Payload(spans(4).body, 1))] == [1, 0]
    assert [part.items for part in halve(Signal.TRACES, Payload(spans(4).body, 10))] == [2, 8]
