"""The configuration as the agent's destinations, and as the names of itself and of what has none."""

from __future__ import annotations

import pytest

from otel_ebpf_receiver.agent.ignored import Endpoint, Ignored
from otel_ebpf_receiver.agent.options import destinations, host_attributes, own_attributes
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


@pytest.mark.parametrize(
    ("environ", "host", "own"),
    [
        ({}, "unknown_service", "otel-ebpf-receiver"),
        ({"OTEL_SERVICE_NAME": "edge"}, "edge", "edge"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop,team=red"}, "shop", "shop"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop", "OTEL_SERVICE_NAME": "edge"}, "edge", "edge"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop", "OTEL_SERVICE_NAME": ""}, "shop", "shop"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=,team=red"}, "unknown_service", "otel-ebpf-receiver"),
    ],
)
def test_who_has_no_name_has_that_of_the_environment(environ: dict[str, str], host: str, own: str) -> None:
    """As the SDKs order it: OTEL_SERVICE_NAME, then OTEL_RESOURCE_ATTRIBUTES, then what is said of nobody in particular."""
    config = load_text("", "", environ).config

    assert [made["service.name"] for made in (host_attributes(config), own_attributes(config))] == [host, own]
