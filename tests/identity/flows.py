"""Flows and tables for tests of identity, from plain text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from otel_ebpf_receiver.identity.address import packed
from otel_ebpf_receiver.identity.snapshot import CLAIM, NO_GROUP, OPEN_NS, PORT, NetworkClaim, Snapshot, Trait, build
from otel_ebpf_receiver.telemetry.columns import U8, U64
from otel_ebpf_receiver.telemetry.workload import Flows, Workload

S = 10**9
ARRIVED, LEFT = 1, 2
Row = tuple[int, int, str, int, str, int]
"""Tap, direction, client, its port, server, its port."""


def addresses(*texts: str) -> U8:
    """A column of addresses."""
    return np.frombuffer(b"".join(packed(text) for text in texts), np.uint8).reshape(-1, 16)


def times(*seconds: float) -> U64:
    """A column of times."""
    return np.array([int(second * S) for second in seconds], np.uint64)


def flows(*rows: Row, at_s: float = 1000.0) -> Flows:
    """One row each, all at the same time."""
    taps, directions, clients, client_ports, servers, server_ports = zip(*rows, strict=True)
    return Flows(
        tap=np.array(taps, np.int64),
        direction=np.array(directions, np.uint8),
        client_address=addresses(*clients),
        server_address=addresses(*servers),
        client_port=np.array(client_ports, np.int64),
        server_port=np.array(server_ports, np.int64),
        start_unix_ns=times(*[at_s] * len(rows)),
    )


def claim(
    address: str, workload: int, start_s: float = 0.0, end_s: float | None = None, **more: float
) -> tuple[bytes, int, int, int, int, int]:
    """A row of CLAIM. `more`: until_s, group."""
    end = OPEN_NS if end_s is None else int(end_s * S)
    until = int(more["until_s"] * S) if "until_s" in more else end
    return packed(address), int(start_s * S), end, until, workload, int(more.get("group", NO_GROUP))


def table(
    claims: Sequence[tuple[bytes, int, int, int, int, int]],
    traits: Sequence[Trait] = (),
    ports: Sequence[tuple[int, int, int]] = (),
    *,
    networks: Sequence[NetworkClaim] = (),
    is_current: bool = False,
    reports_unknown: bool = True,
) -> Snapshot:
    """A snapshot of a cluster; workload n is called wn."""
    count = max([one[4] for one in claims] + [one[2] for one in ports] + [one.workload for one in networks] + [len(traits) - 1]) + 1
    workloads = [Workload({"service.name": f"w{number}", "k8s.pod.uid": f"uid-{number}"}, f"w{number}.shop") for number in range(count)]
    given = [*traits, *[Trait.SELECTED] * (count - len(traits))]
    rows, listens = np.array(list(claims), CLAIM), np.array(list(ports), PORT)
    return build(
        workloads, given, rows, listens, networks=networks, is_cluster=True, is_current=is_current, reports_unknown=reports_unknown
    )
