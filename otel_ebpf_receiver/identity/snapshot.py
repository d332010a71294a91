"""Who had which address when: an immutable table, looked up for whole batches.

An address belongs to a workload for an interval of time (a claim), so that a reused address names the right pod by the exchange's own time. Pure: built
from columns, replaced whole, never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.identity.address import Network
from otel_ebpf_receiver.identity.networks import Int32, Networks, halves
from otel_ebpf_receiver.telemetry.columns import I64, U8, U64, Bools
from otel_ebpf_receiver.telemetry.keys import KeyIndex, mix, runs
from otel_ebpf_receiver.telemetry.workload import Workload

OPEN_NS = (1 << 63) - 1
"""End of a claim that has not ended."""
NO_GROUP = -1
SHARED = 0
"""The group of ports that every node's addresses have beside their own: node ports."""

CLAIM = np.dtype(
    [("address", "V16"), ("start_ns", "<u8"), ("end_ns", "<u8"), ("until_ns", "<u8"), ("workload", "<i4"), ("group", "<i4")]
)
"""`workload` had `address` from `start_ns` to before `end_ns` (Unix); up to `until_ns` it is still believed to, unless another claim of the address holds.
Where `group` is not -1, a port of that group names more exactly who it is."""
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
    INSTRUMENTED = 8
    """An OpenTelemetry SDK reports for it already."""
    ASKS_AUDIBLY = 16
    """An agent, this or its node's own, makes CLIENT spans of what it asks."""
    NODE = 32
    """A node: its addresses have the shared ports too."""


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
    first: I64
    last: I64
    high: U64
    low: U64
    addresses: KeyIndex
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

    def find(self, addresses: U8, ports: npt.NDArray[np.integer] | None, times_unix_ns: U64) -> Found:
        """Who has `addresses` (u8, n x 16) at these times; `ports` (n) where the addresses are those that were listened on, None where a port means nothing."""
        # hot: benchmarks/identity.py
        claims = self.claims
        high, low = halves(addresses)
        holder = self.addresses.find(mix(high, low))
        row = self.last[holder]
        is_known = (holder >= 0) & (self.high[holder] == high) & (self.low[holder] == low)
        is_held = is_known & (claims["start_ns"][row] <= times_unix_ns) & (times_unix_ns < claims["end_ns"][row])
        certainty = is_held.astype(np.uint8)
        workload = np.where(is_held, claims["workload"][row], np.int32(-1))
        group = np.where(is_held, claims["group"][row], np.int32(NO_GROUP))
        rest = np.flatnonzero(~is_held)
        if rest.size:
            self._search(rest[is_known[rest]], holder, times_unix_ns, workload, group, certainty)
            self._guess(rest[certainty[rest] == 0], addresses, workload, group, certainty)
        if ports is not None:
            self._by_port(ports, group, workload)
        return Found(workload, certainty)

    def _search(self, rows: I64, holder: Int32, times: U64, workload: Int32, group: Int32, certainty: U8) -> None:
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
    ordered, high, low, key = _ordered(claims)
    # The key may, once in 2^64, be the same for two addresses: they keep apart here, and the second stays unknown.
    bounds = np.flatnonzero(np.append(True, (high[1:] != high[:-1]) | (low[1:] != low[:-1]))) if len(ordered) else np.zeros(0, np.int64)
    ends = np.append(bounds[1:], len(ordered))
    _, distinct = np.unique(key[bounds], return_index=True)
    addresses = KeyIndex(len(bounds))
    addresses.insert(key[bounds[distinct]], distinct.astype(np.int32))
    port_index, port_workload = _ports(ports)
    return Snapshot(
        workloads=tuple(workloads),
        traits=np.array([*traits, 0], np.uint16),
        claims=ordered if len(ordered) else np.zeros(1, CLAIM),
        first=_or_zero(bounds),
        last=_or_zero(ends - 1 if len(bounds) else bounds),
        high=_or_zero(high[bounds]),
        low=_or_zero(low[bounds]),
        addresses=addresses,
        port_workload=_or_zero(port_workload),
        ports=port_index,
        networks=Networks((claim.network, number) for number, claim in enumerate(networks)),
        network_claims=np.array([(b"", 0, OPEN_NS, OPEN_NS, claim.workload, claim.group) for claim in networks], CLAIM),
        is_exact_network=np.array([claim.is_exact for claim in networks], bool),
        deepest=int((ends - bounds).max()) if len(bounds) else 0,
        is_cluster=is_cluster,
        is_current=is_current,
        reports_unknown=reports_unknown,
    )


def _ordered(claims: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.void], U64, U64, U64]:
    """Claims by address and start, with the halves and the key of each address. What has ended is over before its successor's begin."""
    high, low = halves(np.frombuffer(claims["address"].tobytes(), np.uint8).reshape(-1, 16))
    order = np.lexsort((claims["start_ns"], low, high))
    claims, high, low = claims[order], high[order], low[order]
    same = np.flatnonzero((high[1:] == high[:-1]) & (low[1:] == low[:-1])) + 1
    for row in same.tolist():
        before = claims["end_ns"][row - 1]
        # A pod is started before it is given its address, so its successor's interval may seem to begin inside its own.
        if before < OPEN_NS and claims["start_ns"][row] < before:
            claims["start_ns"][row] = before
    return claims, high, low, mix(high, low)


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


def _or_zero(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """One zero instead of nothing, so that an index of -1 stays inside."""
    return array if len(array) else np.zeros(1, array.dtype)


def empty(workloads: Sequence[Workload] = (), *, is_cluster: bool = False, is_current: bool = False) -> Snapshot:
    """A snapshot in which no address is known."""
    return build(workloads, [Trait.SELECTED] * len(workloads), np.zeros(0, CLAIM), np.zeros(0, PORT), is_cluster=is_cluster, is_current=is_current)
