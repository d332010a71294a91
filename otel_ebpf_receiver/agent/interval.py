"""The rhythm of metrics: collect, hand over, and commit what arrived; what did not stays in the table and is in the next interval.

Every destination has a lane of its own: while a request to it is still on its way, during an outage, say, no other is made for it, and the others
go on. When it is back, its next interval holds everything. A request of which any part arrived counts as arrived, so nothing is sent twice.
An interval larger than a destination's queue is handed over as the queue has room: one that drops nothing loses no series.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from otel_ebpf_receiver.export.destination import Destination, Signal
from otel_ebpf_receiver.export.queue import Payload, Receipt
from otel_ebpf_receiver.status.counters import Histogram
from otel_ebpf_receiver.telemetry.red import Collection, Reader, Red, Temporality

Own = Callable[[], tuple[bytes, int]]
"""The agent's own telemetry: an encoded request and the number of its points."""
_LOOK_S = 0.01


class Table(Protocol):
    """What metrics are collected from (`pipeline.Line`)."""

    red: Red

    def collect(self, unix_ns: int, readers: Sequence[Reader] | None = None) -> list[Collection]: ...


@dataclass(eq=False, slots=True)
class _Lane:
    """One destination, and what is on its way to it: one interval, of which `waiting` has found no room in the destination's queue yet.

    So it holds no more bytes than the table may take (`MetricOptions.memory_bytes`), and one request of the agent's own.
    """

    destination: Destination
    reader: Reader
    own: Own
    is_delta: bool
    pending: Collection | None = None
    receipts: list[Receipt] = field(default_factory=list)
    waiting: deque[Payload] = field(default_factory=deque)

    def settle(self) -> None:
        self.offer()
        if self.pending is not None and not self.waiting and self.destination.is_idle(Signal.METRICS):
            self.pending.commit([receipt.is_signed for receipt in self.receipts])
            self.pending = None

    def begin(self, collection: Collection, own: tuple[bytes, int]) -> None:
        self.pending, self.receipts = collection, [Receipt() for _ in collection.payloads]
        told = zip(collection.payloads, self.receipts, strict=True)
        # What still waits of an interval before, at the end, is totals: these hold it.
        self.waiting = deque(Payload(payload.body, payload.items, receipt) for payload, receipt in told)
        if own[1]:
            self.waiting.append(Payload(*own))
        self.offer()

    def offer(self, *, has_time: bool = True) -> None:
        """Hands over what finds room; all of it where there is no time to wait for room: then the destination counts what it cannot keep."""
        while self.waiting and (not has_time or self._has_room(self.waiting[0])):
            self.destination.offer(Signal.METRICS, self.waiting.popleft())

    def _has_room(self, payload: Payload) -> bool:
        books = self.destination.books()[Signal.METRICS]
        # In an empty queue there will not be more of it.
        return not books.queued_bytes or books.queued_bytes + len(payload.body) <= books.max_bytes


class Interval:
    """Belongs to the pipeline's thread. `own` makes a reader of the agent's own telemetry, of differences or not."""

    def __init__(
        self,
        destinations: Sequence[Destination],
        table: Table,
        own: Callable[[bool], Own],
        *,
        every_s: float,
        temporality: Temporality,
    ) -> None:
        self._table, self._every_s = table, every_s
        wanted = [one for one in destinations if Signal.METRICS in one.signals]
        chosen: list[Temporality] = ["cumulative" if one.is_cumulative else temporality for one in wanted]
        readers = table.red.serve(chosen) if wanted else []
        # What has changed since one destination was told is no other's business; totals are the same for all. They are read when asked for, so
        # `lowmemory` means totals here.
        total = own(False) if set(chosen) - {"delta"} else None
        self._lanes = [
            _Lane(destination, reader, own(True) if total is None or name == "delta" else total, name != "cumulative")
            for destination, reader, name in zip(wanted, readers, chosen, strict=True)
        ]
        self._next_s: float | None = None
        self.late = 0
        """Intervals that a destination was not given, because one before was still on its way; a later one holds them."""
        self.took = Histogram()
        """How long collecting took."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing of an interval is on its way."""
        return not any(lane.pending for lane in self._lanes)

    def step(self, now_s: float, unix_ns: int) -> None:
        """What is due at `now_s` (monotonic)."""
        if not self._lanes:
            return
        self.settle()
        if self._next_s is None:
            self._next_s = now_s + self._every_s
        if now_s < self._next_s:
            return
        missed = int((now_s - self._next_s) // self._every_s)
        self._next_s += (missed + 1) * self._every_s
        self.late += missed * len(self._lanes) + sum(lane.pending is not None for lane in self._lanes)
        self.begin(unix_ns)

    def begin(self, unix_ns: int) -> None:
        """Collects for every destination that has nothing on its way, whatever the time."""
        self._begin([lane for lane in self._lanes if lane.pending is None], unix_ns)

    def settle(self) -> None:
        """Hands over what finds room by now, and commits what arrived, destination by destination."""
        for lane in self._lanes:
            lane.settle()

    def finish(self, until_s: float, last_s: float) -> None:
        """The last interval. What is on its way may take until `until_s` (monotonic); where it does not, differences would be sent twice, totals not.

        Everything is handed over in the end: as there is room until `last_s`, and then whether there is room or not.
        """
        self._wait(lambda: self.is_settled, until_s)
        self._begin([lane for lane in self._lanes if lane.pending is None or not lane.is_delta], time.time_ns())
        self._wait(lambda: not any(lane.waiting for lane in self._lanes), last_s)
        for lane in self._lanes:
            lane.offer(has_time=False)

    def _wait(self, is_done: Callable[[], bool], until_s: float) -> None:
        while True:
            self.settle()
            if is_done() or time.monotonic() >= until_s:
                return
            time.sleep(_LOOK_S)

    def _begin(self, lanes: Sequence[_Lane], unix_ns: int) -> None:
        if not lanes:
            return
        begun_s = time.monotonic()
        collections = self._table.collect(unix_ns, [lane.reader for lane in lanes])
        self.took.record(time.monotonic() - begun_s)
        told: dict[Own, tuple[bytes, int]] = {}
        for lane, collection in zip(lanes, collections, strict=True):
            if lane.own not in told:
                told[lane.own] = lane.own()
            lane.begin(collection, told[lane.own])
