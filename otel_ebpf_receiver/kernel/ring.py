"""The BPF ring buffer mapped into the process, read as numpy rows: records of one size, no copy but the one that keeps them.

Layout (kernel/bpf/ringbuf.c): one page with the consumer's position, one with the producer's, then the data. A record is an eight-byte header (length; bit 31 busy,
bit 30 discarded) and the payload, rounded up to eight bytes. Must not run two drains at once.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

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
        self._consumer_page = mmap.mmap(table.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        # The kernel maps the data twice in a row; one copy is mapped here, for every page mapped counts as resident.
        self._pages = mmap.mmap(table.fd, page + self.size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer = np.frombuffer(self._consumer_page, "<u8", 1)
        self._producer = np.frombuffer(self._pages, "<u8", 1)
        self._data = np.frombuffer(self._pages, np.uint8, self.size, offset=page)

    @property
    def filled(self) -> float:
        """Share of the ring that waits to be read, 0 to 1."""
        return float(int(self._producer[0]) - int(self._consumer[0])) / self.size

    def _rows(self, start: int, count: int) -> np.ndarray[Any, np.dtype[np.void]]:
        return np.frombuffer(self._data.data, self._slot, count, offset=start) if count else np.empty(0, self._slot)

    def drain(self, limit: int = 1 << 16) -> np.ndarray[Any, np.dtype[np.void]]:
        """At most `limit` records that came since the last call, in order, as an array of their own. May be empty."""
        start, stop = int(self._consumer[0]), int(self._producer[0])
        count = min((stop - start) // self.stride, limit)
        if not count:
            return np.empty(0, self.record)
        at = start % self.size
        first = min(count, (self.size - at) // self.stride)
        head = self._rows(at, first)
        pieces = [head["record"].copy()]
        heads = [head["head"]]
        if first < count:
            after = at + first * self.stride
            across = bytearray(self.stride)
            cut = max(0, self.size - after)
            if cut:  # one record lies across the end
                across[:cut] = self._data[after : self.size].tobytes()
                across[cut:] = self._data[: self.stride - cut].tobytes()
                row = np.frombuffer(bytes(across), self._slot, 1)
                pieces.append(row["record"].copy())
                heads.append(row["head"])
            begin = self.stride - cut if cut else 0
            tail = self._rows(begin, count - first - (1 if cut else 0))
            pieces.append(tail["record"].copy())
            heads.append(tail["head"])
        ready = np.concatenate(heads)
        busy = np.flatnonzero(ready & BUSY)
        if busy.size:  # a producer is still writing; what follows waits for it
            count = int(busy[0])
        rows = (np.concatenate(pieces) if len(pieces) > 1 else pieces[0])[:count].view(self.record)  # as bytes a copy costs a tenth
        self._consumer[0] = start + count * self.stride
        return rows

    def close(self) -> None:
        """Unmaps. Safe twice."""
        if not self._pages.closed:
            del self._consumer, self._producer, self._data
            self._consumer_page.close()
            self._pages.close()
