"""Who listens to the live page, as server-sent events: few listeners, each with a bounded queue that drops its oldest and counts.

Whoever publishes looks at `listeners` first, so that nothing is made while nobody listens.
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping

LISTENERS_MAX = 8
"""Four pages: each listens to the state and to the exchanges."""
MESSAGES_MAX = 64
BYTES_MAX = 4 << 20
QUIET_S = 10.0
"""After so long without a message a comment is sent, which finds out whether the listener is still there."""
RETRY_MS = 1000


class Listener:
    """One stream to one browser; a `Stream` for the server that carries it. One thread puts, another iterates."""

    def __init__(self, topic: str, parameters: Mapping[str, str], on_close: Callable[[Listener], None]) -> None:
        self.topic, self.parameters = topic, dict(parameters)
        self.is_new = True
        """Nothing was published to it yet; the publisher says when that changes."""
        self.dropped = 0
        """Messages that found no room because the listener is too slow."""
        self._on_close = on_close
        self._changed = threading.Condition()
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._is_closed = False

    def put(self, event: str, data: str) -> None:
        """Queues a message of one line; never blocks, drops the oldest when there is no room."""
        message = f"event: {event}\ndata: {data}\n\n".encode("utf-8", "replace")
        with self._changed:
            self._messages.append(message)
            self._bytes += len(message)
            while len(self._messages) > MESSAGES_MAX or (self._bytes > BYTES_MAX and len(self._messages) > 1):
                self._bytes -= len(self._messages.popleft())
                self.dropped += 1
            self._changed.notify()

    def __iter__(self) -> Iterator[bytes]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._messages or self._is_closed, QUIET_S)
                if self._is_closed:
                    return
                piece = b"".join(self._messages) or b": still here\n\n"
                self._messages.clear()
                self._bytes = 0
            yield piece

    def close(self) -> None:
        """Ends the stream and frees its place; safe twice."""
        with self._changed:
            self._is_closed = True
            self._messages.clear()
            self._changed.notify()
        self._on_close(self)


class Hub:
    """All listeners. `listeners` is replaced whole and may be read by any thread."""

    def __init__(
        self, check: Callable[[str, Mapping[str, str]], None] = lambda topic, parameters: None, *, most: int = LISTENERS_MAX
    ) -> None:
        """`check` raises ValueError for parameters that a topic does not take."""
        self.listeners: tuple[Listener, ...] = ()
        self.refused = 0
        self._check, self._most = check, most
        self._lock = threading.Lock()
        self._dropped = 0
        self._is_closed = False

    @property
    def dropped(self) -> int:
        """Messages that slow listeners did not get."""
        with self._lock:
            return self._dropped + sum(one.dropped for one in self.listeners)

    def open(self, topic: str, parameters: Mapping[str, str]) -> Listener | None:
        """A new listener; None when there are as many as may be. Raises ValueError."""
        self._check(topic, parameters)
        with self._lock:
            if self._is_closed or len(self.listeners) >= self._most:
                self.refused += 1
                return None
            listener = Listener(topic, parameters, self._leave)
            self.listeners = (*self.listeners, listener)
            return listener

    def close(self) -> None:
        """Ends every stream; no more are opened."""
        self._is_closed = True
        for one in self.listeners:
            one.close()

    def _leave(self, listener: Listener) -> None:
        with self._lock:
            if listener in self.listeners:
                self._dropped += listener.dropped
                self.listeners = tuple(one for one in self.listeners if one is not listener)
