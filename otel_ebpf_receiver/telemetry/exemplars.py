"""One exemplar per series and place (a bucket, where there are buckets): the last sampled span that fell there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import F64, U8, U64, Bools
from otel_ebpf_receiver.telemetry.wire import Objects, Rows

U32 = npt.NDArray[np.uint32]
_BODY_BYTES = 46


@dataclass(frozen=True, slots=True)
class Sampled:
    """Rows of an observation whose span is sent: which (intp into the observation), their ids and times."""

    rows: npt.NDArray[np.intp]
    trace: U8
    span: U8
    unix_ns: U64


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One, for readers that are no OTLP encoder."""

    value: float
    unix_ns: int
    trace_id: bytes
    span_id: bytes


class Exemplars:
    """Places for `places` exemplars per series; allocated when the first one comes. An exemplar carries the number of the collection that it is
    the first to be in, so that each reader is given what it has not accepted yet."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._capacity = 0
        self._allocate(0)

    def _allocate(self, capacity: int) -> None:
        self._time = np.zeros(capacity * self.places, np.uint64)
        self._number = np.zeros(capacity * self.places, np.uint32)
        self._value = np.zeros(capacity * self.places)
        self._trace = np.zeros((capacity * self.places, 16), np.uint8)
        self._span = np.zeros((capacity * self.places, 8), np.uint8)

    @property
    def bytes_per_series(self) -> int:
        return 44 * self.places

    def keep(
        self, slots: npt.NDArray[np.intp], place: npt.NDArray[np.intp], values: F64, sampled: Sampled, *, capacity: int, number: int
    ) -> None:
        """Keeps the sampled rows of an observation; `capacity` is the number of series there may be, `number` that of the next collection."""
        if not sampled.rows.size:
            return
        if capacity > self._capacity:
            kept, count = (self._time, self._number, self._value, self._trace, self._span), len(self._time)
            self._allocate(capacity)
            self._time[:count], self._number[:count], self._value[:count], self._trace[:count], self._span[:count] = kept
            self._capacity = capacity
        at = slots[sampled.rows] * self.places + place[sampled.rows]
        self._time[at], self._value[at], self._number[at] = sampled.unix_ns, values[sampled.rows], number
        self._trace[at], self._span[at] = sampled.trace, sampled.span

    def clear(self, slots: npt.NDArray[np.intp]) -> None:
        if self._capacity:
            self._number.reshape(-1, self.places)[slots] = 0

    def _of(self, slots: npt.NDArray[np.intp], accepted: U32) -> Bools:
        """Places (n x places) with an exemplar that came after the collection that was accepted last."""
        return self._number.reshape(-1, self.places)[slots] > accepted[:, None]

    def encode(self, slots: npt.NDArray[np.intp], tag: int, accepted: U32) -> Objects:
        """The exemplar fields (`tag`) of each series' point; `accepted`: the number of the last accepted collection, per slot."""
        out = np.full(len(slots), b"", object)
        if not self._capacity:
            return out
        there = self._of(slots, accepted)
        row, place = np.nonzero(there)
        if not row.size:
            return out
        at = slots[row] * self.places + place
        rows = Rows(len(at))
        rows.constant(bytes((tag, _BODY_BYTES)))
        rows.fixed64(0x11, self._time[at])
        rows.fixed64(0x19, self._value[at])
        rows.constant(b"\x22\x08")
        rows.raw(self._span[at])
        rows.constant(b"\x2a\x10")
        rows.raw(self._trace[at])
        blob = rows.matrix().tobytes()
        # `at` follows the order of `slots`: those of one series are one piece of the blob.
        ends = np.cumsum(np.count_nonzero(there, axis=1)) * rows.width
        begins = np.concatenate(([0], ends[:-1]))
        out[:] = [blob[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
        return out

    def of(self, slot: int) -> list[Exemplar]:
        """Those of one series."""
        begin = slot * self.places
        at = [begin + place for place in range(self.places) if self._capacity and self._number[begin + place]]
        return [Exemplar(float(self._value[i]), int(self._time[i]), self._trace[i].tobytes(), self._span[i].tobytes()) for i in at]
