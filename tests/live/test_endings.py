"""Exchanges that do not end as HTTP says: who ended them is told, and no status is invented."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.capture.namespaces import Namespace
from tests.live.links import pair
from tests.live.servers import connect, path_of, read_head, reset, serving
from tests.live.taps import receive
from tests.live.watched import SERVER, Told, watching

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
CHUNKED = b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\r\n"


def linger(peer: socket.socket) -> None:
    """Until the client has gone."""
    with contextlib.suppress(OSError):
        while peer.recv(65536):
            continue


def answer(data: bytes, end: Callable[[socket.socket], None] = linger) -> Callable[[socket.socket], None]:
    """Sends this and ends so."""

    def send(peer: socket.socket) -> None:
        peer.sendall(data)
        end(peer)

    return send


def after_seen(end: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    """Ends when what was sent has been read: a RST overtakes what the other side has not read yet."""

    def wait(peer: socket.socket) -> None:
        peer.recv(1)
        end(peer)

    return wait


@dataclass(frozen=True, slots=True)
class Ending:
    """How a server ends, what the client does when it has read `reads` bytes, and what must be told of it."""

    server: Callable[[socket.socket], None]
    client: Callable[[socket.socket], None]
    reads: int
    status: int | None
    error: str | None
    closed_by: str | None
    body: int | None = None


def wait(peer: socket.socket) -> None:
    """Until the server ends it."""
    with contextlib.suppress(ConnectionResetError):
        while peer.recv(65536):
            continue


def close(peer: socket.socket) -> None:
    """FIN."""
    peer.close()


def half_close(peer: socket.socket) -> None:
    """FIN of the client's side alone, then waits."""
    peer.shutdown(socket.SHUT_WR)
    wait(peer)


ENDINGS = {
    "/server-resets": Ending(reset, wait, 0, None, "connection_reset", "server"),
    "/server-closes": Ending(close, wait, 0, None, "connection_closed", "server"),
    "/server-resets-inside": Ending(answer(LENGTH + b"0123456789", reset), wait, 0, 200, "connection_reset", "server"),
    "/server-closes-inside": Ending(answer(LENGTH + b"0123456789", close), wait, 0, 200, "connection_closed", "server", 10),
    "/server-closes-in-a-chunk": Ending(answer(CHUNKED + b"5\r\nabc", close), wait, 0, 206, "connection_closed", "server", 3),
    "/server-closes-between-chunks": Ending(answer(CHUNKED + b"5\r\nabcde\r\n", close), wait, 0, 206, "connection_closed", "server", 5),
    "/server-closes-in-its-head": Ending(answer(LENGTH[:30], close), wait, 0, 200, "connection_closed", "server", 0),
    "/server-closes-after-100": Ending(answer(b"HTTP/1.1 100 Continue\r\n\r\n", close), wait, 0, None, "connection_closed", "server"),
    "/until-close": Ending(answer(b"HTTP/1.1 200 OK\r\n\r\n0123456789", close), wait, 0, 200, None, None, 10),
    "/until-reset": Ending(answer(b"HTTP/1.1 200 OK\r\n\r\n0123456789", reset), wait, 0, 200, "connection_reset", "server"),
    "/client-half-closes": Ending(answer(LENGTH + bytes(1000), close), half_close, 0, 200, None, None, 1000),
    "/client-resets": Ending(linger, reset, 0, None, None, "client"),
    "/client-closes": Ending(linger, close, 0, None, None, "client"),
    "/client-resets-inside": Ending(answer(LENGTH + b"0123456789"), reset, len(LENGTH) + 10, 200, None, "client", 10),
    "/client-closes-inside": Ending(answer(CHUNKED + b"5\r\nabcde\r\n"), close, len(CHUNKED) + 10, 206, None, "client", 5),
    "/client-resets-after-500": Ending(
        answer(LENGTH.replace(b"200 OK", b"500 No") + b"x"), reset, len(LENGTH) + 1, 500, "500", "client", 1
    ),
}


def serve(peer: socket.socket, head: bytes) -> None:
    """Ends as the path says."""
    ENDINGS[path_of(head)].server(peer)


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    """All endings, one connection each, under the eyes of one agent."""
    with pair() as (here, there), serving(there, serve), watching(here) as watched:
        for path, ending in ENDINGS.items():
            with connect(here, "10.77.0.2") as peer:
                peer.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
                receive(peer, ending.reads)
                if ending.client in (reset, close):
                    time.sleep(0.05)  # the server has read the request by then
                ending.client(peer)
        yield watched.finish()


@pytest.mark.parametrize("path", ENDINGS)
def test_ending(told: Told, path: str) -> None:
    """Status, error and side are what happened; what the client aborted is no error of the SERVER span."""
    ending = ENDINGS[path]

    [span] = told.at(path)

    known = span.attributes
    assert span.kind == SERVER
    assert known.get("http.response.status_code") == ending.status
    assert known.get("error.type") == ending.error
    assert known.get("otel_ebpf_receiver.closed_by") == ending.closed_by
    assert span.is_error == (ending.error is not None)
    if ending.body is not None:
        assert known["http.response.body.size"] == ending.body
    assert "http.response.body.size" in known or ending.status is None


def test_all_endings_are_counted(told: Told) -> None:
    """Each is one line and one observation under the status and the error that it has; what the kernel opened it ended."""
    expected = sorted(str((ending.status, ending.error)) for ending in ENDINGS.values())
    counted = []
    for known, count in told.counts["http.server.request.duration"]:
        counted += [str((known.get("http.response.status_code"), known.get("error.type")))] * count
    kernel = told.kernel
    assert sorted(line["path"] for line in told.lines) == sorted(ENDINGS)
    assert sorted(counted) == expected
    assert kernel["http_opened"] == kernel["http_answered"] + kernel["http_reset"] + kernel["http_closed"] == len(ENDINGS)


def never(peer: socket.socket, head: bytes) -> None:
    """Answers the first request and then no more."""
    peer.sendall(LENGTH + bytes(1000))
    read_head(peer)
    linger(peer)


def ask(here: Namespace, requests: int) -> socket.socket:
    """A connection with one answered request and so many unanswered ones."""
    peer = connect(here, "10.77.0.2")
    peer.sendall(b"GET /answered HTTP/1.1\r\nHost: a\r\n\r\n")
    receive(peer, len(LENGTH) + 1000)
    peer.sendall(b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n" * requests)
    return peer


def test_what_is_open_at_the_end_is_counted() -> None:
    """Requests without an answer at SIGTERM are no exchange, but the gauge and the log say how many there are."""
    with pair() as (here, there), serving(there, never), watching(here) as watched, ask(here, 1), ask(here, 3):
        watched.wait_line("/answered")
        time.sleep(0.3)
        told = watched.finish()

    assert [line["path"] for line in told.lines] == ["/answered"] * 2
    assert told.gauges["otel_ebpf_receiver.requests.open"] == 4
    assert told.gauges["otel_ebpf_receiver.requests.oldest"] >= 0.3
    assert told.gauges["otel_ebpf_receiver.requests.evicted"] == 0
    assert any('"open_requests": 4' in line for line in told.log)
    assert told.kernel["http_opened"] == told.kernel["http_answered"] + 4 == 6
