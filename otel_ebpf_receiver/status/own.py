"""The agent's own telemetry through the OpenTelemetry SDK: its counters as observable instruments, collected into one OTLP request.

No thread and no exporter of its own: who exports the metrics asks for it once an interval and sends it the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    MetricsData,
)
from opentelemetry.sdk.resources import Resource

from otel_ebpf_receiver.status.counters import DURATION_BOUNDS_S, Attributes, Counters, Distribution, Instrument, Kind, Reading

SCOPE = "otel_ebpf_receiver"


class OwnTelemetry:
    """Owns a MeterProvider. `collect()` belongs to one thread; `stop()` is safe twice."""

    def __init__(
        self,
        counters: Counters,
        resource: Mapping[str, str | int],
        *,
        schema_url: str = "",
        version: str = "",
        is_delta: bool = False,
    ) -> None:
        self._counters = counters
        temporality = AggregationTemporality.DELTA if is_delta else AggregationTemporality.CUMULATIVE
        self._reader = InMemoryMetricReader(preferred_temporality={ObservableCounter: temporality})
        self._provider = MeterProvider([self._reader], Resource(dict(resource), schema_url or None), shutdown_on_exit=False)
        self._meter = self._provider.get_meter(SCOPE, version, schema_url or None)
        self._histograms = _Histograms(temporality)
        self._declared: set[str] = set()
        self._readings: dict[str, list[Reading]] = {}
        self._stopped = False

    def collect(self) -> tuple[bytes, int]:
        """An encoded `ExportMetricsServiceRequest` and the number of its points; empty and 0 when there is nothing."""
        if self._stopped:
            return b"", 0
        self._readings = {}
        for reading in self._counters.readings():
            self._readings.setdefault(reading.instrument.name, []).append(reading)
        for name, readings in self._readings.items():
            if name not in self._declared:
                self._declared.add(name)
                self._declare(readings[0].instrument)
        data = self._reader.get_metrics_data()
        if data is None:
            return b"", 0
        self._histograms.add(data, self._readings)
        metrics = [metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics]
        return encode_metrics(data).SerializeToString(), sum(len(metric.data.data_points) for metric in metrics)

    def stop(self) -> None:
        """Ends the provider."""
        if not self._stopped:
            self._stopped = True
            self._provider.shutdown()

    def _declare(self, instrument: Instrument) -> None:
        if instrument.kind is Kind.HISTOGRAM:
            return
        make = {
            Kind.COUNTER: self._meter.create_observable_counter,
            Kind.UP_DOWN: self._meter.create_observable_up_down_counter,
            Kind.GAUGE: self._meter.create_observable_gauge,
        }[instrument.kind]
        make(instrument.name, [self._callback(instrument.name)], instrument.unit, instrument.description)

    def _callback(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            readings = self._readings.get(name, [])
            return [Observation(one.value, dict(one.attributes)) for one in readings if not isinstance(one.value, Distribution)]

        return observe


class _Histograms:
    """What the SDK has no observable instrument for: its data points, made of what was counted already."""

    def __init__(self, temporality: AggregationTemporality) -> None:
        self._temporality = temporality
        self._start_ns = time.time_ns()
        self._told: dict[tuple[str, Attributes], Distribution] = {}

    def add(self, data: MetricsData, readings: Mapping[str, list[Reading]]) -> None:
        """Appends the histograms among `readings` to `data`. Differences begin where the last call ended."""
        now_ns = time.time_ns()
        # The clock may have been set back.
        self._start_ns = min(self._start_ns, now_ns)
        for metrics in (scope.metrics for resource in data.resource_metrics for scope in resource.scope_metrics):
            assert isinstance(metrics, list)
            for name, found in readings.items():
                points = [self._point(name, one.attributes, one.value, now_ns) for one in found if isinstance(one.value, Distribution)]
                if points:
                    instrument = found[0].instrument
                    metrics.append(Metric(name, instrument.description, instrument.unit, Histogram(points, self._temporality)))
        if self._temporality is AggregationTemporality.DELTA:
            self._start_ns = now_ns

    def _point(self, name: str, attributes: Attributes, value: Distribution, now_ns: int) -> HistogramDataPoint:
        told = self._told.get((name, attributes))
        if self._temporality is AggregationTemporality.DELTA:
            self._told[name, attributes] = value
        counts = [count - before for count, before in zip(value.counts, told.counts if told else (0,) * len(value.counts), strict=True)]
        total = value.sum - (told.sum if told else 0.0)
        # Least and greatest are not kept; the encoder leaves out what is None, which the SDK's type does not foresee.
        none = cast(float, None)
        return HistogramDataPoint(dict(attributes), self._start_ns, now_ns, sum(counts), total, counts, DURATION_BOUNDS_S, none, none)
