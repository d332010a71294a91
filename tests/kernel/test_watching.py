"""What user space tells the programs: which addresses and connections to leave alone, which taps see the same connections."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Sequence

import pytest

from tests.capture.namespaces import ip
from tests.kernel import loaded
from tests.kernel.harness import Kernel
from tests.wire.exchange import CLIENT, SERVER
from tests.wire.flow import Ends, Flow, Sent

GET = b"GET /watched HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PORTS = itertools.count(20000)


@pytest.fixture
def own() -> Iterator[Kernel]:
    """Programs whose settings no other test sees."""
    with loaded.kernel() as kernel:
        yield kernel


def connection(client: str = "10.8.0.1", server: str = "10.9.0.1", *, port: int | None = None, exchanges: int = 1) -> Flow:
    """A connection with some exchanges."""
    flow = Flow(Ends((client, next(PORTS) if port is None else port), (server, 80)))
    flow.handshake()
    for _ in range(exchanges):
        flow.transmit(CLIENT, GET)
        flow.transmit(SERVER, ANSWER)
    return flow


def reported(kernel: Kernel, *flows: Flow) -> list[int]:
    """How many records come of each connection."""
    return [len(kernel.records(flow)) for flow in flows]


def test_only_some_addresses(own: Kernel) -> None:
    """With a list of addresses, connections without one of them are left alone, and cost one look."""
    own.programs.watch(only=True, include=["10.8.0.0/24", "fd00:8::/64"], exclude=[])
    flows = [
        connection(),
        connection("10.9.0.1", "10.8.0.77"),
        connection("10.7.0.1"),
        connection("fd00:8::1", "fd00:9::1"),
        connection("fd00:7::1", "fd00:9::1"),
    ]

    counts = reported(own, *flows)

    assert counts == [1, 1, 0, 1, 0]
    counters = own.counters()
    assert counters["flows_unwatched"] == 2
    assert counters["unwatched"] >= 4


def test_excluded_addresses(own: Kernel) -> None:
    """An excluded endpoint outweighs a watched one; of two networks the longer one counts."""
    own.programs.watch(only=False, include=["10.8.1.5/32"], exclude=["10.8.1.0/24"])

    counts = reported(own, connection("10.8.1.4"), connection("10.8.1.5"), connection("10.8.2.1"), connection("10.8.2.1", "10.8.1.9"))

    assert counts == [0, 1, 1, 0]


def test_a_list_that_changes(own: Kernel) -> None:
    """Connections that were left alone are asked again when the list has changed, and taken up from then on."""
    flow = connection(exchanges=4)
    half = len(flow.frames) // 2
    own.programs.watch(only=True, include=["10.99.0.0/16"])
    own.feed(flow.frames[:half])
    assert not own.drain()

    own.programs.watch(only=True, include=["10.8.0.0/16"])
    own.feed(flow.frames[half:])

    assert 1 <= len(own.drain()) <= 2


def test_ignored_connections(own: Kernel) -> None:
    """A connection that is registered is never reported, whichever end is named first; its neighbour is, and so is it once forgotten."""
    own.programs.ignore(("10.8.0.1", 3000), ("10.9.0.1", 80))
    own.programs.ignore(("10.9.0.1", 80), ("10.8.0.1", 3001))
    counts = reported(own, connection(port=3000), connection(port=3001), connection(port=3002))
    own.programs.unignore(("10.8.0.1", 3000), ("10.9.0.1", 80))

    after = reported(own, Flow(connection(port=3000).ends))
    assert counts == [0, 0, 1]
    assert after == [0]
    assert own.counters()["flows_ignored"] == 2

    fresh = Flow(Ends(("10.8.0.1", 3000), ("10.9.0.1", 80), isn=(77, 88)))
    fresh.handshake()
    fresh.transmit(CLIENT, GET)
    fresh.transmit(SERVER, ANSWER)
    assert reported(own, fresh) == [1]


@pytest.fixture
def links() -> Iterator[tuple[int, int]]:
    """Two links that exist."""
    ip("link", "add", "oer-case-a", "type", "veth", "peer", "name", "oer-case-b")
    try:
        yield socket.if_nametoindex("oer-case-a"), socket.if_nametoindex("oer-case-b")
    finally:
        ip("link", "del", "oer-case-a")


def feed_at(kernel: Kernel, frames: Sequence[Sent], taps: Sequence[int]) -> list[dict[str, object]]:
    """Each frame at the tap of its side."""
    kernel.drain()
    for sent in frames:
        kernel.programs.test_run(sent.frame, time_ns=sent.time_ns, ifindex=taps[sent.side])
    return kernel.drain()


def test_every_tap_is_its_own_domain(own: Kernel, links: tuple[int, int]) -> None:
    """The same connection at two taps is two; one direction at each is none at all."""
    a, b = links
    own.programs.set_tap(a)
    own.programs.set_tap(b)
    flow = connection()

    at_a, at_b = feed_at(own, flow.frames, (a, a)), feed_at(own, flow.frames, (b, b))
    split = feed_at(own, connection().frames, (a, b))

    assert [record["tap"] for record in at_a + at_b] == [a, b]
    assert split == []
    assert own.programs.tap_counters(a)["http"] >= 1


def test_taps_of_one_domain(own: Kernel, links: tuple[int, int]) -> None:
    """Taps that share a domain see one connection, whichever of them shows which direction."""
    a, b = links
    own.programs.set_tap(a, domain=7)
    own.programs.set_tap(b, domain=7)

    [record] = feed_at(own, connection().frames, (a, b))

    assert (record["status"], record["tap"]) == (200, a)


def test_neutral_addresses_are_taken_out_of_a_larger_network(own: Kernel) -> None:
    """They make no connection watched, and forbid none that the other side makes so."""
    own.programs.watch(only=True, include=["10.8.1.0/24"], neutral=["10.8.1.4/32", "10.8.1.5/32"])

    counts = reported(own, connection("10.8.1.4", "10.9.0.1"), connection("10.8.1.4", "10.8.1.5"), connection("10.8.1.4", "10.8.1.6"))

    assert counts == [0, 0, 1]
