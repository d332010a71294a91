"""Trace and span ids that both ends of an exchange compute alike, without a word between them.

Each id is SipHash-1-3, a keyed pseudo-random function (Aumasson, Bernstein 2012), of the same words and one label byte: trace id high and low,
CLIENT span id, SERVER span id. The key is secret, so traffic cannot be made to collide and an id tells nothing about the traffic. Computed for a
whole batch: every step of the hash is one numpy operation over all rows of a slice that stays in the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import U8, U64, Bools, Linkage

KEY_BYTES = 16
_SLICE = 2048
_INITIAL = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids of n rows, as bytes: trace (n x 16), client and server span (n x 8)."""

    trace: U8
    client: U8
    server: U8


def derive(key: bytes, linkage: Linkage) -> Ids:
    """Ids of every row; the trace id is the remote parent's where there is one. `key` has 16 bytes."""
    high, low, client, server = siphash(key, linkage.words, labels=4)
    trace = np.empty((len(high), 2), ">u8")
    trace[:, 0] = high
    trace[:, 1] = _not_zero(low)
    out = trace.view(np.uint8)
    np.copyto(out, linkage.trace_id, where=linkage.traced[:, None])
    return Ids(out, _big_endian(_not_zero(client)), _big_endian(_not_zero(server)))


def parents(ids: Ids, linkage: Linkage, joined: Bools, parent_sent: Bools) -> tuple[U8, Bools, U8, Bools]:
    """Parent id and whether there is one, for the CLIENT spans and for the SERVER spans.

    The chain is the remote parent, then CLIENT, then SERVER; a link whose span is sent by nobody (`joined`, `parent_sent` false) is left out.
    """
    has_remote = linkage.traced & parent_sent
    server = np.where(joined[:, None], ids.client, linkage.parent_id)
    return linkage.parent_id, has_remote, server, joined | has_remote


def siphash(key: bytes, words: U64, *, labels: int = 1, compress: int = 1, finish: int = 3) -> list[U64]:
    """SipHash-c-d of the rows' words (u64, k x n) followed by one byte, once for each of the byte values below `labels`."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"key: {len(key)} bytes; expected {KEY_BYTES}")
    n = words.shape[1]
    out = [np.empty(n, np.uint64) for _ in range(labels)]
    length = (8 * words.shape[0] + 1) % 256 << 56
    for start in range(0, n, _SLICE):
        part = words[:, start : start + _SLICE]
        state = _State.start(key, part.shape[1])
        for word in part:
            state.absorb(word, compress)
        last = np.repeat(np.arange(length, length + labels, dtype=np.uint64), part.shape[1])
        ended = state.times(labels).finish(last, compress, finish).reshape(labels, -1)
        for column, values in zip(out, ended, strict=True):
            column[start : start + _SLICE] = values
    return out


class _State:
    """The four words of the hash, of many rows, and one spare column for the rotations."""

    def __init__(self, columns: list[U64], spare: U64) -> None:
        self._v, self._spare = columns, spare

    @classmethod
    def start(cls, key: bytes, rows: int) -> _State:
        k = [int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")]
        return cls([np.full(rows, initial ^ k[i % 2], np.uint64) for i, initial in enumerate(_INITIAL)], np.empty(rows, np.uint64))

    def times(self, count: int) -> _State:
        """The state `count` times, one after the other: all labels are hashed at once."""
        return _State([np.tile(column, count) for column in self._v], np.tile(self._spare, count))

    def absorb(self, word: U64, rounds: int) -> None:
        self._v[3] ^= word
        for _ in range(rounds):
            self._round()
        self._v[0] ^= word

    def finish(self, last: U64, compress: int, rounds: int) -> U64:
        self.absorb(last, compress)
        self._v[2] ^= np.uint64(0xFF)
        for _ in range(rounds):
            self._round()
        return self._v[0] ^ self._v[1] ^ self._v[2] ^ self._v[3]

    def _round(self) -> None:
        # hot: benchmarks/pipeline.py
        a, b, c, d = self._v
        a += b
        c += d
        self._rotate(b, 13)
        self._rotate(d, 16)
        b ^= a
        d ^= c
        self._rotate(a, 32)
        c += b
        a += d
        self._rotate(b, 17)
        self._rotate(d, 21)
        b ^= c
        d ^= a
        self._rotate(c, 32)

    def _rotate(self, column: U64, bits: int) -> None:
        np.right_shift(column, np.uint64(64 - bits), out=self._spare)
        np.left_shift(column, np.uint64(bits), out=column)
        np.bitwise_or(column, self._spare, out=column)


def _not_zero(values: U64) -> U64:
    # All zeros is no valid id (W3C Trace Context 3.2.2.3, 3.2.2.4).
    return np.maximum(values, np.uint64(1))


def _big_endian(values: U64) -> U8:
    out: npt.NDArray[np.uint8] = values.astype(">u8").view(np.uint8).reshape(-1, 8)
    return out
