"""The configuration as what the parts of this agent take: options of the line and the source, destinations, identity."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from otel_ebpf_receiver.config.options import exporters, metric_options, otlp_signals, route_options, sampling_options
from otel_ebpf_receiver.config.schema import Config
from otel_ebpf_receiver.export.destination import Destination, Signal
from otel_ebpf_receiver.export.lines import keep_rows
from otel_ebpf_receiver.export.queue import QueueLimits
from otel_ebpf_receiver.pipeline import TelemetryOptions
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.telemetry import names
from otel_ebpf_receiver.telemetry.columns import AttributeValue
from otel_ebpf_receiver.telemetry.ids import KEY_BYTES
from otel_ebpf_receiver.telemetry.patience import PatienceOptions

if TYPE_CHECKING:
    from otel_ebpf_receiver.agent.ignored import Ignored
    from otel_ebpf_receiver.export.console import Console

PACKAGE = "otel-ebpf-receiver"
UNKNOWN_SERVICE = "unknown_service"
"""What the SDK specification calls a Resource without a name."""
HOST_NAME = "host.name"
INSTANCE_ID = "service.instance.id"
"""Without it the series of two hosts would be one: Prometheus makes its `instance` label of it."""


def agent_version() -> str:
    """The version of this package; a checkout that is not installed has none."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "0"


def given_service_name(config: Config) -> str:
    """service.name as the user gives it to what has no name of its own; empty: not at all. As the specification of the SDKs orders the two."""
    return config.telemetry.service_name or config.telemetry.resource_attributes.get(names.SERVICE_NAME, "")


def host_attributes(config: Config, *, is_cluster: bool = False) -> dict[str, AttributeValue]:
    """What names traffic that no workload is known for. `is_cluster`: Kubernetes is on; then it is this node's at least."""
    host = config.kubernetes.node_name if is_cluster else socket.gethostname()
    named: dict[str, AttributeValue] = {
        names.SERVICE_NAME: given_service_name(config) or UNKNOWN_SERVICE,
        INSTANCE_ID: host,
        HOST_NAME: host,
    }
    return {**named, "k8s.node.name": host} if is_cluster else named


def own_attributes(config: Config) -> dict[str, str | int]:
    """What names the agent's own telemetry."""
    own = {
        names.SERVICE_NAME: given_service_name(config) or PACKAGE,
        "service.version": agent_version(),
        INSTANCE_ID: socket.gethostname(),
        HOST_NAME: socket.gethostname(),
    }
    return {**config.telemetry.resource_attributes, **own, "process.pid": os.getpid()}


def telemetry_options(config: Config, *, is_cluster: bool = False) -> TelemetryOptions:
    """What the line is told. Without `ids.key` the key is random until a cluster is known: ids of this agent then agree with nobody's."""
    chosen = exporters(config)
    bound = config.exporters.queues.spans
    key = hashlib.blake2b(config.ids.key.encode(), digest_size=KEY_BYTES).digest() if config.ids.key else os.urandom(KEY_BYTES)
    return TelemetryOptions(
        id_key=key,
        host=host_attributes(config, is_cluster=is_cluster),
        added=dict(config.telemetry.resource_attributes),
        version=agent_version(),
        sampling=sampling_options(config),
        routes=route_options(config),
        metrics=metric_options(config),
        patience=PatienceOptions(wait_ns=round(config.kubernetes.wait_s * 1e9)),
        makes_spans=any(name != "console" for name in chosen[Signal.TRACES]),
        makes_metrics=any(name != "console" for name in chosen[Signal.METRICS]),
        # As the SDKs do by default (512 of 2048): a queue bounded by its spans must never be offered more at once than it holds.
        spans_at_once=max(1, bound // 4) if bound else sys.maxsize,
    )


def http_options(config: Config) -> HttpOptions:
    """What the HTTP source is told."""
    telemetry = config.telemetry
    return HttpOptions(
        target=config.http.target_bytes,
        methods=config.http.known_methods,
        headers=tuple(name.lower() for name in config.http.headers),
        query=telemetry.query.enabled,
        masked=telemetry.query.masked,
        body_sizes=telemetry.metrics.body_sizes,
        size_bounds=telemetry.metrics.size_bounds_bytes,
        first_byte=telemetry.metrics.time_to_first_byte,
        active=telemetry.metrics.active_requests,
        ignored_agents=telemetry.spans.ignored_agents,
    )


def destinations(config: Config, ignored: Ignored) -> list[Destination]:
    """Where encoded telemetry goes. Raises `ExportError`, and `AgentError` for a port that is taken."""
    made: list[Destination] = []
    queues = config.exporters.queues
    limits = QueueLimits(queues.spans_bytes, queues.metrics_bytes, queues.spans or None)
    if signals := otlp_signals(config):
        from otel_ebpf_receiver.export.otlp.exporter import OtlpDestination

        made.append(OtlpDestination(signals, limits=limits, ignore=ignored.add, unignore=ignored.remove))
    if "prometheus" in exporters(config)[Signal.METRICS]:
        from otel_ebpf_receiver.export.prometheus.exporter import PrometheusDestination, PrometheusOptions

        prometheus = config.exporters.prometheus
        made.append(PrometheusDestination(PrometheusOptions(prometheus.host, prometheus.port), limits=limits))
    if signals_of_influxdb := frozenset(signal for signal, chosen in exporters(config).items() if "influxdb" in chosen):
        from otel_ebpf_receiver.agent.influxdb import COLUMNS
        from otel_ebpf_receiver.export.influxdb.exporter import InfluxDestination, InfluxOptions

        influxdb = config.exporters.influxdb
        wanted = InfluxOptions(influxdb.url, influxdb.token, influxdb.org, influxdb.bucket, influxdb.interval_s)
        made.append(
            InfluxDestination(wanted, COLUMNS, signals=signals_of_influxdb, limits=limits, ignore=ignored.add, unignore=ignored.remove)
        )
    return made


def console(config: Config) -> Console | None:
    """The console, if lines are wanted."""
    if "console" not in {name for names_of in exporters(config).values() for name in names_of}:
        return None
    from otel_ebpf_receiver.export.console import Console

    wanted = config.exporters.console
    keep = keep_rows(wanted.only or None, wanted.path or None, wanted.service or None)
    return Console(as_json=wanted.format == "json", keep=keep)
