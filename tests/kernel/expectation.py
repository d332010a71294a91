"""What the kernel's record of an exchange must hold, field by field, from its truth and the frames that the tap saw."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otel_ebpf_receiver.sources.http import record
from otel_ebpf_receiver.sources.http.record import Error, Flag
from tests.wire import packets
from tests.wire.exchange import CLIENT, SERVER, Exchange
from tests.wire.flow import Flow

LINE_ROOM = 24
"""Bytes of `line` beyond those kept of the target."""
LOSS_BLIND = Flag.PIPELINED | Flag.INTERIM | Flag.RESYNCHRONISED
"""Flags that depend on what the tap missed."""


@dataclass(frozen=True, slots=True)
class Within:
    """Any number from `low` to `high`."""

    low: int
    high: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and self.low <= other <= self.high


@dataclass(frozen=True, slots=True)
class OneOf:
    """Any of these."""

    values: tuple[Any, ...]

    def __eq__(self, other: object) -> bool:
        return other in self.values


def decoded(row: np.void) -> dict[str, Any]:
    """A record as plain values; texts are cut at their lengths, and what lies behind them must be zero."""
    out: dict[str, Any] = {}
    for name in row.dtype.names or ():
        value = row[name]
        kind = row.dtype[name].kind
        if row.dtype[name].subdtype is not None:
            out[name] = value.tolist()
        else:
            out[name] = value.tobytes() if kind == "V" else bytes(value) if kind == "S" else value.tolist()
    method_len, target_len = out["method_len"], out["target_len"]
    line = out["line"]
    out["method_text"], out["target"] = line[:method_len], line[method_len + 1 : method_len + 1 + target_len]
    out["rest_of_line"] = line[method_len : method_len + 1] + line[method_len + 1 + target_len :]
    return out


def _text(value: bytes | None, size: int) -> tuple[bytes, int]:
    """A text and its length as the record keeps them."""
    return (value or b"")[:size], min(len(value or b""), 255)


def _order(flow: Flow, exchanges: Sequence[Exchange], i: int) -> bool:
    """Was the request asked before an earlier answer was complete?"""
    begin = flow.first_seen(CLIENT, exchanges[i].request.begin)
    if i == 0 or begin is None:
        return False
    before = exchanges[i - 1]
    if before.response is None or before.error:
        return True
    end = flow.first_seen(SERVER, before.response.end - 1)
    return end is None or begin < end


def expected(flow: Flow, exchanges: Sequence[Exchange], i: int, *, target_room: int = record.TARGET) -> dict[str, Any]:
    """Fields of the record of exchange `i` when the tap saw everything."""
    e = exchanges[i]
    room = max(min(target_room, target_room + LINE_ROOM - 1 - len(e.method)), 0)
    host, host_len = _text(e.host, record.TEXT)
    agent, agent_len = _text(e.agent, record.AGENT)
    state, state_len = _text(e.tracestate, record.TEXT)
    flags = (Flag.TARGET_CUT if len(e.target) > room else 0) | (Flag.INTERIM if e.interim else 0)
    flags |= Flag.PIPELINED if _order(flow, exchanges, i) else 0
    wire_len = len(e.target) if len(e.target) <= room else OneOf((len(e.target), 65535))
    known = record.METHODS.index(e.method.decode("latin-1")) if e.method.decode("latin-1") in record.METHODS[1:] else 0
    (client, client_port), (server, server_port) = flow.ends.client, flow.ends.server
    out: dict[str, Any] = {
        "method": known, "method_len": min(len(e.method), 255), "method_text": e.method, "minor": e.minor,
        "target": e.target[:room], "target_len": min(len(e.target), room), "target_wire_len": wire_len,
        "host": host, "host_len": host_len, "agent": agent, "agent_len": agent_len, "tracestate": state, "tracestate_len": state_len,
        "traced": int(e.trace is not None), "flags": int(flags), "status": e.status, "number": i,
        "error": {"": 0, "reset": 1, "closed": 2}[e.error], "side": {"": 0, "client": 1, "server": 2}[e.side],
        "request_body": e.request_body, "request_head": e.request.head_end - e.request.begin,
        "client_address": packets.mapped(client), "server_address": packets.mapped(server),
        "client_port": client_port, "server_port": server_port,
        "request_seq": (flow.ends.isn[CLIENT] + 1 + e.request.begin) % 2**32,
    }  # fmt: skip
    if e.trace:
        out |= {
            "trace_id": e.trace.trace_id,
            "parent_id": e.trace.parent_id,
            "trace_flags": e.trace.flags,
            "traceparent_version": e.trace.version,
        }
    return out | _response(flow, e) | _times(flow, e)


def _response(flow: Flow, e: Exchange) -> dict[str, Any]:
    if e.response is None:
        return {"response_body": 0}
    out: dict[str, Any] = {"response_body": e.response_body, "response_seq": (flow.ends.isn[SERVER] + 1 + e.response.begin) % 2**32}
    if e.response_head_complete:
        out["response_head"] = e.response.head_end - e.response.begin
    return out


def _times(flow: Flow, e: Exchange) -> dict[str, Any]:
    """First and last bytes. A response that the connection's end ends may end with either."""
    last = max((s.time_ns for s in flow.frames if s.seen), default=0)
    out: dict[str, Any] = {"request_start_ns": flow.first_seen(CLIENT, e.request.begin)}
    if e.request_complete:
        out["request_end_ns"] = flow.first_seen(CLIENT, e.request.end - 1)
    if e.response is None:
        return out if e.interim else out | {"response_start_ns": 0}
    out["response_start_ns"] = flow.first_seen(SERVER, e.response.begin)
    end = flow.first_seen(SERVER, e.response.end - 1)
    out["response_end_ns"] = Within(end or 0, last) if e.framing == "close" or e.error else end
    return out


def differences(want: Mapping[str, Any], got: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields that differ: name -> (expected, got)."""
    return {name: (value, got[name]) for name, value in want.items() if value != got[name]}


def exempt(got: Mapping[str, Any]) -> set[str]:
    """Fields that a record itself calls uncertain."""
    flags = Flag(got["flags"])
    out: set[str] = set()
    if flags & Flag.UNCERTAIN_END:
        out |= {"response_end_ns", "request_end_ns"}
        out |= {"error", "side"} if got["error"] == Error.NONE else set()  # how it ended is not claimed either
    if flags & Flag.UNCERTAIN_SIZE:
        out |= {"request_body", "response_body"} | ({"response_head"} if not got["response_head"] else set())
    return out


def falsehoods(flow: Flow, exchanges: Sequence[Exchange], got: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What a record of a connection with losses says that is not true. `number` and flags of circumstance are not looked at."""
    offset = (got["request_seq"] - flow.ends.isn[CLIENT] - 1) % 2**32
    i = next((i for i, e in enumerate(exchanges) if e.request.begin == offset), None)
    if i is None:
        return {"request_seq": ("a request", offset)}
    want = expected(flow, exchanges, i)
    e = exchanges[i]
    for name in exempt(got) | {"number"}:
        want.pop(name, None)
    want["flags"] = want["flags"] & ~LOSS_BLIND
    seen = dict(got) | {"flags": got["flags"] & ~(LOSS_BLIND | Flag.UNCERTAIN_END | Flag.UNCERTAIN_SIZE)}
    for name, side, span in (("request_start_ns", CLIENT, e.request), ("response_start_ns", SERVER, e.response)):
        if name in want and span is not None:
            want[name] = _passed(flow, side, span.begin, span.begin)
    for name, side, span in (("request_end_ns", CLIENT, e.request), ("response_end_ns", SERVER, e.response)):
        if name in want and span is not None and not isinstance(want[name], Within):
            want[name] = _passed(flow, side, span.begin, span.end - 1)
    return differences(want, seen)


def _passed(flow: Flow, side: int, begin: int, offset: int) -> Within:
    """When a byte passed, or the stream was whole up to it, or a hole in its message was filled. Never, if it did not pass."""
    first = flow.first_seen(side, offset)
    if first is None:
        return Within(1, 0)
    filled = [s.time_ns for s in flow.frames if s.seen and s.side == side and s.offset <= offset and s.offset + len(s.payload) > begin]
    return Within(first, max(flow.delivered(side, offset), *filled) if offset > begin else flow.delivered(side, offset))


def address(packed: bytes) -> str:
    """For messages."""
    parsed = ipaddress.IPv6Address(packed)
    return str(parsed.ipv4_mapped or parsed)
