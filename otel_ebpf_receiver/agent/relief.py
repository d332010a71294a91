"""What gives way when more comes than can be handled: spans first, by their share; metrics last, when the kernel finds no room for a record.

A span costs several times what an observation costs. So while drains find the ring rather full, the share of spans is halved from one to the next,
and it comes back by and by. The spans made meanwhile tell the share, like those under the cap.
"""

from __future__ import annotations

HIGH, LOW = 0.5, 0.25
"""Of the ring, as a drain finds it: above the one spans give way, below the other they come back."""
LEAST = 1 / 1024
GROWTH = 1.25


class Relief:
    """`room`: records that the ring holds."""

    def __init__(self, room: float) -> None:
        self._high, self._low = HIGH * room, LOW * room
        self.share = 1.0
        """Of the spans that would be made."""

    def look(self, taken: int) -> float:
        """The share from now on, after a drain that found `taken` records."""
        if taken > self._high:
            self.share = max(self.share / 2, LEAST)
        elif taken < self._low:
            self.share = min(self.share * GROWTH, 1.0)
        return self.share
