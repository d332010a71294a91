"""The rhythm of metrics: collect, hand over, and commit once every destination has taken it; what did not arrive stays in the table.

While a request is still on its way, during an outage, say, no other is made: when the backend is back, the next one holds everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from otel_ebpf_receiver.export.destination import Destination, Signal
from otel_ebpf_receiver.export.queue import Payload
from otel_ebpf_receiver.telemetry.red import Collection


class Interval:
    """Belongs to the pipeline's thread. `collect` gives the table's requests at a Unix time; `own` the agent's own telemetry."""

    def __init__(
        self,
        destinations: Sequence[Destination],
        collect: Callable[[int], Collection],
        own: Callable[[], tuple[bytes, int]],
        every_s: float,
    ) -> None:
        self._destinations = [one for one in destinations if Signal.METRICS in one.signals]
        self._collect = collect
        self._own = own
        self._every_s = every_s
        self._next_s: float | None = None
        self._pending: Collection | None = None
        self._lost_before = 0
        self.late = 0
        """Intervals that began late, because the one before was still on its way."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing of an interval is on its way."""
        return self._pending is None

    def step(self, now_s: float, unix_ns: int) -> None:
        """What is due at `now_s` (monotonic)."""
        if not self._destinations:
            return
        self.settle()
        if self._next_s is None:
            self._next_s = now_s + self._every_s
        if now_s < self._next_s or self._pending is not None:
            return
        missed = int((now_s - self._next_s) // self._every_s)
        self.late += missed
        self._next_s += (missed + 1) * self._every_s
        self.begin(unix_ns)

    def begin(self, unix_ns: int) -> None:
        """Collects and hands over, whatever the time."""
        self._lost_before = self._lost()
        self._pending = self._collect(unix_ns)
        body, items = self._own()
        payloads = [*self._pending.payloads, *([Payload(body, items)] if items else [])]
        for destination in self._destinations:
            for payload in payloads:
                destination.offer(Signal.METRICS, payload)

    def settle(self) -> None:
        """Commits what every destination took; leaves in the table what one lost; does nothing while it is on its way."""
        if self._pending is None or not all(one.is_idle(Signal.METRICS) for one in self._destinations):
            return
        if self._lost() == self._lost_before:
            self._pending.commit()
        else:
            self._pending.rollback()
        self._pending = None

    def _lost(self) -> int:
        return sum(one.books()[Signal.METRICS].lost for one in self._destinations)
