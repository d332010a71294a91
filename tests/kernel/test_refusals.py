"""Pairings that only look right: whatever the tap has missed, an answer is given to no request that it cannot belong to."""

from __future__ import annotations

import pytest

from otel_ebpf_receiver.sources.http.record import Flag
from tests.kernel.harness import Kernel
from tests.wire.exchange import CLIENT, SERVER
from tests.wire.flow import Ends
from tests.wire.packets import ACK, PSH

GET = b"GET /%d HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 %d OK\r\nContent-Length: 2\r\n\r\nok"


def joined(kernel: Kernel, client: str, *, acknowledged: bool = True, request: bytes = GET % 3) -> list[tuple[int, int]]:
    """(status, flags) of the records of a connection that is joined before a request, whose answer acknowledges it or not."""
    ends, answer = Ends((client, 4000), ("10.12.0.2", 80)), ANSWER % 404
    kernel.drain()
    for side, seq, ack, payload in (
        (CLIENT, 96, 500, b"tail"),
        (SERVER, 500, 100, b"ok"),
        (CLIENT, 100, 502, request),
        (SERVER, 502, 100 + len(request) * acknowledged, answer),
    ):
        kernel.programs.test_run(ends.frame(side, seq, ack, PSH | ACK, payload))
    return [(one["status"], one["flags"]) for one in kernel.drain()]


def test_an_answer_that_acknowledges_the_request(kernel: Kernel) -> None:
    """It begins where the request had acknowledged, and the server had received the request: it is its answer."""
    assert joined(kernel, "10.12.0.1", acknowledged=True) == [(404, Flag.RESYNCHRONISED)]


def test_an_answer_that_does_not_acknowledge_the_request(kernel: Kernel) -> None:
    """The server had not received the request when it sent this: an earlier one was under way, and the answer is refused and counted."""
    before = kernel.counters()["http_unpaired"]

    assert joined(kernel, "10.12.0.3", acknowledged=False) == []
    assert kernel.counters()["http_unpaired"] == before + 1


@pytest.mark.parametrize("request_line", [b"PROPFIND /dav/ HTTP/1.1", b"OE6$ThF%V4oC'W / HTTP/1.0"])
def test_a_method_nobody_knows_is_a_method_after_a_loss(kernel: Kernel, request_line: bytes) -> None:
    """A whole request line is no chance, whatever its token: what it asks is answered next, not what is asked after it."""
    assert joined(kernel, f"10.12.1.{len(request_line)}", request=request_line + b"\r\n\r\n") == [(404, Flag.RESYNCHRONISED)]


@pytest.mark.parametrize("text", [b"Some words / HTTP/2.1", b"Dear Sir or Madam", b"F@ / HTTP/1.1", b"PROPFIND / HTTP/1.1x"])
def test_what_only_looks_like_a_request_line_is_none_after_a_loss(kernel: Kernel, text: bytes) -> None:
    """Of another version, without one, with a method that is no token: part of a body, perhaps."""
    assert joined(kernel, f"10.12.2.{len(text)}", request=text + b"\r\n\r\n") == []
