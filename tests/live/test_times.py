"""A hand-written server and client with known delays: times between the sleeps that caused them and what the client itself saw."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

from tests.live.links import pair
from tests.live.servers import connect, path_of, serving
from tests.live.taps import receive
from tests.live.watched import Span, Told, watching

MS = 1_000_000
SENDING_S, WAITING_S, ANSWERING_S = 0.11, 0.17, 0.23
"""What the client sleeps inside its request, the server before its answer, and inside it."""
SIZE = 50_000
PARTS = ("request.transfer_ns", "response.wait_ns", "response.transfer_ns")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE


@dataclass(frozen=True, slots=True)
class Clocked:
    """What the client's own clock said around its exchange."""

    begun_unix_ns: int
    ended_unix_ns: int
    lasted_ns: int


def slowly(peer: socket.socket, head: bytes) -> None:
    """Reads the whole request, waits, sends half an answer, waits, sends the rest; an early one begins before it has read."""
    if path_of(head) == "/early":
        peer.sendall(HEAD + bytes(SIZE // 2))
    receive(peer, SIZE)
    if path_of(head) == "/interim":
        peer.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
    time.sleep(WAITING_S)
    if path_of(head) != "/early":
        peer.sendall(HEAD + bytes(SIZE // 2))
    time.sleep(ANSWERING_S)
    peer.sendall(bytes(SIZE - SIZE // 2))


def converse(peer: socket.socket, path: str) -> Clocked:
    """One exchange on a connection."""
    with peer:
        unix, begin = time.time_ns(), time.monotonic_ns()
        peer.sendall(b"PUT %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path.encode(), SIZE) + bytes(SIZE // 2))
        time.sleep(SENDING_S)
        peer.sendall(bytes(SIZE - SIZE // 2))
        while peer.recv(1 << 16):
            continue
        return Clocked(unix, time.time_ns(), time.monotonic_ns() - begin)


def parts(span: Span) -> list[int]:
    """The three times that make up a span."""
    return [span.attributes[f"otel_ebpf_receiver.{name}"] for name in PARTS]


def watch(path: str) -> tuple[Told, Clocked]:
    """One exchange of this path, seen by the agent and by the client."""
    with pair() as (here, there), serving(there, slowly), watching(here) as watched:
        clocked = converse(connect(here, "10.77.0.2"), path)
        told = watched.finish()
    return told, clocked


def test_delays_stand_where_they_were() -> None:
    """Each part of a span lasts at least as long as the sleep in it, together they are the span, and it lies within the client's own."""
    told, clocked = watch("/slow")

    [span] = told.spans
    sending, waiting, answering = parts(span)
    assert sending >= SENDING_S * 1e9
    assert waiting >= WAITING_S * 1e9 - MS
    assert answering >= ANSWERING_S * 1e9 - MS
    assert sending + waiting + answering == span.end_ns - span.start_ns <= clocked.lasted_ns
    assert clocked.begun_unix_ns - MS <= span.start_ns < span.end_ns <= clocked.ended_unix_ns + MS
    [line] = told.lines
    assert (line["duration_ns"], line["ttfb_ns"]) == (span.end_ns - span.start_ns, sending + waiting)
    assert [(count, attributes["http.response.status_code"]) for attributes, count in told.counts["http.server.request.duration"]] == [
        (1, 200)
    ]


def test_an_answer_that_begins_before_its_request_has_ended() -> None:
    """It cuts the request's part short and leaves nothing to wait for; the parts still add up."""
    told, clocked = watch("/early")

    [span] = told.spans
    sending, waiting, answering = parts(span)
    assert waiting == 0
    assert answering >= (WAITING_S + ANSWERING_S) * 1e9 - MS
    assert sending + answering == span.end_ns - span.start_ns <= clocked.lasted_ns
    assert span.attributes["http.request.body.size"] == span.attributes["http.response.body.size"] == SIZE


def test_an_interim_answer_is_no_first_byte() -> None:
    """The wait lasts until the final answer; the interim one is a flag."""
    told, _ = watch("/interim")

    [span] = told.spans
    assert parts(span)[1] >= WAITING_S * 1e9 - MS
    assert span.attributes["otel_ebpf_receiver.flags"] == ["interim"]
    assert span.attributes["http.response.status_code"] == 200


def test_reuse_of_a_connection_is_no_delay() -> None:
    """The time that a kept connection rests belongs to no exchange."""
    with pair() as (here, there), serving(there, answer_for_ever), watching(here) as watched:
        with connect(here, "10.77.0.2") as peer:
            lasted = 0
            for _ in range(3):
                begin = time.monotonic_ns()
                peer.sendall(b"GET /kept HTTP/1.1\r\nHost: a\r\n\r\n")
                receive(peer, len(HEAD) + SIZE)
                lasted += time.monotonic_ns() - begin
                time.sleep(WAITING_S)
        told = watched.finish()

    assert len(told.spans) == 3
    assert sum(span.end_ns - span.start_ns for span in told.spans) <= lasted


def answer_for_ever(peer: socket.socket, head: bytes) -> None:
    """Answers every segment."""
    peer.sendall(HEAD + bytes(SIZE))
    while peer.recv(1 << 16):
        peer.sendall(HEAD + bytes(SIZE))
