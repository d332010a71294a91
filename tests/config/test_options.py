"""The configuration as the options of telemetry and export."""

from __future__ import annotations

import contextlib

import pytest

from otel_ebpf_receiver.agent.options import http_options
from otel_ebpf_receiver.config.load import load, load_text
from otel_ebpf_receiver.config.options import exporters, metric_options, otlp_signals, route_options, sampling_options
from otel_ebpf_receiver.config.schema import Config
from otel_ebpf_receiver.errors import ConfigError
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.options import OtlpOptions
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.telemetry.red import MetricOptions
from otel_ebpf_receiver.telemetry.routes import RouteOptions, RoutePattern
from otel_ebpf_receiver.telemetry.sampling import SamplingOptions

A = "OTEL_EXPORTER_OTLP_ENDPOINT"
T = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


def test_defaults_are_the_same_on_both_sides() -> None:
    """The schema's defaults and those of the parts agree, so that a part used alone does what the agent does."""
    assert sampling_options(Config()) == SamplingOptions()
    assert metric_options(Config()) == MetricOptions()
    assert route_options(Config()) == RouteOptions()
    assert http_options(Config()) == HttpOptions(ignored_agents=Config().telemetry.spans.ignored_agents)


def test_values_arrive() -> None:
    """Units are converted, routes keep their order."""
    config = load_text(
        """
telemetry:
  routes: ["/a/{id}", {pattern: "/b", service: w}]
  templating: {enabled: true, limit: 5}
  sampling: {sampler: traceidratio, argument: 0.5, spans_per_second: 7, keep: {errors: 1, slow: 0.5, slow_s: 250ms}}
  metrics: {temporality: delta, histogram: base2_exponential_bucket_histogram, bounds_s: [1, 2], series_limit: 3, idle_s: 1m}
""",
        "f",
    ).config

    assert route_options(config) == RouteOptions((RoutePattern("/a/{id}"), RoutePattern("/b", "w")), templating=True, limit=5)
    assert sampling_options(config) == SamplingOptions("traceidratio", 0.5, 7, 1.0, 0.5, 250_000_000)
    assert metric_options(config) == MetricOptions("delta", "base2_exponential_bucket_histogram", (1.0, 2.0), 3, 64 << 20, 60_000_000_000)


@pytest.mark.parametrize(
    ("environ", "traces", "metrics"),
    [
        ({}, ("console",), ()),
        ({A: "http://a:1"}, ("otlp",), ("otlp",)),
        ({T: "http://a:1"}, ("otlp",), ()),
        ({A: "http://a:1", "OTEL_EBPF_RECEIVER_EXPORTERS_CONSOLE_ENABLED": "true"}, ("otlp", "console"), ("otlp",)),
        ({"OTEL_EBPF_RECEIVER_EXPORTERS_CONSOLE_ENABLED": "false"}, (), ()),
        ({A: "http://a:1", "OTEL_TRACES_EXPORTER": "none"}, (), ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",), ()),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}, (), ()),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, (), ("prometheus",)),
        ({"OTEL_TRACES_EXPORTER": "otlp,console"}, ("otlp", "console"), ()),
        ({A: "http://a:1", "OTEL_SDK_DISABLED": "true"}, (), ()),
    ],
)
def test_where_it_goes(environ: dict[str, str], traces: tuple[str, ...], metrics: tuple[str, ...]) -> None:
    """OTLP where it has an endpoint, the console where nothing else is asked for, and exactly the choice where there is one."""
    found = exporters(load_text("", "", environ).config)

    assert (found[Signal.TRACES], found[Signal.METRICS]) == (traces, metrics)


def test_otlp_has_options_for_its_signals_only() -> None:
    """A signal that goes elsewhere has none; OTLP without an endpoint goes to the usual place."""
    config = load_text("", "", {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "console"}).config

    assert otlp_signals(config) == {Signal.TRACES: OtlpOptions("http://localhost:4318/v1/traces")}


@pytest.mark.parametrize(
    ("host", "is_refused"), [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("10.0.0.7", True)]
)
def test_the_live_page_is_for_this_host_only(host: str, is_refused: bool) -> None:
    """On any other address the configuration is refused, naming both keys."""
    environ = {"OTEL_EBPF_RECEIVER_STATUS_PAGE": "true", "OTEL_EBPF_RECEIVER_STATUS_HOST": host}

    with pytest.raises(ConfigError, match=r"status\.page.*status\.host") if is_refused else contextlib.nullcontext():
        load(None, environ)
