"""The kernel's HTTP record as a numpy dtype: the twin of `bpf/http/record.h`, held to it by a test, offset by offset.

Sizes depend on two compile-time options: bytes of the target that are kept and the number of configured header slots.
"""

from __future__ import annotations

import enum

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.sources.http import kernel

VERSION = 1
TARGET = kernel.TARGET
TARGET_MAX = 1024
SLOTS_MAX = 4
TEXT = 64
AGENT = 88
METHODS = ("_OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY")
"""Known methods by their code in the record; 0 is any other token, whose bytes are in `line`."""


class Flag(enum.IntFlag):
    """Bits of `flags`: what is uncertain or unusual about an exchange."""

    TARGET_CUT = 1
    UNCERTAIN_END = 2
    UNCERTAIN_SIZE = 4
    RESYNCHRONISED = 8
    PIPELINED = 16
    INTERIM = 32


class Error(enum.IntEnum):
    """How an exchange ended when it did not end as HTTP says."""

    NONE = 0
    RESET = 1
    CLOSED = 2


class Side(enum.IntEnum):
    """Who ended it."""

    NONE = 0
    CLIENT = 1
    SERVER = 2


class Direction(enum.IntEnum):
    """Which way the request crossed the tap: it arrived from the device, or it left to it."""

    UNKNOWN = 0
    ARRIVED = 1
    LEFT = 2


def matrix(records: npt.NDArray[np.void], name: str) -> npt.NDArray[np.uint8]:
    """The bytes of a field (n x its size), which is zero behind a text; a view."""
    assert records.dtype.fields is not None
    kind, begin = records.dtype.fields[name][:2]
    raw = np.ascontiguousarray(records).view(np.uint8).reshape(len(records), records.dtype.itemsize)
    return raw[:, begin : begin + kind.itemsize]


def dtype(target: int = TARGET, slots: int = 0) -> np.dtype[np.void]:
    """The record's dtype for a kept target of `target` bytes and `slots` header slots; no padding."""
    fields: list[tuple[str, str] | tuple[str, str, tuple[int, ...]]] = [
        ("request_start_ns", "<u8"),
        ("request_end_ns", "<u8"),
        ("response_start_ns", "<u8"),
        ("response_end_ns", "<u8"),
        ("request_body", "<u8"),
        ("response_body", "<u8"),
        ("request_head", "<u4"),
        ("response_head", "<u4"),
        ("request_seq", "<u4"),
        ("response_seq", "<u4"),
        ("request_ack", "<u4"),
        ("tap", "<u4"),
        ("client_address", "V16"),
        ("server_address", "V16"),
        ("client_port", "<u2"),
        ("server_port", "<u2"),
        ("status", "<u2"),
        ("flags", "<u2"),
        ("method", "u1"),
        ("error", "u1"),
        ("side", "u1"),
        ("direction", "u1"),
        ("minor", "u1"),
        ("method_len", "u1"),
        ("host_len", "u1"),
        ("agent_len", "u1"),
        ("target_len", "<u2"),
        ("target_wire_len", "<u2"),
        ("tracestate_len", "u1"),
        ("trace_flags", "u1"),
        ("traced", "u1"),
        ("traceparent_version", "u1"),
        ("slot_len", "u1", (4,)),
        ("number", "<u4"),
        ("trace_id", "V16"),
        ("parent_id", "V8"),
        ("host", f"S{TEXT}"),
        ("tracestate", f"S{TEXT}"),
        ("agent", f"S{AGENT}"),
    ]
    if slots:
        fields.append(("slots", f"S{TEXT}", (slots,)))
    fields.append(("line", f"S{target + 24}"))
    return np.dtype(fields)
