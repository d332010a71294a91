"""The watch over network interfaces: an own rtnetlink client, and a thread that tells of every change.

It keeps the table of links of the network namespace it was made in, applies the kernel's messages to it and reads the whole table again
when the kernel had to drop some (ENOBUFS). It decides nothing about the links; `taps.py` does.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from otel_ebpf_receiver.capture.links import Address, Change, Link, Messages, Refused, addresses_request, dump_request, link_request, parse
from otel_ebpf_receiver.errors import CaptureError

_RTMGRP_LINK = 1
_DATAGRAM = 1 << 16
"""A dump is cut into datagrams of at most 32 KiB (NLMSG_GOODSIZE and the reader's size)."""
_QUEUE = 1 << 20
"""Bytes of messages the kernel keeps for us: about 500 changes."""
_TRIES = 8
REVIEW_S = 10.0
_LOG = logging.getLogger(__name__)

Changed = Callable[[Mapping[int, Link], frozenset[int]], None]
"""Called with all links by index, and the indices that went away since the last call (one may be back already, as another link)."""


def _open(groups: int) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        sock.bind((0, groups))
    except OSError:
        sock.close()
        raise
    return sock


def list_links() -> dict[int, Link]:
    """Every link of the calling thread's network namespace, by index. Raises `CaptureError`."""
    try:
        with _open(0) as sock:
            return _dump(sock)
    except (OSError, Refused) as error:
        raise CaptureError(f"the list of network interfaces cannot be read: {error}; rtnetlink must be allowed (seccomp)") from error


def list_addresses() -> list[Address]:
    """Every address of the calling thread's network namespace that is known beyond its link. Raises `CaptureError`."""
    try:
        with _open(0) as sock:
            return [address for messages in _ask(sock, addresses_request) for address in messages.addresses]
    except (OSError, Refused) as error:
        raise CaptureError(f"the addresses of network interfaces cannot be read: {error}; rtnetlink must be allowed (seccomp)") from error


def _dump(sock: socket.socket) -> dict[int, Link]:
    changes = (change for messages in _ask(sock, dump_request) for change in messages.changes)
    return {change.link.index: change.link for change in changes if not change.is_gone}


def _ask(sock: socket.socket, request: Callable[[int], bytes]) -> list[Messages]:
    """The whole answer to a request for a table, asked again while the table changes under the answer."""
    for sequence in range(1, _TRIES + 1):
        sock.send(request(sequence))
        found = [parse(sock.recv(_DATAGRAM))]
        while not found[-1].is_done:
            found.append(parse(sock.recv(_DATAGRAM)))
        if not any(messages.was_interrupted for messages in found):
            break
    return found


class LinkWatch:
    """The table of links, kept up to date by a thread.

    `changed` runs in the calling thread once, at `start`, then in the watch's own, as `review` does every `REVIEW_S`.

    It belongs to the network namespace of the thread that makes it.
    """

    def __init__(self, changed: Changed, review: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._review = review
        self._links: dict[int, Link] = {}
        self._lock = threading.Lock()
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)
        self._thread: threading.Thread | None = None
        self.resyncs = 0
        """Times that the kernel had dropped messages and the whole table was read again."""
        self.failures = 0
        try:
            self._events = _open(_RTMGRP_LINK)
            self._requests = _open(0)
        except OSError as error:
            raise CaptureError(f"network interfaces cannot be watched: {error}; rtnetlink must be allowed (seccomp)") from error
        self._events.setblocking(False)
        with contextlib.suppress(OSError):
            self._events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)

    def start(self) -> None:
        """Read the table, tell of it, and go on in a thread. Subscribed before: no change is missed in between."""
        self._links = self._whole()
        self._changed(dict(self._links), frozenset())
        self._thread = threading.Thread(target=self._run, name="links", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close every descriptor. May be called twice, and before `start`."""
        with self._lock:
            if self._stop_write < 0:
                return
            os.write(self._stop_write, b"x")
            if self._thread:
                self._thread.join()
            for descriptor in (self._stop_read, self._stop_write):
                os.close(descriptor)
            self._stop_read = self._stop_write = -1
            self._events.close()
            self._requests.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _whole(self) -> dict[int, Link]:
        try:
            return _dump(self._requests)
        except (OSError, Refused) as error:
            raise CaptureError(f"the list of network interfaces cannot be read: {error}") from error

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._events, select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        next_review_s = time.monotonic() + REVIEW_S
        while True:
            ready = [descriptor for descriptor, _ in poll.poll(max(0.0, next_review_s - time.monotonic()) * 1000)]
            if self._stop_read in ready:
                return
            try:
                if ready:
                    self._step()
                if time.monotonic() >= next_review_s:
                    next_review_s = time.monotonic() + REVIEW_S
                    self._review()
            except Exception:
                # The outermost loop of a thread: one bad message must not end the watch.
                self.failures += 1
                _LOG.exception("network interfaces: a change could not be applied")

    def _step(self) -> None:
        gone: set[int] = set()
        try:
            for messages in self._pending():
                self._apply(messages, gone)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self.resyncs += 1
            self._forget_pending()
            fresh = self._whole()
            gone |= self._links.keys() - fresh.keys()
            self._links = fresh
        self._changed(dict(self._links), frozenset(gone))

    def _pending(self) -> list[Messages]:
        """All that waits, so that a burst of changes is one call of `changed`."""
        found: list[Messages] = []
        with contextlib.suppress(BlockingIOError):
            while len(found) < 256:
                found.append(parse(self._events.recv(_DATAGRAM)))
        return found

    def _forget_pending(self) -> None:
        """Empty the queue; the table is about to be read whole."""
        for _ in range(_QUEUE):
            try:
                self._events.recv(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                continue

    def _apply(self, messages: Messages, gone: set[int]) -> None:
        for change in messages.changes:
            if not change.is_gone:
                self._links[change.link.index] = change.link
                continue
            self._links.pop(change.link.index, None)
            gone.add(change.link.index)
            self._refresh_peer(change)

    def _refresh_peer(self, change: Change) -> None:
        """A veth whose peer moves to another namespace gets no message of its own; the peer's going is the sign to ask again."""
        if change.link.kind != "veth" or change.link.link not in self._links:
            return
        try:
            self._requests.send(link_request(change.link.link, 0))
            messages = parse(self._requests.recv(_DATAGRAM))
        except Refused:
            return
        for fresh in messages.changes:
            self._links[fresh.link.index] = fresh.link
