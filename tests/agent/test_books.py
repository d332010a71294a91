"""Whatever fault a backend has, every stage's books add up: from the records of the kernel to what a receiver holds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from otel_ebpf_receiver.agent import options
from otel_ebpf_receiver.agent.interval import Interval
from otel_ebpf_receiver.config.load import load_text
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.exporter import OtlpDestination
from otel_ebpf_receiver.export.otlp.options import OtlpOptions
from otel_ebpf_receiver.export.queue import Payload, QueueLimits
from otel_ebpf_receiver.export.sender import Backoff
from otel_ebpf_receiver.pipeline import Line, TelemetryOptions
from otel_ebpf_receiver.sources.http import source
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.telemetry.sameness import Ranks
from otel_ebpf_receiver.telemetry.sampling import SamplingOptions
from tests.export.receivers import HttpReceiver, Reply
from tests.sources.line import NOW, Feed, Known
from tests.sources.records import MS, START_NS, UnixClock, make

ROUNDS, ROWS = 6, 200


@dataclass(frozen=True, slots=True)
class Fault:
    """What a backend does wrong: its first answers, the largest request it takes, whether it dies, and how little the agent may keep."""

    name: str
    answers: Sequence[Reply] = ()
    max_body: int | None = None
    dies: bool = False
    returns: bool = True
    limits: QueueLimits = field(default_factory=QueueLimits)


FAULTS = (
    Fault("none"),
    Fault("503 for a while", [Reply(503)] * 6),
    Fault("429 with Retry-After", [Reply(429, headers={"Retry-After": "0"})] * 4),
    Fault("400 in between", [Reply(), Reply(400), Reply(), Reply(400), Reply(401)]),
    Fault("a redirect", [Reply(302, headers={"Location": "/elsewhere"})]),
    Fault("partly rejected", [Reply(rejected=3, message="no")] * 3),
    Fault("hangs up", [Reply(hang_up=True)] * 3),
    Fault("too large", max_body=60_000),
    Fault("nothing fits", max_body=100),
    Fault("dies and returns", dies=True),
    Fault("dies and returns too late for the queue", dies=True, limits=QueueLimits(spans_max_bytes=300_000)),
    Fault("dies for good", dies=True, returns=False),
)


class ToTraces:
    """The line's sink."""

    def __init__(self, destination: OtlpDestination) -> None:
        self._destination = destination

    def offer(self, payload: Payload) -> None:
        self._destination.offer(Signal.TRACES, payload)


def batch(number: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Exchanges of one round; each fifth is seen at a second tap, each seventh asked by a probe, each third an error."""
    rows = []
    for row in range(ROWS):
        place = number * ROWS + row
        one = {
            "request_seq": place,
            "response_seq": place,
            "status": (200, 404, 500)[row % 3],
            "agent": "probe" if row % 7 == 0 else "x",
            "tap": 7,
        }
        rows += [one, {**one, "tap": 8}] if row % 5 == 0 else [one]
    return make(*rows)


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_sum_holds_at_every_stage(fault: Fault, temporality: str) -> None:
    """Records, spans, observations, the books of both signals and the receiver's own count: nothing is missing and nothing is there twice."""
    receiver = HttpReceiver(fault.answers, max_body=fault.max_body)
    each = {signal: OtlpOptions(f"{receiver.endpoint}/v1/{signal}", timeout_s=2.0) for signal in Signal}
    destination = OtlpDestination(each, backoff=Backoff(0.02, 0.05), limits=fault.limits)
    telemetry = TelemetryOptions(bytes(16), {"service.name": "x"}, sampling=SamplingOptions("traceidratio", 0.8, spans_per_second=0))
    http = HttpOptions(ignored_agents=("probe",))
    feed = Feed(*(batch(number) for number in range(ROUNDS)))
    line = Line(telemetry, [(source(http), feed)], Known(report_client=False), UnixClock(), start_unix_ns=START_NS)
    line.ranks, line.sinks = Ranks({7: 1, 8: 2}), [ToTraces(destination)]
    interval = Interval([destination], line, lambda is_delta: lambda: (b"", 0), every_s=60.0, temporality=temporality)  # type: ignore[arg-type]
    with receiver:
        destination.start()
        for number in range(ROUNDS):
            if fault.dies and number == 1:
                _until_idle(destination)
                receiver.kill()
            line.run(now_ns=NOW + number * 1000 * MS, is_last=number == ROUNDS - 1)
            line.flush()
            if not fault.dies:
                _until_idle(destination)
            interval.step(number * 60.0, NOW + number * 1000 * MS)
        back = HttpReceiver(port=receiver.port).__enter__() if fault.dies and fault.returns else receiver
        if fault.returns:
            _until_idle(destination)
            for number in (ROUNDS, ROUNDS + 1):
                interval.step(number * 60.0, NOW + number * 1000 * MS)
                _until_idle(destination)
            interval.settle()
        destination.finish(time.monotonic() + 0.2)
        destination.stop()
        back.kill()

    counts = line.counts
    exchanges = ROUNDS * ROWS
    assert counts.received == exchanges + ROUNDS * len(range(0, ROWS, 5)) == counts.copies + counts.admitted + counts.exports + line.waiting
    assert counts.admitted == counts.observations == exchanges
    assert exchanges == counts.spans + counts.sampled_out + counts.silenced + counts.ignored
    books = destination.books()
    assert books[Signal.TRACES].received == counts.spans
    receivers = [receiver] if back is receiver else [receiver, back]
    for signal, arrived in ((Signal.TRACES, _spans(receivers)), (Signal.METRICS, _points(receivers))):
        one = books[signal]
        assert one.is_balanced
        assert one.queued == 0
        assert one.sent + one.rejected == arrived
    assert (books[Signal.TRACES].dropped > 0) == (fault.limits != QueueLimits())
    if fault.returns and fault.max_body != 100:
        assert _observed(receivers, temporality) == exchanges


def test_a_queue_bounded_by_its_spans_loses_none_to_a_backend_that_keeps_up() -> None:
    """`OTEL_BSP_MAX_QUEUE_SIZE` bounds an outage: spans leave before more of them wait than the queue may hold, however they come."""
    config = load_text("", "", {"OTEL_BSP_MAX_QUEUE_SIZE": "2048", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}).config
    telemetry = replace(options.telemetry_options(config), sampling=SamplingOptions("always_on", spans_per_second=0))
    sizes = [60] * 20 + [700, 3, 500, 511, 512] + [1] * 5
    feed = Feed(*(make(*({"request_seq": 1000 * number + row} for row in range(size))) for number, size in enumerate(sizes)))
    with HttpReceiver() as receiver:
        destination = OtlpDestination(
            {Signal.TRACES: OtlpOptions(f"{receiver.endpoint}/v1/traces")},
            limits=QueueLimits(spans_max_items=config.exporters.queues.spans),
        )
        destination.start()
        line = Line(telemetry, [(source(HttpOptions()), feed)], Known(), UnixClock(), start_unix_ns=START_NS)
        line.sinks = [ToTraces(destination)]
        for number in range(len(sizes)):
            line.run(now_ns=NOW + number * 100 * MS, is_last=number == len(sizes) - 1)
            _until_idle(destination)
        line.flush()
        _until_idle(destination)
        destination.stop()

    books = destination.books()[Signal.TRACES]
    assert receiver.spans == line.counts.spans == 2 * sum(sizes)
    assert (books.received, books.sent, books.dropped) == (2 * sum(sizes), 2 * sum(sizes), 0)
    assert max(sum(len(scope.spans) for scope in resource.scope_spans) for resource in receiver.traces) <= 512


def _until_idle(destination: OtlpDestination) -> None:
    assert destination.flush(20)


def _spans(receivers: Sequence[HttpReceiver]) -> int:
    return sum(receiver.spans for receiver in receivers)


def _all_points(receivers: Sequence[HttpReceiver]) -> list[tuple[str, int]]:
    return [
        (str(point.attributes), point.count)
        for receiver in receivers
        for resource in receiver.metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.histogram.data_points
    ]


def _points(receivers: Sequence[HttpReceiver]) -> int:
    return len(_all_points(receivers))


def _observed(receivers: Sequence[HttpReceiver], temporality: str) -> int:
    """Observations that the receivers know of."""
    last: dict[str, int] = {}
    for key, count in _all_points(receivers):
        last[key] = count if temporality == "cumulative" else last.get(key, 0) + count
    return sum(last.values())
