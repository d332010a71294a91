"""What is decided at compile time: the transport, how much of a target is kept, which request headers are kept."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from otel_ebpf_receiver.kernel.loader import BuildOptions
from otel_ebpf_receiver.sources.http.kernel import kernel_source
from tests.kernel import harness, judge, loaded, randoms
from tests.kernel.harness import Kernel
from tests.kernel.randoms import Tally
from tests.kernel.suites import SUITES
from tests.wire import play, reference
from tests.wire.exchange import CLIENT, SERVER
from tests.wire.writer import Step

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEADERS = ("x-forwarded-for", "forwarded", "X-Request-ID", "b3")


@pytest.fixture(scope="module")
def parked() -> Iterator[Kernel]:
    """The programs with the hash transport."""
    with loaded.kernel(options=BuildOptions(transport="hash")) as kernel:
        yield kernel


@pytest.mark.parametrize("name", ["cut", "noise"])
def test_hash_transport_is_exact(parked: Kernel, name: str) -> None:
    """Records that are parked in a hash map are those of the ring."""
    tally = Tally()

    for number in range(150):
        verdict = randoms.run(parked, SUITES[name], 5, number, tally)

        assert not verdict.complaints, "\n".join(verdict.complaints)


def test_hash_transport_passes_the_cases(parked: Kernel) -> None:
    """Every case on disk holds with the hash transport too."""
    for case in loaded.cases():
        if "whole" not in case.skips:
            complaints, _ = judge.run(parked, case, "whole")

            assert not complaints, (case.name, complaints)


@pytest.mark.parametrize("room", [64, 512, 1024])
def test_kept_length_of_targets(room: int) -> None:
    """Targets around the limit are kept up to it, and flagged when they are cut."""
    sizes = (1, room - 1, room, room + 1, room + 24, room + 30, 2 * room, 2000)
    requests = [b"GET /%s HTTP/1.1\r\nHost: after\r\n\r\n" % (b"t" * (size - 1)) for size in sizes]
    requests += [b"%s /%s HTTP/1.1\r\n\r\n" % (b"M" * 15, b"t" * (room - 1)), b"OPTIONS /last HTTP/1.1\r\n\r\n"]
    steps = [step for request in requests for step in (Step(CLIENT, request), Step(SERVER, ANSWER))]

    with loaded.kernel(kernel_source(target=room)) as kernel:
        for segment in (3400, 100, 1):
            flow = play.play(steps, play.random_ends(random.Random(1), kernel.next()), random.Random(1), play.wire_cuts(segment))
            got = kernel.records(flow)

            truth = reference.read(bytes(flow.streams[CLIENT]), bytes(flow.streams[SERVER]), [])
            assert not harness.exact(flow, truth, got, target_room=room), segment


def test_kept_headers() -> None:
    """Configured headers are kept whatever their case, white space and place, the first of a name; absent ones are empty."""
    request = (
        b"GET /1 HTTP/1.1\r\nX-Forwarded-For: 10.1.2.3, 10.4.5.6\r\nFORWARDED:\tfor=10.1.2.3 \r\nx-forwarded-for: 9.9.9.9\r\n"
        b"x-request-id:%s\r\nx-b3: no\r\nb3x: no\r\nb3:1\r\n\r\n" % (b"i" * 70)
    )
    other = b"GET /2 HTTP/1.1\r\nX-Forwarded-Fo: a\r\nForwardedd: b\r\nB3: \r\n\r\n"
    steps = [Step(CLIENT, request), Step(SERVER, ANSWER), Step(CLIENT, other), Step(SERVER, ANSWER)]

    with loaded.kernel(kernel_source(headers=HEADERS)) as kernel:
        for segment in (3400, 20, 1):
            flow = play.play(steps, play.random_ends(random.Random(1), kernel.next()), random.Random(1), play.wire_cuts(segment))
            first, second = kernel.records(flow)

            assert [bytes(text) for text in first["slots"]] == [b"10.1.2.3, 10.4.5.6", b"for=10.1.2.3", b"i" * 64, b"1"]
            assert first["slot_len"] == [18, 12, 70, 1]
            assert second["slot_len"] == [0, 0, 0, 0]
            assert [bytes(text) for text in second["slots"]] == [b""] * 4


@pytest.mark.parametrize(
    "names",
    [
        ("Content-Type", "content-encoding", "content-lengthy", "transfer-encodings"),
        ("accept", "user-agents", "traceparents", "Hosting"),
        ("Host", "User-Agent", "traceparent", "tracestate"),
        ("content-type", "host", "x-last", "Traceparent"),
    ],
)
def test_any_header_can_be_kept(names: tuple[str, ...]) -> None:
    """Names that begin as those which the parser reads for itself, and these, which keep their meaning as well."""
    trace = b"00-%032x-%016x-01" % (7, 9)
    values = {
        b"Content-Type": b"application/json", b"Content-Encoding": b"gzip", b"Content-Lengthy": b"9", b"Transfer-Encodings": b"none",
        b"Accept": b"*/*", b"User-Agents": b"two", b"Traceparents": b"x", b"Hosting": b"y", b"Host": b"a.example:81", b"User-Agent": b"u" * 70,
        b"Traceparent": trace, b"Tracestate": b"k=v", b"X-Last": b"z",
    }  # fmt: skip
    bodies = (
        (b"Content-Length", b"2", b"ok"),
        (b"Content-Length", b"\r\n\t2", b"ok"),
        (b"Transfer-Encoding", b"Chunked", b"2\r\nok\r\n0\r\n\r\n"),
    )
    steps, sent = [], []
    for name, value, body in bodies:
        headers = {**values, name: value}
        steps.append(Step(CLIENT, b"POST /a HTTP/1.1\r\n%s\r\n%s" % (b"".join(b"%s: %s\r\n" % h for h in headers.items()), body)))
        steps.append(Step(SERVER, ANSWER))
        sent.append({name.decode().lower(): value.strip() for name, value in headers.items()})

    with loaded.kernel(kernel_source(headers=names)) as kernel:
        for segment in (3400, 40, 1):
            flow = play.play(steps, play.random_ends(random.Random(1), kernel.next()), random.Random(1), play.wire_cuts(segment))
            got = kernel.records(flow)

            assert len(got) == len(sent)
            for row, texts in zip(got, sent, strict=True):
                wanted = [texts.get(name.lower(), b"") for name in names]
                assert [bytes(text) for text in row["slots"]] == [text[:64] for text in wanted], segment
                assert row["slot_len"] == [len(text) for text in wanted]
                assert (row["host"], row["agent"], row["tracestate"], row["traced"]) == (b"a.example:81", b"u" * 70, b"k=v", 1)
                assert (row["request_body"], row["status"]) == (2, 200)
