"""The stream of exchanges: what one listener asked for, thinned evenly to what a person and the agent can bear, as rows for the page."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from otel_ebpf_receiver.agent.page.slots import Places
from otel_ebpf_receiver.agent.page.traffic import Node
from otel_ebpf_receiver.sources.http import lines, names
from otel_ebpf_receiver.sources.http.columns import HttpView
from otel_ebpf_receiver.sources.source import Rows
from otel_ebpf_receiver.telemetry.columns import Bools, Kind
from otel_ebpf_receiver.telemetry.keys import distinct

ROWS_PER_S = 100
"""Of all listeners together; more than a person reads."""
BURST = 100
LOOKED_AT = 500
"""Paths of a batch that are compared with a pattern: what is beyond is counted and not compared."""
ONLY = ("", "4xx", "5xx", "errors")
FIELDS = ("only", "path", "service")
TEXT_MAX = 200


def check(parameters: Mapping[str, str]) -> None:
    """Raises ValueError naming what a filter cannot be."""
    for name, value in parameters.items():
        if name not in FIELDS:
            raise ValueError(f"'{name[:TEXT_MAX]}' is no filter; there are {', '.join(FIELDS)}")
        if len(value) > TEXT_MAX:
            raise ValueError(f"{name}: longer than {TEXT_MAX} characters")
    if parameters.get("only", "") not in ONLY:
        raise ValueError(f"only: '{parameters['only']}' is none of {', '.join(ONLY[1:])}")


class Filter:
    """`only`: 4xx, 5xx or errors; `path`: a glob, or a part of the path; `service`: a part of either side's name or address."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self._only, self._service = parameters.get("only", ""), parameters.get("service", "").lower()
        path = parameters.get("path", "")
        is_glob = any(char in path for char in "*?[")
        self._path = re.compile(fnmatch.translate(path if is_glob else f"*{path}*").encode(), re.DOTALL) if path else None

    def rows(self, view: HttpView, shown: Rows, ends: tuple[Places, Places], nodes: Sequence[Node | None]) -> tuple[Rows, int]:
        """Which of `shown` it keeps, and how many were not looked at."""
        found = shown[(self._by_status(view) & self._by_service(ends, nodes))[shown]]
        if self._path is None:
            return found, 0
        looked = _spread(found, LOOKED_AT)
        path, lengths = view.targets.path, view.targets.path_lengths
        kept = [row for row in looked.tolist() if self._path.match(path[row, : lengths[row]].tobytes())]
        return np.array(kept, np.intp), len(found) - len(looked)

    def _by_status(self, view: HttpView) -> Bools:
        if self._only == "4xx":
            return (view.status >= 400) & (view.status < 500)
        if self._only == "5xx":
            return (view.status >= 500) & (view.status < 600)
        if self._only == "errors":
            return view.is_broken(Kind.SERVER) | (view.status >= 500)
        return np.ones(len(view.status), bool)

    def _by_service(self, ends: tuple[Places, Places], nodes: Sequence[Node | None]) -> Bools:
        if not self._service:
            return np.ones(len(ends[0]), bool)
        wanted = np.zeros(len(nodes), bool)
        for place in distinct(np.concatenate(ends)).tolist():
            node = nodes[place]
            wanted[place] = node is not None and self._service in f"{node.namespace}/{node.name}".lower()
        out: Bools = wanted[ends[0]] | wanted[ends[1]]
        return out


class Thinned:
    """What one listener gets: at most so many rows a second, evenly of those that match."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self._filter = Filter(parameters)
        self._room = float(BURST)
        self._rows: list[dict[str, Any]] = []
        self._matching = self._skipped = 0

    def add(self, view: HttpView, shown: Rows, ends: tuple[Places, Places], nodes: Sequence[Node | None]) -> int:
        """Takes what finds room of the rows `shown` of one batch; how many it took."""
        rows, skipped = self._filter.rows(view, shown, ends, nodes)
        self._matching += len(rows)
        self._skipped += skipped
        chosen = _spread(rows, int(self._room))
        self._room -= len(chosen)
        if chosen.size:
            self._rows += [_row(row) for row in lines.rows(view, chosen)]
        return len(chosen)

    def refill(self, elapsed_s: float, listeners: int) -> None:
        """Time has passed; what may be shown is shared by all listeners."""
        self._room = min(float(BURST), self._room + ROWS_PER_S * elapsed_s / max(1, listeners))

    def take(self) -> dict[str, Any] | None:
        """What came since the last call: rows, how many matched, how many were not compared; None when nothing did."""
        if not self._matching and not self._skipped:
            return None
        out = {"rows": self._rows, "matching": self._matching, "skipped": self._skipped}
        self._rows, self._matching, self._skipped = [], 0, 0
        return out


def _spread(rows: Rows, most: int) -> Rows:
    """At most `most` of `rows`, evenly."""
    if len(rows) <= most:
        return rows
    return rows[(np.arange(most) * (len(rows) / max(1, most))).astype(np.intp)]


def _row(row: lines.Row) -> dict[str, Any]:
    """Times in ms since 1970, durations in ns. Everything in it stands on the span too."""
    parts = [row.attributes.get(name, 0) for name in (names.REQUEST_TRANSFER, names.RESPONSE_WAIT, names.RESPONSE_TRANSFER)]
    return {
        "time": row.time_unix_ns / 1e6,
        "client": row.client,
        "server": row.server,
        "method": row.method,
        "path": row.path,
        "status": row.status,
        "first": row.ttfb_ns,
        "duration": row.duration_ns,
        "parts": parts,
        "sent": row.request_bytes,
        "received": row.response_bytes,
        "error": row.error,
        "flags": row.flags,
        "attributes": row.attributes,
    }
