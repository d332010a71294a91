"""What a test run cannot make, over a real veth: frames of 64 KiB in pages, BIG TCP, both directions of a tap."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from otel_ebpf_receiver.sources.http.record import Direction
from tests.capture.namespaces import Namespace, join, namespace
from tests.kernel import expectation, harness
from tests.kernel.harness import Kernel
from tests.wire import packets, play, reference
from tests.wire.exchange import CLIENT, SERVER
from tests.wire.flow import Ends, Flow

ETH_P_ALL = 3
PACKET_VNET_HDR = 15
MTU = 65535
GET = b"GET /36-bytes-in-all/%06d HTTP/1.1\n\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0002\r\n\r\nok"
CHUNK = b"b\r\n0123456789a\r\n"


@dataclass(frozen=True, slots=True)
class Wire:
    """A tapped veth in a namespace; frames sent at `far` arrive at the tap, frames sent at `near` leave by it."""

    kernel: Kernel
    near: socket.socket
    far: socket.socket

    def carry(self, flow: Flow) -> list[dict[str, Any]]:
        """Sends what the tap is to see, the client's from afar; the records that come of it."""
        self.kernel.drain()
        seen = self.kernel.counters()["packets"]
        for sent, frame in enumerate(flow.frames):
            if sent and frame.side != flow.frames[sent - 1].side:  # what comes from afar waits for its turn, what leaves does not
                self._settle(seen + sent)
            (self.far if frame.side == CLIENT else self.near).send(bytes(10) + frame.frame)
        self._settle(seen + len(flow.frames))
        return self.kernel.drain()

    def _settle(self, packets: int) -> None:
        """Waits until so many have been counted, and a little more: a packet is counted before its record is made."""
        for _ in range(1000):
            if self.kernel.counters()["packets"] >= packets:
                break
            time.sleep(0.001)
        time.sleep(0.02)


def paged_socket(name: str) -> socket.socket:
    """Sends frames whose bytes behind the headers lie in pages, as those of a sending TCP do."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((name, 0))
    sock.setsockopt(263, PACKET_VNET_HDR, struct.pack("i", 1))
    return sock


@contextlib.contextmanager
def tapped(kernel: Kernel, here: Namespace, name: str) -> Iterator[None]:
    """The programs watch this link of the namespace."""
    with here.inside():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        index = socket.if_nametoindex(name)
    kernel.programs.set_tap(index)
    kernel.programs.attach(tap)
    tap.bind((name, ETH_P_ALL))
    try:
        yield
    finally:
        tap.close()
        kernel.programs.forget_tap(index)


@pytest.fixture
def wire(kernel: Kernel) -> Iterator[Wire]:
    """A veth whose near end is tapped."""
    with namespace() as here:
        here.ip("link", "add", "near", "mtu", str(MTU), "type", "veth", "peer", "name", "far", "mtu", str(MTU))
        for name in ("near", "far"):
            here.ip("link", "set", name, "addrgenmode", "none")
            here.ip("link", "set", name, "up")
        with here.inside():
            near, far = paged_socket("near"), paged_socket("far")
        with near, far, tapped(kernel, here, "near"):
            yield Wire(kernel, near, far)


def one_frame(flow: Flow, side: int, data: bytes) -> None:
    """All of it in one frame."""
    at = len(flow.streams[side])
    flow.streams[side].extend(data)
    assert len(data) + 54 <= MTU
    flow.emit(side, at, data)


def complaints(flow: Flow, got: list[dict[str, Any]], *, lossy: bool = False) -> list[str]:
    """Times are the kernel's own here; all else is compared. `lossy`: what is reported must be true, and that is all."""
    truth = reference.read(bytes(flow.streams[CLIENT]), bytes(flow.streams[SERVER]), [])
    for g in got:
        assert 0 < g["request_start_ns"] <= g["request_end_ns"] <= g["response_start_ns"] <= g["response_end_ns"]
        number = next((i for i, e in enumerate(truth) if (flow.ends.isn[CLIENT] + 1 + e.request.begin) % 2**32 == g["request_seq"]), None)
        assert number is not None
        want = expectation.expected(flow, truth, number)
        g |= {name: want[name] for name in want if name.endswith("_ns")}
    return harness.truthful(flow, truth, got) if lossy else harness.exact(flow, truth, got)


@pytest.mark.parametrize("what", ["requests", "answers", "chunks"])
def test_a_frame_of_64_kib_is_handled_whole(wire: Wire, what: str) -> None:
    """A frame full of 36-byte requests, of 43-byte answers or of 16-byte chunks loses nothing."""
    flow = Flow(play.random_ends(random.Random(3), wire.kernel.next()))
    flow = Flow(Ends(flow.ends.client, flow.ends.server, flow.ends.isn))
    flow.handshake()
    before = wire.kernel.counters()["http_resync_budget"]
    count = {"requests": 65000 // len(GET % 0), "answers": 65000 // len(ANSWER), "chunks": 1}[what]
    requests = b"".join(GET % i for i in range(count))
    if what == "requests":
        one_frame(flow, CLIENT, requests)
        flow.transmit(SERVER, ANSWER * count)
    elif what == "answers":
        flow.transmit(CLIENT, requests)
        one_frame(flow, SERVER, ANSWER * count)
    else:
        flow.transmit(CLIENT, requests)
        one_frame(flow, SERVER, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK * (64000 // len(CHUNK)) + b"0\r\n\r\n")

    got = wire.carry(flow)

    assert not complaints(flow, got)[:10]
    assert wire.kernel.counters()["http_resync_budget"] == before


def test_more_than_a_run_may_read(wire: Wire) -> None:
    """Of more requests in one frame than the budget allows, the first are reported, none falsely; the rest is counted."""
    flow = Flow(play.random_ends(random.Random(4), wire.kernel.next()))
    flow = Flow(Ends(flow.ends.client, flow.ends.server, flow.ends.isn))
    flow.handshake()
    before = wire.kernel.counters()
    smallest = b"GET / HTTP/1.1\n\n"
    count = 65000 // len(smallest)
    one_frame(flow, CLIENT, smallest * count)
    flow.transmit(SERVER, ANSWER * count)
    flow.transmit(CLIENT, GET % 1)
    flow.transmit(SERVER, ANSWER)

    got = wire.carry(flow)

    after = wire.kernel.counters()
    assert after["http_resync_budget"] == before["http_resync_budget"] + 1
    assert 1900 < len(got) < count
    assert not complaints(flow, got, lossy=True)[:10]


@pytest.mark.parametrize("asks", ["from afar", "from here"])
def test_direction_of_the_tap(wire: Wire, asks: str) -> None:
    """A request that arrives at the tap's end was asked by the peer; one that leaves was asked of it."""
    wire.kernel.drain()
    flow = Flow(Ends(("10.3.0.1", 4000 + (asks == "from here")), ("10.3.0.2", 80)))
    flow.handshake()
    flow.transmit(CLIENT, GET % 1)
    flow.transmit(SERVER, ANSWER)
    turned = wire if asks == "from afar" else Wire(wire.kernel, wire.far, wire.near)

    [got] = turned.carry(flow)

    assert got["direction"] == (Direction.ARRIVED if asks == "from afar" else Direction.LEFT)


def test_vlan_in_metadata(wire: Wire) -> None:
    """A tag that the kernel has moved out of an arriving frame hides nothing; in a leaving frame it still stands."""
    flow = Flow(Ends(("10.3.0.1", 4010), ("10.3.0.2", 80), tags=((packets.ETHERTYPE_8021Q, 5),)))
    flow.handshake()
    flow.transmit(CLIENT, GET % 1)
    flow.transmit(SERVER, ANSWER)

    got = wire.carry(flow)

    assert [g["status"] for g in got] == [200]


def serve(listener: socket.socket, size: int) -> None:
    """Answers one connection with a large body."""
    peer, _ = listener.accept()
    with peer:
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))


def test_big_tcp(kernel: Kernel) -> None:
    """TCP over a veth with frames beyond 64 KiB: lengths that the IP header cannot hold are the frame's own."""
    size = 8_000_000
    with namespace() as left, namespace() as right:
        join(left, right)
        for side, name in ((left, "v0"), (right, "eth0")):
            side.ip("addr", "add", f"fd77::{1 if side is left else 2}/64", "dev", name, "nodad")
            side.ip("link", "set", name, "gso_max_size", "180000", "gro_max_size", "180000")
        with tapped(kernel, left, "v0"):
            kernel.drain()
            with right.inside():
                listener = socket.create_server(("fd77::2", 8080), family=socket.AF_INET6)
            thread = threading.Thread(target=serve, args=(listener, size))
            thread.start()
            with left.inside():
                client = socket.create_connection(("fd77::2", 8080))
            with listener, client:
                client.sendall(GET % 7)
                left_over = size
                while left_over > 0 and (data := client.recv(1 << 20)):
                    left_over -= len(data)
                thread.join()
            got = kernel.drain()

    assert [(g["status"], g["response_body"], g["error"]) for g in got] == [(200, size, 0)]
