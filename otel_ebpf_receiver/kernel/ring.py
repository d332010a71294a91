"""The BPF ring buffer read as numpy rows: records of one size, no copy but the one that keeps them.

Layout (kernel/bpf/ringbuf.c): one page with the consumer's position, one with the producer's, then the data, twice in a row, so that what lies across
the end can be read in one piece. A record is an eight-byte header (length; bit 31 busy, bit 30 discarded) and the payload, rounded up to eight bytes.
Only what waits is mapped, and only while it is copied: every page mapped counts as resident. Must not run two drains at once.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from otel_ebpf_receiver.kernel.room import Room
from otel_ebpf_receiver.kernel.syscall import Map

BUSY = np.uint32(1 << 31)


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
        self._room = Room(record)
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
            return self._room.take(0).view(self.record)
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
        rows = self._room.take(count)
        rows[:] = slots["record"][:count]  # as bytes a copy costs a tenth
        return rows.view(self.record)

    def close(self) -> None:
        """Unmaps. Safe twice."""
        if not self._producer_page.closed:
            del self._consumer, self._producer
            self._consumer_page.close()
            self._producer_page.close()
