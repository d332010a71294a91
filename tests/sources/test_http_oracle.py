"""Random batches of every kind of record, held against one plain function per exchange and the SDK's own encoders."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from otel_ebpf_receiver.sources.http.instruments import BOUNDS_S
from otel_ebpf_receiver.telemetry.columns import Records
from tests.sources.line import CLIENT, SERVER, plain, run
from tests.sources.records import MS, START_NS, make

ROWS = 600
FLAGS = ("target_cut", "uncertain_end", "uncertain_size", "resynchronised", "pipelined", "interim")
SIDES = {1: "client", 2: "server"}
ERRORS = {1: "connection_reset", 2: "connection_closed"}


def exchanges(seed: int) -> list[dict[str, Any]]:
    """Random exchanges; every row differs from every other in its numbers, so that it can be found again."""
    random = np.random.default_rng(seed)

    def pick(*values: Any) -> Any:
        return values[int(random.integers(len(values)))]

    out = []
    for number in range(ROWS):
        times = np.sort(random.integers(0, 20_000 * MS, 3)) + START_NS
        error = pick(0, 0, 0, 1, 2)
        unanswered = error and pick(True, False)
        row: dict[str, Any] = {
            "method": pick("GET", "GET", "POST", "BREW", "delete", "OPTIONS"),
            "target": pick(
                "/", f"/p/{number}", f"/q?{number}", "/" + "x" * int(random.integers(1, 250)), "/ü/ä", b"/\xc3\x28", "http://h.example/z"
            ),
            "host": pick("shop.example", "shop.example:81", "[::1]:8", "", "bad host", f"host{number % 7}"),
            "agent": pick("curl/8", "", "a" * 88, f"agent-{number % 5}"),
            "client": pick("10.0.0.1", "2001:db8::5", f"10.9.{number % 256}.1"),
            "server": pick("10.0.0.2", "2001:db8::6"),
            "client_port": int(random.integers(1, 65536)),
            "server_port": pick(80, 8080),
            "request_seq": number,
            "response_seq": int(random.integers(1 << 32)),
            "minor": pick(0, 1),
            "flags": int(random.integers(64)),
            "error": error,
            "side": pick(1, 2) if error else 0,
            "status": 0 if unanswered else pick(200, 204, 304, 404, 500, 599),
            "request_body": int(random.integers(0, 1 << int(random.integers(1, 50)))),
            "response_body": int(random.integers(0, 1 << int(random.integers(1, 50)))),
            "request_start_ns": START_NS,
            "request_end_ns": int(times[0]),
            "response_start_ns": 0 if unanswered else int(times[1]),
            "response_end_ns": int(times[2]),
        }
        out.append(row)
    return out


def server_of(row: dict[str, Any]) -> tuple[str, int, str]:
    """Address, port and text of the server that the request names."""
    named = {"shop.example": ("shop.example", 80), "shop.example:81": ("shop.example", 81), "[::1]:8": ("::1", 8)}
    if str(row["target"]).startswith("http://"):
        return "h.example", 80, "h.example"
    if row["host"] in named:
        return (*named[row["host"]], row["host"])
    if row["host"].startswith("host"):
        return row["host"], 80, row["host"]
    text = f"[{row['server']}]" if ":" in row["server"] else row["server"]
    return row["server"], row["server_port"], text if row["server_port"] == 80 else f"{text}:{row['server_port']}"


def error_of(row: dict[str, Any], kind: int) -> str | None:
    """`error.type` as the conventions and the design say."""
    if row["status"] >= (500 if kind == SERVER else 400):
        return str(row["status"])
    if row["error"] and (kind == CLIENT or row["side"] == 2):
        return ERRORS[row["error"]]
    return None


def metric_attributes(row: dict[str, Any], kind: int) -> dict[str, Any]:
    """The attributes of an exchange in the metrics of one side."""
    out = {
        "http.request.method": row["method"] if row["method"] in ("GET", "POST", "OPTIONS") else "_OTHER",
        "network.protocol.version": f"1.{row['minor']}",
    }
    if row["status"]:
        out["http.response.status_code"] = row["status"]
    if error := error_of(row, kind):
        out["error.type"] = error
    if kind == SERVER:
        return out | {"url.scheme": "http"}
    address, port, _ = server_of(row)
    return out | {"server.address": address, "server.port": port}


def span_attributes(row: dict[str, Any], kind: int) -> dict[str, Any]:
    """The attributes of its span of one side."""
    address, port, text = server_of(row)
    target = row["target"].decode("utf-8", "replace") if isinstance(row["target"], bytes) else row["target"]
    path = target.removeprefix("http://h.example").partition("?")[0]
    end, first = row["response_end_ns"], row["response_start_ns"] or row["response_end_ns"]
    sent = min(row["request_end_ns"], first)
    out = metric_attributes(row, kind) | {
        "server.address": address,
        "server.port": port,
        "network.peer.address": row["client"] if kind == SERVER else row["server"],
        "network.peer.port": row["client_port"] if kind == SERVER else row["server_port"],
        "http.request.body.size": row["request_body"],
        "otel_ebpf_receiver.request.transfer_ns": sent - START_NS,
        "otel_ebpf_receiver.response.wait_ns": first - sent,
        "otel_ebpf_receiver.response.transfer_ns": end - first,
    }
    if row["response_start_ns"]:
        out["http.response.body.size"] = row["response_body"]
    if out["http.request.method"] == "_OTHER":
        out["http.request.method_original"] = row["method"]
    if row["agent"]:
        out["user_agent.original"] = row["agent"]
    if row["error"]:
        out["otel_ebpf_receiver.closed_by"] = SIDES[row["side"]]
    if row["flags"]:
        out["otel_ebpf_receiver.flags"] = tuple(name for bit, name in enumerate(FLAGS) if row["flags"] >> bit & 1)
    if kind == SERVER:
        return out | {"url.path": path, "client.address": row["client"]}
    return out | {"url.full": f"http://{text}{path}"}


def batches(rows: list[dict[str, Any]]) -> list[Records]:
    """The exchanges as records, 200 a batch."""
    return [make(*rows[start : start + 200]) for start in range(0, len(rows), 200)]


@pytest.mark.parametrize("seed", range(3))
def test_spans_of_random_exchanges_are_as_one_alone_would_be(seed: int) -> None:
    """Name, kind, status, times and every attribute with its type, of both kinds of span of every exchange."""
    rows = exchanges(seed)

    ran = run(*batches(rows))

    assert len(ran.spans) == 2 * ROWS
    for kind in (SERVER, CLIENT):
        # Spans of one Resource keep the order of their records.
        ours = [span for span in ran.spans if span["kind"] == kind]
        for row, span in zip(rows, ours, strict=True):
            expected = span_attributes(row, kind)
            theirs = _encoded(expected)
            assert span["attributes"] == theirs
            known = row["method"] in ("GET", "POST", "OPTIONS")
            status = 2 if error_of(row, kind) else 0
            assert (span["name"], span["status"]) == (row["method"] if known else "HTTP", status)
            assert (span["start"], span["end"]) == (row["request_start_ns"], row["response_end_ns"])


def _encoded(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes as the SDK's encoder writes them."""
    span = ReadableSpan(name="x", context=SpanContext(1, 1, False), attributes=attributes, start_time=1, end_time=2)
    return plain(encode_spans([span]).resource_spans[0].scope_spans[0].spans[0].attributes)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_random_exchanges_are_the_sdks(seed: int) -> None:
    """Each series of both histograms has the attributes, counts, extremes and sum that the SDK records for the same exchanges."""
    rows = exchanges(seed)
    reader = InMemoryMetricReader({Histogram: AggregationTemporality.CUMULATIVE})
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("m")
    for kind, name in ((SERVER, "http.server.request.duration"), (CLIENT, "http.client.request.duration")):
        histogram = meter.create_histogram(name, "s", explicit_bucket_boundaries_advisory=list(BOUNDS_S))
        for row in rows:
            histogram.record((row["response_end_ns"] - row["request_start_ns"]) / 1e9, metric_attributes(row, kind))
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    theirs = defaultdict[tuple[str, frozenset[Any]], Any](None)
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.data.data_points:
            theirs[metric.name, frozenset((point.attributes or {}).items())] = point

    ran = run(*batches(rows))

    ours = {(point["metric"], frozenset(point["attributes"].items())): point["point"] for point in ran.points}
    assert len(ours) == len(ran.points), "no series is there twice"
    assert ours.keys() == theirs.keys()
    for key, point in ours.items():
        other = theirs[key]
        assert (point.count, list(point.bucket_counts), point.min, point.max) == (
            other.count,
            list(other.bucket_counts),
            other.min,
            other.max,
        )
        assert point.sum == pytest.approx(other.sum)
