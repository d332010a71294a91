"""A conversation under construction: its steps, and its truth, written down as the bytes are made."""

from __future__ import annotations

import random
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
    interleaved: bool = True
    """whether answers come between the requests of a pipeline"""
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
