"""The OTLP exporter: a queue, a sender and a transport for each signal it was given options for."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from otel_ebpf_receiver.export.complaints import Complaints
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.http.connection import Register, register_nothing
from otel_ebpf_receiver.export.otlp.http import HttpTransport
from otel_ebpf_receiver.export.otlp.options import OtlpOptions, Protocol
from otel_ebpf_receiver.export.otlp.split import cut, splitter
from otel_ebpf_receiver.export.queue import Books, Payload, QueueLimits
from otel_ebpf_receiver.export.sender import Backoff, Sender, Transport

logger = logging.getLogger(__name__)


class OtlpDestination:
    """Fulfils `Destination`. Raises `ExportError` at construction when the options cannot work (files, certificates)."""

    def __init__(
        self,
        options: Mapping[Signal, OtlpOptions],
        *,
        name: str = "otlp",
        limits: QueueLimits | None = None,
        backoff: Backoff | None = None,
        ignore: Register = register_nothing,
        unignore: Register = register_nothing,
    ) -> None:
        self.name = name
        self.signals = frozenset(options)
        self.is_cumulative = False
        limits = limits or QueueLimits()
        self._senders = {
            signal: Sender(
                limits.spans() if signal is Signal.TRACES else limits.metrics(),
                _transport(each, signal, ignore, unignore),
                name=f"send-{signal}",
                split=splitter(signal),
                complaints=Complaints(logger, {"destination": name, "signal": signal.value}),
                backoff=backoff,
            )
            for signal, each in options.items()
        }

    def start(self) -> None:
        """Starts the senders."""
        for sender in self._senders.values():
            sender.start()

    def offer(self, signal: Signal, payload: Payload) -> None:
        """Queues one request; never blocks. A request of more items than the queue may hold is cut first."""
        queue = self._senders[signal].queue
        for part in [payload] if queue.max_items is None else cut(signal, payload, queue.max_items):
            queue.offer(part)

    def is_idle(self, signal: Signal) -> bool:
        """Whether nothing of `signal` is queued or on the wire."""
        return self._senders[signal].queue.is_idle

    def flush(self, timeout_s: float) -> bool:
        """Waits until everything queued is settled; whether that was reached in time."""
        return all(sender.queue.flush(timeout_s) for sender in self._senders.values())

    def finish(self, deadline: float) -> None:
        """No more offers follow; the queued is to be out by `deadline` (`time.monotonic()`)."""
        for sender in self._senders.values():
            sender.finish(deadline)

    def stop(self) -> None:
        """Waits for the deadline of `finish`, then gives up the rest and counts it."""
        for sender in self._senders.values():
            sender.finish(sender.deadline_or_now())
        for sender in self._senders.values():
            sender.stop()

    def books(self) -> Mapping[Signal, Books]:
        """The books of each signal."""
        return {signal: sender.queue.books() for signal, sender in self._senders.items()}


def _transport(options: OtlpOptions, signal: Signal, ignore: Register, unignore: Register) -> Transport:
    if options.protocol is Protocol.GRPC:
        # Imported where it is used: gRPC costs 15 MiB that an agent exporting over HTTP does not pay.
        # Its C core logs every GOAWAY of a server to standard error, in a form of its own, unless told otherwise before it starts.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        from otel_ebpf_receiver.export.otlp.grpc import GrpcTransport

        return GrpcTransport(options, signal)
    return HttpTransport(options, signal, ignore=ignore, unignore=unignore)
