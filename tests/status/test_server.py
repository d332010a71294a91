"""The status server: probes, metrics and status on this host only."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from otel_ebpf_receiver.errors import AgentError
from otel_ebpf_receiver.status.counters import Attributes, Counters, Instrument, Value
from otel_ebpf_receiver.status.pages import CONNECTIONS_MAX
from otel_ebpf_receiver.status.server import StatusServer


@contextmanager
def serving(counters: Counters | None = None, *, ready: bool = True, status: dict[str, object] | None = None) -> Iterator[StatusServer]:
    """A started server on a free port."""
    server = StatusServer(
        counters or Counters(), is_live=lambda: True, is_ready=lambda: ready, status=lambda: status or {"taps": ["eth0"]}, port=0
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


def get(port: int, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, content type and text of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, response.headers["content-type"], text


@pytest.mark.parametrize(("ready", "expected"), [(True, (200, "ready\n")), (False, (503, "not ready\n"))])
def test_probes_say_what_holds(ready: bool, expected: tuple[int, str]) -> None:
    """Liveness and readiness are separate answers."""
    with serving(ready=ready) as server:
        status, _, text = get(server.port, "/readyz")

        assert (status, text) == expected
        assert get(server.port, "/healthz")[0] == 200


def test_metrics_and_status_are_served() -> None:
    """/metrics is Prometheus text of the counters, /status is JSON, HEAD has no body, and anything else names the pages."""
    counters = Counters()
    counters.counter("otel_ebpf_receiver.ring.lost", "Records lost.", unit="{record}").add(3)
    with serving(counters) as server:
        status, content_type, text = get(server.port, "/metrics?x=1")
        assert status == 200
        assert content_type.startswith("text/plain; version=0.0.4")
        assert "otel_ebpf_receiver_ring_lost_total 3\n" in text
        assert json.loads(get(server.port, "/status")[2]) == {"taps": ["eth0"]}
        assert get(server.port, "/metrics", "HEAD")[2] == ""
        assert "/healthz, /readyz, /metrics, /status" in get(server.port, "/")[2]


def test_answers_are_cached() -> None:
    """Two scrapes in one moment read the counters once."""
    reads: list[int] = []
    counters = Counters()

    def read() -> dict[Attributes, Value]:
        reads.append(1)
        return {(): 1}

    counters.observe(Instrument("a", "A."), read)
    with serving(counters) as server:
        texts = {get(server.port, "/metrics")[2] for _ in range(5)} | {server.answer("/metrics")[2] for _ in range(5)}

    assert len(texts) == 1
    assert len(reads) < 10


def test_whoever_asks_once_a_second_sees_something_new_each_time() -> None:
    """Prometheus scrapes at even distances: a page kept for that long would be the same twice."""
    asked = iter(range(5))
    counters = Counters()
    counters.observe(Instrument("asked", "How often."), lambda: {(): next(asked)})
    with serving(counters) as server:
        first = server.answer("/metrics")[2]
        time.sleep(0.9)
        second = server.answer("/metrics")[2]

    assert ("asked_total 0\n" in first, "asked_total 1\n" in second) == (True, True)


def test_a_page_that_fails_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in one page is 500 there, logged, and the probes go on."""

    def broken() -> dict[str, object]:
        raise RuntimeError("broken")

    server = StatusServer(Counters(), is_live=lambda: True, is_ready=lambda: True, status=broken, port=0)
    server.start()

    assert get(server.port, "/status")[0] == 500
    assert get(server.port, "/healthz")[0] == 200

    server.stop()
    assert "status page failed" in caplog.text


def test_a_taken_port_is_a_clear_error() -> None:
    """The message names the port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(AgentError, match=rf"status server \(status\): port {port} .* taken, .*; choose another"):
            StatusServer(Counters(), is_live=bool, is_ready=bool, status=dict, port=port)


def test_idle_connections_are_bounded() -> None:
    """Clients that connect and say nothing cannot hold more than a few threads."""
    with serving() as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CONNECTIONS_MAX)]
        for each in idle:
            each.settimeout(10)

        with socket.create_connection(("127.0.0.1", server.port)) as refused:
            refused.settimeout(10)
            assert refused.recv(1) == b""

        for each in idle:
            each.close()


def test_it_listens_on_this_host_only_and_frees_its_port() -> None:
    """The default address is loopback; stop() twice and before start() is harmless, and the port can be taken again."""
    first = StatusServer(Counters(), is_live=bool, is_ready=bool, status=dict, port=0)
    address = first.address
    first.stop()
    first.stop()

    second = StatusServer(Counters(), is_live=bool, is_ready=bool, status=dict, port=first.port)
    second.stop()

    assert address == "127.0.0.1"
