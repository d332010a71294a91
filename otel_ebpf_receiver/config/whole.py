"""What no single key can tell: contradictions between keys.

Pure; named files are not looked at here, since what reads them runs later and perhaps elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from otel_ebpf_receiver.config.nodes import Complain
from otel_ebpf_receiver.config.otlp import key_of, otlp_options
from otel_ebpf_receiver.config.schema import Config
from otel_ebpf_receiver.errors import ExportError
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.status.guard import is_loopback

Found = Iterator[tuple[str, str]]
"""Key path and problem."""


def contradictions(config: Config, origins: Mapping[str, str], complain: Complain) -> None:
    """Tell all of them, each where its key was set."""
    for check in (_exporters, _otlp, _services, _kubernetes, _status):
        for path, text in dict.fromkeys(check(config)):
            where = origins.get(path.partition("[")[0], "")
            complain("" if where == "default" else where, path, text)


def _exporters(config: Config) -> Found:
    for name in ("traces", "metrics"):
        chosen = getattr(config.exporters, name)
        if "none" in chosen and len(chosen) > 1:
            yield f"exporters.{name}", "holds 'none' beside others; expected 'none' alone"
        if len(set(chosen)) < len(chosen):
            yield f"exporters.{name}", "names an exporter twice"
        if "influxdb" in chosen and not config.exporters.influxdb.url:
            yield "exporters.influxdb.url", f"is needed, since exporters.{name} names influxdb; expected http(s)://host:port"

    if "prometheus" in config.exporters.metrics:
        metrics = config.telemetry.metrics
        if metrics.histogram != "explicit_bucket_histogram":
            yield "telemetry.metrics.histogram", f"is {metrics.histogram!r}, which the scrape endpoint cannot show"


def _otlp(config: Config) -> Found:
    for signal in Signal:
        try:
            otlp_options(config, signal)
        except ExportError as error:
            variable, _, text = str(error).partition(": ")
            yield key_of(variable), text


def _kubernetes(config: Config) -> Found:
    wanted = config.kubernetes
    if wanted.enabled and not wanted.node_name:
        yield "kubernetes.node_name", "is needed, since kubernetes.enabled is true; expected this node's name (K8S_NODE_NAME)"
    if wanted.agents_service and wanted.agents_service.count("/") != 1:
        yield "kubernetes.agents_service", f"{wanted.agents_service!r} is no name of a Service; expected namespace/name"


def _services(config: Config) -> Found:
    for index, service in enumerate(config.services):
        if service.name and not service.addresses and not service.ports:
            yield f"services[{index}]", f"{service.name!r} names neither addresses nor ports, so it would name everything"


def _status(config: Config) -> Found:
    if config.status.page and not is_loopback(config.status.host):
        yield "status.page", f"shows paths, and status.host is {config.status.host!r}; expected a loopback address, or no page"
