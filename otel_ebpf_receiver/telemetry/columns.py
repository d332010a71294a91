"""What a source hands to telemetry: columns over the rows of a batch, never a Python object per row.

Attributes that few distinct rows share come as a `Group`: a 64-bit key per row, and a function that describes one row; it is called once per
key not met before. Numbers come as `Integers`, the one text that differs from row to row as `Text`. This module knows no protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Records = npt.NDArray[np.void]
_T = TypeVar("_T", bound=np.generic)


def opaque(records: Records) -> Records:
    """The same rows as one field of bytes each."""
    # hot: benchmarks/pipeline.py. numpy copies a record of many fields field by field, one opaque field eight times as fast.
    return np.ascontiguousarray(records).view(f"V{records.dtype.itemsize}")


def picked(records: Records, rows: npt.NDArray[np.intp] | Bools) -> Records:
    """Some of the rows, copied."""
    return opaque(records)[rows].view(records.dtype)


def of_rows(column: npt.NDArray[_T], rows: npt.NDArray[np.intp]) -> npt.NDArray[_T]:
    """Some rows of a column, in their order; the column itself where that is all."""
    return column if len(rows) == len(column) else column.take(rows)


AttributeValue = str | bool | int | float | tuple[str, ...]
Attributes = Mapping[str, AttributeValue]


class Kind(IntEnum):
    """Kinds of spans, by their number in OTLP."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


@dataclass(frozen=True, slots=True)
class Part:
    """What a group says about its rows. The last three are the span's own fields; only one group of a span sets each."""

    attributes: Attributes = field(default_factory=dict)
    name: str = ""
    is_error: bool = False
    trace_state: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Attributes by key: rows with equal `key` (u64, n) have equal `build(row)`."""

    key: U64
    build: Callable[[int], Part]


@dataclass(frozen=True, slots=True)
class Integers:
    """One integer attribute, never negative; `present` (bool, n) says where it exists, None: everywhere."""

    name: str
    values: npt.NDArray[np.integer]
    present: Bools | None = None


@dataclass(frozen=True, slots=True)
class Prefix:
    """Text that stands before a row's own text, by key."""

    key: U64
    build: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Text:
    """One text attribute that differs from row to row: `matrix` (u8, n x width) is valid UTF-8 without NUL, zero behind `lengths`."""

    name: str
    matrix: U8
    lengths: I64
    prefix: Prefix | None = None
    present: Bools | None = None


@dataclass(frozen=True, slots=True)
class SpanColumns:
    """The spans of one kind for some rows of a batch; every array has as many rows."""

    kind: Kind
    groups: Sequence[Group]
    integers: Sequence[Integers] = ()
    texts: Sequence[Text] = ()


@dataclass(frozen=True, slots=True)
class Instrument:
    """A metric that a source declares. A histogram with `bounds`; without, a counter (monotonic sum), or (`is_level`) how many there are now."""

    name: str
    unit: str
    description: str
    bounds: tuple[float, ...] | None = None
    is_duration: bool = False
    """Durations may be asked for as base-2 exponential histograms and with bounds of the user's own."""
    is_level: bool = False


@dataclass(frozen=True, slots=True)
class Points:
    """Observations of one instrument. `rows` (intp) says which rows of the batch they come from; the group is over these."""

    instrument: Instrument
    kind: Kind
    rows: npt.NDArray[np.intp]
    values: F64
    group: Group


@dataclass(frozen=True, slots=True)
class Seen:
    """What tells copies of one exchange apart from two exchanges (n rows): `key` depends on nothing that a device on the way may rewrite."""

    key: U64
    tap: I64
    direction: U8
    end_ns: U64


@dataclass(frozen=True, slots=True)
class Linkage:
    """What ids and sampling are made from (n rows). `words` (u64, k x n) is equal at both ends of the exchange."""

    words: U64
    traced: Bools
    """Where the three below are a valid remote parent."""
    trace_id: U8
    parent_id: U8
    parent_sampled: Bools
    trace_state: npt.NDArray[np.bytes_]
    trace_state_cut: Bools

    def of(self, rows: npt.NDArray[np.intp]) -> Linkage:
        """That of some rows, in their order, as far as their place in a trace goes: without the words, of which ids are made, and the trace states."""
        if len(rows) == len(self.traced):
            return self
        return Linkage(
            self.words[:, :0],
            self.traced[rows],
            self.trace_id[rows],
            self.parent_id[rows],
            self.parent_sampled[rows],
            self.trace_state[:0],
            self.trace_state_cut[:0],
        )
