"""The table of metrics says what the SDK says of the same observations, and loses nothing whatever becomes of an export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

from otel_ebpf_receiver.telemetry import names
from otel_ebpf_receiver.telemetry.columns import Group, Instrument, Kind, Part, Points
from otel_ebpf_receiver.telemetry.exemplars import Sampled
from otel_ebpf_receiver.telemetry.keys import mix
from otel_ebpf_receiver.telemetry.red import Collection, MetricOptions, Red
from otel_ebpf_receiver.telemetry.resources import Resources
from otel_ebpf_receiver.telemetry.workload import Workload

S = 1_000_000_000
BOUNDS = (0.005, 0.01, 0.1, 1.0)
DURATION = Instrument("x.duration", "s", "How long.", BOUNDS, is_duration=True)
SIZE = Instrument("x.size", "By", "How large.", (0.0, 64.0))
COUNT = Instrument("x.count", "{x}", "How many.")
NONE = Sampled(np.zeros(0, np.intp), np.zeros((0, 16), np.uint8), np.zeros((0, 8), np.uint8), np.zeros(0, np.uint64))


class Table:
    """A table with two workloads and short ways to use it."""

    def __init__(self, **options: Any) -> None:
        self.resources = Resources({"service.name": "unknown_service"}, {}, "1.0")
        self.workloads = tuple(Workload({"service.name": f"s{number}"}) for number in range(50))
        self.red = Red(MetricOptions(**options), self.resources, start_unix_ns=S)

    def add(self, values: list[float], which: list[int] | None = None, owner: int = 0, *, now: int = 2 * S, **more: Any) -> None:
        """Observes `values`; `which` is an attribute."""
        kinds = np.array(which if which is not None else [0] * len(values))
        group = Group(mix(kinds), lambda row: Part({"which": int(kinds[row])}))
        points = Points(more.get("instrument", DURATION), Kind.SERVER, np.arange(len(values)), np.array(values, float), group)
        numbers = self.resources.numbers(self.workloads, np.full(len(values), owner, np.int32))
        self.red.observe(points, numbers, more.get("sampled", NONE), now=now)

    def collect(self, now: int) -> tuple[Collection, dict[tuple[str, str, Any], Any]]:
        """A collection and its points by service, metric and attribute."""
        collection = self.red.collect(now)
        return collection, points(collection)


def points(collection: Collection) -> dict[tuple[str, str, Any], Any]:
    """The points of a collection by service, metric and attribute; none may be there twice."""
    out: dict[tuple[str, str, Any], Any] = {}
    for payload in collection.payloads:
        count = 0
        for resource in ExportMetricsServiceRequest.FromString(payload.body).resource_metrics:
            assert resource.schema_url == resource.scope_metrics[0].schema_url == names.SCHEMA_URL
            service = {item.key: item.value.string_value for item in resource.resource.attributes}["service.name"]
            for metric in resource.scope_metrics[0].metrics:
                for point in getattr(metric, metric.WhichOneof("data") or "").data_points:
                    (attribute,) = point.attributes
                    key = attribute.value.int_value if attribute.key == "which" else attribute.key
                    assert (service, metric.name, key) not in out
                    out[service, metric.name, key] = point
                    count += 1
        assert count == payload.items
    return out


def sdk_points(
    temporality: AggregationTemporality,
    batches: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
    *,
    exponential: bool,
    instrument: Instrument = DURATION,
) -> list[dict[int, Any]]:
    """What the SDK exports after each batch."""
    reader = InMemoryMetricReader({Histogram: temporality, Counter: temporality})
    views = [View(instrument_name="*", aggregation=ExponentialBucketHistogramAggregation())] if exponential else []
    provider = MeterProvider([reader], views=views, shutdown_on_exit=False)
    meter = provider.get_meter("m")
    if instrument.bounds is None:
        record: Callable[..., None] = meter.create_counter(instrument.name).add
    else:
        record = meter.create_histogram(instrument.name, explicit_bucket_boundaries_advisory=list(instrument.bounds)).record
    out = []
    for values, which in batches:
        for value, kind in zip(values.tolist(), which.tolist(), strict=True):
            record(value, {"which": kind})
        data = reader.get_metrics_data()
        assert data is not None
        metric = encode_metrics(data).resource_metrics[0].scope_metrics[0].metrics[0]
        found = getattr(metric, metric.WhichOneof("data") or "").data_points
        out.append({point.attributes[0].value.int_value: point for point in found})
    provider.shutdown()
    return out


def random_batches(seed: int) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Values over many orders of magnitude, with zeros and exact bounds among them."""
    random = np.random.default_rng(seed)
    out = []
    for _ in range(4):
        values = np.exp(random.normal(-4, random.uniform(0.1, 4), 300))
        values[random.random(300) < 0.05] = random.choice([0.0, 0.005, 0.1, 0.5, 1.0])
        out.append((values, random.integers(0, 5, 300)))
    return out


def same_histogram(ours: Any, theirs: Any) -> None:
    """Holds one explicit histogram against another."""
    assert list(ours.bucket_counts) == list(theirs.bucket_counts)
    assert list(ours.explicit_bounds) == list(theirs.explicit_bounds)
    assert (ours.count, ours.min, ours.max, ours.flags) == (theirs.count, theirs.min, theirs.max, theirs.flags)
    assert ours.sum == pytest.approx(theirs.sum)


def buckets(point: Any) -> dict[int, int]:
    """Counts by index of an exponential histogram."""
    return {point.positive.offset + place: count for place, count in enumerate(point.positive.bucket_counts) if count}


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("seed", range(4))
def test_explicit_histograms_equal_the_sdks(temporality: str, seed: int) -> None:
    """Counts, sum, extremes and bounds of every interval are those of the SDK."""
    batches, table = random_batches(seed), Table(temporality=temporality)
    kind = AggregationTemporality.CUMULATIVE if temporality == "cumulative" else AggregationTemporality.DELTA

    for number, ((values, which), theirs) in enumerate(zip(batches, sdk_points(kind, batches, exponential=False), strict=True), 2):
        table.add(values.tolist(), which.tolist())
        collection, ours = table.collect(number * S)
        collection.commit()

        assert {key[2] for key in ours} == set(theirs)
        for key, point in ours.items():
            same_histogram(point, theirs[key[2]])
            start = 1 if temporality == "cumulative" else number - 1
            assert (point.start_time_unix_nano, point.time_unix_nano) == (start * S, number * S)


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("seed", range(4))
def test_exponential_histograms_equal_the_sdks(temporality: str, seed: int) -> None:
    """Buckets are those of the SDK at our scale, which is as fine as 160 buckets allow; the rest is equal."""
    batches = random_batches(seed)
    table = Table(temporality=temporality, histogram="base2_exponential_bucket_histogram")
    kind = AggregationTemporality.CUMULATIVE if temporality == "cumulative" else AggregationTemporality.DELTA

    for number, ((values, which), theirs) in enumerate(zip(batches, sdk_points(kind, batches, exponential=True), strict=True), 2):
        table.add(values.tolist(), which.tolist())
        collection, ours = table.collect(number * S)
        collection.commit()

        for key, point in ours.items():
            other = theirs[key[2]]
            assert (point.count, point.zero_count, point.min, point.max) == (other.count, other.zero_count, other.min, other.max)
            assert point.sum == pytest.approx(other.sum)
            shift = abs(point.scale - other.scale)
            fine, coarse = (buckets(point), buckets(other)) if point.scale >= other.scale else (buckets(other), buckets(point))
            merged: dict[int, int] = {}
            for index, count in fine.items():
                merged[index >> shift] = merged.get(index >> shift, 0) + count
            assert merged == coarse
            assert len(point.positive.bucket_counts) <= 160
            if temporality == "cumulative":
                assert point.scale >= other.scale


def test_counters_equal_the_sdks() -> None:
    """A counter's deltas and totals are whole numbers, monotonic, and those of the SDK."""
    batches = [(np.array([1, 2, 3]), np.array([0, 1, 0])), (np.array([5]), np.array([1]))]
    for temporality, kind in (("cumulative", AggregationTemporality.CUMULATIVE), ("delta", AggregationTemporality.DELTA)):
        table = Table(temporality=temporality)
        for (values, which), theirs in zip(batches, sdk_points(kind, batches, exponential=False, instrument=COUNT), strict=True):
            table.add(values.tolist(), which.tolist(), instrument=COUNT)
            collection, ours = table.collect(3 * S)
            collection.commit()

            assert {key[2]: point.as_int for key, point in ours.items()} == {key: point.as_int for key, point in theirs.items()}
        sums = ExportMetricsServiceRequest.FromString(collection.payloads[0].body).resource_metrics[0].scope_metrics[0].metrics[0].sum
        assert sums.is_monotonic
        assert sums.aggregation_temporality == kind.value


@pytest.mark.parametrize("histogram", ["explicit_bucket_histogram", "base2_exponential_bucket_histogram"])
def test_unsent_deltas_merge_into_the_next_interval(histogram: str) -> None:
    """After two exports that failed (which nobody can take back), the third holds all three intervals, from the start of the first."""
    table = Table(temporality="delta", histogram=histogram)
    for number, value in enumerate((0.02, 50.0, 0.0001), 2):
        table.add([value])
        collection, found = table.collect(number * S)
        if number < 4:
            collection.rollback()
            collection.commit()

    point = found["s0", "x.duration", 0]
    assert (point.count, point.min, point.max, point.start_time_unix_nano) == (3, 0.0001, 50.0, S)
    collection.commit()
    assert not table.collect(5 * S)[1]


def spans_of(found: dict[tuple[str, str, Any], Any]) -> dict[Any, tuple[int, int, int]]:
    """Start and time in seconds and the count of each point, by its attribute."""
    return {key[2]: (point.start_time_unix_nano // S, point.time_unix_nano // S, point.count) for key, point in found.items()}


def test_totals_begin_no_later_than_they_end_when_the_clock_is_set_back() -> None:
    """A start that would be in the future becomes the time of the step and stays that; others stay what they were."""
    table = Table()
    table.add([0.5])
    table.collect(100 * S)[0].commit()
    table.add([0.5, 0.5], [0, 1])

    assert spans_of(table.collect(50 * S)[1]) == {0: (1, 50, 2), 1: (50, 50, 1)}
    assert spans_of(table.collect(60 * S)[1]) == {0: (1, 60, 2), 1: (50, 60, 1)}


def test_deltas_do_not_overlap_when_the_clock_is_set_back() -> None:
    """The first delta after the step is of no length; those that follow begin where the one before ended, or where it would have if it had arrived."""
    table = Table(temporality="delta")
    table.add([0.5])
    table.collect(100 * S)[0].commit()
    table.add([0.5, 0.5], [0, 1])

    assert spans_of(table.collect(50 * S)[1]) == {0: (50, 50, 1), 1: (50, 50, 1)}
    collection, found = table.collect(60 * S)
    assert spans_of(found) == {0: (50, 60, 1), 1: (50, 60, 1)}
    collection.commit()
    table.add([0.5])
    assert spans_of(table.collect(70 * S)[1]) == {0: (60, 70, 1)}


def test_a_delta_that_arrives_after_the_clock_was_set_back_ended_before() -> None:
    """Another reader has met the step while this one's interval was on its way: its next delta still begins no later than it ends."""
    table = Table()
    slow, other = table.red.serve(["delta", "delta"])
    table.add([0.5])
    late = table.red.collect(100 * S, slow)
    table.red.collect(50 * S, other)
    late.commit()
    table.add([0.5])

    assert spans_of(points(table.red.collect(60 * S, slow))) == {0: (50, 60, 1)}


def test_values_that_come_between_collection_and_acceptance_are_in_the_next_delta() -> None:
    """What is observed while an export is on its way belongs to the next interval, extremes and exemplars included."""
    for histogram in ("explicit_bucket_histogram", "base2_exponential_bucket_histogram"):
        table = Table(temporality="delta", histogram=histogram)
        table.add([0.5])
        collection, _ = table.collect(2 * S)
        table.add([0.00001, 700.0], sampled=sampled([1], 9))
        collection.commit()

        _, found = table.collect(3 * S)

        point = found["s0", "x.duration", 0]
        assert (point.count, point.min, point.max, point.start_time_unix_nano) == (2, 0.00001, 700.0, 2 * S)
        assert [exemplar.as_double for exemplar in point.exemplars] == [700.0]


def test_an_older_collection_cannot_be_accepted_late() -> None:
    """Accepting an interval after a later one was collected changes nothing: the later one holds it."""
    table = Table(temporality="delta")
    table.add([0.5])
    older, _ = table.collect(2 * S)
    table.add([0.5])
    table.collect(3 * S)

    older.commit()

    assert table.collect(4 * S)[1]["s0", "x.duration", 0].count == 2


def sampled(rows: list[int], first: int) -> Sampled:
    """Exemplars for some rows, with ids that count up from `first`."""
    count = len(rows)
    ids = np.arange(first, first + count, dtype=np.uint8)
    trace, span = np.repeat(ids[:, None], 16, axis=1), np.repeat(ids[:, None], 8, axis=1)
    return Sampled(np.array(rows), trace, span, np.array([2 * S + row for row in rows], np.uint64))


@pytest.mark.parametrize("histogram", ["explicit_bucket_histogram", "base2_exponential_bucket_histogram"])
def test_exemplars_name_sampled_spans(histogram: str) -> None:
    """A bucket's exemplar has value, time, trace and span id of a span that was sampled; it is exported until accepted, then it goes."""
    table = Table(histogram=histogram)
    table.add([0.002, 0.5, 0.6], sampled=sampled([0, 2], 1))

    for _ in range(2):
        collection, found = table.collect(3 * S)
        exemplars = sorted(found["s0", "x.duration", 0].exemplars, key=lambda one: one.as_double)
        assert [one.as_double for one in exemplars] == [0.002, 0.6]
        assert [one.trace_id for one in exemplars] == [b"\1" * 16, b"\2" * 16]
        assert [one.span_id for one in exemplars] == [b"\1" * 8, b"\2" * 8]
        assert [one.time_unix_nano for one in exemplars] == [2 * S, 2 * S + 2]
    collection.commit()

    assert not table.collect(4 * S)[1]["s0", "x.duration", 0].exemplars


def test_beyond_the_limit_series_are_one_overflow_series() -> None:
    """Per workload and instrument; nothing is lost: the counts add up, and another workload is not touched."""
    table = Table(series_limit=10)
    table.add([0.5] * 100, list(range(100)))
    table.add([0.5] * 100, list(range(100)), owner=1, instrument=SIZE)
    table.add([0.5] * 3, [0, 1, 2], owner=2)

    _, found = table.collect(3 * S)

    assert found["s0", "x.duration", names.METRIC_OVERFLOW].count == 90
    assert found["s1", "x.size", names.METRIC_OVERFLOW].count == 90
    assert sum(point.count for key, point in found.items() if key[0] == "s0") == 100
    assert ("s2", "x.duration", names.METRIC_OVERFLOW) not in found
    assert table.red.overflowed == 180


def test_bytes_of_all_series_are_capped() -> None:
    """Beyond the cap new series are overflow too, whoever they belong to, and nothing is lost."""
    table = Table(memory_bytes=40_000)
    for owner in range(5):
        table.add([0.5] * 50, list(range(50)), owner=owner)

    _, found = table.collect(3 * S)

    assert sum(point.count for point in found.values()) == 250
    assert len(found) < 40
    assert table.red.size_bytes < 50_000


def test_idle_series_leave_only_after_acceptance() -> None:
    """A series that saw nothing for long stays while its last value was not accepted; after that it goes, and returns with a new start."""
    table = Table(idle_ns=10 * S)
    table.add([0.5], now=2 * S)
    assert len(table.collect(100 * S)[1]) == 1
    collection, found = table.collect(200 * S)
    assert len(found) == 1
    collection.commit()

    assert not table.collect(300 * S)[1]
    table.add([0.5], now=301 * S)
    point = table.collect(302 * S)[1]["s0", "x.duration", 0]

    assert (point.count, point.start_time_unix_nano) == (1, 300 * S)


def test_churn_leaks_nothing() -> None:
    """After many workloads came and went, no series, no bytes and no Resource of theirs are left."""
    table = Table(idle_ns=S)
    for round_ in range(30):
        table.workloads = tuple(Workload({"service.name": f"{round_}-{number}"}) for number in range(40))
        for owner in range(40):
            table.add([0.5, 0.6], [0, 1], owner, now=round_ * 10 * S)
        collection, _ = table.collect((round_ * 10 + 1) * S)
        collection.commit()
        table.resources.retain(table.red.used)
    table.collect(10_000 * S)
    table.resources.retain(table.red.used)

    assert len(table.red) == 0
    assert table.red.size_bytes == 0
    assert len(table.resources) == 1


def test_many_series_are_cut_into_requests() -> None:
    """Ten thousand series leave in requests of at most 3 MiB that hold every point once."""
    table = Table()
    for owner in range(50):
        table.add([0.5] * 400, list(range(400)), owner)

    collection, found = table.collect(3 * S)

    assert len(found) == 20_000
    assert len(collection.payloads) > 1
    assert max(len(payload.body) for payload in collection.payloads) <= 3 << 20


def test_values_can_be_read_without_decoding() -> None:
    """Other exporters see the same numbers as attributes, counts and bounds."""
    table = Table()
    table.add([0.5, 0.7], [1, 1], sampled=sampled([1], 3))
    table.add([4], instrument=COUNT)

    found = {point.instrument.name: point for point in table.red.points()}

    point = found["x.duration"]
    assert point.resource["service.name"] == "s0"
    assert (dict(point.attributes), point.count, point.sum, point.bounds, point.buckets) == ({"which": 1}, 2, 1.2, BOUNDS, (0, 0, 0, 2, 0))
    assert point.exemplars[0].span_id == b"\3" * 8
    assert found["x.count"].sum == 4
