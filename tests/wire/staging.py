"""Plays a case from disk in one of its modes: whole, cut, every byte alone, every segment twice, padded frames, trailing bytes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tests.wire import packets, reference
from tests.wire.cases import MODES, Act, Case
from tests.wire.exchange import CLIENT, SERVER, Exchange
from tests.wire.flow import SEGMENT_MAX, Ends, Flow
from tests.wire.packets import ACK, PSH, SYN

CUTS_OF_LONG = 600
"""A `long` case is cut at this many of its first and of its last bytes, and at as many in between."""
TAGS = ((packets.ETHERTYPE_8021AD, 5), (packets.ETHERTYPE_8021Q, 6))
EXTENSIONS = (
    packets.extension(packets.HOP_BY_HOP),
    packets.extension(packets.ROUTING, 24),
    packets.extension(packets.AUTHENTICATION, 24),
    packets.extension(packets.DESTINATION_OPTIONS, 16),
)
TRAILING = b"\0\1trailing\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Play:
    """What a case becomes: the connections in their order (one, unless it reconnects) and the truth of each."""

    mode: str
    at: int
    flows: list[Flow]
    truths: list[list[Exchange]]


def ends_of(case: Case, number: int, *, padded: bool) -> Ends:
    """Endpoints of a run, unlike those of other numbers, dressed as the case says."""
    s = case.settings
    port, host = 1024 + number % 60000, number // 60000
    client, server = (f"fd00:1::{host:x}", "fd00:9::2") if "ipv6" in s else (f"10.9.{host // 250}.{host % 250 + 1}", "10.250.0.2")
    return Ends(
        (client, port),
        (server, 80),
        (2**32 - 20, 2**32 - 30) if "wrap" in s else (1000, 500000),
        ip_options=bytes((7, 39, 4)) + bytes(37) if "ip-options" in s else b"",
        extensions=EXTENSIONS if "extensions" in s else (),
        tcp_options=packets.TIMESTAMPS if "tcp-options" in s else b"",
        tags=TAGS[: 1 if "tag" in s else 2 if "two-tags" in s else 0],
        padding=b"GET /padding HTTP/1.1\r\n\r\n" if padded else b"",
    )


def size_of(case: Case) -> int:
    """Bytes of the longest of its steps."""
    return max((len(act.data) for act in case.acts if act.verb in ("say", "say-fin")), default=0)


def runs(case: Case, mode: str) -> Iterator[int]:
    """The places at which a mode cuts; one run for modes that do not cut."""
    if mode != "cut":
        yield 0
        return
    size = size_of(case)
    if "long" not in case.settings:
        yield from range(1, size)
        return
    middle = random.Random(case.name).sample(
        range(CUTS_OF_LONG, max(size - CUTS_OF_LONG, CUTS_OF_LONG + 1)), min(CUTS_OF_LONG, max(size - 2 * CUTS_OF_LONG, 0))
    )
    yield from sorted({*range(1, min(CUTS_OF_LONG, size)), *middle, *range(max(size - CUTS_OF_LONG, 1), size)})


def _cuts(mode: str, at: int, data: bytes) -> Iterable[int]:
    if mode == "bytes":
        return range(len(data))
    return (at,) if mode == "cut" else ()


def play(case: Case, mode: str, number: int, at: int = 0, start_ns: int = 1_000_000_000) -> Play:
    """The case in this mode; `number` chooses its endpoints."""
    ends = ends_of(case, number, padded=mode == "padded")
    flow = Flow(ends, start_ns=start_ns)
    flow.handshake(seen="no-handshake" not in case.settings)
    played = Play(mode, at, [flow], [])
    ended: list[tuple[int, str]] = []
    acts = _trailing(case.acts) if mode == "trailing" else case.acts
    for act in acts:
        if act.verb == "reconnect":
            played.truths.append(_truth(flow, ended))
            ended = []
            ends = replace(ends, isn=(ends.isn[0] + 100000, ends.isn[1] + 100000))
            flow = Flow(ends, start_ns=flow.now_ns)
            flow.handshake(seen=not act.number)
            played.flows.append(flow)
        else:
            _do(flow, act, mode, at, ended)
    played.truths.append(_truth(flow, ended, without=TRAILING if mode == "trailing" else b""))
    return played


def _truth(flow: Flow, ended: list[tuple[int, str]], *, without: bytes = b"") -> list[Exchange]:
    client, server = (bytes(stream).removesuffix(without) for stream in flow.streams)
    return reference.read(client, server, ended)


def _trailing(acts: list[Act]) -> list[Act]:
    """The same with bytes behind the last messages: the server's in the segment that ends its message, where that is the last one."""
    last = acts[-1]
    if last.side == SERVER and last.verb == "say":
        return [*acts[:-1], replace(last, data=last.data + TRAILING), Act(CLIENT, "say", TRAILING)]
    return [*acts, Act(SERVER, "say", TRAILING), Act(CLIENT, "say", TRAILING)]


def modes(case: Case) -> list[str]:
    """The modes that a case is run in: all but those that it leaves out; nothing trails behind the end of a connection."""
    ended = any(act.verb in ("fin", "rst", "say-fin", "say-rst", "reconnect") for act in case.acts)
    return [mode for mode in MODES if mode not in case.skips and not (mode == "trailing" and ended)]


def _do(flow: Flow, act: Act, mode: str, at: int, ended: list[tuple[int, str]]) -> None:
    side = act.side
    before = len(flow.frames)
    match act.verb:
        case "say" | "say-fin":
            flow.transmit(side, act.data, _cuts(mode, at, act.data), fin=act.verb == "say-fin")
        case "unseen" | "lost":
            for begin in range(0, len(act.data), SEGMENT_MAX):
                flow.miss(side, act.data[begin : begin + SEGMENT_MAX], reaches=act.verb == "unseen")
        case "resend":
            _resend(flow, side)
        case "fin":
            flow.finish(side)
        case "rst" | "say-rst":
            flow.reset(side, shift=act.number, payload=act.data)
        case "ack":
            flow.acknowledge(side)
        case "probe":
            flow.probe(side, flow.end_offset(side) - 1, act.data)
        case "again":
            stop = len(flow.streams[side])
            flow.repeat(side, max(stop - act.number, 0), stop)
        case "syn":
            flow.emit(side, -1 + act.number, b"", SYN, moves=False)
        case "wild":
            flow.emit(side, flow.end_offset(side) + act.number, act.data, PSH | ACK, moves=False, note="wild")
    if act.verb in ("fin", "say-fin") or (act.verb == "rst" and act.number == 0):
        ended.append((side, "rst" if act.verb == "rst" else "fin"))
    if mode == "twice":
        again = [s for s in flow.frames[before:] if s.seen]
        flow.frames[before:] = [
            twin for s in flow.frames[before:] for twin in ((s, replace(s, note=s.note + " twice")) if s in again else (s,))
        ]


def _resend(flow: Flow, side: int) -> None:
    for lost in [s for s in flow.frames if not s.seen and s.side == side]:
        if lost.offset + len(lost.payload) > flow.received[side]:
            flow.emit(side, lost.offset, lost.payload, PSH | ACK, note="sent again")
