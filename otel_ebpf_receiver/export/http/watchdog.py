"""Ends what takes too long, with one thread for as many exchanges as come one after the other: a `threading.Timer` would be a new thread for each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Watchdog:
    """Calls `bite` from a thread of its own when `disarm` has not come in time. `arm` and `disarm` belong to one thread."""

    def __init__(self, bite: Callable[[], None]) -> None:
        self._bite = bite
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._looks_at: float | None = None
        """When the thread wakes next; it is not woken for what ends later than that."""
        self._bitten = self._closed = False
        self._thread: threading.Thread | None = None

    def arm(self, seconds: float) -> None:
        """From now on, until `disarm`."""
        with self._changed:
            self._deadline, self._bitten = time.monotonic() + seconds, False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            elif self._looks_at is None or self._deadline < self._looks_at:
                self._changed.notify_all()

    def disarm(self) -> bool:
        """Whether it was too late."""
        with self._changed:
            self._deadline = None
            return self._bitten

    def close(self) -> None:
        """Ends the thread. Safe twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                if self._deadline is not None and self._deadline <= now:
                    self._deadline, self._bitten = None, True
                    self._bite()
                self._looks_at = self._deadline
                self._changed.wait(None if self._looks_at is None else self._looks_at - now)
