"""Paths to routes of low cardinality: the user's patterns first, then (only if asked for) templates made from the path itself.

Looked up for a whole batch by a hash of the path; a pattern is matched once per path that the cache does not hold. Bounded: templates per
service, templates in all, one cache of fixed size. It never gives a raw path for a route, except where all of its segments are plain words.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry import names, template
from otel_ebpf_receiver.telemetry.columns import I64, U8, U64, Bools
from otel_ebpf_receiver.telemetry.keys import KeyIndex, mix, words
from otel_ebpf_receiver.telemetry.workload import Workload

OVERFLOW = "/{overflow}"
"""The route of a path whose service already has as many templates as it may have."""
_CACHE_BITS = 15
_TEMPLATES_MAX = 20_000
_SERVICES_MAX = 10_000


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


class Routes:
    """Resolves paths to 64-bit keys of routes (0: none), and keys to their text."""

    def __init__(self, options: RouteOptions) -> None:
        self._options = options
        self._compiled = [(pattern, _compile(pattern.pattern)) for pattern in options.patterns]
        self._services: dict[str, int] = {}
        self._patterns: list[list[tuple[str, re.Pattern[bytes]]]] = []
        self._table: Sequence[Workload] | None = None
        self._of_table = np.zeros(1, np.int64)
        self._cache_keys = np.zeros(1 << _CACHE_BITS, np.uint64)
        self._cache_routes = np.zeros(1 << _CACHE_BITS, np.uint64)
        self._forget()
        self.overflowed = 0
        """Paths that got the overflow value."""

    @property
    def is_off(self) -> bool:
        """Whether no path can have a route."""
        return not self._compiled and not self._options.templating

    def text(self, key: int) -> str:
        return self._texts[key]

    def resolve(self, workloads: Sequence[Workload], which: npt.NDArray[np.int32], paths: U8, lengths: I64, cut: Bools) -> U64:
        """The key of each row's route. `paths` (n x 8k) is zero behind `lengths`; `cut` rows are known in part. `which`: whose routes."""
        if len(self._template_routes) > _TEMPLATES_MAX or len(self._services) > _SERVICES_MAX:
            self._forget()
        service = self._of(workloads, which)
        keys = mix(service, *words(paths), cut.astype(np.uint64))
        slots = (keys >> np.uint64(64 - _CACHE_BITS)).astype(np.intp)
        routes = self._cache_routes[slots]
        missing = np.flatnonzero(self._cache_keys[slots] != keys)
        if missing.size:
            routes[missing] = self._find(service[missing], paths[missing], lengths[missing], cut[missing], keys[missing])
            self._cache_keys[slots[missing]] = keys[missing]
            self._cache_routes[slots[missing]] = routes[missing]
        return routes

    def _forget(self) -> None:
        """Starts afresh; keys of routes stay what they were, for they hash the text."""
        self._texts: dict[int, str] = {0: ""}
        self._overflow = self._key(OVERFLOW)
        self._services.clear()
        self._patterns.clear()
        self._table = None
        self._templates = KeyIndex()
        self._template_routes: list[int] = []
        self._counts = np.zeros(64, np.int64)
        self._cache_keys[:] = 0

    def _of(self, workloads: Sequence[Workload], which: npt.NDArray[np.int32]) -> I64:
        """The number of each row's service; rows of unknown workloads share one."""
        if workloads is not self._table:
            self._table, self._of_table = workloads, np.full(len(workloads) + 1, -1, np.int64)
            self._of_table[-1] = self._service("")
        out = self._of_table[which]
        if (out < 0).any():
            for index in np.unique(which[out < 0]).tolist():
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

    def _find(self, service: I64, paths: U8, lengths: I64, cut: Bools, keys: U64) -> U64:
        out = np.zeros(len(paths), np.uint64)
        left = np.flatnonzero((lengths > 0) & (paths[:, 0] == ord("/")))
        if self._compiled and left.size:
            _, first, where = np.unique(keys[left], return_index=True, return_inverse=True)
            found = [self._match(int(service[row]), _path(paths, lengths, row), bool(cut[row])) for row in left[first].tolist()]
            out[left] = np.array(found, np.uint64)[where]
            left = left[out[left] == 0]
        if self._options.templating and left.size:
            out[left] = self._template(service[left], paths[left], lengths[left], cut[left])
        return out

    def _match(self, service: int, path: bytes, cut: bool) -> int:
        # Of a cut path the end is unknown: only a pattern that takes any end can match it for certain.
        for pattern, regex in self._patterns[service]:
            if (not cut or pattern.endswith("**")) and regex.fullmatch(path):
                return self._key(pattern)
        return 0

    def _template(self, service: I64, paths: U8, lengths: I64, cut: Bools) -> U64:
        shape = template.shapes(paths, lengths)
        keys = mix(service, *words(shape), cut.astype(np.uint64))
        numbers = self._templates.find(keys)
        missing = np.flatnonzero((numbers < 0) & (self._counts[service] < self._options.limit))
        if missing.size:
            new, first = np.unique(keys[missing], return_index=True)
            for key, row in zip(new, missing[first].tolist(), strict=True):
                if self._counts[service[row]] < self._options.limit:
                    self._counts[service[row]] += 1
                    text = template.text(_path(paths, lengths, row), is_cut=bool(cut[row]))
                    self._templates.insert(np.array([key]), np.array([len(self._template_routes)], np.int32))
                    self._template_routes.append(self._key(text))
            numbers = self._templates.find(keys)
        self.overflowed += int(np.count_nonzero(numbers < 0))
        # The last place serves number -1.
        return np.array([*self._template_routes, self._overflow], np.uint64)[numbers]

    def _key(self, text: str) -> int:
        key = hash(text) & 0xFFFFFFFFFFFFFFFF or 1
        self._texts[key] = text
        return key


def _path(paths: U8, lengths: I64, row: int) -> bytes:
    return paths[row, : lengths[row]].tobytes()


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
