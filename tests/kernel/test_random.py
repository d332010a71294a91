"""Random conversations through the kernel, held against their own truth."""

from __future__ import annotations

import pytest

from otel_ebpf_receiver.sources.http.record import Flag
from tests.kernel import expectation, harness, randoms
from tests.kernel.harness import Kernel
from tests.kernel.randoms import Tally
from tests.kernel.suites import SUITES

SEED = 20240101


def play(kernel: Kernel, name: str, count: int) -> Tally:
    """`count` conversations of a suite; fails at the first that is wrong."""
    tally = Tally()
    for number in range(count):
        verdict = randoms.run(kernel, SUITES[name], SEED, number, tally)

        again = f"--random {name} --seed {SEED} --only {number}"
        assert not verdict.complaints, "\n".join([again, *verdict.complaints[:10], harness.transcript(verdict.flow)[:20000]])
    return tally


@pytest.mark.parametrize(("name", "count"), [("whole", 500), ("cut", 800), ("bytes", 100), ("long", 150), ("noise", 800)])
def test_without_loss_every_exchange_is_exact(kernel: Kernel, name: str, count: int) -> None:
    """Every exchange is reported once, right in every field, and nothing else is."""
    tally = play(kernel, name, count)

    assert tally.share("other") == 1.0
    assert tally.share("chunked") == 1.0


@pytest.mark.parametrize(("name", "count"), [("late", 700), ("late-mixed", 500), ("late-pipelined", 300), ("late-far", 200)])
def test_disorder_costs_little(kernel: Kernel, name: str, count: int) -> None:
    """With 1 % of segments out of order and 1 % lost before the tap and sent again, 97 % and 90 % are reported, none false."""
    tally = play(kernel, name, count)

    assert tally.share("other") >= 0.97, str(tally)
    assert tally.share("chunked") >= 0.90, str(tally)


@pytest.mark.parametrize(
    ("name", "count", "least"),
    [
        ("late-noise", 400, 0.5),
        ("unseen", 600, 0.4),
        ("unseen-tenth", 600, 0.05),
        ("unseen-wire", 300, 0.5),
        ("snapped", 200, 0.03),
        ("snapped-noise", 200, 0.05),
        ("everything", 500, 0.2),
    ],
)
def test_with_loss_nothing_is_false(kernel: Kernel, name: str, count: int, least: float) -> None:
    """Whatever the tap misses, what is reported is true; and something is reported."""
    tally = play(kernel, name, count)

    assert sum(tally.reported.values()) > sum(tally.asked.values()) * least, str(tally)


def test_what_cannot_be_known_is_flagged(kernel: Kernel) -> None:
    """Where a request of a pipeline in lockstep was never seen, a pairing may be false; then it says that it came after a loss."""
    for number in range(300):
        flow, exchanges = randoms.make(SUITES["unseen-lockstep"], SEED, number, kernel.next(), kernel.clock_ns)
        kernel.clock_ns = flow.now_ns + 1000

        for got in kernel.records(flow):
            wrong = expectation.falsehoods(flow, exchanges, got)
            assert not wrong or got["flags"] & Flag.RESYNCHRONISED, (number, harness.brief(got), harness.shown(wrong))
