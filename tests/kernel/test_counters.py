"""Nothing is silent: the kernel's counters add up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import loaded, randoms
from tests.kernel.harness import Kernel
from tests.kernel.randoms import Tally
from tests.kernel.suites import SUITES
from tests.wire import packets
from tests.wire.packets import ETHERTYPE_ARP

COUNTERS = Path(__file__).parents[2] / "bpf" / "counters.h"


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """Programs that nothing else has filled: nothing is evicted, so sums are exact."""
    with loaded.kernel() as kernel:
        yield kernel


def outcomes() -> list[str]:
    """Names of the outcomes of a packet, from the list that the programs count by."""
    return re.findall(r"OUTCOME\((\w+)\)", COUNTERS.read_text(encoding="utf-8"))


def mixed(kernel: Kernel, count: int) -> None:
    """Conversations of all suites, and packets that are none."""
    for name in ("noise", "late-noise", "unseen-tenth", "everything"):
        for number in range(count):
            randoms.run(kernel, SUITES[name], 99, number, Tally())
    kernel.programs.test_run(packets.ethernet(bytes(28), ETHERTYPE_ARP), time_ns=kernel.clock_ns)


def test_every_packet_has_one_outcome(kernel: Kernel) -> None:
    """The outcomes add up to the packets."""
    mixed(kernel, 60)

    counters = kernel.counters()

    assert "bare_ack" in outcomes()
    assert sum(counters[name] for name in outcomes()) == counters["packets"] > 0


def test_every_exchange_has_one_end(kernel: Kernel) -> None:
    """opened = answered + reset + closed + given up + evicted + open now."""
    mixed(kernel, 60)

    left = kernel.programs.open_requests()
    counters = kernel.counters()

    ended = sum(counters[f"http_{name}"] for name in ("answered", "reset", "closed", "given_up"))
    assert counters["http_opened"] == ended + left.count
    assert ended - counters["http_given_up"] == counters["http_sent"] + counters["http_lost"]


def test_records_sent_are_records_drained(kernel: Kernel) -> None:
    """Every record that the kernel counts as sent arrives."""
    kernel.drain()
    before = kernel.counters()["http_sent"]
    tally = Tally()

    arrived = 0
    for number in range(50):
        flow, _ = randoms.make(SUITES["noise"], 77, number, kernel.next(), kernel.clock_ns)
        kernel.clock_ns = flow.now_ns + 1000
        arrived += len(kernel.records(flow))

    assert tally.wrong == 0
    assert kernel.counters()["http_sent"] - before == arrived > 0


def test_every_flow_has_one_kind(kernel: Kernel) -> None:
    """Connections by kind are never more than connections."""
    mixed(kernel, 30)

    counters = kernel.counters()

    kinds = sum(counters[f"flows_{kind}"] for kind in ("http", "tls", "http2", "other"))
    assert 0 < kinds <= counters["flows"]
    assert counters["flows_ended"] <= counters["flows"]
