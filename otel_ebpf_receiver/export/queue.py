"""The bounded queue between the pipeline and one sender, and the books that prove nothing was lost silently.

Bounded by bytes and, where asked, by items; the oldest payload goes first. What is on the wire counts as queued until it is settled, so
at every moment `received == sent + dropped + failed + rejected + queued`. It must not know what a payload means, and never blocks `offer`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from otel_ebpf_receiver.status.counters import Distribution, Histogram

MIB = 1 << 20
SPANS_MAX_BYTES = 32 * MIB
METRICS_MAX_BYTES = 8 * MIB


class Receipt:
    """Whether a payload arrived, at least in part: a destination that took some of it must not be given any of it again."""

    __slots__ = ("is_signed",)

    def __init__(self) -> None:
        self.is_signed = False


@dataclass(frozen=True, slots=True)
class Payload:
    """One encoded request and the number of spans or data points in it; the receipt is for whoever has to know what became of it."""

    body: bytes
    items: int
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Books:
    """What became of the items (spans, data points, lines) that one destination was given. `retried` counts repetitions, not fates."""

    received: int = 0
    sent: int = 0
    dropped: int = 0
    failed: int = 0
    rejected: int = 0
    queued: int = 0
    retried: int = 0
    queued_bytes: int = 0
    in_flight: int = 0
    """Of those queued: on the wire."""
    max_bytes: int = field(default=0, compare=False)
    max_items: int | None = field(default=None, compare=False)
    """Bounds of the queue; None: items are not bounded."""
    took: Mapping[str, Distribution] = field(default_factory=dict, compare=False)
    """Seconds from the first try of a request to its end, by what went wrong with it; the empty text: nothing."""

    @property
    def lost(self) -> int:
        """Items that will never arrive."""
        return self.dropped + self.failed + self.rejected

    @property
    def is_balanced(self) -> bool:
        """Whether every item received has exactly one fate."""
        return self.received == self.sent + self.lost + self.queued


class Queue:
    """Thread safe; any number of producers, one consumer that holds at most one payload (taken, not yet settled)."""

    def __init__(self, max_bytes: int, max_items: int | None = None) -> None:
        self.max_bytes = max_bytes
        self.max_items = max_items
        self._changed = threading.Condition()
        self._waiting: deque[Payload] = deque()
        self._taken: Payload | None = None
        self._bytes = self._items = 0
        self._received = self._sent = self._dropped = self._failed = self._rejected = self._retried = 0
        self._sealed = self._closed = False
        self._begun: tuple[Payload, float] | None = None
        """The payload that was tried and has no fate yet, and since when."""
        self._took: dict[str, Histogram] = {}

    def offer(self, payload: Payload) -> None:
        """Appends `payload`; makes room by dropping the oldest that wait. One that alone exceeds a bound, or comes too late, is dropped."""
        with self._changed:
            self._received += payload.items
            if self._sealed or self._is_too_big(payload):
                self._dropped += payload.items
                return
            self._add(payload, newest=True)
            self._make_room()
            self._changed.notify_all()

    def take(self) -> Payload | None:
        """Waits for the oldest payload and takes it; the caller settles it. None when the queue is closed, or sealed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._sealed)
            if self._closed or not self._waiting:
                return None
            self._taken = self._waiting.popleft()
            if self._begun is None:
                self._begun = self._taken, time.monotonic()
            return self._taken

    def accept(self, rejected: int = 0) -> None:
        """Settles the taken payload: sent, but for `rejected` of its items."""
        with self._changed:
            if self._taken is not None and self._taken.receipt is not None:
                self._taken.receipt.is_signed = True
            items = self._settle()
            rejected = max(0, min(rejected, items))
            self._conclude("rejected" if rejected else "")
            self._rejected += rejected
            self._sent += items - rejected

    def fail(self) -> None:
        """Settles the taken payload: given up."""
        with self._changed:
            self._failed += self._settle()
            self._conclude("failed")

    def retry(self) -> None:
        """Puts the taken payload back to the head, where it is again the first to be dropped for want of room."""
        with self._changed:
            if (payload := self._taken) is not None:
                self._retried += self._settle()
                self._add(payload, newest=False)
                self._make_room()
                self._changed.notify_all()

    def replace(self, parts: Sequence[Payload]) -> None:
        """Puts `parts`, which hold the same items as the taken payload, in its place."""
        with self._changed:
            if self._taken is None:
                return
            self._settle()
            self._conclude("too_large")
            for part in reversed(parts):
                self._add(part, newest=False)
            self._make_room()
            self._changed.notify_all()

    def seal(self) -> None:
        """No more offers are taken; what waits can still be taken."""
        with self._changed:
            self._sealed = True
            self._changed.notify_all()

    def close(self) -> None:
        """Gives up everything that waits or is on the wire and counts it as failed. Safe twice."""
        with self._changed:
            self._sealed = self._closed = True
            self._failed += self._items
            self._conclude("failed")
            self._waiting.clear()
            self._taken = None
            self._bytes = self._items = 0
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Waits until nothing waits and nothing is on the wire; whether that was reached in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._taken is None and not self._waiting, timeout_s)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is on the wire."""
        with self._changed:
            return self._taken is None and not self._waiting

    def books(self) -> Books:
        """A consistent copy of the counters."""
        with self._changed:
            return Books(
                self._received,
                self._sent,
                self._dropped,
                self._failed,
                self._rejected,
                self._items,
                self._retried,
                self._bytes,
                self._taken.items if self._taken is not None else 0,
                self.max_bytes,
                self.max_items,
                {error: took.value for error, took in self._took.items()},
            )

    def _is_too_big(self, payload: Payload) -> bool:
        return len(payload.body) > self.max_bytes or (self.max_items is not None and payload.items > self.max_items)

    def _is_over(self) -> bool:
        return self._bytes > self.max_bytes or (self.max_items is not None and self._items > self.max_items)

    def _add(self, payload: Payload, *, newest: bool) -> None:
        (self._waiting.append if newest else self._waiting.appendleft)(payload)
        self._bytes += len(payload.body)
        self._items += payload.items

    def _make_room(self) -> None:
        while self._is_over() and self._waiting:
            oldest = self._waiting.popleft()
            self._bytes -= len(oldest.body)
            self._items -= oldest.items
            self._dropped += oldest.items
            if self._begun is not None and oldest is self._begun[0]:
                self._conclude("queue_full")

    def _conclude(self, error: str) -> None:
        """What was tried has its fate: exactly one observation for each request, its repetitions and the pauses between them included."""
        if self._begun is not None:
            self._took.setdefault(error, Histogram()).record(time.monotonic() - self._begun[1])
            self._begun = None

    def _settle(self) -> int:
        # After close() the payload on the wire was already counted as failed: a sender that returns late settles nothing.
        if self._taken is None:
            return 0
        payload, self._taken = self._taken, None
        self._bytes -= len(payload.body)
        self._items -= payload.items
        self._changed.notify_all()
        return payload.items


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of one destination's queues; `spans_max_items` is `OTEL_BSP_MAX_QUEUE_SIZE`."""

    spans_max_bytes: int = SPANS_MAX_BYTES
    metrics_max_bytes: int = METRICS_MAX_BYTES
    spans_max_items: int | None = None

    def spans(self) -> Queue:
        """A queue for spans."""
        return Queue(self.spans_max_bytes, self.spans_max_items)

    def metrics(self) -> Queue:
        """A queue for metrics."""
        return Queue(self.metrics_max_bytes)
