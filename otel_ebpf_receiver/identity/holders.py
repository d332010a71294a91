"""Which row an address has: an index of whole addresses, looked up for whole columns. Immutable once built."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import U8, U64, Bools

# hot: benchmarks/identity.py. Arrays without dimension: a scalar would be made one of these in every operation.
_SPREAD = np.array(0xD6E8FEB86659FD93, np.uint64)
_MULTIPLY = np.array(0x9E3779B97F4A7C15, np.uint64)
_FOLD = np.array(32, np.uint64)
_SPARSE_BITS = 4
"""Slots for each address, as a power of two: at least 16, so that nearly all lie where they are looked for first."""


def halves(addresses: U8) -> U64:
    """Both 8-byte halves (n x 2) of addresses (u8, n x 16) as they lie in memory: for comparing and hashing, not for arithmetic."""
    return np.ascontiguousarray(addresses).view(np.uint64)


def key_of(words: U64) -> U64:
    """A key of both halves (n x 2), whose upper bits depend on every byte."""
    # hot: benchmarks/identity.py
    key = words[:, 0] * _SPREAD
    key += words[:, 1]
    # What differs between IPv4 addresses is in the upper bytes, which multiplying alone would never bring down.
    key ^= key >> _FOLD
    key *= _MULTIPLY
    return key


class Holders:
    """Distinct addresses to 0, 1 and so on in their order; all others to the number after them."""

    def __init__(self, words: U64) -> None:
        """`words` (n x 2): see `halves`."""
        self.nobody = len(words)
        # The row of nobody ends the table: whatever equals it has that row, known or not.
        self.words = np.append(words, np.zeros((1, 2), np.uint64), axis=0)
        bits = max(4, self.nobody.bit_length() + _SPARSE_BITS)
        self._shift = np.array(64 - bits, np.uint64)
        # Who finds the last slots taken goes on behind them; the very last is nobody's, where every search ends.
        self._slots = np.full((1 << bits) + self.nobody + 1, self.nobody, np.int32)
        self._place(self._home(words), np.arange(self.nobody, dtype=np.int32))

    def find(self, words: U64) -> npt.NDArray[np.intp]:
        """The number of each address, by its halves (n x 2)."""
        # hot: benchmarks/identity.py. Of a batch of 2,000 half is what the calls of numpy take by themselves: few, methods, both halves at once.
        slot = self._home(words)
        row = self._slots.take(slot).astype(np.intp)
        (rest,) = self._is_other(row, words).nonzero()
        rest = rest[row.take(rest) != self.nobody]
        slot = slot.take(rest)
        while rest.size:
            slot += 1
            row[rest] = here = self._slots.take(slot)
            is_other = self._is_other(here, words.take(rest, axis=0)) & (here != self.nobody)
            rest, slot = rest[is_other], slot[is_other]
        return row

    def _is_other(self, row: npt.NDArray[np.integer], words: U64) -> Bools:
        # Two bytes, of which each says that a half differs, are a number.
        differs: Bools = (self.words.take(row, axis=0) != words).view(np.uint16).ravel() != 0
        return differs

    def _home(self, words: U64) -> npt.NDArray[np.intp]:
        key = key_of(words)
        key >>= self._shift
        return key.view(np.intp)

    def _place(self, slots: npt.NDArray[np.intp], rows: npt.NDArray[np.int32]) -> None:
        while rows.size:
            free = np.flatnonzero(self._slots[slots] == self.nobody)
            # Several may want one slot: the last written has it, the others look further.
            self._slots[slots[free]] = rows[free]
            left = np.flatnonzero(self._slots[slots] != rows)
            rows, slots = rows[left], slots[left] + 1
