"""Whether a refused request is left alone for as long as the back-off says."""

from __future__ import annotations

from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.exporter import OtlpDestination
from otel_ebpf_receiver.export.otlp.options import OtlpOptions
from otel_ebpf_receiver.export.sender import Backoff
from tests.export.payloads import spans
from tests.export.receivers import Receiver


def tries_at_once(receiver: Receiver, options: OtlpOptions) -> int:
    """Requests of a destination whose back-off is a minute, a moment after the first was refused; the span must still wait."""
    destination = OtlpDestination({Signal.TRACES: options}, backoff=Backoff(60.0, 60.0))
    destination.start()
    destination.offer(Signal.TRACES, spans(1))
    assert receiver.wait_for(requests=1)

    assert not destination.flush(0.3)
    destination.stop()
    return len(receiver.requests)
