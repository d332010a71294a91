"""An agent with less CPU than it needs, under real traffic: spans give way, metrics lose nothing, and every stage's books add up."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.export.receivers import HttpReceiver
from tests.interop.node import API, PATIENCE_S, Node, node, wait_until
from tests.interop.watched import Watched, settings, watching

PORT = 8081
TOGETHER = 50
"""Requests that a client sends at once, and the pause until it sends the next."""
PAUSE_S = 0.008
REQUEST = b"GET /some/path HTTP/1.1\r\nHost: api\r\nUser-Agent: test\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
RING = 8 << 20
"""Holds a second of it, so that other work on the machine is no overload of its own."""
QUIET_S, BUSY_S = 3.0, 8.0
PERIOD_US = 20_000
SCARCE = (0.75, 0.6, 0.5)
"""Of what it takes to make every span, until that is too little: what a busy machine took may be more than it takes. Metrics alone take less than half."""
LEAST_THINNED = 0.05
WEIGHT = 10
"""Whatever else the machine has to do: the limit alone is what is scarce."""


class Load:
    """Real requests at a steady rate, pipelined on one connection so that both ends together cost less than who watches them."""

    def __init__(self, here: Node) -> None:
        self.answered = 0
        with here.api.inside():
            self._listener = socket.create_server((API, PORT))
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()
        with here.shop.inside():
            self._client = socket.create_connection((API, PORT), PATIENCE_S)

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            rest = b""
            while data := connection.recv(1 << 16):
                *whole, rest = (rest + data).split(b"\r\n\r\n")
                connection.sendall(ANSWER * len(whole))

    def run(self, seconds: float) -> None:
        """Sends for so long; returns when everything is answered."""
        end_s = next_s = time.monotonic()
        end_s += seconds
        while time.monotonic() < end_s:
            self._client.sendall(REQUEST * TOGETHER)
            left = TOGETHER * len(ANSWER)
            while left:
                left -= len(self._client.recv(left))
            self.answered += TOGETHER
            next_s += PAUSE_S
            time.sleep(max(0.0, next_s - time.monotonic()))

    def close(self) -> None:
        """Ends the connection and the server."""
        self._client.close()
        self._server.join(PATIENCE_S)
        self._listener.close()


class Sink(HttpReceiver):
    """Counts spans instead of keeping them, and keeps the last count of each metric that HTTP requests give."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: Counter[str] = Counter()
        self.counted: dict[str, int] = {}

    def _store(self, body: bytes, *, is_traces: bool) -> None:
        if is_traces:
            spans = [
                span
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
            self.arrived["spans"] += len(spans)
            self.arrived["thinned"] += sum(
                any(one.key == "otel_ebpf_receiver.sampling.probability" for one in span.attributes) for span in spans
            )
            return
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics if metric.name.startswith("http.")):
                self.counted[metric.name] = sum(point.count for point in metric.histogram.data_points)


class CpuGroup:
    """A CPU cgroup of either version. What is in it must have ended before it is removed."""

    def __init__(self) -> None:
        root = Path("/sys/fs/cgroup")
        self._is_second = (root / "cgroup.controllers").exists()
        self._folder = (root if self._is_second else root / "cpu") / f"oer-test-{os.getpid()}"
        if self._is_second:
            (root / "cgroup.subtree_control").write_text("+cpu")
        self._folder.mkdir()
        share, usual = ("cpu.weight", 100) if self._is_second else ("cpu.shares", 1024)
        (self._folder / share).write_text(str(WEIGHT * usual))

    def take(self, pid: int) -> None:
        """The process is in it from now on."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def limit(self, cpus: float | None) -> None:
        """So many CPUs at most; None: as many as there are."""
        quota = None if cpus is None else max(1000, round(PERIOD_US * cpus))
        if self._is_second:
            (self._folder / "cpu.max").write_text(f"{'max' if quota is None else quota} {PERIOD_US}")
        else:
            (self._folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self._folder / "cpu.cfs_quota_us").write_text(str(-1 if quota is None else quota))

    def remove(self) -> None:
        """It is gone a moment after its last process."""

        def is_gone() -> bool:
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            return not self._folder.exists()

        wait_until(is_gone, f"{self._folder} is empty")


@pytest.fixture
def group() -> Iterator[CpuGroup]:
    """One of the test's own."""
    try:
        made = CpuGroup()
    except OSError as error:
        pytest.skip(f"no CPU cgroup can be made here: {error}")
    yield made
    made.remove()


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settled(watched: Watched, exchanges: int) -> Counter[str]:
    """Counters, by name and value of their one label, when everything was taken in and exported."""

    def are_all_told() -> bool:
        return watched.counter("records_total", fate="admitted") + watched.counter("kernel_total", event="http_lost") >= exchanges

    wait_until(are_all_told, f"{exchanges} exchanges were taken in or lost")
    watched.settled("traces", watched.counter("spans_total", fate="encoded"))
    watched.wait_exported("metrics", 2)
    found: Counter[str] = Counter()
    for (name, labels), value in watched.counters().items():
        if len(labels) == 1:
            found[f"{name.removeprefix('otel_ebpf_receiver_').removesuffix('_total')} {next(iter(labels))[1]}"] = int(value)
    return found


def test_spans_give_way_and_metrics_lose_nothing(group: CpuGroup, tmp_path: Path) -> None:
    """With less CPU than it takes to make every span, fewer are made and say so; all exchanges are counted, and each stage has what the one before it gave."""
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(node())
        with here.host.inside():
            sink = stack.enter_context(Sink())
        config = settings(exporters={"otlp": {"endpoint": sink.endpoint}}, capture={"ring_bytes": RING})
        watched = stack.enter_context(watching(here, tmp_path, config))
        load = Load(here)
        stack.callback(load.close)
        pid = watched.running.pid
        group.take(pid)
        group.limit(None)
        before_s, began_s = cpu_s(pid), time.monotonic()
        load.run(QUIET_S)
        took = (cpu_s(pid) - before_s) / (time.monotonic() - began_s)
        quiet = settled(watched, 2 * load.answered)
        quietly = load.answered
        for share in SCARCE:
            group.limit(share * took)
            load.run(BUSY_S)
            group.limit(None)
            busy = settled(watched, 2 * load.answered)
            if busy["spans sampled_out"] > LEAST_THINNED * 2 * (load.answered - quietly):
                break
        books = watched.books("traces")
        total, arrived, counted = load.answered, sink.arrived.copy(), dict(sink.counted)
        load.run(1.0)
        probability = watched.counters()["otel_ebpf_receiver_sampling_probability_ratio", frozenset()]

    print(f"{total} requests, {took:.3f} CPUs for {quietly / QUIET_S:.0f}/s with all spans, then {share * took:.3f}: {dict(arrived)}")
    # Every exchange is seen at two taps: at the one as CLIENT, at the other as SERVER.
    seen = 2 * total
    assert quiet["spans encoded"] == 2 * quietly
    assert quiet["spans sampled_out"] == 0
    # Kernel: what began has ended and was handed over, nothing was lost.
    assert busy["kernel http_opened"] == busy["kernel http_answered"] == busy["kernel http_sent"] == seen
    assert busy["kernel http_lost"] == 0
    # Line: what was taken in is told once, and each is a span or was thinned.
    assert (busy["records received"], busy["records admitted"], busy["records copies"]) == (seen, seen, 0)
    assert busy["spans encoded"] + busy["spans sampled_out"] == seen
    assert busy["spans sampled_out"] > LEAST_THINNED * 2 * (total - quietly)
    # Export: what was encoded has arrived, and tells how thin it is.
    assert (books.received, books.sent, books.balance, books.dropped) == (busy["spans encoded"], arrived["spans"], 0, 0)
    assert 0 < arrived["thinned"] < arrived["spans"]
    # Metrics: every exchange, from both sides.
    assert counted == {"http.server.request.duration": total, "http.client.request.duration": total}
    assert probability == 1.0
