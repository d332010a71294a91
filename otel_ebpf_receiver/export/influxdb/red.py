"""Encoded metrics as lines of `red`: rate, error rate and mean duration by the tags of the Resources, over a fixed interval.

It reads no clock, as points carry their time. Histograms may have explicit or exponential buckets; cumulative ones are turned into what came
since the last request, delta ones are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, ExponentialHistogramDataPoint, HistogramDataPoint, Metric
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE

from otel_ebpf_receiver.export.influxdb.columns import Columns
from otel_ebpf_receiver.export.influxdb.line import Value, line
from otel_ebpf_receiver.export.influxdb.traffic import attributes, tags

SERIES_MAX = 100_000
END = b""
EXPIRE_NS = 600 * 10**9
SLACK = 0.05
"""Part of the interval by which a request may come early and still end it: exports are not exactly one interval apart."""

_Tags = tuple[tuple[str, str], ...]
_Point = HistogramDataPoint | ExponentialHistogramDataPoint


@dataclass(slots=True)
class _Sum:
    """What the Resources of the same tags, which a server cannot tell apart, did since `since_ns`."""

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
        self._sums: dict[_Tags, _Sum] = {}
        self._seen: dict[bytes, _Seen] = {}

    def lines(self, body: bytes) -> list[str]:
        """The lines that one `ExportMetricsServiceRequest` completes; an empty one, END, completes all. Raises DecodeError."""
        if body == END:
            return self._rest()
        lines: list[str] = []
        newest_ns = 0
        touched: dict[_Tags, None] = {}
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            key = resource.resource.SerializeToString(deterministic=True)
            tagged = tuple(tags(self._columns.resource_tags, attributes(resource.resource.attributes)).items())
            touched[tagged] = None
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == self._columns.red_metric:
                        newest_ns = max(newest_ns, self._observe(key, tagged, metric))
        for tagged in touched:
            total = self._sums.get(tagged)
            if total is not None and total.last_ns - total.since_ns >= self._interval_ns * (1 - SLACK):
                lines.append(self._line(tagged, total))
                self._sums[tagged] = _Sum(total.last_ns, total.last_ns)
        self._forget(newest_ns)
        return lines

    def _rest(self) -> list[str]:
        """What came since the last whole interval, for the agent stops; no rate can be told of no time, and its point would replace the last one."""
        lines = [self._line(tagged, total) for tagged, total in self._sums.items() if total.last_ns > total.since_ns and total.count]
        self._sums.clear()
        return lines

    def _line(self, tagged: _Tags, total: _Sum) -> str:
        return line(self._columns.red, dict(tagged), _fields(total), total.last_ns)

    def _observe(self, key: bytes, tagged: _Tags, metric: Metric) -> int:
        histogram = metric.exponential_histogram if metric.HasField("exponential_histogram") else metric.histogram
        is_delta = histogram.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
        newest_ns = 0
        for point, count, seconds in self._steps(key, histogram.data_points, is_delta=is_delta):
            total = self._sums.get(tagged)
            if total is None:
                total = self._sums[tagged] = _Sum(point.start_time_unix_nano, point.time_unix_nano)
            if point.time_unix_nano < total.last_ns:
                # The clock was set back: what there is of the interval keeps its length.
                total.since_ns -= total.last_ns - point.time_unix_nano
            total.last_ns = newest_ns = point.time_unix_nano
            total.count += count
            total.seconds += seconds
            if any(each.key == ERROR_TYPE for each in point.attributes):
                total.errors += count
        return newest_ns

    def _steps(self, key: bytes, points: Iterable[_Point], *, is_delta: bool) -> Iterator[tuple[_Point, int, float]]:
        """Each point with the count and sum that came since it was last seen."""
        for point in points:
            if is_delta:
                yield point, point.count, point.sum
                continue
            series = key + b"".join(each.SerializeToString(deterministic=True) for each in point.attributes)
            seen = self._seen.get(series)
            # A start that became earlier is no new one: the clock was set back.
            if seen is None or seen.start_ns < point.start_time_unix_nano or point.count < seen.count:
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
