"""One exemplar per series and place (a bucket, where there are buckets): the last sampled span that fell there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import F64, U8, U64, Bools, opaque
from otel_ebpf_receiver.telemetry.wire import Objects, Rows

U32 = npt.NDArray[np.uint32]
_BODY_BYTES = 46
_KEPT = np.dtype([("time", "<u8"), ("value", "<f8"), ("trace", "u1", 16), ("span", "u1", 8), ("number", "<u4")])
"""`number`: of the collection that it is the first to be in; 0: there is none."""


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
        self._kept = np.zeros(capacity * self.places, _KEPT)

    @property
    def bytes_per_series(self) -> int:
        return _KEPT.itemsize * self.places

    def keep(
        self, slots: npt.NDArray[np.intp], place: npt.NDArray[np.intp], values: F64, sampled: Sampled, *, capacity: int, number: int
    ) -> None:
        """Keeps the sampled rows of an observation; `capacity` is the number of series there may be, `number` that of the next collection."""
        if not sampled.rows.size:
            return
        if capacity > self._capacity:
            kept = self._kept
            self._allocate(capacity)
            self._kept[: len(kept)] = kept
            self._capacity = capacity
        rows = np.empty(len(sampled.rows), _KEPT)
        rows["time"], rows["value"], rows["number"] = sampled.unix_ns, values[sampled.rows], number
        rows["trace"], rows["span"] = sampled.trace, sampled.span
        # hot: benchmarks/pipeline.py. All places are far apart: each is gone to once.
        opaque(self._kept)[slots[sampled.rows] * self.places + place[sampled.rows]] = opaque(rows)

    def clear(self, slots: npt.NDArray[np.intp]) -> None:
        if self._capacity:
            self._kept["number"].reshape(-1, self.places)[slots] = 0

    def _of(self, slots: npt.NDArray[np.intp], accepted: U32) -> Bools:
        """Places (n x places) with an exemplar that came after the collection that was accepted last."""
        return self._kept["number"].reshape(-1, self.places)[slots] > accepted[:, None]

    def encode(self, slots: npt.NDArray[np.intp], tag: int, accepted: U32) -> Objects:
        """The exemplar fields (`tag`) of each series' point; `accepted`: the number of the last accepted collection, per slot."""
        out = np.full(len(slots), b"", object)
        if not self._capacity:
            return out
        there = self._of(slots, accepted)
        row, place = np.nonzero(there)
        if not row.size:
            return out
        kept = self._kept[slots[row] * self.places + place]
        rows = Rows(len(kept))
        rows.constant(bytes((tag, _BODY_BYTES)))
        rows.fixed64(0x11, kept["time"])
        rows.fixed64(0x19, kept["value"])
        rows.constant(b"\x22\x08")
        rows.raw(kept["span"])
        rows.constant(b"\x2a\x10")
        rows.raw(kept["trace"])
        blob = rows.matrix().tobytes()
        # `at` follows the order of `slots`: those of one series are one piece of the blob.
        ends = np.cumsum(np.count_nonzero(there, axis=1)) * rows.width
        begins = np.concatenate(([0], ends[:-1]))
        out[:] = [blob[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
        return out

    def of(self, slot: int) -> list[Exemplar]:
        """Those of one series."""
        kept = self._kept[slot * self.places : (slot + 1) * self.places]
        return [
            Exemplar(float(one["value"]), int(one["time"]), one["trace"].tobytes(), one["span"].tobytes()) for one in kept if one["number"]
        ]
