"""The configuration for reading."""

from __future__ import annotations

from typing import Any

from otel_ebpf_receiver.config.key import declared
from otel_ebpf_receiver.config.load import load_text
from otel_ebpf_receiver.config.schema import Config
from otel_ebpf_receiver.config.show import MASK, json_schema, print_config

TEXT = """\
capture: {taps: {bridge: cni0}, addresses: {exclude: [10.0.0.0/8]}}
telemetry: {routes: ["/users/{id}"], resource_attributes: {a: b}}
services: [{name: db, ports: [5432]}]
exporters: {otlp: {endpoint: "http://a:1"}}
"""


def test_what_is_printed_reads_back() -> None:
    """Printed values are a configuration file that means the same."""
    loaded = load_text(TEXT, "agent.yaml", {"OTEL_TRACES_SAMPLER": "always_off"})

    printed = print_config(loaded)

    assert load_text(printed, "again.yaml").config == loaded.config


def test_each_value_says_where_it_came_from() -> None:
    """File and line, variable, or default."""
    printed = print_config(load_text(TEXT, "agent.yaml", {"OTEL_TRACES_SAMPLER": "always_off"})).splitlines()
    origins = {line.split("#")[0].strip(): line.rpartition("# ")[2] for line in printed if "  # " in line}

    assert origins["endpoint: http://a:1"] == "agent.yaml:4"
    assert origins["sampler: always_off"] == "environment OTEL_TRACES_SAMPLER"
    assert origins["target_bytes: 256"] == "default"
    assert len([line for line in printed if "  # " in line]) == len(list(declared(Config)))


def test_secrets_are_masked() -> None:
    """Names of headers show, their values, tokens and the key do not."""
    secret = "s3cret"
    text = f"ids: {{key: {secret}}}\nexporters: {{otlp: {{headers: {{authorization: {secret}}}}}, influxdb: {{token: {secret}}}}}"

    printed = print_config(load_text(text, "agent.yaml"))

    assert secret not in printed
    assert printed.count(MASK) == 3
    assert "authorization" in printed


def test_the_schema_is_closed_and_complete() -> None:
    """Every key is a property with its default, and nothing else is allowed."""
    schema = json_schema()

    for one in declared(Config):
        here: dict[str, Any] = schema
        for name in one.path.split("."):
            assert here["additionalProperties"] is False
            here = here["properties"][name]
        assert here["description"].startswith(one.key.text)
        assert "default" in here
