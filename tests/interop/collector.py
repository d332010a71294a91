"""The OpenTelemetry Collector, and what it has written: one OTLP-JSON object a line, as the semantic conventions name things."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.export.certificates import Certificates
from tests.interop.node import Node
from tests.interop.server import Server, binary

GRPC, HTTP = "127.0.0.1:4317", "127.0.0.1:4318"
CLIENT, SERVER = 3, 2
"""Kinds of spans, as OTLP numbers them."""
Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it arrived."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    status: int
    start_ns: int
    attributes: dict[str, Any]
    resource: Resource


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a histogram as it arrived."""

    start_ns: int
    time_ns: int
    count: int
    sum: float
    temporality: int
    attributes: dict[str, Any]
    resource: Resource


class Collector:
    """One Collector of a node and the folder of what it writes. `configure` may be called again between two starts."""

    def __init__(self, node: Node, folder: Path, tls: Certificates | None = None, *, is_mutual: bool = False) -> None:
        self._folder, self._tls, self._is_mutual = folder, tls, is_mutual
        self._config = folder / "collector.yaml"
        self.configure()

        def is_ready() -> bool:
            return "Everything is ready" in self.server.said()[self._seen :]

        self._seen = 0
        self.server = Server(node.host, [binary("otelcol"), "--config", str(self._config)], is_ready, folder / "collector.log")

    def start(self) -> None:
        """Starts it, again or for the first time."""
        log = self._folder / "collector.log"
        self._seen = len(log.read_text(errors="replace")) if log.exists() else 0
        self.server.start()

    def configure(self, *, is_failing: bool = False) -> None:
        """Writes its configuration; `is_failing` sends everything on to a port where nobody listens, which it must tell its own senders."""
        tls: dict[str, str] = {}
        if self._tls is not None:
            tls = {"cert_file": str(self._tls.server), "key_file": str(self._tls.server_key)}
            if self._is_mutual:
                tls["client_ca_file"] = str(self._tls.authority)
        protocols = {name: {"endpoint": at, **({"tls": tls} if tls else {})} for name, at in (("grpc", GRPC), ("http", HTTP))}
        files = {
            f"file/{signal}": {"path": str(self._folder / f"{signal}.json"), "append": True, "flush_interval": "100ms"}
            for signal in ("traces", "metrics")
        }
        nowhere = {
            "otlp_http": {"endpoint": "http://127.0.0.1:9", "sending_queue": {"enabled": False}, "retry_on_failure": {"enabled": False}}
        }
        pipelines = {
            signal: {"receivers": ["otlp"], "exporters": ["otlp_http" if is_failing else f"file/{signal}"]}
            for signal in ("traces", "metrics")
        }
        whole = {
            "receivers": {"otlp": {"protocols": protocols}},
            "exporters": {**files, **nowhere},
            "service": {"pipelines": pipelines, "telemetry": {"metrics": {"level": "none"}}},
        }
        self._config.write_text(yaml.safe_dump(whole))

    def spans(self) -> list[Span]:
        """All spans so far."""
        found = []
        for resource, scope in self._scopes("traces", "resourceSpans", "scopeSpans"):
            for one in scope.get("spans", []):
                ids = (one["traceId"], one["spanId"], one.get("parentSpanId", ""))
                status = one.get("status", {}).get("code", 0)
                start_ns = int(one["startTimeUnixNano"])
                found.append(Span(*ids, one["name"], one["kind"], status, start_ns, plain(one["attributes"]), resource))
        return found

    def points(self, metric: str) -> list[Point]:
        """All points so far of a histogram."""
        found = []
        for resource, scope in self._scopes("metrics", "resourceMetrics", "scopeMetrics"):
            for one in scope.get("metrics", []):
                if one["name"] != metric:
                    continue
                for point in one["histogram"]["dataPoints"]:
                    times = (int(point["startTimeUnixNano"]), int(point["timeUnixNano"]))
                    counted = (int(point["count"]), float(point.get("sum", 0)))
                    known = plain(point.get("attributes", []))
                    found.append(Point(*times, *counted, one["histogram"]["aggregationTemporality"], known, resource))
        return found

    def counted(self, metric: str) -> dict[int, int]:
        """Observations by status code, of cumulative points: the last of each series."""
        last: dict[str, Point] = {}
        for point in self.points(metric):
            last[json.dumps([point.resource, point.attributes], sort_keys=True)] = point
        totals: dict[int, int] = {}
        for point in last.values():
            status = int(point.attributes["http.response.status_code"])
            totals[status] = totals.get(status, 0) + point.count
        return totals

    def _scopes(self, signal: str, outer: str, inner: str) -> Iterator[tuple[Resource, dict[str, Any]]]:
        file = self._folder / f"{signal}.json"
        # The last line may be half written; when it was cut by a kill, the next writer goes on behind it.
        for line in file.read_text().splitlines() if file.exists() else ():
            for one in _parsed(line).get(outer, []):
                for scope in one.get(inner, []):
                    yield plain(one.get("resource", {}).get("attributes", [])), scope


def _parsed(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}


def plain(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Attributes as plain values."""
    return {one["key"]: _value(one["value"]) for one in pairs}


def _value(value: dict[str, Any]) -> Any:
    kind, found = next(iter(value.items()))
    if kind == "intValue":
        return int(found)
    if kind == "arrayValue":
        return [_value(one) for one in found.get("values", [])]
    return found
