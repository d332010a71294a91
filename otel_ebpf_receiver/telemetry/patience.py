"""Records of somebody who is about to be known: they wait, each once and for a limited time, and leave with what is known by then.

Raw records are kept, not what was made of them: they are few, and are read again when there is news. Bounded; who finds no room does not wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from otel_ebpf_receiver.telemetry.columns import Bools, picked
from otel_ebpf_receiver.telemetry.sameness import Admitted


@dataclass(frozen=True, slots=True)
class PatienceOptions:
    """`wait_ns`: the longest that a record waits. `held_max`: so many wait at once."""

    wait_ns: int = 2_000_000_000
    held_max: int = 1 << 14


@dataclass(frozen=True, slots=True)
class Asking:
    """Records that identity is asked about. `until_ns`: when they stop waiting; None: they have not begun. `has_waited`: they may not (any more)."""

    admitted: Admitted
    until_ns: int | None = None
    has_waited: bool = False


class Patience:
    """Who waits. One per source; times are of the records' clock."""

    def __init__(self, options: PatienceOptions | None = None) -> None:
        self._options = options or PatienceOptions()
        self._waiting: list[Asking] = []
        self._news: object = None
        self.held = 0
        """Records that wait."""
        self.waited = 0
        """Records that waited."""
        self.hurried = 0
        """Records that would have, and found no room."""

    def has_room(self, rows: Bools) -> bool:
        """Whether these rows may wait; those that may not are counted."""
        has_room = self.held < self._options.held_max and self._options.wait_ns > 0
        if not has_room:
            self.hurried += int(np.count_nonzero(rows))
        return has_room

    def hold(self, asking: Asking, rows: Bools, now_ns: int) -> None:
        """These rows wait; those that waited before no longer than they were to."""
        admitted = asking.admitted
        arrived = None if admitted.arrived is None else admitted.arrived[rows]
        records = picked(admitted.records, rows)
        self.held += len(records)
        if asking.until_ns is None:
            self.waited += len(records)
        until_ns = now_ns + self._options.wait_ns if asking.until_ns is None else asking.until_ns
        self._waiting.append(Asking(Admitted(records, arrived), until_ns))

    def release(self, now_ns: int, news: object, *, is_last: bool) -> list[Asking]:
        """Those whose time is over, and everybody when there is news."""
        is_news, self._news = news is not self._news, news
        out, stay = list[Asking](), list[Asking]()
        for one in self._waiting:
            is_over = is_last or one.until_ns is None or one.until_ns <= now_ns
            if is_over or is_news:
                out.append(Asking(one.admitted, one.until_ns, is_over))
                self.held -= len(one.admitted.records)
            else:
                stay.append(one)
        self._waiting = stay
        return out
