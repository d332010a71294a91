"""The scrape endpoint: names, labels, histograms, exemplars, bounds."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from otel_ebpf_receiver.errors import AgentError
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.prometheus.exporter import PrometheusDestination, PrometheusOptions
from otel_ebpf_receiver.export.prometheus.series import SeriesStore
from otel_ebpf_receiver.export.prometheus.text import render
from otel_ebpf_receiver.export.queue import Books, Payload
from tests.export.payloads import points

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


def request_of(*metrics: Metric, **resource: str) -> bytes:
    """A request with one resource; `__` in a name of an attribute stands for a dot."""
    request = ExportMetricsServiceRequest()
    found = request.resource_metrics.add()
    for key, value in resource.items():
        found.resource.attributes.add(key=key.replace("__", ".")).value.string_value = value
    found.scope_metrics.add().metrics.extend(metrics)
    return request.SerializeToString()


def total(name: str = "requests", unit: str = "", temporality: AggregationTemporality.ValueType = CUMULATIVE, **attributes: str) -> Metric:
    """A monotonic sum with one point of 7."""
    metric = Metric(name=name, unit=unit)
    metric.sum.is_monotonic = True
    metric.sum.aggregation_temporality = temporality
    point = metric.sum.data_points.add(as_int=7)
    for key, value in attributes.items():
        point.attributes.add(key=key.replace("__", ".")).value.string_value = value
    return metric


def duration(*exemplars: tuple[int, float], start: int = 0) -> Metric:
    """A histogram of three buckets; exemplars by second and value, two in the second bucket unless told."""
    metric = Metric(name="http.server.request.duration", unit="s", description='Duration of "it".')
    metric.histogram.aggregation_temporality = CUMULATIVE
    point = metric.histogram.data_points.add(
        count=6, sum=4.5, explicit_bounds=[0.5, 1], bucket_counts=[1, 2, 3], start_time_unix_nano=start
    )
    point.attributes.add(key="http.response.status_code").value.int_value = 200
    for moment, value in exemplars or ((1, 0.75), (2, 1.0)):
        exemplar = point.exemplars.add(as_double=value, time_unix_nano=moment * 10**9)
        exemplar.trace_id, exemplar.span_id = bytes([moment]) * 16, bytes([moment]) * 8
    return metric


def lines(*bodies: bytes, openmetrics: bool = False) -> list[str]:
    """The lines of the text after these requests."""
    store = SeriesStore()
    for body in bodies:
        store.send(body)
    return render(store.series(), openmetrics=openmetrics)[1].splitlines()


IDENTITY = {"service__name": "web", "service__namespace": "shop", "service__instance__id": "i1"}
KUBERNETES = {"k8s__namespace__name": "prod", "k8s__pod__name": "web-0", "k8s__node__name": "n1"}


def test_a_histogram_is_shown_whole() -> None:
    """Buckets are cumulative with bounds as floats, the name has its unit, and identity is in labels."""
    labels = 'http_response_status_code="200",instance="i1",job="shop/web",namespace="prod",pod="web-0",service="web"'
    bucket = 'http_response_status_code="200",instance="i1",job="shop/web",le="{}",namespace="prod",pod="web-0",service="web"'

    shown = lines(request_of(duration(), **IDENTITY, **KUBERNETES))

    name = "http_server_request_duration_seconds"
    assert shown == [
        f"# TYPE {name} histogram",
        f'# HELP {name} Duration of "it".',
        f"{name}_bucket{{{bucket.format('0.5')}}} 1",
        f"{name}_bucket{{{bucket.format('1.0')}}} 3",
        f"{name}_bucket{{{bucket.format('+Inf')}}} 6",
        f"{name}_sum{{{labels}}} 4.5",
        f"{name}_count{{{labels}}} 6",
        "# TYPE target_info gauge",
        "# HELP target_info Attributes of the resource.",
        'target_info{instance="i1",job="shop/web",k8s_namespace_name="prod",k8s_node_name="n1",k8s_pod_name="web-0"} 1',
    ]


def test_openmetrics_adds_units_exemplars_and_an_end() -> None:
    """The latest exemplar of a bucket stands behind it with both ids; counters are named without their suffix in the head."""
    shown = lines(request_of(duration(), total("sent", "By"), service__name="web"), openmetrics=True)

    assert "# UNIT http_server_request_duration_seconds seconds" in shown
    (exemplar,) = [line for line in shown if " # " in line and not line.startswith("#")]
    assert exemplar.endswith(f'3 # {{span_id="{"02" * 8}",trace_id="{"02" * 16}"}} 1 2.000')
    assert 'le="1.0"' in exemplar
    assert "# TYPE sent_bytes counter" in shown
    assert 'sent_bytes_total{job="web",service="web"} 7' in shown
    assert "# TYPE target info" in shown
    assert shown[-1] == "# EOF"


def shown_exemplars(*bodies: bytes) -> dict[str, int]:
    """The second of each exemplar by the bucket's bound, as OpenMetrics shows them after these requests."""
    behind = [line.split(" # ") for line in lines(*bodies, openmetrics=True) if " # " in line and not line.startswith("#")]
    return {bucket.partition('le="')[2].partition('"')[0]: int(float(exemplar.split()[-1])) for bucket, exemplar in behind}


def test_an_exemplar_is_shown_until_a_later_one_of_its_bucket_comes() -> None:
    """A request holds only what is new, and a scrape may come after several: each bucket keeps its last exemplar, a series begun anew has none."""
    first, second = request_of(duration((1, 0.25), (2, 1.0))), request_of(duration((3, 0.75), (4, 7.0)))
    nothing_new = duration()
    del nothing_new.histogram.data_points[0].exemplars[:]
    restarted = duration((5, 7.0), start=9)

    assert shown_exemplars(first, second) == {"0.5": 1, "1.0": 3, "+Inf": 4}
    assert shown_exemplars(first, second, request_of(nothing_new)) == {"0.5": 1, "1.0": 3, "+Inf": 4}
    assert shown_exemplars(first, request_of(restarted)) == {"+Inf": 5}


def test_labels_that_collide_are_kept_apart_or_joined() -> None:
    """An attribute named like a fixed label is exported_…, two attributes that become one label are joined."""
    shown = lines(request_of(total(job="mine", a__b="1", a_b="2", le="x"), service__name="web"))

    assert 'requests_total{a_b="1;2",exported_job="mine",exported_le="x",job="web",service="web"} 7' in shown


def test_metrics_that_collide_are_rejected_and_not_mixed() -> None:
    """A second metric of another kind under one Prometheus name is counted as rejected; the scrape stays valid."""
    store = SeriesStore()
    gauge = Metric(name="requests_total")
    gauge.gauge.data_points.add(as_int=1)
    dotted = Metric(name="re.quests")
    dotted.gauge.data_points.add(as_int=1)

    answer = store.send(request_of(total("re.quests"), total("re_quests", path="x"), dotted, service__name="web"))

    assert (answer.rejected, "collides" in answer.words) == (1, True)
    assert [line for line in render(store.series(), openmetrics=False)[1].splitlines() if line.startswith("re_quests")] == [
        're_quests_total{job="web",path="x",service="web"} 7',
        're_quests_total{job="web",service="web"} 7',
    ]


def test_what_cannot_be_shown_is_rejected() -> None:
    """Delta sums and exponential histograms have no form here; their points are counted."""
    exponential = Metric(name="e")
    exponential.exponential_histogram.aggregation_temporality = CUMULATIVE
    exponential.exponential_histogram.data_points.add()

    answer = SeriesStore().send(request_of(total(temporality=DELTA), exponential))

    assert answer.rejected == 2
    assert "cumulative" in answer.words


def test_series_are_bounded_and_expire() -> None:
    """Beyond the maximum new series are rejected; what is no longer updated leaves and makes room."""
    now = [0.0]
    store = SeriesStore(series_max=3, expire_s=100, clock=lambda: now[0])

    first = store.send(points(5).body)
    now[0] = 101.0
    second = store.send(points(1, name="later").body)

    assert first.rejected == 3
    assert second.rejected == 0
    assert [series.family.name for series in store.series()] == ["later", "target"]


@contextmanager
def scraping() -> Iterator[PrometheusDestination]:
    """A started destination on a free port."""
    destination = PrometheusDestination(PrometheusOptions(port=0))
    destination.start()
    try:
        yield destination
    finally:
        destination.stop()
        destination.stop()


def scrape(port: int, accept: str = "") -> tuple[str, str]:
    """Content type and text of one scrape."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics", headers={"Accept": accept})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.headers["content-type"], text


def test_scrapes_are_negotiated_and_the_books_balance() -> None:
    """OpenMetrics is given to who takes it; what was offered is sent or rejected, garbage has failed."""
    with scraping() as destination:
        destination.offer(Signal.METRICS, points(3))
        destination.offer(Signal.METRICS, Payload(request_of(total(temporality=DELTA)), 1))
        destination.offer(Signal.METRICS, Payload(b"\xff", 2))
        assert destination.flush(10)

        plain = scrape(destination.port)
        openmetrics = scrape(destination.port, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")

        assert plain[0].startswith("text/plain; version=0.0.4")
        assert 'requests_total{job="shop",n="2",service="shop"} 2' in plain[1]
        assert openmetrics[0].startswith("application/openmetrics-text; version=1.0.0")
        assert openmetrics[1].endswith("# EOF\n")
        assert destination.books() == {Signal.METRICS: Books(received=6, sent=3, rejected=1, failed=2)}


def test_a_taken_port_is_a_clear_error() -> None:
    """The message names the exporter, the port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(AgentError, match=rf"exporter 'prometheus' \(exporters.prometheus\): port {port} .*choose another port"):
            PrometheusDestination(PrometheusOptions(port=port))
