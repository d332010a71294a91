"""What the live page is told about given traffic, and that nothing is made while nobody listens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from otel_ebpf_receiver.agent.page import stream, window
from otel_ebpf_receiver.agent.page.live import LINGER_S, LivePage
from otel_ebpf_receiver.agent.page.slots import Slots
from otel_ebpf_receiver.agent.page.traffic import NODES, Traffic
from otel_ebpf_receiver.agent.watchers import Lines
from otel_ebpf_receiver.sources.http import source
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.sources.source import View
from otel_ebpf_receiver.status.page.hub import Listener
from otel_ebpf_receiver.telemetry.routes import RouteOptions
from otel_ebpf_receiver.telemetry.workload import Workload
from tests.sources import line
from tests.sources.records import MS, START_NS, make

SOURCE = source(HttpOptions())
BROKEN = {"status": 500, "target": "/pay"}
SHOP = Workload({"service.name": "shop", "service.namespace": "store"})


def view(*exchanges: dict[str, Any], identity: line.Known | None = None, routes: RouteOptions | None = None) -> View:
    """The view of one batch, as watchers get it. Without an identity only the server's side is reported."""
    views = line.Views()
    line.run(make(*exchanges), identity=identity or line.Known(report_client=False), routes=routes, watchers=[views])
    return views.views[0]


class Looked:
    """A page at which somebody looks, and what it is told."""

    def __init__(self, **filters: str) -> None:
        self.page = LivePage(lambda: {"version": "1"})
        self.now_s = 1000.0
        self.state = self._open("/page/state", {})
        self.exchanges = self._open("/page/exchanges", filters)
        self.page.step(self.now_s)

    def _open(self, path: str, parameters: Mapping[str, str]) -> Listener:
        opened = self.page.streams[path](parameters)
        assert isinstance(opened, Listener)
        return opened

    def watch(self, *views: View) -> None:
        """Batches, and the second in which they came."""
        for one in views:
            self.page.watch(SOURCE, one)
        self.now_s += 1
        self.page.step(self.now_s)

    def told(self, listener: Listener) -> list[tuple[str, Any]]:
        """Events and their data that wait for a listener."""
        pieces = iter(listener)
        next(pieces)
        out = []
        for message in next(pieces).decode().split("\n\n"):
            if message.startswith("event: "):
                event, data = message.removeprefix("event: ").split("\ndata: ")
                out.append((event, json.loads(data)))
        return out

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Exchanges shown."""
        return [row for event, data in self.told(self.exchanges) if event == "exchanges" for row in data["rows"]]


def test_nothing_is_made_while_nobody_listens() -> None:
    """No table, no row; and some time after the last listener left all of it is gone again."""
    page = LivePage(dict)
    page.watch(SOURCE, view({}))
    page.step(1.0)
    before = page._traffic
    looked = Looked()
    looked.state.close()
    looked.exchanges.close()
    looked.page.step(looked.now_s + LINGER_S - 1)
    lingers = looked.page._traffic

    looked.page.step(looked.now_s + LINGER_S + 1)

    assert before is None
    assert lingers is not None
    assert looked.page._traffic is None


def test_a_listener_is_told_everything_and_then_every_second() -> None:
    """First the whole past with it, then a second at a time."""
    looked = Looked()
    looked.watch(view({}, BROKEN))
    looked.watch()
    events = looked.told(looked.state)
    late = looked._open("/page/state", {})
    looked.page.step(looked.now_s + 0.1)
    past = looked.told(late)

    assert [event for event, _ in events] == ["full", "state", "state"]
    last = [data["traffic"]["total"]["last"][:2] for _, data in events]
    assert last == [[[], []], [[2], [1]], [[0], [0]]]
    assert past[0][0] == "full"
    assert past[0][1]["traffic"]["total"]["last"][:2] == [[2, 0], [1, 0]]
    assert past[0][1]["health"] == {"version": "1"}


def test_workloads_routes_and_edges() -> None:
    """Rates are those of ten seconds or of what there was, errors are the server's, an unnamed client is its address."""
    looked = Looked()
    identity = line.Known(SHOP, report_client=False)
    routes = RouteOptions(templating=True)
    looked.watch(view({}, {}, BROKEN, {"status": 404, "client": "10.0.0.9"}, identity=identity, routes=routes))
    traffic = looked.told(looked.state)[-1][1]["traffic"]
    nodes = {node["id"]: (node["namespace"], node["name"], node["known"]) for node in traffic["nodes"]}

    assert ("store", "shop", True) in nodes.values()
    assert {(nodes[edge[1]][1], edge[2], edge[3]) for edge in traffic["edges"]} == {("shop", 3.0, 1.0), ("shop", 1.0, 0.0)}
    assert [(row["rate"], row["errors"]) for row in traffic["workloads"]] == [(4.0, 1.0)]
    assert traffic["total"]["rate"] == 4.0
    assert traffic["total"]["percentiles"] == pytest.approx([7.0] * 3, rel=0.05)
    assert {(row["method"], row["route"], row["rate"]) for row in traffic["routes"]} == {("GET", "/", 3.0), ("GET", "/pay", 1.0)}


def test_an_exchange_of_both_sides_is_shown_once() -> None:
    """Two records of one exchange, of which each tap reports one side: the server's is shown, whichever comes first in a batch."""
    server = view({"target": "/one"}, identity=line.Known(SHOP, report_client=False))
    client = view({"target": "/one"}, identity=line.Known(SHOP, report_server=False))
    nobody = view({"target": "/two"}, identity=line.Known(SHOP, report_server=False, report_client=False))
    looked = Looked()

    looked.watch(client, server, client, nobody)

    assert [row["path"] for row in looked.rows] == ["/one"]
    assert looked.told(looked.state)[-1][1]["traffic"]["total"]["last"][0] == [1]


def test_a_row_says_everything_about_an_exchange() -> None:
    """Times, both sides, what was asked, and the three parts that add up to the duration. No query string."""
    looked = Looked()
    looked.watch(view({"target": "/a?token=1", "status": 503, "response_body": 12}))
    (row,) = looked.rows

    assert row["time"] == START_NS / 1e6
    assert (row["client"], row["server"]) == ("10.0.0.1:40000", "10.0.0.2:8080")
    assert (row["method"], row["path"], row["status"], row["error"]) == ("GET", "/a", 503, "503")
    assert row["parts"] == [MS, 2 * MS, 4 * MS]
    assert (row["first"], row["duration"], row["received"]) == (3 * MS, 7 * MS, 12)
    assert row["attributes"]["http.response.status_code"] == 503
    assert "token" not in json.dumps(row)


@pytest.mark.parametrize(
    ("filters", "paths"),
    [
        ({}, ["/", "/cart/1", "/cart/2", "/pay"]),
        ({"only": "4xx"}, ["/cart/2"]),
        ({"only": "5xx"}, ["/pay"]),
        ({"only": "errors"}, ["/cart/1", "/pay"]),
        ({"path": "/cart/*"}, ["/cart/1", "/cart/2"]),
        ({"path": "art"}, ["/cart/1", "/cart/2"]),
        ({"path": "/c?rt/2"}, ["/cart/2"]),
        ({"service": "10.0.0.77"}, ["/cart/2"]),
        ({"service": "10.0.0.2:80"}, ["/", "/cart/1", "/cart/2", "/pay"]),
        ({"service": "nobody"}, []),
        ({"only": "5xx", "path": "/cart"}, []),
    ],
)
def test_filters(filters: dict[str, str], paths: list[str]) -> None:
    """By class of status or error, by glob or part of the path, by part of either side's name."""
    looked = Looked(**filters)
    broken = {"target": "/cart/1", "error": 1, "side": 2}
    looked.watch(view({}, broken, {"target": "/cart/2", "status": 404, "client": "10.0.0.77"}, BROKEN))
    rows = looked.rows if paths else []

    assert [row["path"] for row in rows] == paths


@pytest.mark.parametrize("filters", [{"only": "6xx"}, {"colour": "red"}, {"path": "x" * 201}])
def test_a_wrong_filter_is_an_error(filters: dict[str, str]) -> None:
    """Before the stream is opened."""
    with pytest.raises(ValueError, match=r"only|filter|longer"):
        LivePage(dict).streams["/page/exchanges"](filters)


def test_a_flood_is_thinned_evenly_and_said() -> None:
    """Many more than may be shown: so many a second, spread over the batch, and how many matched."""
    looked = Looked()
    batch = view(*({"target": f"/{number}"} for number in range(4000)))
    looked.watch(batch)
    events = [data for event, data in looked.told(looked.exchanges) if event == "exchanges"]
    shown = [int(row["path"][1:]) for data in events for row in data["rows"]]

    assert sum(data["matching"] for data in events) == 4000
    assert len(shown) == stream.BURST
    assert shown[:3] == [0, 40, 80]
    assert looked.page.shown == stream.BURST


def test_percentiles_are_close() -> None:
    """Within half a bucket of what was counted, over the range from a microsecond to two minutes."""
    random = np.random.default_rng(3)
    durations = np.exp(random.uniform(np.log(1_100), np.log(120e9), 20_000)).astype(np.int64)
    table = window.Window(2)
    table.add(np.ones(len(durations), np.int32), durations, np.zeros(len(durations), bool))
    table.tick()

    found = table.percentiles_ns(np.array([0, 1]))

    assert found[0].tolist() == [0, 0, 0]
    assert found[1] == pytest.approx(np.quantile(durations, window.QUANTILES), rel=0.06)


def test_a_minute_passes() -> None:
    """Rates are of ten seconds, percentiles and history of sixty; then nothing is left."""
    table = window.Window(2)
    one = np.array([1])
    table.add(np.array([1, 1], np.int32), np.array([MS, MS]), np.array([True, False]))
    table.tick()
    seen = []
    for _ in range(75):
        seen.append((float(table.rates(one)[0][0]), float(table.percentiles_ns(one)[0, 0]) > 0, table.busy().tolist() == [1]))
        table.tick()

    assert seen[0] == (2.0, True, True)
    assert seen[9] == (0.2, True, True)
    assert seen[10] == (0.0, True, True)
    assert seen[59][2]
    assert seen[-1] == (0.0, False, False)
    assert all(has for _, has, _ in seen[:50])


def test_slots_are_bounded_and_come_back() -> None:
    """What finds no room is place 0 and is counted; a place that is released goes to another, under a new serial."""
    slots: Slots[str] = Slots(4)
    keys = np.arange(1, 7).astype(np.uint64)
    first = slots.places(keys, lambda row: f"thing {row}")
    serials = [slots.serials[place] for place in first.tolist()]

    slots.release(np.array([first[0]]))
    again = slots.places(np.array([99], np.uint64), lambda row: "new")

    assert sorted(first.tolist()) == [0, 0, 0, 1, 2, 3]
    assert slots.refused == 3
    assert again.tolist() == [first[0]]
    assert slots.things[int(again[0])] == "new"
    assert slots.serials[int(again[0])] > max(serials)


def test_many_addresses_do_not_grow_the_tables() -> None:
    """Clients without end: the first fill the table, the rest are the others, and every exchange is in a sum."""
    traffic = Traffic()
    count = 3 * NODES
    batch: Any = view(*({"client": f"10.1.{number // 250}.{number % 250 + 1}"} for number in range(count)))
    traffic.add(batch, np.arange(count))
    traffic.tick()
    told = traffic.tell(with_history=False)

    assert len(told["nodes"]) <= NODES
    assert told["refused"] > 0
    assert told["total"]["rate"] == sum(edge[2] for edge in told["edges"]) == count
    assert "others" in {node["name"] for node in told["nodes"]}


def test_a_full_table_lets_go_of_what_is_over() -> None:
    """After a quiet minute new clients find room again."""
    traffic = Traffic()
    count = 2 * NODES
    batch: Any = view(*({"client": f"10.1.{number // 250}.{number % 250 + 1}"} for number in range(count)))
    traffic.add(batch, np.arange(count))
    for _ in range(window.SECONDS + 11):
        traffic.tick()
    late: Any = view({"client": "10.9.9.9"})
    traffic.add(late, np.arange(1))
    traffic.tick()

    assert {node["name"] for node in traffic.tell(with_history=False)["nodes"]} == {"10.9.9.9", "10.0.0.2:8080"}


class Printed:
    """A line destination that keeps paths."""

    name = "printed"

    def __init__(self) -> None:
        self.paths: list[str] = []

    def offer(self, rows: Any) -> None:
        self.paths += [row.path for row in rows]


def test_the_console_tells_an_exchange_of_both_sides_once() -> None:
    """As the page does; what is reported from neither side (its pod opted out, say) is no line."""
    server = view({"target": "/one"}, identity=line.Known(SHOP, report_client=False))
    client = view({"target": "/one"}, identity=line.Known(SHOP, report_server=False))
    nobody = view({"target": "/two"}, identity=line.Known(SHOP, report_server=False, report_client=False))
    printed: Any = Printed()
    lines = Lines(printed)

    for one in (client, server, nobody):
        lines.watch(SOURCE, one)

    assert printed.paths == ["/one"]
