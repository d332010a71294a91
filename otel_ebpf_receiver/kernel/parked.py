"""The hash transport: records parked in a hash map that user space walks and empties. For kernels or policies without the ring buffer."""

from __future__ import annotations

from typing import Any

import numpy as np

from otel_ebpf_receiver.kernel.syscall import BatchWalk, Map

STEP = 512


class Parked:
    """Reads the parked records of one source; `drain` orders them by their end, for a hash has no order."""

    def __init__(self, table: Map, record: np.dtype[np.void]) -> None:
        self.record = record
        self.size = table.info.max_entries
        self._walk = BatchWalk(table, count=min(STEP, table.info.max_entries), remove=True)

    def drain(self, limit: int = 1 << 16) -> np.ndarray[Any, np.dtype[np.void]]:
        """At most about `limit` records as an array of their own. May be empty."""
        pieces: list[np.ndarray[Any, np.dtype[np.void]]] = []
        taken, over = 0, False
        self._walk.restart()
        while not over and taken < limit:
            count, over = self._walk.step()
            taken += count
            if count:
                pieces.append(np.frombuffer(self._walk.values.raw, self.record, count).copy())
        if not pieces:
            return np.empty(0, self.record)
        rows = np.concatenate(pieces)
        end = next((name for name in rows.dtype.names or () if name.endswith("end_ns") and name.startswith("response")), None)
        return rows[np.argsort(rows[end], kind="stable")] if end else rows

    def close(self) -> None:
        """Nothing is held but the map."""
