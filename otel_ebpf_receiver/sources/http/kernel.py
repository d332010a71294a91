"""The kernel side of the HTTP source, as data: which C files, which programs in which order, what is decided at compile time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from otel_ebpf_receiver.kernel.assemble import KernelPart, KernelSource

if TYPE_CHECKING:
    import numpy as np

TARGET = 256
"""Bytes of the target that are kept by default."""
FILES = (
    "http/record.h",
    "http/counters.h",
    "http/state.h",
    "http/pair.h",
    "http/line.h",
    "http/run.h",
    "http/owner.h",
    "http/stream.c",
    "http/settle.c",
    "http/odd.c",
    "http/early.c",
    "http/ahead.c",
    "http/end.c",
)
FUNCTIONS = ("http_steps", "http_odd_byte")
PROGRAMS = ("http_stream", "http_settle", "http_odd", "http_early", "http_ahead", "http_end", "http_sweep")
READ = {
    "host": "HTTP_SLOT_HOST",
    "user-agent": "HTTP_SLOT_AGENT",
    "traceparent": "HTTP_SLOT_TRACEPARENT",
    "tracestate": "HTTP_SLOT_TRACESTATE",
}
"""Headers that the record has a place of their own for, and what tells it their slot when they are configured as well."""
SENT_AT, START_AT = 19, 24
"""Offsets in `struct http_pending` (bpf/http/state.h): whether the record was sent, and when the request began."""


def _match(name: str, slot: int) -> str:
    """C that compares a header name, case-folded, eight bytes at a time."""
    text = name.lower().encode() + b":"
    tests = []
    for at in range(0, len(text), 8):
        piece = text[at : at + 8]
        shift = 8 * (8 - len(piece))
        word = int.from_bytes(bytes(b | 0x20 for b in piece), "little") << shift
        tests.append(f"(load8(p + {at}) | LOWER) << {shift} == {word:#x}ULL")
    return f"if ({' && '.join(tests)}) {{ V(s->id) = H_SLOT + {slot}; V(s->k) = {len(text)}; }}"


def _begins(name: str) -> str:
    """C that returns 0 for a line that may begin with a header name (`passes_over` in bpf/http/line.h)."""
    piece = (name.lower().encode() + b":")[:4]
    shift = 8 * (4 - len(piece))
    word = int.from_bytes(bytes(b | 0x20 for b in piece), "little") << shift
    return f"if (x << {shift} == {word:#x}U) return 0;"


def kernel_source(target: int = TARGET, headers: Sequence[str] = (), *, pending: int | None = None) -> KernelSource:
    """The source for a kept target of `target` bytes and these request headers (at most four)."""
    defines: dict[str, int | str] = {
        "HTTP_TARGET": target,
        "HTTP_SLOTS": len(headers),
    }
    slots = {name.lower(): slot for slot, name in enumerate(headers)}
    defines |= {READ[name]: slot for name, slot in slots.items() if name in READ}
    if others := {name: slot for name, slot in slots.items() if name not in READ}:
        defines["HTTP_SLOT_NAMES"] = " else ".join(_match(name, slot) for name, slot in others.items())
        defines["HTTP_SLOT_BEGINS"] = " ".join(map(_begins, others))
    if pending:
        defines["HTTP_PENDING"] = pending
    part = KernelPart(
        name="http",
        files=FILES,
        programs=PROGRAMS,
        functions=FUNCTIONS,
        owner=True,
        records="http_records",
        counters=("http/counters.h", "http_counters"),
        pending=("http_pending", SENT_AT, START_AT),
        defines=defines,
    )

    def make_record() -> np.dtype[np.void]:
        from otel_ebpf_receiver.sources.http import record

        return record.dtype(target, len(headers))

    return KernelSource(part, make_record)
