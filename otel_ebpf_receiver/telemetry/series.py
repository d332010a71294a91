"""The series of one instrument: which there are, whose they are, since when, what each reader has accepted of them, and who has to go.

Bounded: so many per Resource, so many bytes in all; what comes later is added up under one overflow series per Resource. Values are in an
`Aggregation`; this module knows none of them. Collections are numbered; what is observed belongs to the next one.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint

from otel_ebpf_receiver.telemetry import names
from otel_ebpf_receiver.telemetry.aggregation import CUMULATIVE, Aggregation, Slots
from otel_ebpf_receiver.telemetry.columns import I64, U64, Attributes, Instrument, Points
from otel_ebpf_receiver.telemetry.exemplars import Exemplars, Sampled
from otel_ebpf_receiver.telemetry.keys import KeyIndex, mix
from otel_ebpf_receiver.telemetry.wire import Objects, attribute_fields

_OVERFLOW: Attributes = {names.METRIC_OVERFLOW: True}
_OVERFLOW_KEY = 0x6F766572666C6F77
_SERIES_BYTES = 1200
"""What a series costs beside its values: its attributes as a mapping and encoded, and its place in the tables (measured)."""
_ATTRIBUTES = {
    tag: point.DESCRIPTOR.fields_by_name["attributes"].number
    for tag, point in ((9, HistogramDataPoint), (10, ExponentialHistogramDataPoint), (7, NumberDataPoint))
}
"""The number of a point's attributes, by that of the kind of metric."""


class Budget:
    """Bytes that all series of all instruments may take together."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0


class Taken:
    """What one reader has accepted, per slot: the number of the collection, and the Unix time until which its values were in it."""

    def __init__(self) -> None:
        self.number = np.zeros(0, np.uint32)
        self.until = np.zeros(0, np.uint64)

    def grow(self, capacity: int) -> None:
        more = capacity - len(self.number)
        self.number, self.until = np.pad(self.number, (0, more)), np.pad(self.until, (0, more))

    def accept(self, number: int, until: int, refused: Slots) -> None:
        """All but the slots `refused` were accepted, those included that had nothing to say."""
        numbers, untils = self.number[refused], self.until[refused]
        self.number[:], self.until[:] = number, until
        self.number[refused], self.until[refused] = numbers, untils

    def step_back(self, now: int) -> None:
        """The clock shows `now`, which is earlier than some of these times."""
        np.minimum(self.until, np.uint64(now), out=self.until)


class Series:
    """Maps observations to slots and keeps what is known of each slot."""

    def __init__(self, instrument: Instrument, aggregation: Aggregation, *, readers: int, limit: int, budget: Budget) -> None:
        self.instrument, self.aggregation = instrument, aggregation
        self.taken = [Taken() for _ in range(readers)]
        self.exemplars = Exemplars(aggregation.places)
        self.overflowed = 0
        self._limit, self._budget = limit, budget
        self._index = KeyIndex()
        self._counts: dict[int, int] = {}
        self._full: set[int] = set()
        self._free: list[int] = []
        self._keys = np.zeros(0, np.uint64)
        self.resource = np.zeros(0, np.int64)
        """Per slot: its Resource, -1 where the slot is free."""
        self.start = np.zeros(0, np.uint64)
        self._seen, self._number = np.zeros(0, np.int64), np.zeros(0, np.uint32)
        """Per slot: Unix ns of the last observation, and the number of the collection that it belongs to."""
        self.attributes: list[Attributes] = []
        self.encoded: Objects = np.zeros(0, object)

    def __len__(self) -> int:
        return sum(self._counts.values())

    @property
    def used(self) -> Set[int]:
        """The Resources that have series here."""
        return self._counts.keys()

    @property
    def alive(self) -> Slots:
        return np.flatnonzero(self.resource >= 0)

    def observe(self, points: Points, resource: I64, sampled: Sampled, *, now: int, start: int, number: int) -> None:
        """Adds one batch of observations; `resource` is that of each, `start` the start time of series that are new, `number` of the next collection."""
        # hot: benchmarks/pipeline.py
        keys = mix(points.group.key, resource)
        slots = self._index.find(keys).astype(np.intp)
        missing = (slots < 0).nonzero()[0]
        if missing.size:
            self._admit(points, resource, keys, missing, start)
            slots[missing] = found = self._index.find(keys[missing])
            over = missing[found < 0]
            if over.size:
                self.overflowed += len(over)
                slots[over] = self._overflow(resource[over], start)
        places = self.aggregation.observe(slots, points.values)
        self._seen[slots], self._number[slots] = now, number
        self.exemplars.keep(slots, places, points.values, sampled, capacity=len(self.resource), number=number)

    def _admit(self, points: Points, resource: I64, keys: U64, missing: npt.NDArray[np.intp], start: int) -> None:
        if self._full:
            missing = missing[~np.isin(resource[missing], np.fromiter(self._full, np.int64))]
        new, first = np.unique(keys[missing], return_index=True)
        rows = missing[first]
        admitted, slots = [], []
        for place, (row, owner) in enumerate(zip(rows.tolist(), resource[rows].tolist(), strict=True)):
            if owner in self._full:
                continue
            if self._counts.get(owner, 0) >= self._limit or self._is_over():
                self._full.add(owner)
                continue
            admitted.append(place)
            slots.append(self._add(owner, points.group.build(row).attributes, start))
        self._enter(new[admitted], slots)

    def _overflow(self, resource: I64, start: int) -> Slots:
        keys = mix(resource, _OVERFLOW_KEY)
        new, first = np.unique(keys[self._index.find(keys) < 0], return_index=True)
        owners = resource[self._index.find(keys) < 0][first]
        # One series each, whatever the budget says: a value is never lost for want of a name.
        self._enter(new, [self._add(owner, _OVERFLOW, start) for owner in owners.tolist()])
        return self._index.find(keys).astype(np.intp)

    def _is_over(self) -> bool:
        return self._budget.used_bytes + self._cost > self._budget.max_bytes

    @property
    def _cost(self) -> int:
        return _SERIES_BYTES + 12 * len(self.taken) + self.aggregation.bytes_per_series + self.exemplars.bytes_per_series

    def _enter(self, keys: U64, slots: list[int]) -> None:
        self._keys[slots] = keys
        self._index.insert(keys, np.array(slots, np.int32))

    def _add(self, owner: int, attributes: Attributes, start: int) -> int:
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self.resource[slot], self.start[slot] = owner, start
        self.attributes[slot] = attributes
        self.encoded[slot] = attribute_fields(_ATTRIBUTES[self.aggregation.metric_tag], attributes)
        self._counts[owner] = self._counts.get(owner, 0) + 1
        self._budget.used_bytes += self._cost
        return slot

    def _grow(self) -> None:
        old = len(self.resource)
        capacity = max(64, 2 * old)
        more = capacity - old
        self._keys, self.start = np.pad(self._keys, (0, more)), np.pad(self.start, (0, more))
        self._seen, self._number = np.pad(self._seen, (0, more)), np.pad(self._number, (0, more))
        for taken in self.taken:
            taken.grow(capacity)
        self.resource = np.pad(self.resource, (0, more), constant_values=-1)
        self.attributes += [{}] * more
        self.encoded = np.concatenate((self.encoded, np.full(more, b"", object)))
        self.aggregation.grow(capacity)
        self._free += range(capacity - 1, old - 1, -1)

    def evict(self, before: int) -> None:
        """Removes series that saw nothing since `before` (Unix ns) and whose last value every reader has accepted."""
        is_idle = (self.resource >= 0) & (self._seen < before)
        for taken in self.taken:
            is_idle &= taken.number >= self._number
        gone = np.flatnonzero(is_idle)
        if not gone.size:
            return
        for slot in gone.tolist():
            owner = int(self.resource[slot])
            self._counts[owner] -= 1
            self._full.discard(owner)
            if not self._counts[owner]:
                del self._counts[owner]
            self.attributes[slot], self.encoded[slot] = {}, b""
        # Room was made: who was refused for the budget's sake may try again.
        self._full.clear()
        self.resource[gone] = -1
        self.aggregation.reset(gone)
        self.exemplars.clear(gone)
        self._free += gone.tolist()
        self._budget.used_bytes -= self._cost * len(gone)
        self._index = KeyIndex(max(1024, len(self)))
        self._index.insert(self._keys[self.alive], self.alive.astype(np.int32))

    def step_back(self, now: int) -> None:
        """The clock was set back to `now`: nothing has begun later than that. Starts that are not later stay what they were told to be."""
        np.minimum(self.start, np.uint64(now), out=self.start)
        for taken in self.taken:
            taken.step_back(now)

    def points(self, reported: Slots, now: int, *, reader: int, delta: int) -> tuple[Objects, I64]:
        """The encoded points (n x 3 pieces) of series, and their sizes."""
        taken, start = self.taken[reader], self.start[reported]
        if delta != CUMULATIVE and self.aggregation.has_deltas:
            start = np.maximum(start, taken.until[reported])
        exemplars = self.exemplars.encode(reported, self.aggregation.exemplar_tag, taken.number[reported])
        out = np.empty((len(reported), 3), object)
        out[:, 1], out[:, 2] = self.encoded[reported], exemplars
        behind = _lengths(out[:, 1]) + _lengths(exemplars)
        out[:, 0] = self.aggregation.encode(reported, start, now, behind, delta)
        return out, _lengths(out[:, 0]) + behind


def _lengths(pieces: Objects) -> I64:
    return np.fromiter(map(len, pieces), np.int64, len(pieces))
