"""The seam to identity: who was on the two sides of a batch's flows.

Identity gives indices into its own table of workloads and may replace that table at any time; telemetry asks for no more than is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import I64, U8, U64, AttributeValue, Bools, Kind

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A named end of a flow. `attributes` are those of its Resource; `address_name` (`service.namespace`) stands for its address in attributes."""

    attributes: Mapping[str, AttributeValue]
    address_name: str = ""


@dataclass(frozen=True, slots=True)
class Flows:
    """The flows of a batch (n rows). Addresses are 16 bytes, IPv4 as v4-mapped IPv6; `direction`: of the request at the tap, 1 arrived, 2 left."""

    tap: I64
    direction: U8
    client_address: U8
    server_address: U8
    client_port: I64
    server_port: I64
    start_unix_ns: U64


@dataclass(frozen=True, slots=True)
class Sides:
    """Something about each side of n flows."""

    server: Bools
    client: Bools

    def of(self, kind: Kind) -> Bools:
        """About the side that reports spans of this kind."""
        return self.client if kind is Kind.CLIENT else self.server

    def take(self, rows: npt.NDArray[np.intp] | Bools) -> Sides:
        return Sides(self.server[rows], self.client[rows])


@dataclass(frozen=True, slots=True)
class Identified:
    """What identity says about n flows. `server` and `client` index `workloads`, -1: unknown.

    A side whose workload is unknown but whose kind is reported gets the host's Resource. `joined`: the CLIENT span of this exchange is made too,
    by this agent or by one that watches the peer's node.
    """

    workloads: Sequence[Workload]
    server: Int32
    client: Int32
    report_server: Bools
    report_client: Bools
    joined: Bools
    silent: Sides | None = None
    """Which must not become spans (already instrumented)."""
    uncounted: Sides | None = None
    """Which must not become metrics."""
    waits: Bools | None = None
    """Rows that are better asked about again in a moment, because somebody is about to be known."""
    masked: Bools | None = None
    """Rows whose client is hidden by a masquerade of this node; see `unmasked`."""

    def of(self, rows: npt.NDArray[np.intp] | Bools) -> Identified:
        """What it says about some rows."""
        return Identified(
            self.workloads,
            self.server[rows],
            self.client[rows],
            self.report_server[rows],
            self.report_client[rows],
            self.joined[rows],
            self.silent.take(rows) if self.silent else None,
            self.uncounted.take(rows) if self.uncounted else None,
            None if self.waits is None else self.waits[rows],
        )

    @classmethod
    def joined_up(cls, many: Sequence[Identified]) -> Identified:
        """Several of one table in a row, for spans: what must not become spans or metrics has been left out before."""

        def whole(name: str) -> npt.NDArray[Any]:
            return np.concatenate([getattr(one, name) for one in many])

        reports = whole("report_server"), whole("report_client")
        return cls(many[0].workloads, whole("server"), whole("client"), *reports, whole("joined"))


def unmasked(who: Identified, key: U64) -> Identified:
    """The same with the clients that a masquerade hid, as far as their own rows are here too. `key` (n) is that of the exchange, equal at both
    sides."""
    asked = np.flatnonzero(who.report_client)
    hidden = np.flatnonzero(who.report_server & who.masked) if who.masked is not None else asked[:0]
    if not hidden.size or not asked.size:
        return who
    asked = asked[np.argsort(key[asked])]
    at = asked[np.minimum(np.searchsorted(key[asked], key[hidden]), len(asked) - 1)]
    is_same = key[at] == key[hidden]
    hidden, at = hidden[is_same], at[is_same]
    client, joined = who.client.copy(), who.joined.copy()
    client[hidden] = client[at]
    joined[hidden] = True if who.silent is None else ~who.silent.client[at]
    return replace(who, client=client, joined=joined)


class Identity(Protocol):
    """Names the two sides of flows."""

    @property
    def news(self) -> object:
        """Another object whenever something new is known: those who wait may be asked about again."""

    def identify(self, flows: Flows, *, has_waited: bool = False, arrived: Bools | None = None, is_open: bool = False) -> Identified:
        """Looks a whole batch up. `has_waited`: these rows did, and are told for good.

        `arrived` (n): the request was seen coming in at a tap, so that a node's address on it may be a masquerade; None: not known.
        """

    def name(self, address: bytes) -> str:
        """`service.namespace` of an address (16 bytes), for a Host header that holds one; empty: unknown."""

    def saw_exports(self, who: Identified, spans: Bools, metrics: Bools) -> None:
        """In these rows the client's own SDK sent spans or metrics."""


class NoIdentity:
    """Nobody is known: every exchange is reported from the server's side, under the host's Resource."""

    @property
    def news(self) -> object:
        return None

    def identify(self, flows: Flows, *, has_waited: bool = False, arrived: Bools | None = None, is_open: bool = False) -> Identified:
        n = len(flows.tap)
        unknown, no = np.full(n, -1, np.int32), np.zeros(n, bool)
        return Identified((), unknown, unknown, np.ones(n, bool), no, no)

    def name(self, address: bytes) -> str:
        return ""

    def saw_exports(self, who: Identified, spans: Bools, metrics: Bools) -> None:
        """Nobody is known who could be silenced."""
