"""Encoded spans are, field by field, what the SDK's encoder makes of the same spans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from otel_ebpf_receiver.export.queue import Payload
from otel_ebpf_receiver.telemetry import names
from otel_ebpf_receiver.telemetry.columns import Group, Integers, Kind, Part, Prefix, SpanColumns, Text
from otel_ebpf_receiver.telemetry.keys import mix
from otel_ebpf_receiver.telemetry.outbox import Outbox
from otel_ebpf_receiver.telemetry.resources import Resources
from otel_ebpf_receiver.telemetry.spans import Links, SpanEncoder
from otel_ebpf_receiver.telemetry.workload import Workload

PARTS = (
    Part({"text": "äé", "flag": True, "number": -5, "share": 0.25, "list": ("a", "b")}, "GET /x", True),
    Part({"empty": ""}, "POST"),
    Part({}, "HTTP", trace_state="ot=th:8,vendor=1"),
)
WORKLOADS = tuple(Workload({"service.name": f"service-{number}", "port": number}) for number in range(7))


class Batch:
    """Random rows, as columns and as the SDK's spans."""

    def __init__(self, rows: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.rows = rows
        self.which = random.integers(0, len(PARTS), rows)
        self.owner = random.integers(-1, len(WORKLOADS), rows).astype(np.int32)
        self.kind = (Kind.SERVER, Kind.CLIENT)[seed % 2]
        self.near = self._texts(random, 0, 300)
        self.far = self._texts(random, 0, 40)
        self.has_near, self.has_far = random.random(rows) < 0.8, random.random(rows) < 0.5
        self.large = random.integers(0, 1 << int(random.integers(1, 63)), rows)
        self.small, self.has_small = random.integers(0, 5, rows), random.random(rows) < 0.7
        self.prefix = random.integers(0, 3, rows)
        self.links = Links(
            random.integers(1, 256, (rows, 16), dtype=np.uint8),
            random.integers(1, 256, (rows, 8), dtype=np.uint8),
            random.integers(1, 256, (rows, 8), dtype=np.uint8),
            random.random(rows) < 0.5,
            random.integers(1, 1 << 62, rows, dtype=np.uint64),
            random.integers(1, 1 << 62, rows, dtype=np.uint64),
        )

    def _texts(self, random: np.random.Generator, low: int, high: int) -> list[bytes]:
        return [b"/" * int(length) for length in random.integers(low, high, self.rows)]

    def columns(self) -> SpanColumns:
        return SpanColumns(
            self.kind,
            [Group(mix(self.which), lambda row: PARTS[self.which[row]])],
            [Integers("large", self.large), Integers("small", self.small, self.has_small)],
            [
                Text("near", *matrix(self.near), present=self.has_near),
                Text("far", *matrix(self.far), Prefix(mix(self.prefix), lambda row: b"http://h" * int(self.prefix[row])), self.has_far),
            ],
        )

    def expected(self, row: int, resources: list[Resource]) -> ReadableSpan:
        part, links = PARTS[self.which[row]], self.links
        attributes: dict[str, Any] = dict(part.attributes) | {"large": int(self.large[row])}
        if self.has_small[row]:
            attributes["small"] = int(self.small[row])
        if self.has_near[row]:
            attributes["near"] = self.near[row].decode()
        if self.has_far[row]:
            attributes["far"] = "http://h" * int(self.prefix[row]) + self.far[row].decode()
        trace = int.from_bytes(links.trace[row].tobytes())
        state = TraceState.from_header([part.trace_state])
        parent = SpanContext(trace, int.from_bytes(links.parent[row].tobytes()), is_remote=True) if links.has_parent[row] else None
        return ReadableSpan(
            name=part.name,
            context=SpanContext(trace, int.from_bytes(links.span[row].tobytes()), False, TraceFlags(1), state),
            parent=parent,
            resource=resources[self.owner[row]],
            attributes=attributes,
            kind=SpanKind.SERVER if self.kind is Kind.SERVER else SpanKind.CLIENT,
            status=Status(StatusCode.ERROR if part.is_error else StatusCode.UNSET),
            start_time=int(links.start_unix_ns[row]),
            end_time=int(links.end_unix_ns[row]),
            instrumentation_scope=InstrumentationScope(names.SCOPE_NAME, "1.0", names.SCHEMA_URL),
        )


def matrix(texts: list[bytes]) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Texts as a matrix of bytes and their lengths."""
    width = max(8, *map(len, texts))
    return np.array(texts, f"S{width}").view(np.uint8).reshape(len(texts), width), np.array(list(map(len, texts)), np.int64)


def new_resources() -> Resources:
    """The table of Resources under test."""
    return Resources({"service.name": "unknown_service"}, {"added": "by user", "port": -1}, "1.0")


def sdk_resources() -> list[Resource]:
    """The same Resources as the SDK's, the host's last."""
    own = {"telemetry.sdk.name": "otel_ebpf_receiver", "telemetry.sdk.version": "1.0", "added": "by user"}
    known = [dict(workload.attributes) | own for workload in WORKLOADS]
    return [Resource(attributes, names.SCHEMA_URL) for attributes in [*known, {"service.name": "unknown_service", "port": -1} | own]]  # type: ignore[arg-type]


def flat(request: ExportTraceServiceRequest) -> list[tuple[Any, ...]]:
    """All spans, each with its Resource, in an order that does not depend on how they were grouped."""
    out: list[tuple[Any, ...]] = []
    for resource in request.resource_spans:
        assert resource.schema_url == names.SCHEMA_URL
        around = sorted(attribute.SerializeToString() for attribute in resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                attributes = sorted(attribute.SerializeToString() for attribute in span.attributes)
                del span.attributes[:]
                out.append((span.span_id, around, scope.scope.SerializeToString(), scope.schema_url, attributes, span.SerializeToString()))
    return sorted(out)


@pytest.mark.parametrize("seed", range(12))
def test_random_batches_equal_the_sdk_encoders(seed: int) -> None:
    """Every field of every span of a random batch is the same, and so are Resource, scope and schema."""
    batch, resources = Batch(int(np.random.default_rng(seed).integers(1, 2500)), seed), new_resources()
    spans = SpanEncoder().encode(batch.columns(), batch.links, resources.numbers(WORKLOADS, batch.owner))
    box = Outbox(resources)

    payloads = box.add(spans) + box.flush()

    assert [len(b"".join(row)) for row in zip(*spans.pieces, strict=True)] == spans.sizes.tolist()
    ours = ExportTraceServiceRequest.FromString(b"".join(payload.body for payload in payloads))
    known = sdk_resources()
    theirs = encode_spans([batch.expected(row, known) for row in range(batch.rows)])
    assert flat(ours) == flat(theirs)


def test_requests_stay_below_their_size_and_count_their_spans() -> None:
    """A large batch leaves as several requests, none above 3 MiB, whose counts add up; each parses alone."""
    batch, resources = Batch(3000, 4), new_resources()
    spans = SpanEncoder().encode(batch.columns(), batch.links, resources.numbers(WORKLOADS, batch.owner))
    box, payloads = Outbox(resources, max_bytes=100_000), list[Payload]()
    for _ in range(3):
        payloads += box.add(spans)
    payloads += box.flush()

    assert max(len(payload.body) for payload in payloads) <= 100_000
    assert sum(payload.items for payload in payloads) == 9000
    for payload in payloads:
        parsed = ExportTraceServiceRequest.FromString(payload.body)
        assert sum(len(scope.spans) for resource in parsed.resource_spans for scope in resource.scope_spans) == payload.items


def test_requests_hold_no_more_spans_than_they_may() -> None:
    """Where the number of spans is bounded, a large batch leaves in requests of that many, and what is left waits."""
    batch, resources = Batch(1000, 4), new_resources()
    spans = SpanEncoder().encode(batch.columns(), batch.links, resources.numbers(WORKLOADS, batch.owner))
    box = Outbox(resources, max_items=128)

    payloads = box.add(spans)

    assert {payload.items for payload in payloads} == {128}
    assert sum(payload.items for payload in payloads) + len(box) == 1000
    assert len(box) <= 128
    assert sum(payload.items for payload in box.flush()) == 1000 - 128 * len(payloads)


def test_resources_that_nobody_uses_are_forgotten() -> None:
    """Churn of workloads leaves nothing behind, and numbers are not used again."""
    resources = new_resources()
    seen = set[int]()
    for round_ in range(50):
        workloads = tuple(Workload({"service.name": f"{round_}-{number}"}) for number in range(20))
        numbers = set(resources.numbers(workloads, np.arange(20, dtype=np.int32)).tolist())
        assert not numbers & seen
        seen |= numbers

        resources.retain(set())

    assert len(resources) == 1
