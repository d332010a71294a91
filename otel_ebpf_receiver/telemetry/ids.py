"""Trace and span ids that both ends of an exchange compute alike, without a word between them.

Each id is SipHash-1-3, a keyed pseudo-random function (Aumasson, Bernstein 2012), of the same words and one label byte: trace id high and low,
CLIENT span id, SERVER span id. The key is secret, so traffic cannot be made to collide and an id tells nothing about the traffic. Computed for a
whole batch: every step of the hash is one numpy operation over all rows of a slice that stays in the processor's cache. What is asked for of a
few rows only, as most ids are where most exchanges are sampled out, is finished for those rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import U8, U64, Bools, Linkage, of_rows

KEY_BYTES = 16
_SLICE = 8192
_INITIAL = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
_HIGH, _LOW, _CLIENT, _SERVER = range(4)
"""Labels."""
# hot: benchmarks/pipeline.py. Arrays without dimension: a scalar would be made one of these in every operation.
_BITS = {bits: (np.array(bits, np.uint64), np.array(64 - bits, np.uint64)) for bits in (13, 16, 17, 21, 32)}
_END = np.array(0xFF, np.uint64)
_ONE = np.array(1, np.uint64)


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids of n rows, as bytes: trace (n x 16), client and server span (n x 8), zero where they were not asked for."""

    trace: U8
    client: U8
    server: U8


class Derived:
    """The ids of a batch, made as far as they are asked for. `key` has 16 bytes."""

    def __init__(self, key: bytes, linkage: Linkage) -> None:
        self._linkage = linkage
        self._hashed = Hashed(key, linkage.words)

    @cached_property
    def low(self) -> U64:
        """The last 64 bits of each row's trace id, as a number."""
        return self._trace(_not_zero(self._hashed.finish((_LOW,))[0]), 8)

    @cached_property
    def high(self) -> U64:
        """The first 64 bits."""
        return self._trace(self._hashed.finish((_HIGH,))[0], 0)

    def take(self, rows: npt.NDArray[np.intp], *, client: bool = True, server: bool = True) -> Ids:
        """The ids of some rows; the trace id is the remote parent's where there is one."""
        has_low = "low" in self.__dict__
        asked = {_HIGH: True, _LOW: not has_low, _CLIENT: client, _SERVER: server}
        labels = [label for label, is_asked in asked.items() if is_asked]
        is_all = len(rows) == len(self._linkage.traced)
        made = dict(zip(labels, self._hashed.finish(labels, None if is_all else rows), strict=True))
        trace = np.empty((len(rows), 2), ">u8")
        trace[:, 0] = made[_HIGH]
        trace[:, 1] = of_rows(self.low, rows) if has_low else _not_zero(made[_LOW])
        out = trace.view(np.uint8)
        traced = np.flatnonzero(of_rows(self._linkage.traced, rows))
        if traced.size:
            out[traced] = self._linkage.trace_id[rows[traced]]
        none = np.zeros((len(rows), 8), np.uint8)
        spans = (_big_endian(_not_zero(made[label])) if label in made else none for label in (_CLIENT, _SERVER))
        return Ids(out, *spans)

    def _trace(self, own: U64, begin: int) -> U64:
        traced = np.flatnonzero(self._linkage.traced)
        if traced.size:
            own[traced] = self._linkage.trace_id[traced, begin : begin + 8].copy().view(">u8")[:, 0]
        return own


def derive(key: bytes, linkage: Linkage) -> Ids:
    """Ids of every row."""
    return Derived(key, linkage).take(np.arange(len(linkage.traced)))


def parents(ids: Ids, linkage: Linkage, joined: Bools, parent_sent: Bools) -> tuple[U8, Bools, U8, Bools]:
    """Parent id and whether there is one, for the CLIENT spans and for the SERVER spans.

    The chain is the remote parent, then CLIENT, then SERVER; a link whose span is sent by nobody (`joined`, `parent_sent` false) is left out.
    """
    has_remote = linkage.traced & parent_sent
    server = np.where(joined[:, None], ids.client, linkage.parent_id)
    return linkage.parent_id, has_remote, server, joined | has_remote


def siphash(key: bytes, words: U64, *, labels: int = 1, compress: int = 1, finish: int = 3) -> list[U64]:
    """SipHash-c-d of the rows' words (u64, k x n) followed by one byte, once for each of the byte values below `labels`."""
    return Hashed(key, words, compress, finish).finish(range(labels))


class Hashed:
    """SipHash-c-d of rows' words (u64, k x n), with all but the last byte taken in."""

    def __init__(self, key: bytes, words: U64, compress: int = 1, finish: int = 3) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"key: {len(key)} bytes; expected {KEY_BYTES}")
        self._compress, self._rounds = compress, finish
        self._length = (8 * words.shape[0] + 1) % 256 << 56
        n = words.shape[1]
        k = [int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")]
        self._state = np.empty((4, n), np.uint64)
        spare = np.empty(min(n, _SLICE), np.uint64)
        for start in range(0, n, _SLICE):
            part = self._state[:, start : start + _SLICE]
            for i, initial in enumerate(_INITIAL):
                part[i] = initial ^ k[i % 2]
            for word in words[:, start : start + _SLICE]:
                _absorb(part, word, compress, spare[: part.shape[1]])

    def finish(self, labels: Sequence[int], rows: npt.NDArray[np.intp] | None = None) -> list[U64]:
        """The hashes of all rows, or of `rows`, with each of these last bytes."""
        n = self._state.shape[1] if rows is None else len(rows)
        out = [np.empty(n, np.uint64) for _ in labels]
        step = _SLICE // len(labels)
        for start in range(0, n, step):
            part = self._state[:, start : start + step] if rows is None else self._state[:, rows[start : start + step]]
            count = part.shape[1]
            # All labels are hashed at once, one behind the other.
            state = np.tile(part, len(labels))
            last = np.repeat(np.array([self._length + label for label in labels], np.uint64), count)
            spare = np.empty_like(last)
            _absorb(state, last, self._compress, spare)
            np.bitwise_xor(state[2], _END, state[2])
            for _ in range(self._rounds):
                _round(state, spare)
            ended = (state[0] ^ state[1] ^ state[2] ^ state[3]).reshape(len(labels), -1)
            for column, values in zip(out, ended, strict=True):
                column[start : start + step] = values
        return out


def _absorb(state: U64, word: U64, rounds: int, spare: U64) -> None:
    a, _, _, d = state
    np.bitwise_xor(d, word, d)
    for _ in range(rounds):
        _round(state, spare)
    np.bitwise_xor(a, word, a)


def _round(state: U64, spare: U64) -> None:
    # hot: benchmarks/pipeline.py
    a, b, c, d = state
    np.add(a, b, a)
    np.add(c, d, c)
    _rotate(b, 13, spare)
    _rotate(d, 16, spare)
    np.bitwise_xor(b, a, b)
    np.bitwise_xor(d, c, d)
    _rotate(a, 32, spare)
    np.add(c, b, c)
    np.add(a, d, a)
    _rotate(b, 17, spare)
    _rotate(d, 21, spare)
    np.bitwise_xor(b, c, b)
    np.bitwise_xor(d, a, d)
    _rotate(c, 32, spare)


def _rotate(column: U64, bits: int, spare: U64) -> None:
    left, right = _BITS[bits]
    np.right_shift(column, right, spare)
    np.left_shift(column, left, column)
    np.bitwise_or(column, spare, column)


def _not_zero(values: U64) -> U64:
    # All zeros is no valid id (W3C Trace Context 3.2.2.3, 3.2.2.4).
    return np.maximum(values, _ONE)


def _big_endian(values: U64) -> U8:
    out: npt.NDArray[np.uint8] = values.astype(">u8").view(np.uint8).reshape(-1, 8)
    return out
