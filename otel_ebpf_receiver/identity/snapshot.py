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
from otel_ebpf_receiver.identity.networks import Int32, Networks, halves, key_of
from otel_ebpf_receiver.telemetry.columns import I64, U8, U64, Bools
from otel_ebpf_receiver.telemetry.keys import KeyIndex, mix, runs
from otel_ebpf_receiver.telemetry.workload import Workload

_Scalar = TypeVar("_Scalar", bound=np.generic)
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
class Snapshot:
    """See `build`. `traits` has one element more than `workloads`, so that -1 has none."""

    workloads: tuple[Workload, ...]
    traits: npt.NDArray[np.uint16]
    claims: npt.NDArray[np.void]
    holders: KeyIndex
    """Addresses to the rows of the next six; their last row is nobody's, for -1."""
    low: U64
    first: I64
    """The range of the address's claims; the others are of the latest of them."""
    last: I64
    start_ns: U64
    end_ns: U64
    workload: Int32
    group: Int32
    port_workload: Int32
    ports: KeyIndex
    networks: Networks
    network_claims: npt.NDArray[np.void]
    is_exact_network: Bools
    deepest: int
    is_cluster: bool = False
    """Kubernetes is on: a side is reported for its tap, not just for answering."""
    is_current: bool = False
    """Somebody not known now may be known in a moment: waiting is worth while."""
    reports_unknown: bool = True

    def find(self, addresses: U8, times_unix_ns: U64, ports: I64 | None = None) -> Found:
        """Who has `addresses` (u8, n x 16) at these times. `ports` (m): what the last m were listened on; of others it means nothing."""
        # hot: benchmarks/identity.py
        high, low = halves(addresses)
        holder = self.holders.find(key_of(high, low)).astype(np.intp)
        is_known = self.low.take(holder) == low
        is_held = is_known & (self.start_ns.take(holder) <= times_unix_ns)
        is_held &= times_unix_ns < self.end_ns.take(holder)
        certainty = is_held.astype(np.uint8)
        workload = np.where(is_held, self.workload.take(holder), np.int32(-1))
        group = self.group.take(holder)
        rest = np.flatnonzero(~is_held)
        if rest.size:
            group[rest] = NO_GROUP
            self._search(rest[is_known[rest]], holder, times_unix_ns, workload, group, certainty)
            self._guess(rest[certainty[rest] == 0], addresses, workload, group, certainty)
        if ports is not None:
            self._by_port(ports, group[-len(ports) :], workload[-len(ports) :])
        return Found(workload, certainty)

    def _search(self, rows: I64, holder: npt.NDArray[np.intp], times: U64, workload: Int32, group: Int32, certainty: U8) -> None:
        """Earlier claims of the same address, then ended ones in their grace."""
        claims = self.claims
        for end, how in (("end_ns", Certainty.EXACT), ("until_ns", Certainty.GRACE)):
            for back in range(self.deepest):
                if not rows.size:
                    return
                at = self.last[holder[rows]] - back
                exists = at >= self.first[holder[rows]]
                at = np.where(exists, at, 0)
                hit = exists & (claims["start_ns"][at] <= times[rows]) & (times[rows] < claims[end][at])
                workload[rows[hit]] = claims["workload"][at[hit]]
                group[rows[hit]] = claims["group"][at[hit]]
                certainty[rows[hit]] = how
                rows = rows[~hit]

    def _guess(self, rows: I64, addresses: U8, workload: Int32, group: Int32, certainty: U8) -> None:
        if not rows.size or not len(self.network_claims):
            return
        network = self.networks.find(addresses[rows])
        rows, network = rows[network >= 0], network[network >= 0]
        workload[rows] = self.network_claims["workload"][network]
        group[rows] = self.network_claims["group"][network]
        certainty[rows] = np.where(self.is_exact_network[network], Certainty.EXACT, Certainty.GUESS)

    def _by_port(self, ports: npt.NDArray[np.integer], group: Int32, workload: Int32) -> None:
        """Name more exactly, in place, what a port says more about."""
        rows = np.flatnonzero(group != NO_GROUP)
        if not rows.size:
            return
        found = self._port(group[rows], ports[rows])
        shared = np.flatnonzero((found < 0) & (self.traits[workload[rows]] & Trait.NODE != 0))
        if shared.size:
            found[shared] = self._port(np.full(len(shared), SHARED, np.int32), ports[rows[shared]])
        workload[rows] = np.where(found >= 0, found, workload[rows])

    def _port(self, group: Int32, ports: npt.NDArray[np.integer]) -> Int32:
        entry = self.ports.find(_port_key(group, ports))
        return np.where(entry >= 0, self.port_workload[entry], np.int32(-1))


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
    ordered, high, low = _ordered(claims)
    first = np.flatnonzero(_starts(high, low))
    last = np.append(first[1:], len(ordered))[: len(first)] - 1
    holders = KeyIndex(len(first))
    holders.insert(key_of(high[first], low[first]), np.arange(len(first), dtype=np.int32))
    port_index, port_workload = _ports(ports)
    nobody = np.zeros(1, CLAIM)
    latest = np.concatenate((ordered[last], nobody))
    return Snapshot(
        workloads=tuple(workloads),
        traits=np.array([*traits, 0], np.uint16),
        claims=np.concatenate((ordered, nobody)),
        holders=holders,
        low=np.append(low[first], np.uint64(0)),
        first=np.append(first, 0),
        last=np.append(last, -1),
        start_ns=latest["start_ns"].copy(),
        end_ns=latest["end_ns"].copy(),
        workload=latest["workload"].copy(),
        group=latest["group"].copy(),
        port_workload=_or_zero(port_workload),
        ports=port_index,
        networks=Networks((claim.network, number) for number, claim in enumerate(networks)),
        network_claims=np.array([(b"", 0, OPEN_NS, OPEN_NS, claim.workload, claim.group) for claim in networks], CLAIM),
        is_exact_network=np.array([claim.is_exact for claim in networks], bool),
        deepest=int((last - first).max()) + 1 if len(first) else 0,
        is_cluster=is_cluster,
        is_current=is_current,
        reports_unknown=reports_unknown,
    )


def _ordered(claims: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.void], U64, U64]:
    """Claims by address and start, with the halves of their addresses. What has ended is over before its successor begins."""
    high, low = halves(np.frombuffer(claims["address"].tobytes(), np.uint8).reshape(-1, 16))
    order = np.lexsort((claims["start_ns"], low, high))
    claims, high, low = claims[order], high[order], low[order]
    for row in np.flatnonzero(~_starts(high, low)).tolist():
        before = claims["end_ns"][row - 1]
        # A pod is started before it is given its address, so its interval may seem to begin inside its predecessor's.
        if before < OPEN_NS and claims["start_ns"][row] < before:
            claims["start_ns"][row] = before
    return claims, high, low


def _starts(high: U64, low: U64) -> Bools:
    """Where another address begins."""
    starts = np.ones(len(high), bool)
    starts[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return starts


def _ports(ports: npt.NDArray[np.void]) -> tuple[KeyIndex, Int32]:
    key = _port_key(ports["group"], ports["port"])
    order = np.argsort(key, kind="stable")
    key, workload = key[order], ports["workload"][order].astype(np.int32)
    starts = runs(key)[:-1]
    if not len(key):
        return KeyIndex(1), workload
    is_one = np.minimum.reduceat(workload, starts) == np.maximum.reduceat(workload, starts)
    index = KeyIndex(len(starts))
    index.insert(key[starts], np.arange(len(starts), dtype=np.int32))
    return index, np.where(is_one, workload[starts], np.int32(-1))


def _port_key(group: npt.NDArray[np.integer], port: npt.NDArray[np.integer]) -> U64:
    return mix(group.astype(np.uint64) << np.uint64(16) | port.astype(np.uint64))


def _or_zero(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """One zero instead of nothing, so that an index of -1 stays inside."""
    return array if len(array) else np.zeros(1, array.dtype)


def empty(workloads: Sequence[Workload] = (), *, is_cluster: bool = False, is_current: bool = False) -> Snapshot:
    """A snapshot in which no address is known."""
    return build(
        workloads, [Trait.SELECTED] * len(workloads), np.zeros(0, CLAIM), np.zeros(0, PORT), is_cluster=is_cluster, is_current=is_current
    )
