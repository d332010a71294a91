"""A strict HTTP/1.x reader of two whole streams: a second opinion on every truth in the tests, written apart from generator and kernel.

It reads what RFC 9112 allows and gives up at the first byte that it does not; it knows nothing of segments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.wire.exchange import SERVER, SIDES, Exchange, Span, Trace

REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^\x00-\x20\x7f]+) HTTP/1\.([0-9])")
STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: .*)?", re.DOTALL)
TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(;.*)?")


class Unreadable(Exception):
    """The stream is not HTTP/1.x from here on."""


class Incomplete(Exception):
    """The stream ends inside a message."""


@dataclass(slots=True)
class Message:
    """One message; `complete` is false when the stream ended inside."""

    span: Span
    first: bytes
    second: bytes
    minor: int
    headers: list[tuple[bytes, bytes]]
    body: int = 0
    complete: bool = True
    head_complete: bool = True
    framing: str = "none"
    has_interim: bool = field(default=False)


class Stream:
    """One direction's bytes and how far they are read."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def line(self) -> bytes:
        """The next line without its end."""
        stop = self.data.find(b"\n", self.at)
        if stop < 0:
            raise Incomplete
        line = self.data[self.at : stop]
        self.at = stop + 1
        return line.removesuffix(b"\r")

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Header lines up to the empty one, names in lower case, folded lines joined by a space."""
        out: list[tuple[bytes, bytes]] = []
        while line := self.line():
            if line[:1] in b" \t" and out:
                name, value = out[-1]
                out[-1] = (name, (value + b" " + line.strip(b" \t")).strip(b" \t"))
                continue
            name, colon, value = line.partition(b":")
            if not colon or not name or name[-1:] in b" \t":
                raise Unreadable(line)
            out.append((name.lower(), value.strip(b" \t")))
        return out


def length_of(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    """Content-Length; equal repetitions count once."""
    values = {v.strip(b" \t") for name, value in headers if name == b"content-length" for v in value.split(b",")}
    if not values:
        return None
    if not all(v.isdigit() for v in values) or len({int(v) for v in values}) != 1:
        raise Unreadable(repr(values))
    return int(values.pop())


def codings_of(headers: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """Transfer codings in order."""
    return [
        c.strip(b" \t").lower() for name, value in headers if name == b"transfer-encoding" for c in value.split(b",") if c.strip(b" \t")
    ]


def read_chunks(s: Stream, m: Message) -> None:
    """A chunked body with its trailers."""
    while True:
        match = CHUNK_LINE.fullmatch(s.line())
        if not match:
            raise Unreadable("chunk size")
        size = int(match[1], 16)
        if not size:
            break
        there = min(size, len(s.data) - s.at)
        m.body += there
        s.at += there
        if there < size:
            raise Incomplete
        if s.line():
            raise Unreadable("chunk end")
    s.headers()


def read_body(s: Stream, m: Message, *, is_request: bool, ended: bool) -> None:
    """Passes over the body as the head frames it."""
    codings, length = codings_of(m.headers), length_of(m.headers) if not codings_of(m.headers) else None
    if codings and codings[-1] == b"chunked":
        m.framing = "chunked"
        read_chunks(s, m)
    elif codings and is_request:
        raise Unreadable("request coding")
    elif length is not None and not codings:
        m.framing = "length"
        there = min(length, len(s.data) - s.at)
        m.body, s.at = there, s.at + there
        if there < length:
            raise Incomplete
    elif not is_request:
        m.framing = "close"
        m.body, s.at = len(s.data) - s.at, len(s.data)
        if not ended:
            raise Incomplete


def read_head(s: Stream, pattern: re.Pattern[bytes]) -> Message | None:
    """Start line and headers. None: the stream ends before the start line does."""
    try:
        while not (line := s.line()):
            pass
    except Incomplete:
        return None
    begin = s.at - 1
    begin -= len(line) + (s.data[begin - 1 : begin] == b"\r")
    match = pattern.fullmatch(line)
    if not match:
        raise Unreadable(line)
    groups = match.groups()
    first, second, minor = (groups[0], groups[1], groups[2]) if len(groups) == 3 else (groups[1], b"", groups[0])
    m = Message(Span(begin, s.at, s.at), first, second, int(minor), [])
    try:
        m.headers = s.headers()
    except Incomplete:
        s.at = len(s.data)
        m.complete = m.head_complete = False
    m.span.head_end = m.span.end = s.at
    return m


def finish(s: Stream, m: Message, *, is_request: bool, ended: bool, bodiless: bool = False) -> None:
    """Reads the body of a message whose head is known."""
    try:
        if m.head_complete and not bodiless:
            read_body(s, m, is_request=is_request, ended=ended)
    except Incomplete:
        m.complete, s.at = False, len(s.data)
    m.span.end = s.at


def requests_of(data: bytes) -> list[Message]:
    """All requests at the front of the stream whose heads are whole."""
    s, out = Stream(data), []
    try:
        while m := read_head(s, REQUEST_LINE):
            if not m.head_complete:
                break
            finish(s, m, is_request=True, ended=False)
            out.append(m)
            if not m.complete:
                break
    except Unreadable:
        pass
    return out


def value_of(m: Message, name: bytes) -> bytes | None:
    """The first header of this name."""
    return next((value for n, value in m.headers if n == name), None)


def trace_of(m: Message) -> Trace | None:
    """The `traceparent`, when it is valid by W3C Trace Context."""
    match = TRACEPARENT.fullmatch(value_of(m, b"traceparent") or b"")
    if not match or match[1] == b"ff" or (match[1] == b"00" and match[5]) or not int(match[2], 16) or not int(match[3], 16):
        return None
    return Trace(int(match[1], 16), bytes.fromhex(match[2].decode()), bytes.fromhex(match[3].decode()), int(match[4], 16))


def read_response(s: Stream, method: bytes, *, ended: bool) -> tuple[Message | None, bool]:
    """The next final response, and whether interim ones came before it."""
    interim = False
    while (m := read_head(s, STATUS_LINE)) and m.first[:1] == b"1" and m.first != b"101":
        if not m.head_complete:
            return None, interim
        interim = True
    if m is None:
        return None, interim
    status = int(m.first)
    bodiless = method == b"HEAD" or status in (101, 204, 304) or (method == b"CONNECT" and 200 <= status < 300)
    finish(s, m, is_request=False, ended=ended, bodiless=bodiless)
    return m, interim


def read(client: bytes, server: bytes, ends: Sequence[tuple[int, str]]) -> list[Exchange]:
    """Every exchange of a connection; `ends` are its FINs and RSTs in order as (side, `fin` or `rst`)."""
    first_fin = next((side for side, kind in ends if kind == "fin"), None)
    final = next((end for end in ends if end[1] == "rst" or end == (SERVER, "fin")), None)
    over, was_reset = final is not None, final is not None and final[1] == "rst"
    error, side = "", ""
    if final is not None:
        error, side = ("reset", SIDES[final[0]]) if was_reset or first_fin is None else ("closed", SIDES[first_fin])
    responses, out, readable = Stream(server), [], True
    for q in requests_of(client):
        exchange = Exchange(q.first, q.second, q.minor, q.span, q.body, value_of(q, b"host"), value_of(q, b"user-agent"), trace_of(q),
                            value_of(q, b"tracestate"), request_complete=q.complete)  # fmt: skip
        r = None
        if readable:
            try:
                r, exchange.interim = read_response(responses, q.first, ended=over and not was_reset)
            except Unreadable:
                readable = False
                break
        if r is not None:
            exchange.response, exchange.status, exchange.response_body = r.span, int(r.first), r.body
            exchange.response_head_complete, exchange.framing = r.head_complete, r.framing
        if r is None or not r.complete:
            if not over:
                break
            exchange.error, exchange.side, readable = error, side, False
        out.append(exchange)
        if r is not None and (r.first == b"101" or (q.first == b"CONNECT" and r.first[:1] == b"2")):
            break
    if not over:
        out = [e for e in out if e.request_complete]
    return out
