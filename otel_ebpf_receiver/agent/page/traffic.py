"""The traffic of the last minute: per workload, per workload and route, and per edge from client to server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.agent.page.slots import Places, Slots
from otel_ebpf_receiver.agent.page.window import SECONDS, Window
from otel_ebpf_receiver.sources.http.authority import address_text
from otel_ebpf_receiver.sources.http.columns import HttpView
from otel_ebpf_receiver.telemetry import names
from otel_ebpf_receiver.telemetry.columns import U8, U64, Bools, Kind
from otel_ebpf_receiver.telemetry.keys import mix, words
from otel_ebpf_receiver.telemetry.peers import Peers
from otel_ebpf_receiver.telemetry.workload import Workload

NODES, ROUTES, EDGES = 250, 400, 500
"""Most places of each table; more than a person can look at."""
OTHERS = "others"
_PORT_KEY, _NAME_KEY = 1, 2


@dataclass(frozen=True, slots=True)
class Node:
    """One end of calls. Without a name it is an address, a server's with its port."""

    name: str
    namespace: str = ""
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """A method and, where routes are configured or guessed, the route of one server."""

    node: int
    method: str
    route: str


class Traffic:
    """Fed with batches, told once a second. Everything in it is of a fixed size."""

    def __init__(self) -> None:
        self._peers = Peers()
        self._table: Sequence[Workload] = ()
        self._named = np.zeros(1, bool)
        self.nodes: Slots[Node] = Slots(NODES)
        self._routes: Slots[Route] = Slots(ROUTES)
        self._edges: Slots[tuple[int, int]] = Slots(EDGES)
        self._by_node, self._by_route, self._by_edge = Window(NODES), Window(ROUTES), Window(EDGES)

    def add(self, view: HttpView, rows: npt.NDArray[np.intp]) -> tuple[Places, Places]:
        """Counts `rows` of one batch; the places of the clients and servers of all its rows."""
        client, server = self._ends(view, is_server=False), self._ends(view, is_server=True)
        is_error = view.is_broken(Kind.SERVER) | (view.status >= 500)
        node = server.astype(np.int64)
        routes = self._routes.places(mix(view.route, node, view.told_method), lambda row: _route(view, row, int(node[row])))
        edges = self._edges.places(mix(client, server), lambda row: (int(client[row]), int(server[row])))
        for window, places in ((self._by_node, server), (self._by_route, routes), (self._by_edge, edges)):
            window.add(places[rows], view.duration[rows], is_error[rows])
        return client, server

    def tick(self) -> None:
        """A second is over; when a table is full, what saw nothing for a minute leaves it."""
        for window in (self._by_node, self._by_route, self._by_edge):
            window.tick()
        if not (self.nodes.is_full or self._routes.is_full or self._edges.is_full):
            return
        edges = self._free(self._edges, self._by_edge)
        self._free(self._routes, self._by_route)
        asking = np.array([end for edge in edges for end in edge], np.intp)
        self._free(self.nodes, self._by_node, asking)

    def _free(self, slots: Slots[Any], window: Window, more: npt.NDArray[np.intp] | None = None) -> list[Any]:
        """Clears places without traffic, but for `more`; what stays."""
        kept = np.zeros(len(slots.things), bool)
        kept[window.busy()] = True
        if more is not None:
            kept[more] = True
        gone = np.flatnonzero(~kept)
        window.clear(gone)
        slots.release(gone)
        return [thing for thing in slots.things if thing is not None]

    def _ends(self, view: HttpView, *, is_server: bool) -> Places:
        who = view.who.server if is_server else view.who.client
        address = view.server_address if is_server else view.client_address
        port = view.flows.server_port
        named = mix(self._peers.keys(view.who.workloads, who), _NAME_KEY)
        unnamed = _address_keys(address, port if is_server else None)
        is_named = self._is_named(view.who.workloads)[who]

        def describe(row: int) -> Node:
            if is_named[row]:
                known = view.who.workloads[int(who[row])].attributes
                return Node(str(known[names.SERVICE_NAME]), str(known.get(names.SERVICE_NAMESPACE, "")))
            text = address_text(address[row].tobytes())
            if not is_server:
                return Node(text, is_known=False)
            return Node(f"[{text}]:{port[row]}" if ":" in text else f"{text}:{port[row]}", is_known=False)

        return self.nodes.places(np.where(is_named, named, unnamed), describe)

    def _is_named(self, workloads: Sequence[Workload]) -> Bools:
        """By index; -1 is nobody. Identity replaces its table whole when anything changes."""
        if workloads is not self._table:
            self._table = workloads
            self._named = np.array([bool(one.attributes.get(names.SERVICE_NAME)) for one in workloads] + [False], bool)
        return self._named

    def tell(self, *, with_history: bool) -> dict[str, Any]:
        """What the page draws. Rates are a second's, durations milliseconds; `last` and `history`: exchanges, errors, p95."""
        nodes, routes, edges = (window.busy() for window in (self._by_node, self._by_route, self._by_edge))
        out: dict[str, Any] = {"seconds": min(self._by_node.seconds, SECONDS)}
        rate, errors = self._by_node.rates(nodes)
        counts, wrong, slow = self._by_node.total(with_history=with_history)
        out["total"] = {
            "rate": round(float(rate.sum()), 2),
            "errors": round(float(errors.sum()), 2),
            "percentiles": _ms(self._by_node.total_percentiles_ns()),
            "last": [counts.tolist(), wrong.tolist(), _ms(slow)],
        }
        out["workloads"] = [
            {"node": node} | row for node, row in zip(nodes.tolist(), _rows(self._by_node, nodes, with_history), strict=True)
        ]
        out["routes"] = [
            self._route_row(place) | row for place, row in zip(routes.tolist(), _rows(self._by_route, routes, with_history), strict=True)
        ]
        rate, errors = self._by_edge.rates(edges)
        rated = zip(edges.tolist(), rate.round(2).tolist(), errors.round(2).tolist(), strict=True)
        out["edges"] = [[*(self._edges.things[place] or (0, 0)), one, failed] for place, one, failed in rated]
        used = {node for edge in out["edges"] for node in edge[:2]} | set(nodes.tolist())
        out["nodes"] = [self._node(node) for node in sorted(used)]
        out["refused"] = self.nodes.refused + self._routes.refused + self._edges.refused
        return out

    def _node(self, place: int) -> dict[str, Any]:
        node = self.nodes.things[place] or Node(OTHERS, is_known=False)
        return {"id": place, "serial": self.nodes.serials[place], "name": node.name, "namespace": node.namespace, "known": node.is_known}

    def _route_row(self, place: int) -> dict[str, Any]:
        route = self._routes.things[place] or Route(0, "", OTHERS)
        return {"id": self._routes.serials[place], "node": route.node, "method": route.method, "route": route.route}


def _rows(window: Window, places: npt.NDArray[np.intp], with_history: bool) -> list[dict[str, Any]]:
    rate, errors = window.rates(places)
    percentiles = window.percentiles_ns(places)
    counts, wrong, slow = window.history(places) if with_history else (one[None] for one in window.last(places))
    return [
        {
            "rate": round(float(rate[at]), 2),
            "errors": round(float(errors[at]), 2),
            "percentiles": _ms(percentiles[at]),
            "last": [counts[:, at].tolist(), wrong[:, at].tolist(), _ms(slow[:, at])],
        }
        for at in range(len(places))
    ]


def _ms(nanoseconds: Any) -> list[float]:
    return [float(f"{one / 1e6:.4g}") for one in nanoseconds]


def _route(view: HttpView, row: int, node: int) -> Route:
    return Route(node, view.method_name(row) or "HTTP", view.routes.text(int(view.route[row])))


def _address_keys(address: U8, port: npt.NDArray[np.int64] | None) -> U64:
    halves = words(np.ascontiguousarray(address))
    return mix(halves[0], halves[1], _PORT_KEY, 0 if port is None else port)
