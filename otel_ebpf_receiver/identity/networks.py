"""Longest-prefix match of whole columns of addresses: one hash table per prefix length, and of those there are few.

Immutable once built; it does not know what its values mean.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.identity.address import Network, prefix
from otel_ebpf_receiver.telemetry.columns import U8, U64
from otel_ebpf_receiver.telemetry.keys import KeyIndex

Int32 = npt.NDArray[np.int32]


_SPREAD = np.uint64(0xD6E8FEB86659FD93)
_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)
_FOLD = np.uint64(32)


def halves(addresses: U8) -> tuple[U64, U64]:
    """Both 8-byte halves of addresses (u8, n x 16) as they lie in memory: for comparing and hashing, not for arithmetic."""
    words = np.ascontiguousarray(addresses).view(np.uint64).reshape(-1, 2)
    return words[:, 0], words[:, 1]


def key_of(high: U64, low: U64) -> U64:
    """A key of both halves. Every step can be undone, so addresses with equal keys and equal low halves are equal."""
    # hot: benchmarks/identity.py
    key = high * _SPREAD
    key += low
    # What differs between IPv4 addresses is in the upper bytes, which multiplying alone would never bring down.
    key ^= key >> _FOLD
    key *= _MULTIPLY
    key ^= key >> _FOLD
    return key


class Networks:
    """Networks with a number each (not negative). The narrowest that holds an address decides; of equal networks the later one."""

    def __init__(self, networks: Iterable[tuple[Network, int]] = ()) -> None:
        by_length: dict[int, dict[bytes, int]] = {}
        for network, value in networks:
            first, length = prefix(network)
            by_length.setdefault(length, {})[first] = value
        self._levels = tuple(_Level(length, by_length[length]) for length in sorted(by_length, reverse=True))

    def find(self, addresses: U8) -> Int32:
        """The number of each address (u8, n x 16), -1 where no network holds it."""
        found = np.full(len(addresses), -1, np.int32)
        high, low = halves(addresses)
        for level in self._levels:
            rows = np.flatnonzero(found < 0)
            if not rows.size:
                break
            found[rows] = level.find(high[rows], low[rows])
        return found


class _Level:
    """All networks of one prefix length."""

    def __init__(self, length: int, values: dict[bytes, int]) -> None:
        mask = ((1 << length) - 1) << (128 - length)
        self._mask = [np.uint64(word) for word in np.frombuffer(mask.to_bytes(16, "big"), np.uint64)]
        firsts = np.frombuffer(b"".join(values), np.uint8).reshape(-1, 16)
        high, self._low = halves(firsts)
        self._values = np.fromiter(values.values(), np.int32, len(values))
        self._index = KeyIndex(len(values))
        self._index.insert(key_of(high, self._low), np.arange(len(values), dtype=np.int32))

    def find(self, high: U64, low: U64) -> Int32:
        masked_high, masked_low = high & self._mask[0], low & self._mask[1]
        row = self._index.find(key_of(masked_high, masked_low))
        is_equal = (row >= 0) & (self._low[row] == masked_low)
        return np.where(is_equal, self._values[row], np.int32(-1))
