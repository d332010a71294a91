"""Reads capture files, pcap and pcapng, as a stream of packets: what was captured, when, and on which kind of link.

It looks into no packet, holds one block at a time and believes no length beyond `MAX_BLOCK_BYTES`, so any file is read in bounded memory.
Formats: the IETF drafts opsawg-pcap and opsawg-pcapng; what they leave open is done as libpcap does it.
Files packed by gzip are read as they are.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple, cast

from otel_ebpf_receiver.errors import CaptureError

MAX_BLOCK_BYTES = 16 << 20
"""A packet or block that claims more is a broken file: Wireshark's limit for blocks, 64 times libpcap's for packets."""

_BUFFER_BYTES = 256 << 10
_GZIP = b"\x1f\x8b"
_SECTION = b"\x0a\x0d\x0d\x0a"
_PCAP_MAGIC = {0xA1B2C3D4: (1000, 16), 0xA1B23C4D: (1, 16), 0xA1B2CD34: (1000, 24)}
"""Magic number → nanoseconds in a unit of the fraction, bytes of a packet's header; the last is Kuznetzov's."""
_INTERFACE, _PACKET, _SIMPLE, _ENHANCED = 1, 2, 3, 6
_FIXED_BYTES = {_INTERFACE: 8, _PACKET: 20, _SIMPLE: 4, _ENHANCED: 20}
_TSRESOL, _TSOFFSET = 9, 14


class Captured(NamedTuple):
    """One packet of a capture file; `length` is its length on the wire, `data` the bytes that were kept of it."""

    link_type: int
    time_unix_ns: int
    interface: int
    data: bytes
    length: int


def require(path: str | os.PathLike[str]) -> None:
    """Raises CaptureError where there is nothing of that name; opens nothing, for of a pipe that would take the beginning."""
    with _told(os.fspath(path)):
        os.stat(path)


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CaptureError(f"capture file {name!r} cannot be opened: {error.strerror}") from error


def read(path: str | os.PathLike[str]) -> Iterator[Captured]:
    """Yields the packets of the file in its order.

    Raises CaptureError where it cannot be read further, after everything before that was yielded.
    """
    name = os.fspath(path)
    with _told(name):
        file = io.BufferedReader(io.FileIO(name), _BUFFER_BYTES)
    with file:
        stream = _Stream(file, name)
        stream.unpack()
        magic = stream.take(4, "magic number", start=0)
        yield from _read_pcapng(stream) if magic == _SECTION else _read_pcap(stream, magic)


class _Stream:
    """Exact reads that know where in the (unpacked) file they are, so that an error can say it."""

    def __init__(self, file: io.BufferedReader[io.FileIO], name: str) -> None:
        self._file = file
        self._name = name
        self._unit = "byte"
        self.offset = 0

    def unpack(self) -> None:
        """Reads through gzip from here on if that is what the file is."""
        try:
            packed = self._file.peek(2)[:2] == _GZIP
        except OSError as error:  # a folder, for one
            raise CaptureError(f"capture file {self._name!r} cannot be read: {error.strerror}") from error
        if packed:
            self._file = cast("io.BufferedReader[io.FileIO]", gzip.GzipFile(fileobj=self._file))
            self._unit = "unpacked byte"

    def _read(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise self.broken(str(error), self.offset) from error
        self.offset += len(data)
        return data

    def next(self, size: int, what: str) -> bytes:
        """The next `size` bytes, or none at the file's clean end."""
        start = self.offset
        data = self._read(size)
        if data and len(data) < size:
            raise self._cut(what, start, len(data), size)
        return data

    def take(self, size: int, what: str, *, start: int) -> bytes:
        """The next `size` bytes, which must be there; `start` is where the thing that they belong to begins."""
        data = self._read(size)
        if len(data) < size:
            raise self._cut(what, start, len(data), size)
        return data

    def _cut(self, what: str, start: int, there: int, size: int) -> CaptureError:
        return self.broken(f"the file ends inside a {what}: {there} of {size} bytes are there", start)

    def broken(self, reason: str, start: int) -> CaptureError:
        return CaptureError(f"capture file {self._name!r} is broken at {self._unit} {start}: {reason}; only what is before it was read")


def _read_pcap(stream: _Stream, magic: bytes) -> Iterator[Captured]:
    order = next((o for o in "<>" if struct.unpack(f"{o}I", magic)[0] in _PCAP_MAGIC), None)
    if order is None:
        raise stream.broken(f"neither pcap nor pcapng begins with {magic.hex(' ')}", 0)
    unit_ns, header_bytes = _PCAP_MAGIC[struct.unpack(f"{order}I", magic)[0]]
    major, minor, link = struct.unpack(f"{order}HH12xI", stream.take(20, "file header", start=0))
    if major != 2:
        raise stream.broken(f"pcap version {major}.{minor} is not known, expected 2.x", 0)
    link_type = link & 0xFFFF  # above it: length of the frame check sequence
    fields = struct.Struct(f"{order}IIII")
    while True:
        start = stream.offset
        header = stream.next(header_bytes, "packet header")
        if not header:
            return
        seconds, fraction, captured, length = fields.unpack_from(header)
        if captured > MAX_BLOCK_BYTES:
            raise stream.broken(f"a packet of {captured} bytes, more than {MAX_BLOCK_BYTES}", start)
        data = stream.take(captured, "packet", start=start)
        yield Captured(link_type, seconds * 1_000_000_000 + fraction * unit_ns, 0, data, max(length, captured))


class _Interface(NamedTuple):
    """What a pcapng file says of one interface: nanoseconds are ticks * multiply // divide + offset_ns."""

    link_type: int
    snap_bytes: int
    multiply: int
    divide: int
    offset_ns: int


class _Section:
    """One section of a pcapng file: its byte order, its interfaces and the time of the packet before."""

    def __init__(self, stream: _Stream, order: str) -> None:
        self._stream = stream
        self._order = order
        self._interfaces: list[_Interface] = []
        self._last_unix_ns = 0

    def unpack(self, fields: str, data: bytes, at: int = 0) -> tuple[int, ...]:
        return struct.unpack_from(self._order + fields, data, at)

    def packet(self, kind: int, body: bytes, start: int) -> Captured | None:
        """The packet that a block holds; None for every block without one. `start` is the block's place, for errors."""
        if kind not in _FIXED_BYTES:
            return None
        if len(body) < _FIXED_BYTES[kind]:
            raise self._stream.broken(f"a block of type {kind} with a body of {len(body)} bytes", start)
        if kind == _INTERFACE:
            self._interfaces.append(self._describe(body, start))
            return None
        if kind == _SIMPLE:
            interface = self._interface(0, start)
            (length,) = self.unpack("I", body)
            captured = min(length, len(body) - 4, interface.snap_bytes or length)
            return Captured(interface.link_type, self._last_unix_ns, 0, body[4 : 4 + captured], length)
        number, high, low, captured, length = self.unpack("IIIII" if kind == _ENHANCED else "H2xIIII", body)
        interface = self._interface(number, start)
        if captured > len(body) - 20:
            raise self._stream.broken(f"a packet of {captured} bytes in a block that holds {len(body) - 20}", start)
        self._last_unix_ns = self._time(interface, high << 32 | low, start)
        return Captured(interface.link_type, self._last_unix_ns, number, body[20 : 20 + captured], max(length, captured))

    def _interface(self, number: int, start: int) -> _Interface:
        if number >= len(self._interfaces):
            raise self._stream.broken(f"a packet of interface {number}, of which the section says nothing", start)
        return self._interfaces[number]

    def _time(self, interface: _Interface, ticks: int, start: int) -> int:
        unix_ns = ticks * interface.multiply // interface.divide + interface.offset_ns
        if not 0 <= unix_ns < 1 << 63:
            raise self._stream.broken(f"a packet at {unix_ns // 1_000_000_000} s since 1970, which cannot be", start)
        return unix_ns

    def _describe(self, body: bytes, start: int) -> _Interface:
        link_type, snap_bytes = self.unpack("H2xI", body)
        multiply, divide, offset_ns = 1000, 1, 0
        at = 8
        while at + 4 <= len(body):
            code, size = self.unpack("HH", body, at)
            at += 4
            if code == 0:
                break
            if at + size > len(body):
                raise self._stream.broken(f"option {code} runs over the end of its interface description", start)
            if code == _TSRESOL and size == 1:
                multiply, divide = 1_000_000_000, 1 << (body[at] & 127) if body[at] & 128 else 10 ** body[at]
            elif code == _TSOFFSET and size == 8:
                offset_ns = self.unpack("q", body, at)[0] * 1_000_000_000
            at += size + -size % 4
        return _Interface(link_type, snap_bytes, multiply, divide, offset_ns)


def _read_pcapng(stream: _Stream) -> Iterator[Captured]:
    start, kind_bytes = 0, _SECTION
    section = _Section(stream, "<")
    while kind_bytes:
        if kind_bytes == _SECTION:  # the same in both byte orders
            section = _open_section(stream, start)
        else:
            (kind,) = section.unpack("I", kind_bytes)
            (length,) = section.unpack("I", stream.take(4, "block header", start=start))
            packet = section.packet(kind, _body(stream, section, length, start=start), start)
            if packet is not None:
                yield packet
        start = stream.offset
        kind_bytes = stream.next(4, "block header")


def _open_section(stream: _Stream, start: int) -> _Section:
    length_and_magic = stream.take(8, "section header", start=start)
    order = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}.get(length_and_magic[4:])
    if order is None:
        raise stream.broken(f"a section of byte order {length_and_magic[4:].hex(' ')}", start)
    section = _Section(stream, order)
    body = _body(stream, section, section.unpack("I", length_and_magic)[0], start=start)
    if len(body) < 12:
        raise stream.broken(f"a section header with a body of {len(body) + 4} bytes", start)
    major, minor = section.unpack("HH", body)
    if major != 1:
        raise stream.broken(f"pcapng version {major}.{minor} is not known, expected 1.x", start)
    return section


def _body(stream: _Stream, section: _Section, length: int, *, start: int) -> bytes:
    """The rest of a block of `length` bytes that begins at `start`, without the length that stands again at its end."""
    done = stream.offset - start
    if length < done + 4 or length % 4 or length > MAX_BLOCK_BYTES:
        raise stream.broken(f"a block of {length} bytes, expected a multiple of 4 from 12 to {MAX_BLOCK_BYTES}", start)
    rest = stream.take(length - done, "block", start=start)
    (again,) = section.unpack("I", rest, len(rest) - 4)
    if again != length:
        raise stream.broken(f"a block of {length} bytes whose end says {again}", start)
    return rest[:-4]
