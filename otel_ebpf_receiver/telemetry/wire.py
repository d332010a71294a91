"""Protobuf for whole batches: fixed-width rows as one matrix, everything else as cached byte strings that protobuf itself made.

Only tags and lengths are written by hand, lengths as varints padded to a fixed width, which every protobuf reader accepts. It knows messages'
field numbers through its callers, and no attribute names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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


class Rows:
    """A matrix of bytes with one row per message, laid out field by field from the left."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.width = 0
        self._template = bytearray()
        self._columns: list[tuple[int, U8]] = []
        self._varints: list[tuple[int, int, npt.NDArray[np.integer] | int]] = []

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

    def matrix(self, tail: U8 | None = None) -> U8:
        """The filled matrix, `tail` (n x width) behind the fields."""
        # hot: benchmarks/pipeline.py
        out = np.empty((self.count, self.width + (tail.shape[1] if tail is not None else 0)), np.uint8)
        out[:, : self.width] = np.frombuffer(bytes(self._template), np.uint8)
        for start, data in self._columns:
            out[:, start : start + data.shape[1]] = data
        for start, width, values in self._varints:
            self._fill(out[:, start : start + width], np.asarray(values, np.uint64))
        if tail is not None:
            out[:, self.width :] = tail
        return out

    def _fill(self, out: U8, values: U64) -> None:
        rest = values.copy()
        last = out.shape[1] - 1
        for place in range(last):
            out[:, place] |= (rest & np.uint64(0x7F)).astype(np.uint8)
            rest >>= np.uint64(7)
        out[:, last] |= rest.astype(np.uint8)


def strings(matrix: U8) -> Objects:
    """Each row as bytes without the zeros at its end."""
    out = np.empty(len(matrix), object)
    out[:] = matrix.view(f"S{matrix.shape[1]}").ravel().tolist()
    return out


def whole_strings(matrix: U8) -> Objects:
    """Each row as bytes, zeros at the end included."""
    out = np.empty(len(matrix), object)
    out[:] = matrix.view(f"V{matrix.shape[1]}").ravel().tolist()
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

    def take(self, keys: U64, build: Callable[[int], bytes]) -> tuple[Objects, I64]:
        """The byte string of each row and its length; `build(row)` makes one that is not there."""
        if self._count > self._max_entries:
            self.clear()
        at = self._index.number(keys, lambda row: self._add(build(row)))
        return self._bytes[at], self._lengths[at]

    def _add(self, data: bytes) -> int:
        if self._count == len(self._bytes):
            self._bytes = np.concatenate((self._bytes, np.empty_like(self._bytes)))
            self._lengths = np.concatenate((self._lengths, np.zeros_like(self._lengths)))
        self._bytes[self._count], self._lengths[self._count] = data, len(data)
        self._count += 1
        return self._count - 1
