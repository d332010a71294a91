"""HTTP records made from plain values, as the kernel would write them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import numpy as np

from otel_ebpf_receiver.sources.http import record
from otel_ebpf_receiver.sources.http.record import METHODS
from otel_ebpf_receiver.telemetry.columns import I64, U64, Records

MS = 1_000_000
START_NS = 1_000_000 * MS


def same_clock(times: U64 | I64) -> I64:
    """The records' times are Unix times."""
    return np.zeros(len(times), np.int64)


class UnixClock:
    """A clock whose times are Unix times already, as in a capture."""

    def offsets_ns(self, times_ns: U64 | I64) -> I64:
        return same_clock(times_ns)


def address(text: str) -> bytes:
    """16 bytes, IPv4 as v4-mapped IPv6."""
    parsed = ip_address(text)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


def make(*exchanges: dict[str, Any], target: int = record.TARGET, slots: int = 0) -> Records:
    """One record per dict; keys are fields of the record, `target`, `method` (text), `client`, `server` (addresses) and `slots`."""
    out = np.zeros(len(exchanges), record.dtype(target, slots))
    for number, exchange in enumerate(exchanges):
        fill(out, number, exchange, target)
    return out


def fill(out: Records, number: int, exchange: dict[str, Any], kept: int = record.TARGET) -> None:
    """Writes one exchange into a row."""
    given = dict(exchange)
    method, target = given.pop("method", "GET"), given.pop("target", "/")
    raw = target if isinstance(target, bytes) else target.encode()
    row = out[number : number + 1]
    row["method"] = METHODS.index(method) if method in METHODS[1:] else 0
    row["method_len"] = min(len(method), 255)
    row["target_len"], row["target_wire_len"] = min(len(raw), kept), min(len(raw), 65535)
    row["line"] = method.encode() + b" " + raw[:kept]
    row["client_address"] = np.void(address(given.pop("client", "10.0.0.1")))
    row["server_address"] = np.void(address(given.pop("server", "10.0.0.2")))
    host, agent = given.pop("host", "shop.example:8080"), given.pop("agent", "curl/8")
    row["host"], row["host_len"] = host.encode()[:64], min(len(host), 255)
    row["agent"], row["agent_len"] = agent.encode()[:88], min(len(agent), 255)
    state = given.pop("tracestate", "").encode()
    row["tracestate"], row["tracestate_len"] = state[:64], min(len(state), 255)
    for name in ("trace_id", "parent_id"):
        if name in given:
            row[name] = np.void(given.pop(name))
            row["traced"] = 1
    for place, value in enumerate(given.pop("slots", ())):
        out["slots"][number, place] = value.encode()[:64]
        out["slot_len"][number, place] = min(len(value), 255)
    defaults = {
        "request_start_ns": START_NS, "request_end_ns": START_NS + MS, "response_start_ns": START_NS + 3 * MS, "response_end_ns": START_NS + 7 * MS,
        "client_port": 40000, "server_port": 8080, "status": 200, "minor": 1, "tap": 7, "direction": 2,
        "request_seq": 1000 + number, "response_seq": 2000 + number, "request_ack": 2000 + number,
    }  # fmt: skip
    for name, value in (defaults | given).items():
        row[name] = value
