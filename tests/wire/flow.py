"""One TCP connection as the frames of both sides: numbers, acknowledgements, and everything that TCP may do to a stream.

It only describes: who feeds the frames to what is not its business. A frame that the tap does not see is kept in the list, marked unseen.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.wire import packets
from tests.wire.exchange import CLIENT, SERVER, SIDES
from tests.wire.packets import ACK, FIN, PSH, RST, SYN

SEGMENT_MAX = 3400
"""Payload of one segment: what a test run takes, less headers."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One frame in the order of sending; `offset` counts from the first byte of its direction's stream (-1: the SYN)."""

    side: int
    offset: int
    payload: bytes
    flags: int
    frame: bytes
    time_ns: int
    seen: bool
    note: str

    def __str__(self) -> str:
        flags = "".join(letter for bit, letter in ((SYN, "S"), (FIN, "F"), (RST, "R"), (ACK, "A")) if self.flags & bit)
        text = repr(self.payload if len(self.payload) <= 72 else self.payload[:40] + b" ... " + self.payload[-24:])[1:]
        unseen = "" if self.seen else " UNSEEN"
        mark = ">" if self.side == CLIENT else "<"
        return f"{self.time_ns:>14} {mark} {flags:3} {self.offset:>6}+{len(self.payload):<5}{unseen} {self.note} {text}"


@dataclass(frozen=True, slots=True)
class Ends:
    """The two endpoints and how their packets are dressed: headers before TCP, TCP options, VLAN tags, bytes behind the IP length."""

    client: tuple[str, int] = ("10.0.0.1", 40000)
    server: tuple[str, int] = ("10.100.0.2", 80)
    isn: tuple[int, int] = (1000, 500000)
    ip_options: bytes = b""
    extensions: tuple[tuple[int, bytes], ...] = ()
    tcp_options: bytes = b""
    tags: tuple[tuple[int, int], ...] = ()
    padding: bytes = b""

    def frame(self, side: int, seq: int, ack: int, flags: int, payload: bytes) -> bytes:
        """The frame of one segment."""
        (source, source_port), (target, target_port) = (self.client, self.server) if side == CLIENT else (self.server, self.client)
        segment = packets.tcp(source_port, target_port, seq, ack, flags, payload, options=self.tcp_options)
        if ":" in source:
            network, kind = packets.ipv6(source, target, segment, extensions=self.extensions), packets.ETHERTYPE_IPV6
        else:
            network, kind = packets.ipv4(source, target, segment, options=self.ip_options), packets.ETHERTYPE_IPV4
        return packets.ethernet(network, kind, tags=self.tags) + self.padding


@dataclass(frozen=True, slots=True)
class Disorder:
    """How often (0 to 1, per segment) what happens to segments."""

    again: float = 0.0
    """sent a second time, at once or after its successor"""
    overlap: float = 0.0
    """begins with bytes that were sent before"""
    probe: float = 0.0
    """followed by a keep-alive or zero-window probe"""
    swapped: float = 0.0
    """changes places with its successor"""
    late: float = 0.0
    """lost before the tap, sent again after one to `late_by` further segments"""
    late_by: int = 4
    unseen: float = 0.0
    """reaches the other side but not the tap"""
    acknowledged: float = 0.0
    """followed by a bare acknowledgement"""


class Flow:
    """A connection under way; every method appends to `frames`."""

    def __init__(self, ends: Ends, *, rng: random.Random | None = None, start_ns: int = 1_000_000_000) -> None:
        self.ends = ends
        self.rng = rng or random.Random(0)
        self.now_ns = start_ns
        self.frames: list[Sent] = []
        self.streams = (bytearray(), bytearray())
        self.fin = [False, False]
        self.received = [0, 0]
        """Of each side's stream: the bytes that the other side has without a hole."""
        self._islands: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])

    def emit(self, side: int, offset: int, payload: bytes = b"", flags: int = PSH | ACK, *, seen: bool = True, note: str = "",
             ack: int | None = None, moves: bool = True) -> Sent:  # fmt: skip
        """One segment at `offset`; `ack` is an offset in the other side's stream; `moves`: the other side receives it."""
        self.now_ns += 1000 + self.rng.randrange(1000)
        other = self.received[1 - side] if ack is None else ack
        number = self.ends.isn[1 - side] + 1 + other if flags & ACK else 0
        frame = self.ends.frame(side, self.ends.isn[side] + 1 + offset, number, flags, payload)
        sent = Sent(side, offset, payload, flags, frame, self.now_ns, seen, note)
        self.frames.append(sent)
        if moves:
            self._receive(side, offset, offset + len(payload) + bool(flags & FIN))
        return sent

    def _receive(self, side: int, begin: int, end: int) -> None:
        islands = self._islands[side]
        islands.append((begin, end))
        islands.sort()
        for low, high in islands:
            if low <= self.received[side] < high:
                self.received[side] = high
        islands[:] = [island for island in islands if island[1] > self.received[side]]

    def handshake(self, *, seen: bool = True) -> None:
        """SYN, SYN with ACK, ACK."""
        self.emit(CLIENT, -1, b"", SYN, seen=seen, moves=False)
        self.emit(SERVER, -1, b"", SYN | ACK, seen=seen, moves=False)
        self.emit(CLIENT, 0, b"", ACK, seen=seen)

    def end_offset(self, side: int) -> int:
        """Where the side's stream goes on."""
        return len(self.streams[side]) + self.fin[side]

    def transmit(self, side: int, data: bytes, cuts: Iterable[int] = (), *, disorder: Disorder | None = None, fin: bool = False) -> None:
        """Appends to the side's stream, in segments that end at `cuts` (places in data), the last one with FIN when asked."""
        at = len(self.streams[side])
        self.streams[side].extend(data)
        places = sorted({c for c in cuts if 0 < c < len(data)})
        edges = [0]
        for stop in [*places, len(data)]:
            while stop - edges[-1] > SEGMENT_MAX:
                edges.append(edges[-1] + SEGMENT_MAX)
            edges.append(stop)
        segments = [(at + a, at + b) for a, b in itertools.pairwise(edges) if b > a or len(edges) == 2]
        self.fin[side] = self.fin[side] or fin
        end = at + len(data)
        for begin, stop, fate in _order(segments, disorder or Disorder(), self.rng):
            self._segment(side, (begin, stop), fate, disorder or Disorder(), with_fin=fin and stop == end)

    def _segment(self, side: int, place: tuple[int, int], fate: str, disorder: Disorder, *, with_fin: bool) -> None:
        begin, stop = place
        rng, stream, flags = self.rng, self.streams[side], PSH | ACK | (FIN if with_fin else 0)
        if fate == "lost":
            self.emit(side, begin, bytes(stream[begin:stop]), flags, seen=False, moves=False, note="lost before the tap")
            return
        unseen = rng.random() < disorder.unseen and not with_fin
        back = rng.randrange(1, min(begin, 200) + 1) if begin and rng.random() < disorder.overlap else 0
        self.emit(side, begin - back, bytes(stream[begin - back : stop]), flags, seen=not unseen, note=fate)
        if rng.random() < disorder.again:
            self.emit(side, begin, bytes(stream[begin:stop]), flags, note="again")
        if rng.random() < disorder.probe:
            garbage = rng.choice((b"", b"\0"))
            self.probe(side, stop - 1, b"" if unseen else garbage)  # at a byte that was not seen, nobody could tell it from data
        if rng.random() < disorder.acknowledged:
            self.acknowledge(1 - side)

    def acknowledge(self, side: int) -> None:
        """A bare ACK of what the side has received."""
        self.emit(side, self.end_offset(side), b"", ACK, note="bare ACK")

    def probe(self, side: int, offset: int, payload: bytes = b"\0") -> None:
        """A keep-alive or zero-window probe: at a byte that was sent, with none or one byte of garbage."""
        if 0 <= offset < self.received[side]:
            self.emit(side, offset, payload, ACK, note="probe", moves=False)

    def repeat(self, side: int, begin: int, stop: int) -> None:
        """Bytes of the stream once more."""
        fin = self.fin[side] and stop == len(self.streams[side])
        self.emit(side, begin, bytes(self.streams[side][begin:stop]), PSH | ACK | (FIN if fin else 0), note="again")

    def miss(self, side: int, data: bytes, *, reaches: bool = True) -> None:
        """Bytes that the tap does not see; `reaches`: the other side got them."""
        at = len(self.streams[side])
        self.streams[side].extend(data)
        self.emit(side, at, data, PSH | ACK, seen=False, moves=reaches)

    def finish(self, side: int) -> None:
        """A FIN of its own."""
        at = len(self.streams[side])
        self.fin[side] = True
        self.emit(side, at, b"", FIN | ACK)

    def reset(self, side: int, *, shift: int = 0, payload: bytes = b"") -> None:
        """RST at the expected number plus `shift`."""
        self.emit(side, self.end_offset(side) + shift, payload, RST | ACK, moves=False, note=f"RST by the {SIDES[side]}")

    def first_seen(self, side: int, offset: int) -> int | None:
        """When the tap first saw this byte."""
        for sent in self.frames:
            if sent.seen and sent.side == side and sent.offset <= offset < sent.offset + len(sent.payload) and sent.note != "probe":
                return sent.time_ns
        return None

    def delivered(self, side: int, offset: int) -> int:
        """When the last new byte up to this offset passed: the stream was whole up to here, but for what was never seen."""
        seen: list[tuple[int, int]] = []
        latest = 0
        for sent in self.frames:
            if not sent.seen or sent.side != side or sent.note == "probe":
                continue
            begin, end = sent.offset, min(sent.offset + len(sent.payload), offset + 1)
            if begin < end and not any(low <= begin and end <= high for low, high in seen):
                latest = sent.time_ns
                seen = _joined([*seen, (begin, end)])
        return latest


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if out and low <= out[-1][1]:
            out[-1] = (out[-1][0], max(high, out[-1][1]))
        else:
            out.append((low, high))
    return out


def _order(segments: Sequence[tuple[int, int]], disorder: Disorder, rng: random.Random) -> list[tuple[int, int, str]]:
    """The segments in the order in which they pass the tap, each with its fate."""
    out: list[tuple[int, int, str]] = []
    waiting: list[tuple[int, tuple[int, int], str]] = []
    for i, (begin, stop) in enumerate(segments):
        if i + 1 < len(segments) and rng.random() < disorder.swapped:
            waiting.append((i + 1, (begin, stop), "out of order"))
            continue
        if rng.random() < disorder.late:
            out.append((begin, stop, "lost"))
            waiting.append((i + rng.randrange(1, disorder.late_by + 1), (begin, stop), "sent again"))
            continue
        out.append((begin, stop, ""))
        out += [(*place, note) for due, place, note in waiting if due <= i]
        waiting = [late for late in waiting if late[0] > i]
    return out + [(*place, note) for _, place, note in waiting]
