"""Counters, their text for Prometheus, and their way through the SDK."""

from __future__ import annotations

import threading

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from otel_ebpf_receiver.status.counters import DURATION_BOUNDS_S, SERIES_MAX, Counters, Histogram, Instrument, Kind, Reading, pairs
from otel_ebpf_receiver.status.exposition import exposition, labels, metric_name, number
from otel_ebpf_receiver.status.own import OwnTelemetry


def test_no_count_is_lost_between_threads() -> None:
    """Many threads on one counter add up exactly."""
    counters = Counters()

    def count() -> None:
        counter = counters.counter("a.b", "Things.")
        for _ in range(5000):
            counter.add()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [reading.value for reading in counters.readings()] == [20_000]


def test_readings_hold_everything_in_order() -> None:
    """Own counters, gauges and observed values come in one list by name and attributes."""
    counters = Counters()
    kernel = Instrument("kernel.count", "What the kernel counted.", "{packet}")
    counters.observe(kernel, lambda: {pairs({"what": "packets"}): 7, pairs({"what": "flows"}): 2})
    counters.gauge("taps", "Attached taps.").set(3)
    counters.counter("batches", "Batches.", attributes={"b": "2", "a": "1"}).add(5)

    readings = counters.readings()

    assert [(reading.instrument.name, reading.attributes, reading.value) for reading in readings] == [
        ("batches", (("a", "1"), ("b", "2")), 5),
        ("kernel.count", (("what", "flows"),), 2),
        ("kernel.count", (("what", "packets"),), 7),
        ("taps", (), 3),
    ]


def test_a_name_means_one_thing() -> None:
    """The same series is the same counter; another unit or kind under the name is an error."""
    counters = Counters()
    first = counters.counter("a", "A.", unit="By")

    assert counters.counter("a", "A.", unit="By") is first
    with pytest.raises(ValueError, match="already a counter in 'By'"):
        counters.counter("a", "A.", unit="s")
    with pytest.raises(ValueError, match="already a counter"):
        counters.gauge("a", "A.", unit="By")


def test_the_number_of_series_is_bounded() -> None:
    """An open set of attributes is an error of the program, and what is read from outside is cut."""
    counters = Counters()
    for number_ in range(SERIES_MAX):
        counters.counter("a", "A.", attributes={"n": str(number_)})
    counters.observe(Instrument("b", "B."), lambda: {pairs({"n": str(each)}): each for each in range(SERIES_MAX + 5)})

    with pytest.raises(ValueError, match="closed set"):
        counters.counter("a", "A.", attributes={"n": "more"})
    assert len(counters.readings()) == 2 * SERIES_MAX


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("otel_ebpf_receiver.ring.lost", "{record}", Kind.COUNTER, "otel_ebpf_receiver_ring_lost_total"),
        ("otel_ebpf_receiver.cpu", "s", Kind.COUNTER, "otel_ebpf_receiver_cpu_seconds_total"),
        ("otel_ebpf_receiver.queue", "By", Kind.UP_DOWN, "otel_ebpf_receiver_queue_bytes"),
        ("queue.bytes", "By", Kind.GAUGE, "queue_bytes"),
        ("a.total", "1", Kind.COUNTER, "a_total"),
        ("share", "1", Kind.GAUGE, "share_ratio"),
        ("9 lives--now", "", Kind.GAUGE, "_9_lives_now"),
    ],
)
def test_names_are_mapped_as_the_specification_says(name: str, unit: str, kind: Kind, expected: str) -> None:
    """Dots become underscores, units and `_total` suffixes, annotations vanish."""
    assert metric_name(name, unit, is_counter=kind is Kind.COUNTER, is_gauge=kind is Kind.GAUGE) == expected


def test_labels_are_escaped_and_collisions_joined() -> None:
    """Quotes, backslashes and line ends are escaped; two names that become one label share it."""
    assert labels([]) == ""
    assert labels([("a", 'x"\\\n')]) == '{a="x\\"\\\\\\n"}'
    assert labels([("a.b", "1"), ("a_b", "2"), ("0", "z")]) == '{_0="z",a_b="1;2"}'


def test_numbers_are_prometheus_numbers() -> None:
    """Whole numbers stay whole, and the special values have Prometheus' names."""
    values = (3, 2.0, 0.25, float("inf"), float("-inf"), float("nan"))

    assert [number(value) for value in values] == ["3", "2", "0.25", "+Inf", "-Inf", "NaN"]


def test_the_exposition_groups_series() -> None:
    """One HELP and TYPE for each name, then its series."""
    lost = Instrument("ring.lost", "Records\nlost.", "{record}")
    readings = [Reading(lost, (("source", "dns"),), 0), Reading(lost, (("source", "http"),), 4), Reading(Instrument("up", "Up."), (), 1)]

    assert exposition(readings).splitlines() == [
        "# HELP ring_lost_total Records\\nlost.",
        "# TYPE ring_lost_total counter",
        'ring_lost_total{source="dns"} 0',
        'ring_lost_total{source="http"} 4',
        "# HELP up_total Up.",
        "# TYPE up_total counter",
        "up_total 1",
    ]


def durations(counters: Counters, *seconds: float) -> Histogram:
    """A histogram `took` with these values."""
    made = Histogram()
    counters.observe(Instrument("took", "Took.", "s", Kind.HISTOGRAM), lambda: {pairs({"to": "x"}): made.value})
    for one in seconds:
        made.record(one)
    return made


def test_the_exposition_of_a_histogram_is_cumulative() -> None:
    """A count for each bound and below, a bound belonging to its bucket; then sum and count."""
    counters = Counters()
    durations(counters, 0.005, 0.3, 0.5, 60.0)

    text = exposition(counters.readings()).splitlines()

    assert text[1] == "# TYPE took_seconds histogram"
    at = {line.split('le="')[1].split('"')[0]: int(line.rpartition(" ")[2]) for line in text if "_bucket" in line}
    assert list(at) == [number(bound) for bound in DURATION_BOUNDS_S] + ["+Inf"]
    assert (at["0.005"], at["0.25"], at["0.5"], at["10"], at["+Inf"]) == (1, 1, 3, 3, 4)
    assert text[-2:] == ['took_seconds_sum{to="x"} 60.805', 'took_seconds_count{to="x"} 4']


@pytest.mark.parametrize("is_delta", [False, True])
def test_histograms_go_the_same_way(is_delta: bool) -> None:
    """Beside what the SDK collects: all values so far, or those since the collection before; each begins where that says."""
    counters = Counters()
    counters.counter("lost", "Records lost.").add()
    own = OwnTelemetry(counters, {"service.name": "agent"}, is_delta=is_delta)
    took = durations(counters, 0.3, 60.0)

    first = collected(own)["took"].histogram
    took.record(0.004)
    second = collected(own)["took"].histogram

    assert first.aggregation_temporality == second.aggregation_temporality == (1 if is_delta else 2)
    (one,), (two,) = first.data_points, second.data_points
    assert (one.count, one.sum, two.count) == (2, 60.3, 1 if is_delta else 3)
    assert two.sum == pytest.approx(0.004 if is_delta else 60.304)
    assert tuple(one.explicit_bounds) == DURATION_BOUNDS_S
    assert (one.bucket_counts[7], one.bucket_counts[-1], two.bucket_counts[0]) == (1, 1, 1)
    assert not one.HasField("min")
    assert (two.start_time_unix_nano == one.time_unix_nano) == is_delta
    assert (two.start_time_unix_nano == one.start_time_unix_nano) != is_delta
    assert [attribute.key for attribute in one.attributes] == ["to"]
    own.stop()


def collected(own: OwnTelemetry) -> dict[str, Metric]:
    """The metrics of one collection by name."""
    body, points = own.collect()
    request = ExportMetricsServiceRequest.FromString(body)
    metrics = [metric for resource in request.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics]
    assert points == sum(len(getattr(metric, str(metric.WhichOneof("data"))).data_points) for metric in metrics)
    return {metric.name: metric for metric in metrics}


def test_own_telemetry_is_what_the_counters_say() -> None:
    """Counters are monotonic sums, gauges gauges, with attributes, unit and description; instruments that come later join in."""
    counters = Counters()
    own = OwnTelemetry(counters, {"service.name": "agent"}, schema_url="https://opentelemetry.io/schemas/1.40.0", version="1")
    assert own.collect() == (b"", 0)
    counters.counter("lost", "Records lost.", unit="{record}", attributes={"source": "http"}).add(4)
    first = collected(own)
    counters.gauge("taps", "Taps.").set(2)
    counters.observe(Instrument("queue", "Queue.", "By", Kind.UP_DOWN), lambda: {(): 9})

    second = collected(own)

    assert set(first) == {"lost"}
    lost = second["lost"]
    assert (lost.unit, lost.description) == ("{record}", "Records lost.")
    assert lost.sum.is_monotonic
    assert lost.sum.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert [(point.as_int, point.attributes[0].key) for point in lost.sum.data_points] == [(4, "source")]
    assert second["taps"].gauge.data_points[0].as_int == 2
    assert not second["queue"].sum.is_monotonic
    own.stop()
    own.stop()
    assert own.collect() == (b"", 0)


def test_own_telemetry_can_be_delta() -> None:
    """With delta temporality each collection holds what came since the last one."""
    counters = Counters()
    counter = counters.counter("lost", "Records lost.")
    own = OwnTelemetry(counters, {"service.name": "agent"}, is_delta=True)
    counter.add(4)
    collected(own)
    counter.add(3)

    second = collected(own)["lost"].sum

    own.stop()
    assert second.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    assert [point.as_int for point in second.data_points] == [3]
