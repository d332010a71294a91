"""Encoded metrics as lines of `red`: rate, error rate and mean duration of each Resource over a fixed interval.

It reads no clock, as points carry their time. Cumulative histograms are turned into what came since the last request, delta ones are
taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, HistogramDataPoint, Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE

from otel_ebpf_receiver.export.influxdb.columns import Columns
from otel_ebpf_receiver.export.influxdb.line import Value, line
from otel_ebpf_receiver.export.influxdb.traffic import attributes, tags

SERIES_MAX = 100_000
END = b""
EXPIRE_NS = 600 * 10**9
SLACK = 0.05
"""Part of the interval by which a request may come early and still end it: exports are not exactly one interval apart."""


@dataclass(slots=True)
class _Sum:
    """What one Resource did since `since_ns`."""

    since_ns: int
    last_ns: int
    count: int = 0
    errors: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Seen:
    """The last cumulative values of one series."""

    start_ns: int
    time_ns: int
    count: int
    seconds: float


class RedLines:
    """Keeps the running sums; belongs to one thread. Bounded by SERIES_MAX series, without those unseen for ten minutes."""

    def __init__(self, columns: Columns, interval_ns: int) -> None:
        self._columns = columns
        self._interval_ns = interval_ns
        self._sums: dict[bytes, _Sum] = {}
        self._seen: dict[bytes, _Seen] = {}

    def lines(self, body: bytes) -> list[str]:
        """The lines that one `ExportMetricsServiceRequest` completes; an empty one, END, completes all. Raises DecodeError."""
        if body == END:
            return self._rest()
        lines: list[str] = []
        newest_ns = 0
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            key = resource.resource.SerializeToString(deterministic=True)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == self._columns.red_metric:
                        newest_ns = max(newest_ns, self._observe(key, metric))
            total = self._sums.get(key)
            if total is not None and total.last_ns - total.since_ns >= self._interval_ns * (1 - SLACK):
                lines.append(self._line(resource.resource, total))
                self._sums[key] = _Sum(total.last_ns, total.last_ns)
        self._forget(newest_ns)
        return lines

    def _rest(self) -> list[str]:
        """What came since the last whole interval, for the agent stops."""
        lines = [self._line(Resource.FromString(key), total) for key, total in self._sums.items() if total.count]
        self._sums.clear()
        return lines

    def _line(self, resource: Resource, total: _Sum) -> str:
        return line(self._columns.red, tags(self._columns.resource_tags, attributes(resource.attributes)), _fields(total), total.last_ns)

    def _observe(self, key: bytes, metric: Metric) -> int:
        is_delta = metric.histogram.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
        newest_ns = 0
        for point, count, seconds in self._steps(key, metric, is_delta=is_delta):
            total = self._sums.get(key)
            if total is None:
                total = self._sums[key] = _Sum(point.start_time_unix_nano, point.time_unix_nano)
            total.last_ns = newest_ns = max(total.last_ns, point.time_unix_nano)
            total.count += count
            total.seconds += seconds
            if any(each.key == ERROR_TYPE for each in point.attributes):
                total.errors += count
        return newest_ns

    def _steps(self, key: bytes, metric: Metric, *, is_delta: bool) -> Iterator[tuple[HistogramDataPoint, int, float]]:
        """Each point with the count and sum that came since it was last seen."""
        for point in metric.histogram.data_points:
            if is_delta:
                yield point, point.count, point.sum
                continue
            series = key + b"".join(each.SerializeToString(deterministic=True) for each in point.attributes)
            seen = self._seen.get(series)
            if seen is None or seen.start_ns != point.start_time_unix_nano or point.count < seen.count:
                if seen is None and len(self._seen) >= SERIES_MAX:
                    continue
                seen = _Seen(point.start_time_unix_nano, 0, 0, 0.0)
            yield point, point.count - seen.count, point.sum - seen.seconds
            self._seen[series] = _Seen(point.start_time_unix_nano, point.time_unix_nano, point.count, point.sum)

    def _forget(self, now_ns: int) -> None:
        if now_ns:
            self._seen = {key: seen for key, seen in self._seen.items() if now_ns - seen.time_ns <= EXPIRE_NS}
            self._sums = {key: total for key, total in self._sums.items() if now_ns - total.last_ns <= EXPIRE_NS}


def _fields(total: _Sum) -> dict[str, Value]:
    seconds = max(1, total.last_ns - total.since_ns) / 1e9
    fields: dict[str, Value] = {"qps": total.count / seconds, "errrate": 100.0 * total.errors / total.count if total.count else 0.0}
    if total.count:
        fields["duration"] = 1000.0 * total.seconds / total.count
    return fields
