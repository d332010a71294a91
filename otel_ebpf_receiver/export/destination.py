"""The seam behind which every exporter lives: a new destination is one module that fulfils one of these two protocols.

`Destination` takes encoded OTLP requests, `LineDestination` takes one row per exchange. Neither may block the caller of `offer`, and each
keeps its own books: what it received is what it sent, dropped, failed, had rejected, and still holds.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Protocol

from otel_ebpf_receiver.export.lines import Row
from otel_ebpf_receiver.export.queue import Books, Payload


class Signal(enum.StrEnum):
    """The two signals of the agent, named as the OTLP path and the variables name them."""

    TRACES = "traces"
    METRICS = "metrics"


class Destination(Protocol):
    """An exporter of encoded OTLP requests (`ExportTraceServiceRequest`, `ExportMetricsServiceRequest`)."""

    @property
    def name(self) -> str:
        """What the configuration calls it; the label of its counters."""

    @property
    def signals(self) -> frozenset[Signal]:
        """The signals it wants; others are not offered to it."""

    @property
    def is_cumulative(self) -> bool:
        """Whether it wants metrics as values since the start whatever temporality the user chose for others."""

    def start(self) -> None:
        """Starts its threads; call it once, after any fork."""

    def offer(self, signal: Signal, payload: Payload) -> None:
        """Takes one request; never blocks, drops the oldest when full."""

    def is_idle(self, signal: Signal) -> bool:
        """Whether nothing of `signal` is queued or on the wire: when all of an interval was offered, the next one may be collected."""

    def finish(self, deadline: float) -> None:
        """No more offers follow; what is queued must be out by `deadline` (`time.monotonic()`). Returns at once."""

    def stop(self) -> None:
        """Waits for the deadline of `finish`, then gives up the rest and counts it. Safe twice and before `start()`."""

    def books(self) -> Mapping[Signal, Books]:
        """The books of each signal. `queued_bytes` and `max_bytes` tell whether one more request finds room."""


class LineDestination(Protocol):
    """An exporter of one row per exchange; filters are its own, so is the bound on what waits."""

    @property
    def name(self) -> str:
        """What the configuration calls it; the label of its counters."""

    def start(self) -> None:
        """Starts its thread."""

    def offer(self, rows: Iterable[Row]) -> None:
        """Takes rows; never blocks."""

    def finish(self, deadline: float) -> None:
        """No more offers follow; see `Destination.finish`."""

    def stop(self) -> None:
        """See `Destination.stop`."""

    def books(self) -> Books:
        """The books of its rows."""
