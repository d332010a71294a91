"""Names that no single source owns: the pinned semantic conventions' version, the scope, Resource keys and this project's own general keys.

What belongs to one protocol is named in `sources/<name>/names.py`, never here.
"""

from __future__ import annotations

from opentelemetry.semconv._incubating.attributes import service_attributes as _service
from opentelemetry.semconv._incubating.attributes import telemetry_attributes as _telemetry
from opentelemetry.semconv.schemas import Schemas

SCHEMA_URL = Schemas.V1_44_0.value
SCOPE_NAME = "otel_ebpf_receiver"

SERVICE_NAME = _service.SERVICE_NAME
SERVICE_NAMESPACE = _service.SERVICE_NAMESPACE
SERVICE_PEER_NAME = _service.SERVICE_PEER_NAME
SERVICE_PEER_NAMESPACE = _service.SERVICE_PEER_NAMESPACE
PEER_SERVICE = "peer.service"
"""Superseded by `service.peer.name`, but what the service graphs of the Collector and of Tempo still look for."""

SDK_NAME = _telemetry.TELEMETRY_SDK_NAME
SDK_VERSION = _telemetry.TELEMETRY_SDK_VERSION
SDK_LANGUAGE = _telemetry.TELEMETRY_SDK_LANGUAGE

METRIC_OVERFLOW = "otel.metric.overflow"

KEPT = "otel_ebpf_receiver.sampling.kept"
"""Why a span exists that the sampler alone would have dropped: `error` or `slow`."""
PROBABILITY = "otel_ebpf_receiver.sampling.probability"
"""Share of the spans that the agent's cap let through, on spans made while it was below 1."""
