"""A second source in the kernel beside HTTP: its C file stands here, and nothing else in the tree knows of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from otel_ebpf_receiver.kernel.assemble import KernelPart, KernelSource
from otel_ebpf_receiver.kernel.loader import load
from otel_ebpf_receiver.sources.http.kernel import kernel_source
from otel_ebpf_receiver.sources.source import Source
from tests.sources.line import run
from tests.sources.records import START_NS
from tests.sources.test_dummy_source import COUNT, DummyDecoder
from tests.wire import packets
from tests.wire.flow import Ends, Flow

PART = KernelPart(
    "dummy", (str(Path(__file__).with_name("dummy.h")),), hooks=("on_syn", "on_datagram", "on_segment"), records="dummy_records"
)
RECORD = np.dtype([("time_ns", "<u8"), ("tap", "<u4"), ("bytes", "<u4"), ("kind", "u1"), ("pad", "V7")])


def frames() -> list[bytes]:
    """A connection of HTTP, one that begins as TLS does, and two datagrams."""
    http, tls = Flow(Ends()), Flow(Ends(server=("10.100.0.2", 443)))
    for flow, asked, answered in (
        (http, b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 204 No\r\n\r\n"),
        (tls, b"\x16\x03\x01" + bytes(300), b"\x16\x03\x03" + bytes(700)),
    ):
        flow.handshake()
        flow.transmit(0, asked)
        flow.transmit(1, answered)
        flow.transmit(0, asked)
    datagram = packets.ethernet(*packets.network("10.0.0.1", "10.0.0.2", packets.udp(53, 53, bytes(20)), protocol=17))
    return [sent.frame for flow in (http, tls) for sent in flow.frames] + [datagram, datagram]


def test_two_sources_in_one_program() -> None:
    """SYNs, datagrams and opaque segments are counted by the one while the other tells exchanges; each has its own ring."""
    with load([kernel_source(), KernelSource(PART, lambda: RECORD)]) as programs:
        for number, frame in enumerate(frames()):
            programs.test_run(frame, time_ns=START_NS + number)
        exchanges, seen = programs.transports["http"].drain(), programs.transports["dummy"].drain()

    assert [int(status) for status in exchanges["status"]] == [204]
    assert Counter(seen["kind"].tolist()) == {0: 2, 1: 2, 2: 2}
    assert [int(size) for size in seen["bytes"][seen["kind"] == 2]] == [703, 303]


def test_its_metric_comes_from_the_kernel() -> None:
    """What its ring held leaves as points of its own metric, by its own attribute."""
    with load([kernel_source(), KernelSource(PART, lambda: RECORD)]) as programs:
        for number, frame in enumerate(frames()):
            programs.test_run(frame, time_ns=START_NS + number)
        seen = programs.transports["dummy"].drain()

    ran = run(seen, sources=[Source("dummy", PART, RECORD, [COUNT], (), DummyDecoder, has_copies=False)])

    assert {point["attributes"]["dummy.kind"]: point["point"].as_int for point in ran.points} == {"syn": 2, "datagram": 2, "opaque": 2}


def test_without_an_owner_of_connections() -> None:
    """No source but this one: nobody asks for what connections carry, so all of it is opaque, and is counted as that."""
    with load([KernelSource(PART, lambda: RECORD)]) as programs:
        for number, frame in enumerate(frames()):
            programs.test_run(frame, time_ns=START_NS + number)
        seen, counted = programs.transports["dummy"].drain(), programs.counters()

    assert Counter(seen["kind"].tolist()) == {0: 2, 1: 2, 2: 6}
    assert (counted["flows"], counted["opaque"]) == (2, 10)  # the SYNs too
