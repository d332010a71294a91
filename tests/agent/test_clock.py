"""Kernel time to Unix time."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from otel_ebpf_receiver.kernel.clock import Clock, read_offset_ns

MS = 1_000_000
S = 1000 * MS


class Readings:
    """Readings of two clocks that a test sets."""

    def __init__(self, *readings: tuple[int, int]) -> None:
        self._readings: Iterator[tuple[int, int]] = iter(readings)

    def __call__(self) -> tuple[int, int]:
        return next(self._readings)


def test_times_of_now_are_right_to_a_millisecond() -> None:
    """A monotonic time taken now becomes the Unix time of now."""
    clock = Clock()

    clock.measure()
    monotonic, unix = time.monotonic_ns(), time.time_ns()

    assert abs(int(clock.unix_ns(np.array([monotonic], np.uint64))[0]) - unix) < MS


def test_the_offset_is_read_between_two_readings() -> None:
    """The measured pair fits both clocks."""
    at, offset = read_offset_ns()

    assert abs(time.monotonic_ns() - at) < S
    assert abs(at + offset - time.time_ns()) < S


def test_a_step_divides_before_from_after() -> None:
    """Exchanges from before a step keep the old clock though they are drained after it; later ones take the new one."""
    clock = Clock(Readings((10 * S, 1000 * S), (20 * S, 1000 * S), (20 * S + 20 * MS, 4600 * S), (30 * S, 4600 * S)))

    for _ in range(3):
        clock.measure()
    unix = clock.unix_ns(np.array([15 * S, 20 * S, 20 * S + 19 * MS, 29 * S], np.uint64))

    assert unix.tolist() == [1015 * S, 1020 * S, 4620 * S + 19 * MS, 4629 * S]


def test_a_slow_drift_is_followed() -> None:
    """A clock that is slewed by 500 µs a second stays within a millisecond, also for an exchange that began minutes ago."""
    drift = [(n * S // 4, 1000 * S + n * S // 4 * 500 // 1_000_000) for n in range(2400)]
    clock = Clock(Readings(*drift))

    for _ in drift[1:]:
        clock.measure()
    at = np.array([drift[n][0] for n in (100, 1200, 2399)], np.uint64)
    error = clock.offsets_ns(at) - np.array([drift[n][1] for n in (100, 1200, 2399)])

    assert np.abs(error).max() < MS


def test_noise_is_no_step() -> None:
    """Readings that differ by less than a measurement is worth leave one offset."""
    clock = Clock(Readings((1 * S, 5 * S), (2 * S, 5 * S + 9_000), (3 * S, 5 * S - 9_000)))

    clock.measure()
    clock.measure()

    assert clock.offsets_ns(np.array([1 * S, 3 * S], np.uint64)).tolist() == [5 * S, 5 * S]


def test_a_duration_never_changes() -> None:
    """One offset per exchange: its end less its start is what the kernel measured, though a step lies between them."""
    clock = Clock(Readings((1 * S, 0), (2 * S, 0), (3 * S, -3600 * S)))
    start, end = np.array([2 * S], np.uint64), np.array([3 * S], np.uint64)

    clock.measure()
    clock.measure()
    offsets = clock.offsets_ns(start)

    assert int((end.astype(np.int64) + offsets - (start.astype(np.int64) + offsets))[0]) == S
