"""Full maps: what is evicted is counted and never becomes a false record; open requests are there to be looked at."""

from __future__ import annotations

import random

from otel_ebpf_receiver.kernel.loader import BuildOptions
from otel_ebpf_receiver.sources.http.kernel import kernel_source
from tests.kernel import harness, loaded, randoms
from tests.kernel.harness import Kernel
from tests.kernel.randoms import Tally
from tests.kernel.suites import SUITES
from tests.wire import play, reference
from tests.wire.exchange import CLIENT, SERVER
from tests.wire.flow import Flow
from tests.wire.writer import Step

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def asked(kernel: Kernel, count: int) -> list[Flow]:
    """Connections with one request each and no answer yet."""
    flows = []
    for n in range(count):
        flow = play.play(
            [Step(CLIENT, b"GET /%d HTTP/1.1\r\n\r\n" % n)],
            play.random_ends(random.Random(n), kernel.next()),
            random.Random(n),
            start_ns=kernel.clock_ns,
        )
        kernel.clock_ns = flow.now_ns + 1000
        kernel.feed(flow.frames)
        flows.append(flow)
    return flows


def answered(kernel: Kernel, flow: Flow) -> list[str]:
    """The answer comes; complaints about anything false."""
    before = len(flow.frames)
    flow.now_ns = kernel.clock_ns
    flow.transmit(SERVER, ANSWER)
    kernel.clock_ns = flow.now_ns + 1000
    kernel.feed(flow.frames[before:])
    truth = reference.read(bytes(flow.streams[CLIENT]), bytes(flow.streams[SERVER]), [])
    return harness.truthful(flow, truth, kernel.drain())


def test_open_requests_are_seen() -> None:
    """A server that hangs shows before its connections end: how many requests wait, and since when."""
    with loaded.kernel() as kernel:
        begin = kernel.clock_ns
        flows = asked(kernel, 5)

        waiting = kernel.programs.open_requests()
        for flow in flows[1:]:
            answered(kernel, flow)
        later = kernel.programs.open_requests()
        answered(kernel, flows[0])

        assert waiting.count == 5
        assert later.count == 1
        assert begin < later.oldest_ns == waiting.oldest_ns < kernel.clock_ns
        assert kernel.programs.open_requests().count == 0


def test_open_requests_are_records_without_an_answer() -> None:
    """What is known of each request that waits: who asked whom for what and since when, and nothing of how it will end."""
    with loaded.kernel() as kernel:
        made = kernel_source()
        flows = asked(kernel, 700)
        answered(kernel, flows[3])

        records = kernel.programs.open_records(made.part, made.record)

        assert sorted(bytes(one) for one in records["line"]) == sorted(b"GET /%d" % n for n in range(700) if n != 3)
        assert {int(one) for one in records["method"]} == {1}
        assert not any(records[name].any() for name in ("status", "response_start_ns", "error"))
        assert int(records["request_start_ns"].min()) == kernel.programs.open_requests().oldest_ns
        assert all(records["server_port"] > 0)
        assert len(kernel.drain()) == 0


def test_evicted_requests_are_counted() -> None:
    """More open requests than there is room for: the oldest are evicted, and opened = ended + open + evicted."""
    with loaded.kernel(kernel_source(pending=1024)) as kernel:
        flows = asked(kernel, 3000)
        waiting = kernel.programs.open_requests().count

        complaints = [complaint for flow in flows for complaint in answered(kernel, flow)]

        assert not complaints
        assert 0 < waiting <= 1024
        counters = kernel.counters()
        assert counters["http_opened"] == 3000
        assert counters["http_answered"] <= waiting


def test_evicted_connections_are_joined_again() -> None:
    """More connections than there is room for: those that were evicted are taken up again, and nothing false comes of them."""
    with loaded.kernel(options=BuildOptions(defines={"FLOWS": 1024})) as kernel:
        flows = asked(kernel, 3000)

        complaints = [complaint for flow in flows for complaint in answered(kernel, flow)]

        assert not complaints
        assert kernel.counters()["flows_joined"] > 0


def test_a_ring_that_is_full_counts_what_it_loses() -> None:
    """Records that find no room are counted, and the rest arrive whole."""
    with loaded.kernel(options=BuildOptions(ring_bytes=65536)) as kernel:
        for flow in asked(kernel, 300):
            before = len(flow.frames)
            flow.transmit(SERVER, ANSWER)
            kernel.feed(flow.frames[before:])
        counters = kernel.counters()

        arrived = kernel.drain()

        assert counters["http_lost"] > 0
        assert len(arrived) == counters["http_sent"]
        assert counters["http_sent"] + counters["http_lost"] == 300


def test_small_maps_and_disorder() -> None:
    """With next to no room for anything, random conversations lose exchanges and invent none."""
    small = {"FLOWS": 64, "HELD_FLOWS": 8, "HTTP_PARTIAL": 8}
    with loaded.kernel(kernel_source(pending=64), BuildOptions(defines=small)) as kernel:
        tally = Tally()
        for number in range(150):
            verdict = randoms.run(kernel, SUITES["late-noise"], 11, number, tally)

            assert not verdict.complaints, "\n".join(verdict.complaints[:5])
