"""Protobuf for whole batches: fixed-width rows as one matrix, everything else as cached byte strings that protobuf itself made.

Only tags and lengths are written by hand, lengths as varints padded to a fixed width, which every protobuf reader accepts. It knows messages'
field numbers through its callers, and no attribute names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

from otel_ebpf_receiver.telemetry.columns import I64, U8, U64, AttributeValue
from otel_ebpf_receiver.telemetry.keys import KeyIndex

Objects = npt.NDArray[np.object_]
PAYLOAD_MAX_BYTES = 3 << 20
"""Servers usually take 4 MiB; a larger request is refused whole."""


def varint(value: int) -> bytes:
    """The shortest encoding."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, body: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def varint_width(values: npt.NDArray[np.integer]) -> int:
    """Bytes that hold the largest of `values` as a varint."""
    return max(1, (int(values.max(initial=0)).bit_length() + 6) // 7)


def key_values(attributes: Mapping[str, AttributeValue]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_any(value)) for key, value in attributes.items()]


def _any(value: AttributeValue) -> AnyValue:
    # bool is an int: it must be asked for first.
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=item) for item in value]))


def attribute_fields(number: int, attributes: Mapping[str, AttributeValue]) -> bytes:
    """The attributes as entries of the repeated `KeyValue` that is a message's field `number`."""
    tag = varint(number << 3 | 2)
    return b"".join([tag + _key_value(key, value, type(value).__name__) for key, value in attributes.items()])


@functools.lru_cache(maxsize=8192)
def _key_value(key: str, value: AttributeValue, of: str) -> bytes:
    """An attribute, its length in front; `of` tells True from 1. Most of them are met over and over, and protobuf takes ten times as long."""
    body = KeyValue(key=key, value=_any(value)).SerializeToString()
    return varint(len(body)) + body


_BLOCK_BYTES = 1 << 18


class Rows:
    """A matrix of bytes with one row per message, laid out field by field from the left."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.width = 0
        self._template = bytearray()
        self._columns: list[tuple[int, U8]] = []
        self._varints: list[tuple[int, int, npt.NDArray[np.integer]]] = []

    def constant(self, data: bytes) -> None:
        self._template += data
        self.width += len(data)

    def raw(self, data: U8) -> None:
        """`data`: n x width."""
        self._columns.append((self.width, data))
        self.constant(bytes(data.shape[1]))

    def fixed64(self, tag: int, values: npt.NDArray[np.uint64] | npt.NDArray[np.float64]) -> None:
        self.constant(bytes((tag,)))
        self.raw(np.ascontiguousarray(values).view(np.uint8).reshape(self.count, 8))

    def varint(self, values: npt.NDArray[np.integer], width: int) -> None:
        self._varints.append((self.width, width, values))
        self.constant(b"\x80" * (width - 1) + b"\x00")

    def matrix(self) -> U8:
        """The filled matrix."""
        out = np.empty((self.count, self.width), np.uint8)
        self._begin(out)
        for start, data in self._filled():
            _bytes_of(out, start, data.shape[1])[:] = _whole(data)
        return out

    def strings(self, tail: Texts | None = None) -> list[bytes]:
        """Each row as bytes, `tail` behind its fields."""
        # hot: benchmarks/pipeline.py. A block at a time, which stays in the processor's cache.
        columns, width = self._filled(), self.width
        if tail is not None:
            columns.append((width, tail.matrix))
            width += tail.matrix.shape[1]
        block = np.empty((max(1, min(self.count, _BLOCK_BYTES // width)), width), np.uint8)
        self._begin(block)
        moved = [(_bytes_of(block, start, data.shape[1]), _whole(data)) for start, data in columns if data.shape[1]]
        out: list[bytes] = []
        for begin in range(0, self.count, len(block)):
            part = block[: self.count - begin]
            for there, here in moved:
                there[: len(part)] = here[begin : begin + len(part)]
            out += whole_strings(part) if tail is None else self._cut(part, tail.lengths[begin : begin + len(part)])
        return out

    def _begin(self, out: U8) -> None:
        if self.width and len(out):
            _bytes_of(out, 0, self.width)[:] = np.void(bytes(self._template))

    def _filled(self) -> list[tuple[int, U8]]:
        return [*self._columns, *((start, _varints(values, width)) for start, width, values in self._varints)]

    def _cut(self, rows: U8, lengths: I64) -> list[bytes]:
        """Rows cut behind their text. A row with an empty one would lose the zeros that end its fields."""
        out = strings(rows)
        for row in np.flatnonzero(lengths == 0).tolist():
            out[row] = rows[row, : self.width].tobytes()
        return out


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of n rows: `matrix` (n x width) without NUL, zero behind `lengths`."""

    matrix: U8
    lengths: I64


def _whole(matrix: U8) -> npt.NDArray[np.void]:
    """Each row as one opaque value."""
    return _bytes_of(matrix, 0, matrix.shape[1])


def _bytes_of(matrix: U8, start: int, width: int) -> npt.NDArray[np.void]:
    """Some bytes of each row as one opaque value, which numpy moves several times as fast as one by one."""
    field = np.dtype({"names": ["bytes"], "formats": [f"V{width}"], "offsets": [start], "itemsize": matrix.shape[1]})
    return matrix.view(field)[:, 0]["bytes"]


# Seven bits after seven bits: halves move apart by four bits, quarters by two, eighths by one.
_SPREAD = (
    (0x000000000FFFFFFF, 0x00FFFFFFF0000000, 4),
    (0x00003FFF00003FFF, 0x0FFFC0000FFFC000, 2),
    (0x007F007F007F007F, 0x3F803F803F803F80, 1),
)


def _varints(values: npt.NDArray[np.integer], width: int) -> U8:
    """Each value as a varint of `width` bytes (n x width)."""
    # hot: benchmarks/pipeline.py
    is_short = width <= 4
    most = 0xFFFFFFFF if is_short else 0xFFFFFFFFFFFFFFFF
    spread: npt.NDArray[Any] = values.astype(np.uint32 if is_short else np.uint64)
    for low, high, shift in _SPREAD[is_short:]:
        spread = spread & (low & most) | (spread & (high & most)) << shift
    # All but the last say that another follows.
    spread |= 0x8080808080808080 & (1 << 8 * (width - 1)) - 1 & most
    out = spread.view(np.uint8).reshape(len(values), -1)
    if width <= 8:
        return out[:, :width]
    rest = [values.astype(np.uint64) >> np.uint64(7 * place) | np.uint64(0x80 * (place < width - 1)) for place in range(8, width)]
    return np.column_stack((out, *(column.astype(np.uint8) for column in rest)))


def strings(matrix: U8) -> list[bytes]:
    """Each row as bytes without the zeros at its end."""
    rows: list[bytes] = matrix.view(f"S{matrix.shape[1]}").ravel().tolist()
    return rows


def whole_strings(matrix: U8) -> list[bytes]:
    """Each row as bytes, zeros at the end included."""
    rows: list[bytes] = matrix.view(f"V{matrix.shape[1]}").ravel().tolist()
    return rows


def objects(rows: Sequence[bytes]) -> Objects:
    """The same as an array."""
    out = np.empty(len(rows), object)
    out[:] = rows
    return out


class Pieces:
    """Byte strings by key, made once each. Bounded: when full it starts afresh, which costs time and nothing else."""

    def __init__(self, max_entries: int = 32768) -> None:
        self._max_entries = max_entries
        self._index = KeyIndex()
        self.clear()

    def clear(self) -> None:
        self._index.clear()
        self._bytes: Objects = np.empty(1024, object)
        self._lengths = np.zeros(1024, np.int64)
        self._count = 0

    def take(self, keys: U64, build: Callable[[int], bytes]) -> tuple[list[bytes], I64]:
        """The byte string of each row and its length; `build(row)` makes one that is not there."""
        if self._count > self._max_entries:
            self.clear()
        at = self._index.number(keys, lambda row: self._add(build(row)))
        pieces: list[bytes] = self._bytes.take(at).tolist()
        return pieces, self._lengths.take(at)

    def _add(self, data: bytes) -> int:
        if self._count == len(self._bytes):
            self._bytes = np.concatenate((self._bytes, np.empty_like(self._bytes)))
            self._lengths = np.concatenate((self._lengths, np.zeros_like(self._lengths)))
        self._bytes[self._count], self._lengths[self._count] = data, len(data)
        self._count += 1
        return self._count - 1
