"""What the live page tells of the agent itself: its taps, its kernel side, its exporters, its process."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from otel_ebpf_receiver.agent.counting import Books
from otel_ebpf_receiver.capture.taps import Tap
from otel_ebpf_receiver.export import queue
from otel_ebpf_receiver.export.destination import Destination, LineDestination
from otel_ebpf_receiver.pipeline import Counts

TAPS_MAX = 300
LOSSES = {
    "http_lost": "records for which the ring had no room",
    "no_flow": "segments for whose connection there was no room",
    "http_resync_gap": "times that bytes were never seen",
    "http_given_up": "exchanges given up after a loss",
    "http_unpaired": "responses without a certain request",
    "flows_one_sided": "connections seen in one direction only",
    "collided": "segments that two CPUs had at once",
}
"""Counters of the kernel side that mean something was not reported, and what each says."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


def taps(found: Iterable[Tap], counters: Callable[[int], Mapping[str, int]]) -> list[dict[str, Any]]:
    """Each tap with what its connections turned out to be; the first `TAPS_MAX` by name, those that are not fine before them."""
    ordered = sorted(found, key=lambda tap: (tap.sock is not None and not tap.is_one_way, tap.link.name))
    return [
        {"interface": tap.link.name, "role": tap.role.value, "state": tap.state, "error": tap.error, "flows": counters(tap.link.index)}
        for tap in ordered[:TAPS_MAX]
    ]


def kernel(books: Books, counts: Counts) -> dict[str, Any]:
    """What was seen, what is open, and what was lost."""
    counted = books.counters
    return {
        "packets": counted.get("packets", 0),
        "exchanges": counts.admitted,
        "copies": counts.copies,
        "spans": counts.spans,
        "sampled_out": counts.sampled_out,
        "open": books.open,
        "evicted": books.evicted,
        "opaque": {name: counted.get(f"flows_{name}", 0) for name in ("tls", "http2", "other")},
        "losses": [{"name": name, "text": text, "count": counted.get(name, 0)} for name, text in LOSSES.items()],
    }


def exporters(destinations: Iterable[Destination], printed: Iterable[LineDestination]) -> list[dict[str, Any]]:
    """The books of every destination and signal."""
    out = [_books(one.name, signal.value, books) for one in destinations for signal, books in one.books().items()]
    return out + [_books(one.name, "lines", one.books()) for one in printed]


def process() -> dict[str, Any]:
    """CPU seconds and resident bytes of the agent, and when (monotonic seconds)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1])
    return {"now_s": time.monotonic(), "cpu_s": used.ru_utime + used.ru_stime, "resident_bytes": resident * _PAGE}


def _books(name: str, signal: str, books: queue.Books) -> dict[str, Any]:
    return {
        "name": name,
        "signal": signal,
        "received": books.received,
        "sent": books.sent,
        "lost": books.lost,
        "retried": books.retried,
        "queued": books.queued,
        "queued_bytes": books.queued_bytes,
    }
