"""Puts the books of the destinations among the agent's own counters, under its own names and those of the `otel.sdk.*` conventions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from opentelemetry.semconv._incubating.attributes.otel_attributes import OTEL_COMPONENT_NAME, OTEL_COMPONENT_TYPE
from opentelemetry.semconv._incubating.metrics.otel_metrics import (
    OTEL_SDK_EXPORTER_METRIC_DATA_POINT_EXPORTED,
    OTEL_SDK_EXPORTER_METRIC_DATA_POINT_INFLIGHT,
    OTEL_SDK_EXPORTER_OPERATION_DURATION,
    OTEL_SDK_EXPORTER_SPAN_EXPORTED,
    OTEL_SDK_EXPORTER_SPAN_INFLIGHT,
    OTEL_SDK_PROCESSOR_SPAN_PROCESSED,
    OTEL_SDK_PROCESSOR_SPAN_QUEUE_CAPACITY,
    OTEL_SDK_PROCESSOR_SPAN_QUEUE_SIZE,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE

from otel_ebpf_receiver.export.destination import Destination, LineDestination, Signal
from otel_ebpf_receiver.export.queue import Books
from otel_ebpf_receiver.status.counters import Attributes, Counters, Instrument, Kind, Read, Value, pairs

PREFIX = "otel_ebpf_receiver.export"
COUNTED: dict[str, tuple[Callable[[Books], int], str]] = {
    "received": (lambda books: books.received, "Items (spans, data points, lines) given to a destination."),
    "sent": (lambda books: books.sent, "Items that a destination accepted."),
    "dropped": (lambda books: books.dropped, "Items dropped for want of room, the oldest first, or offered after the end."),
    "failed": (lambda books: books.failed, "Items that a destination refused, or that were left at the end."),
    "rejected": (lambda books: books.rejected, "Items that a destination rejected in a partial success."),
    "retried": (lambda books: books.retried, "Items times the repetitions of their export."),
}
EXPORTED = {
    Signal.TRACES: (OTEL_SDK_EXPORTER_SPAN_EXPORTED, OTEL_SDK_EXPORTER_SPAN_INFLIGHT, "{span}"),
    Signal.METRICS: (OTEL_SDK_EXPORTER_METRIC_DATA_POINT_EXPORTED, OTEL_SDK_EXPORTER_METRIC_DATA_POINT_INFLIGHT, "{data_point}"),
}


def count_books(counters: Counters, destinations: Iterable[Destination], lines: Iterable[LineDestination] = ()) -> None:
    """Registers what is read from the books of `destinations` and of `lines` (the console) whenever counters are read. Call it once."""
    each, printed = list(destinations), list(lines)
    for name, (value, description) in COUNTED.items():
        counters.observe(Instrument(f"{PREFIX}.{name}", description, "{item}"), _read(each, printed, value))
    queued = Instrument(f"{PREFIX}.queued", "Items that wait or are on the wire.", "{item}", Kind.UP_DOWN)
    counters.observe(queued, _read(each, printed, lambda books: books.queued))
    queue = Instrument(f"{PREFIX}.queue", "Bytes that wait or are on the wire.", "By", Kind.UP_DOWN)
    counters.observe(queue, _read(each, [], lambda books: books.queued_bytes))
    limit = Instrument(f"{PREFIX}.queue.limit", "Bytes that may wait or be on the wire.", "By", Kind.UP_DOWN)
    counters.observe(limit, _read(each, [], lambda books: books.max_bytes))
    took = "Time from the first try of an export to its end."
    counters.observe(Instrument(OTEL_SDK_EXPORTER_OPERATION_DURATION, took, "s", Kind.HISTOGRAM), _took(each))
    for signal, (exported, in_flight, unit) in EXPORTED.items():
        counters.observe(Instrument(exported, "Items whose export has finished.", unit), _exported(each, signal))
        counters.observe(Instrument(in_flight, "Items on the wire, not answered yet.", unit, Kind.UP_DOWN), _in_flight(each, signal))
    processed = Instrument(OTEL_SDK_PROCESSOR_SPAN_PROCESSED, "Spans whose processing has finished.", "{span}")
    counters.observe(processed, _processed(each))
    size = Instrument(OTEL_SDK_PROCESSOR_SPAN_QUEUE_SIZE, "Spans in the queue.", "{span}", Kind.UP_DOWN)
    counters.observe(
        size, lambda: {_component(one, Signal.TRACES): books.queued - books.in_flight for one, books in _books(each, Signal.TRACES)}
    )
    words = "Spans that the queue may hold. Where their number is bounded, not their bytes alone."
    counters.observe(Instrument(OTEL_SDK_PROCESSOR_SPAN_QUEUE_CAPACITY, words, "{span}", Kind.UP_DOWN), _capacity(each))


def _read(destinations: list[Destination], printed: list[LineDestination], value: Callable[[Books], int]) -> Read:
    def read() -> dict[Attributes, Value]:
        values: dict[Attributes, Value] = {
            pairs({"destination": destination.name, "signal": signal.value}): value(books)
            for destination in destinations
            for signal, books in destination.books().items()
        }
        for each in printed:
            values[pairs({"destination": each.name, "signal": "lines"})] = value(each.books())
        return values

    return read


def _exported(destinations: list[Destination], signal: Signal) -> Read:
    def read() -> dict[Attributes, Value]:
        values: dict[Attributes, Value] = {}
        for destination, books in _books(destinations, signal):
            values[_component(destination, signal)] = books.sent
            for error, count in (("failed", books.failed), ("rejected", books.rejected)):
                if count:
                    values[_component(destination, signal, error)] = count
        return values

    return read


def _took(destinations: list[Destination]) -> Read:
    def read() -> dict[Attributes, Value]:
        return {
            _component(destination, signal, error): took
            for destination in destinations
            for signal, books in destination.books().items()
            for error, took in books.took.items()
        }

    return read


def _capacity(destinations: list[Destination]) -> Read:
    return lambda: {
        _component(destination, Signal.TRACES): books.max_items
        for destination, books in _books(destinations, Signal.TRACES)
        if books.max_items is not None
    }


def _in_flight(destinations: list[Destination], signal: Signal) -> Read:
    return lambda: {_component(destination, signal): books.in_flight for destination, books in _books(destinations, signal)}


def _processed(destinations: list[Destination]) -> Read:
    def read() -> dict[Attributes, Value]:
        values: dict[Attributes, Value] = {}
        for destination, books in _books(destinations, Signal.TRACES):
            values[_component(destination, Signal.TRACES)] = books.sent + books.failed + books.rejected
            if books.dropped:
                values[_component(destination, Signal.TRACES, "queue_full")] = books.dropped
        return values

    return read


def _books(destinations: list[Destination], signal: Signal) -> list[tuple[Destination, Books]]:
    return [(destination, books) for destination in destinations if (books := destination.books().get(signal)) is not None]


def _component(destination: Destination, signal: Signal, error: str | None = None) -> Attributes:
    attributes = {OTEL_COMPONENT_TYPE: "otel_ebpf_receiver", OTEL_COMPONENT_NAME: f"{destination.name}/{signal.value}"}
    return pairs(attributes | ({ERROR_TYPE: error} if error else {}))
