"""Gives memory back when a burst is over: what large batches needed stays with the C library otherwise, 10 MiB of it, until the next."""

from __future__ import annotations

from collections.abc import Callable

FEW = 256
"""Records of a drain that leave nothing worth giving back."""
EBB = 4
"""A drain of less than this part of the largest does not belong to the burst any more."""
QUIET_S = 2.5


class Slack:
    """Belongs to the pipeline's thread. `give_back` is called once after each burst."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back = give_back
        self._most, self._last_s = 0, 0.0

    def look(self, taken: int, now_s: float) -> None:
        """After a drain that found `taken` records; `now_s` of any clock that only rises."""
        if taken * EBB >= self._most and taken >= FEW:
            self._most, self._last_s = max(self._most, taken), now_s
        elif self._most and now_s - self._last_s >= QUIET_S:
            self._most = 0
            self._give_back()
