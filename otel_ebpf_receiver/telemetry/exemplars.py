"""One exemplar per series and place (a bucket, where there are buckets): the last sampled span that fell there since the last accepted export."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import F64, U8, U64
from otel_ebpf_receiver.telemetry.wire import Objects, Rows

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
    """Places for `places` exemplars per series; allocated when the first one comes."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._capacity = 0
        self._allocate(0)

    def _allocate(self, capacity: int) -> None:
        self._time = np.zeros(capacity * self.places, np.uint64)
        self._value = np.zeros(capacity * self.places)
        self._trace = np.zeros((capacity * self.places, 16), np.uint8)
        self._span = np.zeros((capacity * self.places, 8), np.uint8)

    @property
    def bytes_per_series(self) -> int:
        return 40 * self.places

    def keep(self, slots: npt.NDArray[np.intp], place: npt.NDArray[np.intp], values: F64, sampled: Sampled, capacity: int) -> None:
        """Keeps the sampled rows of an observation; `capacity` is the number of series there may be."""
        if not sampled.rows.size:
            return
        if capacity > self._capacity:
            old = (self._time, self._value, self._trace, self._span)
            self._allocate(capacity)
            self._time[: len(old[0])], self._value[: len(old[0])] = old[0], old[1]
            self._trace[: len(old[0])], self._span[: len(old[0])] = old[2], old[3]
            self._capacity = capacity
        at = slots[sampled.rows] * self.places + place[sampled.rows]
        self._time[at], self._value[at] = sampled.unix_ns, values[sampled.rows]
        self._trace[at], self._span[at] = sampled.trace, sampled.span

    def clear(self, slots: npt.NDArray[np.intp]) -> None:
        if self._capacity:
            self._time.reshape(-1, self.places)[slots] = 0

    def forget(self, at: npt.NDArray[np.intp], times: U64) -> None:
        """Lets go of what was exported, unless it was replaced since."""
        same = at[self._time[at] == times]
        self._time[same] = 0

    def taken(self, slots: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], U64]:
        """Where the exemplars of some series are, by series, and their times."""
        if not self._capacity:
            return np.zeros(0, np.intp), np.zeros(0, np.uint64)
        at = (slots[:, None] * self.places + np.arange(self.places)).ravel()
        at = at[self._time[at] > 0]
        return at, self._time[at]

    def encode(self, slots: npt.NDArray[np.intp], tag: int) -> Objects:
        """The exemplar fields (`tag`) of each series' point."""
        out = np.full(len(slots), b"", object)
        at, times = self.taken(slots)
        if not at.size:
            return out
        rows = Rows(len(at))
        rows.constant(bytes((tag, _BODY_BYTES)))
        rows.fixed64(0x11, times)
        rows.fixed64(0x19, self._value[at])
        rows.constant(b"\x22\x08")
        rows.raw(self._span[at])
        rows.constant(b"\x2a\x10")
        rows.raw(self._trace[at])
        blob = rows.matrix().tobytes()
        # `at` follows the order of `slots`: those of one series are one piece of the blob.
        ends = np.cumsum(np.count_nonzero(self._time.reshape(-1, self.places)[slots], axis=1)) * rows.width
        begins = np.concatenate(([0], ends[:-1]))
        out[:] = [blob[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
        return out

    def of(self, slot: int) -> list[Exemplar]:
        at, _ = self.taken(np.array([slot]))
        return [Exemplar(float(self._value[i]), int(self._time[i]), self._trace[i].tobytes(), self._span[i].tobytes()) for i in at.tolist()]
