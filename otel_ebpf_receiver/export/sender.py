"""One thread that carries the payloads of one signal to one destination, in order, for as long as the queue holds them.

What an answer means is the transport's to say (`Verdict`); what follows from it is said here: settle, wait and try again, split, or
give up. It must not drop anything on its own but what the destination refused: only the queue's bounds and the end of the agent do.
"""

from __future__ import annotations

import enum
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from otel_ebpf_receiver.export.complaints import Complaints
from otel_ebpf_receiver.export.queue import Payload, Queue

RETRY_AFTER_MAX_S = 3600.0
"""A server that asks for more is taken to mean this: an agent silenced for ever by one answer would lose everything."""
FINISHING_PAUSE_S = 0.25
ABORT_GRACE_S = 0.5


class Verdict(enum.Enum):
    """What a destination did with a request."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    TOO_LARGE = "too large"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """The destination's answer: verdict, items it rejected of an accepted request, its words, and how long it asks to be left alone (0: at once)."""

    verdict: Verdict
    words: str = ""
    rejected: int = 0
    retry_after_s: float | None = None


class Transport(Protocol):
    """Carries one request at a time. `send` runs in the sender's thread, `abort` and `close` come from others; failures are answers."""

    def send(self, body: bytes, limit_s: float | None = None) -> Answer:
        """Sends `body` within the transport's own timeout and within `limit_s` seconds."""

    def abort(self) -> None:
        """Makes a running `send` return soon."""

    def close(self) -> None:
        """Releases the connection. Safe twice."""


Split = Callable[[Payload], Sequence[Payload]]
"""Halves a payload that was too large; fewer than two parts mean that it cannot be made smaller."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential, from `first_s` to `most_s`, with a jitter of ± `jitter` (of what a server asks for: + `jitter`): no fleet returns in step."""

    first_s: float = 0.5
    most_s: float = 10.0
    jitter: float = 0.2

    def delay_s(self, tries: int, draw: float) -> float:
        """Seconds to wait after `tries` failures in a row (≥ 1); `draw` is uniform in [0, 1)."""
        delay = min(self.most_s, self.first_s * 2.0 ** min(tries - 1, 30))
        return delay * (1 - self.jitter + 2 * self.jitter * draw)

    def asked_s(self, asked: float, draw: float) -> float:
        """Seconds to wait where a server asks for `asked` (> 0): never fewer, nor fewer than after a first failure, and up to `jitter` more."""
        pause = max(asked, self.first_s)
        return pause + min(pause * self.jitter, self.most_s) * draw


class Sender:
    """Owns the thread and the transport. `stop()` is safe twice and before `start()`."""

    def __init__(
        self,
        queue: Queue,
        transport: Transport,
        *,
        name: str,
        split: Split,
        complaints: Complaints,
        backoff: Backoff | None = None,
    ) -> None:
        self.queue = queue
        self._transport = transport
        self._split = split
        self._complaints = complaints
        self._backoff = backoff or Backoff()
        self._tries = 0
        self._deadline: float | None = None
        self._stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def finish(self, deadline: float) -> None:
        """No more payloads follow; the queued ones are to be out by `deadline` (`time.monotonic()`). Returns at once."""
        if self._deadline is None or deadline < self._deadline:
            self._deadline = deadline
        self.queue.seal()
        self._wake.set()

    def deadline_or_now(self) -> float:
        """The deadline of `finish`; now if there was none."""
        return time.monotonic() if self._deadline is None else self._deadline

    def stop(self) -> None:
        """Waits until everything is out or the deadline of `finish` (now, if there was none) has passed, then counts the rest as failed."""
        self.finish(self.deadline_or_now())
        if self._thread.is_alive():
            self._thread.join(max(0.0, (self._deadline or 0.0) - time.monotonic()))
        self._stopped = True
        if self._thread.is_alive():
            self._transport.abort()
            self._thread.join(ABORT_GRACE_S)
        self.queue.close()
        self._transport.close()

    def _run(self) -> None:
        while not self._stopped and (payload := self.queue.take()) is not None:
            try:
                answer = self._transport.send(payload.body, self._left_s())
            except Exception as error:  # the thread's outermost loop: a fault of a transport must not end the export of everything after it
                answer = Answer(Verdict.REFUSED, f"{type(error).__name__}: {error}")
            self._settle(payload, answer)

    def _settle(self, payload: Payload, answer: Answer) -> None:
        if answer.verdict is Verdict.RETRY:
            self._retry(payload, answer)
            return
        tries, self._tries = self._tries, 0
        if answer.verdict is Verdict.ACCEPTED:
            if tries:
                self._complaints.relieve(tries)
            if answer.rejected:
                self._complaints.say("partly rejected", answer.words, items=answer.rejected)
            elif answer.words:
                self._complaints.say("accepted with a warning", answer.words)
            self.queue.accept(answer.rejected)
        elif answer.verdict is Verdict.TOO_LARGE and len(parts := self._split(payload)) > 1:
            self.queue.replace(parts)
        else:
            self._complaints.say("failed", answer.words, items=payload.items)
            self.queue.fail()

    def _retry(self, payload: Payload, answer: Answer) -> None:
        self._tries += 1
        self._complaints.say("will be retried", answer.words, items=payload.items)
        self.queue.retry()
        # "At once" is no pause: to ask for none, or for one that is over, does not switch the back-off off.
        asked_s = min(max(0.0, answer.retry_after_s or 0.0), RETRY_AFTER_MAX_S)
        delay_s = self._backoff.asked_s(asked_s, random.random()) if asked_s else self._backoff.delay_s(self._tries, random.random())
        allowed = time.monotonic() + asked_s
        if self._wake.wait(delay_s):
            self._pause_while_finishing(max(allowed, time.monotonic() + FINISHING_PAUSE_S))

    def _pause_while_finishing(self, until: float) -> None:
        left_s = self._left_s() or 0.0
        pause_s = max(0.0, until - time.monotonic())
        if pause_s >= left_s:
            # The destination would be asked before it allows it, or not in time: the rest is given up now instead of at the deadline.
            self._stopped = True
            self.queue.close()
            return
        time.sleep(pause_s)

    def _left_s(self) -> float | None:
        return None if self._deadline is None else max(0.05, self._deadline - time.monotonic())
