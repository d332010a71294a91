"""Under overload spans give way before metrics lose anything."""

from __future__ import annotations

import pytest

from otel_ebpf_receiver.agent.agent import FULL, FULL_PAUSE_MS, PAUSE_MS
from otel_ebpf_receiver.agent.relief import LEAST, Relief

ROOM = 25_000
METRIC_S, SPAN_S = 1.2e-6, 6e-6
"""What a record costs in all cases, and what it costs more when it becomes a span."""


def play(rate: float, seconds: float, relief: Relief | None, *, slowdown: float = 1.0) -> tuple[int, float]:
    """A ring that fills at `rate` while an agent sleeps and works, from the first second on `slowdown` times as slowly: records that found no room,
    and the share of the others that became spans."""
    now_s = waiting = lost = spans = seen = 0.0
    while now_s < seconds:
        taken, waiting = waiting, 0.0
        share = relief.look(int(taken), now_s) if relief else 1.0
        spans, seen = spans + taken * share, seen + taken
        work_s = taken * (METRIC_S + share * SPAN_S) * (slowdown if now_s > 1 else 1.0)
        if relief:
            relief.rest(now_s + work_s)
        took_s = work_s + (FULL_PAUSE_MS if taken > FULL * ROOM else PAUSE_MS) / 1000
        now_s += took_s
        waiting = rate * took_s
        lost, waiting = lost + max(0.0, waiting - ROOM), min(waiting, ROOM)
    return round(lost), spans / seen


def test_more_spans_than_can_be_made_cost_no_metric() -> None:
    """At a rate at which making every span loses records, thinning them loses none, and as many are made as time allows."""
    assert play(170_000, 20, None)[0] > 100_000
    lost, share = play(170_000, 20, Relief(ROOM))

    assert lost == 0
    assert 0.2 < share < 0.95


@pytest.mark.parametrize("slowdown", [3, 4, 6])
def test_a_cpu_that_is_suddenly_gone_costs_no_metric(slowdown: float) -> None:
    """From one drain to the next all spans take up to 2.6 times as long as there is; what drains find stays in the ring."""
    rate = 60_000
    assert play(rate, 20, None, slowdown=slowdown)[0] > 0
    lost, share = play(rate, 20, Relief(ROOM), slowdown=slowdown)

    assert lost == 0
    # Of the time that is left beside observations, most goes to spans.
    left = (1 / rate / slowdown - METRIC_S) / SPAN_S
    assert 0.5 * left < share < 1.2 * left + 0.05


def test_what_can_be_made_is_made() -> None:
    """At a rate that leaves time for all spans nothing is thinned, a burst out of silence included."""
    assert play(60_000, 20, Relief(ROOM)) == (0, 1.0)


def test_the_share_has_a_least_value_and_comes_back() -> None:
    """However long the overload, some spans are made; after it the share is whole again in a few seconds."""
    relief = Relief(ROOM)
    shares = [relief.look(ROOM, float(now)) for now in range(30)] + [relief.look(0, float(now)) for now in range(30, 70)]

    assert min(shares) == LEAST
    assert shares[-1] == 1.0
    assert relief.look(round(0.4 * ROOM), 70.0) == 1.0
