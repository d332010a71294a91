"""The agent's InfluxDB exporter and a real VictoriaMetrics: the measurements `red` and `traffic` read back."""

from __future__ import annotations

import contextlib
import json
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.interop.node import API, Load, Node, send, wait_until
from tests.interop.server import Server, binary, running
from tests.interop.watched import settings, watching

URL = "http://127.0.0.1:8428"
PATHS = ["/200/0/a", "/200/20/b", "/404/0/c", "/500/0/d"]


@contextlib.contextmanager
def victoria_metrics(node: Node, folder: Path) -> Iterator[Server]:
    """It keeps its data in the folder."""
    command = [binary("victoria-metrics"), f"-storageDataPath={folder}/data", "-httpListenAddr=127.0.0.1:8428"]
    server = Server(node.host, command, lambda: node.ask(f"{URL}/health"), folder / "victoria-metrics.log")
    with running(server):
        yield server


def influxdb(**more: Any) -> dict[str, Any]:
    """Settings of an agent that writes there."""
    exporter = {"url": URL, "org": "demo", "bucket": "http", "token": "none", "interval_s": 1}
    return settings(exporters={"traces": ["influxdb"], "metrics": ["influxdb"], "influxdb": exporter}, **more)


def series(node: Node, name: str) -> list[dict[str, Any]]:
    """All samples of a metric: `metric`, `values`, `timestamps` (ms)."""
    node.ask(f"{URL}/internal/force_flush")
    text = node.ask(f"{URL}/api/v1/export?" + urllib.parse.urlencode({"match[]": name})).decode()
    return [json.loads(line) for line in text.splitlines()]


def seen(node: Node) -> Counter[tuple[str, str]]:
    """Points of `traffic` by direction (0: the service answered, 1: it asked) and status code."""
    found: Counter[tuple[str, str]] = Counter()
    for one in series(node, "traffic_duration"):
        found[one["metric"]["flow"], one["metric"]["code"]] += len(one["values"])
    return found


def expected(answers: Counter[int]) -> Counter[tuple[str, str]]:
    """The same of what was answered: each request is seen from both sides."""
    return Counter({(flow, str(status)): count for flow in "01" for status, count in answers.items()})


def test_red_and_traffic(here: Node, tmp_path: Path) -> None:
    """`traffic` has a point for each request at either side, with its tags; `red` a rate, a share of errors and a mean for the answering service."""
    with victoria_metrics(here, tmp_path), watching(here, tmp_path, influxdb()) as watched:
        with Load(here, PATHS, per_second=25) as load:
            load.wait_more(100)
        wait_until(lambda: seen(here) == expected(load.answers), f"there are {expected(load.answers)}, not {seen(here)}")
        tags = {one["metric"]["flow"]: one["metric"] for one in series(here, "traffic_duration")}
        slow = [
            value for one in series(here, "traffic_duration") if one["metric"]["code"] == "200" for value in one["values"] if value >= 20
        ]
        red = {name: [value for one in series(here, f"red_{name}") for value in one["values"]] for name in ("qps", "errrate", "duration")}
        services = {one["metric"]["servicename"] for one in series(here, "red_qps")}
        books = watched.settled("traces", 2 * load.answers.total(), "influxdb")

    assert (tags["0"]["servicename"], tags["1"]["servicename"]) == ("api", "shop")
    assert {"method": "GET", "type": "1", "namespace": "demo"}.items() <= tags["0"].items()
    assert tags["1"]["dstip"] == API
    assert not {"srcport", "url"} & (tags["0"].keys() | tags["1"].keys())
    # The answers that take 20 ms, at both sides; a busy machine makes others slow too.
    assert len(slow) >= load.answers.total() // 4 * 2
    assert services == {"api"}
    # From a whole interval of one second each: about a fourth of the requests failed on the server's side.
    assert max(red["qps"]) > 0
    assert 0 < max(red["errrate"]) <= 100
    assert max(red["duration"]) > 0
    assert (books.sent, books.balance, books.failed) == (2 * load.answers.total(), 0, 0)


def test_it_is_killed_under_load(here: Node, tmp_path: Path) -> None:
    """SIGKILL in mid-load and a new start: the agent keeps what it could not write, and its books balance with nothing lost."""
    with victoria_metrics(here, tmp_path) as server, watching(here, tmp_path, influxdb()) as watched:
        with Load(here, PATHS, per_second=50) as load:
            load.wait_more(50)
            server.kill()
            load.wait_more(100)
            server.start()
            load.wait_more(50)
        books = watched.settled("traces", 2 * load.answers.total(), "influxdb")
        after = sum(seen(here).values())

    assert (books.balance, books.failed, books.dropped, books.rejected) == (0, 0, 0, 0)
    assert books.sent == 2 * load.answers.total()
    # What it had taken and not yet flushed when it was killed is its own loss; what came in its absence is all there.
    assert after >= 2 * 150


def test_its_own_traffic_is_left_out(here: Node, tmp_path: Path) -> None:
    """A server among the watched: the agent writes through a watched interface, and none of its own requests is a point."""
    command = [binary("victoria-metrics"), f"-storageDataPath={tmp_path}/data", f"-httpListenAddr={API}:8428"]
    server = Server(here.api, command, lambda: here.ask(f"http://{API}:8428/health"), tmp_path / "victoria-metrics.log")
    exporter = {"url": f"http://{API}:8428", "org": "demo", "bucket": "http", "interval_s": 1}
    config = settings(exporters={"traces": ["influxdb"], "metrics": ["influxdb"], "influxdb": exporter})
    with running(server), watching(here, tmp_path, config) as watched:
        answers = send(here, PATHS)
        books = watched.settled("traces", 2 * answers.total(), "influxdb")
        wait_until(lambda: watched.books("metrics", "influxdb").sent > 0, "metrics were written too")
        again = watched.books("traces", "influxdb")

    assert books.received == again.received == 2 * answers.total()
