"""Reading pcapng files: every block that holds a packet, sections, interfaces with their clocks, and what is broken."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from otel_ebpf_receiver.errors import CaptureError
from otel_ebpf_receiver.kernel.pcap import MAX_BLOCK_BYTES, Captured, read
from tests.replay.capture_files import Kept, Ng

LITTLE, BIG = Ng("<"), Ng(">")
NOW = 1_700_000_000_123_456_000
PACKET = Kept(NOW, b"seven b", 1514)
CAPTURED = Captured(1, NOW, 0, b"seven b", 1514)


def read_all(path: Path, content: bytes) -> tuple[list[Captured], str]:
    """All packets of a file with this content, and why there were no more ("" if it ended well)."""
    path.write_bytes(content)
    got = []
    try:
        for packet in read(path):
            got.append(packet)
    except CaptureError as error:
        return got, str(error)
    return got, ""


@pytest.mark.parametrize("ng", [LITTLE, BIG], ids=["little", "big"])
def test_enhanced_and_obsolete_packets_are_read(tmp_path: Path, ng: Ng) -> None:
    """Both packet blocks with a time of their own give the same packet in either byte order."""
    content = ng.section() + ng.interface() + ng.enhanced(PACKET, options=ng.option(1, b"a comment")) + ng.obsolete(PACKET)

    got = read_all(tmp_path / "a.pcapng", content)

    assert got == ([CAPTURED, CAPTURED], "")


@pytest.mark.parametrize("ng", [LITTLE, BIG], ids=["little", "big"])
def test_simple_packet_takes_the_time_of_the_packet_before(tmp_path: Path, ng: Ng) -> None:
    """A simple packet belongs to interface 0 and has no time, so it keeps its place in the order."""
    content = ng.section() + ng.interface() + ng.enhanced(PACKET) + ng.simple(Kept(0, b"simple!!"))

    got = read_all(tmp_path / "a.pcapng", content)

    assert got == ([CAPTURED, Captured(1, NOW, 0, b"simple!!", 8)], "")


def test_simple_packet_is_cut_by_the_snap_length_of_its_interface(tmp_path: Path) -> None:
    """What fills the block up to a multiple of four is no packet data."""
    content = LITTLE.section() + LITTLE.interface(snap_bytes=5) + LITTLE.simple(Kept(0, b"12345", 90))

    got = read_all(tmp_path / "a.pcapng", content)

    assert got == ([Captured(1, 0, 0, b"12345", 90)], "")


def test_every_section_has_its_own_byte_order_and_interfaces(tmp_path: Path) -> None:
    """After a section header numbers of interfaces begin afresh, in the byte order that it says."""
    first = LITTLE.section() + LITTLE.interface(113) + LITTLE.interface(276) + LITTLE.enhanced(PACKET, interface=1)
    second = BIG.section(length=0) + BIG.interface(101) + BIG.enhanced(PACKET)
    third = LITTLE.section() + LITTLE.interface(1) + LITTLE.enhanced(PACKET)
    content = first + second + third

    got, error = read_all(tmp_path / "a.pcapng", content)

    assert [(p.link_type, p.interface) for p in got] == [(276, 1), (101, 0), (1, 0)]
    assert error == ""


@pytest.mark.parametrize(
    ("resolution", "offset_s", "ticks", "expected_ns"),
    [
        (b"", None, 1_700_000_000_000_001, 1_700_000_000_000_001_000),
        (b"\x09", None, 1_700_000_000_000_000_001, 1_700_000_000_000_000_001),
        (b"\x03", None, 1_700_000_000_001, 1_700_000_000_001_000_000),
        (b"\x00", None, 1_700_000_000, 1_700_000_000_000_000_000),
        (b"\x0c", None, 1_700_000_000_000_001_999, 1_700_000_000_000_001),
        (b"\x8a", None, 1_700_000_000 << 10 | 512, 1_700_000_000_500_000_000),
        (b"\x06", 1_600_000_000, 7, 1_600_000_000_000_007_000),
        (b"\x06", -10, 20_000_000, 10_000_000_000),
    ],
)
def test_clock_of_an_interface_is_understood(tmp_path: Path, resolution: bytes, offset_s: int | None, ticks: int, expected_ns: int) -> None:
    """Resolution by powers of ten and of two, and the offset, make nanoseconds since 1970."""
    options = LITTLE.option(2, b"eth0")
    options += LITTLE.option(9, resolution) if resolution else b""
    options += LITTLE.option(14, struct.pack("<q", offset_s)) if offset_s is not None else b""
    options += LITTLE.option(0, b"")
    content = LITTLE.section() + LITTLE.interface(options=options) + LITTLE.enhanced(PACKET, ticks=ticks)

    got, error = read_all(tmp_path / "a.pcapng", content)

    assert [p.time_unix_ns for p in got] == [expected_ns]
    assert error == ""


def test_blocks_that_hold_no_packet_are_skipped(tmp_path: Path) -> None:
    """Names, statistics, secrets, custom and never seen blocks change nothing."""
    others = b"".join(LITTLE.block(kind, b"whatever is in it") for kind in (4, 5, 9, 10, 0xBAD, 0x40000BAD, 0x77777777))
    content = LITTLE.section() + others + LITTLE.interface() + others + LITTLE.enhanced(PACKET) + others

    got = read_all(tmp_path / "a.pcapng", content)

    assert got == ([CAPTURED], "")


def test_file_cut_at_every_byte_gives_what_is_whole(tmp_path: Path) -> None:
    """Wherever the file ends, all packets that are whole come first; only a cut between two blocks is a clean end."""
    described = LITTLE.interface(options=LITTLE.option(9, b"\x06"))
    blocks = [LITTLE.section(), described, LITTLE.enhanced(PACKET), LITTLE.block(5, b"statistics")]
    blocks += [LITTLE.simple(PACKET), BIG.section(), BIG.interface(), BIG.obsolete(PACKET), BIG.enhanced(PACKET)]
    whole = b"".join(blocks)
    ends = [len(b"".join(blocks[: n + 1])) for n in range(len(blocks))]
    packet_ends = [end for end, n in zip(ends, range(len(blocks)), strict=True) if n in (2, 4, 7, 8)]
    path = tmp_path / "a.pcapng"
    everything, _ = read_all(path, whole)

    for size in range(len(whole)):
        got, error = read_all(path, whole[:size])

        assert got == everything[: sum(end <= size for end in packet_ends)]
        assert (error == "") == (size in ends)


def test_every_byte_changed_never_crashes(tmp_path: Path) -> None:
    """Whatever byte is wrong, the reader ends well or with its own error, never with another."""
    whole = LITTLE.section() + LITTLE.interface(options=LITTLE.option(9, b"\x06")) + LITTLE.enhanced(PACKET) + LITTLE.simple(PACKET)
    path = tmp_path / "a.pcapng"

    outcomes = set()
    for at in range(len(whole)):
        for value in (0, 0x7F, 0xFF):
            got, error = read_all(path, whole[:at] + bytes([value]) + whole[at + 1 :])
            outcomes.add((len(got), error == ""))

    assert {(2, True), (0, False), (1, False)} <= outcomes


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (BIG.enhanced(PACKET), f"a block of 671088640 bytes, expected a multiple of 4 from 12 to {MAX_BLOCK_BYTES}"),
        (struct.pack("<III", 6, 0, 0), "a block of 0 bytes"),
        (struct.pack("<III", 6, 8, 8), "a block of 8 bytes"),
        (struct.pack("<III", 6, 14, 0) + b"12", "a block of 14 bytes"),
        (struct.pack("<III", 5, MAX_BLOCK_BYTES + 4, 0), f"a block of {MAX_BLOCK_BYTES + 4} bytes"),
        (struct.pack("<III", 5, 12, 16), "a block of 12 bytes whose end says 16"),
        (LITTLE.block(6, b"short"), "a block of type 6 with a body of 8 bytes"),
        (LITTLE.enhanced(PACKET, interface=3), "a packet of interface 3, of which the section says nothing"),
        (LITTLE.block(6, struct.pack("<IIIII", 0, 0, 0, 99, 99) + b"few"), "a packet of 99 bytes in a block that holds 4"),
        (LITTLE.enhanced(PACKET, ticks=(1 << 64) - 1), "which cannot be"),
        (LITTLE.interface(options=struct.pack("<HH", 9, 500)), "option 9 runs over the end of its interface description"),
        (LITTLE.block(0x0A0D0D0A, b"\x1a\x2b\x3c\x4e" + bytes(12)), "a section of byte order 1a 2b 3c 4e"),
        (LITTLE.block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 2, 0, -1)), "pcapng version 2.0"),
    ],
)
def test_broken_block_is_refused_after_what_is_good(tmp_path: Path, tail: bytes, reason: str) -> None:
    """Each contradiction is named, and the packet before it is not lost."""
    head = LITTLE.section() + LITTLE.interface() + LITTLE.enhanced(PACKET)

    got, error = read_all(tmp_path / "a.pcapng", head + tail)

    assert got == [CAPTURED]
    assert reason in error
    assert f"is broken at byte {len(head)}: " in error
