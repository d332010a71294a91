"""Random exchanges in the middle of a conversation: one by one, pipelined, in lockstep, answered early."""

from __future__ import annotations

from tests.wire import messages
from tests.wire.exchange import CLIENT, SERVER, Exchange
from tests.wire.writer import Writer


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
        if w.profile.interleaved and not merged and w.rng.random() < 0.3:
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
