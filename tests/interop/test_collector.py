"""The agent and a real OpenTelemetry Collector: both protocols, compression, TLS, an answer of 503, and a Collector that dies under load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.export.certificates import make_certificates
from tests.interop.collector import CLIENT, GRPC, HTTP, SERVER, Collector
from tests.interop.node import Load, Node, send, wait_until
from tests.interop.watched import Books, settings, watching

DURATION = "http.server.request.duration"
PATHS = ["/200/0/a", "/200/1/b", "/404/0/c", "/500/0/d"]
PROTOCOLS = {"grpc": GRPC, "http/protobuf": HTTP}


@pytest.fixture
def collector(here: Node, tmp_path: Path) -> Iterator[Collector]:
    """A Collector without TLS, not started."""
    made = Collector(here, tmp_path)
    yield made
    made.server.stop()


def otlp(protocol: str, **more: Any) -> dict[str, Any]:
    """Settings of an agent that exports there."""
    scheme = "https" if "certificate" in more else "http"
    return settings(exporters={"otlp": {"endpoint": f"{scheme}://{PROTOCOLS[protocol]}", "protocol": protocol, **more}})


def assert_all_arrived(collector: Collector, answers: Counter[int]) -> None:
    """A CLIENT and a SERVER span for each request, one trace each, the parent right, and every request counted once under its status."""
    wait_until(
        lambda: collector.counted(DURATION) == dict(answers), f"the Collector counts {dict(answers)}, not {collector.counted(DURATION)}"
    )
    servers = {span.trace_id: span for span in collector.spans() if span.kind == SERVER}
    clients = {span.trace_id: span for span in collector.spans() if span.kind == CLIENT}

    assert len(collector.spans()) == 2 * answers.total()
    assert Counter(span.attributes["http.response.status_code"] for span in servers.values()) == answers
    assert clients.keys() == servers.keys()
    for trace, server in servers.items():
        client = clients[trace]
        assert (server.parent_id, client.parent_id) == (client.span_id, "")
        assert (client.resource["service.name"], server.resource["service.name"]) == ("shop", "api")
        assert int(server.attributes["url.path"].split("/")[1]) == server.attributes["http.response.status_code"]
        assert (server.status == 2) == (server.attributes["http.response.status_code"] >= 500)
        assert (client.status == 2) == (client.attributes["http.response.status_code"] >= 400)
    assert collector.counted("http.client.request.duration") == dict(answers)


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_exchange_arrives(here: Node, collector: Collector, tmp_path: Path, protocol: str, compression: str) -> None:
    """What was sent between the pods is at the Collector: each request as two spans of one trace, and exactly counted."""
    collector.start()
    with watching(here, tmp_path, otlp(protocol, compression=compression)) as watched:
        answers = send(here, PATHS * 25)
        watched.wait_seen(200)
        spans = watched.settled("traces", 200)
        assert_all_arrived(collector, answers)
        points = watched.settled("metrics")

    assert (spans.sent, spans.balance) == (200, 0)
    assert (points.sent, points.balance) == (points.received, 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("is_mutual", [False, True], ids=["tls", "mtls"])
def test_over_tls(here: Node, tmp_path: Path, protocol: str, is_mutual: bool) -> None:
    """With the authority's certificate everything arrives over TLS, and with a client's over mutual TLS; gzip beside it."""
    files = make_certificates(tmp_path)
    collector = Collector(here, tmp_path, files, is_mutual=is_mutual)
    client = {"client_certificate": str(files.client), "client_key": str(files.client_key)} if is_mutual else {}
    try:
        collector.start()
        config = otlp(protocol, compression="gzip", certificate=str(files.authority), **client)
        with watching(here, tmp_path, config) as watched:
            answers = send(here, PATHS * 5)
            watched.settled("traces", 40)
            assert_all_arrived(collector, answers)
    finally:
        collector.server.stop()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_client_without_certificate_is_refused(here: Node, tmp_path: Path, protocol: str) -> None:
    """Where mutual TLS is asked for, an agent without a certificate delivers nothing, says so, keeps what it has, and ends in time."""
    files = make_certificates(tmp_path)
    collector = Collector(here, tmp_path, files, is_mutual=True)
    try:
        collector.start()
        with watching(here, tmp_path, otlp(protocol, certificate=str(files.authority))) as watched:
            send(here, PATHS)
            watched.wait_seen(8)
            wait_until(lambda: watched.books("traces").retried > 0, "the agent tries again")
            books = watched.books("traces")
            running = watched.running
    finally:
        collector.server.stop()

    assert (books.sent, books.failed, books.dropped, books.balance) == (0, 0, 0, 0)
    assert any("export" in line and "traces" in line for line in running.err.rest())
    assert collector.spans() == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_backend_that_answers_503(here: Node, collector: Collector, tmp_path: Path, protocol: str) -> None:
    """While the Collector's own backend is away it answers 503 or UNAVAILABLE; nothing is lost, and it all arrives when it is back."""
    collector.configure(is_failing=True)
    collector.start()
    with watching(here, tmp_path, otlp(protocol)) as watched:
        answers = send(here, PATHS * 10)
        watched.wait_seen(80)
        wait_until(lambda: watched.books("traces").retried > 0 and watched.books("metrics").retried > 0, "both signals were tried again")
        meanwhile = watched.books("traces")
        collector.server.stop()
        collector.configure()
        collector.start()
        spans = watched.settled("traces", 80)
        assert_all_arrived(collector, answers)

    assert (meanwhile.sent, meanwhile.balance) == (0, 0)
    assert (spans.sent, spans.failed, spans.dropped, spans.balance) == (80, 0, 0, 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_that_stops_under_load(here: Node, collector: Collector, tmp_path: Path, protocol: str) -> None:
    """It ends in an orderly way and comes again while requests go on: every span and every count is there, once."""
    collector.start()
    with watching(here, tmp_path, otlp(protocol)) as watched:
        with Load(here, PATHS, per_second=100) as load:
            load.wait_more(100)
            collector.server.stop()
            load.wait_more(100)
            collector.start()
            load.wait_more(100)
        books = _balanced(watched.settled("traces", 2 * load.answers.total()), load)
        wait_until(lambda: collector.counted(DURATION) == dict(load.answers), "every request is counted")
        wait_until(lambda: len({span.span_id for span in collector.spans()}) >= 2 * load.answers.total(), "every span is written")

    spans = collector.spans()
    # A batch that was written, but whose answer the end cut off, comes twice; both have the same ids.
    assert len({span.span_id for span in spans}) == books.sent == 2 * load.answers.total()
    assert len(spans) <= books.sent + books.retried


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_that_is_killed_under_load(here: Node, collector: Collector, tmp_path: Path, protocol: str) -> None:
    """SIGKILL in mid-load, twice: the books balance, nothing failed or was dropped, and the cumulative counts are exact in the end."""
    collector.start()
    with watching(here, tmp_path, otlp(protocol)) as watched:
        with Load(here, PATHS, per_second=100) as load:
            for _ in range(2):
                load.wait_more(100)
                collector.server.kill()
                load.wait_more(100)
                collector.start()
            load.wait_more(50)
        books = _balanced(watched.settled("traces", 2 * load.answers.total()), load)
        wait_until(lambda: collector.counted(DURATION) == dict(load.answers), "every request is counted")
        points = watched.settled("metrics")

    assert points.balance == 0
    # What the Collector had acknowledged and not yet written when it was killed is the Collector's loss.
    assert len({span.span_id for span in collector.spans()}) <= books.sent + books.retried


def _balanced(books: Books, load: Load) -> Books:
    assert books.balance == 0
    assert (books.received, books.sent, books.failed, books.dropped, books.rejected) == (2 * load.answers.total(),) * 2 + (0, 0, 0)
    return books
