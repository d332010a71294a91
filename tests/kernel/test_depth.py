"""Many messages at once: deep pipelines, and frames full of the smallest messages."""

from __future__ import annotations

import random

import pytest

from tests.kernel import harness
from tests.kernel.harness import Kernel
from tests.wire import play, reference
from tests.wire.exchange import CLIENT, SERVER
from tests.wire.flow import Flow
from tests.wire.writer import Step

GET = b"GET /36-bytes-in-all/%06d HTTP/1.1\n\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0002\r\n\r\nok"


def conversation(kernel: Kernel, steps: list[Step], segment: int) -> tuple[Flow, list[str]]:
    """Plays these steps in segments of one size; complaints of the comparison with what a strict reader finds."""
    flow = play.play(
        steps, play.random_ends(random.Random(1), kernel.next()), random.Random(1), play.wire_cuts(segment), start_ns=kernel.clock_ns
    )
    kernel.clock_ns = flow.now_ns + 1000
    got = kernel.records(flow)
    return flow, harness.exact(flow, reference.read(bytes(flow.streams[CLIENT]), bytes(flow.streams[SERVER]), []), got)


@pytest.mark.parametrize("segment", [3400, 1448, 100])
@pytest.mark.parametrize("depth", [64, 100, 300])
def test_a_deep_pipeline(kernel: Kernel, depth: int, segment: int) -> None:
    """Far more requests than slots are under way, and each is paired with its own answer."""
    requests = b"".join(GET % i for i in range(depth))
    statuses = [200 + i % 300 if (200 + i % 300) not in (204, 304) else 200 for i in range(depth)]
    answers = b"".join(b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n%s" % (s, i % 7, b"x" * (i % 7)) for i, s in enumerate(statuses))

    flow, complaints = conversation(kernel, [Step(CLIENT, requests), Step(SERVER, answers)], segment)

    assert not complaints, "\n".join([*complaints[:10], harness.transcript(flow)[:5000]])


def test_a_pipeline_that_stays_deep(kernel: Kernel) -> None:
    """Answers and further requests alternate while eighty are always open."""
    steps, asked, answered = [Step(CLIENT, b"".join(GET % i for i in range(80)))], 80, 0
    for _ in range(30):
        steps.append(Step(SERVER, ANSWER * 7))
        steps.append(Step(CLIENT, b"".join(GET % i for i in range(asked, asked + 7))))
        asked, answered = asked + 7, answered + 7
    steps.append(Step(SERVER, ANSWER * (asked - answered)))

    _, complaints = conversation(kernel, steps, 3400)

    assert not complaints, "\n".join(complaints[:10])


def test_a_frame_of_small_chunks(kernel: Kernel) -> None:
    """Chunks of one byte fill frame after frame; their bytes are counted, not their framing."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    steps = [
        Step(CLIENT, GET % 1),
        Step(SERVER, head + b"1\r\nx\r\n" * 5000 + b"10\r\n0123456789abcdef\r\n" * 1000 + b"0\r\n\r\n"),
        Step(CLIENT, GET % 2),
        Step(SERVER, ANSWER),
    ]

    flow, complaints = conversation(kernel, steps, 3400)

    assert not complaints, "\n".join([*complaints, harness.transcript(flow)[:5000]])
