"""From a conversation to the frames of a connection: how it is cut, disordered and dressed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from tests.wire import packets
from tests.wire.exchange import CLIENT
from tests.wire.flow import Disorder, Ends, Flow
from tests.wire.writer import Step

Cuts = Callable[[int, bytes], Iterable[int]]
"""(side, data) -> places in the data where a segment ends"""


def whole(side: int, data: bytes) -> Iterable[int]:
    """As few segments as possible."""
    return ()


def random_cuts(rng: random.Random, most: int = 12) -> Cuts:
    """Up to `most` cuts anywhere."""
    return lambda side, data: [rng.randrange(1, len(data)) for _ in range(rng.randrange(most))] if len(data) > 1 else ()


def wire_cuts(size: int) -> Cuts:
    """Segments of one size, as a sender makes them."""
    return lambda side, data: range(size, len(data), size)


def random_ends(rng: random.Random, number: int) -> Ends:
    """Endpoints unlike those of other numbers, of either IP version, dressed at random."""
    port = 1024 + number % 60000
    is_v6 = rng.random() < 0.4
    client, server = (
        (f"10.{number // 60000 % 250}.1.{1 + rng.randrange(250)}", "10.200.0.2")
        if not is_v6
        else (f"fd00::{number // 60000 + 1:x}:1", "fd00:9::2")
    )
    isn = [rng.getrandbits(32), rng.getrandbits(32)]
    if rng.random() < 0.3:
        isn = [2**32 - rng.randrange(1, 3000), 2**32 - rng.randrange(1, 3000)]
    extensions = rng.choice(
        (
            (),
            (),
            (packets.extension(packets.HOP_BY_HOP),),
            (packets.extension(packets.ROUTING, 24), packets.extension(packets.DESTINATION_OPTIONS)),
        )
    )
    if rng.random() < 0.5:
        client, server = server, client
    if rng.random() < 0.1:
        server = client
    return Ends(
        client=(client, port),
        server=(server, rng.choice((80, 8080, 65535))),
        isn=(isn[0], isn[1]),
        ip_options=rng.choice((b"", b"", b"\x01\x01\x01\x00", bytes((7, 39, 4)) + bytes(36))),
        extensions=extensions if is_v6 else (),
        tcp_options=rng.choice((b"", packets.TIMESTAMPS, packets.TIMESTAMPS, bytes((1, 1, 5, 26)) + bytes(24))),
        tags=rng.choice(((), (), (), ((packets.ETHERTYPE_8021Q, 7),), ((packets.ETHERTYPE_8021AD, 3), (packets.ETHERTYPE_8021Q, 0x6007)))),
        padding=rng.choice((b"", b"", bytes(6), b"\0GET / HTTP/1.1\r\n\r\n")),
    )


def play(steps: Sequence[Step], ends: Ends, rng: random.Random, cuts: Cuts = whole, *, disorder: Disorder | None = None,
         handshake: bool = True, start_ns: int = 1_000_000_000) -> Flow:  # fmt: skip
    """The connection that these steps make."""
    flow = Flow(ends, rng=rng, start_ns=start_ns)
    flow.handshake(seen=handshake)
    for step in steps:
        joined = step.end == "fin" and bool(step.data) and step.together
        if step.data:
            flow.transmit(step.side, step.data, cuts(step.side, step.data), disorder=disorder, fin=joined)
        if step.end == "fin" and not joined:
            flow.finish(step.side)
        elif step.end == "rst":
            flow.reset(step.side)
        if rng.random() < 0.1:
            flow.acknowledge(1 - step.side if step.side != CLIENT else CLIENT)
    return flow
