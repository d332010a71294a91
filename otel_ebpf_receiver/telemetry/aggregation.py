"""What is added up per series: explicit-bucket histograms and counters (base-2 exponential ones: `exponential.py`).

Values since the start are kept for ever; a delta is the difference from what was last accepted (`base`), so an export that failed loses nothing
and costs nothing: the next difference is larger. Slots are rows of the arrays; the caller says which series has which.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import F64, I64, U64
from otel_ebpf_receiver.telemetry.wire import Objects, Rows, varint, whole_strings

Slots = npt.NDArray[np.intp]
_T = TypeVar("_T", bound=np.generic)


class Aggregation(Protocol):
    """Adds up one instrument. Tags are the OTLP field numbers of its point."""

    places: int
    exemplar_tag: int
    metric_tag: int
    bytes_per_series: int

    def grow(self, capacity: int) -> None: ...
    def reset(self, slots: Slots) -> None: ...
    def observe(self, slots: Slots, values: F64) -> npt.NDArray[np.intp]: ...
    def changed(self, slots: Slots) -> Slots: ...
    def encode(self, slots: Slots, start: U64, now: int, behind: I64) -> Objects: ...
    def freeze(self, slots: Slots) -> None: ...
    def accept(self) -> None: ...
    def tail(self) -> bytes: ...


class Extremes:
    """Least and greatest value per series: of its life, or (delta) since the last accepted export."""

    def __init__(self, is_delta: bool) -> None:
        self._is_delta = is_delta
        # [0]: since the last collection; [1]: collected and not accepted yet.
        self._low, self._high = np.full((2, 0), np.inf), np.full((2, 0), -np.inf)

    def grow(self, capacity: int) -> None:
        more = capacity - self._low.shape[1]
        self._low = np.pad(self._low, ((0, 0), (0, more)), constant_values=np.inf)
        self._high = np.pad(self._high, ((0, 0), (0, more)), constant_values=-np.inf)

    def reset(self, slots: Slots) -> None:
        self._low[:, slots], self._high[:, slots] = np.inf, -np.inf

    def observe(self, slots: Slots, values: F64) -> None:
        np.minimum.at(self._low[0], slots, values)
        np.maximum.at(self._high[0], slots, values)

    def freeze(self, slots: Slots) -> tuple[F64, F64]:
        """What a collection reports."""
        if self._is_delta:
            self._low[1, slots] = np.minimum(self._low[0, slots], self._low[1, slots])
            self._high[1, slots] = np.maximum(self._high[0, slots], self._high[1, slots])
            self._low[0, slots], self._high[0, slots] = np.inf, -np.inf
            return self._low[1, slots], self._high[1, slots]
        return self._low[0, slots], self._high[0, slots]

    def accept(self, slots: Slots) -> None:
        if self._is_delta:
            self._low[1, slots], self._high[1, slots] = np.inf, -np.inf


class Explicit:
    """Histogram with given bounds; bucket i is (bounds[i-1], bounds[i]]."""

    exemplar_tag = 0x42
    metric_tag = 9

    def __init__(self, bounds: tuple[float, ...], *, is_delta: bool) -> None:
        self.bounds = np.array(bounds, np.float64)
        self.places = len(bounds) + 1
        self.bytes_per_series = 8 * (self.places + 5) * (2 if is_delta else 1)
        self._is_delta = is_delta
        self._counts = np.zeros((0, self.places), np.int64)
        self._sums = np.zeros(0)
        self._extremes = Extremes(is_delta)
        self._base_counts, self._base_sums = np.zeros_like(self._counts), np.zeros(0)
        self._frozen: tuple[Slots, I64, F64] | None = None

    def grow(self, capacity: int) -> None:
        self._counts = _grown(self._counts, capacity)
        self._sums = _grown(self._sums, capacity)
        self._extremes.grow(capacity)
        if self._is_delta:
            self._base_counts, self._base_sums = _grown(self._base_counts, capacity), _grown(self._base_sums, capacity)

    def reset(self, slots: Slots) -> None:
        self._counts[slots], self._sums[slots] = 0, 0.0
        self._extremes.reset(slots)
        if self._is_delta:
            self._base_counts[slots], self._base_sums[slots] = 0, 0.0

    def observe(self, slots: Slots, values: F64) -> npt.NDArray[np.intp]:
        """Adds `values` to the series in `slots`; the bucket of each is returned."""
        # hot: benchmarks/pipeline.py
        buckets = np.searchsorted(self.bounds, values, side="left")
        np.add.at(self._counts.ravel(), slots * self.places + buckets, 1)
        np.add.at(self._sums, slots, values)
        self._extremes.observe(slots, values)
        return buckets

    def counts(self, slots: Slots) -> I64:
        """Counts to report: of the series' life, or since the last accepted export."""
        return self._counts[slots] - self._base_counts[slots] if self._is_delta else self._counts[slots]

    def totals(self, slots: Slots) -> tuple[I64, F64]:
        """Bucket counts and sums of the series' life."""
        return self._counts[slots], self._sums[slots]

    def changed(self, slots: Slots) -> Slots:
        return slots[self.counts(slots).any(axis=1)]

    def encode(self, slots: Slots, start: U64, now: int, behind: I64) -> Objects:
        """`Histogram.data_points` entries without the `behind` bytes that the caller appends to each."""
        counts = self.counts(slots)
        sums = self._sums[slots] - (self._base_sums[slots] if self._is_delta else 0.0)
        low, high = self._extremes.freeze(slots)
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
        return whole_strings(rows.matrix())

    def freeze(self, slots: Slots) -> None:
        """Remembers what is being reported."""
        self._frozen = (slots, self._counts[slots], self._sums[slots]) if self._is_delta else None

    def accept(self) -> None:
        """What was frozen has arrived."""
        if self._frozen is not None:
            slots, counts, sums = self._frozen
            self._base_counts[slots], self._base_sums[slots] = counts, sums
            self._extremes.accept(slots)
            self._frozen = None

    def tail(self) -> bytes:
        return temporality(self._is_delta)


class Counter:
    """Monotonic sum of whole numbers."""

    exemplar_tag = 0x2A
    metric_tag = 7
    places = 1

    def __init__(self, *, is_delta: bool) -> None:
        self.bytes_per_series = 16
        self._is_delta = is_delta
        self._values, self._base = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._frozen: tuple[Slots, I64] | None = None

    def grow(self, capacity: int) -> None:
        self._values, self._base = _grown(self._values, capacity), _grown(self._base, capacity)

    def reset(self, slots: Slots) -> None:
        self._values[slots] = self._base[slots] = 0

    def observe(self, slots: Slots, values: F64) -> npt.NDArray[np.intp]:
        np.add.at(self._values, slots, values.astype(np.int64))
        return np.zeros(len(slots), np.intp)

    def total(self, slots: Slots) -> I64:
        return np.asarray(self._values[slots], np.int64)

    def changed(self, slots: Slots) -> Slots:
        out: Slots = slots[self._values[slots] != self._base[slots]]
        return out

    def encode(self, slots: Slots, start: U64, now: int, behind: I64) -> Objects:
        rows = Rows(len(slots))
        length = open_point(rows)
        begin = rows.width
        times(rows, start, now)
        values = self._values[slots] - (self._base[slots] if self._is_delta else 0)
        rows.fixed64(0x31, values.astype(np.uint64))
        length[:] = rows.width - begin + behind
        return whole_strings(rows.matrix())

    def freeze(self, slots: Slots) -> None:
        self._frozen = (slots, self._values[slots]) if self._is_delta else None

    def accept(self) -> None:
        if self._frozen is not None:
            slots, values = self._frozen
            self._base[slots] = values
            self._frozen = None

    def tail(self) -> bytes:
        return temporality(self._is_delta) + b"\x18\x01"


def open_point(rows: Rows) -> I64:
    """Opens a `data_points` entry; fill the array with its length when the rest is laid out."""
    length = np.zeros(rows.count, np.int64)
    rows.constant(b"\x0a")
    rows.varint(length, 3)
    return length


def times(rows: Rows, start: U64, now: int) -> None:
    rows.fixed64(0x11, start)
    rows.constant(b"\x19" + now.to_bytes(8, "little"))


def temporality(is_delta: bool) -> bytes:
    """The `aggregation_temporality` field: 1 delta, 2 cumulative."""
    return bytes((0x10, 1 if is_delta else 2))


def _grown(column: npt.NDArray[_T], capacity: int) -> npt.NDArray[_T]:
    out = np.zeros((capacity, *column.shape[1:]), column.dtype)
    out[: len(column)] = column
    return out
