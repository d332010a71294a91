"""Layers 2 to 4: every packet ends in the one outcome that it deserves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.kernel.harness import Kernel
from tests.wire import packets
from tests.wire.packets import ACK, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FIN, PSH, RST, SYN

GET = b"GET /packet HTTP/1.1\r\n\r\n"
V4, V6 = ("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")


def segment(payload: bytes = GET, flags: int = PSH | ACK, port: int = 40000) -> bytes:
    """TCP from a port to port 80."""
    return packets.tcp(port, 80, 1000, 2000, flags, payload)


def v4(payload: bytes, **options: object) -> bytes:
    """A frame with an IPv4 packet."""
    return packets.ethernet(packets.ipv4(*V4, payload, **options), ETHERTYPE_IPV4)  # type: ignore[arg-type]


def v6(payload: bytes, **options: object) -> bytes:
    """A frame with an IPv6 packet."""
    return packets.ethernet(packets.ipv6(*V6, payload, **options), ETHERTYPE_IPV6)  # type: ignore[arg-type]


FRAMES = {
    "ARP": ("not_ip", packets.ethernet(bytes(28), ETHERTYPE_ARP)),
    "an unknown ethertype": ("not_ip", packets.ethernet(v4(segment())[14:], 0x1234)),
    "UDP": ("not_tcp", v4(packets.udp(1000, 53, GET), protocol=packets.UDP)),
    "UDP over IPv6": ("not_tcp", v6(packets.udp(1000, 53, GET), protocol=packets.UDP)),
    "ICMP": ("not_tcp", v4(bytes(40), protocol=1)),
    "ICMPv6 behind extensions": ("not_tcp", v6(bytes(40), protocol=58, extensions=(packets.extension(packets.HOP_BY_HOP),))),
    "a first fragment": ("fragment", v4(segment(), more_fragments=True)),
    "a later fragment": ("fragment", v4(segment(), fragment=100)),
    "a first fragment of IPv6": ("fragment", v6(segment(), extensions=(packets.extension(packets.FRAGMENT, more=True),))),
    "a later fragment of IPv6": ("fragment", v6(segment(), extensions=(packets.extension(packets.FRAGMENT, offset=100),))),
    "IPv4 by name, IPv6 by version": ("malformed", packets.ethernet(packets.ipv6(*V6, segment()), ETHERTYPE_IPV4)),
    "IPv6 by name, IPv4 by version": ("malformed", packets.ethernet(packets.ipv4(*V4, segment()), ETHERTYPE_IPV6)),
    "a header of IPv4 too short": ("malformed", packets.ethernet(b"\x44" + packets.ipv4(*V4, segment())[1:], ETHERTYPE_IPV4)),
    "a TCP header beyond the packet": ("malformed", v4(segment()[:16])),
    "a TCP header beyond the IP length": ("malformed", v4(segment(), total_length=30)),
    "a TCP header too short": ("malformed", v4(segment()[:12] + b"\x40" + segment()[13:])),
    "a bare ACK": ("bare_ack", v4(segment(b"", ACK))),
    "a bare ACK over IPv6": ("bare_ack", v6(segment(b"", ACK))),
    "a bare ACK with padding": ("bare_ack", v4(segment(b"", ACK)) + bytes(6)),
    "a FIN of an unknown connection": ("stray_end", v4(segment(b"", FIN | ACK, 41001))),
    "a RST of an unknown connection": ("stray_end", v4(segment(b"", RST, 41002))),
    "a SYN": ("handshake", v4(segment(b"", SYN, 41003))),
}  # fmt: skip


def grown(kernel: Kernel, *frames: bytes) -> dict[str, int]:
    """What these frames add to the counters."""
    before = kernel.counters()
    for frame in frames:
        kernel.programs.test_run(frame, time_ns=kernel.clock_ns)
        kernel.clock_ns += 1000
    return {name: value - before.get(name, 0) for name, value in kernel.counters().items() if value != before.get(name, 0)}


@pytest.mark.parametrize("name", FRAMES)
def test_outcome(kernel: Kernel, name: str) -> None:
    """A packet that is no part of a stream is counted by what it is."""
    outcome, frame = FRAMES[name]

    counted = grown(kernel, frame)

    assert counted.pop("packets") == 1
    assert counted.pop(outcome) == 1
    assert set(counted) <= {"flows"}, counted


def test_length_is_that_of_the_ip_header(kernel: Kernel) -> None:
    """What stands behind the IP packet in the frame is no part of the stream."""
    port = 41010
    kernel.drain()
    head = b"POST /padded HTTP/1.1\r\nContent-Length: 4\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    def frame(payload: bytes, seq: int, *, back: bool = False, flags: int = PSH | ACK) -> bytes:
        ends, ports = ((V4[1], V4[0]), (80, port)) if back else (V4, (port, 80))
        acknowledged = 1001 + len(head) + 4 if back else 5001
        tcp = packets.tcp(*ports, seq, acknowledged, flags, payload)
        return packets.ethernet(packets.ipv4(*ends, tcp), ETHERTYPE_IPV4) + b"XXXX"

    grown(kernel, frame(b"", 1000, flags=SYN), frame(b"", 5000, back=True, flags=SYN | ACK))
    grown(kernel, frame(head, 1001), frame(b"ab", 1001 + len(head)), frame(b"cd", 1003 + len(head)), frame(answer, 5001, back=True))

    [got] = kernel.drain()
    assert (got["target"], got["request_body"], got["status"]) == (b"/padded", 4, 200)


def test_a_packet_longer_than_its_frame(kernel: Kernel) -> None:
    """A length beyond the frame is a capture's cut; the program neither fails nor invents an exchange."""
    kernel.drain()
    frame = packets.ethernet(packets.ipv4(*V4, segment(GET, port=41020), total_length=3000), ETHERTYPE_IPV4)

    grown(kernel, v4(segment(b"", SYN, 41020)), frame)

    assert kernel.drain() == []


TAGS = ((packets.ETHERTYPE_8021AD, 5), (packets.ETHERTYPE_8021Q, 6))
OPTIONS = bytes([1]) * 40
LONG = (packets.extension(packets.HOP_BY_HOP, 64), packets.extension(packets.DESTINATION_OPTIONS, 512))
ARRANGEMENTS: dict[str, Callable[[tuple[int, int], bytes], bytes]] = {  # (from, to) as indices of the ends, and a TCP segment
    "IPv4": lambda way, tcp: packets.ethernet(packets.ipv4(V4[way[0]], V4[way[1]], tcp), ETHERTYPE_IPV4),
    "IPv4 with options": lambda way, tcp: packets.ethernet(packets.ipv4(V4[way[0]], V4[way[1]], tcp, options=OPTIONS), ETHERTYPE_IPV4),
    "the same with two tags": lambda way, tcp: packets.ethernet(packets.ipv4(V4[way[0]], V4[way[1]], tcp, options=OPTIONS), ETHERTYPE_IPV4, tags=TAGS),
    "IPv6": lambda way, tcp: packets.ethernet(packets.ipv6(V6[way[0]], V6[way[1]], tcp), ETHERTYPE_IPV6),
    "IPv6 with long extensions": lambda way, tcp: packets.ethernet(packets.ipv6(V6[way[0]], V6[way[1]], tcp, extensions=LONG), ETHERTYPE_IPV6),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_frames_about_as_long_as_are_read_at_once(kernel: Kernel, name: str) -> None:
    """Frames below BEGINNING (bpf/limits.h) are read at once, of others the headers: a head is found in either, behind whatever stands before it."""
    arranged, there, back = ARRANGEMENTS[name], (0, 1), (1, 0)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    kernel.drain()
    sizes = {}
    for number, size in enumerate((700, *range(1034, 1044), 2000)):  # of the frame with its Ethernet header
        port, room = 42000 + 20 * list(ARRANGEMENTS).index(name) + number, size - len(arranged(there, segment(b"")))
        head = b"GET /sized HTTP/1.1\r\nX-Filling: ".ljust(room - 4, b"x") + b"\r\n\r\n"
        sizes[port] = len(head)
        frame = arranged(there, packets.tcp(port, 80, 1001, 5001, PSH | ACK, head))
        assert len(frame) == size
        grown(kernel, arranged(there, packets.tcp(port, 80, 1000, 0, SYN)), arranged(back, packets.tcp(80, port, 5000, 1001, SYN | ACK)))
        grown(kernel, frame, arranged(back, packets.tcp(80, port, 5001, 1001 + len(head), PSH | ACK, answer)))

    assert {got["client_port"]: got["request_head"] for got in kernel.drain()} == sizes


def test_every_short_frame(kernel: Kernel) -> None:
    """A frame cut at any byte behind its IP header is counted once and harms nothing. Shorter ones a test run does not take."""
    extended = v6(segment(), extensions=(packets.extension(packets.HOP_BY_HOP),))
    tagged = packets.ethernet(
        packets.ipv4(*V4, segment()), ETHERTYPE_IPV4, tags=((packets.ETHERTYPE_8021AD, 5), (packets.ETHERTYPE_8021Q, 6))
    )

    for whole, shortest in ((v4(segment()), 34), (extended, 54), (tagged, 15)):
        for size in range(shortest, len(whole) - len(GET) + 1):
            counted = grown(kernel, whole[:size])

            assert counted["packets"] == 1, size
