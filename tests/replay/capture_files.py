"""Writes capture files byte by byte, as the drafts of pcap and pcapng say, in every variant that the reader must take."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple


class Kept(NamedTuple):
    """A packet to write: nanoseconds since 1970, the bytes that are kept, the length on the wire (None: as kept)."""

    time_unix_ns: int
    data: bytes
    length: int | None = None

    @property
    def wire(self) -> int:
        """Length on the wire."""
        return len(self.data) if self.length is None else self.length


def pcap(packets: Iterable[Kept], *, link_type: int = 1, order: str = "<", magic: int = 0xA1B2C3D4) -> bytes:
    """A pcap file of the byte order and kind (micro-, nanoseconds, Kuznetzov's) that order and magic say."""
    unit_ns = 1 if magic == 0xA1B23C4D else 1000
    out = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)]
    for packet in packets:
        seconds, rest = divmod(packet.time_unix_ns, 1_000_000_000)
        out.append(struct.pack(f"{order}IIII", seconds, rest // unit_ns, len(packet.data), packet.wire))
        if magic == 0xA1B2CD34:
            out.append(struct.pack(f"{order}IHBB", 2, 0x0800, 0, 0))
        out.append(packet.data)
    return b"".join(out)


def padded(data: bytes) -> bytes:
    """Filled up to a multiple of four bytes."""
    return data + bytes(-len(data) % 4)


class Ng:
    """Blocks of pcapng in one byte order."""

    def __init__(self, order: str = "<") -> None:
        self.order = order

    def block(self, kind: int, body: bytes) -> bytes:
        """Any block; its body is filled up."""
        body = padded(body)
        return struct.pack(f"{self.order}II", kind, 12 + len(body)) + body + struct.pack(f"{self.order}I", 12 + len(body))

    def section(self, *, length: int = -1) -> bytes:
        """A section header."""
        return self.block(0x0A0D0D0A, struct.pack(f"{self.order}IHHq", 0x1A2B3C4D, 1, 0, length))

    def option(self, code: int, value: bytes) -> bytes:
        """One option."""
        return struct.pack(f"{self.order}HH", code, len(value)) + padded(value)

    def interface(self, link_type: int = 1, *, snap_bytes: int = 0, options: bytes = b"") -> bytes:
        """An interface description; options as `option` makes them, with their end."""
        return self.block(1, struct.pack(f"{self.order}HHI", link_type, 0, snap_bytes) + options)

    def enhanced(self, packet: Kept, *, interface: int = 0, ticks: int | None = None, options: bytes = b"") -> bytes:
        """An enhanced packet block; its time is in microseconds unless ticks are given."""
        ticks = packet.time_unix_ns // 1000 if ticks is None else ticks
        head = struct.pack(f"{self.order}IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(packet.data), packet.wire)
        return self.block(6, head + padded(packet.data) + options)

    def simple(self, packet: Kept) -> bytes:
        """A simple packet block: no time, no interface."""
        return self.block(3, struct.pack(f"{self.order}I", packet.wire) + packet.data)

    def obsolete(self, packet: Kept, *, interface: int = 0) -> bytes:
        """The packet block of older writers."""
        ticks = packet.time_unix_ns // 1000
        head = struct.pack(f"{self.order}HHIIII", interface, 7, ticks >> 32, ticks & 0xFFFFFFFF, len(packet.data), packet.wire)
        return self.block(2, head + packet.data)
