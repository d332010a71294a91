"""Requests that wait for their answer, of a real server that takes its time, as an agent tells them."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.export.receivers import HttpReceiver
from tests.interop.node import API, PATIENCE_S, Client, Node, node, wait_until
from tests.interop.watched import settings, watching

WAIT_MS = 6000


def told(receiver: HttpReceiver) -> list[tuple[str, int]]:
    """What each interval said so far, in its order."""
    return [
        (metric.name, point.as_int)
        for resource in list(receiver.metrics)
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.endswith("active_requests")
        for point in metric.sum.data_points
    ]


def ask(here: Node, count: int) -> list[threading.Thread]:
    """So many requests at once, each answered after WAIT_MS."""

    def get() -> None:
        client = Client(here.shop, API)
        client.get(f"/200/{WAIT_MS}/slow")
        client.close()

    threads = [threading.Thread(target=get) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_open_requests_are_told_while_they_are_open(tmp_path: Path) -> None:
    """Three that wait are three at both sides, by the interval; when they are answered there are none, and they are counted as any other."""
    with node() as here:
        with here.host.inside():
            receiver = HttpReceiver()
        with receiver:
            config = settings(exporters={"otlp": {"endpoint": receiver.endpoint}})
            config["telemetry"]["metrics"]["active_requests"] = True
            with watching(here, tmp_path, config) as watched:
                threads = ask(here, 3)
                wait_until(lambda: ("http.server.active_requests", 3) in told(receiver), "three are open at the server")
                wait_until(lambda: ("http.client.active_requests", 3) in told(receiver), "three are open at the client")
                before = watched.counter("records_total", fate="admitted")
                for thread in threads:
                    thread.join(PATIENCE_S)
                watched.wait_seen(6)
                since = len(told(receiver))
                wait_until(lambda: told(receiver)[since:].count(("http.server.active_requests", 0)) > 1, "none is open any more")

    assert before == 0
    assert {value for _, value in told(receiver)} <= {0, 1, 2, 3}
    assert told(receiver)[-1][1] == 0
