"""What arrives at a real receiver when the agent runs."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterable

import pytest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from tests.agent.process import agent, curl, http_server
from tests.capture.namespaces import Namespace, join, namespace
from tests.export.receivers import GrpcReceiver, HttpReceiver

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_METRIC_EXPORT_INTERVAL": "500"}


def attributes(pairs: Iterable[KeyValue]) -> dict[str, object]:
    """Attributes as plain values."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}


def points(receiver: HttpReceiver | GrpcReceiver, name: str) -> list[int]:
    """Counts of the points of a histogram, as they came."""
    metrics = (metric for resource in receiver.metrics for scope in resource.scope_metrics for metric in scope.metrics)
    return [point.count for metric in metrics if metric.name == name for point in metric.histogram.data_points]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_spans_and_metrics_arrive(protocol: str) -> None:
    """Every exchange is a span and a count, its Resource is the host's, and the agent's own telemetry comes beside it."""
    with namespace() as here, namespace() as there:
        join(here, there)
        with here.inside():
            receiver = HttpReceiver() if protocol == "http/protobuf" else GrpcReceiver()
        environ = {
            **SOON,
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_RESOURCE_ATTRIBUTES": "team=red",
        }
        with receiver, http_server(there.command()), agent(prefix=here.command(), env=environ) as running:
            running.ready()
            for _ in range(3):
                curl(here.command(), "http://10.77.0.2:8080/there")
            arrived = receiver.wait_for(spans=3, metrics=1)
            code = running.stop()

    assert arrived
    assert code == 0
    resources = [attributes(one.resource.attributes) for one in receiver.traces]
    found = [span for one in receiver.traces for scope in one.scope_spans for span in scope.spans]
    assert {one["service.name"] for one in resources} == {"unknown_service"}
    assert {one["team"] for one in resources} == {"red"}
    assert [attributes(span.attributes)["url.path"] for span in found] == ["/there"] * 3
    assert points(receiver, "http.server.request.duration")[-1] == 3
    own = {attributes(one.resource.attributes)["service.name"] for one in receiver.metrics}
    assert own == {"unknown_service", "otel-ebpf-receiver"}
    instances = {attributes(one.resource.attributes)["service.instance.id"] for one in receiver.metrics}
    assert instances == {socket.gethostname()}


def test_the_end_flushes() -> None:
    """Exchanges just before SIGTERM are exported, spans and metrics, though no interval was due."""
    with namespace() as here, namespace() as there:
        join(here, there)
        with here.inside():
            receiver = HttpReceiver()
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        with receiver, http_server(there.command()), agent(prefix=here.command(), env=environ) as running:
            running.ready()
            for _ in range(4):
                curl(here.command(), "http://10.77.0.2:8080/last")
            code = running.stop()

    assert code == 0
    assert receiver.spans == 4
    assert points(receiver, "http.server.request.duration") == [4]


def test_own_exports_are_not_captured_and_those_of_others_are() -> None:
    """The agent's connection to the Collector is left out by connection: somebody else's exchange with the same port is reported."""
    with namespace() as here:
        with here.inside():
            receiver = HttpReceiver()
        environ = {**SOON, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        with receiver, agent(prefix=here.command(), env=environ) as running:
            running.ready()
            curl(here.command(), f"{receiver.endpoint}/stranger")
            receiver.wait_for(spans=1, requests=4)
            running.stop()

    paths = [attributes(span.attributes)["url.path"] for one in receiver.traces for scope in one.scope_spans for span in scope.spans]
    assert paths == ["/stranger"]
    assert len(receiver.requests) >= 4


def test_named_services() -> None:
    """Names of the configuration are the Resource, and OTEL_SERVICE_NAME does not override them."""
    services = '[{"name": "shop", "namespace": "front", "ports": [8080]}]'
    with namespace() as here, namespace() as there:
        join(here, there)
        with here.inside():
            receiver = HttpReceiver()
        environ = {
            **SOON,
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EBPF_RECEIVER_SERVICES": services,
            "OTEL_SERVICE_NAME": "edge",
        }
        with receiver, http_server(there.command()), agent(prefix=here.command(), env=environ) as running:
            running.ready()
            curl(here.command(), "http://10.77.0.2:8080/there")
            receiver.wait_for(spans=1)
            running.stop()

    resources = [attributes(one.resource.attributes) for one in receiver.traces]
    assert [(one["service.name"], one["service.namespace"]) for one in resources] == [("shop", "front")]


def test_deltas_add_up_over_an_outage() -> None:
    """With delta temporality what a dead backend did not take comes with the next interval: the sum is right."""
    with namespace() as here, namespace() as there:
        join(here, there)
        with here.inside():
            first = HttpReceiver()
        environ = {**SOON, "OTEL_EXPORTER_OTLP_ENDPOINT": first.endpoint, "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
        with http_server(there.command()), agent(prefix=here.command(), env=environ) as running:
            with first:
                running.ready()
                curl(here.command(), "http://10.77.0.2:8080/a")
                first.wait_for(spans=1, metrics=1)
                time.sleep(0.5)  # what it received is answered: else it would rightly be sent again
            for _ in range(5):
                curl(here.command(), "http://10.77.0.2:8080/b")
            with here.inside():
                second = HttpReceiver(port=first.port)
            with second:
                second.wait_for(spans=5, metrics=1)
                curl(here.command(), "http://10.77.0.2:8080/c")
                running.stop()
                counted = points(first, "http.server.request.duration") + points(second, "http.server.request.duration")

    assert sum(counted) == 7


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_variables_choose_the_exporters_and_a_dead_one_starves_none(temporality: str) -> None:
    """Metrics go to OTLP and to the page for Prometheus, spans nowhere: with nobody at the OTLP endpoint the page goes on counting."""
    with namespace() as here, namespace() as there:
        join(here, there)
        environ = {
            **SOON,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "otlp,prometheus",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality,
        }
        with http_server(there.command()), agent("--interface", "v0", prefix=here.command(), env=environ) as running:
            running.ready()
            for count in (3, 5):
                while counted(here) < count:
                    curl(here.command(), "http://10.77.0.2:8080/there")
                    wait_counted(here, counted(here) + 1)
            text = page(here)
            code = running.stop()

    assert code == 0
    waiting = [line for line in text.splitlines() if line.startswith("otel_ebpf_receiver_export_queued") and 'destination="otlp"' in line]
    assert [float(line.rpartition(" ")[2]) > 0 for line in waiting] == [True]
    assert not [line for line in text.splitlines() if 'signal="traces"' in line]


def page(here: Namespace) -> str:
    """The page for Prometheus."""
    command = [*here.command(), "curl", "-sS", "--max-time", "20", "http://127.0.0.1:9464/metrics"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def counted(here: Namespace) -> int:
    """Exchanges on the page."""
    lines = [line for line in page(here).splitlines() if line.startswith("http_server_request_duration_seconds_count")]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


def wait_counted(here: Namespace, count: int) -> None:
    """Until there are so many."""
    deadline = time.monotonic() + 30
    while counted(here) < count:
        assert time.monotonic() < deadline
        time.sleep(0.2)
