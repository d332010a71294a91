"""The configuration as the agent's destinations."""

from __future__ import annotations

from otel_ebpf_receiver.agent.ignored import Endpoint, Ignored
from otel_ebpf_receiver.agent.options import destinations
from otel_ebpf_receiver.config.load import load_text
from otel_ebpf_receiver.export.destination import Signal

EXPORTERS = """
exporters:
  traces: [otlp, influxdb]
  metrics: [otlp, prometheus, influxdb]
  prometheus: {host: 127.0.0.1, port: 0}
  influxdb: {url: "http://127.0.0.1:9", bucket: b}
  queues: {spans_bytes: 9MiB, metrics_bytes: 5MiB, spans: 7}
"""


class NoPrograms:
    """Nothing is opened here, so nothing is told to the kernel."""

    def ignore(self, local: Endpoint, remote: Endpoint) -> None:
        """Never called."""

    def unignore(self, local: Endpoint, remote: Endpoint) -> None:
        """Never called."""


def test_the_bounds_of_the_queues_are_those_of_every_exporter() -> None:
    """`exporters.queues` holds for OTLP, the scrape endpoint and InfluxDB, for each signal that they take."""
    made = destinations(load_text(EXPORTERS, "f").config, Ignored(NoPrograms()))

    bounds = {(one.name, signal): (books.max_bytes, books.max_items) for one in made for signal, books in one.books().items()}
    for one in made:
        one.stop()

    spans, metrics = (9 << 20, 7), (5 << 20, None)
    assert bounds == {
        ("otlp", Signal.TRACES): spans,
        ("otlp", Signal.METRICS): metrics,
        ("prometheus", Signal.METRICS): metrics,
        ("influxdb", Signal.TRACES): spans,
        ("influxdb", Signal.METRICS): metrics,
    }
