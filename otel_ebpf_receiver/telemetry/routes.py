"""Paths to routes of low cardinality: the user's patterns first, then (only if asked for) templates made from the path itself.

Looked up for a whole batch by a hash of the path; a pattern is matched once per path that the cache does not hold. Bounded: templates per
service, templates in all, one cache of fixed size. It never gives a raw path for a route, except where all of its segments are plain words.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry import names, template
from otel_ebpf_receiver.telemetry.columns import I64, U8, U64, Bools
from otel_ebpf_receiver.telemetry.keys import KeyIndex, Recent, distinct, mix, text_keys, words
from otel_ebpf_receiver.telemetry.workload import Workload

OVERFLOW = "/{overflow}"
"""The route of a path whose service already has as many templates as it may have."""
_CACHE_BITS = 15
_TEMPLATES_MAX = 20_000
_SKELETONS_MAX = 1 << 14
_SERVICES_MAX = 10_000
_PATHLESS, _OVERFLOWED = 0, 1
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class RoutePattern:
    """`{name}` and `*` stand for one segment or a part of it, `**` for any number of segments. `service`: a glob of service.name, empty: all."""

    pattern: str
    service: str = ""


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """The first pattern that matches wins. `limit`: templates per service."""

    patterns: tuple[RoutePattern, ...] = ()
    templating: bool = False
    limit: int = 200


@dataclass(frozen=True, slots=True)
class Paths:
    """Paths of n rows: `texts` (n x 8k) is zero behind `lengths`; of those that are cut only the beginning is known."""

    texts: U8
    lengths: I64
    is_cut: Bools

    def of(self, rows: Rows) -> Paths:
        return Paths(self.texts[rows], self.lengths[rows], self.is_cut[rows])

    def text(self, row: int) -> bytes:
        return self.texts[row, : self.lengths[row]].tobytes()

    @property
    def keys(self) -> U64:
        return mix(text_keys(self.texts, self.lengths), self.is_cut.view(np.uint8))

    @property
    def is_there(self) -> Bools:
        """Rows that have a path at all."""
        there: Bools = (self.lengths > 0) & (self.texts[:, 0] == ord("/"))
        return there

    def skeletons(self) -> Skeletons:
        texts, is_told = template.skeletons(self.texts)
        return Skeletons(mix(Paths(texts, self.lengths, self.is_cut).keys, self.lengths), is_told & self.is_there)


@dataclass(frozen=True, slots=True)
class Skeletons:
    """Of n rows: where it `is_told`, equal keys mean equal templates of the paths."""

    keys: U64
    is_told: Bools


class Lines(Protocol):
    """What paths are read from (n rows). A line stands for its path, whatever else it says: read are only those of rows not met lately."""

    @property
    def keys(self) -> U64: ...

    def paths(self, rows: Rows) -> Paths: ...

    def skeletons(self, rows: Rows) -> Skeletons: ...


class Routes:
    """Resolves paths to 64-bit keys of routes (0: none), and keys to their text."""

    def __init__(self, options: RouteOptions, host: str = "") -> None:
        """`host`: the service.name of traffic without a workload."""
        self._options, self._host = options, host
        self._compiled = [(pattern, _compile(pattern.pattern)) for pattern in options.patterns]
        self._services: dict[str, int] = {}
        self._patterns: list[list[tuple[str, re.Pattern[bytes]]]] = []
        self._table: Sequence[Workload] | None = None
        self._of_table = np.zeros(1, np.int64)
        self._lines, self._paths = Recent(_CACHE_BITS), Recent(_CACHE_BITS)
        self._texts: dict[int, str] = {}
        self._forget()
        self.overflowed = 0
        """Paths that got the overflow value."""

    @property
    def is_off(self) -> bool:
        """Whether no path can have a route."""
        return not self._compiled and not self._options.templating

    def text(self, key: int) -> str:
        return self._texts[key] if key in self._texts else self._texts_before[key]

    def recall(self, workloads: Sequence[Workload], which: npt.NDArray[np.int32], lines: Lines) -> U64:
        """The same as `resolve`, of paths that are not read yet."""
        self._make_room()
        service = self._of(workloads, which)
        keys = mix(lines.keys, service)
        routes, missing = self._lines.find(keys)
        if missing.size:
            found = self._read(service.take(missing), lines, missing)
            routes[missing] = found
            self._lines.put(keys.take(missing), found)
        return routes

    def _read(self, service: I64, lines: Lines, rows: Rows) -> U64:
        # Patterns may ask for certain digits, which no skeleton has.
        if self._compiled:
            return self._look_up(service, lines.paths(rows))
        return self._template(service, lines.skeletons(rows), lambda missing: lines.paths(rows[missing]))

    def resolve(self, workloads: Sequence[Workload], which: npt.NDArray[np.int32], paths: Paths) -> U64:
        """The key of each row's route. `which`: whose routes."""
        self._make_room()
        return self._look_up(self._of(workloads, which), paths)

    def _make_room(self) -> None:
        if len(self._template_routes) > _TEMPLATES_MAX or len(self._services) > _SERVICES_MAX:
            self._forget()

    def _forget(self) -> None:
        """Starts afresh; keys of routes stay what they were, for they hash the text."""
        # Views that were made before may still ask.
        self._texts_before, self._texts = self._texts, {0: ""}
        self._overflow = self._key(OVERFLOW)
        self._services.clear()
        self._patterns.clear()
        self._table = None
        self._templates = KeyIndex()
        self._template_routes = np.array([0, self._overflow], np.uint64)
        """By place; the first are those of `_PATHLESS` and `_OVERFLOWED`."""
        self._counts = np.zeros(64, np.int64)
        self._skeletons = KeyIndex()
        self._lines.clear()
        self._paths.clear()

    def _of(self, workloads: Sequence[Workload], which: npt.NDArray[np.int32]) -> I64:
        """The number of each row's service; rows of unknown workloads are the host's."""
        if workloads is not self._table:
            self._table, self._of_table = workloads, np.full(len(workloads) + 1, -1, np.int64)
            self._of_table[-1] = self._service(self._host)
        out = self._of_table[which]
        if (out < 0).any():
            for index in distinct(which[out < 0]).tolist():
                self._of_table[index] = self._service(str(workloads[index].attributes.get(names.SERVICE_NAME, "")))
            out = self._of_table[which]
        return out

    def _service(self, name: str) -> int:
        if name not in self._services:
            self._services[name] = len(self._services)
            mine = [(p.pattern, regex) for p, regex in self._compiled if not p.service or fnmatch.fnmatchcase(name, p.service)]
            self._patterns.append(mine)
            if len(self._services) > len(self._counts):
                self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
        return self._services[name]

    def _look_up(self, service: I64, paths: Paths) -> U64:
        out = np.zeros(len(service), np.uint64)
        left = np.flatnonzero(paths.is_there)
        if self._compiled and left.size:
            out[left] = self._matched(service[left], paths.of(left))
            left = left[out[left] == 0]
        if self._options.templating and left.size:
            paths = paths.of(left)
            out[left] = self._template(service[left], paths.skeletons(), paths.of)
        return out

    def _matched(self, service: I64, paths: Paths) -> U64:
        keys = mix(paths.keys, service)
        routes, missing = self._paths.find(keys)
        if missing.size:
            new, first, where = np.unique(keys[missing], return_index=True, return_inverse=True)
            rows = missing[first].tolist()
            found = np.array([self._match(int(service[row]), paths.text(row), bool(paths.is_cut[row])) for row in rows], np.uint64)
            routes[missing] = found[where]
            self._paths.put(new, found)
        return routes

    def _match(self, service: int, path: bytes, cut: bool) -> int:
        # Of a cut path the end is unknown: only a pattern that takes any end can match it for certain.
        for pattern, regex in self._patterns[service]:
            if (not cut or pattern.endswith("**")) and regex.fullmatch(path):
                return self._key(pattern)
        return 0

    def _template(self, service: I64, skeletons: Skeletons, read: Callable[[Rows], Paths]) -> U64:
        """The templates of paths; those that their skeletons do not tell are read."""
        keys, is_told = mix(skeletons.keys, service), skeletons.is_told
        if len(self._skeletons) > _SKELETONS_MAX:
            self._skeletons = KeyIndex()
        found = self._skeletons.find(keys)
        missing = ((found < 0) | ~is_told).nonzero()[0]
        if missing.size:
            found[missing] = self._template_read(service[missing], read(missing))
            told = missing[is_told[missing]]
            new, first = np.unique(keys[told], return_index=True)
            self._skeletons.insert(new, found[told[first]])
        routes = self._template_routes.take(found)
        self.overflowed += int(np.count_nonzero(routes == self._overflow))
        return routes

    def _template_read(self, service: I64, paths: Paths) -> npt.NDArray[np.int32]:
        """The place of each row's template in `_template_routes`."""
        there = paths.is_there.nonzero()[0]
        if len(there) == len(service):
            return self._template_whole(service, paths)
        out = np.full(len(service), _PATHLESS, np.int32)
        if there.size:
            out[there] = self._template_whole(service[there], paths.of(there))
        return out

    def _template_whole(self, service: I64, paths: Paths) -> npt.NDArray[np.int32]:
        shape = template.shapes(paths.texts, paths.lengths)
        keys = mix(service, *words(shape), paths.is_cut.astype(np.uint64))
        numbers = self._templates.find(keys)
        missing = np.flatnonzero((numbers < 0) & (self._counts[service] < self._options.limit))
        if missing.size:
            new, first = np.unique(keys[missing], return_index=True)
            added: dict[int, int] = {}
            for key, row in zip(new.tolist(), missing[first].tolist(), strict=True):
                if self._counts[service[row]] < self._options.limit:
                    self._counts[service[row]] += 1
                    added[key] = self._key(template.text(paths.text(row), is_cut=bool(paths.is_cut[row])))
            places = np.arange(len(added), dtype=np.int32) + np.int32(len(self._template_routes))
            self._templates.insert(np.array(list(added), np.uint64), places)
            self._template_routes = np.append(self._template_routes, np.array(list(added.values()), np.uint64))
            numbers = self._templates.find(keys)
        return np.where(numbers < 0, np.int32(_OVERFLOWED), numbers)

    def _key(self, text: str) -> int:
        key = hash(text) & 0xFFFFFFFFFFFFFFFF or 1
        self._texts[key] = text
        return key


def _compile(pattern: str) -> re.Pattern[bytes]:
    out = ""
    for token in re.split(r"(/\*\*|\*\*|\*|\{[^{}/]*\})", pattern):
        if token == "/**":
            out += "(?:/.*)?"
        elif token == "**":
            out += ".*"
        elif token == "*":
            out += "[^/]*"
        elif token.startswith("{") and token.endswith("}"):
            out += "[^/]+"
        else:
            out += re.escape(token)
    return re.compile(out.encode(), re.DOTALL)
