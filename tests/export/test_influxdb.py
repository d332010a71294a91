"""InfluxDB: the line protocol, the two measurements, and the write API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_ebpf_receiver.errors import ExportError
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.http.connection import Endpoint
from otel_ebpf_receiver.export.influxdb.columns import Column, Columns
from otel_ebpf_receiver.export.influxdb.exporter import InfluxDestination, InfluxOptions
from otel_ebpf_receiver.export.influxdb.line import TIMES_MAX, Times, line
from otel_ebpf_receiver.export.influxdb.red import END, RedLines
from otel_ebpf_receiver.export.influxdb.traffic import traffic_lines
from otel_ebpf_receiver.export.queue import Books, Payload, QueueLimits
from otel_ebpf_receiver.export.sender import Backoff
from tests.export.receivers import HttpReceiver, Reply

SECOND = 10**9
COLUMNS = Columns(
    red_metric="calls.duration",
    resource_tags=(Column("podname", ("k8s.pod.name",)), Column("servicename", ("service.name",))),
    constants=(("type", "1"),),
    tags=(Column("code", ("code",)),),
    fields=(Column("url", ("url.full", "url.path")),),
    server_fields=(Column("srcport", ("client.port",)),),
    client_tags=(Column("dstip", ("server.address",)),),
)


def spans() -> Payload:
    """A server span and a client span of one pod."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    for key, value in (("k8s.pod.name", "web-0"), ("service.name", "web shop")):
        resource.resource.attributes.add(key=key).value.string_value = value
    scope = resource.scope_spans.add()
    server = scope.spans.add(kind=Span.SPAN_KIND_SERVER, start_time_unix_nano=5 * SECOND, end_time_unix_nano=5 * SECOND + 1_500_000)
    client = scope.spans.add(kind=Span.SPAN_KIND_CLIENT, start_time_unix_nano=6 * SECOND, end_time_unix_nano=7 * SECOND)
    for span, path in ((server, '/a"b\\c d'), (client, "/x")):
        span.attributes.add(key="url.path").value.string_value = path
        span.attributes.add(key="code").value.int_value = 200
        span.attributes.add(key="client.port").value.int_value = 40000
        span.attributes.add(key="server.address").value.string_value = "10.0.0.9"
    return Payload(request.SerializeToString(), 2)


def red(
    seconds: int,
    *series: tuple[str, int, float, bool],
    start: int = 0,
    temporality: AggregationTemporality.ValueType | None = None,
    is_exponential: bool = False,
    instance: str = "a",
) -> Payload:
    """A request at that time with cumulative series of (route, count, sum in seconds, whether they are errors)."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    for key, value in (("service.name", "web"), ("service.instance.id", instance)):
        resource.resource.attributes.add(key=key).value.string_value = value
    metric = resource.scope_metrics.add().metrics.add(name="calls.duration", unit="s")
    histogram = metric.exponential_histogram if is_exponential else metric.histogram
    histogram.aggregation_temporality = temporality or AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    for route, count, total, is_error in series:
        point = histogram.data_points.add(start_time_unix_nano=start * SECOND, time_unix_nano=seconds * SECOND, count=count, sum=total)
        point.attributes.add(key="route").value.string_value = route
        if is_error:
            point.attributes.add(key="error.type").value.string_value = "500"
    return Payload(request.SerializeToString(), len(series))


def test_everything_special_is_escaped() -> None:
    """Measurement, tag keys and values, field keys and texts each have their own rules; a line end never gets in."""
    shown = line("a, b", {"k =": "v,1", "empty": "", "n": "x\ny"}, {"t": 'q"\\', "i": 3, "f": 0.5, "b": True}, 7)

    assert shown == 'a\\,\\ b,k\\ \\==v\\,1,n=x\\ y t="q\\"\\\\",i=3i,f=0.5,b=true 7'


def test_a_span_is_a_point_of_traffic_at_its_own_time() -> None:
    """Bounded values are tags, unbounded ones fields, flow says the workload's side, duration is in milliseconds."""
    assert traffic_lines(COLUMNS, spans().body) == [
        'traffic,code=200,flow=0,podname=web-0,servicename=web\\ shop,type=1 duration=1.5,url="/a\\"b\\\\c d",srcport=40000i 5000000000',
        'traffic,code=200,dstip=10.0.0.9,flow=1,podname=web-0,servicename=web\\ shop,type=1 duration=1000.0,url="/x" 6000000000',
    ]


def started_at(*starts_ns: int) -> bytes:
    """A request with server spans of the same tags and these starts."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for start_ns in starts_ns:
        scope.spans.add(kind=Span.SPAN_KIND_SERVER, start_time_unix_nano=start_ns, end_time_unix_nano=start_ns)
    return request.SerializeToString()


def test_pipelined_requests_are_points_of_their_own() -> None:
    """Spans of the same tags that began in the same nanosecond overwrite neither each other nor their neighbours, in one request or several."""
    times = Times()

    first = traffic_lines(COLUMNS, started_at(50, 50, 51, 50, 70), times)
    second = traffic_lines(COLUMNS, started_at(50, 60), times)

    assert [int(line.rpartition(" ")[2]) for line in first] == [50, 51, 52, 53, 70]
    assert [int(line.rpartition(" ")[2]) for line in second] == [54, 60]


def test_of_many_points_the_latest_are_remembered() -> None:
    """Memory is bounded: a time of long ago is free again, each of the latest is not."""
    times = Times()

    own = [times.of_its_own("traffic", number) for number in range(3 * TIMES_MAX)]

    assert own == list(range(3 * TIMES_MAX))
    assert times.of_its_own("traffic", 2 * TIMES_MAX) == 3 * TIMES_MAX
    assert times.of_its_own("traffic", 0) == 0


@pytest.mark.parametrize("is_exponential", [False, True])
def test_red_is_what_happened_in_the_interval(is_exponential: bool) -> None:
    """Rate, share of errors and mean duration of a Resource, over all its series, from one point of time to the next, whatever the buckets."""
    lines = RedLines(COLUMNS, 60 * SECOND)

    early = lines.lines(red(30, ("/a", 30, 3.0, False), is_exponential=is_exponential).body)
    first = lines.lines(red(60, ("/a", 90, 9.0, False), ("/b", 30, 9.0, True), is_exponential=is_exponential).body)
    second = lines.lines(red(120, ("/a", 90, 9.0, False), ("/b", 36, 12.0, True), is_exponential=is_exponential).body)
    idle = lines.lines(red(180, ("/a", 90, 9.0, False), ("/b", 36, 12.0, True), is_exponential=is_exponential).body)

    assert early == []
    assert first == ["red,servicename=web qps=2.0,errrate=25.0,duration=150.0 60000000000"]
    assert second == ["red,servicename=web qps=0.1,errrate=100.0,duration=500.0 120000000000"]
    assert idle == ["red,servicename=web qps=0.0,errrate=0.0 180000000000"]


def test_red_survives_a_restart_of_a_series_and_takes_deltas() -> None:
    """A series with a new start counts from zero again; delta points count as they are."""
    cumulative, delta = RedLines(COLUMNS, 60 * SECOND), RedLines(COLUMNS, 60 * SECOND)
    temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    cumulative.lines(red(60, ("/a", 600, 60.0, False)).body)
    delta.lines(red(30, ("/a", 60, 6.0, False), temporality=temporality).body)

    restarted = cumulative.lines(red(120, ("/a", 660, 66.0, False), start=61).body)
    summed = delta.lines(red(60, ("/a", 60, 6.0, False), start=30, temporality=temporality).body)

    assert restarted == ["red,servicename=web qps=11.0,errrate=0.0,duration=100.0 120000000000"]
    assert summed == ["red,servicename=web qps=2.0,errrate=0.0,duration=100.0 60000000000"]


def test_resources_of_the_same_tags_are_one_point_of_red() -> None:
    """Two instances that no tag tells apart are added up, as the server would keep the point of one of them."""
    both = red(60, ("/a", 60, 6.0, False)).body + red(60, ("/a", 120, 30.0, True), instance="b").body

    lines = RedLines(COLUMNS, 60 * SECOND).lines(both)

    assert [line.partition(" ")[2].split(",") for line in lines] == [["qps=3.0", f"errrate={200 / 3}", "duration=200.0 60000000000"]]


def test_the_end_does_not_replace_the_last_point_of_red() -> None:
    """What came after an interval's point but is of the same time would be a point of the same time and an absurd rate."""
    lines = RedLines(COLUMNS, 60 * SECOND)
    lines.lines(red(60, ("/a", 60, 6.0, False)).body)
    lines.lines(red(60, ("/b", 1, 0.1, False)).body)

    assert lines.lines(END) == []


def test_red_goes_on_when_the_clock_is_set_back() -> None:
    """The next interval ends when its time is over, without counting again the series whose start was moved back too."""
    lines = RedLines(COLUMNS, 60 * SECOND)
    lines.lines(red(1060, ("/a", 60, 6.0, False), start=1000).body)

    stepped = lines.lines(red(30, ("/a", 90, 9.0, False), start=30).body)
    after = lines.lines(red(90, ("/a", 150, 15.0, False), start=30).body)

    assert stepped == []
    assert after == ["red,servicename=web qps=1.5,errrate=0.0,duration=100.0 90000000000"]


def test_the_end_writes_what_an_interval_has_so_far() -> None:
    """When the agent stops, what came since the last whole interval is a point too, once; nothing new is no point."""
    with HttpReceiver([Reply(204)] * 3) as receiver, writing(receiver) as destination:
        destination.offer(Signal.METRICS, red(60, ("/a", 60, 60.0, False)))
        destination.offer(Signal.METRICS, red(70, ("/a", 80, 70.0, False)))
        destination.finish(time.monotonic() + 10)
        destination.finish(time.monotonic() + 10)
        destination.stop()

        assert [request.body for request in receiver.requests] == [
            b"red,servicename=web qps=1.0,errrate=0.0,duration=1000.0 60000000000\n",
            b"red,servicename=web qps=2.0,errrate=0.0,duration=500.0 70000000000\n",
        ]
        assert destination.books()[Signal.METRICS] == Books(received=2, sent=2)


@contextmanager
def writing(receiver: HttpReceiver, events: list[tuple[Endpoint, Endpoint]] | None = None) -> Iterator[InfluxDestination]:
    """A started destination that writes to `receiver`."""
    options = InfluxOptions(receiver.endpoint + "/influx", token="secret", org="an org", bucket="b&c")
    register = [] if events is None else events
    destination = InfluxDestination(
        options, COLUMNS, backoff=Backoff(0.01, 0.05), ignore=lambda local, remote: register.append((local, remote))
    )
    destination.start()
    try:
        yield destination
    finally:
        destination.stop()
        destination.stop()


def test_points_are_written_with_token_and_registered_connection() -> None:
    """Both signals go to the v2 write API, over connections that the agent ignores, and the books count spans and points."""
    events: list[tuple[Endpoint, Endpoint]] = []
    with HttpReceiver([Reply(204)] * 2) as receiver, writing(receiver, events) as destination:
        destination.offer(Signal.TRACES, spans())
        assert destination.flush(10)
        destination.offer(Signal.METRICS, red(30, ("/a", 1, 1.0, False)))
        destination.offer(Signal.METRICS, red(60, ("/a", 60, 60.0, False)))
        assert destination.flush(10)

        traffic, rates = receiver.requests
        assert traffic.path == "/influx/api/v2/write?org=an+org&bucket=b%26c&precision=ns"
        assert traffic.headers["authorization"] == "Token secret"
        assert traffic.body.count(b"\n") == 2
        assert rates.body == b"red,servicename=web qps=1.0,errrate=0.0,duration=1000.0 60000000000\n"
        assert {remote for _, remote in events} == {("127.0.0.1", receiver.port)}
        assert destination.books() == {
            Signal.TRACES: Books(received=2, sent=2),
            Signal.METRICS: Books(received=2, sent=2),
        }


def test_a_retried_request_is_not_summed_twice() -> None:
    """After 503 the same line is written again."""
    with HttpReceiver([Reply(503), Reply(503), Reply(204)]) as receiver, writing(receiver) as destination:
        destination.offer(Signal.METRICS, red(60, ("/a", 60, 60.0, False)))
        assert destination.flush(10)

        assert len({request.body for request in receiver.requests}) == 1
        assert destination.books()[Signal.METRICS] == Books(received=1, sent=1, retried=2)


def test_too_many_points_are_written_in_parts_and_bad_ones_fail() -> None:
    """413 splits, 400 fails, and the books balance."""
    with HttpReceiver([Reply(413), Reply(204), Reply(400, message="bad")]) as receiver, writing(receiver) as destination:
        destination.offer(Signal.TRACES, spans())
        assert destination.flush(10)

        assert [request.body.count(b"\n") for request in receiver.requests] == [2, 1, 1]
        assert destination.books()[Signal.TRACES] == Books(received=2, sent=1, failed=1)


def test_a_request_of_more_spans_than_the_queue_holds_is_cut_to_fit() -> None:
    """A bound on spans below the size of one request bounds the queue instead of losing every request."""
    destination = InfluxDestination(InfluxOptions("http://127.0.0.1:9", bucket="b"), COLUMNS, limits=QueueLimits(spans_max_items=1))

    destination.offer(Signal.TRACES, spans())

    books = destination.books()[Signal.TRACES]
    assert (books.received, books.dropped, books.queued) == (2, 1, 1)
    destination.stop()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (InfluxOptions("influx:8086", bucket="b"), r"influxdb\.url"),
        (InfluxOptions("http://h:99999", bucket="b"), r"influxdb\.url"),
        (InfluxOptions("http://h:8086"), r"influxdb\.bucket"),
    ],
)
def test_bad_options_are_errors(options: InfluxOptions, key: str) -> None:
    """The message names the key of the configuration."""
    with pytest.raises(ExportError, match=key):
        InfluxDestination(options, COLUMNS)


def test_the_token_is_not_shown() -> None:
    """The text of the options leaves it out."""
    assert "secret" not in repr(InfluxOptions("http://h", token="secret"))
