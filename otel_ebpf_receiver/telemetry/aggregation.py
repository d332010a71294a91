"""What is added up per series: explicit-bucket histograms and counters (base-2 exponential ones: `exponential.py`).

Values since the start are kept for ever; a delta is the difference from what its reader accepted last (`base`), so an export that failed loses
nothing and costs nothing: the next difference is larger. `delta` is a reader's place among those that take differences, CUMULATIVE for the others.
Slots are rows of the arrays; the caller says which series has which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import F64, I64, U64, Bools
from otel_ebpf_receiver.telemetry.wire import Objects, Rows, objects, varint

Slots = npt.NDArray[np.intp]
CUMULATIVE = -1
_T = TypeVar("_T", bound=np.generic)


class Aggregation(Protocol):
    """Adds up one instrument. Tags are the OTLP field numbers of its point."""

    places: int
    exemplar_tag: int
    metric_tag: int
    bytes_per_series: int
    has_deltas: bool
    """Whether readers of differences get differences."""

    def grow(self, capacity: int) -> None: ...
    def reset(self, slots: Slots) -> None: ...
    def observe(self, slots: Slots, values: F64) -> npt.NDArray[np.intp]: ...
    def changed(self, slots: Slots, delta: int) -> Slots: ...
    def encode(self, slots: Slots, start: U64, now: int, behind: I64, delta: int) -> Objects: ...
    def freeze(self, slots: Slots, delta: int) -> None: ...
    def accept(self, delta: int, taken: Bools) -> None: ...
    def tail(self, delta: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the readers of a table want: how many take differences, and whether any takes values since the start."""

    deltas: int = 0
    has_cumulative: bool = True


class Extremes:
    """Least and greatest value per series: of its life, and since what each reader of differences accepted last."""

    def __init__(self, wanted: Wanted) -> None:
        # [0] of a life; then two for each reader of differences: since its last collection, and collected but not accepted yet.
        self._deltas, self._has_life = wanted.deltas, wanted.has_cumulative
        self._low, self._high = np.full((1 + 2 * self._deltas, 0), np.inf), np.full((1 + 2 * self._deltas, 0), -np.inf)

    @property
    def bytes_per_series(self) -> int:
        return 16 * (1 + 2 * self._deltas)

    def grow(self, capacity: int) -> None:
        more = capacity - self._low.shape[1]
        self._low = np.pad(self._low, ((0, 0), (0, more)), constant_values=np.inf)
        self._high = np.pad(self._high, ((0, 0), (0, more)), constant_values=-np.inf)

    def reset(self, slots: Slots) -> None:
        self._low[:, slots], self._high[:, slots] = np.inf, -np.inf

    def observe(self, slots: Slots, values: F64) -> None:
        for row in (*((0,) if self._has_life else ()), *range(1, 1 + 2 * self._deltas, 2)):
            # hot: benchmarks/pipeline.py. Few values are beyond those there were.
            low, high = self._low[row], self._high[row]
            is_low, is_high = values < low.take(slots), values > high.take(slots)
            np.minimum.at(low, slots[is_low], values[is_low])
            np.maximum.at(high, slots[is_high], values[is_high])

    def freeze(self, slots: Slots, delta: int) -> tuple[F64, F64]:
        """What a collection reports."""
        if delta == CUMULATIVE:
            return self._low[0, slots], self._high[0, slots]
        since, kept = 1 + 2 * delta, 2 + 2 * delta
        self._low[kept, slots] = np.minimum(self._low[since, slots], self._low[kept, slots])
        self._high[kept, slots] = np.maximum(self._high[since, slots], self._high[kept, slots])
        self._low[since, slots], self._high[since, slots] = np.inf, -np.inf
        return self._low[kept, slots], self._high[kept, slots]

    def accept(self, slots: Slots, delta: int) -> None:
        self._low[2 + 2 * delta, slots], self._high[2 + 2 * delta, slots] = np.inf, -np.inf


class Explicit:
    """Histogram with given bounds; bucket i is (bounds[i-1], bounds[i]]."""

    exemplar_tag = 0x42
    metric_tag = 9
    has_deltas = True

    def __init__(self, bounds: tuple[float, ...], wanted: Wanted) -> None:
        self.bounds = np.array(bounds, np.float64)
        self.places = len(bounds) + 1
        self._extremes = Extremes(wanted)
        self.bytes_per_series = 8 * (self.places + 1) * (1 + wanted.deltas) + self._extremes.bytes_per_series
        self._counts = np.zeros((0, self.places), np.int64)
        self._sums = np.zeros(0)
        self._base_counts = [np.zeros_like(self._counts) for _ in range(wanted.deltas)]
        self._base_sums = [np.zeros(0) for _ in range(wanted.deltas)]
        self._frozen: list[tuple[Slots, I64, F64] | None] = [None] * wanted.deltas

    def grow(self, capacity: int) -> None:
        self._counts = _grown(self._counts, capacity)
        self._sums = _grown(self._sums, capacity)
        self._extremes.grow(capacity)
        self._base_counts = [_grown(base, capacity) for base in self._base_counts]
        self._base_sums = [_grown(base, capacity) for base in self._base_sums]

    def reset(self, slots: Slots) -> None:
        self._extremes.reset(slots)
        for counts, sums in ((self._counts, self._sums), *zip(self._base_counts, self._base_sums, strict=True)):
            counts[slots], sums[slots] = 0, 0.0

    def observe(self, slots: Slots, values: F64) -> npt.NDArray[np.intp]:
        """Adds `values` to the series in `slots`; the bucket of each is returned."""
        # hot: benchmarks/pipeline.py
        buckets = np.searchsorted(self.bounds, values, side="left")
        np.add.at(self._counts.ravel(), slots * self.places + buckets, 1)
        np.add.at(self._sums, slots, values)
        self._extremes.observe(slots, values)
        return buckets

    def counts(self, slots: Slots, delta: int) -> I64:
        """Counts to report: of the series' life, or since the last accepted export."""
        return self._counts[slots] if delta == CUMULATIVE else self._counts[slots] - self._base_counts[delta][slots]

    def totals(self, slots: Slots) -> tuple[I64, F64]:
        """Bucket counts and sums of the series' life."""
        return self._counts[slots], self._sums[slots]

    def changed(self, slots: Slots, delta: int) -> Slots:
        return slots[self.counts(slots, delta).any(axis=1)]

    def encode(self, slots: Slots, start: U64, now: int, behind: I64, delta: int) -> Objects:
        """`Histogram.data_points` entries without the `behind` bytes that the caller appends to each."""
        counts = self.counts(slots, delta)
        sums = self._sums[slots] - (0.0 if delta == CUMULATIVE else self._base_sums[delta][slots])
        low, high = self._extremes.freeze(slots, delta)
        rows = Rows(len(slots))
        length = open_point(rows)
        begin = rows.width
        times(rows, start, now)
        rows.fixed64(0x21, counts.sum(axis=1).astype(np.uint64))
        rows.fixed64(0x29, sums)
        rows.constant(b"\x32" + varint(8 * self.places))
        rows.raw(counts.view(np.uint8).reshape(len(slots), -1))
        if len(self.bounds):
            rows.constant(b"\x3a" + varint(8 * len(self.bounds)) + self.bounds.tobytes())
        rows.fixed64(0x59, low)
        rows.fixed64(0x61, high)
        length[:] = rows.width - begin + behind
        return objects(rows.strings())

    def freeze(self, slots: Slots, delta: int) -> None:
        """Remembers what is being reported."""
        self._frozen[delta] = (slots, self._counts[slots], self._sums[slots])

    def accept(self, delta: int, taken: Bools) -> None:
        """Of what was frozen, the rows of `taken` have arrived."""
        if (frozen := self._frozen[delta]) is not None:
            slots = frozen[0][taken]
            self._base_counts[delta][slots], self._base_sums[delta][slots] = frozen[1][taken], frozen[2][taken]
            self._extremes.accept(slots, delta)
            self._frozen[delta] = None

    def tail(self, delta: int) -> bytes:
        return temporality(delta)


class Counter:
    """Monotonic sum of whole numbers."""

    exemplar_tag = 0x2A
    metric_tag = 7
    places = 1
    has_deltas = True

    def __init__(self, wanted: Wanted) -> None:
        self.bytes_per_series = 8 * (1 + wanted.deltas)
        self._values = np.zeros(0, np.int64)
        self._base = [np.zeros(0, np.int64) for _ in range(wanted.deltas)]
        self._frozen: list[tuple[Slots, I64] | None] = [None] * wanted.deltas

    def grow(self, capacity: int) -> None:
        self._values, self._base = _grown(self._values, capacity), [_grown(base, capacity) for base in self._base]

    def reset(self, slots: Slots) -> None:
        for values in (self._values, *self._base):
            values[slots] = 0

    def observe(self, slots: Slots, values: F64) -> npt.NDArray[np.intp]:
        np.add.at(self._values, slots, values.astype(np.int64))
        return np.zeros(len(slots), np.intp)

    def clear(self) -> None:
        self._values[:] = 0

    def total(self, slots: Slots) -> I64:
        return np.asarray(self._values[slots], np.int64)

    def changed(self, slots: Slots, delta: int) -> Slots:
        out: Slots = slots[self._values[slots] != self._base[delta][slots]]
        return out

    def encode(self, slots: Slots, start: U64, now: int, behind: I64, delta: int) -> Objects:
        rows = Rows(len(slots))
        length = open_point(rows)
        begin = rows.width
        times(rows, start, now)
        values = self._values[slots] - (0 if delta == CUMULATIVE else self._base[delta][slots])
        rows.fixed64(0x31, values.astype(np.uint64))
        length[:] = rows.width - begin + behind
        return objects(rows.strings())

    def freeze(self, slots: Slots, delta: int) -> None:
        self._frozen[delta] = (slots, self._values[slots])

    def accept(self, delta: int, taken: Bools) -> None:
        if (frozen := self._frozen[delta]) is not None:
            self._base[delta][frozen[0][taken]] = frozen[1][taken]
            self._frozen[delta] = None

    def tail(self, delta: int) -> bytes:
        return temporality(delta) + b"\x18\x01"


class Level:
    """How many there are: a sum that goes up and down, set anew before each collection and the same for every reader (OTLP's UpDownCounter)."""

    exemplar_tag = 0x2A
    metric_tag = 7
    places = 1
    bytes_per_series = 8
    has_deltas = False

    def __init__(self) -> None:
        self._counter = Counter(Wanted())

    def clear(self) -> None:
        """None are there until they are observed again."""
        self._counter.clear()

    def grow(self, capacity: int) -> None:
        self._counter.grow(capacity)

    def reset(self, slots: Slots) -> None:
        self._counter.reset(slots)

    def observe(self, slots: Slots, values: F64) -> npt.NDArray[np.intp]:
        return self._counter.observe(slots, values)

    def changed(self, slots: Slots, delta: int) -> Slots:
        return slots

    def encode(self, slots: Slots, start: U64, now: int, behind: I64, delta: int) -> Objects:
        return self._counter.encode(slots, start, now, behind, CUMULATIVE)

    def freeze(self, slots: Slots, delta: int) -> None:
        """It is no difference."""

    def accept(self, delta: int, taken: Bools) -> None:
        """Likewise."""

    def tail(self, delta: int) -> bytes:
        return temporality(CUMULATIVE)


def open_point(rows: Rows) -> I64:
    """Opens a `data_points` entry; fill the array with its length when the rest is laid out."""
    length = np.zeros(rows.count, np.int64)
    rows.constant(b"\x0a")
    rows.varint(length, 3)
    return length


def times(rows: Rows, start: U64, now: int) -> None:
    rows.fixed64(0x11, start)
    rows.constant(b"\x19" + now.to_bytes(8, "little"))


def temporality(delta: int) -> bytes:
    """The `aggregation_temporality` field: 1 delta, 2 cumulative."""
    return bytes((0x10, 2 if delta == CUMULATIVE else 1))


def _grown(column: npt.NDArray[_T], capacity: int) -> npt.NDArray[_T]:
    out = np.zeros((capacity, *column.shape[1:]), column.dtype)
    out[: len(column)] = column
    return out
