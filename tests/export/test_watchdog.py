"""What takes too long is ended, by one thread however many exchanges there are."""

from __future__ import annotations

import threading
import time

from otel_ebpf_receiver.export.http.watchdog import Watchdog


def test_only_what_takes_too_long_is_bitten() -> None:
    """An end in time is left alone, whatever was allowed before; one bite each, and the next exchange starts afresh."""
    bites = list[float]()
    watchdog = Watchdog(lambda: bites.append(time.monotonic()))
    watchdog.arm(30)
    assert not watchdog.disarm()

    begun = time.monotonic()
    watchdog.arm(0.05)
    while not bites and time.monotonic() < begun + 10:
        time.sleep(0.01)
    was_late = watchdog.disarm()
    watchdog.arm(30)

    assert was_late
    assert not watchdog.disarm()
    assert len(bites) == 1
    assert bites[0] >= begun + 0.05
    watchdog.close()


def test_many_exchanges_have_one_thread() -> None:
    """And none when it is closed."""
    before = set(threading.enumerate())
    watchdog = Watchdog(lambda: None)
    for _ in range(50):
        watchdog.arm(30)
        watchdog.disarm()
    (thread,) = set(threading.enumerate()) - before
    watchdog.close()
    thread.join(10)

    assert not thread.is_alive()
