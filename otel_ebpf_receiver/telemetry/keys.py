"""64-bit keys of rows, and an index from keys to small numbers: what `dict` is, for whole columns at once.

The mixing is fast and not cryptographic; its seed differs from process to process (as that of `hash` does), so that traffic cannot be made to
collide. Ids that leave the agent come from `ids.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import I64, U8, U64

_Integer = TypeVar("_Integer", bound=np.integer)

# hot: benchmarks/pipeline.py. Arrays without dimension: a scalar would be made one of these in every operation.
_MULTIPLY = np.array(0x9E3779B97F4A7C15, np.uint64)
_FINISH = np.array(0xD6E8FEB86659FD93, np.uint64)
_FOLD = np.array(32, np.uint64)
_SEED = np.array(hash("otel_ebpf_receiver") & 0xFFFFFFFFFFFFFFFF, np.uint64)


def mix(first: npt.NDArray[np.integer], *more: npt.NDArray[np.integer] | int) -> U64:
    """One key per row of columns of integers; order matters."""
    # hot: benchmarks/pipeline.py
    key = first.astype(np.uint64)
    spare = np.empty_like(key)
    _stir(key, _SEED, spare)
    for column in more:
        value = np.array(column & 0xFFFFFFFFFFFFFFFF, np.uint64) if isinstance(column, int) else column.astype(np.uint64, copy=False)
        _stir(key, value, spare)
    _stir(key, _FINISH, spare)
    return key


def _stir(key: U64, value: U64, spare: U64) -> None:
    np.bitwise_xor(key, value, key)
    np.multiply(key, _MULTIPLY, key)
    np.right_shift(key, _FOLD, spare)
    np.bitwise_xor(key, spare, key)


def words(matrix: U8) -> U64:
    """The columns of 8 bytes (u64, k x n) of a contiguous matrix of bytes (n x 8k)."""
    return np.ascontiguousarray(matrix.view(np.uint64).reshape(len(matrix), -1).T)


_STEP = 8
"""Words that are taken in at once: most lines, and nearly all names, have no more."""


def beginnings(texts: U8) -> U64:
    """The first words (u64, k x n) of texts (n x 8k)."""
    return np.ascontiguousarray(texts.view(np.uint64)[:, :_STEP].T)


def text_keys(texts: U8, lengths: npt.NDArray[np.integer], begin: U64 | None = None) -> U64:
    """One key per text (n x 8k, zero behind `lengths`), whatever the length of the others and the width of the matrix.

    `begin`: their `beginnings`, where these are there already.
    """
    # hot: benchmarks/pipeline.py
    columns = texts.view(np.uint64)
    first, *more = beginnings(texts) if begin is None else begin
    keys = mix(first, *more, *_absent(1 + len(more)))
    rows = (lengths > 8 * _STEP).nonzero()[0]
    for at_word in range(_STEP, columns.shape[1], _STEP):
        if not rows.size:
            break
        at = slice(None) if len(rows) == len(keys) else rows
        more = [*np.ascontiguousarray(columns[at, at_word : at_word + _STEP].T)]
        keys[at] = mix(keys[at], *more, *_absent(len(more)))
        rows = rows[lengths[rows] > 8 * (at_word + _STEP)]
    return keys


def _absent(there: int) -> tuple[int, ...]:
    """Zeros for the columns that a narrow matrix lacks."""
    return (0,) * (_STEP - there)


class Recent:
    """The value that was last told for each key, of fixed size: one place per key, and who comes later takes it."""

    def __init__(self, bits: int) -> None:
        self._shift = np.array(64 - bits, np.uint64)
        self._keys, self._values = np.zeros(1 << bits, np.uint64), np.zeros(1 << bits, np.uint64)

    def clear(self) -> None:
        self._keys[:] = 0

    def find(self, keys: U64) -> tuple[U64, npt.NDArray[np.intp]]:
        """The value of each key, and the rows where there is none."""
        places = self._places(keys)
        return self._values.take(places), (self._keys.take(places) != keys).nonzero()[0]

    def put(self, keys: U64, values: U64) -> None:
        places = self._places(keys)
        self._keys[places], self._values[places] = keys, values

    def _places(self, keys: U64) -> npt.NDArray[np.intp]:
        return (keys >> self._shift).view(np.intp)


class KeyIndex:
    """Keys to numbers (int32), by open addressing. Grows by doubling; nothing leaves but all at once."""

    def __init__(self, capacity: int = 1024) -> None:
        self._bits = max(4, (4 * capacity - 1).bit_length())
        self.clear()

    def clear(self) -> None:
        self._keys = np.zeros(1 << self._bits, np.uint64)
        self._values = np.full(1 << self._bits, -1, np.int32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        return self._keys.nbytes + self._values.nbytes

    def find(self, keys: U64) -> npt.NDArray[np.int32]:
        """The number of each key, -1 where it is not known."""
        # hot: benchmarks/pipeline.py
        slots = self._home(keys)
        found = self._values.take(slots)
        is_other = self._keys.take(slots) != keys
        is_other &= found >= 0
        rest = is_other.nonzero()[0]
        mask = (1 << self._bits) - 1
        while rest.size:
            there = (slots[rest] + 1) & mask
            slots[rest] = there
            value = self._values[there]
            found[rest] = value
            rest = rest[(self._keys[there] != keys[rest]) & (value >= 0)]
        return found

    def insert(self, keys: U64, values: npt.NDArray[np.int32]) -> None:
        """Adds distinct keys that are not there yet; `values` are not negative."""
        # Sparse, so that nearly all lie where they are looked for first.
        if 4 * (self._count + len(keys)) > 1 << self._bits:
            self._grow(self._count + len(keys))
        self._count += len(keys)
        self._place(keys, values)

    def number(self, keys: U64, make: Callable[[int], int]) -> npt.NDArray[np.int32]:
        """The number of each key; `make(row)` gives that of a key not met before, for the first row that has it."""
        found = self.find(keys)
        missing = (found < 0).nonzero()[0]
        if missing.size:
            new, first, where = np.unique(keys[missing], return_index=True, return_inverse=True)
            made = np.array([make(int(missing[row])) for row in first], np.int32)
            self.insert(new, made)
            found[missing] = made[where]
        return found

    def _home(self, keys: U64) -> npt.NDArray[np.intp]:
        return (keys & np.uint64((1 << self._bits) - 1)).view(np.intp)

    def _place(self, keys: U64, values: npt.NDArray[np.int32]) -> None:
        slots, mask = self._home(keys), (1 << self._bits) - 1
        while len(keys):
            free = np.flatnonzero(self._values[slots] < 0)
            # Several new keys may want one slot: the last written has it, the others look further.
            self._keys[slots[free]] = keys[free]
            self._values[slots[free]] = values[free]
            left = np.flatnonzero(self._keys[slots] != keys)
            keys, values, slots = keys[left], values[left], (slots[left] + 1) & mask

    def _grow(self, count: int) -> None:
        kept = self._values >= 0
        keys, values = self._keys[kept], self._values[kept]
        self._bits = max(self._bits + 1, (4 * count).bit_length())
        self._keys = np.zeros(1 << self._bits, np.uint64)
        self._values = np.full(1 << self._bits, -1, np.int32)
        self._place(keys, values)


def runs(sorted_values: npt.NDArray[np.integer]) -> I64:
    """Where each run of equal values starts, and the end of the last."""
    if not len(sorted_values):
        return np.zeros(1, np.int64)
    changes = np.flatnonzero(sorted_values[1:] != sorted_values[:-1]) + 1
    return np.concatenate(([0], changes, [len(sorted_values)])).astype(np.int64)


def distinct(values: npt.NDArray[_Integer]) -> npt.NDArray[_Integer]:
    """Each value once, in order: `np.unique` without `numpy.ma`, which it imports (1.2 MiB) to see that an array has no mask."""
    ordered = np.sort(values)
    return ordered[runs(ordered)[:-1]]
