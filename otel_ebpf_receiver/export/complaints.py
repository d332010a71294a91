"""Repeated failures, said at most once a minute with the number of times they were kept back. Never given header values or bodies sent."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

INTERVAL_S = 60.0
WORDS_MAX = 240
KINDS_MAX = 64
"""Distinct kinds remembered; kinds are named by code, not by servers, so the bound is only a guard."""


class Complaints:
    """One per destination and signal, which `fields` name in every line; thread safe."""

    def __init__(self, logger: logging.Logger, fields: Mapping[str, str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._fields = dict(fields)
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._kept_back: dict[str, int] = {}

    def say(self, kind: str, words: str, *, items: int = 0) -> bool:
        """Logs `words` (cut) under `kind` unless that kind was logged in the last minute; whether it was logged."""
        with self._lock:
            now = self._clock()
            if now - self._last.get(kind, -INTERVAL_S) < INTERVAL_S or (kind not in self._last and len(self._last) >= KINDS_MAX):
                self._kept_back[kind] = self._kept_back.get(kind, 0) + 1
                return False
            self._last[kind] = now
            repeated = self._kept_back.pop(kind, 0)
        self._logger.warning("export " + kind, extra=self._fields | {"items": items, "repeated": repeated, "reason": words[:WORDS_MAX]})
        return True

    def relieve(self, tries: int) -> None:
        """Says that what was retried `tries` times in a row works again."""
        self._logger.info("export works again", extra=self._fields | {"tries": tries})
