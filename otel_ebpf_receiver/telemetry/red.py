"""The table of rates, errors and durations: all instruments of all sources, observed by the batch, collected as OTLP requests.

A collection changes nothing that matters until `commit`: after `rollback`, or when it is simply dropped, the next one holds everything. It must
not know any source's names or what an instrument means.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.export.queue import Payload
from otel_ebpf_receiver.telemetry.aggregation import Aggregation, Counter, Explicit, Slots
from otel_ebpf_receiver.telemetry.columns import I64, U64, Attributes, Instrument, Points
from otel_ebpf_receiver.telemetry.exemplars import Exemplar, Sampled
from otel_ebpf_receiver.telemetry.exponential import Exponential
from otel_ebpf_receiver.telemetry.keys import runs
from otel_ebpf_receiver.telemetry.outbox import Outbox
from otel_ebpf_receiver.telemetry.resources import Resources
from otel_ebpf_receiver.telemetry.series import Budget, Series
from otel_ebpf_receiver.telemetry.wire import Objects, field, varint

_CHUNK_BYTES = 1 << 20
"""Points of one Resource that are joined at once: a fraction of a millisecond."""
_CHUNK_SERIES = 4096


@dataclass(frozen=True, slots=True)
class MetricOptions:
    """`bounds_s` None: those the instrument advises. `idle_ns` 0: series stay for ever."""

    temporality: Literal["cumulative", "delta", "lowmemory"] = "cumulative"
    histogram: Literal["explicit_bucket_histogram", "base2_exponential_bucket_histogram"] = "explicit_bucket_histogram"
    bounds_s: tuple[float, ...] | None = None
    series_limit: int = 2000
    memory_bytes: int = 64 << 20
    idle_ns: int = 900_000_000_000


@dataclass(frozen=True, slots=True)
class Point:
    """One series for readers that are no OTLP encoder. `buckets` and `bounds` are empty for a counter; values are since `start_unix_ns`."""

    resource: Attributes
    instrument: Instrument
    attributes: Attributes
    start_unix_ns: int
    count: int
    sum: float
    bounds: tuple[float, ...]
    buckets: tuple[int, ...]
    exemplars: tuple[Exemplar, ...]


@dataclass(frozen=True, slots=True)
class _Reported:
    series: Series
    slots: Slots
    seen: I64
    exemplars: npt.NDArray[np.intp]
    exemplar_times: U64


class Collection:
    """One interval's requests, and what happens to the table when they were accepted or not."""

    def __init__(self, table: Red, payloads: list[Payload], reported: list[_Reported], now: int) -> None:
        self.payloads = payloads
        self._table, self._reported, self.now = table, reported, now

    @property
    def items(self) -> int:
        return sum(payload.items for payload in self.payloads)

    def commit(self) -> None:
        """All of it was accepted. Call from the thread that observes; too late (after the next collection) or a second time it changes nothing."""
        self._table.accept(self, self._reported)
        self._reported = []

    def rollback(self) -> None:
        """Nothing is known to have arrived: it stays in the table and merges into the next interval."""
        self._table.reject(self)


class Red:
    """All series of all instruments."""

    def __init__(self, options: MetricOptions, resources: Resources, *, start_unix_ns: int) -> None:
        self._options, self._resources = options, resources
        self._is_delta = options.temporality != "cumulative"
        self._budget = Budget(options.memory_bytes)
        self._series: dict[str, Series] = {}
        self._collected = self._accepted = start_unix_ns
        self._last: Collection | None = None

    @property
    def size_bytes(self) -> int:
        return self._budget.used_bytes

    @property
    def used(self) -> Set[int]:
        """The Resources that have series."""
        return {number for series in self._series.values() for number in series.used}

    @property
    def overflowed(self) -> int:
        """Observations that went to an overflow series."""
        return sum(series.overflowed for series in self._series.values())

    def __len__(self) -> int:
        return sum(map(len, self._series.values()))

    def observe(self, points: Points, resource: I64, sampled: Sampled, *, now: int) -> None:
        """Adds observations; `now` and all times are Unix ns."""
        if not len(points.values):
            return
        series = self._series.get(points.instrument.name)
        if series is None:
            aggregation = self._aggregation(points.instrument)
            series = Series(points.instrument, aggregation, limit=self._options.series_limit, budget=self._budget)
            self._series[points.instrument.name] = series
        # A series begins where the last collection ended: never after its first value, never before the end of an earlier life.
        series.observe(points, resource, sampled, now=now, start=self._collected)

    def _aggregation(self, instrument: Instrument) -> Aggregation:
        if instrument.bounds is None:
            return Counter(is_delta=self._is_delta)
        if instrument.is_duration and self._options.histogram == "base2_exponential_bucket_histogram":
            return Exponential(is_delta=self._is_delta)
        bounds = self._options.bounds_s if instrument.is_duration and self._options.bounds_s is not None else instrument.bounds
        return Explicit(bounds, is_delta=self._is_delta)

    def collect(self, now: int) -> Collection:
        """Encodes every series that has something to say."""
        for series in self._series.values() if self._options.idle_ns else ():
            series.evict(now - self._options.idle_ns)
        out, reported = Outbox(self._resources), []
        payloads: list[Payload] = []
        for series in self._series.values():
            slots = series.aggregation.changed(series.alive) if self._is_delta else series.alive
            slots = slots[np.argsort(series.resource[slots], kind="stable")]
            reported.append(_Reported(series, slots, series.seen[slots], *series.exemplars.taken(slots)))
            for begin in range(0, len(slots), _CHUNK_SERIES):
                payloads += self._encode(series, slots[begin : begin + _CHUNK_SERIES], now, out)
            series.aggregation.freeze(slots)
        self._collected = now
        self._last = Collection(self, payloads + out.flush(), reported, now)
        return self._last

    def _encode(self, series: Series, slots: Slots, now: int, out: Outbox) -> list[Payload]:
        start = np.maximum(series.start[slots], np.uint64(self._accepted)) if self._is_delta else series.start[slots]
        pieces, sizes = series.points(slots, start, now)
        payloads: list[Payload] = []
        resource = series.resource[slots]
        bounds = runs(resource).tolist()
        for start_row, stop_row in pairwise(bounds):
            for begin, end in _chunks(sizes, start_row, stop_row):
                blob = _metric(series, pieces[begin:end])
                payloads += out.put(int(resource[begin]), blob, end - begin)
        return payloads

    def accept(self, collection: Collection, reported: list[_Reported]) -> None:
        """The values of the last collection have arrived; those of an earlier one are part of it and say nothing about it."""
        if collection is not self._last:
            return
        for item in reported:
            item.series.aggregation.accept()
            item.series.accepted[item.slots] = item.seen
            item.series.exemplars.forget(item.exemplars, item.exemplar_times)
        self._accepted, self._last = collection.now, None

    def reject(self, collection: Collection) -> None:
        """The collection can no longer be accepted."""
        if collection is self._last:
            self._last = None

    def points(self) -> Iterator[Point]:
        """Every explicit histogram and counter as values, since each series' start; exponential ones are not shown."""
        for series in self._series.values():
            for slot in series.alive.tolist():
                at = np.array([slot])
                aggregation = series.aggregation
                if isinstance(aggregation, Explicit):
                    counts, sums = aggregation.totals(at)
                    total, amount, bounds = int(counts.sum()), float(sums[0]), tuple(aggregation.bounds.tolist())
                    buckets = tuple(counts[0].tolist())
                elif isinstance(aggregation, Counter):
                    total = int(aggregation.total(at)[0])
                    amount, bounds, buckets = float(total), (), ()
                else:
                    break
                yield Point(
                    self._resources.attributes(int(series.resource[slot])),
                    series.instrument,
                    series.attributes[slot],
                    int(series.start[slot]),
                    total,
                    amount,
                    bounds,
                    buckets,
                    tuple(series.exemplars.of(slot)),
                )


def _chunks(sizes: I64, start: int, stop: int) -> Iterator[tuple[int, int]]:
    while start < stop:
        end = start + max(1, int(np.searchsorted(np.cumsum(sizes[start:stop]), _CHUNK_BYTES)))
        yield start, min(end, stop)
        start = min(end, stop)


def _metric(series: Series, pieces: Objects) -> bytes:
    """A `ScopeMetrics.metrics` entry with the points joined."""
    instrument = series.instrument
    points = b"".join(pieces.ravel().tolist()) + series.aggregation.tail()
    head = field(1, instrument.name.encode()) + field(2, instrument.description.encode()) + field(3, instrument.unit.encode())
    opened = head + varint(series.aggregation.metric_tag << 3 | 2) + varint(len(points))
    return b"\x12" + varint(len(opened) + len(points)) + opened + points
