"""Memory for the copies of drained records, used again by the next drain.

In large pages where the kernel has them: each column is read right through all records, six of which fill a small page (8 % of what metrics alone cost).
"""

from __future__ import annotations

import contextlib
import mmap
import sys
from typing import Any

import numpy as np

KEPT_ROWS = 1 << 14
"""Records for whose copies there is always memory; more come only after a pause, and get a piece of their own."""
LOOSE, FEW = 4, 1024
"""So many times the records that came, and a few more, may stay resident."""


class Room:
    """Pages of their own, of which those are resident that were used: in the heap, blocks of this size leave holes between what stays."""

    def __init__(self, record: np.dtype[np.void]) -> None:
        self._opaque = np.dtype(f"V{record.itemsize}")
        self._touched = 0
        """Records of the pages that may be resident."""
        self._map()

    def take(self, count: int) -> np.ndarray[Any, np.dtype[np.void]]:
        """Room for so many records that nobody else has: that of the last call, unless something of it is still used, or they do not fit."""
        if count > KEPT_ROWS:
            return np.empty(count, self._opaque)
        if sys.getrefcount(self._memory) > self._unused:
            self._map()
        elif count * LOOSE + FEW < self._touched:
            self._pages.madvise(mmap.MADV_DONTNEED)
            self._touched = 0
        self._touched = max(self._touched, count)
        return self._memory[:count]

    def _map(self) -> None:
        self._pages = mmap.mmap(-1, KEPT_ROWS * self._opaque.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without large pages
            self._pages.madvise(mmap.MADV_HUGEPAGE)
        self._memory = np.frombuffer(self._pages, self._opaque)
        self._unused = sys.getrefcount(self._memory)
        """References while no array that was handed out lives; how they are counted differs between versions of Python."""
        self._touched = 0
