"""Stands where the kernel programs stand and puts TCP streams together again: what frames say, judged by other code than what made them.

It takes only what a test run takes, reads headers strictly and keeps what a segment claims beside what it carries.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from otel_ebpf_receiver.kernel.replay import Transport


@dataclass(slots=True)
class Stream:
    """One direction of a connection. Bytes that were claimed but not carried are None."""

    next_seq: int | None = None
    early: dict[int, tuple[list[int | None], int]] = field(default_factory=dict)
    repeated: int = 0
    content: list[int | None] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def take(self, seq: int, content: list[int | None], took: int) -> None:
        """A segment that takes so many sequence numbers, in its turn: two CPUs may send at once, and who waits too long sends again. What is known is
        trimmed, what is early waits for what is before it.
        """
        known = 0 if self.next_seq is None else (self.next_seq - seq) % 2**32
        if known >= 2**31:
            self.early[seq] = (content, took)
            return
        self.repeated += min(known, took)
        self.content += content[known:]
        self.next_seq = (seq + max(took, known)) % 2**32
        for early in self.early:
            if (self.next_seq - early) % 2**32 < 2**31:
                self.take(early, *self.early.pop(early))
                return

    def text(self) -> bytes:
        """All bytes; none may be missing."""
        assert None not in self.content
        return bytes(byte for byte in self.content if byte is not None)


@dataclass(slots=True)
class Nothing:
    """No open requests, no records."""

    count: int = 0

    def drain(self) -> NDArray[np.void]:
        """An empty batch."""
        return np.empty(0, np.dtype([("x", "u1")]))


class Reassembly:
    """Takes frames as the kernel programs do and keeps the streams, by (source, destination) as `address:port` in hex."""

    def __init__(self) -> None:
        self.streams: dict[tuple[str, str], Stream] = {}
        self.frames: list[bytes] = []
        self.transports: Mapping[str, Transport] = {"http": Nothing()}

    def complete(self) -> dict[tuple[str, str], Stream]:
        """The streams, when everything was taken."""
        assert not any(stream.early for stream in self.streams.values()), "a segment does not follow the one before"
        return self.streams

    def counters(self) -> dict[str, int]:
        """Nothing was counted."""
        return {}

    def open_requests(self) -> Nothing:
        """None."""
        return Nothing()

    def test_run(self, frame: bytes, *, time_ns: int = 0, ifindex: int = 0) -> None:
        """Takes one frame; IPv4 and IPv6 TCP segments go to their streams."""
        assert 28 <= len(frame) <= 3712
        assert time_ns > 0
        self.frames.append(frame)
        ethertype, packet = int.from_bytes(frame[12:14]), frame[14:]
        if ethertype == 0x0800 and len(packet) >= 20 and packet[9] == 6:
            self._segment(packet, (packet[0] & 15) * 4, struct.unpack("!H", packet[2:4])[0], packet[12:16], packet[16:20], time_ns)
        elif ethertype == 0x86DD and len(packet) >= 40:
            at, kind = 40, packet[6]
            while kind in (0, 43, 60):
                kind, at = packet[at], at + 8 * (1 + packet[at + 1])
            if kind == 6:
                self._segment(packet, at, 40 + struct.unpack("!H", packet[4:6])[0], packet[8:24], packet[24:40], time_ns)

    def _segment(self, packet: bytes, at: int, length: int, source: bytes, destination: bytes, time_ns: int) -> None:
        ports_seq = struct.unpack("!HHI", packet[at : at + 8])
        head_end = at + (packet[at + 12] >> 4) * 4
        ends = (f"{source.hex()}:{ports_seq[0]}", f"{destination.hex()}:{ports_seq[1]}")
        stream = self.streams.setdefault(ends, Stream())
        bits = packet[at + 13]
        names = "".join(name for bit, name in ((2, "S"), (1, "F"), (4, "R"), (8, "P"), (16, "A")) if bits & bit)
        carried: list[int | None] = list(packet[head_end:length])
        claimed = length - head_end
        assert claimed >= len(carried)
        stream.flags.append(names)
        stream.heads.append(packet[:head_end])
        stream.times.append(time_ns)
        seq, took = ports_seq[2], claimed + bool(bits & 2) + bool(bits & 1)
        stream.take(seq, carried + [None] * (claimed - len(carried)), took)
