"""Copies of one exchange are one exchange, two exchanges stay two, whatever the order in which taps deliver them."""

from __future__ import annotations

import numpy as np
import pytest

from otel_ebpf_receiver.telemetry.columns import Records, Seen
from otel_ebpf_receiver.telemetry.sameness import Once, OnceOptions, Ranks

MS = 1_000_000
RECORD = np.dtype([("key", "<u8"), ("tap", "<i8"), ("direction", "u1"), ("end", "<u8")])
VETH_A, VETH_B, BRIDGE, UPLINK = 1, 2, 3, 4
RANKS = Ranks({VETH_A: 0, VETH_B: 0, BRIDGE: 5, UPLINK: 9})
ARRIVED, LEFT = 1, 2


def records(*rows: tuple[int, int, int, int]) -> Records:
    """Records of (key, tap, direction, end)."""
    return np.array(list(rows), RECORD)


def see(batch: Records) -> Seen:
    """What tells them apart."""
    return Seen(batch["key"], batch["tap"], batch["direction"], batch["end"])


def admit(once: Once, batch: Records, now_ms: int = 1000, ranks: Ranks = RANKS) -> list[tuple[int, int]]:
    """Key and tap of the records that go on."""
    out = once.admit(batch, see, ranks, now_ns=now_ms * MS).records
    return [(int(row["key"]), int(row["tap"])) for row in out]


def test_the_best_tap_wins_and_the_others_are_counted() -> None:
    """Of copies at an uplink and a bridge the bridge's is kept."""
    once = Once()

    assert admit(once, records((7, UPLINK, LEFT, 0), (7, BRIDGE, LEFT, 0), (8, UPLINK, LEFT, 0))) == [(7, BRIDGE), (8, UPLINK)]
    assert once.copies == 1


def test_both_sides_of_same_node_traffic_are_kept() -> None:
    """The asker's and the answerer's own taps give one record each; what is nobody's own goes."""
    once = Once()

    kept = admit(once, records((7, BRIDGE, LEFT, 0), (7, VETH_A, ARRIVED, 0), (7, UPLINK, LEFT, 0), (7, VETH_B, LEFT, 0)))

    assert kept == [(7, VETH_A), (7, VETH_B)]
    assert once.copies == 2


def test_equal_keys_at_one_tap_are_two_exchanges() -> None:
    """The same key twice at the best tap stays twice, in one batch and over batches."""
    once = Once()

    assert admit(once, records((7, VETH_A, LEFT, 0), (7, VETH_A, LEFT, 1), (7, BRIDGE, LEFT, 1))) == [(7, VETH_A), (7, VETH_A)]
    assert admit(once, records((7, VETH_A, LEFT, 900 * MS))) == [(7, VETH_A)]


def test_a_call_that_turns_round_at_one_tap_is_one_exchange() -> None:
    """In and out by one device: nobody's tap keeps the copy that leaves, at once or late; a workload's own keeps both sides."""
    once = Once()

    assert admit(once, records((7, BRIDGE, ARRIVED, 0), (7, BRIDGE, LEFT, 1), (8, VETH_A, ARRIVED, 0), (8, VETH_A, LEFT, 1))) == [
        (7, BRIDGE),
        (8, VETH_A),
        (8, VETH_A),
    ]
    assert admit(once, records((7, BRIDGE, ARRIVED, 900 * MS), (9, UPLINK, ARRIVED, 900 * MS))) == [(9, UPLINK)]
    assert admit(once, records((9, UPLINK, LEFT, 950 * MS)), 1050) == []
    assert once.copies == 3


def test_a_late_copy_is_dropped_within_the_window() -> None:
    """A copy that comes seconds later is still a copy; after the window it is an exchange of its own."""
    once = Once(OnceOptions(window_ns=5_000 * MS))
    admit(once, records((7, VETH_A, LEFT, 0), (9, BRIDGE, LEFT, 0)))

    assert admit(once, records((7, UPLINK, LEFT, 0), (9, VETH_B, ARRIVED, 0)), 3000) == []
    assert admit(once, records((7, UPLINK, LEFT, 0)), 7000) == [(7, UPLINK)]
    assert once.copies == 2


def test_young_records_wait_for_a_better_copy() -> None:
    """The first copy waits 20 ms, so that the better one wins although it comes in the next batch; nothing waits at the end."""
    once = Once()

    assert admit(once, records((7, BRIDGE, LEFT, 995 * MS)), 1000) == []
    assert once.held == 1
    assert admit(once, records((7, VETH_A, LEFT, 996 * MS)), 1015) == []
    assert admit(once, records(), 1040) == [(7, VETH_A)]
    admit(once, records((8, BRIDGE, LEFT, 1040 * MS)), 1041)
    assert len(once.admit(records(), see, RANKS, now_ns=1042 * MS, is_last=True).records) == 1
    assert once.held == 0


def test_one_tap_alone_does_not_wait() -> None:
    """Where only one tap is watched there are no copies, and nothing is held."""
    assert admit(Once(), records((7, BRIDGE, LEFT, 1000 * MS)), 1000, Ranks({BRIDGE: 5})) == [(7, BRIDGE)]


def test_what_waits_and_what_is_remembered_are_bounded() -> None:
    """Beyond its bounds nothing is lost: records go on early and forgotten keys are counted."""
    once = Once(OnceOptions(slots=4, held_max=10))
    random = np.random.default_rng(1).permutation(40)

    kept = admit(once, records(*((int(key), BRIDGE, LEFT, 1000 * MS) for key in random)), 1000)

    assert len(kept) == 40
    assert once.hurried == 40
    admit(once, records(*((int(key) + 100, UPLINK, LEFT, 0) for key in random)), 1001)
    assert once.forgotten > 0


@pytest.mark.parametrize("seed", range(5))
def test_random_traffic_is_counted_once(seed: int) -> None:
    """Whatever the order and the batches, every exchange goes on exactly once per side, and all records are accounted for."""
    random = np.random.default_rng(seed)
    made = []
    for key in range(500):
        taps = [(VETH_A, ARRIVED), (VETH_B, LEFT), (BRIDGE, LEFT), (UPLINK, LEFT)]
        chosen = random.choice(4, random.integers(1, 5), replace=False)
        made += [(key, *taps[place], (key * 100_000 + int(random.integers(0, 5 * MS)))) for place in chosen]
    made.sort(key=lambda row: row[3])
    once, out, now = Once(), list[tuple[int, int]](), 0
    for start in range(0, len(made), 50):
        part = records(*made[start : start + 50])
        now = int(part["end"][-1])
        out += [(int(row["key"]), int(row["tap"])) for row in once.admit(part, see, RANKS, now_ns=now).records]
    out += [(int(row["key"]), int(row["tap"])) for row in once.admit(records(), see, RANKS, now_ns=now, is_last=True).records]

    expected = []
    for key in range(500):
        taps_seen = {row[1] for row in made if row[0] == key}
        expected += [(key, tap) for tap in sorted(taps_seen & {VETH_A, VETH_B} or {min(taps_seen)})]
    assert sorted(out) == expected
    assert once.copies + len(out) == len(made)


def test_an_unknown_tap_has_the_last_rank() -> None:
    """A tap that was not ranked loses against every other."""
    assert Ranks({5: 3}).of(np.array([5, 6, 4])).tolist() == [3, 1 << 20, 1 << 20]
    assert Ranks({}).of(np.array([5])).tolist() == [1 << 20]
