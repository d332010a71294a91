"""Feeds a capture file to the kernel programs, frame by frame through test runs, and hands on the records that come out.

Every frame becomes what a test run takes: a 14-byte Ethernet header and at most `FRAME_BYTES` in all. A longer TCP frame becomes several
segments that make the same stream. No byte is invented: what the capture did not keep stays missing, and the IP length goes on saying so.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from otel_ebpf_receiver.errors import CaptureError
from otel_ebpf_receiver.kernel import pcap

FRAME_BYTES = 3712
"""What one test run takes: a page less headroom and the space for the end of an skb (Linux 5.10 to 7.x, x86-64)."""
NETWORK_BYTES = FRAME_BYTES - 14
DRAIN_BYTES = 256 << 10
"""Drained at least this often: the shortest answer has 14 bytes, so at most 18,725 records lie in a ring of about 25,000."""
DRAIN_FRAMES = 2048

_SMALLEST_NETWORK_BYTES = 14
_IPV4, _IPV6 = 0x0800, 0x86DD
_VLAN = frozenset({0x8100, 0x88A8, 0x9100})
_FIN, _SYN, _RST, _PSH = 1, 2, 4, 8
_LENGTH_MAX = 0xFFFF
_BIG_TCP_BYTES = 1 << 20
"""A packet whose IP length says 0 is not believed to be longer: twice what Linux makes (GSO_MAX_SIZE, 8 * 65,535)."""
_FAMILIES = {2: _IPV4, 10: _IPV6, 23: _IPV6, 24: _IPV6, 28: _IPV6, 30: _IPV6}
"""Address families of loopback captures: IPv6 has another number on Linux, Windows, NetBSD and OpenBSD, FreeBSD and macOS."""

_NOT_WHOLE = re.compile(r".*_(given_up|unpaired|resync_\w+|length_conflict)|flows_distrusted|no_flow|collided")
"""Counters of what was not there or not understood, and what became of it."""
_ENDS = ("answered", "reset", "closed", "given_up")

Emit = Callable[[str, NDArray[np.void]], None]
"""Takes the name of a source and a batch of its records, in the order in which they came; never an empty one."""


class Transport(Protocol):
    """Where the records of one source wait."""

    def drain(self) -> NDArray[np.void]: ...


class OpenRequests(Protocol):
    """Requests that have no answer yet."""

    @property
    def count(self) -> int: ...


class Programs(Protocol):
    """What a replay needs of the loaded kernel programs."""

    @property
    def transports(self) -> Mapping[str, Transport]: ...

    def test_run(self, frame: bytes, *, time_ns: int = 0, ifindex: int = 0) -> None: ...

    def counters(self) -> dict[str, int]: ...

    def open_requests(self) -> OpenRequests: ...


@dataclass(slots=True)
class Replayed:
    """What came of a replay. Counts frames of the file, records of all sources; `error` is why the file could not be read (to its end).

    `not_whole`: what the kernel counted of exchanges that it gave up, by its own names; none where all is well.
    """

    frames: int = 0
    not_ip: int = 0
    split: int = 0
    truncated: int = 0
    records: int = 0
    lost: int = 0
    open: int = 0
    not_whole: dict[str, int] = field(default_factory=dict)
    unknown: Counter[int] = field(default_factory=Counter)
    error: CaptureError | None = None

    def summary(self) -> str:
        """One line for people."""
        unknown = f", {self.unknown.total()} left out: link type {self._unknown_types()} is not known" if self.unknown else ""
        not_whole = "; not whole: " + ", ".join(f"{name} {count}" for name, count in self.not_whole.items()) if self.not_whole else ""
        return (
            f"{self.frames} frames ({self.not_ip} not IP, {self.split} split, {self.truncated} truncated{unknown}), "
            f"{self.records} exchanges, {self.open} open at the end, {self.lost} records lost{not_whole}"
        )

    def refuse_unknown(self, path: str) -> None:
        """Unknown link types alone are an error: nothing could be read. Beside others the summary tells of them."""
        if self.unknown and self.error is None and self.frames == self.unknown.total():
            self.error = CaptureError(
                f"capture file {path!r}: all frames are of link type {self._unknown_types()} (www.tcpdump.org/linktypes.html names it); "
                "what can be read is Ethernet, raw IP, Linux cooked and null/loopback"
            )

    def _unknown_types(self) -> str:
        return ", ".join(str(link_type) for link_type in sorted(self.unknown))


def replay(path: str | os.PathLike[str], programs: Programs, emit: Emit) -> Replayed:
    """Runs every frame of the file through the programs with the capture's own times, in the file's order.

    A file that breaks off is told in the result's `error`, after all before it was handed on. Whatever `emit` raises goes through.
    """
    result = Replayed()
    feed = _Feed(programs, emit, result)
    before = programs.counters()
    try:
        for captured in pcap.read(path):
            feed.take(captured)
    except CaptureError as error:
        result.error = error
    feed.drain()
    result.open = programs.open_requests().count
    counters = {name: count - before.get(name, 0) for name, count in programs.counters().items()}
    result.lost = sum(count for name, count in counters.items() if name.endswith("lost"))
    result.not_whole = not_whole(counters, result.open)
    result.refuse_unknown(os.fspath(path))
    return result


def not_whole(counters: Mapping[str, int], open_now: int) -> dict[str, int]:
    """The counters that say which exchanges are not reported, and why. `evicted`, which has none, are requests that began, did not end and are not
    among those `open_now`."""
    found = {name: count for name, count in counters.items() if count and _NOT_WHOLE.fullmatch(name)}
    sources = [name.removesuffix("_opened") for name in counters if name.endswith("_opened")]
    begun = sum(counters[f"{source}_opened"] for source in sources)
    ended = sum(counters.get(f"{source}_{end}", 0) for source in sources for end in _ENDS)
    evicted = begun - ended - open_now
    return {**found, "evicted": evicted} if evicted > 0 else found


class _Feed:
    """Frames in, batches out; drains before a ring can be full."""

    def __init__(self, programs: Programs, emit: Emit, result: Replayed) -> None:
        self._programs = programs
        self._emit = emit
        self._result = result
        self._fed_bytes = 0
        self._fed_frames = 0

    def take(self, captured: pcap.Captured) -> None:
        result = self._result
        result.frames += 1
        result.truncated += len(captured.data) < captured.length
        packet = network_packet(captured.link_type, captured.data)
        if packet is None:
            result.unknown[captured.link_type] += 1
            return
        ethertype, data = packet
        result.not_ip += ethertype not in (_IPV4, _IPV6)
        pieces = 0
        for piece in segments(ethertype, data, len(data) + captured.length - len(captured.data)):
            self._run(ethertype, piece, captured.time_unix_ns)
            pieces += 1
        result.split += pieces > 1

    def _run(self, ethertype: int, packet: bytes, time_unix_ns: int) -> None:
        frame = bytes(12) + ethertype.to_bytes(2) + packet.ljust(_SMALLEST_NETWORK_BYTES, b"\0")
        self._programs.test_run(frame, time_ns=max(time_unix_ns, 1))  # 0 would mean the clock of now
        self._fed_bytes += len(frame)
        self._fed_frames += 1
        if self._fed_bytes >= DRAIN_BYTES or self._fed_frames >= DRAIN_FRAMES:
            self.drain()

    def drain(self) -> None:
        self._fed_bytes = self._fed_frames = 0
        for source, transport in self._programs.transports.items():
            batch = transport.drain()
            if len(batch):
                self._result.records += len(batch)
                self._emit(source, batch)


def network_packet(link_type: int, data: bytes) -> tuple[int, bytes] | None:
    """Ethertype (0: unclear) and network packet of a captured frame, VLAN tags taken off; None for a link type that is not known."""
    layout = _LINKS.get(link_type)
    return layout(data) if layout else None


def _untagged(ethertype: int, data: bytes, at: int) -> tuple[int, bytes]:
    while ethertype in _VLAN and len(data) >= at + 4:
        ethertype = int.from_bytes(data[at + 2 : at + 4])
        at += 4
    return ethertype, data[at:]


def _ethernet(data: bytes) -> tuple[int, bytes]:
    return _untagged(int.from_bytes(data[12:14]), data, 14) if len(data) >= 14 else (0, b"")


def _cooked(data: bytes) -> tuple[int, bytes]:
    return _untagged(int.from_bytes(data[14:16]), data, 16) if len(data) >= 16 else (0, b"")


def _cooked_v2(data: bytes) -> tuple[int, bytes]:
    return _untagged(int.from_bytes(data[0:2]), data, 20) if len(data) >= 20 else (0, b"")


def _raw(data: bytes) -> tuple[int, bytes]:
    return {4: _IPV4, 6: _IPV6}.get(data[0] >> 4, 0) if data else 0, data


def _loopback(data: bytes) -> tuple[int, bytes]:
    if len(data) < 4:
        return 0, b""
    # Link type 0 has the byte order of the machine that captured, 108 the network's; families are small, so only one order can be meant.
    family = min(int.from_bytes(data[:4], "big"), int.from_bytes(data[:4], "little"))
    return _FAMILIES.get(family, 0), data[4:]


_LINKS: Mapping[int, Callable[[bytes], tuple[int, bytes]]] = {
    0: _loopback,
    1: _ethernet,
    12: _raw,
    14: _raw,
    101: _raw,
    108: _loopback,
    113: _cooked,
    228: lambda data: (_IPV4, data),
    229: lambda data: (_IPV6, data),
    276: _cooked_v2,
}
"""Layouts of www.tcpdump.org/linktypes.html; 12 and 14 are raw IP under the numbers that some systems wrote."""


class _Tcp(NamedTuple):
    """Where a TCP segment lies in its packet: offsets of its header and payload, and the packet's length on the wire."""

    header: int
    payload: int
    length: int


def segments(ethertype: int, packet: bytes, wire_bytes: int) -> Iterator[bytes]:
    """The packets, each short enough for a test run, that stand for one captured packet of `wire_bytes` on the wire.

    One that fits goes as it is. A longer TCP segment, or one whose IP length says 0 (BIG TCP, or captured before the card cut it),
    becomes consecutive segments of the same bytes; the last ones claim what was not captured. Anything else is cut: of it the kernel
    reads only the headers.
    """
    stated = packet[2:4] if ethertype == _IPV4 else packet[4:6]
    if len(packet) <= NETWORK_BYTES and stated != b"\0\0":
        yield packet
        return
    tcp = _find_tcp(ethertype, packet, wire_bytes)
    if tcp is None:
        yield packet[:NETWORK_BYTES]
    else:
        yield from _split(ethertype, packet, tcp)


def _find_tcp(ethertype: int, packet: bytes, wire_bytes: int) -> _Tcp | None:
    """None where it is no TCP segment, a fragment, or its headers are not whole."""
    if ethertype == _IPV4 and len(packet) >= 20:
        at = (packet[0] & 15) * 4
        next_header = packet[9] if at >= 20 and not int.from_bytes(packet[6:8]) & 0x3FFF else None
        length = int.from_bytes(packet[2:4]) or wire_bytes
    elif ethertype == _IPV6 and len(packet) >= 40:
        at, next_header = _skip_extensions(packet)
        payload_bytes = int.from_bytes(packet[4:6])
        length = 40 + payload_bytes if payload_bytes else wire_bytes
    else:
        return None
    if next_header != 6 or len(packet) < at + 20:
        return None
    payload = at + (packet[at + 12] >> 4) * 4
    if payload < at + 20 or payload > min(len(packet), length, NETWORK_BYTES - 1) or length > _BIG_TCP_BYTES:
        return None
    return _Tcp(at, payload, length)


def _skip_extensions(packet: bytes) -> tuple[int, int | None]:
    """Offset and number of the first header that is no IPv6 extension header; None for a fragment."""
    at, next_header = 40, packet[6]
    while next_header in (0, 43, 51, 60) and len(packet) >= at + 8:
        size = (packet[at + 1] + 2) * 4 if next_header == 51 else (packet[at + 1] + 1) * 8
        at, next_header = at + size, packet[at]
    return at, next_header


def _split(ethertype: int, packet: bytes, tcp: _Tcp) -> Iterator[bytes]:
    header = bytearray(packet[: tcp.payload])
    length_at, uncounted = (2, 0) if ethertype == _IPV4 else (4, 40)
    if ethertype == _IPV6:
        _forget_jumbo(header)
    room = NETWORK_BYTES - tcp.payload
    most = _LENGTH_MAX - (tcp.payload - uncounted)
    captured_end = min(len(packet), tcp.length)
    flags = packet[tcp.header + 13]
    first_seq = int.from_bytes(packet[tcp.header + 4 : tcp.header + 8])
    at = tcp.payload
    while True:
        kept = packet[at : min(at + room, captured_end)]
        size = room if at + room < captured_end else min(tcp.length - at, most)
        first, last = at == tcp.payload, at + size >= tcp.length
        after_syn = 0 if first else (flags & _SYN) >> 1
        header[tcp.header + 4 : tcp.header + 8] = (first_seq + at - tcp.payload + after_syn & 0xFFFFFFFF).to_bytes(4)
        header[tcp.header + 13] = flags & ~(0 if first else _SYN) & ~(0 if last else _FIN | _RST | _PSH)
        header[length_at : length_at + 2] = (tcp.payload - uncounted + size).to_bytes(2)
        yield bytes(header) + kept
        if last:
            return
        at += size


def _forget_jumbo(header: bytearray) -> None:
    """Turns a leading jumbo payload option (RFC 2675: type 0xC2, 4 bytes) into padding: the pieces state their lengths themselves."""
    if header[6] == 0 and header[42:44] == b"\xc2\x04":
        header[42:48] = b"\x01\x04\0\0\0\0"
