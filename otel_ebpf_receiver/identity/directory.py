"""Who asked and who answered, and what of it is reported from here: what the pipeline asks about each batch.

Pure but for its counters. Its snapshot and its taps are replaced whole by whoever watches the cluster and the links. It reports what it
is sure of: a kind only for a workload of this node, seen at that workload's own tap or in the node's own network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from opentelemetry.semconv._incubating.attributes.k8s_attributes import K8S_POD_UID

from otel_ebpf_receiver.identity.holders import halves, key_of
from otel_ebpf_receiver.identity.networks import Int32
from otel_ebpf_receiver.identity.snapshot import OPEN_NS, Certainty, Found, Snapshot, Trait, empty
from otel_ebpf_receiver.identity.static import Statics
from otel_ebpf_receiver.telemetry.columns import I64, U8, Bools, Kind
from otel_ebpf_receiver.telemetry.keys import distinct
from otel_ebpf_receiver.telemetry.workload import Flows, Identified, Sides, Workload

_SETTLED_MAX = 4096
_SETTLED_NS = 60 * 10**9
_TAPS_MAX = 1 << 24
_TOGETHER_MAX = 4096
"""Beyond so many rows columns of both sides are so long that the C library asks the kernel for each anew."""
_ARRIVED, _LEFT = 1, 2
# hot: benchmarks/identity.py. Plain numbers: before Python 3.12 reading a member of an enum costs as much as a numpy call.
_LOCAL, _HOST, _NODE, _SELECTED, _TRACED, _MEASURED, _AUDIBLE = (
    int(one) for one in (Trait.LOCAL, Trait.HOST, Trait.NODE, Trait.SELECTED, Trait.TRACED, Trait.MEASURED, Trait.ASKS_AUDIBLY)
)
_INSTRUMENTED = _TRACED | _MEASURED
_EXACT, _GRACE, _GUESS = int(Certainty.EXACT), int(Certainty.GRACE), int(Certainty.GUESS)


class Behind(IntEnum):
    """Who is behind a tap."""

    NODE = 0
    """The network: a device of the node's own. Taps that nobody described count as this."""
    WORKLOAD = 1
    """A pod or a container: the host end of its pair. Not a pair that carries the node's own address: that is an uplink."""
    LOOPBACK = 2


_PAIR, _LOOPBACK = int(Behind.WORKLOAD), int(Behind.LOOPBACK)


@dataclass(frozen=True, slots=True)
class Policy:
    """Whether workloads that an SDK reports for already give spans and metrics here too."""

    drops_instrumented_spans: bool = True
    drops_instrumented_metrics: bool = True


@dataclass(slots=True)
class Counters:
    """Rows: of exchanges, each counted when it is identified for good."""

    identified: int = 0
    unnamed_peers: int = 0
    deselected: int = 0
    instrumented_spans: int = 0
    instrumented_metrics: int = 0


@dataclass(frozen=True, slots=True)
class _Report:
    server: Bools
    client: Bools
    joined: Bools
    waits: Bools
    masked: Bools


class Directory:
    """The `Identity` of telemetry. One thread asks; `snapshot` and `watch_taps` may be set by others at any time."""

    def __init__(self, statics: Statics | None = None, policy: Policy | None = None, *, is_cluster: bool = False) -> None:
        """`is_cluster`: Kubernetes is on, though nothing is known yet."""
        self._statics = statics or Statics()
        self._policy = policy or Policy()
        self.snapshot: Snapshot = empty(self._statics.workloads, is_cluster=is_cluster, is_current=is_cluster)
        self.counters = Counters()
        self.on_exporting: Callable[[str, Trait], None] = lambda uid, what: None
        """Called with the uid of a pod and what its SDK makes (`TRACED`, `MEASURED`) when `saw_exports` tells of it for the first time."""
        self.on_waiting: Callable[[], None] = lambda: None
        """Called when rows of a batch wait for who is not known yet."""
        self._taps: U8 = np.zeros(1, np.uint8)
        self._asked_here = np.zeros(len(self._statics.workloads) + 1, bool)
        self._settled: dict[int, int] = {}
        # Addresses that somebody waited for in vain, and when.
        self._exporting: set[tuple[str, Trait]] = set()

    @property
    def permanent(self) -> tuple[Workload, ...]:
        """The workloads of the configuration: every snapshot given here must begin with them."""
        return self._statics.workloads

    def watch_taps(self, behind: Mapping[int, Behind]) -> None:
        """Who is behind each tap, by the link's index."""
        # hot: benchmarks/identity.py. A table by index is a tenth of a search; indices only grow, by one for each link ever made.
        table = np.zeros(max((index for index in behind if index < _TAPS_MAX), default=0) + 2, np.uint8)
        for index, who in behind.items():
            if index < _TAPS_MAX:
                table[index] = who
        self._taps = table

    @property
    def news(self) -> object:
        """The snapshot, which is another one when something changed."""
        return self.snapshot

    def identify(self, flows: Flows, *, has_waited: bool = False, arrived: Bools | None = None, is_open: bool = False) -> Identified:
        """Both sides of a batch. `has_waited`: these rows did, and are told for good.

        `arrived` (n): the exchange's request was seen coming in at another tap too, so that a node's address on it may be a masquerade;
        None: not known, and then a node is not called the client of what reaches a pod here. `is_open`: these exchanges have not ended and will be
        asked for again; they do not wait, and count for nothing.
        """
        # hot: benchmarks/identity.py
        snapshot = self.snapshot
        client, server = find_both(snapshot, flows)
        behind = self._behind(flows.tap)
        if not snapshot.is_cluster:
            clients, servers = self._with_static(snapshot, flows, client.workload, server.workload)
            nobody = np.zeros(len(behind), bool)
            return self._named(snapshot, clients, servers, self._plain_report(flows, behind, clients), nobody, is_open)
        report = _cluster_report(snapshot, flows, behind, client, server, arrived)
        waits = np.zeros(len(behind), bool)
        if has_waited and snapshot.is_current:
            self._settle(flows, client, server, report.waits)
        elif snapshot.is_current and not has_waited and not is_open:
            waits = self._unsettled(flows, client, server, report.waits)
        clients, servers = self._with_static(snapshot, flows, client.workload, server.workload)
        return self._named(snapshot, clients, servers, report, waits, is_open)

    def name(self, address: bytes) -> str:
        """`service.namespace` of who has an address (16 bytes) now; empty: unknown."""
        row = np.frombuffer(address, np.uint8).reshape(1, 16)
        found = self.snapshot.find(row, np.array([OPEN_NS - 1], np.uint64)).workload
        number = int(found[0]) if found[0] >= 0 else int(self._statics.name_clients(row)[0])
        return self.snapshot.workloads[number].address_name if number >= 0 else ""

    def saw_exports(self, who: Identified, spans: Bools, metrics: Bools) -> None:
        """In these rows the client's own SDK sent spans or metrics."""
        for what, rows in ((Trait.TRACED, spans), (Trait.MEASURED, metrics)):
            for number in distinct(who.client[rows]).tolist():
                uid = who.workloads[number].attributes.get(K8S_POD_UID) if number >= 0 else None
                if isinstance(uid, str) and (uid, what) not in self._exporting:
                    if len(self._exporting) >= _SETTLED_MAX:
                        self._exporting.clear()
                    self._exporting.add((uid, what))
                    self.on_exporting(uid, what)

    def instrumented(self, most: int) -> list[str]:
        """Workloads of this node that an SDK reports for, as `service.namespace`, up to `most` of them."""
        snapshot = self.snapshot
        rows = np.flatnonzero((snapshot.traits[:-1] & _INSTRUMENTED != 0) & (snapshot.traits[:-1] & (_LOCAL | _HOST) != 0)).tolist()
        return sorted({snapshot.workloads[row].address_name for row in rows})[:most]

    def _behind(self, taps: I64) -> U8:
        table = self._taps
        return table[np.minimum(taps, len(table) - 1)]

    def _with_static(self, snapshot: Snapshot, flows: Flows, clients: Int32, servers: Int32) -> tuple[Int32, Int32]:
        """Names of the configuration for whom Kubernetes does not name, or only by its node."""
        if self._statics.workloads:
            rows = _unnamed(snapshot, clients)
            named = self._statics.name_clients(flows.client_address[rows])
            clients[rows] = np.where(named >= 0, named, clients[rows])
            rows = _unnamed(snapshot, servers)
            named = self._statics.name_servers(flows.server_address[rows], flows.server_port[rows])
            servers[rows] = np.where(named >= 0, named, servers[rows])
        return clients, servers

    def _plain_report(self, flows: Flows, behind: U8, clients: Int32) -> _Report:
        """Without Kubernetes: the server's side, but for the client behind a pair whom the configuration names."""
        asks = (behind == _PAIR) & (flows.direction == _ARRIVED) & (clients >= 0)
        self._asked_here[clients[asks]] = True
        masked = (behind == _PAIR) & ~asks & (clients < 0)
        return _Report(server=~asks, client=asks, joined=self._asked_here[clients], waits=np.zeros(len(asks), bool), masked=masked)

    def _unsettled(self, flows: Flows, client: Found, server: Found, waits: Bools) -> Bools:
        """Of the rows that may wait, and those with a guess at either side, the ones whose address has not waited in vain a moment ago."""
        waiting = np.zeros(len(waits), bool)
        for side, addresses in ((client, flows.client_address), (server, flows.server_address)):
            rows = _doubtful(side, waits)
            if rows.size:
                distinct, where = np.unique(key_of(halves(addresses[rows])), return_inverse=True)
                latest = int(flows.start_unix_ns[rows].max())
                is_settled = np.array([latest - self._settled.get(key, -_SETTLED_NS) < _SETTLED_NS for key in distinct.tolist()])
                # Whose owner ended a moment ago has another soon, or nobody asks there any more: those who waited in vain say nothing about those who come.
                waiting[rows] |= ~is_settled[where] | (side.certainty[rows] == _GRACE)
                if waiting[rows].any():
                    self.on_waiting()
        return waiting

    def _settle(self, flows: Flows, client: Found, server: Found, waits: Bools) -> None:
        for side, addresses in ((client, flows.client_address), (server, flows.server_address)):
            rows = _doubtful(side, waits)
            if rows.size:
                if len(self._settled) >= _SETTLED_MAX:
                    self._settled.clear()
                latest = int(flows.start_unix_ns[rows].max())
                self._settled.update(dict.fromkeys(distinct(key_of(halves(addresses[rows]))).tolist(), latest))

    def _named(self, snapshot: Snapshot, clients: Int32, servers: Int32, report: _Report, waits: Bools, is_open: bool) -> Identified:
        is_final = ~waits & (not is_open)
        silent, uncounted = self._left_out(snapshot, clients, servers, report, is_final) if snapshot.leaves_out else (None, None)
        unnamed = (report.client & (servers < 0)) | (report.server & (clients < 0))
        self.counters.unnamed_peers += int(np.count_nonzero(unnamed & is_final))
        self.counters.identified += int(np.count_nonzero(is_final))
        joined = report.server & (report.client | report.joined)
        return Identified(
            snapshot.workloads, servers, clients, report.server, report.client, joined, silent, uncounted, waits, report.masked
        )

    def _left_out(self, snapshot: Snapshot, clients: Int32, servers: Int32, report: _Report, is_final: Bools) -> tuple[Sides, Sides]:
        """Who must not become spans, and who not metrics. Takes back the report, in place, of whom nothing is told."""
        n, policy, traits = len(is_final), self._policy, snapshot.traits
        silent, uncounted = Sides(np.zeros(n, bool), np.zeros(n, bool)), Sides(np.zeros(n, bool), np.zeros(n, bool))
        for kind, side, is_reported in ((Kind.CLIENT, clients, report.client), (Kind.SERVER, servers, report.server)):
            is_wanted = np.where(side >= 0, traits[side] & _SELECTED != 0, snapshot.reports_unknown)
            deselected = is_reported & ~is_wanted
            is_reported &= is_wanted
            traced = is_reported & (traits[side] & _TRACED != 0) & policy.drops_instrumented_spans
            measured = is_reported & (traits[side] & _MEASURED != 0) & policy.drops_instrumented_metrics
            self._count(deselected, traced, measured, is_final)
            # Who is told of in no way is not reported at all.
            is_reported &= ~(traced & measured)
            silent.of(kind)[:], uncounted.of(kind)[:] = traced, measured
        return silent, uncounted

    def _count(self, deselected: Bools, traced: Bools, measured: Bools, is_final: Bools) -> None:
        counters = self.counters
        counters.deselected += int(np.count_nonzero(deselected & is_final))
        counters.instrumented_spans += int(np.count_nonzero(traced & is_final))
        counters.instrumented_metrics += int(np.count_nonzero(measured & is_final))


def _unnamed(snapshot: Snapshot, workload: Int32) -> npt.NDArray[np.intp]:
    return np.flatnonzero((workload < 0) | (snapshot.traits[workload] & _NODE != 0))


def find_both(snapshot: Snapshot, flows: Flows) -> tuple[Found, Found]:
    """Clients and servers: in one go, for of a small batch most of the cost does not depend on the number of rows."""
    # hot: benchmarks/identity.py
    n = len(flows.tap)
    if n > _TOGETHER_MAX:
        return snapshot.find(flows.client_address, flows.start_unix_ns), snapshot.find(
            flows.server_address, flows.start_unix_ns, flows.server_port
        )
    addresses, times = (
        np.concatenate((flows.client_address, flows.server_address)),
        np.concatenate((flows.start_unix_ns, flows.start_unix_ns)),
    )
    both = snapshot.find(addresses, times, flows.server_port)
    return Found(both.workload[:n], both.certainty[:n]), Found(both.workload[n:], both.certainty[n:])


def _doubtful(side: Found, waits: Bools) -> npt.NDArray[np.intp]:
    return np.flatnonzero((side.certainty == _GUESS) | (waits & (side.certainty != _EXACT)))


def _cluster_report(snapshot: Snapshot, flows: Flows, behind: U8, client: Found, server: Found, arrived: Bools | None) -> _Report:
    """With Kubernetes: the side behind a pod's pair, and whoever lives in the node's own network. Takes back guesses that cannot be."""
    asker, answerer = snapshot.traits[client.workload], snapshot.traits[server.workload]
    is_pair = behind == _PAIR
    from_pair = (flows.direction == _ARRIVED) | ((flows.direction != _LEFT) & (asker & _LOCAL != 0))
    far, traits = np.where(from_pair, client.workload, server.workload), np.where(from_pair, asker, answerer)
    certainty = np.where(from_pair, client.certainty, server.certainty)
    # This node cannot be behind a pair of its own: what only its range names there is a pod that is not known yet.
    is_new = is_pair & (certainty == _GUESS) & (traits & _HOST != 0)
    if is_new.any():
        client.workload[is_new & from_pair] = -1
        server.workload[is_new & ~from_pair] = -1
    # A pair with somebody behind it who is known to be no pod of this node is a cable to somewhere else.
    at_pair = is_pair & ((traits & _LOCAL != 0) | (far < 0) | is_new)
    asks_here, answers_here = asker & _HOST != 0, answerer & _HOST != 0
    is_loop = behind == _LOOPBACK
    outward = ~at_pair & (is_loop | (flows.direction == _LEFT)) & asks_here
    inward = (~at_pair & (is_loop | (flows.direction != _LEFT)) | (at_pair & from_pair)) & answers_here
    if arrived is not None:
        outward = (outward & (is_loop | ~arrived)) | (at_pair & ~from_pair & asks_here & ~arrived)
    waits = at_pair & ((far < 0) | is_new | (certainty == _GRACE))
    return _Report(
        server=(at_pair & ~from_pair) | inward,
        client=(at_pair & from_pair) | outward,
        joined=asker & _AUDIBLE != 0,
        waits=waits,
        masked=at_pair & ~from_pair & asks_here & (True if arrived is None else arrived),
    )
