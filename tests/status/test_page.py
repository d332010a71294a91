"""The live page on the server: who may read it, how its streams are carried, what is bounded."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from otel_ebpf_receiver.status.counters import Counters
from otel_ebpf_receiver.status.guard import is_loopback, refusal
from otel_ebpf_receiver.status.page.files import pages
from otel_ebpf_receiver.status.page.hub import BYTES_MAX, MESSAGES_MAX, Hub, Listener
from otel_ebpf_receiver.status.server import StatusServer


def check(topic: str, parameters: Mapping[str, str]) -> None:
    """A hub's check that takes one parameter."""
    if set(parameters) - {"only"}:
        raise ValueError("there is only 'only'")


@contextmanager
def serving(hub: Hub) -> Iterator[int]:
    """The port of a started server with the page and one stream."""
    streams = {"/page/state": lambda parameters: hub.open("state", parameters)}
    server = StatusServer(Counters(), is_live=lambda: True, is_ready=lambda: True, status=dict, port=0, more=pages(), streams=streams)
    server.start()
    try:
        yield server.port
    finally:
        hub.close()
        server.stop()


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
    """The answer, its body not read yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=dict(headers or {}))
    return connection.getresponse()


def until(holds: object) -> None:
    """Waits for what another thread is about to do."""
    deadline = time.monotonic() + 30
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(hub: Hub, listener: Listener, data: str = "{}") -> bool:
    """Whether a listener left, which shows when it is sent something."""
    listener.put("state", data)
    return listener not in hub.listeners


@pytest.mark.parametrize("host", ["localhost:14318", "127.0.0.1:14318", "[::1]:14318", "10.1.2.3", "", "a.localhost:1"])
def test_addresses_and_localhost_are_answered(host: str) -> None:
    """Whatever port a tunnel gave it."""
    assert refusal({"host": host}, is_local=True) == ""


@pytest.mark.parametrize("host", ["evil.example", "evil.example:14318", "localhost.evil.example:14318", "127.0.0.1.evil.example"])
def test_a_name_that_points_here_is_refused(host: str) -> None:
    """DNS rebinding: only where the server is for this host alone, since a node's address may have names."""
    assert refusal({"host": host}, is_local=True)
    assert not refusal({"host": host}, is_local=False)


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, True),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, False),
        ({"sec-fetch-site": "none"}, False),
    ],
)
def test_other_sites_load_nothing(headers: dict[str, str], is_refused: bool) -> None:
    """A link leads here; nothing else of another site does."""
    assert bool(refusal(headers, is_local=True)) is is_refused


def test_loopback_is_known_by_address_and_name() -> None:
    """The addresses on which the page may be served."""
    assert [is_loopback(one) for one in ("127.0.0.1", "127.1.2.3", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1", "node")] == [
        True
    ] * 4 + [False] * 4


def test_the_page_and_everything_it_loads_is_served() -> None:
    """`/` and each file under `/page/`, with a policy that allows no foreign source, and nothing outside the folder."""
    with serving(Hub()) as port:
        answer = get(port, "/")
        text = answer.read().decode()
        loaded = [get(port, path) for path in pages()]
        outside = get(port, "/page/../server.py").status

    assert "<title>otel-ebpf-receiver</title>" in text
    assert "default-src 'none'" in str(answer.headers["content-security-policy"])
    assert {one.status for one in loaded} == {200}
    assert "http://" not in text
    assert "https://" not in text
    assert outside == 404


def test_a_rebound_name_gets_nothing() -> None:
    """Over a real connection: 403 for the page, for the stream and for the metrics."""
    with serving(Hub()) as port:
        found = {get(port, path, {"Host": f"evil.example:{port}"}).status for path in ("/", "/page/state", "/metrics", "/status")}

    assert found == {403}


def test_a_stream_carries_what_is_put() -> None:
    """As server-sent events, to every listener, in order."""
    hub = Hub()
    with serving(hub) as port:
        answer = get(port, "/page/state")
        until(lambda: hub.listeners)
        hub.listeners[0].put("state", '{"a":1}')
        hub.listeners[0].put("state", '{"a":2}')
        lines = [answer.readline().decode().strip() for _ in range(8)]

    assert answer.headers["content-type"] == "text/event-stream"
    assert lines == ["retry: 1000", "", "event: state", 'data: {"a":1}', "", "event: state", 'data: {"a":2}', ""]


def test_listeners_are_bounded_and_leave() -> None:
    """More than may listen get 503, are counted, and find room when one has gone."""
    hub = Hub(most=1)
    with serving(hub) as port:
        first = get(port, "/page/state")
        until(lambda: hub.listeners)
        refused = get(port, "/page/state").status
        first.close()
        listener = hub.listeners[0]
        until(lambda: is_gone(hub, listener))
        again = get(port, "/page/state").status

    assert (refused, again, hub.refused) == (503, 200, 1)


def test_a_wrong_parameter_is_told() -> None:
    """400 and what is wrong; nobody listens then."""
    hub = Hub(check)
    with serving(hub) as port:
        answer = get(port, "/page/state?nonsense=1")
        text = answer.read().decode()

    assert answer.status == 400
    assert "only" in text
    assert hub.listeners == ()


def test_a_slow_listener_loses_the_oldest() -> None:
    """By number and by bytes; what it lost is counted, also after it left."""
    hub = Hub()
    listener = hub.open("state", {})
    assert listener is not None
    for number in range(MESSAGES_MAX + 5):
        listener.put("state", str(number))
    pieces = iter(listener)
    next(pieces)

    first = next(pieces)
    for _ in range(3):
        listener.put("state", "x" * (BYTES_MAX // 2))
    listener.close()

    assert first.startswith(b"event: state\ndata: 5\n\n")
    assert first.count(b"event:") == MESSAGES_MAX
    assert hub.dropped == 5 + 2
    assert hub.listeners == ()


def test_a_listener_that_reads_nothing_is_given_up() -> None:
    """Its place is free again: a full socket may hold a thread for seconds only."""
    hub = Hub()
    with serving(hub) as port, socket.create_connection(("127.0.0.1", port)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(b"GET /page/state HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: hub.listeners)
        listener = hub.listeners[0]

        until(lambda: is_gone(hub, listener, "x" * (1 << 20)))
