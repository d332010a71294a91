"""The OTLP options as the specification's variables give them."""

from __future__ import annotations

import pytest

from otel_ebpf_receiver.errors import ExportError
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.options import Compression, OtlpOptions, Protocol, options_from_env

P = "OTEL_EXPORTER_OTLP_"


def test_nothing_set_is_http_to_this_host() -> None:
    """The defaults are the specification's."""
    assert options_from_env({}, Signal.TRACES) == OtlpOptions(endpoint="http://localhost:4318/v1/traces")
    assert options_from_env({}, Signal.METRICS).endpoint == "http://localhost:4318/v1/metrics"
    assert options_from_env({P + "PROTOCOL": "grpc"}, Signal.TRACES).endpoint == "http://localhost:4317"
    assert options_from_env({}, Signal.TRACES).timeout_s == 10.0


@pytest.mark.parametrize(
    ("general", "special", "expected"),
    [
        ("http://c:4318", "", "http://c:4318/v1/traces"),
        ("http://c:4318/", "", "http://c:4318/v1/traces"),
        ("https://c/otlp/", "", "https://c/otlp/v1/traces"),
        ("https://c/otlp?tenant=a", "", "https://c/otlp/v1/traces?tenant=a"),
        ("http://c:4318", "http://d:1/own", "http://d:1/own"),
        ("http://c:4318", "http://d:1", "http://d:1/"),
        ("", "http://d:1/v1/traces", "http://d:1/v1/traces"),
        ("http://[::1]:4318", "", "http://[::1]:4318/v1/traces"),
        ("unix:///run/otlp.sock", "", "unix:///run/otlp.sock"),
    ],
)
def test_paths_are_appended_to_the_general_endpoint_only(general: str, special: str, expected: str) -> None:
    """`v1/traces` is appended to the general endpoint; the per-signal one is taken as it is, but for an empty path."""
    environ = {P + "ENDPOINT": general, P + "TRACES_ENDPOINT": special}

    assert options_from_env(environ, "traces").endpoint == expected


@pytest.mark.parametrize(
    ("endpoint", "insecure", "expected", "secure"),
    [
        ("http://c:4317", "", "http://c:4317", False),
        ("https://c:4317/ignored", "true", "https://c:4317", True),
        ("http://c", "", "http://c:4317", False),
        ("https://c", "", "https://c:443", True),
        ("https://[::1]:", "", "https://[::1]:443", True),
        ("c:4317", "", "c:4317", True),
        ("c:4317", "true", "c:4317", False),
        ("[::1]:4317", "true", "[::1]:4317", False),
        ("dns:///c:4317", "", "dns:///c:4317", True),
        ("dns://1.1.1.1/c:4317", "TRUE", "dns://1.1.1.1/c:4317", False),
        ("unix:///run/otlp.sock", "", "unix:///run/otlp.sock", False),
    ],
)
def test_grpc_endpoints_take_every_form(endpoint: str, insecure: str, expected: str, secure: bool) -> None:
    """URLs decide over TLS by their scheme, targets without one by `…_INSECURE`, unix sockets are plain."""
    environ = {P + "PROTOCOL": "grpc", P + "ENDPOINT": endpoint, P + "INSECURE": insecure}

    options = options_from_env(environ, Signal.METRICS)

    assert (options.endpoint, options.is_secure) == (expected, secure)


def test_every_setting_has_a_form_per_signal() -> None:
    """The per-signal variable wins for its signal and leaves the other one alone."""
    general = {
        "ENDPOINT": "http://a:1",
        "PROTOCOL": "grpc",
        "INSECURE": "true",
        "HEADERS": "k=general",
        "TIMEOUT": "1000",
        "COMPRESSION": "gzip",
        "CERTIFICATE": "/a/ca",
        "CLIENT_KEY": "/a/key",
        "CLIENT_CERTIFICATE": "/a/cert",
    }
    special = {
        "ENDPOINT": "http://b:2/x",
        "PROTOCOL": "http/protobuf",
        "INSECURE": "false",
        "HEADERS": "k=special",
        "TIMEOUT": "250",
        "COMPRESSION": "none",
        "CERTIFICATE": "/b/ca",
        "CLIENT_KEY": "/b/key",
        "CLIENT_CERTIFICATE": "/b/cert",
    }
    environ = {P + name: value for name, value in general.items()} | {P + "METRICS_" + name: value for name, value in special.items()}

    traces, metrics = options_from_env(environ, Signal.TRACES), options_from_env(environ, Signal.METRICS)

    assert traces == OtlpOptions(
        "http://a:1", Protocol.GRPC, True, (("k", "general"),), 1.0, Compression.GZIP, "/a/ca", "/a/key", "/a/cert"
    )
    assert metrics == OtlpOptions(
        "http://b:2/x", Protocol.HTTP, False, (("k", "special"),), 0.25, Compression.NONE, "/b/ca", "/b/key", "/b/cert"
    )


def test_timeouts_are_milliseconds_and_zero_is_no_limit() -> None:
    """The SDK reads seconds; the specification says milliseconds."""
    assert options_from_env({P + "TIMEOUT": "2500"}, "traces").timeout_s == 2.5
    assert options_from_env({P + "TIMEOUT": "0"}, "traces").timeout_s is None


def test_empty_is_unset() -> None:
    """An empty variable, general or special, is as if it were not there."""
    environ = {P + name: "" for name in ("ENDPOINT", "TIMEOUT", "HEADERS", "COMPRESSION", "PROTOCOL", "CERTIFICATE", "TRACES_TIMEOUT")}

    assert options_from_env(environ, "traces") == options_from_env({}, "traces")


def test_headers_are_decoded_and_kept_out_of_the_representation() -> None:
    """Names become lower case, values are percent-decoded and may hold `=`; the object's text shows none of them."""
    options = options_from_env({P + "HEADERS": " API-Key = a%20b%2Cc , Authorization=Basic dTpw=,"}, "traces")

    assert options.headers == (("api-key", "a b,c"), ("authorization", "Basic dTpw="))
    assert "dTpw" not in repr(options)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("ENDPOINT", "collector:4318", "http(s)://host:port"),
        ("ENDPOINT", "http://", "http(s)://host:port"),
        ("ENDPOINT", "http://c:99999", "http(s)://host:port"),
        ("ENDPOINT", "http://user:secret@c:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("PROTOCOL", "http/json", "grpc or http/protobuf"),
        ("COMPRESSION", "zstd", "gzip or none"),
        ("TIMEOUT", "10s", "milliseconds"),
        ("TIMEOUT", "-1", "milliseconds"),
        ("INSECURE", "1", "true nor false"),
        ("HEADERS", "token", "name=value"),
        ("HEADERS", "a b=c", "name=value"),
        ("HEADERS", "a=b%0d%0aX: y", "control"),
        ("CLIENT_KEY", "/k", "mutual TLS"),
    ],
)
def test_bad_values_name_variable_and_remedy(name: str, value: str, remedy: str) -> None:
    """Each bad value is an error that says which variable and what instead."""
    with pytest.raises(ExportError) as raised:
        options_from_env({P + "TRACES_" + name: value}, "traces")

    assert "OTEL_EXPORTER_OTLP_" in str(raised.value)
    assert remedy in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("endpoint", ["collector", "ftp://c:1", "http://", "c:port"])
def test_bad_grpc_endpoints_are_errors(endpoint: str) -> None:
    """What gRPC would try to resolve for ever is an error at start."""
    with pytest.raises(ExportError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        options_from_env({P + "PROTOCOL": "grpc", P + "ENDPOINT": endpoint}, "traces")


@pytest.mark.parametrize("name", ["grpc-timeout", "x-bin", "a!b"])
def test_headers_that_grpc_cannot_carry_are_errors(name: str) -> None:
    """Reserved and impossible metadata names are refused at start instead of with every export."""
    with pytest.raises(ExportError, match=name):
        options_from_env({P + "PROTOCOL": "grpc", P + "HEADERS": f"{name}=1"}, "traces")
