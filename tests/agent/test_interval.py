"""Every destination has its own rhythm: a dead one holds nobody up, loses nothing, and none is told anything twice. Real receivers, simulated time."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from otel_ebpf_receiver.agent.influxdb import COLUMNS
from otel_ebpf_receiver.agent.interval import Interval
from otel_ebpf_receiver.export.destination import Destination, Signal
from otel_ebpf_receiver.export.influxdb.exporter import InfluxDestination, InfluxOptions
from otel_ebpf_receiver.export.otlp.exporter import OtlpDestination
from otel_ebpf_receiver.export.otlp.options import OtlpOptions
from otel_ebpf_receiver.export.prometheus.exporter import PrometheusDestination, PrometheusOptions
from otel_ebpf_receiver.export.queue import QueueLimits
from otel_ebpf_receiver.export.sender import Backoff
from otel_ebpf_receiver.status import pages
from otel_ebpf_receiver.telemetry.columns import Group, Instrument, Kind, Part, Points
from otel_ebpf_receiver.telemetry.exemplars import Sampled
from otel_ebpf_receiver.telemetry.keys import mix
from otel_ebpf_receiver.telemetry.red import Collection, MetricOptions, Reader, Red, Temporality
from otel_ebpf_receiver.telemetry.resources import Resources
from tests.export.receivers import HttpReceiver, Reply

S = 1_000_000_000
NARROW = 3_300_000
"""Bytes of a queue that takes one full request, and not all of an interval of MANY series."""
MANY = 30_000
DURATION = Instrument("x.duration", "s", "How long.", (0.1, 1.0), is_duration=True)
NONE = Sampled(np.zeros(0, np.intp), np.zeros((0, 16), np.uint8), np.zeros((0, 8), np.uint8), np.zeros(0, np.uint64))


class Table:
    """The host's own series, and time that moves when told."""

    def __init__(self) -> None:
        self._resources = Resources({"service.name": "unknown_service"}, {}, "1")
        self.red = Red(MetricOptions(series_limit=30_000), self._resources, start_unix_ns=S)
        self.now_s = 1.0

    def add(self, count: int, series: int = 1) -> None:
        """`count` observations of each of `series` series."""
        which = np.repeat(np.arange(series), count)
        group = Group(mix(which), lambda row: Part({"which": int(which[row])}))
        points = Points(DURATION, Kind.SERVER, np.arange(len(which)), np.full(len(which), 0.5), group)
        self.red.observe(points, np.zeros(len(which), np.int64), NONE, now=round(self.now_s * S))

    def collect(self, unix_ns: int, readers: Sequence[Reader] | None = None) -> list[Collection]:
        return self.red.collect_for(readers or self.red.readers, unix_ns)


class Stage:
    """An interval of 60 s over some destinations."""

    def __init__(self, destinations: Sequence[Destination], temporality: Temporality = "cumulative") -> None:
        self.table = Table()
        self.destinations = destinations
        self.interval = Interval(destinations, self.table, self._own, every_s=60.0, temporality=temporality)
        for one in destinations:
            one.start()
        self.pass_(0)

    def _own(self, is_delta: bool) -> Callable[[], tuple[bytes, int]]:
        return lambda: (b"", 0)

    def pass_(self, minutes: int = 1) -> None:
        """Time goes by."""
        for _ in range(minutes or 1):
            self.table.now_s += 60 * bool(minutes)
            self.interval.step(self.table.now_s, round(self.table.now_s * S))

    def wait(self, *destinations: Destination) -> None:
        """Until nothing is on its way to these; then their lanes settle."""
        for one in destinations:
            _until(partial(one.is_idle, Signal.METRICS))
        self.interval.settle()

    def end(self) -> None:
        for one in self.destinations:
            one.finish(time.monotonic() + 2)
        for one in self.destinations:
            one.stop()


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _has_settled(stage: Stage) -> bool:
    """Whether everything collected has arrived; what finds room is handed over, as by the pipeline's loop."""
    stage.interval.settle()
    return stage.interval.is_settled


def otlp(endpoint: str, limits: QueueLimits | None = None) -> OtlpDestination:
    """Metrics to a receiver, with short pauses between tries."""
    options = {Signal.METRICS: OtlpOptions(f"{endpoint}/v1/metrics")}
    return OtlpDestination(options, backoff=Backoff(0.02, 0.05), limits=limits)


def narrow(kind: str, endpoint: str) -> Destination:
    """A destination of metrics whose queue takes NARROW bytes."""
    limits = QueueLimits(metrics_max_bytes=NARROW)
    if kind == "prometheus":
        return PrometheusDestination(PrometheusOptions(port=0), limits=limits)
    if kind == "influxdb":
        options = InfluxOptions(endpoint, bucket="b")
        return InfluxDestination(options, COLUMNS, signals=frozenset({Signal.METRICS}), limits=limits)
    return otlp(endpoint, limits)


def closed_port() -> int:
    """A port of 127.0.0.1 where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def points(receiver: HttpReceiver) -> list[Any]:
    """The points that a receiver accepted, as they came."""
    metrics = (metric for resource in receiver.metrics for scope in resource.scope_metrics for metric in scope.metrics)
    return [point for metric in metrics if metric.name == "x.duration" for point in metric.histogram.data_points]


def spans_of_time(receiver: HttpReceiver) -> list[tuple[int, int, int]]:
    """Start and end of each point in seconds, and its count."""
    return [(point.start_time_unix_nano // S, point.time_unix_nano // S, point.count) for point in points(receiver)]


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_a_dead_backend_does_not_starve_the_prometheus_page(temporality: Temporality, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an OTLP server is away, every interval reaches the page, which shows values since the start whatever the others want."""
    page = PrometheusDestination(PrometheusOptions(port=0))
    stage = Stage([otlp(f"http://127.0.0.1:{closed_port()}"), page], temporality)
    seen = []
    monkeypatch.setattr(pages, "CACHE_S", 0.0)
    try:
        for _ in range(3):
            stage.table.add(2)
            stage.pass_()
            stage.wait(page)
            with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
            seen += [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("x_duration_seconds_count")]
    finally:
        stage.end()

    assert seen == [2, 4, 6]
    assert stage.interval.late == 2


def test_deltas_are_exact_for_each_of_two_backends_of_which_one_was_away() -> None:
    """The healthy one gets each interval once; the other, when it is back, what waited and then all the rest; the times join without a gap."""
    port = closed_port()
    with HttpReceiver() as healthy:
        well, ill = otlp(healthy.endpoint), otlp(f"http://127.0.0.1:{port}")
        stage = Stage([well, ill], "delta")
        for count in (1, 2, 4):
            stage.table.add(count)
            stage.pass_()
            stage.wait(well)
        with HttpReceiver(port=port) as back:
            stage.wait(ill)
            stage.table.add(8)
            stage.pass_()
            stage.wait(well, ill)
            stage.end()

    assert spans_of_time(healthy) == [(1, 61, 1), (61, 121, 2), (121, 181, 4), (181, 241, 8)]
    assert spans_of_time(back) == [(1, 61, 1), (61, 241, 14)]


def test_of_a_delta_interval_in_several_requests_only_what_was_refused_comes_again() -> None:
    """One request is refused, the next accepted: the series of the first are in the next interval with both, those of the second are not repeated."""
    with HttpReceiver([Reply(400)]) as receiver:
        destination = otlp(receiver.endpoint)
        stage = Stage([destination], "delta")
        for _ in range(2):
            stage.table.add(1, series=30_000)
            stage.pass_()
            stage.wait(destination)
        stage.end()

    found: dict[int, list[tuple[int, int, int]]] = {}
    for point in points(receiver):
        key = point.attributes[0].value.int_value
        found.setdefault(key, []).append((point.start_time_unix_nano // S, point.time_unix_nano // S, point.count))
    merged, apart = [(1, 121, 2)], [(1, 61, 1), (61, 121, 1)]
    assert len(found) == 30_000
    assert all(each in (merged, apart) for each in found.values())
    assert 0 < sum(each == merged for each in found.values()) < 30_000
    books = destination.books()[Signal.METRICS]
    assert books.is_balanced
    assert books.failed == sum(each == merged for each in found.values())


@pytest.mark.parametrize("words", ["rejected", "hung up"])
def test_what_a_backend_took_in_part_is_not_sent_again(words: str) -> None:
    """Points rejected in a partial success are lost and counted; an answer that never came is asked for again by the very same request."""
    reply = Reply(rejected=1, message="no") if words == "rejected" else Reply(hang_up=True)
    with HttpReceiver([reply]) as receiver:
        destination = otlp(receiver.endpoint)
        stage = Stage([destination], "delta")
        stage.table.add(1)
        stage.pass_()
        stage.wait(destination)
        stage.table.add(2)
        stage.pass_()
        stage.wait(destination)
        stage.end()

    assert spans_of_time(receiver) == [(1, 61, 1), (61, 121, 2)]
    assert destination.books()[Signal.METRICS].rejected == (words == "rejected")


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_after_an_hour_without_backend_everything_is_there(temporality: Temporality) -> None:
    """Sixty intervals nobody took, two series idle since the second minute: none of them leaves, and the next exports hold every observation."""
    port = closed_port()
    destination = otlp(f"http://127.0.0.1:{port}")
    stage = Stage([destination], temporality)
    for minute in range(60):
        stage.table.add(1, series=3 if minute == 1 else 1)
        stage.pass_()
    assert len(stage.table.red) == 3
    with HttpReceiver(port=port) as back:
        stage.wait(destination)
        stage.pass_()
        stage.wait(destination)
        stage.end()

    totals: dict[int, list[int]] = {}
    for point in points(back):
        totals.setdefault(point.attributes[0].value.int_value, []).append(point.count)
    last = {which: counts[-1] if temporality == "cumulative" else sum(counts) for which, counts in totals.items()}
    assert last == {0: 60, 1: 1, 2: 1}
    assert stage.interval.late == 59
    assert destination.books()[Signal.METRICS].lost == 0


def test_the_end_sends_no_difference_twice() -> None:
    """What is on its way when the agent stops is not collected again as a difference; as a total it is, so that the last values are told."""
    for temporality, offered in (("delta", 1), ("cumulative", 2)):
        destination = otlp(f"http://127.0.0.1:{closed_port()}")
        stage = Stage([destination], temporality)  # type: ignore[arg-type]
        stage.table.add(5)
        stage.pass_()
        stage.table.add(1)

        stage.interval.finish(time.monotonic() + 0.05, time.monotonic() + 0.1)
        books = destination.books()[Signal.METRICS]
        stage.end()

        assert books.received == offered


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("kind", ["otlp", "prometheus", "influxdb"])
def test_an_interval_larger_than_the_queue_arrives_whole(kind: str, temporality: Temporality) -> None:
    """What finds no room waits for it: a destination that takes everything gets every series of every interval, once."""
    with HttpReceiver() as receiver:
        destination = narrow(kind, receiver.endpoint)
        stage = Stage([destination], temporality)
        for _ in range(2):
            stage.table.add(1, series=MANY)
            stage.pass_()
            _until(partial(_has_settled, stage))
        stage.end()

    books = destination.books()[Signal.METRICS]
    assert (books.received, books.sent, books.dropped) == (2 * MANY, 2 * MANY, 0)
    assert stage.interval.late == 0


def test_an_interval_larger_than_the_queue_is_on_its_way_until_its_last_request() -> None:
    """A backend that was away for three intervals gets the rest of the first one, then all that came since; no observation is missing or told twice."""
    port = closed_port()
    destination = otlp(f"http://127.0.0.1:{port}", QueueLimits(metrics_max_bytes=NARROW))
    stage = Stage([destination], "delta")
    for _ in range(3):
        stage.table.add(1, series=MANY)
        stage.pass_()
    during = destination.books()[Signal.METRICS]
    with HttpReceiver(port=port) as back:
        _until(partial(_has_settled, stage))
        stage.pass_()
        _until(partial(_has_settled, stage))
        stage.end()

    totals: dict[int, list[int]] = {}
    for point in points(back):
        totals.setdefault(point.attributes[0].value.int_value, []).append(point.count)
    assert 0 < during.received < MANY
    assert during.dropped == 0
    assert totals == {which: [1, 2] for which in range(MANY)}
    assert stage.interval.late == 2


@pytest.mark.parametrize("is_there", [True, False], ids=["a backend that takes it", "no backend"])
def test_the_last_interval_is_handed_over_whole(is_there: bool) -> None:
    """At the end too it is given as there is room; where there is none in time, the books say what became of the rest."""
    with HttpReceiver() as receiver:
        endpoint = receiver.endpoint if is_there else f"http://127.0.0.1:{closed_port()}"
        destination = otlp(endpoint, QueueLimits(metrics_max_bytes=NARROW))
        stage = Stage([destination], "delta")
        stage.table.add(1, series=MANY)

        now_s = time.monotonic()
        stage.interval.finish(now_s, now_s + (20 if is_there else 0.1))
        destination.finish(time.monotonic() + (20 if is_there else 0.1))
        destination.stop()

    books = destination.books()[Signal.METRICS]
    assert books.is_balanced
    assert (books.received, books.sent) == (MANY, MANY if is_there else 0)
    assert (books.dropped > 0) == (not is_there)


def test_every_collection_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One observation for each, of as long as it took."""
    with HttpReceiver() as receiver:
        stage = Stage([otlp(receiver.endpoint)])
        collect = stage.table.collect

        def slowly(unix_ns: int, readers: Sequence[Reader] | None = None) -> list[Collection]:
            time.sleep(0.03)
            return collect(unix_ns, readers)

        monkeypatch.setattr(stage.table, "collect", slowly)
        for _ in range(2):
            stage.table.add(1)
            stage.pass_()
            stage.wait(*stage.destinations)
        took = stage.interval.took.value
        stage.end()

    assert took.count == 2
    assert 0.06 <= took.sum < 10


def test_totals_are_encoded_once_for_destinations_that_have_the_same() -> None:
    """Two healthy backends that take totals share the bytes; one that missed an interval gets the exemplars that it has not seen, by itself."""
    with HttpReceiver() as first, HttpReceiver() as second:
        destinations = [otlp(first.endpoint), otlp(second.endpoint)]
        stage = Stage(destinations)
        stage.table.add(1)

        one, other = stage.table.collect(2 * S)
        one.commit()
        third, fourth = stage.table.collect(3 * S)
        stage.end()

    assert one.payloads is other.payloads
    assert third.payloads is not fourth.payloads
