"""Seeded random conversations over HTTP/1.x, each with its own truth: written down as the bytes are made, never read back from them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.wire import messages
from tests.wire.exchange import CLIENT, SERVER, Exchange, Span
from tests.wire.messages import Body, Shape


@dataclass(frozen=True, slots=True)
class Step:
    """One side speaks: bytes, then perhaps an end (`fin` with or after them, `rst`)."""

    side: int
    data: bytes
    end: str = ""
    together: bool = True


@dataclass(frozen=True, slots=True)
class Profile:
    """What is mixed, and how much of it."""

    shape: Shape = field(default_factory=Shape)
    exchanges: int = 8
    pipelined: float = 0.3
    deep: float = 0.02
    """how often a pipeline is 64 to 100 deep"""
    lockstep: float = 0.0
    """how often each answer lets out the next request, several being under way all the time"""
    interim: float = 0.25
    early: float = 0.1
    special_ends: float = 0.6
    """how often a conversation ends in another way than by silence"""


class Writer:
    """Steps and truth under construction; keeps the place in both streams."""

    def __init__(self, rng: random.Random, profile: Profile, number: int) -> None:
        self.rng, self.profile, self.shape = rng, profile, profile.shape
        self.steps: list[Step] = []
        self.exchanges: list[Exchange] = []
        self.at = [0, 0]
        self.number = number

    def say(self, side: int, data: bytes, end: str = "", *, together: bool = True) -> int:
        """One step; returns where it began in its stream."""
        begin = self.at[side]
        self.at[side] += len(data)
        if data or end:
            self.steps.append(Step(side, data, end, together))
        return begin

    def request(
        self, *, body: Body | None = None, method: bytes | None = None, target: bytes | None = None
    ) -> tuple[Exchange, bytes, bytes]:
        """A new exchange whose places are still relative to the request's own beginning; its head (with what precedes) and body."""
        rng = self.rng
        self.number += 1
        method = method or messages.method(rng)
        if body is None:
            wants = method in (b"POST", b"PUT", b"PATCH", b"QUERY") or rng.random() < 0.1
            body = messages.body(rng, self.shape) if wants else Body((), b"", 0, "none")
        fields = messages.fields(rng, self.shape)
        target = target or messages.target(rng, self.number, self.shape)
        minor = 1 if body.framing == "chunked" or rng.random() < 0.9 else 0
        before = rng.choice((b"\r\n", b"\n", b"\r\n\r\n")) if rng.random() < 0.1 else b""
        lines = [*body.lines, *fields.lines]
        if len(body.lines) < 2:
            rng.shuffle(lines)
        head = messages.head(rng, b"%s %s HTTP/1.%d" % (method, target, minor), lines, self.shape)
        place = Span(len(before), len(before) + len(head), len(before) + len(head) + len(body.wire))
        exchange = Exchange(method, target, minor, place, body.size, fields.host, fields.agent, fields.trace, fields.tracestate)
        exchange.framing = body.framing
        return exchange, before + head, body.wire

    def response(self, exchange: Exchange, *, status: int = 0, body: Body | None = None) -> tuple[bytes, bytes, bytes]:
        """Interim heads, final head, body; places relative to their beginning."""
        rng = self.rng
        interim = b""
        if exchange.minor and rng.random() < self.profile.interim:
            for _ in range(rng.choice((1, 1, 2, 3))):
                interim += messages.head(rng, b"HTTP/1.1 %d Interim" % rng.choice((100, 102, 103)), [], self.shape)
        status = status or rng.choice(messages.STATUSES)
        bodiless = exchange.method == b"HEAD" or status in (204, 304)
        lines, wire, size = [], b"", 0
        if body is None:
            body = messages.body(rng, self.shape) if exchange.minor else messages.sized_body(rng, self.shape)
        if not bodiless:
            lines, wire, size = list(body.lines), body.wire, body.size
            exchange.framing = body.framing if "chunked" not in (body.framing, exchange.framing) else "chunked"
        elif status != 204 and rng.random() < 0.5:
            lines = list(body.lines)
        reason = rng.choice((b" OK", b" ", b" Some Reason", b" \xe4\xf6", b""))
        head = messages.head(rng, b"HTTP/1.%d %d" % (exchange.minor, status) + reason, lines, self.shape)
        exchange.status, exchange.response_body, exchange.interim = status, size, bool(interim)
        exchange.response = Span(len(interim), len(interim) + len(head), len(interim) + len(head) + len(wire))
        return interim, head, wire

    def place(self, span: Span, begin: int) -> None:
        """From the message's own places to the stream's."""
        span.begin += begin
        span.head_end += begin
        span.end += begin

    def asked(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """The whole request is said."""
        self.place(exchange.request, self.say(CLIENT, head + body))
        self.exchanges.append(exchange)

    def answered(self, exchange: Exchange, *, end: str = "", together: bool = True) -> None:
        """The whole response is said, in one step or two."""
        interim, head, body = self.response(exchange)
        begin = self.at[SERVER]
        if interim and self.rng.random() < 0.5:
            self.say(SERVER, interim)
            interim = b""
        self.say(SERVER, interim + head + body, end, together=together)
        assert exchange.response is not None
        self.place(exchange.response, begin)


def group(w: Writer, count: int) -> None:
    """`count` exchanges, the requests ahead of the answers as far as chance has it."""
    ahead: list[Exchange] = []
    merged = b""
    for _ in range(count):
        exchange, head, body = w.request()
        if w.rng.random() < 0.6:
            w.place(exchange.request, w.at[CLIENT] + len(merged))
            w.exchanges.append(exchange)
            merged += head + body
        else:
            w.say(CLIENT, merged)
            merged = b""
            w.asked(exchange, head, body)
        ahead.append(exchange)
        if not merged and w.rng.random() < 0.3:
            w.answered(ahead.pop(0))
    w.say(CLIENT, merged)
    answers(w, ahead)


def lockstep(w: Writer, count: int, depth: int) -> None:
    """`depth` requests are always under way: the next one follows an answer, and is not answered next."""
    ahead: list[Exchange] = []
    for _ in range(count):
        exchange, head, body = w.request()
        w.asked(exchange, head, body)
        ahead.append(exchange)
        if len(ahead) == depth:
            w.answered(ahead.pop(0))
    answers(w, ahead)


def answers(w: Writer, ahead: list[Exchange]) -> None:
    """The answers to all of these, several in a step now and then."""
    merged = b""
    for exchange in ahead:
        interim, head, body = w.response(exchange)
        assert exchange.response is not None
        w.place(exchange.response, w.at[SERVER] + len(merged))
        merged += interim + head + body
        if w.rng.random() < 0.5:
            w.say(SERVER, merged)
            merged = b""
    w.say(SERVER, merged)


def early(w: Writer) -> None:
    """The final answer begins, or even ends, before the request has ended."""
    rng = w.rng
    exchange, head, body = w.request(method=rng.choice((b"POST", b"PUT", b"PATCH")), body=messages.body(rng, w.shape))
    cut = rng.randrange(len(body)) if body else 0
    w.place(exchange.request, w.say(CLIENT, head + body[:cut]))
    w.exchanges.append(exchange)
    interim, final, wire = w.response(exchange)
    answer = interim + final + wire
    stop = len(answer) if rng.random() < 0.5 else rng.randrange(len(interim) + 1, len(answer) + 1)
    assert exchange.response is not None
    w.place(exchange.response, w.say(SERVER, answer[:stop]))
    w.say(CLIENT, body[cut:])
    w.say(SERVER, answer[stop:])


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
    _over(w)


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


def _over(w: Writer) -> None:
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
    first = interim.find(b"\n\n") if b"\r\n\r\n" not in interim else interim.find(b"\r\n\r\n") + 2
    exchange.interim = bool(interim) and cut >= first + 2
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


ENDS: tuple[Callable[[Writer], object], ...] = (
    tunnel,
    until_close,
    ending,
    unanswered,
    cut_request,
    cut_response,
    until_close,
    cut_response,
)


def conversation(rng: random.Random, profile: Profile, number: int = 0) -> Writer:
    """A whole conversation; `number` makes its targets unlike those of others."""
    w = Writer(rng, profile, number)
    left = rng.randrange(profile.exchanges + 1)
    while left > 0:
        roll = rng.random()
        if roll < profile.early:
            early(w)
            left -= 1
        elif roll < profile.early + profile.pipelined:
            count = rng.randrange(64, 101) if rng.random() < profile.deep else rng.randrange(2, 7)
            group(w, count)
            left -= min(count, 6)
        elif roll < profile.early + profile.pipelined + profile.lockstep:
            lockstep(w, rng.randrange(3, 9), rng.choice((2, 2, 3)))
            left -= 4
        else:
            group(w, 1)
            left -= 1
    if rng.random() < profile.special_ends:
        rng.choice(ENDS)(w)
    return w
