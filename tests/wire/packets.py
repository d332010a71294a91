"""Frames as bytes: an Ethernet header, VLAN tags, IPv4 or IPv6 with all that may stand in front of TCP, and TCP itself.

Checksums are zero: the kernel programs watch and never check them. What is built here is wrong only where an argument says so.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6, ETHERTYPE_8021Q, ETHERTYPE_8021AD = 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8
HOP_BY_HOP, TCP, UDP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS = 0, 6, 17, 43, 44, 51, 60
FRAME_MAX = 3712
"""Bytes of a frame that a test run takes: a page less headroom."""
TIMESTAMPS = bytes((1, 1, 8, 10)) + bytes(8)
"""TCP option that most segments carry: two fillers and the timestamps."""


def mapped(address: str) -> bytes:
    """The address as 16 bytes, IPv4 as v4-mapped IPv6."""
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


def ethernet(network: bytes, ethertype: int, *, tags: Sequence[tuple[int, int]] = ()) -> bytes:
    """A frame; `tags` are (ethertype, VLAN) pairs from the outside in."""
    types = [tag for tag, _ in tags] + [ethertype]
    inner = b"".join(struct.pack("!HH", vlan, types[i + 1]) for i, (_, vlan) in enumerate(tags))
    return bytes(12) + struct.pack("!H", types[0]) + inner + network


def tcp(source_port: int, destination_port: int, seq: int, ack: int, flags: int, payload: bytes = b"", *, options: bytes = b"") -> bytes:
    """A TCP segment; options are filled up to a multiple of four bytes."""
    options += bytes(-len(options) % 4)
    offset = (20 + len(options)) // 4
    return (
        struct.pack("!HHIIBBHHH", source_port, destination_port, seq % 2**32, ack % 2**32, offset << 4, flags, 1000, 0, 0)
        + options
        + payload
    )


def udp(source_port: int, destination_port: int, payload: bytes) -> bytes:
    """A UDP datagram."""
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


def ipv4(
    source: str,
    destination: str,
    payload: bytes,
    *,
    protocol: int = TCP,
    options: bytes = b"",
    fragment: int = 0,
    more_fragments: bool = False,
    total_length: int | None = None,
) -> bytes:
    """An IPv4 packet; `fragment` is its offset in units of eight bytes, `total_length` overrides the length that its header claims."""
    options += bytes(-len(options) % 4)
    words = 5 + len(options) // 4
    total = 20 + len(options) + len(payload) if total_length is None else total_length
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, total, 0, fragment | more_fragments << 13, 64, protocol, 0)
    return head + ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed + options + payload


def ipv6(
    source: str,
    destination: str,
    payload: bytes,
    *,
    protocol: int = TCP,
    extensions: Sequence[tuple[int, bytes]] = (),
    payload_length: int | None = None,
) -> bytes:
    """An IPv6 packet; `extensions` are (type, header without its first byte) pairs in order, the first byte is filled with what follows."""
    kinds = [kind for kind, _ in extensions] + [protocol]
    chain = b"".join(bytes((kinds[i + 1],)) + rest for i, (_, rest) in enumerate(extensions))
    size = len(chain) + len(payload) if payload_length is None else payload_length
    head = struct.pack("!IHBB", 6 << 28, size, kinds[0], 64)
    return head + ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed + chain + payload


def extension(kind: int, size: int = 8, *, offset: int = 0, more: bool = False) -> tuple[int, bytes]:
    """An IPv6 extension header of `size` bytes (a multiple of eight, of four for AH) for `ipv6`; `offset` and `more` are a fragment's."""
    if kind == FRAGMENT:
        return kind, struct.pack("!BHI", 0, offset << 3 | more, 7)
    units = size // 4 - 2 if kind == AUTHENTICATION else size // 8 - 1
    return kind, bytes((units,)) + bytes(size - 2)


def network(source: str, destination: str, payload: bytes, *, protocol: int = TCP) -> tuple[bytes, int]:
    """A plain packet of the addresses' IP version, and its ethertype."""
    if ":" in source:
        return ipv6(source, destination, payload, protocol=protocol), ETHERTYPE_IPV6
    return ipv4(source, destination, payload, protocol=protocol), ETHERTYPE_IPV4
