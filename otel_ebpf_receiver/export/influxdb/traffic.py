"""Encoded spans as lines of `traffic`: one point per span, at its start, or the first nanosecond after it that is free. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_ebpf_receiver.export.influxdb.columns import Column, Columns
from otel_ebpf_receiver.export.influxdb.line import Times, Value, line


def traffic_lines(columns: Columns, body: bytes, times: Times | None = None) -> list[str]:
    """The lines of one `ExportTraceServiceRequest`; `times` knows those of earlier ones. Raises DecodeError."""
    times = times or Times()
    lines: list[str] = []
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        of_resource = attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            lines.extend(_line(columns, span, of_resource, times) for span in scope.spans)
    return lines


def attributes(many: Iterable[KeyValue]) -> dict[str, Value]:
    """Attributes with simple values; others are left out."""
    return {each.key: value for each in many if (value := _simple(each.value)) is not None}


def tags(columns: Iterable[Column], values: Mapping[str, Value]) -> dict[str, str]:
    """The tags that have a value."""
    return {column.name: str(value) for column in columns if (value := _first(column, values)) is not None}


def _line(columns: Columns, span: Span, of_resource: Mapping[str, Value], times: Times) -> str:
    is_client = span.kind == Span.SPAN_KIND_CLIENT
    values = {**of_resource, **attributes(span.attributes)}
    side_tags = columns.client_tags if is_client else columns.server_tags
    side_fields = columns.client_fields if is_client else columns.server_fields
    labels = dict(columns.constants) | {"flow": "1" if is_client else "0"}
    labels |= tags((*columns.resource_tags, *columns.tags, *side_tags), values)
    fields: dict[str, Value] = {"duration": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6}
    for column in (*columns.fields, *side_fields):
        if (value := _first(column, values)) is not None:
            fields[column.name] = value
    return line(columns.traffic, labels, fields, span.start_time_unix_nano, times)


def _first(column: Column, values: Mapping[str, Value]) -> Value | None:
    return next((values[name] for name in column.attributes if name in values), None)


def _simple(value: AnyValue) -> Value | None:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "int_value":
        return value.int_value
    if kind == "double_value":
        return value.double_value
    return value.bool_value if kind == "bool_value" else None
