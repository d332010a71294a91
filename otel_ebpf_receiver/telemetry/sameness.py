"""One exchange crosses several watched devices: of its copies the best is kept, the others are dropped and counted.

Copies have equal keys (TCP numbers and the start of the start line, never addresses) and were seen within seconds at different taps, or at one
tap in both directions (a call that turns round there); equal keys in one direction of one tap are two exchanges. A tap of rank 0 is a workload's
own: there the direction tells which side the workload is, and one copy of each side is kept. Records wait a moment, so that the best copy wins
although it is not the first. Memory is bounded and its misses are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from otel_ebpf_receiver.telemetry.columns import I64, U64, Bools, Records, Seen, opaque, picked
from otel_ebpf_receiver.telemetry.keys import mix

OWN_TAP = 0
_ARRIVED = 1
_DIRECTIONS = 4
UNKNOWN_RANK = 1 << 20
_SIDES = 2


@dataclass(frozen=True, slots=True)
class OnceOptions:
    """`hold_ns`: records younger than this wait. `window_ns`: how long a copy may come late. `slots`: keys remembered, a power of two."""

    hold_ns: int = 20_000_000
    window_ns: int = 5_000_000_000
    slots: int = 1 << 17
    held_max: int = 1 << 16


@dataclass(frozen=True, slots=True)
class Admitted:
    """Records that go on. `arrived`: those of which some copy was seen coming in, so that the node may only have passed it on; None: not
    known, for want of taps to compare."""

    records: Records
    arrived: Bools | None = None


class Ranks:
    """The preference order of taps by interface index; lower wins, 0 is a workload's own tap. Immutable; replaced whole when taps change."""

    def __init__(self, ranks: Mapping[int, int]) -> None:
        self._taps = np.array(sorted(ranks), np.int64)
        self._ranks = np.array([*(ranks[tap] for tap in sorted(ranks)), UNKNOWN_RANK], np.int64)

    def __len__(self) -> int:
        return len(self._taps)

    def of(self, taps: I64) -> I64:
        """The rank of each tap."""
        at = np.searchsorted(self._taps, taps)
        known = self._taps[np.minimum(at, len(self._taps) - 1)] == taps if len(self._taps) else np.zeros(len(taps), bool)
        return self._ranks[np.where(known, at, len(self._taps))]


class Once:
    """Keeps one copy of each exchange and side. One per source."""

    def __init__(self, options: OnceOptions | None = None) -> None:
        self._options = options or OnceOptions()
        self._held: Records | None = None
        # Made with the first use, of which there is none while only one tap is watched.
        self._key, self._place, self._time_ms = np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._has_nobodys = False
        self.copies = 0
        """Records dropped because another copy was kept."""
        self.forgotten = 0
        """Keys that had to leave before a late copy of theirs could have come."""
        self.hurried = 0
        """Records that did not wait for better copies for want of room."""

    @property
    def held(self) -> int:
        """Records that wait."""
        return len(self._held) if self._held is not None else 0

    def admit(self, records: Records, see: Callable[[Records], Seen], ranks: Ranks, *, now_ns: int, is_last: bool = False) -> Admitted:
        """The records that go on now. `now_ns` is of the records' clock; `is_last`: nothing may wait any more."""
        if len(ranks) < 2 and self._held is None:
            return Admitted(records)
        if self._held is not None:
            records = np.concatenate((opaque(self._held), opaque(records))).view(records.dtype)
            self._held = None
        if not len(records):
            return Admitted(records)
        if not len(self._key):
            self._make_memory()
        seen = see(records)
        ready = np.ones(len(records), bool) if is_last else self._ready(seen, now_ns)
        if not ready.all():
            self._held, records = picked(records, ~ready), picked(records, ready)
            seen = Seen(seen.key[ready], seen.tap[ready], seen.direction[ready], seen.end_ns[ready])
        kept, arrived = self._best(seen, ranks, now_ns)
        self.copies += len(kept) - int(np.count_nonzero(kept))
        return Admitted(records, arrived) if kept.all() else Admitted(picked(records, kept), arrived[kept])

    def _make_memory(self) -> None:
        slots = self._options.slots
        self._key, self._place, self._time_ms = np.zeros(slots, np.uint64), np.zeros(slots, np.int64), np.full(slots, -1, np.int64)

    def _ready(self, seen: Seen, now_ns: int) -> Bools:
        hold = self._options.hold_ns
        age = now_ns - seen.end_ns.astype(np.int64)
        young = age < hold
        if int(np.count_nonzero(young)) > self._options.held_max:
            self.hurried += int(np.count_nonzero(young))
            return np.ones(len(young), bool)
        # A copy that is just old enough waits for one that is not yet.
        young |= (age < 2 * hold) & np.isin(seen.key, seen.key[young])
        return ~young

    def _best(self, seen: Seen, ranks: Ranks, now_ns: int) -> tuple[Bools, Bools]:
        """Rows that are kept, and rows of which a copy came in somewhere."""
        rank = ranks.of(seen.tap)
        # Of both directions of one tap the one that leaves to the answerer comes first.
        place = seen.tap * _DIRECTIONS - seen.direction
        role = np.where(rank == OWN_TAP, seen.direction, 0).astype(np.int64)
        kept, arrived = np.ones(len(rank), bool), seen.direction == _ARRIVED
        order = np.argsort(seen.key, kind="stable")
        keys = seen.key[order]
        same = keys[1:] == keys[:-1]
        if same.any():
            rows = np.sort(order[np.concatenate((same, [False])) | np.concatenate(([False], same))])
            kept[rows] = _winners(seen.key[rows], role[rows], rank[rows], place[rows])
            arrived[rows] = np.isin(seen.key[rows], seen.key[rows[arrived[rows]]])
        now_ms = now_ns // 1_000_000
        keys = mix(seen.key, role)
        # A copy of the same side from elsewhere already went on; or any, where one of the two taps is nobody's own.
        late = self._recall(keys, place, now_ms)
        nobodys = role == 0
        if nobodys.any():
            for side in range(1, _SIDES + 1):
                late[nobodys] |= self._recall(_keyed(seen.key[nobodys], side), place[nobodys], now_ms)
            self._has_nobodys = True
        if self._has_nobodys:
            late |= ~nobodys & self._recall(_keyed(seen.key, 0), place, now_ms)
        kept &= ~late
        self._remember(keys[kept], place[kept], now_ms)
        return kept, arrived

    def _recall(self, keys: U64, places: I64, now_ms: int) -> Bools:
        """Rows whose key went on from another place not long ago."""
        at = self._slots(keys)
        out: Bools = (self._key[at] == keys) & (self._place[at] != places)
        if out.any():
            out &= self._is_fresh(at, now_ms)
        return out

    def _is_fresh(self, at: I64, now_ms: int) -> Bools:
        return (self._time_ms[at] >= 0) & (now_ms - self._time_ms[at] < self._options.window_ns // 1_000_000)

    def _remember(self, keys: U64, places: I64, now_ms: int) -> None:
        at = self._slots(keys)
        others = self._key[at] != keys
        self.forgotten += int(np.count_nonzero(others & self._is_fresh(at, now_ms)))
        self._key[at], self._place[at], self._time_ms[at] = keys, places, now_ms

    def _slots(self, keys: U64) -> I64:
        return (keys & np.uint64(self._options.slots - 1)).astype(np.int64)


def _keyed(key: U64, role: int) -> U64:
    return mix(key, np.full(len(key), role, np.int64))


def _winners(key: U64, role: I64, rank: I64, place: I64) -> Bools:
    """Which of some rows with shared keys are kept: all rows of the best place of each key and side; nobody's taps only where no own tap saw it."""
    order = np.lexsort((place, rank, role, key))
    key, role, place = key[order], role[order], place[order]
    starts = np.concatenate(([True], (key[1:] != key[:-1]) | (role[1:] != role[:-1])))
    group = np.cumsum(starts) - 1
    best = place == place[np.flatnonzero(starts)][group]
    key_starts = np.concatenate(([True], key[1:] != key[:-1]))
    key_group = np.cumsum(key_starts) - 1
    has_own = np.bitwise_or.reduceat(role > 0, np.flatnonzero(key_starts))[key_group]
    out = np.zeros(len(order), bool)
    out[order] = best & ((role > 0) | ~has_own)
    return out
