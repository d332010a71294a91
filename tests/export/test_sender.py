"""The sender: what is retried, split or given up, and that the books add up after every fault. Over a real HTTP receiver."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from otel_ebpf_receiver.export.complaints import Complaints
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.exporter import OtlpDestination
from otel_ebpf_receiver.export.otlp.options import OtlpOptions
from otel_ebpf_receiver.export.otlp.split import splitter
from otel_ebpf_receiver.export.queue import Books, Queue, QueueLimits
from otel_ebpf_receiver.export.sender import Answer, Backoff, Sender, Verdict
from tests.export.pausing import tries_at_once
from tests.export.payloads import points, spans
from tests.export.receivers import HttpReceiver, Reply

QUICK = Backoff(first_s=0.01, most_s=0.05)


@contextmanager
def exporting(endpoint: str, *, limits: QueueLimits | None = None, timeout_s: float = 5.0) -> Iterator[OtlpDestination]:
    """A started destination for both signals at `endpoint`, stopped at the end."""
    options = {signal: OtlpOptions(f"{endpoint}/v1/{signal}", timeout_s=timeout_s) for signal in Signal}
    destination = OtlpDestination(options, limits=limits, backoff=QUICK)
    destination.start()
    try:
        yield destination
    finally:
        destination.stop()


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_both_signals_arrive_as_they_were_encoded() -> None:
    """What is offered is received, byte for byte in meaning, and the books say sent."""
    with HttpReceiver() as receiver, exporting(receiver.endpoint) as destination:
        destination.offer(Signal.TRACES, spans(3))
        destination.offer(Signal.METRICS, points(5))

        assert destination.flush(10)

        assert receiver.spans == 3
        assert receiver.metric_count == 1
        assert destination.books() == {
            Signal.TRACES: Books(received=3, sent=3),
            Signal.METRICS: Books(received=5, sent=5),
        }


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retryable_statuses_are_retried_until_they_pass(status: int) -> None:
    """Each status that the specification names is tried again and again, far beyond one timeout's worth of tries."""
    with HttpReceiver([Reply(status)] * 9) as receiver, exporting(receiver.endpoint) as destination:
        destination.offer(Signal.TRACES, spans(2))

        assert destination.flush(20)

        assert receiver.spans == 2
        assert destination.books()[Signal.TRACES] == Books(received=2, sent=2, retried=18)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 500, 501, 505])
def test_everything_else_fails_at_once(status: int) -> None:
    """A status that the specification does not name is not retried, a redirect is no success, and what follows is sent."""
    with HttpReceiver([Reply(status)]) as receiver, exporting(receiver.endpoint) as destination:
        destination.offer(Signal.TRACES, spans(2))
        destination.offer(Signal.TRACES, spans(3))

        assert destination.flush(10)

        assert receiver.spans == 3
        assert destination.books()[Signal.TRACES] == Books(received=5, sent=3, failed=2)


def test_partial_success_counts_as_rejected_but_an_empty_one_does_not() -> None:
    """Rejected spans are not sent; a message without a count rejects nothing."""
    answers = [Reply(rejected=2, message="too old"), Reply(message="deprecated"), Reply()]
    with HttpReceiver(answers) as receiver, exporting(receiver.endpoint) as destination:
        for _ in answers:
            destination.offer(Signal.TRACES, spans(5))

        assert destination.flush(10)

        assert destination.books()[Signal.TRACES] == Books(received=15, sent=13, rejected=2)


def test_an_oversize_batch_is_split_until_it_fits() -> None:
    """413 halves a batch, in order; only a single span that is too large by itself fails."""
    with HttpReceiver(max_body=2000) as receiver, exporting(receiver.endpoint) as destination:
        destination.offer(Signal.TRACES, spans(50, padding=200))
        destination.offer(Signal.TRACES, spans(1, first=50, padding=3000))

        assert destination.flush(20)

        names = [span.name for resource in receiver.traces for scope in resource.scope_spans for span in scope.spans]
        assert names == [str(number) for number in range(50)]
        assert destination.books()[Signal.TRACES] == Books(received=51, sent=50, failed=1)


def test_a_request_of_more_items_than_the_queue_holds_is_cut_to_fit() -> None:
    """`OTEL_BSP_MAX_QUEUE_SIZE` below the size of one request bounds the queue instead of losing every request."""
    limits = QueueLimits(spans_max_items=10)
    destination = OtlpDestination({Signal.TRACES: OtlpOptions("http://127.0.0.1:9/")}, limits=limits)

    destination.offer(Signal.TRACES, spans(25))

    books = destination.books()[Signal.TRACES]
    assert 5 <= books.queued <= 10
    assert books.received == 25
    assert books.is_balanced
    destination.stop()


def test_retry_after_is_waited_for() -> None:
    """A server that asks for a pause gets it, longer than our own."""
    answers = [Reply(503, headers={"Retry-After": "1"})]
    with HttpReceiver(answers) as receiver, exporting(receiver.endpoint) as destination:
        destination.offer(Signal.TRACES, spans(1))
        assert receiver.wait_for(requests=1)

        assert not destination.flush(0.5)
        assert destination.flush(10)

        assert receiver.spans == 1


@pytest.mark.parametrize("when", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_server_that_asks_for_no_pause_gets_our_own(when: str) -> None:
    """A delay of nothing, or a date that is over, does not switch the back-off off."""
    with HttpReceiver([Reply(503, headers={"Retry-After": when})]) as receiver:
        assert tries_at_once(receiver, OtlpOptions(f"{receiver.endpoint}/v1/traces")) == 1


def test_a_server_that_asks_for_no_pause_is_not_stormed_at_the_end() -> None:
    """While the agent stops it is asked a few times, not as often as it can answer."""
    with HttpReceiver([Reply(503, headers={"Retry-After": "0"})] * 5000) as receiver, exporting(receiver.endpoint) as destination:
        destination.offer(Signal.TRACES, spans(1))
        destination.finish(time.monotonic() + 1.0)
        destination.stop()

    assert len(receiver.requests) <= 10


def test_a_server_that_is_killed_and_comes_back_gets_everything_that_fits() -> None:
    """Kill in mid-load: nothing offered is without a fate, and what the queue held arrives after the restart."""
    port = free_port()
    with exporting(f"http://127.0.0.1:{port}") as destination:
        with HttpReceiver(port=port) as first:
            for number in range(20):
                destination.offer(Signal.TRACES, spans(2, first=2 * number))
            assert first.wait_for(spans=10)
        for number in range(20, 40):
            destination.offer(Signal.TRACES, spans(2, first=2 * number))

        with HttpReceiver(port=port) as second:
            assert destination.flush(20)

            books = destination.books()[Signal.TRACES]
            received = {
                span.name for each in (first, second) for resource in each.traces for scope in resource.scope_spans for span in scope.spans
            }
    assert books.is_balanced
    assert (books.received, books.sent, books.failed) == (80, 80, 0)
    assert received == {str(number) for number in range(80)}


def test_an_outage_longer_than_the_queue_drops_the_oldest_and_counts_them() -> None:
    """While nobody listens the newest stay queued, and after the outage they arrive."""
    port = free_port()
    body = len(spans(10, first=100).body)
    with exporting(f"http://127.0.0.1:{port}", limits=QueueLimits(spans_max_bytes=3 * body + 20)) as destination:
        for number in range(10):
            destination.offer(Signal.TRACES, spans(10, first=100 + 10 * number))
        during = destination.books()[Signal.TRACES]

        with HttpReceiver(port=port) as receiver:
            assert destination.flush(20)
            names = [span.name for resource in receiver.traces for scope in resource.scope_spans for span in scope.spans]
            books = destination.books()[Signal.TRACES]

    assert during.is_balanced
    assert (books.received, books.sent, books.dropped) == (100, 30, 70)
    # The one payload that may have been on its way when the others overtook it is not necessarily the newest.
    assert names[-20:] == [str(number) for number in range(180, 200)]


def test_a_server_that_hangs_up_or_stalls_is_retried() -> None:
    """No answer, an answer after the timeout, and a cut connection are all tried again."""
    answers = [Reply(hang_up=True), Reply(503, delay_s=1.0), Reply(hang_up=True)]
    with HttpReceiver(answers) as receiver, exporting(receiver.endpoint, timeout_s=0.2) as destination:
        destination.offer(Signal.TRACES, spans(4))

        assert destination.flush(20)

        books = destination.books()[Signal.TRACES]
        assert receiver.spans == 4
        assert (books.received, books.sent, books.failed) == (4, 4, 0)
        assert books.retried >= 8


def stop_within(destination: OtlpDestination, seconds: float) -> float:
    """Finishes and stops as SIGTERM does; the seconds that took."""
    began = time.monotonic()
    destination.finish(began + seconds)
    destination.stop()
    destination.stop()
    return time.monotonic() - began


def test_stopping_sends_what_is_queued() -> None:
    """finish() and stop() flush: everything offered before arrives, nothing offered after does, and that is counted."""
    with HttpReceiver() as receiver, exporting(receiver.endpoint) as destination:
        for number in range(30):
            destination.offer(Signal.TRACES, spans(1, first=number))

        stop_within(destination, 10)
        destination.offer(Signal.TRACES, spans(7))

        assert receiver.spans == 30
        assert destination.books()[Signal.TRACES] == Books(received=37, sent=30, dropped=7)


@pytest.mark.parametrize("fault", ["closed port", "silent server", "blackhole", "asked to wait"])
def test_stopping_ends_in_time_with_a_dead_backend(fault: str) -> None:
    """Whatever the backend does not do, stop() returns about the deadline and the rest is counted as failed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1)
    endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    fillers: list[socket.socket] = []
    receiver = HttpReceiver([Reply(503, headers={"Retry-After": "60"})] * 5)
    if fault == "closed port":
        endpoint = f"http://127.0.0.1:{free_port()}"
    elif fault == "blackhole":
        # A full backlog leaves further connections unanswered, like a host that is gone.
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
    elif fault == "asked to wait":
        endpoint = receiver.endpoint
    with receiver, exporting(endpoint, timeout_s=30.0) as destination:
        destination.offer(Signal.TRACES, spans(3))
        destination.offer(Signal.METRICS, points(4))
        time.sleep(0.1)

        took_s = stop_within(destination, 1.0)

    for each in (listener, *fillers):
        each.close()
    assert took_s < 4
    assert {signal: (books.received, books.failed, books.queued) for signal, books in destination.books().items()} == {
        Signal.TRACES: (3, 3, 0),
        Signal.METRICS: (4, 4, 0),
    }


def test_stop_before_start_gives_up_what_was_offered() -> None:
    """stop() without start() and twice is harmless and leaves nothing uncounted."""
    destination = OtlpDestination({Signal.TRACES: OtlpOptions("http://127.0.0.1:9/v1/traces")})
    destination.offer(Signal.TRACES, spans(2))

    destination.stop()
    destination.stop()

    assert destination.books()[Signal.TRACES] == Books(received=2, failed=2)


def test_the_words_of_the_server_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Many refusals make one log line with the server's own words in it."""
    answers = [Reply(400, message="span name\nis a\x1b[31m secret")] * 5
    with HttpReceiver(answers) as receiver, exporting(receiver.endpoint) as destination, caplog.at_level(logging.WARNING):
        for _ in answers:
            destination.offer(Signal.TRACES, spans(1))
        assert destination.flush(10)

    (line,) = [vars(record) for record in caplog.records]
    assert (line["message"], line["destination"], line["signal"], line["items"]) == ("export failed", "otlp", "traces", 1)
    assert line["reason"].endswith("400 Bad Request: span name is a\x1b[31m secret")


def test_the_end_of_an_outage_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """One warning at its start and one line when exports work again, whatever the number of tries between."""
    with HttpReceiver([Reply(503)] * 4) as receiver, exporting(receiver.endpoint) as destination, caplog.at_level(logging.INFO):
        destination.offer(Signal.TRACES, spans(1))
        assert destination.flush(10)

    first, last = (vars(record) for record in caplog.records)
    assert (first["levelname"], first["message"]) == ("WARNING", "export will be retried")
    assert "503" in first["reason"]
    assert (last["levelname"], last["message"], last["tries"]) == ("INFO", "export works again", 4)


def test_a_fault_of_a_transport_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception counts the payload as failed, and the sender goes on."""

    class Faulty:
        calls = 0

        def send(self, body: bytes, limit_s: float | None = None) -> Answer:
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("boom")
            return Answer(Verdict.ACCEPTED)

        def abort(self) -> None: ...

        def close(self) -> None: ...

    queue = Queue(10_000)
    complaints = Complaints(logging.getLogger("test"), {"destination": "test"})
    sender = Sender(queue, Faulty(), name="test", split=splitter(Signal.TRACES), complaints=complaints)
    queue.offer(spans(1))
    queue.offer(spans(2))
    sender.start()

    assert queue.flush(10)
    sender.stop()

    assert queue.books() == Books(received=3, sent=2, failed=1)
    assert "boom" in vars(caplog.records[0])["reason"]


def test_back_off_grows_to_its_bound_and_is_spread() -> None:
    """Delays double up to the most, and the jitter spreads them around that."""
    backoff = Backoff(first_s=1.0, most_s=8.0, jitter=0.25)

    assert [backoff.delay_s(tries, 0.5) for tries in (1, 2, 3, 4, 5, 1000)] == [1, 2, 4, 8, 8, 8]
    assert (backoff.delay_s(1, 0.0), backoff.delay_s(1, 1.0)) == (0.75, 1.25)


def test_what_a_server_asks_for_is_kept_and_spread() -> None:
    """Nobody returns earlier than asked, nor all at once; a pause of next to nothing is one of ours."""
    backoff = Backoff(first_s=0.5, most_s=10.0, jitter=0.2)

    assert [backoff.asked_s(30.0, draw) for draw in (0.0, 0.5, 1.0)] == [30.0, 33.0, 36.0]
    assert backoff.asked_s(3600.0, 1.0) == 3610.0
    assert backoff.asked_s(1e-9, 0.0) == 0.5
