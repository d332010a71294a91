"""Base-2 exponential histograms (OTLP): at most 160 buckets per series, at the finest scale that holds all its values, never above 20.

Bucket i at scale s is (2^(i/2^s), 2^((i+1)/2^s)], so an index at a coarser scale is the finer one shifted right. Every value is indexed once at
the finest scale; only a series whose range outgrows its buckets is touched one at a time.
"""

from __future__ import annotations

import math
import operator

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.aggregation import Extremes, Slots, open_point, temporality, times
from otel_ebpf_receiver.telemetry.columns import F64, I64, U64
from otel_ebpf_receiver.telemetry.wire import Objects, Rows, varint_width, whole_strings

BUCKETS = 160
SCALE_MAX = 20
_OFFSET_WIDTH, _DATA_WIDTH = 5, 3
"""Bytes of the padded varints: an index has at most 32 bits, 160 counts at most 1600 bytes."""
_EMPTY = np.iinfo(np.int64).max


def index(values: F64) -> I64:
    """Bucket of each positive value at the finest scale."""
    mantissa, exponent = np.frexp(values)
    exact = ((exponent.astype(np.int64) - 1) << SCALE_MAX) - 1
    rough = np.floor(np.log(values) * math.ldexp(1 / math.log(2), SCALE_MAX)).astype(np.int64)
    return np.where(mantissa == 0.5, exact, rough)


class Exponential:
    """Exponential histograms of many series. `base_*` is what was last accepted, for deltas."""

    exemplar_tag = 0x5A
    metric_tag = 10
    places = 8

    def __init__(self, *, is_delta: bool) -> None:
        self.bytes_per_series = 8 * (BUCKETS + 8) * (2 if is_delta else 1)
        self._is_delta = is_delta
        self._counts = np.zeros((0, BUCKETS), np.int64)
        self._base = np.zeros((0, BUCKETS), np.int64)
        # Per series: sum, values that are zero, and both as last accepted.
        self._sums, self._zeros = np.zeros((2, 0)), np.zeros((2, 0), np.int64)
        self._scale, self._first, self._last = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._extremes = Extremes(is_delta)
        self._frozen: tuple[Slots, F64, I64, I64] | None = None
        self._frozen_counts: I64 | None = None

    def grow(self, capacity: int) -> None:
        more = capacity - len(self._scale)
        fresh = np.arange(len(self._scale), capacity)
        self._counts = np.pad(self._counts, ((0, more), (0, 0)))
        self._base = np.pad(self._base, ((0, more if self._is_delta else 0), (0, 0)))
        self._sums, self._zeros = np.pad(self._sums, ((0, 0), (0, more))), np.pad(self._zeros, ((0, 0), (0, more)))
        self._scale, self._first, self._last = (np.pad(column, (0, more)) for column in (self._scale, self._first, self._last))
        self._extremes.grow(capacity)
        self.reset(fresh)

    def reset(self, slots: Slots) -> None:
        self._extremes.reset(slots)
        self._empty(slots)
        self._sums[:, slots], self._zeros[:, slots] = 0.0, 0

    def _empty(self, slots: Slots) -> None:
        self._counts[slots] = 0
        if self._is_delta:
            self._base[slots] = 0
        self._scale[slots], self._first[slots], self._last[slots] = SCALE_MAX, _EMPTY, -_EMPTY

    def observe(self, slots: Slots, values: F64) -> npt.NDArray[np.intp]:
        """Adds `values`; returned is an exemplar place for each."""
        np.add.at(self._sums[0], slots, values)
        self._extremes.observe(slots, values)
        positive = values > 0
        if not positive.all():
            np.add.at(self._zeros[0], slots[~positive], 1)
            place = np.zeros(len(slots), np.intp)
            place[positive] = self._observe(slots[positive], values[positive])
            return place
        return self._observe(slots, values)

    def _observe(self, slots: Slots, values: F64) -> npt.NDArray[np.intp]:
        fine = index(values)
        self._make_room(slots, fine)
        at = (fine >> (SCALE_MAX - self._scale[slots])) - self._first[slots]
        np.add.at(self._counts.ravel(), slots * BUCKETS + at, 1)
        return (at % self.places).astype(np.intp)

    def _make_room(self, slots: Slots, fine: I64) -> None:
        """Widens or coarsens the series that cannot hold an index yet."""
        touched, where = np.unique(slots, return_inverse=True)
        low, high = np.full(len(touched), _EMPTY), np.full(len(touched), -_EMPTY)
        np.minimum.at(low, where, fine)
        np.maximum.at(high, where, fine)
        shift = SCALE_MAX - self._scale[touched]
        low, high = low >> shift, high >> shift
        outside = np.flatnonzero((low < self._first[touched]) | (high >= self._first[touched] + BUCKETS) | (self._first[touched] == _EMPTY))
        for number in outside.tolist():
            self._widen(int(touched[number]), int(low[number]), int(high[number]))
        inside = np.setdiff1d(np.arange(len(touched)), outside, assume_unique=True)
        self._last[touched[inside]] = np.maximum(self._last[touched[inside]], high[inside])

    def _widen(self, slot: int, low: int, high: int) -> None:
        """Makes the buckets of one series reach from `low` to `high` (indices at its scale) as well."""
        first, last = int(self._first[slot]), int(self._last[slot])
        if first == _EMPTY:
            first, last, start, stop = low, high, low, high
        else:
            start, stop = min(low, first), max(high, last)
        shift = 0
        while (stop >> shift) - (start >> shift) >= BUCKETS:
            shift += 1
        for counts in (self._counts, self._base) if self._is_delta else (self._counts,):
            old = counts[slot].copy()
            used = np.flatnonzero(old)
            counts[slot] = 0
            np.add.at(counts[slot], ((used + first) >> shift) - (start >> shift), old[used])
        if self._frozen is not None and self._frozen_counts is not None:
            self._rebase_frozen(slot, first, shift, start)
        self._scale[slot] -= shift
        self._first[slot], self._last[slot] = start >> shift, stop >> shift

    def _rebase_frozen(self, slot: int, first: int, shift: int, start: int) -> None:
        assert self._frozen is not None
        assert self._frozen_counts is not None
        for row in np.flatnonzero(self._frozen[0] == slot).tolist():
            old = self._frozen_counts[row].copy()
            used = np.flatnonzero(old)
            self._frozen_counts[row] = 0
            np.add.at(self._frozen_counts[row], ((used + first) >> shift) - (start >> shift), old[used])

    def _reported(self, slots: Slots) -> tuple[I64, F64, I64]:
        if not self._is_delta:
            return self._counts[slots], self._sums[0, slots], self._zeros[0, slots]
        return (
            self._counts[slots] - self._base[slots],
            self._sums[0, slots] - self._sums[1, slots],
            self._zeros[0, slots] - self._zeros[1, slots],
        )

    def changed(self, slots: Slots) -> Slots:
        counts, _, zeros = self._reported(slots)
        return slots[counts.any(axis=1) | (zeros > 0)]

    def encode(self, slots: Slots, start: U64, now: int, behind: I64) -> Objects:
        """`ExponentialHistogram.data_points` entries without the `behind` bytes that the caller appends to each."""
        counts, sums, zeros = self._reported(slots)
        low, high = self._extremes.freeze(slots)
        first, data = _packed(counts)
        lengths = np.fromiter(map(len, data), np.int64, len(data))
        rows = Rows(len(slots))
        length = open_point(rows)
        begin = rows.width
        times(rows, start, now)
        rows.fixed64(0x21, (counts.sum(axis=1) + zeros).astype(np.uint64))
        rows.fixed64(0x29, sums)
        rows.constant(b"\x30")
        rows.varint(_zigzag(self._scale[slots]), 1)
        rows.fixed64(0x39, zeros.astype(np.uint64))
        rows.fixed64(0x61, low)
        rows.fixed64(0x69, high)
        # The positive buckets come last: their first index, then as many counts as there are.
        rows.constant(b"\x42")
        rows.varint(1 + _OFFSET_WIDTH + 1 + _DATA_WIDTH + lengths, _DATA_WIDTH)
        rows.constant(b"\x08")
        rows.varint(_zigzag(np.where(lengths > 0, self._first[slots] + first, 0)), _OFFSET_WIDTH)
        rows.constant(b"\x12")
        rows.varint(lengths, _DATA_WIDTH)
        length[:] = rows.width - begin + behind + lengths
        out = np.empty(len(slots), object)
        out[:] = list(map(operator.add, whole_strings(rows.matrix()).tolist(), data))
        return out

    def freeze(self, slots: Slots) -> None:
        if self._is_delta:
            self._frozen = (slots, self._sums[0, slots], self._zeros[0, slots], self._counts[slots].sum(axis=1))
            self._frozen_counts = self._counts[slots]

    def accept(self) -> None:
        if self._frozen is None or self._frozen_counts is None:
            return
        slots, sums, zeros, total = self._frozen
        self._base[slots], self._sums[1, slots], self._zeros[1, slots] = self._frozen_counts, sums, zeros
        self._extremes.accept(slots)
        # Nothing came since: the series may use the finest scale again.
        self._empty(slots[self._counts[slots].sum(axis=1) == total])
        self._frozen = self._frozen_counts = None

    def tail(self) -> bytes:
        return temporality(self._is_delta)


def _zigzag(values: I64) -> U64:
    """Signed numbers as protobuf's sint32 has them."""
    return ((values << 1) ^ (values >> 63)).astype(np.uint64)


def _packed(counts: I64) -> tuple[I64, list[bytes]]:
    """Of each row the place of the first count that is not zero, and the counts from there to the last one as packed varints."""
    used = counts > 0
    first, stop = used.argmax(axis=1), BUCKETS - used[:, ::-1].argmax(axis=1)
    stop = np.where(used[np.arange(len(counts)), first], stop, first)
    width = varint_width(counts)
    if width == 1:
        blob = counts.astype(np.uint8).tobytes()
    else:
        packed = Rows(counts.size)
        packed.varint(counts.ravel(), width)
        blob = packed.matrix().tobytes()
    origin = np.arange(len(counts)) * BUCKETS
    begins, ends = ((origin + place) * width for place in (first, stop))
    return first, [blob[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
