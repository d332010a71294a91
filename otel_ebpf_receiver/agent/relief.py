"""What gives way when more comes than can be handled: spans first, by their share; metrics last, when the kernel finds no room for a record.

A span costs several times what an observation costs. So while drains find the ring rather full, the share of spans is made as small as it must be for the
next drain to find no more than TARGET, by the rate at which records come and by what the last ones cost; it comes back by and by. The spans made
meanwhile tell the share, like those under the cap.
"""

from __future__ import annotations

LOW, TARGET, HIGH = 0.2, 0.4, 0.5
"""Of the ring, as a drain finds it: below the first spans come back, the second is aimed at, above the third they are halved even if costs are unknown."""
ENOUGH = 0.05
"""Of the ring: from fewer records than this nothing is learned about what each costs."""
OBSERVATION = 0.2
"""What a record costs that becomes no span, of what it costs as one (benchmarks/pipeline.py)."""
LEAST = 1 / 1024
GROWTH = 1.25


class Relief:
    """`room`: records that the ring holds. All times are of one clock."""

    def __init__(self, room: float) -> None:
        self._room = room
        self.share = 1.0
        """Of the spans that would be made."""
        self._taken, self._looked_s = 0, 0.0
        self._cost_s = 0.0
        """Of a record, if all became spans; 0: not known yet."""

    def look(self, taken: int, now_s: float) -> float:
        """The share from now on, after a drain that found `taken` records."""
        since_s = now_s - self._looked_s
        self._taken, self._looked_s = taken, now_s
        grown = min(self.share * GROWTH, 1.0)
        if taken <= LOW * self._room:
            self.share = grown
        elif self._cost_s and since_s > 0:
            coming = taken * self._cost_s * taken / since_s
            self.share = min(grown, _share(TARGET * self._room / coming))
        elif taken > HIGH * self._room:
            self.share = max(self.share / 2, LEAST)
        return self.share

    def rest(self, now_s: float) -> None:
        """What was to be done for the last drain is done."""
        if self._taken > ENOUGH * self._room:
            self._cost_s = (now_s - self._looked_s) / (self._taken * _work(self.share))


def _work(share: float) -> float:
    """What a record costs at this share of spans, of what it costs when all become spans."""
    return OBSERVATION + (1 - OBSERVATION) * share


def _share(work: float) -> float:
    """The share at which a record costs so much."""
    return min(max((work - OBSERVATION) / (1 - OBSERVATION), LEAST), 1.0)
