"""Frames longer than a test run takes: the pieces must be the same stream, and claim what the capture did not keep."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

import pytest

from otel_ebpf_receiver.kernel.replay import NETWORK_BYTES, segments
from tests.replay.reassembly import Reassembly, Stream
from tests.wire.packets import (
    ACK,
    DESTINATION_OPTIONS,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    FIN,
    HOP_BY_HOP,
    PSH,
    ROUTING,
    RST,
    SYN,
    TIMESTAMPS,
    UDP,
    extension,
    ipv4,
    ipv6,
    tcp,
)

V4 = ("10.0.0.1", "10.0.0.2")
V6 = ("fd00::1", "fd00::2")
JUMBO = (HOP_BY_HOP, b"\x00\xc2\x04" + struct.pack("!I", 123))


def stream_of(ethertype: int, packet: bytes, wire_bytes: int | None = None) -> Stream:
    """The one stream that the pieces of the packet make."""
    programs = Reassembly()
    for piece in segments(ethertype, packet, len(packet) if wire_bytes is None else wire_bytes):
        programs.test_run(bytes(12) + ethertype.to_bytes(2) + piece, time_ns=1)
    (stream,) = programs.complete().values()
    assert not stream.repeated
    return stream


def payload(size: int) -> bytes:
    """Bytes of which no two places are alike."""
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, 1448, NETWORK_BYTES - 52, NETWORK_BYTES - 51, 7292, 7293, 50_000, 65_535 - 52])
@pytest.mark.parametrize("flags", [ACK, ACK | PSH, ACK | PSH | FIN, ACK | RST, SYN, SYN | FIN])
def test_pieces_of_ipv4_are_the_same_stream(size: int, flags: int) -> None:
    """Every size around the limit and every flag: bytes, sequence numbers and flags say the same as the whole frame."""
    data = payload(size)
    packet = ipv4(*V4, tcp(1000, 80, 0xFFFF_F000, 7, flags, data, options=TIMESTAMPS))

    stream = stream_of(ETHERTYPE_IPV4, packet)

    assert stream.text() == data
    assert stream.next_seq == (0xFFFF_F000 + size + bool(flags & SYN) + bool(flags & FIN)) % 2**32
    assert [flag for flag in stream.flags[:-1] if set(flag) & set("FRP")] == []
    assert [flag for flag in stream.flags[1:] if "S" in flag] == []
    assert set(stream.flags[0] + stream.flags[-1]) == {name for bit, name in enumerate("FSRPA") if flags & 1 << bit}
    assert len(stream.flags) == max(1, -(-size // (NETWORK_BYTES - 52)))


@pytest.mark.parametrize(
    "extensions",
    [[], [extension(HOP_BY_HOP)], [extension(HOP_BY_HOP, 24), extension(ROUTING, 24), extension(DESTINATION_OPTIONS, 8)]],
)
def test_pieces_of_ipv6_keep_their_extension_headers(extensions: Sequence[tuple[int, bytes]]) -> None:
    """All that stands in front of TCP stands in front of each piece, and the payload length is that of the piece."""
    data = payload(20_000)
    packet = ipv6(*V6, tcp(1000, 80, 1, 7, ACK | PSH, data, options=TIMESTAMPS), extensions=extensions)

    stream = stream_of(ETHERTYPE_IPV6, packet)

    front = len(packet) - len(data)
    assert stream.text() == data
    assert {head[6 : front - 32] for head in stream.heads} == {packet[6 : front - 32]}
    assert {head[front - 12 :] for head in stream.heads} == {TIMESTAMPS}


def test_ipv4_options_stand_in_each_piece() -> None:
    """IPv4 options shift the TCP header, in each piece by the same."""
    data = payload(10_000)
    packet = ipv4(*V4, tcp(1000, 80, 1, 7, ACK, data), options=b"\x94\x04\x00\x00" + bytes(20))

    stream = stream_of(ETHERTYPE_IPV4, packet)

    assert stream.text() == data
    assert [head[20:44] for head in stream.heads] == [packet[20:44]] * 3


def test_frame_padding_is_no_payload() -> None:
    """Bytes behind the end that the IP length says belong to no stream."""
    data = payload(5000)
    packet = ipv4(*V4, tcp(1000, 80, 1, 7, ACK | PSH, data)) + bytes(46)

    stream = stream_of(ETHERTYPE_IPV4, packet)

    assert stream.text() == data
    assert stream.flags == ["A", "PA"]


@pytest.mark.parametrize("size", [10, 3000, 65_000, 190_000])
def test_ip_length_zero_means_to_the_end_of_the_frame(size: int) -> None:
    """BIG TCP, and what a capture saw before the card cut it, says length 0: each piece says its own."""
    data = payload(size)
    v4 = ipv4(*V4, tcp(1000, 80, 1, 7, ACK | PSH, data), total_length=0)
    v6 = ipv6(*V6, tcp(1000, 80, 1, 7, ACK | PSH, data), payload_length=0)

    streams = [stream_of(ETHERTYPE_IPV4, v4), stream_of(ETHERTYPE_IPV6, v6)]

    assert [stream.text() for stream in streams] == [data, data]


def test_jumbo_option_becomes_padding() -> None:
    """A piece states its length itself, so the jumbo payload option of BIG TCP over IPv6 would contradict it."""
    data = payload(70_000)
    packet = ipv6(*V6, tcp(1000, 80, 1, 7, ACK, data), extensions=[JUMBO], payload_length=0)

    stream = stream_of(ETHERTYPE_IPV6, packet)

    assert stream.text() == data
    assert {head[42:48] for head in stream.heads} == {b"\x01\x04\0\0\0\0"}


@pytest.mark.parametrize("size", [20_000, 65_483])
@pytest.mark.parametrize("kept", [3649, 5000, 9000])
def test_last_piece_claims_what_was_not_captured(size: int, kept: int) -> None:
    """Bytes that the snap length cut off stay missing: the pieces claim the length on the wire and carry what is there."""
    data = payload(size)
    packet = ipv4(*V4, tcp(1000, 80, 1, 7, ACK | PSH | FIN, data, options=TIMESTAMPS))[: 52 + kept]

    stream = stream_of(ETHERTYPE_IPV4, packet, size + 52)

    assert stream.content == list(data[:kept]) + [None] * (size - kept)
    assert stream.flags == ["A"] * (len(stream.flags) - 1) + ["FPA"]


@pytest.mark.parametrize("kept", [0, 76, 5000])
def test_cut_big_tcp_claims_more_than_one_packet_can_say(kept: int) -> None:
    """Of a frame longer than an IP length can say the missing bytes are claimed by several segments."""
    size = 190_000
    data = payload(size)
    v4 = ipv4(*V4, tcp(1000, 80, 1, 7, ACK | FIN, data, options=TIMESTAMPS), total_length=0)[: 52 + kept]
    v6 = ipv6(*V6, tcp(1000, 80, 1, 7, ACK | FIN, data, options=TIMESTAMPS), payload_length=0)[: 72 + kept]

    streams = [stream_of(ETHERTYPE_IPV4, v4, size + 52), stream_of(ETHERTYPE_IPV6, v6, size + 72)]

    for stream in streams:
        assert stream.content == list(data[:kept]) + [None] * (size - kept)
        assert stream.flags[-1] == "FA"


def test_what_fits_goes_as_it_is() -> None:
    """A frame that a test run takes is not touched, whatever its IP length claims."""
    packet = ipv4(*V4, tcp(1000, 80, 1, 7, ACK, payload(76)), total_length=65_000)

    pieces = list(segments(ETHERTYPE_IPV4, packet, 65_000))

    assert pieces == [packet]


@pytest.mark.parametrize(
    "packet",
    [
        ipv4(*V4, payload(9000), protocol=UDP),
        ipv4(*V4, tcp(1000, 80, 1, 7, ACK, payload(9000)), more_fragments=True),
        ipv4(*V4, tcp(1000, 80, 1, 7, ACK, payload(9000)), fragment=8),
        ipv4(*V4, tcp(1000, 80, 1, 7, ACK, payload(9000)), total_length=38),
        ipv4(*V4, b"\0" * 9000),
        b"\x41" + ipv4(*V4, tcp(1000, 80, 1, 7, ACK, payload(9000)))[1:],
    ],
)
def test_what_is_no_whole_segment_is_cut(packet: bytes) -> None:
    """Datagrams, fragments and headers that contradict themselves go as one frame, for the kernel to count."""
    pieces = list(segments(ETHERTYPE_IPV4, packet, len(packet)))

    assert pieces == [packet[:NETWORK_BYTES]]


def test_length_zero_is_not_believed_beyond_measure() -> None:
    """A file that claims four gigabytes for a packet of length 0 does not make a hundred thousand segments of it."""
    packet = ipv4(*V4, tcp(1000, 80, 1, 7, ACK, b"x"), total_length=0)

    pieces = list(segments(ETHERTYPE_IPV4, packet, 0xFFFF_FFFF))

    assert pieces == [packet]


def test_any_bytes_are_taken() -> None:
    """Whatever stands in a packet, there is a bounded number of pieces and each fits."""
    dice = random.Random(3)
    for _ in range(3000):
        ethertype = dice.choice([ETHERTYPE_IPV4, ETHERTYPE_IPV6, 0])
        front = {ETHERTYPE_IPV4: b"\x45", ETHERTYPE_IPV6: b"\x60", 0: b""}[ethertype]
        packet = bytearray(front + dice.randbytes(dice.choice([0, 5, 30, 60, 4000, 9000])))
        if len(packet) > 9 and dice.random() < 0.7:
            packet[9 if ethertype == ETHERTYPE_IPV4 else 6] = dice.choice([6, 0, 60])

        pieces = list(segments(ethertype, bytes(packet), len(packet) + dice.choice([0, 70_000])))

        assert 1 <= len(pieces) <= 25
        assert max(len(piece) for piece in pieces) <= NETWORK_BYTES
