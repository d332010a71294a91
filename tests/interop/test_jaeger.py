"""The agent and a real Jaeger: traces read back through its query API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.interop.node import Load, Node, send, wait_for, wait_until
from tests.interop.server import Server, binary, running
from tests.interop.watched import settings, watching

QUERY = "http://127.0.0.1:16686"
CONFIG = {
    "extensions": {
        "jaeger_storage": {"backends": {"main": {"memory": {"max_traces": 100000}}}},
        "jaeger_query": {
            "storage": {"traces": "main"},
            "http": {"endpoint": "127.0.0.1:16686"},
            "grpc": {"endpoint": "127.0.0.1:16685"},
        },
    },
    "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": "127.0.0.1:4317"}, "http": {"endpoint": "127.0.0.1:4318"}}}},
    "exporters": {"jaeger_storage_exporter": {"trace_storage": "main"}},
    "service": {
        "extensions": ["jaeger_storage", "jaeger_query"],
        "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
        "telemetry": {"metrics": {"level": "none"}},
    },
}
INCOMING = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PROTOCOLS = {"grpc": "http://127.0.0.1:4317", "http/protobuf": "http://127.0.0.1:4318"}


@pytest.fixture
def jaeger(here: Node, tmp_path: Path) -> Iterator[Server]:
    """It keeps its traces in memory."""
    (tmp_path / "jaeger.yaml").write_text(yaml.safe_dump(CONFIG))
    command = [binary("jaeger"), "--config", f"{tmp_path}/jaeger.yaml"]
    with running(Server(here.host, command, lambda: here.ask(f"{QUERY}/api/services"), tmp_path / "jaeger.log")) as server:
        yield server


def exporting(protocol: str) -> dict[str, Any]:
    """Settings of an agent that exports its spans there."""
    return settings(exporters={"metrics": ["none"], "otlp": {"endpoint": PROTOCOLS[protocol], "protocol": protocol}})


def tags(span: dict[str, Any]) -> dict[str, Any]:
    """Its tags as plain values."""
    return {one["key"]: one["value"] for one in span["tags"]}


def parents(span: dict[str, Any]) -> list[str]:
    """Ids of the spans that it is a child of."""
    return [one["spanID"] for one in span["references"] if one["refType"] == "CHILD_OF"]


def sides(trace: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The spans of a trace by kind, each with the name of its service."""
    return {tags(span)["span.kind"]: {**span, "service": trace["processes"][span["processID"]]["serviceName"]} for span in trace["spans"]}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_trace_with_both_sides(here: Node, jaeger: Server, tmp_path: Path, protocol: str) -> None:
    """A request without a context is a trace of two spans, the CLIENT span the root and parent of the SERVER span, inside its time."""
    with watching(here, tmp_path, exporting(protocol)) as watched:
        answers = send(here, ["/200/5/a", "/500/5/b"] * 5)
        watched.settled("traces", 20)

        def find() -> list[dict[str, Any]]:
            traces: list[dict[str, Any]] = here.json(f"{QUERY}/api/traces", service="api", limit="100")["data"]
            return traces if len(traces) == answers.total() else []

        traces = wait_for(find, "Jaeger has ten traces of the service api")
        services = set(here.json(f"{QUERY}/api/services")["data"])

    assert {"shop", "api"} <= services
    assert not [span["warnings"] for trace in traces for span in trace["spans"] if span["warnings"]]
    for trace in traces:
        found = sides(trace)
        client, server = found["client"], found["server"]
        assert len(trace["spans"]) == 2
        assert (client["service"], server["service"]) == ("shop", "api")
        assert (parents(client), parents(server)) == ([], [client["spanID"]])
        assert client["startTime"] <= server["startTime"]
        assert server["startTime"] + server["duration"] <= client["startTime"] + client["duration"]
        assert server["duration"] >= 5000
        assert tags(server).get("error", False) is (tags(server)["http.response.status_code"] == 500)
        assert server["operationName"] == "GET"


def test_a_trace_that_the_application_began(here: Node, jaeger: Server, tmp_path: Path) -> None:
    """With a `traceparent` the spans are in its trace: the CLIENT span below the one that it names, the SERVER span below the CLIENT span."""
    _, trace_id, parent, _ = INCOMING.split("-")
    with watching(here, tmp_path, exporting("grpc")) as watched:
        send(here, ["/200/0/a"], {"traceparent": INCOMING})
        watched.settled("traces", 2)

        def find() -> dict[str, Any] | None:
            (trace,) = here.json(f"{QUERY}/api/traces/{trace_id}")["data"]
            return trace if len(trace["spans"]) == 2 else None

        found = sides(wait_for(find, "the trace has both spans"))

    assert (parents(found["client"]), parents(found["server"])) == ([parent], [found["client"]["spanID"]])


def test_it_is_killed_under_load(here: Node, jaeger: Server, tmp_path: Path) -> None:
    """SIGKILL in mid-load and a new start: what came in its absence and after is there, and the books balance with nothing lost by the agent."""
    with watching(here, tmp_path, exporting("grpc")) as watched:
        with Load(here, ["/200/0/a"], per_second=50) as load:
            load.wait_more(50)
            jaeger.kill()
            before = load.answers.total()
            load.wait_more(100)
            jaeger.start()
            load.wait_more(50)
        total = load.answers.total()
        books = watched.settled("traces", 2 * total)

        def traces() -> int:
            return len(here.json(f"{QUERY}/api/traces", service="api", limit="100000")["data"])

        wait_until(lambda: traces() >= total - before, f"Jaeger has {total - before} traces")
        assert traces() <= total

    assert (books.sent, books.balance, books.failed, books.dropped) == (2 * total, 0, 0, 0)
