"""Random conversations through the kernel, held against their own truth."""

from __future__ import annotations

import pytest

from tests.kernel import harness, randoms
from tests.kernel.harness import Kernel
from tests.kernel.randoms import SUITES, Tally

SEED = 20240101


def play(kernel: Kernel, name: str, count: int) -> Tally:
    """`count` conversations of a suite; fails at the first that is wrong."""
    tally = Tally()
    for number in range(count):
        verdict = randoms.run(kernel, SUITES[name], SEED, number, tally)

        assert not verdict.complaints, "\n".join(
            [f"{name} --seed {SEED} --only {number}", *verdict.complaints[:10], harness.transcript(verdict.flow)[:20000]]
        )
    return tally


@pytest.mark.parametrize(("name", "count"), [("whole", 500), ("cut", 800), ("bytes", 100), ("long", 150), ("noise", 800)])
def test_without_loss_every_exchange_is_exact(kernel: Kernel, name: str, count: int) -> None:
    """Every exchange is reported once, right in every field, and nothing else is."""
    tally = play(kernel, name, count)

    assert tally.share("other") == 1.0
    assert tally.share("chunked") == 1.0


def test_disorder_costs_little(kernel: Kernel) -> None:
    """With 1 % of segments out of order and 1 % lost before the tap and sent again, 97 % and 90 % are reported, none false."""
    tally = play(kernel, "late", 700)

    assert tally.share("other") >= 0.97, str(tally)
    assert tally.share("chunked") >= 0.90, str(tally)


@pytest.mark.parametrize(
    ("name", "count"), [("late-noise", 500), ("unseen", 600), ("unseen-tenth", 600), ("unseen-wire", 300), ("everything", 500)]
)
def test_with_loss_nothing_is_false(kernel: Kernel, name: str, count: int) -> None:
    """Whatever the tap misses, what is reported is true, and something is."""
    tally = play(kernel, name, count)

    assert sum(tally.reported.values()) > sum(tally.asked.values()) * 0.1, str(tally)
