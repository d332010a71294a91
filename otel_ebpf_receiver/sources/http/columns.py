"""A batch of HTTP records as the attribute columns of spans and metrics: the semantic conventions' rules, said once for whole columns.

Rules that surprise: what the client aborted is an error of the CLIENT span only; a message cut off is an error even behind a 200; no status is
ever invented, so an exchange without one has none; a route or a template appears only where the user asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.sources.http import names, startlines, target
from otel_ebpf_receiver.sources.http.attributes import Describe
from otel_ebpf_receiver.sources.http.authority import DEFAULT_PORTS, Named
from otel_ebpf_receiver.sources.http.caches import IGNORED, Caches
from otel_ebpf_receiver.sources.http.instruments import ACTIVE, measured
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.sources.http.record import METHODS, TEXT, Error, Side, matrix
from otel_ebpf_receiver.sources.http.startlines import StartLines
from otel_ebpf_receiver.sources.http.target import Picked
from otel_ebpf_receiver.sources.source import Offsets, Rows
from otel_ebpf_receiver.telemetry.columns import (
    I64,
    U8,
    U64,
    Bools,
    Group,
    Integers,
    Kind,
    Linkage,
    Points,
    Prefix,
    Records,
    SpanColumns,
    Text,
)
from otel_ebpf_receiver.telemetry.keys import mix, words
from otel_ebpf_receiver.telemetry.routes import Paths, Routes
from otel_ebpf_receiver.telemetry.sampling import Candidates
from otel_ebpf_receiver.telemetry.workload import Flows, Identified

CONNECT = METHODS.index("CONNECT")
# hot: benchmarks/cpu.py. Plain numbers: before Python 3.12 reading a member of an enum costs as much as a numpy call.
_PORTS = np.array([*DEFAULT_PORTS.values(), 0], np.uint16)
"""Of each scheme."""
_NO_SCHEME = np.uint64(0xFFFFFFFFFFFFFFFF)
_NONE, _CLIENT = int(Error.NONE), int(Side.CLIENT)


@dataclass(frozen=True, slots=True)
class Duration:
    """The three parts of each span in ns, never negative, which add up to it: an early answer cuts the request short."""

    transfer: I64
    wait: I64
    answer: I64


class HttpView:
    """See `sources.source.SpanView`. Columns that several outputs need are made once; the rest when asked for."""

    def __init__(self, records: Records, options: HttpOptions, caches: Caches, offsets_ns: Offsets) -> None:
        self.records, self.options, self.caches = records, options, caches
        self.status = records["status"].astype(np.int64)
        self.error = records["error"].astype(np.int64)
        self.method = records["method"].astype(np.int64)
        self._broken: Bools = self.error != _NONE
        self.client_address, self.server_address = as_bytes(records["client_address"]), as_bytes(records["server_address"])
        self._times(offsets_ns)
        self.flows = Flows(
            records["tap"].astype(np.int64),
            records["direction"],
            self.client_address,
            self.server_address,
            records["client_port"].astype(np.int64),
            records["server_port"].astype(np.int64),
            self.start_unix_ns,
        )

    @cached_property
    def told_method(self) -> I64:
        """The method of each row as a place in `caches.methods.names`; `method` is its code in the record."""
        return self.caches.methods.numbers(self.records, self.method)

    def method_name(self, row: int) -> str | None:
        """The method of a row, if it is one of those that are told by name."""
        number = int(self.told_method[row])
        return self.caches.methods.names[number] if number else None

    @cached_property
    def closed_by(self) -> I64:
        return self.records["side"].astype(np.int64)

    @cached_property
    def _not_by_client(self) -> Bools:
        return np.not_equal(self.closed_by, _CLIENT)

    @cached_property
    def targets(self) -> target.Targets:
        return target.split(self.records, cut=self._is_cut, connect=self.method == CONNECT)

    @cached_property
    def _begin(self) -> U64:
        return startlines.beginning(self.records)

    @cached_property
    def _is_cut(self) -> Bools:
        return (self.records["target_wire_len"] > self.records["target_len"]).astype(bool)

    @cached_property
    def _odd(self) -> tuple[Rows, target.Targets | None]:
        """The few rows whose target is no plain path, and their targets; None where there are none."""
        # Where the lines are read anyway, they are gone to once.
        first = self._begin[0] if "_begin" in self.__dict__ else matrix(self.records, "line").view(np.uint64)[:, 0]
        rows = target.odd(first, self.records["method_len"], connect=self.method == CONNECT)
        return rows, self._targets_of(rows) if rows.size else None

    def _targets_of(self, rows: Rows) -> target.Targets:
        return target.split(self.records, rows, cut=self._is_cut[rows], connect=self.method[rows] == CONNECT)

    @cached_property
    def scheme(self) -> U64:
        """What each target names as its scheme, http where it names none; see `target.SCHEMES`."""
        rows, targets = self._odd
        out = np.zeros(len(self.status), np.uint64)
        if targets is not None:
            out[rows] = targets.scheme
        return out

    def scheme_text(self, row: int) -> str:
        """The scheme of a row as it is in the URL."""
        number, targets = int(self.scheme[row]), self._odd[1]
        return target.SCHEMES[number] if targets is None or number < target.OTHER else targets.others[number]

    @cached_property
    def agent(self) -> U8:
        return matrix(self.records, "agent")

    def _times(self, offsets_ns: Offsets) -> None:
        records = self.records
        start = records["request_start_ns"].astype(np.int64)
        end = records["response_end_ns"].astype(np.int64)
        for other in (start, records["response_start_ns"].view(np.int64), records["request_end_ns"].view(np.int64)):
            np.maximum(end, other, out=end)
        self.duration = end - start
        # One offset per exchange, so that a step of the clock cannot change a duration.
        self.start_unix_ns = (start + offsets_ns(start)).view(np.uint64)

    @property
    def end_unix_ns(self) -> U64:
        return self.start_unix_ns + self.duration.view(np.uint64)

    @cached_property
    def answered(self) -> Bools:
        return (self.records["response_start_ns"] > 0).astype(bool)

    @cached_property
    def parts(self) -> Duration:
        records = self.records
        start, whole = records["request_start_ns"].astype(np.int64), self.duration
        begun = np.where(self.answered, np.clip(records["response_start_ns"].astype(np.int64) - start, 0, whole), whole)
        requested = records["request_end_ns"].astype(np.int64)
        sent = np.where(requested > 0, np.clip(requested - start, 0, begun), begun)
        return Duration(sent, begun - sent, whole - begun)

    @property
    def linkage(self) -> Linkage:
        records = self.records
        return Linkage(
            shared_words(records, self._begin),
            records["traced"] == 1,
            as_bytes(records["trace_id"]),
            as_bytes(records["parent_id"]),
            (records["trace_flags"] & 1) == 1,
            records["tracestate"],
            records["tracestate_len"] > records["tracestate"].dtype.itemsize,
        )

    def attach(self, who: Identified, name_of: Callable[[bytes], str], routes: Routes) -> None:
        self.who, self._name_of, self.routes = who, name_of, routes

    @cached_property
    def route(self) -> U64:
        """The key of each row's route."""
        if self.routes.is_off:
            return np.zeros(len(self.status), np.uint64)
        # Routes are the server's: both sides of an exchange look them up under its name.
        owner = np.where(self.who.server >= 0, self.who.server, self.who.client)
        lines = StartLines(self.records, self._begin, is_cut=self._is_cut, odd=self._odd[0], paths=self._paths)
        return self.routes.recall(self.who.workloads, owner, lines)

    def _paths(self, rows: Rows) -> Paths:
        if "targets" in self.__dict__:
            targets = self.targets
            return Paths(targets.path, targets.path_lengths, targets.is_cut_path).of(rows)
        targets = self._targets_of(rows)
        return Paths(targets.path, targets.path_lengths, targets.is_cut_path)

    @cached_property
    def server(self) -> Named:
        """The server as the request names it."""
        host, lengths = matrix(self.records, "host"), self.records["host_len"].astype(np.int64)
        default = np.full(len(lengths), _PORTS[0], np.uint16)
        rows, targets = self._odd
        if targets is not None:
            default[rows] = _PORTS[_bounded(targets.scheme)]
        if targets is not None and targets.authority.shape[1]:
            # The authority in the target replaces Host (RFC 9112 3.2.2).
            named, host = targets.authority_lengths > 0, host.copy()
            host[rows[named]], lengths[rows[named]] = targets.authority[named], targets.authority_lengths[named]
        address, port = self.server_address, self.flows.server_port
        return self.caches.authorities.name(host, lengths, address, port, default, self._name_of)

    @property
    def may_export(self) -> bool:
        """Whether any User-Agent begins as those do that send telemetry."""
        return self.caches.agents.may_export(self.agent)

    @cached_property
    def agents(self) -> tuple[npt.NDArray[np.int32], U64]:
        """What each User-Agent says (see `caches`), and a key of its text."""
        return self.caches.agents.look_up(self.agent, self.records["agent_len"])

    def wanted(self, kind: Kind) -> Bools:
        """Rows that report this kind."""
        return self.who.report_server if kind is Kind.SERVER else self.who.report_client

    def is_broken(self, kind: Kind) -> Bools:
        """Rows whose end is an error of this side."""
        return self._broken & self._not_by_client if kind is Kind.SERVER else self._broken

    def is_error_row(self, kind: Kind, row: int) -> bool:
        broken = self._broken[row] and (kind is Kind.CLIENT or self._not_by_client[row])
        return bool(broken or self.status[row] >= (500 if kind is Kind.SERVER else 400))

    def candidates(self, kind: Kind, slow_ns: int) -> Candidates:
        wanted, left_out = self.wanted(kind), 0
        if self.options.ignored_agents:
            ignored = self.agents[0] == IGNORED
            left_out = int(np.count_nonzero(wanted & ignored))
            wanted = wanted & ~ignored
        # 5xx and broken ends: on these both sides agree, but for what only the client calls an error.
        errors = self.is_broken(kind) | (self.status >= 500).astype(bool)
        return Candidates(wanted, errors, self.duration >= slow_ns, left_out)

    def outcome(self, kind: Kind, rows: Picked) -> U64:
        """Everything about how an exchange went that attributes tell: method, status, version, error."""
        records = self.records
        packed = self.status[rows] | self.told_method[rows] << 16 | records["minor"][rows].astype(np.int64) << 24
        if self._broken.any():
            # Only what an attribute shows may be in the key, or one series would be there twice: an error status hides how the message ended.
            shown = self.is_broken(kind) & (self.status < (500 if kind is Kind.SERVER else 400))
            packed |= shown[rows] * (self.error[rows] << 32)
        if kind is Kind.SERVER and self._odd[1] is not None:
            packed |= _bounded(self.scheme[rows]) << 40
        return packed.view(np.uint64)

    def _measured_rows(self) -> Iterator[tuple[Kind, Rows]]:
        """Rows that metrics of each kind are made of; only kinds that have any."""
        for kind in (Kind.SERVER, Kind.CLIENT):
            reported = self.wanted(kind) if self.who.uncounted is None else self.wanted(kind) & ~self.who.uncounted.of(kind)
            if (rows := reported.nonzero()[0]).size:
                yield kind, rows

    def active(self) -> Iterator[Points]:
        for kind, rows in self._measured_rows():
            asked = _bounded(self.scheme[rows]).view(np.uint64) if kind is Kind.SERVER else self.server.key[rows]
            group = Group(mix(self.told_method[rows].astype(np.uint64), asked), Describe(self, kind, rows).active)
            yield Points(ACTIVE[kind], kind, rows, np.ones(len(rows)), group)

    def points(self) -> Iterator[Points]:
        for kind, rows in self._measured_rows():
            describe = Describe(self, kind, rows)
            at: Picked = slice(None) if len(rows) == len(self.status) else rows
            # The route first, for which the lines are read.
            route = self.route[at]
            key = mix(self.outcome(kind, at), route, *(() if kind is Kind.SERVER else (self.server.key[at],)))
            yield from measured(self, kind, rows, Group(key, describe.metric))

    def spans(self, kind: Kind, rows: Rows) -> SpanColumns:
        describe, records = Describe(self, kind, rows), self.records
        # hot: benchmarks/pipeline.py. All rows are taken as they are, others are copied out of every column.
        at: Picked = slice(None) if len(rows) == len(self.status) else rows
        # Before the route, which then takes no target apart once more.
        texts = self._texts(kind, rows, at)
        method = np.zeros(len(rows), np.uint64)
        unknown = np.flatnonzero(self.told_method[at] == 0)
        if unknown.size:
            method[unknown] = mix(*startlines.beginning(records[rows[unknown]]))
        note = records["flags"][at].astype(np.uint64) | (self.closed_by[at] << 16 | self.error[at] << 20).astype(np.uint64)
        # Who was asked goes with what for: a route is one server's, so that together there are hardly more combinations.
        scheme = () if self._odd[1] is None else (self.scheme[at],)
        outcome = Group(mix(self.outcome(kind, at), self.route[at], method, note, self.server.key[at], *scheme), describe.outcome)
        address = self.client_address if kind is Kind.SERVER else self.server_address
        other = self.caches.peers.keys(self.who.workloads, (self.who.client if kind is Kind.SERVER else self.who.server)[at])
        peer = mix(self.agents[1][at], other, *words(np.ascontiguousarray(address[at])), *self._slot_words(at))
        groups = [outcome, Group(peer, describe.peer)]
        return SpanColumns(kind, groups, self._integers(kind, at), texts)

    def _slot_words(self, at: Picked) -> U64:
        if not self.options.headers:
            return np.zeros((0, len(self.status[at])), np.uint64)
        # Beside the texts whether each was cut, which its end is judged by.
        cut = np.ascontiguousarray(self.records["slot_len"][at] > TEXT).view(np.uint32)[:, 0]
        return np.concatenate((words(np.ascontiguousarray(as_bytes(self.records["slots"])[at])), cut[None, :]))

    def _integers(self, kind: Kind, at: Picked) -> list[Integers]:
        records = self.records
        port = records["client_port" if kind is Kind.SERVER else "server_port"]
        return [
            Integers(names.PEER_PORT, port[at]),
            Integers(names.REQUEST_BODY, records["request_body"][at]),
            Integers(names.RESPONSE_BODY, records["response_body"][at], self.answered[at]),
            Integers(names.REQUEST_TRANSFER, self.parts.transfer[at]),
            Integers(names.RESPONSE_WAIT, self.parts.wait[at]),
            Integers(names.RESPONSE_TRANSFER, self.parts.answer[at]),
        ]

    def _texts(self, kind: Kind, rows: Rows, at: Picked) -> list[Text]:
        targets = self.targets
        path, lengths = targets.path[at], targets.path_lengths[at]
        form = targets.form[at]
        query, query_lengths = self._queries(rows) if self.options.query else (None, np.zeros(len(rows), np.int64))
        if kind is Kind.SERVER:
            texts = [Text(names.URL_PATH, path, lengths, present=form != target.Form.AUTHORITY)]
            if query is not None:
                none = Prefix(np.zeros(len(rows), np.uint64), lambda row: b"")
                texts.append(Text(names.URL_QUERY, query, query_lengths, none, query_lengths > 0))
            return texts
        if query is not None and query_lengths.any():
            path, lengths = _joined(path, lengths, query, query_lengths)
        bare = form == target.Form.ASTERISK
        path, lengths = np.where(bare[:, None], 0, path).astype(np.uint8), np.where(bare, 0, lengths)
        is_bare = form == target.Form.AUTHORITY
        scheme = np.where(is_bare, _NO_SCHEME, targets.scheme[at])

        def url(row: int) -> bytes:
            at_row = int(rows[row])
            begin = "" if is_bare[row] else f"{self.scheme_text(at_row)}:"
            return f"{begin}//{self.server.text(at_row)}".encode()

        return [Text(names.URL_FULL, path, lengths, Prefix(mix(self.server.text_key[at], scheme), url))]

    def _queries(self, rows: Rows) -> tuple[U8, I64]:
        """Query strings with their secrets masked."""
        targets = self.targets
        blob = [
            targets.whole[row, targets.query[row] : targets.whole_lengths[row]].tobytes() if targets.query[row] else b""
            for row in rows.tolist()
        ]
        texts = [text.encode() for text in self.caches.masks.redact([text.decode() for text in blob])]
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        width = max(8, int(lengths.max(initial=0)))
        return np.array(texts, f"S{width}").view(np.uint8).reshape(len(texts), width), lengths


def as_bytes(column: Records) -> U8:
    """A column of raw or text fields as a matrix of bytes of its own."""
    column = np.ascontiguousarray(column)
    return column.view(np.uint8).reshape(len(column), -1)


def _bounded(scheme: U64) -> I64:
    """The schemes that metrics tell apart; all others are one."""
    return np.minimum(scheme, np.uint64(target.OTHER)).view(np.int64)


def shared_words(records: Records, begin: U64) -> U64:
    """What both ends of an exchange see alike, whatever was done to its addresses: two TCP numbers and the beginning of the start line."""
    second = np.where(records["status"] > 0, records["response_seq"], records["request_ack"])
    numbers = records["request_seq"].astype(np.uint64) << np.uint64(32) | second.astype(np.uint64)
    return np.concatenate((numbers[None, :], begin))


def _joined(path: U8, lengths: I64, query: U8, query_lengths: I64) -> tuple[U8, I64]:
    """Path, `?`, query."""
    out = np.zeros((len(path), path.shape[1] + 1 + query.shape[1]), np.uint8)
    out[:, : path.shape[1]] = path
    has = query_lengths > 0
    at = lengths[:, None] + 1 + np.arange(query.shape[1])
    inside = has[:, None] & (np.arange(query.shape[1]) < query_lengths[:, None])
    rows, columns = np.nonzero(inside)
    out[rows, at[rows, columns]] = query[rows, columns]
    out[np.flatnonzero(has), lengths[has]] = ord("?")
    return out, lengths + np.where(has, 1 + query_lengths, 0)
