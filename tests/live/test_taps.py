"""The kernel programs on links of every kind: which way a request crosses the tap, and that each is seen once."""

from __future__ import annotations

import contextlib
import socket

import pytest

from otel_ebpf_receiver.kernel.programs import Programs
from otel_ebpf_receiver.sources.http.record import Direction
from tests.capture.namespaces import namespace
from tests.live.links import bridge, pair, tunnel
from tests.live.taps import answering, ask, drain, grown, tapped, wait_until
from tests.wire import packets
from tests.wire.exchange import CLIENT
from tests.wire.flow import Ends, Flow

GET = b"GET /seen HTTP/1.1\r\nHost: a\r\n\r\n"
ADDRESSES = {"IPv4": ("10.77.0.1", "10.77.0.2"), "IPv6": ("fd77::1", "fd77::2")}
ASKER, ANSWERER = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
Q, AD = packets.ETHERTYPE_8021Q, packets.ETHERTYPE_8021AD
TAGS = {"802.1Q": ((Q, 5),), "802.1ad": ((AD, 5),), "802.1ad and 802.1Q": ((AD, 5), (Q, 6))}


@pytest.mark.parametrize("version", ADDRESSES)
@pytest.mark.parametrize("asks", ["pod", "host"])
def test_direction_at_the_host_end(programs: Programs, version: str, asks: str) -> None:
    """At the host end of a pod's link the pod's requests arrive, and requests to the pod leave."""
    at_host, at_pod = ADDRESSES[version]
    with pair() as (host, pod):
        client, server, address = (pod, host, at_host) if asks == "pod" else (host, pod, at_pod)
        with tapped(programs, host, "v0") as index, answering(server, address):
            ask(client, address, GET, times=3)
            found = drain(programs)

    assert [one["direction"] for one in found] == [Direction.ARRIVED if asks == "pod" else Direction.LEFT] * 3
    assert {(one["server_address"], one["server_port"], one["tap"]) for one in found} == {(packets.mapped(address), 8080, index)}


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback_is_seen_once(programs: Programs, address: str) -> None:
    """A frame on loopback passes the tap twice; the leaving half is counted as a copy, and each exchange is one record."""
    with namespace() as here, tapped(programs, here, "lo"), answering(here, address):
        before = programs.counters()
        ask(here, address, GET, times=4)
        found = drain(programs)
        counted = grown(programs, before)

    assert [one["status"] for one in found] == [200] * 4
    assert counted["loopback_copy"] == counted["packets"] - counted["loopback_copy"]


@pytest.mark.parametrize("asks", ["here", "there"])
def test_a_device_without_link_layer(programs: Programs, asks: str) -> None:
    """On a tun device, whose packets have no link header, requests are seen in both directions."""
    with tunnel() as (here, there):
        client, server, address = (here, there, "10.99.0.2") if asks == "here" else (there, here, "10.99.0.1")
        with tapped(programs, here, "tun0"), answering(server, address):
            ask(client, address, GET, times=2)
            found = drain(programs)

    assert [(one["direction"], one["target"], one["status"]) for one in found] == [
        (Direction.LEFT if asks == "here" else Direction.ARRIVED, b"/seen", 200)
    ] * 2


@pytest.mark.parametrize("version", ADDRESSES)
@pytest.mark.parametrize("tags", TAGS)
def test_tags_in_the_frame_and_in_metadata(programs: Programs, version: str, tags: str) -> None:
    """Tagged frames cross a bridge: where they arrive the kernel has taken the outer tag into metadata, and they leave with it there."""
    client, server = ADDRESSES[version]
    port = 4000 + list(TAGS).index(tags)  # with the numbers of a connection that is still followed, this one would be its retransmission
    flow = Flow(Ends((client, port), (server, 80), tags=TAGS[tags]))
    flow.handshake()
    flow.transmit(CLIENT, GET)
    flow.transmit(1 - CLIENT, b"HTTP/1.1 204 No Content\r\n\r\n")
    with namespace() as host, namespace() as asker, namespace() as answerer, contextlib.ExitStack() as stack:
        bridge(host, [asker, answerer])
        sockets = []
        for pod, mac in ((asker, ASKER), (answerer, ANSWERER)):
            pod.ip("link", "set", "eth0", "address", mac.hex(":"))
            with pod.inside():
                sockets.append(stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)))
                sockets[-1].bind(("eth0", 0))
        taps = [stack.enter_context(tapped(programs, host, port)) for port in ("p1", "p2")]
        wait_until(lambda: "forwarding" in host.ip("-d", "link", "show", "p2"))
        before = programs.counters()
        for sent in flow.frames:
            target, source = (ANSWERER, ASKER) if sent.side == CLIENT else (ASKER, ANSWERER)
            sockets[sent.side].send(target + source + sent.frame[12:])
        wait_until(lambda: grown(programs, before).get("http_answered", 0) >= 2)
        found = {one["tap"]: one for one in drain(programs)}

    assert {tap: (one["direction"], one["status"]) for tap, one in found.items()} == {
        taps[0]: (Direction.ARRIVED, 204),
        taps[1]: (Direction.LEFT, 204),
    }
