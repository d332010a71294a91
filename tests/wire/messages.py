"""Random heads and bodies of HTTP/1.x messages, each with what is true of it. Pure functions of a random generator."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.wire.exchange import Trace

TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
METHODS = (b"GET", b"GET", b"GET", b"HEAD", b"POST", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"QUERY")
RARE_METHODS = (
    b"PROPFIND",
    b"M-SEARCH",
    b"get",
    b"PURGE",
    b"BASELINE-CONTROL",
    b"G",
    b"GETAWAY",
    b"HTTP",
    b"!#$%&'*+-.^_`|~",
    b"HEADER",
    b"VERSION-CONTROL",
)
LURES = (
    b"GET /lure HTTP/1.1\r\nHost: lure\r\n\r\n",
    b"\r\nPOST /lure HTTP/1.1\r\nContent-Length: 100000\r\n\r\n",
    b"HTTP/1.1 500 Lure\r\nContent-Length: 0\r\n\r\n",
    b"\r\n\r\nHTTP/1.0 200 OK\r\n\r\n",
    b"0\r\n\r\n",
    b"\r\n\r\n",
)
"""Text that looks like the start of a message, for bodies."""
STATUSES = (200, 200, 200, 200, 201, 202, 204, 206, 301, 304, 400, 404, 418, 500, 503, 599)


@dataclass(frozen=True, slots=True)
class Shape:
    """What random conversations look like."""

    body_max: int = 300
    head_max: int = 700
    target_max: int = 600
    chunked: float = 0.35
    odd: float = 0.3
    """how often spelling is unusual"""
    bare_lf: float = 0.05
    long_head: float = 0.0
    """how often a head is up to 64 KiB"""


@dataclass(frozen=True, slots=True)
class Body:
    """A body on the wire: header lines that frame it, bytes, size without framing."""

    lines: tuple[bytes, ...]
    wire: bytes
    size: int
    framing: str


@dataclass(frozen=True, slots=True)
class Fields:
    """Header lines that the record keeps, and what they say."""

    lines: tuple[bytes, ...]
    host: bytes | None
    agent: bytes | None
    trace: Trace | None
    tracestate: bytes | None


def token(rng: random.Random, longest: int) -> bytes:
    """A random token."""
    return bytes(rng.choice(TOKEN) for _ in range(rng.randrange(1, longest + 1)))


def spell(rng: random.Random, name: bytes, value: bytes, odd: float) -> bytes:
    """A header line: usual spelling, or any case and any white space around the value."""
    if rng.random() >= odd:
        return name + b": " + value
    name = rng.choice((name.lower(), name.upper(), bytes(rng.choice((c, c ^ 32 if chr(c).isalpha() else c)) for c in name), name))
    space = (b"", b" ", b"\t", b"  ", b" \t \t")
    return name + b":" + rng.choice(space) + value + rng.choice(space)


def method(rng: random.Random) -> bytes:
    """A method; CONNECT is left to its own."""
    roll = rng.random()
    if roll < 0.8:
        return rng.choice(METHODS)
    word = rng.choice(RARE_METHODS) if roll < 0.9 else token(rng, 20)
    return word if word != b"CONNECT" else b"GET"


def target(rng: random.Random, number: int, shape: Shape) -> bytes:
    """A request target in origin or absolute form, unlike any other by its number."""
    size = rng.choice((0, 5, 30, rng.randrange(shape.target_max)))
    path = b"/%d/" % number + bytes(rng.choice(b"abc/?=&%20.;") for _ in range(size))
    return b"http://shop.example:8080" + path if rng.random() < 0.05 else path


def fill(rng: random.Random, payload: int) -> bytes:
    """Body bytes; some hold text that looks like messages."""
    if rng.random() < 0.3:
        lure = rng.choice(LURES)
        return (lure * (payload // len(lure) + 1))[:payload]
    return rng.choice((rng.randbytes(payload), (b"GET / HTTP/1.1\r\n" * (payload // 16 + 1))[:payload], b"\n" * payload, b"x" * payload))


def chunked_body(rng: random.Random, shape: Shape) -> Body:
    """Chunks with extensions, sizes of any spelling, trailers; a Content-Length beside it now and then."""
    out, total = [], 0
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
        size = rng.choice((1, 9, 15, 16, 17, 1 + rng.randrange(max(shape.body_max, 1))))
        digits = rng.choice((b"%x", b"%x", b"%X", b"%05x", b"%08X", b"%09x", b"%015x", b"%016X")) % size
        after = rng.choice((b"", b"", b"", b";a=b", b' ; q="x;y"', b";" + b"e" * rng.randrange(300), b" ", b"\t"))
        out.append(digits + after + b"\r\n" + fill(rng, size) + b"\r\n")
        total += size
    trailers = rng.choice(
        (b"", b"", b"X-Sum: 1\r\n", b"Content-Length: 7\r\nX: " + b"y" * rng.randrange(400) + b"\r\n", b"GET: / HTTP/1.1\r\n")
    )
    value = rng.choice((b"chunked", b"chunked", b"Chunked", b"CHUNKED", b"gzip, chunked", b"gzip,chunked", b"gzip ,\tchunked"))
    lines = [spell(rng, b"Transfer-Encoding", value, shape.odd)]
    if rng.random() < 0.05:
        lines = [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"]
    if rng.random() < 0.1:
        lines.insert(rng.randrange(2), b"Content-Length: %d" % rng.randrange(1000))
    last = rng.choice((b"0", b"0", b"000", b"00000000", b"0;last", b"0000000000000000"))
    return Body(tuple(lines), b"".join(out) + last + b"\r\n" + trailers + b"\r\n", total, "chunked")


def length_lines(rng: random.Random, size: int, odd: float) -> tuple[bytes, ...]:
    """Content-Length in one of its spellings."""
    plain = b"%d" % size
    if rng.random() >= odd:
        return (b"Content-Length: " + plain,)
    value = rng.choice((plain, b"0" * rng.randrange(30) + plain, plain + b", " + plain, plain + b"," + plain, plain))
    lines = (spell(rng, b"Content-Length", value, 1.0),)
    return lines + lines if rng.random() < 0.1 else lines


def sized_body(rng: random.Random, shape: Shape) -> Body:
    """A body with Content-Length."""
    size = rng.choice((0, 1, 10, rng.randrange(shape.body_max + 1), rng.randrange(shape.body_max + 1)))
    return Body(length_lines(rng, size, shape.odd), fill(rng, size), size, "length")


def body(rng: random.Random, shape: Shape) -> Body:
    """A body whose end is known."""
    return chunked_body(rng, shape) if rng.random() < shape.chunked else sized_body(rng, shape)


def fields(rng: random.Random, shape: Shape) -> Fields:
    """Host, User-Agent, traceparent and tracestate, each there or not."""
    host = rng.choice((b"shop.default.svc", b"shop:8080", b"10.0.0.7", b"[::1]:80", b"h" * rng.randrange(1, 150), None))
    agent = rng.choice((b"curl/8.5.0", b"Mozilla/5.0 (X11; Linux)", b"a" * rng.randrange(1, 150), None, None))
    trace, state = None, None
    lines = []
    if rng.random() < 0.4:
        trace = Trace(0, rng.randbytes(15) + b"\1", rng.randbytes(7) + b"\1", rng.choice((0, 1, 3)))
        value = b"00-%s-%s-%02x" % (trace.trace_id.hex().encode(), trace.parent_id.hex().encode(), trace.flags)
        lines.append(spell(rng, b"traceparent", value, shape.odd))
    if rng.random() < 0.3:
        state = rng.choice((b"vendor=1", b"a=b,c=d", b"rojo=" + b"0" * rng.randrange(100)))
        lines.append(spell(rng, b"tracestate", state, shape.odd))
    if host is not None:
        lines.append(spell(rng, b"Host", host, shape.odd))
    if agent is not None:
        lines.append(spell(rng, b"User-Agent", agent, shape.odd))
    return Fields(tuple(lines), host, agent, trace, state)


def head(rng: random.Random, start: bytes, lines: list[bytes], shape: Shape) -> bytes:
    """A head: the given lines among others that mean nothing, in any order of lines with different names."""
    extra = [
        b"Accept: */*", b"X-Content-Length: 9", b"Content-Language: en", b"Transfer-Codings: x", b"X: Content-Length: 5", b"Empty:",
        b"Te: trailers", b"Hos: t", b"Hostess: x", b"X-Host: evil", b"User-Agents: 2", b"Traceparents: 00-1", b"Content-Lengthy: 3",
        b"Cookie: " + b"c" * rng.randrange(shape.head_max), b"X-Fold: one\r\n two\r\n\tContent-Length: 77", b"X-Fold2: a\r\n Host: folded",
        b"GET: / HTTP/1.1", b"HTTP/1.1: 200",
    ]  # fmt: skip
    extra = rng.sample(extra, rng.choice((0, 1, 2, 5)))
    if rng.random() < shape.long_head:
        extra += [b"X-Long-%d: " % i + b"v" * rng.randrange(3000) for i in range(rng.randrange(1, 30))]
    for line in extra:
        lines.insert(rng.randrange(len(lines) + 1), line)
    if rng.random() < shape.bare_lf:
        return b"\n".join([start, *(line.replace(b"\r\n", b"\n") for line in lines)]) + b"\n\n"
    return b"\r\n".join([start, *lines]) + b"\r\n\r\n"
