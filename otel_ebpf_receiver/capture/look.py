"""A short look at the interfaces for `preflight`: what passed each, and what that means for someone who sees nothing.

Watches as the agent does and exports nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from otel_ebpf_receiver.capture.links import Link
from otel_ebpf_receiver.capture.select import Role
from otel_ebpf_receiver.capture.taps import Programs, Tap, Taps, is_one_way
from otel_ebpf_receiver.capture.watch import list_links
from otel_ebpf_receiver.config.schema import Capture

HEADS = ("interface", "role", "packets", "HTTP", "TLS", "HTTP/2", "other", "remark")
SLICE_S = 0.1


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen at one interface. Counts other than packets are connections."""

    name: str
    role: str
    packets: int
    counters: Mapping[str, int]
    error: str = ""

    @property
    def remark(self) -> str:
        """Why nothing of it would be reported, or empty."""
        if self.error:
            return f"not attached: {self.error}"
        if is_one_way(self.counters):
            return "one-way: shows one direction only (the plug-in redirects past the host end); nothing can be reported from it"
        if self.counters.get("http"):
            return ""
        if self.counters.get("tls") or self.counters.get("http2"):
            return "encrypted or HTTP/2 only: with a mesh, look at the plain side of its proxy"
        if self.packets:
            return ""
        return "no traffic" + (": calls inside one pod do not cross its interface" if self.role == Role.WORKLOAD.value else " meanwhile")

    def row(self) -> tuple[str, ...]:
        """Cells under `HEADS`."""
        counts = (self.counters.get(name, 0) for name in ("http", "tls", "http2", "other"))
        return (self.name, self.role, str(self.packets), *map(str, counts), self.remark)


def look(programs: Programs, capture: Capture, seconds: float) -> list[Sight]:
    """Attach to what the agent would watch, wait, and tell. Raises `CaptureError`."""
    taps = Taps(programs, capture)
    before = list_links()
    try:
        taps.reconcile(before, frozenset())
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            # In slices, so that a signal ends it soon.
            time.sleep(min(SLICE_S, left_s))
        after = list_links()
        return [_sight(programs, tap, before, after) for _, tap in sorted(taps.taps.items())]
    finally:
        taps.stop()


def _sight(programs: Programs, tap: Tap, before: Mapping[int, Link], after: Mapping[int, Link]) -> Sight:
    old, new = before[tap.link.index], after.get(tap.link.index)
    packets = new.rx_packets + new.tx_packets - old.rx_packets - old.tx_packets if new else 0
    return Sight(tap.link.name, tap.role.value, packets, programs.tap_counters(tap.link.index), tap.error)
