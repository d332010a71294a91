"""The OTLP exporter's options from the configuration, by way of the standard variables that the exporter's own rules are written for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from otel_ebpf_receiver.config.schema import Config, Otlp, OtlpMetrics, OtlpTraces
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.options import OtlpOptions, options_from_env

FIELDS = ("endpoint", "protocol", "headers", "certificate", "client_key", "client_certificate", "compression", "timeout_s", "insecure")


def variables(otlp: Otlp) -> dict[str, str]:
    """The effective configuration as OTEL_EXPORTER_OTLP_* variables."""
    return dict(_variables(otlp, "")) | dict(_variables(otlp.traces, "TRACES_")) | dict(_variables(otlp.metrics, "METRICS_"))


def key_of(variable: str) -> str:
    """The key path that such a variable stands for."""
    name = variable.removeprefix("OTEL_EXPORTER_OTLP_").lower()
    signal, _, rest = name.partition("_")
    name, section = (rest, f"{signal}.") if signal in ("traces", "metrics") else (name, "")
    return f"exporters.otlp.{section}{'timeout_s' if name == 'timeout' else name}"


def otlp_options(config: Config, signal: Signal) -> OtlpOptions:
    """Options of one signal. Raises `ExportError` naming the variable."""
    return options_from_env(variables(config.exporters.otlp), signal)


def _variables(section: Otlp | OtlpTraces | OtlpMetrics, infix: str) -> Iterator[tuple[str, str]]:
    for name in FIELDS:
        value = getattr(section, name)
        if value is not None:
            yield f"OTEL_EXPORTER_OTLP_{infix}{name.removesuffix('_s').upper()}", _text(name, value)


def _text(name: str, value: Any) -> str:
    if name == "timeout_s":
        return str(max(1, round(value * 1000)) if value else 0)
    if isinstance(value, Mapping):
        return ",".join(f"{quote(key)}={quote(text)}" for key, text in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)
