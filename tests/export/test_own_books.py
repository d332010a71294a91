"""The books of destinations among the agent's own counters."""

from __future__ import annotations

import os

from otel_ebpf_receiver.export.console import Console
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.exporter import OtlpDestination
from otel_ebpf_receiver.export.otlp.options import OtlpOptions
from otel_ebpf_receiver.export.own_books import count_books
from otel_ebpf_receiver.status.counters import Counters
from otel_ebpf_receiver.status.exposition import exposition
from tests.export.payloads import points, spans
from tests.export.receivers import HttpReceiver, Reply
from tests.export.rows import Exchange


def test_books_are_read_under_both_names() -> None:
    """Own names for every fate, the conventions' names beside them, and the console's lines too."""
    counters = Counters()
    with HttpReceiver([Reply(rejected=1)]) as receiver:
        options = {signal: OtlpOptions(f"{receiver.endpoint}/v1/{signal}") for signal in Signal}
        destination = OtlpDestination({Signal.TRACES: options[Signal.TRACES], Signal.METRICS: options[Signal.METRICS]})
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
    component = 'otel_component_name="otlp/traces",otel_component_type="otel_ebpf_receiver"'
    assert f"otel_sdk_exporter_span_exported_total{{{component}}} 2" in text
    assert f'otel_sdk_exporter_span_exported_total{{error_type="rejected",{component}}} 1' in text
    assert f'otel_sdk_processor_span_processed_total{{error_type="queue_full",{component}}} 2' in text
