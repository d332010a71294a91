"""The books of destinations among the agent's own counters."""

from __future__ import annotations

import os
import time

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_ebpf_receiver.export.console import Console
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.exporter import OtlpDestination
from otel_ebpf_receiver.export.otlp.options import OtlpOptions
from otel_ebpf_receiver.export.own_books import count_books
from otel_ebpf_receiver.export.queue import QueueLimits
from otel_ebpf_receiver.status.counters import Counters
from otel_ebpf_receiver.status.exposition import exposition
from otel_ebpf_receiver.status.own import OwnTelemetry
from tests.export.payloads import points, spans
from tests.export.receivers import HttpReceiver, Reply
from tests.export.rows import Exchange


def test_books_are_read_under_both_names() -> None:
    """Own names for every fate, the conventions' names beside them, and the console's lines too."""
    counters = Counters()
    with HttpReceiver([Reply(rejected=1)]) as receiver:
        options = {signal: OtlpOptions(f"{receiver.endpoint}/v1/{signal}") for signal in Signal}
        limits = QueueLimits(spans_max_items=500)
        destination = OtlpDestination({Signal.TRACES: options[Signal.TRACES], Signal.METRICS: options[Signal.METRICS]}, limits=limits)
        reader, writer = os.pipe()
        console = Console(writer)
        count_books(counters, [destination], [console])
        destination.start()
        destination.offer(Signal.TRACES, spans(3))
        assert destination.flush(10)
        destination.offer(Signal.METRICS, points(4))
        assert destination.flush(10)
        destination.stop()
        console.offer([Exchange()])
        destination.offer(Signal.TRACES, spans(2))

        text = exposition(counters.readings())
        os.close(reader)
        os.close(writer)

    assert 'otel_ebpf_receiver_export_received_total{destination="otlp",signal="traces"} 5' in text
    assert 'otel_ebpf_receiver_export_sent_total{destination="otlp",signal="metrics"} 4' in text
    assert 'otel_ebpf_receiver_export_rejected_total{destination="otlp",signal="traces"} 1' in text
    assert 'otel_ebpf_receiver_export_dropped_total{destination="otlp",signal="traces"} 2' in text
    assert 'otel_ebpf_receiver_export_queued{destination="console",signal="lines"} 1' in text
    assert 'otel_ebpf_receiver_export_queue_bytes{destination="otlp",signal="traces"} 0' in text
    assert 'otel_ebpf_receiver_export_queue_limit_bytes{destination="otlp",signal="metrics"} 8388608' in text
    component = 'otel_component_name="otlp/traces",otel_component_type="otel_ebpf_receiver"'
    assert f"otel_sdk_exporter_span_exported_total{{{component}}} 2" in text
    assert f'otel_sdk_exporter_span_exported_total{{error_type="rejected",{component}}} 1' in text
    assert f"otel_sdk_processor_span_queue_capacity{{{component}}} 500" in text
    assert f'otel_sdk_exporter_operation_duration_seconds_count{{error_type="rejected",{component}}} 1' in text
    assert f"otel_sdk_exporter_operation_duration_seconds_count{{{component.replace('traces', 'metrics')}}} 1" in text
    assert f'otel_sdk_processor_span_processed_total{{error_type="queue_full",{component}}} 2' in text


def test_what_is_on_the_wire_is_in_flight_and_not_in_the_queue() -> None:
    """While a slow backend thinks: one request is in flight, the next waits; afterwards neither."""
    counters = Counters()
    with HttpReceiver([Reply(delay_s=1.5)]) as receiver:
        destination = OtlpDestination({Signal.TRACES: OtlpOptions(f"{receiver.endpoint}/v1/traces")})
        count_books(counters, [destination])
        destination.start()
        destination.offer(Signal.TRACES, spans(3))
        deadline = time.monotonic() + 10
        while not destination.books()[Signal.TRACES].in_flight and time.monotonic() < deadline:
            time.sleep(0.01)
        destination.offer(Signal.TRACES, spans(2))
        during = values(counters)
        flushed = destination.flush(20)
        after = values(counters)
        destination.stop()

    assert flushed
    names = ("otel.sdk.exporter.span.inflight", "otel.sdk.processor.span.queue.size", "otel.sdk.exporter.span.exported")
    assert [during[name] for name in names] == [3, 2, 0]
    assert [after[name] for name in names] == [0, 0, 5]


def values(counters: Counters) -> dict[str, float]:
    """The points of the agent's own telemetry as it goes over OTLP, by the name of their metric."""
    own = OwnTelemetry(counters, {"service.name": "agent"})
    body, _ = own.collect()
    own.stop()
    (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    return {metric.name: sum(point.as_int for point in metric.sum.data_points) for metric in resource.scope_metrics[0].metrics}
