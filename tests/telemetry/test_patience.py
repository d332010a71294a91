"""Who waits for a name: not longer than allowed, not more than there is room for, and asked again when there is news."""

from __future__ import annotations

import numpy as np

from otel_ebpf_receiver.telemetry.columns import Bools, Records
from otel_ebpf_receiver.telemetry.patience import Asking, Patience, PatienceOptions
from otel_ebpf_receiver.telemetry.sameness import Admitted

RECORD = np.dtype([("number", "<i8")])
S = 10**9


def asking(*numbers: int) -> Asking:
    """Records that come for the first time, of which odd ones arrived."""
    records = np.array([(number,) for number in numbers], RECORD)
    return Asking(Admitted(records, records["number"] % 2 == 1))


def every(one: Asking) -> Bools:
    """All of its rows."""
    return np.ones(len(one.admitted.records), bool)


def numbers(released: list[Asking]) -> list[tuple[list[int], bool]]:
    """What came out, and whether it has waited for good."""
    return [(column(one.admitted.records), one.has_waited) for one in released]


def column(records: Records) -> list[int]:
    """Their numbers."""
    found: list[int] = records["number"].tolist()
    return found


def test_rows_wait_until_their_time_is_over() -> None:
    """They come out once, with what was known of their arrival."""
    patience = Patience(PatienceOptions(wait_ns=2 * S))
    first = asking(1, 2, 3)
    patience.hold(first, np.array([True, False, True]), 10 * S)
    patience.release(10 * S, None, is_last=False)

    early, late = patience.release(11 * S, None, is_last=False), patience.release(12 * S, None, is_last=False)

    assert (numbers(early), numbers(late)) == ([], [([1, 3], True)])
    assert late[0].admitted.arrived is not None
    assert late[0].admitted.arrived.tolist() == [True, True]
    assert (patience.held, patience.waited) == (0, 2)


def test_news_lets_everybody_be_asked_again() -> None:
    """Who still is not known goes on waiting, no longer than it would have."""
    patience, news = Patience(PatienceOptions(wait_ns=2 * S)), object()
    one = asking(1)
    patience.release(10 * S, None, is_last=False)
    patience.hold(one, every(one), 10 * S)

    (again,) = patience.release(11 * S, news, is_last=False)
    patience.hold(again, every(again), 11 * S)

    assert not again.has_waited
    assert numbers(patience.release(11 * S, news, is_last=False)) == []
    assert numbers(patience.release(12 * S, news, is_last=False)) == [([1], True)]
    assert patience.waited == 1


def test_at_the_end_nobody_waits() -> None:
    """Everything leaves."""
    patience = Patience()
    one = asking(1)
    patience.hold(one, every(one), 10 * S)

    assert numbers(patience.release(10 * S, None, is_last=True)) == [([1], True)]


def test_there_is_room_for_so_many() -> None:
    """Beyond it, and where no time is given, nobody may wait."""
    patience = Patience(PatienceOptions(held_max=2))
    one = asking(1, 2)
    before = patience.has_room(every(one))
    patience.hold(one, every(one), 0)

    assert (before, patience.has_room(every(one)), Patience(PatienceOptions(wait_ns=0)).has_room(every(one))) == (True, False, False)
    assert patience.hurried == 2
