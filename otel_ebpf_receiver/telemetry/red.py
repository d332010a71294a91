"""The table of rates, errors and durations: all instruments of all sources, observed by the batch, collected as OTLP requests.

A collection changes nothing that matters until `commit`: after `rollback`, or when it is simply dropped, the reader's next one holds everything.
It must not know any source's names or what an instrument means.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from otel_ebpf_receiver.export.queue import Payload
from otel_ebpf_receiver.telemetry.aggregation import CUMULATIVE, Aggregation, Counter, Explicit, Level, Slots, Wanted
from otel_ebpf_receiver.telemetry.columns import I64, Attributes, Instrument, Points
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
Temporality = Literal["cumulative", "delta", "lowmemory"]


@dataclass(frozen=True, slots=True)
class MetricOptions:
    """`bounds_s` None: those the instrument advises. `idle_ns` 0: series stay for ever."""

    temporality: Temporality = "cumulative"
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


@dataclass(eq=False, slots=True)
class Reader:
    """One destination's side of the table. `number`: its place among all; `delta`: among those that take differences, CUMULATIVE for others.

    `state`: readers of values since the start whose states are equal have accepted the same.
    """

    number: int
    delta: int
    state: object = 0
    last: Collection | None = None


@dataclass(frozen=True, slots=True)
class _Reported:
    """The series of one instrument that a collection holds, in the order in which its requests hold them."""

    series: Series
    slots: Slots


class Collection:
    """One interval's requests for one reader, and what happens to the table when they were accepted or not."""

    def __init__(self, table: Red, reader: Reader, payloads: list[Payload], reported: list[_Reported], number: int, now: int) -> None:
        self.payloads = payloads
        self._table, self.reader, self.reported, self.number, self.now = table, reader, reported, number, now

    @property
    def items(self) -> int:
        return sum(payload.items for payload in self.payloads)

    def commit(self, accepted: Sequence[bool] | None = None) -> None:
        """Those requests that `accepted` says (None: all) have arrived; the rest stays in the table and merges into the reader's next interval.

        Call from the thread that observes; too late (after the reader's next collection) or a second time it changes nothing.
        """
        self._table.accept(self, [True] * len(self.payloads) if accepted is None else accepted)

    def rollback(self) -> None:
        """Nothing is known to have arrived."""
        self.commit([False] * len(self.payloads))

    def for_reader(self, reader: Reader) -> Collection:
        """The same for another reader that is to get the same."""
        return Collection(self._table, reader, self.payloads, self.reported, self.number, self.now)


class Red:
    """All series of all instruments. Each reader collects and accepts by itself; until somebody asks for more there is one."""

    def __init__(self, options: MetricOptions, resources: Resources, *, start_unix_ns: int) -> None:
        self._options, self._resources = options, resources
        self._budget = Budget(options.memory_bytes)
        self._series: dict[str, Series] = {}
        self._collected = start_unix_ns
        """The time of the last collection; no start and no time of acceptance is later."""
        self._number = 1
        self.readers = self.serve([options.temporality])

    def serve(self, temporalities: Sequence[Temporality]) -> list[Reader]:
        """The readers that there are to be from now on. Raises ValueError when something was observed already."""
        if self._series:
            raise ValueError("the readers of a table are set before its first observation")
        deltas = [temporality != "cumulative" for temporality in temporalities]
        places = itertools.count()
        self.readers = [Reader(number, next(places) if is_delta else CUMULATIVE) for number, is_delta in enumerate(deltas)]
        self._wanted = Wanted(sum(deltas), not all(deltas))
        return self.readers

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
            aggregation, options = self._aggregation(points.instrument), self._options
            series = Series(points.instrument, aggregation, readers=len(self.readers), limit=options.series_limit, budget=self._budget)
            self._series[points.instrument.name] = series
        # A series begins where the last collection ended: never after its first value, never before the end of an earlier life.
        series.observe(points, resource, sampled, now=now, start=self._collected, number=self._number)

    def clear_levels(self) -> None:
        """Of nothing is there anything, until it is observed again."""
        for series in self._series.values():
            if isinstance(series.aggregation, Level):
                series.aggregation.clear()

    def _aggregation(self, instrument: Instrument) -> Aggregation:
        if instrument.is_level:
            return Level()
        if instrument.bounds is None:
            return Counter(self._wanted)
        if instrument.is_duration and self._options.histogram == "base2_exponential_bucket_histogram":
            return Exponential(self._wanted)
        bounds = self._options.bounds_s if instrument.is_duration and self._options.bounds_s is not None else instrument.bounds
        return Explicit(bounds, self._wanted)

    def collect(self, now: int, reader: Reader | None = None) -> Collection:
        """Encodes every series that has something to say to one reader, the first unless told."""
        return self.collect_for([reader or self.readers[0]], now)[0]

    def collect_for(self, readers: Sequence[Reader], now: int) -> list[Collection]:
        """A collection for each of `readers`. Those that are to get the same share what is encoded."""
        for series in self._series.values() if self._options.idle_ns else ():
            series.evict(now - self._options.idle_ns)
        if now < self._collected:
            for series in self._series.values():
                series.step_back(now)
        out: list[Collection] = []
        for reader in readers:
            twin = next((one for one in out if reader.delta == CUMULATIVE and _is_alike(one.reader, reader)), None)
            made = twin.for_reader(reader) if twin else self._collect(reader, now)
            reader.last = made
            out.append(made)
        self._collected = now
        self._number += 1
        return out

    def _collect(self, reader: Reader, now: int) -> Collection:
        out, reported = Outbox(self._resources), []
        payloads: list[Payload] = []
        for series in self._series.values():
            slots = series.alive if reader.delta == CUMULATIVE else series.aggregation.changed(series.alive, reader.delta)
            slots = slots[np.argsort(series.resource[slots], kind="stable")]
            reported.append(_Reported(series, slots))
            for begin in range(0, len(slots), _CHUNK_SERIES):
                payloads += self._encode(series, slots[begin : begin + _CHUNK_SERIES], now, reader, out)
            if reader.delta != CUMULATIVE:
                series.aggregation.freeze(slots, reader.delta)
        return Collection(self, reader, payloads + out.flush(), reported, self._number, now)

    def _encode(self, series: Series, slots: Slots, now: int, reader: Reader, out: Outbox) -> list[Payload]:
        pieces, sizes = series.points(slots, now, reader=reader.number, delta=reader.delta)
        payloads: list[Payload] = []
        resource = series.resource[slots]
        bounds = runs(resource).tolist()
        for start_row, stop_row in pairwise(bounds):
            for begin, end in _chunks(sizes, start_row, stop_row):
                blob = _metric(series, pieces[begin:end], reader.delta)
                payloads += out.put(int(resource[begin]), blob, end - begin)
        return payloads

    def accept(self, collection: Collection, accepted: Sequence[bool]) -> None:
        """What the reader's last collection holds has arrived, as far as `accepted` says; an earlier one is part of it and says nothing about it."""
        reader = collection.reader
        if collection is not reader.last:
            return
        reader.last = None
        if not any(accepted) and accepted:
            return
        arrived = np.repeat(np.array(accepted, bool), [payload.items for payload in collection.payloads])
        begin, reported = 0, {id(item.series): item.slots for item in collection.reported}
        for series in self._series.values():
            slots = reported.get(id(series), np.zeros(0, np.intp))
            taken = arrived[begin : begin + len(slots)]
            begin += len(slots)
            if reader.delta != CUMULATIVE:
                series.aggregation.accept(reader.delta, taken)
            series.taken[reader.number].accept(collection.number, min(collection.now, self._collected), slots[~taken])
        reader.state = collection.number if all(accepted) else object()

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


def _is_alike(one: Reader, other: Reader) -> bool:
    return one.delta == other.delta == CUMULATIVE and one.state == other.state


def _metric(series: Series, pieces: Objects, delta: int) -> bytes:
    """A `ScopeMetrics.metrics` entry with the points joined."""
    instrument = series.instrument
    points = b"".join(pieces.ravel().tolist()) + series.aggregation.tail(delta)
    head = field(1, instrument.name.encode()) + field(2, instrument.description.encode()) + field(3, instrument.unit.encode())
    opened = head + varint(series.aggregation.metric_tag << 3 | 2) + varint(len(points))
    return b"\x12" + varint(len(opened) + len(points)) + opened + points
