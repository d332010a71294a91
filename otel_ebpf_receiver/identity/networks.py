"""Longest-prefix match of whole columns of addresses: nested networks as one row of ranges, searched by halving.

Immutable once built; it does not know what its values mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.identity.address import Network, prefix
from otel_ebpf_receiver.identity.holders import halves
from otel_ebpf_receiver.telemetry.columns import U8, U64

Int32 = npt.NDArray[np.int32]
_END = 1 << 128
_HALF = 1 << 64
_BIG = np.dtype(">u8")


class Networks:
    """Networks with a number each (not negative). The narrowest that holds an address decides; of equal networks the later one."""

    def __init__(self, networks: Iterable[tuple[Network, int]] = ()) -> None:
        values = {prefix(network): value for network, value in networks}
        ranges = dict(_ranges(values))
        starts = sorted(ranges)
        # numpy compares bytes as they are written: in the order of addresses.
        self._starts = np.array([start.to_bytes(16, "big") for start in starts], "S16")
        self._values = np.array([ranges[start] for start in starts], np.int32)
        # hot: benchmarks/identity.py. IPv4 addresses are told apart by their lower half, and numbers are compared much faster than bytes.
        is_low = np.array([start < _HALF for start in starts], bool)
        self._low_starts = np.array([start for start in starts if start < _HALF], np.uint64)
        # Where the search ends is the number of those that start before: one more than the place of the last of them.
        self._low_values = np.append(np.int32(-1), self._values[is_low])

    def find(self, addresses: U8) -> Int32:
        """The number of each address (u8, n x 16), -1 where no network holds it."""
        return self.find_halves(halves(addresses))

    def find_halves(self, words: U64) -> Int32:
        """The same by the halves of addresses (n x 2) as they lie in memory."""
        # hot: benchmarks/identity.py
        if not words[:, 0].any():
            return self._find_low(words[:, 1])
        found = np.empty(len(words), np.int32)
        is_low = words[:, 0] == 0
        found[is_low] = self._find_low(words[is_low, 1])
        found[~is_low] = self._values.take(self._starts.searchsorted(words[~is_low].view("S16").ravel(), "right") - 1)
        return found

    def _find_low(self, low: U64) -> Int32:
        # Most machines keep the lowest byte first, addresses do not.
        found: Int32 = self._low_values.take(self._low_starts.searchsorted(low.view(_BIG).astype(np.uint64), "right"))
        return found


def _ranges(values: dict[tuple[bytes, int], int]) -> Iterator[tuple[int, int]]:
    """Where another network begins to decide (as a number), and which; of equal starts the last one counts."""
    yield 0, -1
    around: list[tuple[int, int]] = []
    """End and value of the networks that we are in, the narrowest last."""
    for (first, length), value in sorted(values.items()):
        start = int.from_bytes(first, "big")
        yield from _left(around, start)
        around.append((start + (1 << (128 - length)), value))
        yield start, value
    yield from _left(around, _END)


def _left(around: list[tuple[int, int]], start: int) -> Iterator[tuple[int, int]]:
    """The ends of those that end before `start`, each of which makes the next wider one decide."""
    while around and around[-1][0] <= start:
        end, _ = around.pop()
        if end < _END:
            yield end, around[-1][1] if around else -1
