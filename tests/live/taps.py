"""The loaded programs on real links, without the agent: what a tap shows, and conversations to show it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from otel_ebpf_receiver.capture.taps import open_tap
from otel_ebpf_receiver.kernel.programs import Programs
from tests.capture.namespaces import Namespace
from tests.kernel.expectation import decoded

PATIENCE_S = 20.0
PORT = 8080
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def drain(programs: Programs) -> list[dict[str, Any]]:
    """Records since the last time, as plain values."""
    return [decoded(row) for row in programs.transports["http"].drain()]


def grown(programs: Programs, before: dict[str, int]) -> dict[str, int]:
    """What the counters have grown by."""
    return {name: value - before[name] for name, value in programs.counters().items() if value != before[name]}


def wait_until(holds: Callable[[], bool]) -> None:
    """Until it holds; AssertionError when it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.005)


@contextlib.contextmanager
def tapped(programs: Programs, here: Namespace, name: str) -> Iterator[int]:
    """The programs watch this link; its index. Records of before are thrown away."""
    with here.inside():
        index = socket.if_nametoindex(name)
        programs.set_tap(index)
        tap = open_tap(programs, index)
    drain(programs)
    try:
        yield index
    finally:
        tap.close()
        programs.forget_tap(index)


@contextlib.contextmanager
def answering(here: Namespace, address: str, answer: bytes = ANSWER, port: int = PORT) -> Iterator[None]:
    """A server in the namespace that answers every segment with `answer`, one connection after the other."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with here.inside():
        listener = socket.create_server((address, port), family=family)
    thread = threading.Thread(target=_answer, args=(listener, answer), daemon=True)
    with accepting(listener, [thread]):
        yield


@contextlib.contextmanager
def accepting(listener: socket.socket, threads: list[threading.Thread]) -> Iterator[None]:
    """Starts the first thread, which accepts; in the end closes the listener and waits for all that are in the list by then."""
    threads[0].start()
    try:
        yield
    finally:
        # Wakes a thread that waits in accept; closing alone would not.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join(PATIENCE_S)


def _answer(listener: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            peer, _ = listener.accept()
            peer.settimeout(PATIENCE_S)
            with peer, contextlib.suppress(OSError):
                while peer.recv(65536):
                    peer.sendall(answer)


def ask(here: Namespace, address: str, request: bytes, *, times: int = 1, expect: int = len(ANSWER), port: int = PORT) -> None:
    """Sends the request on one connection, each time the `expect` bytes of the last answer have come."""
    with here.inside():
        peer = socket.create_connection((address, port), PATIENCE_S)
    with peer:
        for _ in range(times):
            peer.sendall(request)
            receive(peer, expect)


def receive(peer: socket.socket, size: int) -> None:
    """So many bytes, thrown away."""
    while size > 0:
        piece = peer.recv(min(size, 1 << 20))
        assert piece, f"the connection ended {size} bytes early"
        size -= len(piece)


@contextlib.contextmanager
def sizes(here: Namespace, name: str) -> Iterator[list[int]]:
    """The lengths of all IP packets on a link, as another packet socket sees them."""
    found: list[int] = []
    with here.inside():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        sock.bind((name, 3))
    sock.settimeout(0.05)
    stop = threading.Event()
    buffer = bytearray(64)

    def count() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                found.append(sock.recv_into(buffer, 0, socket.MSG_TRUNC))

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        sock.close()
