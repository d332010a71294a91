"""Who had which address when: an immutable table, looked up for whole batches.

An address belongs to a workload for an interval of time (a claim), so that a reused address names the right pod by the exchange's own
time. Pure: built from columns, replaced whole, never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.identity.address import Network
from otel_ebpf_receiver.identity.holders import Holders, halves
from otel_ebpf_receiver.identity.networks import Int32, Networks
from otel_ebpf_receiver.telemetry.columns import I64, U8, U64, Bools
from otel_ebpf_receiver.telemetry.keys import runs
from otel_ebpf_receiver.telemetry.workload import Workload

_Group = TypeVar("_Group", int, I64)
OPEN_NS = (1 << 63) - 1
"""End of a claim that has not ended."""
NO_GROUP = -1
SHARED = 0
"""The group of ports that every node's addresses have beside their own: node ports."""

CLAIM = np.dtype([("address", "V16"), ("start_ns", "<u8"), ("end_ns", "<u8"), ("until_ns", "<u8"), ("workload", "<i4"), ("group", "<i4")])
"""`workload` had `address` from `start_ns` to before `end_ns` (Unix); up to `until_ns` it is still believed to, unless another claim of
the address holds. Where `group` is not -1, a port of that group names more exactly who it is."""
PORT = np.dtype([("group", "<i4"), ("port", "<u2"), ("workload", "<i4")])
"""`port` of the addresses of `group` is `workload`'s. Two rows that disagree are as good as none."""
_NOBODY = np.array([(b"", 0, 0, 0, -1, NO_GROUP)], CLAIM)


class Trait(IntFlag):
    """What is known about a workload beyond its attributes."""

    LOCAL = 1
    """A pod of this node with an own network: its pair is watched here."""
    HOST = 2
    """Lives in this node's own network: the node itself, or a pod with hostNetwork."""
    SELECTED = 4
    """The configuration wants it reported."""
    TRACED = 8
    """An OpenTelemetry SDK makes its spans already."""
    ASKS_AUDIBLY = 16
    """An agent, this or its node's own, makes CLIENT spans of what it asks."""
    NODE = 32
    """A node: its addresses have the shared ports too."""
    MEASURED = 64
    """An OpenTelemetry SDK makes its metrics already."""
    INSTRUMENTED = TRACED | MEASURED


_NODE = int(Trait.NODE)
_SELECTED, _REPORTED_WHOLE = int(Trait.SELECTED), int(Trait.SELECTED | Trait.INSTRUMENTED)
"""Plain numbers: before Python 3.12 reading a member of an enum costs as much as a numpy call."""


class Certainty(IntEnum):
    """How an address was found."""

    UNKNOWN = 0
    EXACT = 1
    GRACE = 2
    """Its last known owner ended a moment ago; a new owner may not be known yet."""
    GUESS = 3
    """No pod's, in a node's range: the node's bridge or tunnel, or a pod that is not known yet."""


@dataclass(frozen=True, slots=True)
class Found:
    """Workload (-1: unknown) and certainty of n addresses."""

    workload: Int32
    certainty: U8


@dataclass(frozen=True, slots=True, eq=False)
class Claims:
    """Columns of claims: the latest of each address in the order of `holders`, nobody's, those of networks, and then the earlier ones by
    address and start."""

    span_ns: U64
    """Start and end (n x 2)."""
    until_ns: U64
    workload: Int32
    ports: I64
    """Where the keys of the ports of its group begin; negative: it has none."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """See `build`. `traits` has one element more than `workloads`, so that -1 has none."""

    workloads: tuple[Workload, ...]
    traits: npt.NDArray[np.uint16]
    holders: Holders
    claims: Claims
    earlier: I64
    """Where the earlier claims of each address begin; one element more says where the last of them end."""
    port_keys: I64
    port_workload: Int32
    networks: Networks
    network_certainty: U8
    """Of each network, and at the end of none."""
    leaves_out: bool
    """Somebody is not reported, or in part: deselected, instrumented, or unknown."""
    is_cluster: bool = False
    """Kubernetes is on: a side is reported for its tap, not just for answering."""
    is_current: bool = False
    """Somebody not known now may be known in a moment: waiting is worth while."""
    reports_unknown: bool = True

    def find(self, addresses: U8, times_unix_ns: U64, ports: I64 | None = None) -> Found:
        """Who has `addresses` (u8, n x 16) at these times. `ports` (m): what the last m were listened on; of others it means nothing."""
        # hot: benchmarks/identity.py. Of a batch of 2,000 half is what the calls of numpy take by themselves: few, methods, both halves and both ends at once.
        if not self.holders.nobody and len(self.network_certainty) == 1:
            # Nothing is claimed, as always where Kubernetes is off.
            return Found(np.full(len(addresses), -1, np.int32), np.zeros(len(addresses), np.uint8))
        claims = self.claims
        words = halves(addresses)
        row = self.holders.find(words)
        span_ns = claims.span_ns.take(row, axis=0)
        is_held = span_ns[:, 0] <= times_unix_ns
        is_held &= times_unix_ns < span_ns[:, 1]
        certainty = is_held.view(np.uint8)
        (rest,) = (~is_held).nonzero()
        if rest.size:
            rest = self._search(rest, row, times_unix_ns, certainty)
            network = self.networks.find_halves(words.take(rest, axis=0))
            row[rest] = network + (self.holders.nobody + 1)
            certainty[rest] = self.network_certainty.take(network)
        workload = claims.workload.take(row)
        if ports is not None and len(ports):
            self._by_port(ports, claims.ports.take(row[-len(ports) :]), workload[-len(ports) :])
        return Found(workload, certainty)

    def _search(self, rest: npt.NDArray[np.intp], row: npt.NDArray[np.intp], times: U64, certainty: U8) -> npt.NDArray[np.intp]:
        """In place, for `rest` of the rows: earlier claims of the same address from the latest on, then all again in their grace. Who is left."""
        nobody, (start_ns, end_ns) = self.holders.nobody, self.claims.span_ns.T
        is_known = row.take(rest) != nobody
        if not is_known.any():
            return rest
        all_rest, rest = rest, rest[is_known]
        holder, time = row.take(rest), times.take(rest)
        first, end = self.earlier.take(holder), self.earlier.take(holder + 1)
        for ends_ns, how in ((end_ns, Certainty.EXACT), (self.claims.until_ns, Certainty.GRACE)):
            for back in range(int((end - first).max(initial=-1)) + 1):
                at = np.where(end - back >= first, end - back, nobody) if back else holder
                hit = (start_ns.take(at) <= time) & (time < ends_ns.take(at))
                row[rest[hit]], certainty[rest[hit]] = at[hit], how
                left = ~hit
                rest, holder, time, first, end = rest[left], holder[left], time[left], first[left], end[left]
        left_over: npt.NDArray[np.intp] = all_rest[certainty.take(all_rest) == 0]
        return left_over

    def _by_port(self, ports: npt.NDArray[np.integer], begin: I64, workload: Int32) -> None:
        """Name more exactly, in place, what a port says more about."""
        (rows,) = (begin >= 0).nonzero()
        if not rows.size or len(self.port_keys) == 1:
            return
        known, ports = workload.take(rows), ports.take(rows)
        found = self._port(begin.take(rows) + ports)
        (shared,) = ((found < 0) & (self.traits.take(known) & _NODE != 0)).nonzero()
        if shared.size:
            found[shared] = self._port(_ports_begin(SHARED) + ports.take(shared))
        workload[rows] = np.where(found >= 0, found, known)

    def _port(self, key: npt.NDArray[np.integer]) -> Int32:
        entry = self.port_keys.searchsorted(key)
        return np.where(self.port_keys.take(entry) == key, self.port_workload.take(entry), np.int32(-1))


@dataclass(frozen=True, slots=True)
class NetworkClaim:
    """All addresses of a network that are claimed by nobody. `is_exact`: nobody else could have one."""

    network: Network
    workload: int
    group: int = NO_GROUP
    is_exact: bool = False


def build(
    workloads: Sequence[Workload],
    traits: Iterable[int],
    claims: npt.NDArray[np.void],
    ports: npt.NDArray[np.void],
    *,
    networks: Sequence[NetworkClaim] = (),
    is_cluster: bool = False,
    is_current: bool = False,
    reports_unknown: bool = True,
) -> Snapshot:
    """A snapshot of claims (dtype CLAIM) and ports (dtype PORT), in any order. Of claims that start together the later row wins."""
    ordered, words = _ordered(claims)
    first = np.flatnonzero(_starts(words))
    last = np.append(first[1:], len(ordered))[: len(first)] - 1
    is_earlier = np.ones(len(ordered), bool)
    is_earlier[last] = False
    ranges = np.array([(b"", 0, OPEN_NS, OPEN_NS, claim.workload, claim.group) for claim in networks], CLAIM)
    columns = np.concatenate((ordered[last], _NOBODY, ranges, ordered[is_earlier]))
    port_keys, port_workload = _ports(ports)
    known = np.array([*traits, 0], np.uint16)
    return Snapshot(
        workloads=tuple(workloads),
        traits=known,
        leaves_out=leaves_out(known, reports_unknown),
        holders=Holders(words[last]),
        claims=Claims(
            span_ns=np.stack((columns["start_ns"], columns["end_ns"]), axis=1),
            until_ns=columns["until_ns"].copy(),
            workload=columns["workload"].copy(),
            ports=_ports_begin(columns["group"].astype(np.int64)),
        ),
        earlier=len(last) + 1 + len(ranges) + np.concatenate(([0], np.cumsum(last - first))),
        port_keys=port_keys,
        port_workload=port_workload,
        networks=Networks((claim.network, number) for number, claim in enumerate(networks)),
        network_certainty=np.array(
            [*(Certainty.EXACT if claim.is_exact else Certainty.GUESS for claim in networks), Certainty.UNKNOWN], np.uint8
        ),
        is_cluster=is_cluster,
        is_current=is_current,
        reports_unknown=reports_unknown,
    )


def leaves_out(traits: npt.NDArray[np.uint16], reports_unknown: bool) -> bool:
    """Of `Snapshot.leaves_out`; `traits` as there."""
    return not reports_unknown or bool((traits[:-1] & _REPORTED_WHOLE != _SELECTED).any())


def _ordered(claims: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.void], U64]:
    """Claims by address and start, with the halves of their addresses. What has ended is over before its successor begins."""
    words = halves(np.frombuffer(claims["address"].tobytes(), np.uint8).reshape(-1, 16))
    order = np.lexsort((claims["start_ns"], words[:, 1], words[:, 0]))
    claims, words = claims[order], words[order]
    for row in np.flatnonzero(~_starts(words)).tolist():
        before = claims["end_ns"][row - 1]
        # A pod is started before it is given its address, so its interval may seem to begin inside its predecessor's.
        if before < OPEN_NS and claims["start_ns"][row] < before:
            claims["start_ns"][row] = before
    return claims, words


def _starts(words: U64) -> Bools:
    """Where another address begins."""
    starts = np.ones(len(words), bool)
    starts[1:] = (words[1:] != words[:-1]).any(axis=1)
    return starts


def _ports(ports: npt.NDArray[np.void]) -> tuple[I64, Int32]:
    """Keys of ports in their order, and whose each is: -1 where rows disagree. One more key than there can be ends them."""
    key = _ports_begin(ports["group"].astype(np.int64)) + ports["port"]
    order = np.argsort(key, kind="stable")
    key, workload = np.append(key[order], np.int64(np.iinfo(np.int64).max)), np.append(ports["workload"][order], np.int32(-1))
    starts = runs(key)[:-1]
    is_one = np.minimum.reduceat(workload, starts) == np.maximum.reduceat(workload, starts)
    return key[starts], np.where(is_one, workload[starts], np.int32(-1))


def _ports_begin(group: _Group) -> _Group:
    """The key of port 0 of a group."""
    return group << 16


def empty(workloads: Sequence[Workload] = (), *, is_cluster: bool = False, is_current: bool = False) -> Snapshot:
    """A snapshot in which no address is known."""
    return build(
        workloads, [Trait.SELECTED] * len(workloads), np.zeros(0, CLAIM), np.zeros(0, PORT), is_cluster=is_cluster, is_current=is_current
    )
