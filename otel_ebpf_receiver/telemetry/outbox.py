"""Gathers encoded spans or metrics by Resource until an OTLP request is full or due.

Bounded by construction: what reaches the size of one request leaves at once.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import numpy as np

from otel_ebpf_receiver.export.queue import Payload
from otel_ebpf_receiver.telemetry.keys import runs
from otel_ebpf_receiver.telemetry.resources import Resources
from otel_ebpf_receiver.telemetry.spans import Encoded
from otel_ebpf_receiver.telemetry.wire import PAYLOAD_MAX_BYTES

_OVERHEAD_BYTES = 4096
"""What opening a Resource may add; a longer Resource eats into the margin below a server's usual 4 MiB."""


@dataclass(slots=True)
class _Box:
    """What waits of one Resource: pieces of `size` bytes together."""

    pieces: list[bytes] = field(default_factory=list)
    size: int = 0


class Outbox:
    """Spans on their way into requests of at most PAYLOAD_MAX_BYTES, and of at most `max_items` spans."""

    def __init__(self, resources: Resources, max_bytes: int = PAYLOAD_MAX_BYTES, *, max_items: int = sys.maxsize) -> None:
        self._resources = resources
        self._max_bytes, self._max_items = max_bytes, max_items
        self._boxes: dict[int, _Box] = {}
        self._bytes = self._items = 0

    def __len__(self) -> int:
        return self._items

    @property
    def used(self) -> set[int]:
        """The Resources that wait here."""
        return set(self._boxes)

    def add(self, spans: Encoded) -> list[Payload]:
        """Adds spans and returns the requests that became full."""
        out: list[Payload] = []
        k = len(spans.pieces)
        flat = [b""] * (k * len(spans.resource))
        for place, column in enumerate(spans.pieces):
            flat[place::k] = column
        ends, bounds = np.cumsum(spans.sizes), runs(spans.resource)
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            number = int(spans.resource[start])
            while start < stop:
                before = int(ends[start - 1]) if start else 0
                room = self._max_bytes - self._bytes - (0 if number in self._boxes else _OVERHEAD_BYTES)
                fit = int(np.searchsorted(ends[start:stop], before + room, side="right"))
                fit = min(fit, self._max_items - self._items)
                # A single span larger than a request cannot be; an empty box takes at least one, so that this ends.
                fit = max(fit, 0 if self._items else 1)
                if fit:
                    self._put(number, flat[k * start : k * (start + fit)], int(ends[start + fit - 1]) - before, fit)
                    start += fit
                if start < stop:
                    out += self.flush()
        return out

    def put(self, number: int, blob: bytes, items: int) -> list[Payload]:
        """Adds one piece of a Resource that is not to be cut, and returns what had to leave before it."""
        out: list[Payload] = []
        if self._items and self._bytes + len(blob) + _OVERHEAD_BYTES > self._max_bytes:
            out = self.flush()
        self._put(number, [blob], len(blob), items)
        return out

    def flush(self) -> list[Payload]:
        """Everything that waits, as one request."""
        if not self._items:
            return []
        # hot: benchmarks/pipeline.py. What is joined is copied: once.
        body: list[bytes] = []
        for number, box in self._boxes.items():
            body.append(self._resources.wrap(number, box.size))
            body += box.pieces
        payload = Payload(b"".join(body), self._items)
        self._boxes = {}
        self._bytes = self._items = 0
        return [payload]

    def _put(self, number: int, pieces: list[bytes], size: int, items: int) -> None:
        if number not in self._boxes:
            self._bytes += _OVERHEAD_BYTES
            self._boxes[number] = _Box()
        box = self._boxes[number]
        box.pieces += pieces
        box.size += size
        self._bytes += size
        self._items += items
