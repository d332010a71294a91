"""The agent's own telemetry through the OpenTelemetry SDK: its counters as observable instruments, collected into one OTLP request.

No thread and no exporter of its own: who exports the metrics asks for it once an interval and sends it the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from otel_ebpf_receiver.status.counters import Counters, Instrument, Kind, Reading

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
        metrics = [metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics]
        return encode_metrics(data).SerializeToString(), sum(len(metric.data.data_points) for metric in metrics)

    def stop(self) -> None:
        """Ends the provider."""
        if not self._stopped:
            self._stopped = True
            self._provider.shutdown()

    def _declare(self, instrument: Instrument) -> None:
        make = {
            Kind.COUNTER: self._meter.create_observable_counter,
            Kind.UP_DOWN: self._meter.create_observable_up_down_counter,
            Kind.GAUGE: self._meter.create_observable_gauge,
        }[instrument.kind]
        make(instrument.name, [self._callback(instrument.name)], instrument.unit, instrument.description)

    def _callback(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(reading.value, dict(reading.attributes)) for reading in self._readings.get(name, [])]

        return observe
