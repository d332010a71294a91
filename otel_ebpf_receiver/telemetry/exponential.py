"""Base-2 exponential histograms (OTLP): at most 160 buckets per series, at the finest scale that holds all its values, never above 20.

Bucket i at scale s is (2^(i/2^s), 2^((i+1)/2^s)], so an index at a coarser scale is the finer one shifted right. Every value is indexed once at
the finest scale; only a series whose range outgrows its buckets is touched one at a time.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.aggregation import CUMULATIVE, Extremes, Slots, Wanted, open_point, temporality, times
from otel_ebpf_receiver.telemetry.columns import F64, I64, U64, Bools
from otel_ebpf_receiver.telemetry.wire import Objects, Rows, varint_width

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


@dataclass(frozen=True, slots=True)
class _Frozen:
    """What a reader of differences was given and has not accepted yet."""

    slots: Slots
    counts: I64
    sums: F64
    zeros: I64


class Exponential:
    """Exponential histograms of many series. `base` is what each reader of differences accepted last."""

    exemplar_tag = 0x5A
    metric_tag = 10
    has_deltas = True
    places = 8

    def __init__(self, wanted: Wanted) -> None:
        deltas = wanted.deltas
        self._extremes = Extremes(wanted)
        self.bytes_per_series = 8 * (BUCKETS + 2) * (1 + deltas) + 24 + self._extremes.bytes_per_series
        self._has_cumulative = wanted.has_cumulative
        self._counts = np.zeros((0, BUCKETS), np.int64)
        self._base = [np.zeros((0, BUCKETS), np.int64) for _ in range(deltas)]
        # Per series: sum, values that are zero, and behind them both as each reader of differences accepted them last.
        self._sums, self._zeros = np.zeros((1 + deltas, 0)), np.zeros((1 + deltas, 0), np.int64)
        self._scale, self._first, self._last = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._frozen: list[_Frozen | None] = [None] * deltas

    def grow(self, capacity: int) -> None:
        more = capacity - len(self._scale)
        fresh = np.arange(len(self._scale), capacity)
        self._counts = np.pad(self._counts, ((0, more), (0, 0)))
        self._base = [np.pad(base, ((0, more), (0, 0))) for base in self._base]
        self._sums, self._zeros = np.pad(self._sums, ((0, 0), (0, more))), np.pad(self._zeros, ((0, 0), (0, more)))
        self._scale, self._first, self._last = (np.pad(column, (0, more)) for column in (self._scale, self._first, self._last))
        self._extremes.grow(capacity)
        self.reset(fresh)

    def reset(self, slots: Slots) -> None:
        self._extremes.reset(slots)
        self._empty(slots)
        self._sums[:, slots], self._zeros[:, slots] = 0.0, 0

    def _empty(self, slots: Slots) -> None:
        for counts in (self._counts, *self._base):
            counts[slots] = 0
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
        for counts in (self._counts, *self._base):
            _rebase(counts[slot], first, shift, start)
        for frozen in self._frozen:
            if frozen is not None:
                for row in np.flatnonzero(frozen.slots == slot).tolist():
                    _rebase(frozen.counts[row], first, shift, start)
        self._scale[slot] -= shift
        self._first[slot], self._last[slot] = start >> shift, stop >> shift

    def _reported(self, slots: Slots, delta: int) -> tuple[I64, F64, I64]:
        if delta == CUMULATIVE:
            return self._counts[slots], self._sums[0, slots], self._zeros[0, slots]
        return (
            self._counts[slots] - self._base[delta][slots],
            self._sums[0, slots] - self._sums[1 + delta, slots],
            self._zeros[0, slots] - self._zeros[1 + delta, slots],
        )

    def changed(self, slots: Slots, delta: int) -> Slots:
        counts, _, zeros = self._reported(slots, delta)
        return slots[counts.any(axis=1) | (zeros > 0)]

    def encode(self, slots: Slots, start: U64, now: int, behind: I64, delta: int) -> Objects:
        """`ExponentialHistogram.data_points` entries without the `behind` bytes that the caller appends to each."""
        counts, sums, zeros = self._reported(slots, delta)
        low, high = self._extremes.freeze(slots, delta)
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
        out[:] = list(map(operator.add, rows.strings(), data))
        return out

    def freeze(self, slots: Slots, delta: int) -> None:
        self._frozen[delta] = _Frozen(slots, self._counts[slots], self._sums[0, slots], self._zeros[0, slots])

    def accept(self, delta: int, taken: Bools) -> None:
        if (frozen := self._frozen[delta]) is None:
            return
        slots = frozen.slots[taken]
        self._base[delta][slots] = frozen.counts[taken]
        self._sums[1 + delta, slots], self._zeros[1 + delta, slots] = frozen.sums[taken], frozen.zeros[taken]
        self._extremes.accept(slots, delta)
        self._frozen[delta] = None
        if not self._has_cumulative:
            # What everyone has accepted may use the finest scale again.
            self._empty(slots[np.all([(self._counts[slots] == base[slots]).all(axis=1) for base in self._base], axis=0)])

    def tail(self, delta: int) -> bytes:
        return temporality(delta)


def _rebase(counts: I64, first: int, shift: int, start: int) -> None:
    """Moves the counts of one series whose first bucket had index `first` to buckets that begin with `start`, both then shifted."""
    old = counts.copy()
    used = np.flatnonzero(old)
    counts[:] = 0
    np.add.at(counts, ((used + first) >> shift) - (start >> shift), old[used])


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
