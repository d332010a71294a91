"""The metrics of the HTTP source, and their values in a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from otel_ebpf_receiver.sources.http import names
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.sources.source import Rows
from otel_ebpf_receiver.telemetry.columns import Group, Instrument, Kind, Points, of_rows

if TYPE_CHECKING:
    from otel_ebpf_receiver.sources.http.columns import HttpView

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The conventions' advice for durations."""
DURATION = {
    Kind.SERVER: Instrument(names.SERVER_DURATION, "s", "Duration of HTTP server requests.", BOUNDS_S, is_duration=True),
    Kind.CLIENT: Instrument(names.CLIENT_DURATION, "s", "Duration of HTTP client requests.", BOUNDS_S, is_duration=True),
}
FIRST_BYTE = {
    Kind.SERVER: Instrument(
        names.SERVER_FIRST_BYTE, "s", "Time from the request's last byte to the answer's first.", BOUNDS_S, is_duration=True
    ),
    Kind.CLIENT: Instrument(
        names.CLIENT_FIRST_BYTE, "s", "Time from the request's last byte to the answer's first.", BOUNDS_S, is_duration=True
    ),
}
ACTIVE = {
    Kind.SERVER: Instrument(names.SERVER_ACTIVE, "{request}", "Number of active HTTP server requests.", is_level=True),
    Kind.CLIENT: Instrument(names.CLIENT_ACTIVE, "{request}", "Number of active HTTP requests.", is_level=True),
}
_SIZES = {
    (Kind.SERVER, "request_body"): (names.SERVER_REQUEST_BODY, "Size of HTTP server request bodies."),
    (Kind.SERVER, "response_body"): (names.SERVER_RESPONSE_BODY, "Size of HTTP server response bodies."),
    (Kind.CLIENT, "request_body"): (names.CLIENT_REQUEST_BODY, "Size of HTTP client request bodies."),
    (Kind.CLIENT, "response_body"): (names.CLIENT_RESPONSE_BODY, "Size of HTTP client response bodies."),
}


def size_instruments(options: HttpOptions) -> dict[tuple[Kind, str], Instrument]:
    """By kind and field of the record."""
    return {at: Instrument(name, "By", text, options.size_bounds) for at, (name, text) in _SIZES.items()}


def all_instruments(options: HttpOptions) -> list[Instrument]:
    out = list(DURATION.values())
    out += FIRST_BYTE.values() if options.first_byte else ()
    out += size_instruments(options).values() if options.body_sizes else ()
    out += ACTIVE.values() if options.active else ()
    return out


def measured(view: HttpView, kind: Kind, rows: Rows, group: Group) -> Iterator[Points]:
    """Observations of every instrument that is on; what has no answer has no first byte and no answer's size."""
    yield Points(DURATION[kind], kind, rows, of_rows(view.duration, rows) / 1e9, group)
    if not (view.options.first_byte or view.options.body_sizes):
        return
    answered = np.flatnonzero(view.answered[rows])
    there = Group(group.key[answered], lambda row: group.build(int(answered[row])))
    if view.options.first_byte:
        yield Points(FIRST_BYTE[kind], kind, rows[answered], view.parts.wait[rows[answered]] / 1e9, there)
    if view.options.body_sizes:
        sizes = size_instruments(view.options)
        yield Points(sizes[kind, "request_body"], kind, rows, view.records["request_body"][rows].astype(np.float64), group)
        response = view.records["response_body"][rows[answered]].astype(np.float64)
        yield Points(sizes[kind, "response_body"], kind, rows[answered], response, there)
