"""Variables as configuration."""

from __future__ import annotations

from typing import Any

import pytest

from otel_ebpf_receiver.config.load import load_text
from otel_ebpf_receiver.config.otlp import otlp_options
from otel_ebpf_receiver.config.schema import Config, Route
from otel_ebpf_receiver.config.show import value_of
from otel_ebpf_receiver.errors import ConfigError
from otel_ebpf_receiver.export.destination import Signal


def config(**environ: str) -> Config:
    """The configuration by variables alone."""
    return load_text("", "", environ).config


@pytest.mark.parametrize(
    ("name", "text", "path", "expected"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1", "exporters.otlp.endpoint", "http://a:1"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "exporters.otlp.protocol", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500", "exporters.otlp.timeout_s", 2.5),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%20c, d=e", "exporters.otlp.headers", {"a": "b c", "d": "e"}),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip", "exporters.otlp.traces.compression", "gzip"),
        ("OTEL_TRACES_SAMPLER", "traceidratio", "telemetry.sampling.sampler", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25", "telemetry.sampling.argument", 0.25),
        ("OTEL_BSP_SCHEDULE_DELAY", "100", "telemetry.spans.interval_s", 0.1),
        ("OTEL_BSP_SCHEDULE_DELAY", "10", "telemetry.spans.interval_s", 0.05),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "telemetry.spans.interval_s", 0.05),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1", "telemetry.metrics.interval_s", 0.1),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1", "exporters.otlp.timeout_s", 0.001),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "512", "exporters.queues.spans", 512),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1000", "telemetry.metrics.interval_s", 1.0),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "DELTA", "telemetry.metrics.temporality", "delta"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c=d%2Ce", "telemetry.resource_attributes", {"a": "b", "c": "d,e"}),
        ("OTEL_SDK_DISABLED", "True", "telemetry.disabled", True),
        ("OTEL_SDK_DISABLED", "1", "telemetry.disabled", False),
        ("OTEL_SERVICE_NAME", "edge", "telemetry.service_name", "edge"),
        ("OTEL_TRACES_EXPORTER", "otlp,console", "exporters.traces", ("otlp", "console")),
        ("OTEL_METRICS_EXPORTER", "none", "exporters.metrics", ("none",)),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "9999", "exporters.prometheus.port", 9999),
        ("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET, PROPFIND,get", "http.known_methods", ("GET", "PROPFIND", "get")),
        ("KUBECONFIG", "/k", "kubernetes.kubeconfig", "/k"),
        ("K8S_NODE_NAME", "n1", "kubernetes.node_name", "n1"),
        ("OTEL_EBPF_RECEIVER_HTTP_HEADERS", "x-a, x-b", "http.headers", ("x-a", "x-b")),
        ("OTEL_EBPF_RECEIVER_CAPTURE_RING_BYTES", "1MiB", "capture.ring_bytes", 1 << 20),
        ("OTEL_EBPF_RECEIVER_STATUS_ENABLED", "yes", "status.enabled", True),
        ("OTEL_EBPF_RECEIVER_EXPORTERS_CONSOLE_ENABLED", "false", "exporters.console.enabled", False),
        ("OTEL_EBPF_RECEIVER_TELEMETRY_ROUTES", "/a/{id},/b", "telemetry.routes", (Route("/a/{id}"), Route("/b"))),
        ("OTEL_EBPF_RECEIVER_TELEMETRY_ROUTES", '[{"pattern": "/a", "service": "w"}]', "telemetry.routes", (Route("/a", "w"),)),
        ("OTEL_EBPF_RECEIVER_IDS_KEY", "  ", "ids.key", ""),
    ],
)
def test_variables(name: str, text: str, path: str, expected: Any) -> None:
    """Each variable of the contract reaches its key; times of the standard ones are milliseconds, short ones the agent's least; empty is none."""
    assert value_of(config(**{name: text}), path) == expected


@pytest.mark.parametrize(
    ("name", "text", "path", "expected"),
    [
        ("OTEL_TRACES_SAMPLER", "ALWAYS_ON", "telemetry.sampling.sampler", "always_on"),
        ("OTEL_TRACES_SAMPLER", "ParentBased_TraceIdRatio", "telemetry.sampling.sampler", "parentbased_traceidratio"),
        ("OTEL_TRACES_EXPORTER", "OTLP,Console", "exporters.traces", ("otlp", "console")),
        ("OTEL_METRICS_EXPORTER", "None", "exporters.metrics", ("none",)),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "HTTP/Protobuf", "exporters.otlp.protocol", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP", "exporters.otlp.compression", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "Gzip", "exporters.otlp.metrics.compression", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta", "telemetry.metrics.temporality", "delta"),
        ("OTEL_LOG_LEVEL", "INFO", "logging.level", "info"),
        ("OTEL_LOG_LEVEL", "WARN", "logging.level", "warning"),
        ("OTEL_LOG_LEVEL", "warn", "logging.level", "warning"),
        ("OTEL_LOG_LEVEL", "Trace", "logging.level", "debug"),
        ("OTEL_LOG_LEVEL", "FATAL", "logging.level", "error"),
    ],
)
def test_choices_are_read_in_any_case(name: str, text: str, path: str, expected: Any) -> None:
    """As the specification says of enumerations in variables; levels go by the names of its severities too."""
    assert value_of(config(**{name: text}), path) == expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("OTEL_LOG_LEVEL", "loud", "'loud' is not known; expected one of debug, info, warning, error"),
        ("OTEL_BSP_SCHEDULE_DELAY", "9" * 400, "is not a whole number of milliseconds"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "'-1' is not a whole number of milliseconds"),
        ("OTEL_EBPF_RECEIVER_TELEMETRY_SPANS_INTERVAL_S", "10ms", "is too small; the least is 0.05 s"),
        ("OTEL_EBPF_RECEIVER_HTTP_TARGETBYTES", "64", "is not known; did you mean 'OTEL_EBPF_RECEIVER_HTTP_TARGET_BYTES'?"),
        ("OTEL_EBPF_RECEIVER_NONSENSE_XYZZY", "64", "is not known"),
        ("OTEL_EBPF_RECEIVER_HTTP_TARGET_BYTES", "many", "'many' is not a size in bytes"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2.5", "'2.5' is not a whole number of milliseconds"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "'http/json' is not known"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector", "'collector' is not a URL"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "is not known; expected one of always_on"),
        ("OTEL_TRACES_EXPORTER", "otlp,zipkin", "'zipkin' is not known"),
        ("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET,A B", "'A B' is not a method"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a", "is not a list of name=value"),
        ("OTEL_EBPF_RECEIVER_TELEMETRY_ROUTES", "[", "OTEL_EBPF_RECEIVER_TELEMETRY_ROUTES"),
    ],
)
def test_mistakes_name_the_variable(name: str, text: str, expected: str) -> None:
    """A wrong variable is a problem like any other."""
    with pytest.raises(ConfigError) as caught:
        config(**{name: text})

    assert name in str(caught.value)
    assert expected in str(caught.value)


def test_service_links_of_kubernetes_are_not_ours() -> None:
    """A Service named otel-ebpf-receiver, or -status, gives every pod variables of our prefix; they are no configuration."""
    got = config(
        OTEL_EBPF_RECEIVER_SERVICE_HOST="10.0.0.1",
        OTEL_EBPF_RECEIVER_SERVICE_PORT="9465",
        OTEL_EBPF_RECEIVER_SERVICE_PORT_METRICS="9465",
        OTEL_EBPF_RECEIVER_PORT="tcp://10.0.0.1:9465",
        OTEL_EBPF_RECEIVER_PORT_9465_TCP="tcp://10.0.0.1:9465",
        OTEL_EBPF_RECEIVER_PORT_9465_TCP_ADDR="10.0.0.1",
        OTEL_EBPF_RECEIVER_STATUS_PORT="tcp://10.0.0.1:9465",
    )

    assert got == Config()


def test_otlp_options_follow_the_specification() -> None:
    """A general endpoint gets the signal's path, a special one is taken as it is, and the file joins in below the variables."""
    text = "exporters: {otlp: {headers: {k: 'v, w'}, timeout_s: 0.5, traces: {compression: gzip}}}"
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318/x", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://b:9/y"}

    got = load_text(text, "f", environ).config
    traces, metrics = otlp_options(got, Signal.TRACES), otlp_options(got, Signal.METRICS)

    assert (traces.endpoint, metrics.endpoint) == ("http://a:4318/x/v1/traces", "http://b:9/y")
    assert traces.headers == metrics.headers == (("k", "v, w"),)
    assert (traces.compression, metrics.compression) == ("gzip", "none")
    assert traces.timeout_s == 0.5
