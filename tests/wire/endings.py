"""Random ends of a conversation: tunnels, responses until close, answers that never come or are cut short."""

from __future__ import annotations

import re

from tests.wire import messages
from tests.wire.exchange import CLIENT, SERVER, Exchange, Span
from tests.wire.messages import Body
from tests.wire.writer import Writer


def tunnel(w: Writer) -> None:
    """CONNECT or 101 that succeeds; what follows is not HTTP, whatever it looks like."""
    rng = w.rng
    if rng.random() < 0.5:
        w.number += 1
        exchange, head, _ = w.request(method=b"CONNECT", target=b"host-%d.example:443" % w.number, body=Body((), b"", 0, "none"))
        status = rng.choice((200, 200, 201, 299))
    else:
        exchange, head, _ = w.request(method=b"GET", body=Body((), b"", 0, "none"))
        status = 101
    w.asked(exchange, head, b"")
    interim, final, _ = w.response(
        exchange, status=status, body=Body(rng.choice(((), (b"Content-Length: 5",))) if status != 101 else (), b"", 0, "none")
    )
    after = rng.choice((b"", b"\x81\x05hello", rng.choice(messages.LURES)))
    assert exchange.response is not None
    w.place(exchange.response, w.say(SERVER, interim + final + after))
    for _ in range(rng.randrange(3)):
        w.say(rng.choice((CLIENT, SERVER)), rng.choice((b"\x16\x03\x01\x02\0", *messages.LURES)))
    over(w)


def until_close(w: Writer) -> None:
    """A response that the end of the connection ends: FIN makes it whole, RST does not."""
    rng = w.rng
    exchange, head, body = w.request(method=rng.choice((b"GET", b"POST", b"OPTIONS")))
    w.asked(exchange, head, body)
    half_closed = rng.random() < 0.2
    if half_closed:
        w.say(CLIENT, b"", "fin")
    size = rng.randrange(w.shape.body_max + 1)
    lines = rng.choice(((), (), (b"Transfer-Encoding: gzip",), (b"Transfer-Encoding: chunked, gzip",))) if exchange.minor else ()
    interim, final, wire = w.response(
        exchange, status=rng.choice((200, 404, 500)), body=Body(lines, messages.fill(rng, size), size, "close")
    )
    assert exchange.response is not None
    w.place(exchange.response, w.at[SERVER])
    if rng.random() < 0.75:
        w.say(SERVER, interim + final + wire, "fin", together=rng.random() < 0.5)
        return
    w.say(SERVER, interim + final + wire)
    exchange.error, exchange.side = "reset", rng.choice(("client", "server"))
    w.say(CLIENT if exchange.side == "client" else SERVER, b"", "rst")


def ending(w: Writer) -> tuple[str, str]:
    """The connection ends; returns error and side for whatever was open."""
    rng = w.rng
    kind = rng.choice(("server fin", "client fin", "client rst", "server rst"))
    if kind == "client fin":
        w.say(CLIENT, b"", "fin")
        w.say(SERVER, b"", "fin")
    else:
        w.say(CLIENT if kind[0] == "c" else SERVER, b"", kind[-3:])
    return "closed" if kind[-3:] == "fin" else "reset", kind[:6]


def over(w: Writer) -> None:
    """The connection ends, or stays."""
    if w.rng.random() < 0.5:
        ending(w)


def unanswered(w: Writer) -> None:
    """Some requests, then an end instead of the answers."""
    asked = []
    for _ in range(w.rng.choice((1, 1, 2, 3, 6))):
        exchange, head, body = w.request()
        w.asked(exchange, head, body)
        asked.append(exchange)
    if w.rng.random() < 0.3:
        w.say(SERVER, messages.head(w.rng, b"HTTP/1.1 102 Processing", [], w.shape))
        asked[0].interim = True
    error, side = ending(w)
    for exchange in asked:
        exchange.error, exchange.side, exchange.framing = error, side, "none"


def cut_request(w: Writer) -> None:
    """The connection ends inside a request: in its body it is an exchange, in its head it is none. An early answer may have come."""
    rng = w.rng
    size = rng.randrange(2, w.shape.body_max + 3)
    exchange, head, wire = w.request(method=b"POST", body=Body((b"Content-Length: %d" % size,), messages.fill(rng, size), size, "length"))
    if rng.random() < 0.3:
        w.say(CLIENT, head[: rng.randrange(1, len(head) - 1)])
        ending(w)
        return
    cut = rng.randrange(size)
    w.place(exchange.request, w.say(CLIENT, head + wire[:cut]))
    exchange.request.end -= size - cut
    exchange.request_body, exchange.request_complete = cut, False
    w.exchanges.append(exchange)
    if rng.random() < 0.5:
        w.answered(exchange)
        if ending(w) == ("closed", "server"):
            w.say(CLIENT, b"", "fin")
        return
    exchange.error, exchange.side = ending(w)


def cut_response(w: Writer) -> None:
    """The connection ends inside the response."""
    rng = w.rng
    exchange, head, body = w.request(method=rng.choice((b"GET", b"POST")))
    w.asked(exchange, head, body)
    size = rng.randrange(1, w.shape.body_max + 2)
    sized = Body((b"Content-Length: %d" % size,), messages.fill(rng, size), size, "length")
    pieces = [rng.randrange(1, 50) for _ in range(3)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (n, b"c" * n) for n in pieces)
    chunked = Body((b"Transfer-Encoding: chunked",), chunks, sum(pieces), "chunked")
    is_chunked = exchange.minor and rng.random() < 0.4
    interim, final, wire = w.response(exchange, status=200, body=chunked if is_chunked else sized)
    answer = interim + final + wire
    cut = rng.randrange(1, len(answer)) if rng.random() < 0.5 else len(interim + final) + rng.randrange(len(wire))
    _cut_truth(exchange, interim, final, cut, pieces if is_chunked else [])
    begin = w.say(SERVER, answer[:cut])
    if exchange.response is not None:
        w.place(exchange.response, begin)
    exchange.error, exchange.side = ending(w)


def _cut_truth(exchange: Exchange, interim: bytes, final: bytes, cut: int, pieces: list[int]) -> None:
    """What is left of a response of which `cut` bytes were sent."""
    line_end = len(interim) + final.index(b"\n") + 1
    first = re.search(rb"\n\r?\n", interim)  # heads of either kind of line end may stand in one answer
    exchange.interim = first is not None and cut >= first.end()
    if cut < line_end:
        exchange.response, exchange.status, exchange.response_body = None, 0, 0
        exchange.framing = "none"
        return
    body_begin = len(interim) + len(final)
    exchange.response = Span(len(interim), min(cut, body_begin), cut)
    exchange.response_head_complete = cut >= body_begin
    seen = max(cut - body_begin, 0)
    exchange.response_body = seen
    if pieces:
        exchange.response_body = 0
        for piece in pieces:
            framing = len(b"%x\r\n" % piece)
            exchange.response_body += min(max(seen - framing, 0), piece)
            seen -= framing + piece + 2
