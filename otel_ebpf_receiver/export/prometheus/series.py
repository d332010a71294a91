"""The latest value of every series of the OTLP requests that were offered, bounded in number, without those that are no longer updated.

It looks like a transport to the sender that feeds it: a request it takes is "sent", a series it cannot show is "rejected". Values are
copied out of the messages, as one point kept would hold the memory of the whole request.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Exemplar, HistogramDataPoint, Metric, NumberDataPoint

from otel_ebpf_receiver.export.sender import Answer, Verdict
from otel_ebpf_receiver.status.exposition import label_name, metric_name

SERIES_MAX = 100_000
EXPIRE_S = 300.0
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
PROMOTED = {"service": ("service.name",), "namespace": ("k8s.namespace.name", "service.namespace"), "pod": ("k8s.pod.name",)}
"""Labels that every series carries, and the resource attributes they come from, the first that is there."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric as Prometheus names it; `kind` is counter, gauge, histogram or info."""

    name: str
    kind: str
    unit: str = ""
    help: str = ""


@dataclass(frozen=True, slots=True)
class Sampled:
    """An exemplar: value, Unix time in seconds, ids in hex."""

    value: float
    seconds: float
    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Series:
    """One series: a number, or a histogram with `buckets` of (upper bound, count in it) ending in infinity. `start_ns` tells one life from the next."""

    family: Family
    labels: Labels
    value: float = 0.0
    count: int = 0
    buckets: tuple[tuple[float, int], ...] = ()
    exemplars: tuple[Sampled, ...] = ()
    start_ns: int = 0


class SeriesStore:
    """Fulfils `Transport`; `series()` may be called from any thread."""

    def __init__(self, *, series_max: int = SERIES_MAX, expire_s: float = EXPIRE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._series_max = series_max
        self._expire_s = expire_s
        self._clock = clock
        self._lock = threading.Lock()
        self._series: dict[tuple[str, Labels], tuple[float, Series]] = {}
        self._families: dict[str, Family] = {}

    def send(self, body: bytes, limit_s: float | None = None) -> Answer:
        """Takes the values of one encoded `ExportMetricsServiceRequest`."""
        try:
            request = ExportMetricsServiceRequest.FromString(body)
        except DecodeError as error:
            return Answer(Verdict.REFUSED, str(error))
        rejected: list[str] = []
        now = self._clock()
        self._forget(now)
        for resource in request.resource_metrics:
            common = _common_labels(resource.resource.attributes)
            self._keep(now, [Series(TARGET, _target_labels(resource.resource.attributes, common), 1.0)])
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    rejected += self._take(now, metric, common)
        return Answer(Verdict.ACCEPTED, ", ".join(sorted(set(rejected))[:3]), rejected=len(rejected))

    def abort(self) -> None:
        """Nothing here waits."""

    def close(self) -> None:
        """Nothing here is open."""

    def series(self) -> list[Series]:
        """All series now, families together and in order."""
        with self._lock:
            kept = [series for _, series in self._series.values()]
        return sorted(kept, key=lambda each: (each.family.name, each.labels))

    def _take(self, now: float, metric: Metric, common: Labels) -> list[str]:
        """Keeps the points of one metric; the reasons for those it cannot, one a point."""
        kind = metric.WhichOneof("data")
        points = len(getattr(metric, kind).data_points) if kind else 0
        if kind == "gauge":
            family, made = _family(metric, "gauge"), _numbers(metric.gauge.data_points)
        elif kind == "sum":
            name = "counter" if metric.sum.is_monotonic else "gauge"
            family, made = _family(metric, name), _numbers(metric.sum.data_points)
            if metric.sum.aggregation_temporality != CUMULATIVE:
                return [f"'{metric.name}' is not cumulative"] * points
        elif kind == "histogram" and metric.histogram.aggregation_temporality == CUMULATIVE:
            family, made = _family(metric, "histogram"), _histograms(metric.histogram.data_points)
        else:
            return [f"'{metric.name}' is no cumulative sum, gauge or explicit histogram"] * points
        # Two metrics that become one name share it only when they are of one kind: a scrape with two types is refused as a whole.
        known = self._families.setdefault(family.name, family)
        if (known.kind, known.unit) != (family.kind, family.unit):
            return [f"'{metric.name}' collides with another metric as '{family.name}'"] * points
        return self._keep(now, (_labelled(known, common, attributes, series) for attributes, series in made))

    def _keep(self, now: float, many: Iterable[Series]) -> list[str]:
        full: list[str] = []
        for series in many:
            key = (series.family.name, series.labels)
            with self._lock:
                known = self._series.get(key)
                if known is None and len(self._series) >= self._series_max:
                    full.append(f"there are {self._series_max} series")
                    continue
                self._series[key] = (now, series if known is None else _with_exemplars(series, known[1]))
        return full

    def _forget(self, now: float) -> None:
        with self._lock:
            old = [key for key, (seen, _) in self._series.items() if now - seen > self._expire_s]
            for key in old:
                del self._series[key]
        names = {name for name, _ in self._series}
        self._families = {name: family for name, family in self._families.items() if name in names}


TARGET = Family("target", "info", "", "Attributes of the resource.")


def _family(metric: Metric, kind: str) -> Family:
    name = metric_name(metric.name, metric.unit, is_counter=kind == "counter", is_gauge=kind == "gauge").removesuffix("_total")
    unit = name.rpartition("_")[2] if metric.unit in ("s", "By", "ms", "us", "ns") else ""
    return Family(name, kind, unit, metric.description)


def _common_labels(attributes: Iterable[KeyValue]) -> Labels:
    """`job` and `instance` as the specification maps them, and the promoted labels."""
    values = {each.key: text(each.value) for each in attributes}
    service, namespace = values.get("service.name", ""), values.get("service.namespace", "")
    labels = {"job": f"{namespace}/{service}" if namespace else service, "instance": values.get("service.instance.id", "")}
    for label, sources in PROMOTED.items():
        labels[label] = next((values[source] for source in sources if values.get(source)), "")
    return tuple(sorted((name, value) for name, value in labels.items() if value))


def _target_labels(attributes: Iterable[KeyValue], common: Labels) -> Labels:
    identity = {name: value for name, value in common if name in ("job", "instance")}
    mapped = {"service.name", "service.namespace", "service.instance.id"}
    return _merged(tuple(identity.items()), [(each.key, text(each.value)) for each in attributes if each.key not in mapped])


def _merged(fixed: Labels, attributes: Iterable[tuple[str, str]]) -> Labels:
    """Fixed labels and attributes; an attribute whose name a fixed one has is `exported_…`, those that collide are joined by `;`."""
    taken = {name for name, _ in fixed}
    labels: dict[str, str] = {}
    for key, value in sorted(attributes):
        name = label_name(key)
        name = f"exported_{name}" if name in taken or name == "le" else name
        labels[name] = f"{labels[name]};{value}" if name in labels else value
    return tuple(sorted([*fixed, *labels.items()]))


def _labelled(family: Family, common: Labels, attributes: Iterable[KeyValue], series: Series) -> Series:
    labels = _merged(common, [(each.key, text(each.value)) for each in attributes])
    return Series(family, labels, series.value, series.count, series.buckets, series.exemplars, series.start_ns)


def _with_exemplars(series: Series, before: Series) -> Series:
    """The series with those exemplars that it had before, as a request holds only what is new; the latest of each bucket."""
    if not before.exemplars or before.start_ns != series.start_ns:
        return series
    bounds = [bound for bound, _ in series.buckets]
    latest = {bisect_left(bounds, each.value): each for many in (before.exemplars, series.exemplars) for each in sorted(many, key=_age)}
    return replace(series, exemplars=tuple(latest.values()))


def _age(exemplar: Sampled) -> float:
    return exemplar.seconds


def _numbers(points: Iterable[NumberDataPoint]) -> Iterator[tuple[Iterable[KeyValue], Series]]:
    for point in points:
        value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
        yield point.attributes, Series(TARGET, (), value)


def _histograms(points: Iterable[HistogramDataPoint]) -> Iterator[tuple[Iterable[KeyValue], Series]]:
    for point in points:
        buckets = tuple(zip((*point.explicit_bounds, float("inf")), point.bucket_counts or (point.count,), strict=False))
        yield (
            point.attributes,
            Series(TARGET, (), point.sum, point.count, buckets, tuple(map(_sampled, point.exemplars)), point.start_time_unix_nano),
        )


def _sampled(exemplar: Exemplar) -> Sampled:
    value = exemplar.as_int if exemplar.WhichOneof("value") == "as_int" else exemplar.as_double
    return Sampled(value, exemplar.time_unix_nano / 1e9, exemplar.trace_id.hex(), exemplar.span_id.hex())


def text(value: AnyValue) -> str:
    """An attribute's value as a label: strings as they are, booleans and numbers as JSON, anything else as its text."""
    kind = value.WhichOneof("value")
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    return str(getattr(value, kind)).strip() if kind else ""
