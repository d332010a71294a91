"""From what a link type says to ethertype and network packet."""

from __future__ import annotations

import struct

import pytest

from otel_ebpf_receiver.kernel.replay import network_packet

V4 = b"\x45 an IPv4 packet"
V6 = b"\x60 an IPv6 packet"
ARP = b"an ARP packet"
MACS = b"\x02\0\0\0\0\1\x02\0\0\0\0\2"


def cooked(protocol: int, packet: bytes) -> bytes:
    """A Linux cooked frame, version 1."""
    return struct.pack("!HHH8sH", 4, 1, 6, b"\x02\0\0\0\0\1\0\0", protocol) + packet


def cooked_v2(protocol: int, packet: bytes) -> bytes:
    """A Linux cooked frame, version 2."""
    return struct.pack("!HHIHBB8s", protocol, 0, 7, 1, 4, 6, b"\x02\0\0\0\0\1\0\0") + packet


@pytest.mark.parametrize(
    ("link_type", "frame", "expected"),
    [
        (1, MACS + b"\x08\x00" + V4, (0x0800, V4)),
        (1, MACS + b"\x86\xdd" + V6, (0x86DD, V6)),
        (1, MACS + b"\x08\x06" + ARP, (0x0806, ARP)),
        (1, MACS + b"\x81\x00\x00\x2a\x08\x00" + V4, (0x0800, V4)),
        (1, MACS + b"\x88\xa8\x00\x07\x81\x00\x00\x2a\x86\xdd" + V6, (0x86DD, V6)),
        (1, MACS + b"\x91\x00\x00\x07\x81\x00\x00\x2a\x81\x00\x00\x01\x08\x00" + V4, (0x0800, V4)),
        (1, MACS + b"\x81\x00\x00", (0x8100, b"\x00")),
        (1, MACS + b"\x00\x26BPDU", (0x0026, b"BPDU")),
        (1, MACS[:9], (0, b"")),
        (12, V4, (0x0800, V4)),
        (14, V6, (0x86DD, V6)),
        (101, V4, (0x0800, V4)),
        (101, V6, (0x86DD, V6)),
        (101, b"\x00what", (0, b"\x00what")),
        (101, b"", (0, b"")),
        (228, V4, (0x0800, V4)),
        (229, V6, (0x86DD, V6)),
        (113, cooked(0x0800, V4), (0x0800, V4)),
        (113, cooked(0x86DD, V6), (0x86DD, V6)),
        (113, cooked(0x8100, b"\x00\x2a\x08\x00" + V4), (0x0800, V4)),
        (113, cooked(0x0800, b"")[:15], (0, b"")),
        (276, cooked_v2(0x0800, V4), (0x0800, V4)),
        (276, cooked_v2(0x8100, b"\x00\x2a\x86\xdd" + V6), (0x86DD, V6)),
        (276, cooked_v2(0x0806, ARP), (0x0806, ARP)),
        (276, cooked_v2(0x0800, b"")[:19], (0, b"")),
        (0, struct.pack("<I", 2) + V4, (0x0800, V4)),
        (0, struct.pack(">I", 2) + V4, (0x0800, V4)),
        (0, struct.pack("<I", 10) + V6, (0x86DD, V6)),
        (0, struct.pack("<I", 30) + V6, (0x86DD, V6)),
        (108, struct.pack(">I", 24) + V6, (0x86DD, V6)),
        (108, struct.pack("<I", 28) + V6, (0x86DD, V6)),
        (108, struct.pack(">I", 7) + V6, (0, V6)),
        (0, b"\x02", (0, b"")),
        (127, b"\x00\x00radiotap", None),
        (147, V4, None),
    ],
)
def test_link_layer_comes_off(link_type: int, frame: bytes, expected: tuple[int, bytes] | None) -> None:
    """Each known link type gives ethertype and packet without VLAN tags, ethertype 0 where it is not clear; unknown types give None."""
    got = network_packet(link_type, frame)

    assert got == expected
