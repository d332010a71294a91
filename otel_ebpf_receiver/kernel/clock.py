"""CLOCK_MONOTONIC to wall-clock time: the one place where kernel time becomes Unix time.

The kernel stamps with CLOCK_MONOTONIC, which no clock step moves. The offset to Unix time is measured again and again and remembered with
the time of its measurement, so that an exchange is placed by the clock of its own time, also when it is drained after a step. One exchange
takes one offset: durations stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SAME_NS = 100_000
"""Offsets that differ by less are one: a bracket is good to a few microseconds, and times have to be right to a millisecond."""
KEPT = 4096
"""NTP slews by 500 µs a second at most, so this reaches back at least 13 minutes."""
_TRIES = 4


def read_offset_ns() -> tuple[int, int]:
    """(monotonic time, Unix time less monotonic time): the narrowest of a few brackets, so that a preemption in between does not count."""
    best: tuple[int, int, int] | None = None
    for _ in range(_TRIES):
        before, unix, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, after, unix - (before + after) // 2)
    assert best is not None
    return best[1], best[2]


class Clock:
    """Remembers how Unix time lay to monotonic time. One thread measures and converts."""

    def __init__(self, read: Callable[[], tuple[int, int]] = read_offset_ns) -> None:
        self._read = read
        now_ns, offset_ns = read()
        self._since = np.array([0], np.int64)
        self._offsets = np.array([offset_ns], np.int64)
        self._last_ns = now_ns

    def measure(self) -> None:
        """Measure again; to be called before each drain. A step is taken to have happened halfway since the last call."""
        now_ns, offset_ns = self._read()
        if abs(offset_ns - int(self._offsets[-1])) >= SAME_NS:
            since_ns = max((self._last_ns + now_ns) // 2, int(self._since[-1]) + 1)
            self._since = np.append(self._since, since_ns)[-KEPT:]
            self._offsets = np.append(self._offsets, offset_ns)[-KEPT:]
        self._last_ns = now_ns

    def offsets_ns(self, monotonic_ns: NDArray[np.uint64] | NDArray[np.int64]) -> NDArray[np.int64]:
        """What to add to times near each of `monotonic_ns` (int64 array of the same shape): one per exchange, taken at its start."""
        if len(self._offsets) == 1:
            return np.full(len(monotonic_ns), self._offsets[0])
        at = np.searchsorted(self._since, monotonic_ns.astype(np.int64), side="right") - 1
        return self._offsets[np.maximum(at, 0)]

    def unix_ns(self, monotonic_ns: NDArray[np.uint64] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Unix times of `monotonic_ns`, each by the offset of its own time."""
        return monotonic_ns.astype(np.int64) + self.offsets_ns(monotonic_ns)
