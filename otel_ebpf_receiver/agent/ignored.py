"""The agent's own connections, told to the kernel before they are opened. Senders call from their own threads."""

from __future__ import annotations

import threading
from typing import Protocol

Endpoint = tuple[str, int]


class Programs(Protocol):
    """What is needed of the kernel programs."""

    def ignore(self, local: Endpoint, remote: Endpoint) -> None: ...

    def unignore(self, local: Endpoint, remote: Endpoint) -> None: ...


class Ignored:
    """Adds and removes connections, until it is closed: then the programs may be gone."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._lock = threading.Lock()
        self._is_closed = False

    def add(self, local: Endpoint, remote: Endpoint) -> None:
        """Never report this connection. Raises `CaptureError` when there are too many."""
        with self._lock:
            if not self._is_closed:
                self._programs.ignore(local, remote)

    def remove(self, local: Endpoint, remote: Endpoint) -> None:
        """Forget it."""
        with self._lock:
            if not self._is_closed:
                self._programs.unignore(local, remote)

    def close(self) -> None:
        """Later calls do nothing."""
        with self._lock:
            self._is_closed = True
