"""The BPF ring buffer read as numpy rows: records of one size, no copy but the one that keeps them.

Layout (kernel/bpf/ringbuf.c): one page with the consumer's position, one with the producer's, then the data, twice in a row, so that what lies across
the end can be read in one piece. A record is an eight-byte header (length; bit 31 busy, bit 30 discarded) and the payload, rounded up to eight bytes.
Only what waits is mapped, and only while it is copied: every page mapped counts as resident. Must not run two drains at once.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any

import numpy as np

from otel_ebpf_receiver.kernel.syscall import Map

BUSY = np.uint32(1 << 31)
KEPT_ROWS = 1 << 14
"""Records for whose copies there is always memory; more come only after a pause, and get a piece of their own."""
LOOSE, FEW = 4, 1024
"""So many times the records that came, and a few more, may stay resident."""


class Ring:
    """Reads the ring of one source. `record` is the dtype of a record; every record must have its size."""

    def __init__(self, table: Map, record: np.dtype[np.void]) -> None:
        page = mmap.PAGESIZE
        self.size = table.info.max_entries
        self.record = record
        self.stride = 8 + (record.itemsize + 7) // 8 * 8
        self._slot = np.dtype(
            {"names": ["head", "record"], "formats": ["<u4", f"V{record.itemsize}"], "offsets": [0, 8], "itemsize": self.stride}
        )
        self._table = table
        self._opaque = np.dtype(f"V{record.itemsize}")
        self._touched = 0
        """Records of the memory below that may be resident."""
        self._map_memory()
        self._consumer_page = mmap.mmap(table.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self._producer_page = mmap.mmap(table.fd, page, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer = np.frombuffer(self._consumer_page, "<u8", 1)
        self._producer = np.frombuffer(self._producer_page, "<u8", 1)

    @property
    def filled(self) -> float:
        """Share of the ring that waits to be read, 0 to 1."""
        return float(int(self._producer[0]) - int(self._consumer[0])) / self.size

    def drain(self, limit: int = 1 << 16) -> np.ndarray[Any, np.dtype[np.void]]:
        """At most `limit` records that came since the last call, in order, as an array of their own. May be empty."""
        start, stop = int(self._consumer[0]), int(self._producer[0])
        count = min((stop - start) // self.stride, limit)
        if not count:
            return self._room(0).view(self.record)
        at = start % self.size
        inside = at % mmap.PAGESIZE
        offset = 2 * mmap.PAGESIZE + at - inside
        with mmap.mmap(self._table.fd, inside + count * self.stride, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset) as window:
            rows = self._ready(window, inside, count)
        self._consumer[0] = start + len(rows) * self.stride
        return rows

    def _ready(self, window: mmap.mmap, inside: int, count: int) -> np.ndarray[Any, np.dtype[np.void]]:
        """The records before the first that a producer is still writing; what follows waits for it."""
        slots = np.frombuffer(window, self._slot, count, offset=inside)
        busy = np.flatnonzero(slots["head"] & BUSY)
        count = int(busy[0]) if busy.size else count
        rows = self._room(count)
        rows[:] = slots["record"][:count]  # as bytes a copy costs a tenth
        return rows.view(self.record)

    def _room(self, count: int) -> np.ndarray[Any, np.dtype[np.void]]:
        """Memory for so many records that nobody else has: that of the last drain, unless something of it is still used, or they do not fit."""
        if count > KEPT_ROWS:
            return np.empty(count, self._opaque)
        if sys.getrefcount(self._memory) > self._unused:
            self._map_memory()
        elif count * LOOSE + FEW < self._touched:
            self._pages.madvise(mmap.MADV_DONTNEED)
            self._touched = 0
        self._touched = max(self._touched, count)
        return self._memory[:count]

    def _map_memory(self) -> None:
        """Pages of their own, of which those are resident that were used: in the heap, blocks of this size leave holes between what stays."""
        self._pages = mmap.mmap(-1, KEPT_ROWS * self.record.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory = np.frombuffer(self._pages, self._opaque)
        self._unused = sys.getrefcount(self._memory)
        """References while no array that was handed out lives; how they are counted differs between versions of Python."""
        self._touched = 0

    def close(self) -> None:
        """Unmaps. Safe twice."""
        if not self._producer_page.closed:
            del self._consumer, self._producer
            self._consumer_page.close()
            self._producer_page.close()
