"""Names from the configuration (`services:`): addresses, networks and ports to workloads, for plain hosts and whatever Kubernetes does
not name.

Pure. Where several rules hold, the narrowest network decides, then a rule with ports before one without, then the order in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.config.schema import Service
from otel_ebpf_receiver.identity.address import Network
from otel_ebpf_receiver.identity.networks import Int32, Networks
from otel_ebpf_receiver.telemetry import names
from otel_ebpf_receiver.telemetry.columns import U8, AttributeValue
from otel_ebpf_receiver.telemetry.workload import Workload

_AMBIGUOUS = -2
_INSTANCE_ID = "service.instance.id"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One network (None: any address) of one rule."""

    network: Network | None
    holds: Networks
    ports: npt.NDArray[np.int64]
    workload: int

    @property
    def length(self) -> int:
        if self.network is None:
            return -1
        return self.network.prefixlen + (96 if self.network.version == 4 else 0)


class Statics:
    """The rules of `services:`. Indices are into `workloads`, one per distinct name and namespace, in the order of the file."""

    def __init__(self, services: Sequence[Service] = (), host: Mapping[str, AttributeValue] | None = None) -> None:
        """`host`: attributes of this host, which every Resource made here has too, but for its own service's."""
        named = dict.fromkeys((service.name, service.namespace) for service in services)
        numbers = {name: number for number, name in enumerate(named)}
        self.workloads = tuple(_workload(name, namespace, host or {}) for name, namespace in named)
        entries = [entry for service in services for entry in _entries(service, numbers[service.name, service.namespace])]
        self._entries = sorted(entries, key=lambda entry: (-entry.length, not entry.ports.size))

    def name_servers(self, addresses: U8, ports: npt.NDArray[np.integer]) -> Int32:
        """Who listens on `ports` (n) of `addresses` (u8, n x 16); -1 where no rule holds."""
        found = np.full(len(addresses), -1, np.int32)
        for entry in self._entries:
            rows = np.flatnonzero(found < 0)
            if not rows.size:
                break
            found[rows[_holds(entry, addresses[rows]) & (_has_port(entry, ports[rows]))]] = entry.workload
        return found

    def name_clients(self, addresses: U8) -> Int32:
        """Who has `addresses`, whatever its port: -1 where no rule names it, or where rules of one network differ only by their ports."""
        found = np.full(len(addresses), -1, np.int32)
        length = np.full(len(addresses), -1, np.int64)
        is_plain = np.zeros(len(addresses), bool)
        # Rules without ports come last among equals in the table, and first here: a client's own port says nothing.
        for entry in sorted((entry for entry in self._entries if entry.network), key=lambda entry: (-entry.length, bool(entry.ports.size))):
            hit = _holds(entry, addresses) & (length <= entry.length) & ~is_plain
            is_new = hit & (length < entry.length)
            found[is_new] = entry.workload
            length[is_new] = entry.length
            is_plain[is_new] = not entry.ports.size
            found[hit & ~is_new & (found != entry.workload)] = _AMBIGUOUS
        return np.where(found == _AMBIGUOUS, np.int32(-1), found)


def _entries(service: Service, workload: int) -> list[_Entry]:
    ports = np.array(service.ports, np.int64)
    networks: Sequence[Network | None] = service.addresses or (None,)
    return [_Entry(network, Networks([(network, 0)] if network else []), ports, workload) for network in networks]


def _holds(entry: _Entry, addresses: U8) -> npt.NDArray[np.bool_]:
    return np.ones(len(addresses), bool) if entry.network is None else entry.holds.find(addresses) >= 0


def _has_port(entry: _Entry, ports: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    return np.isin(ports, entry.ports) if entry.ports.size else np.ones(len(ports), bool)


def _workload(name: str, namespace: str, host: Mapping[str, AttributeValue]) -> Workload:
    attributes = {key: value for key, value in host.items() if not key.startswith("service.")}
    attributes[names.SERVICE_NAME] = name
    if namespace:
        attributes[names.SERVICE_NAMESPACE] = namespace
    if "host.name" in host:
        # Two hosts that run the same service are two instances of it.
        attributes[_INSTANCE_ID] = ".".join(part for part in (namespace, name, str(host["host.name"])) if part)
    return Workload(attributes, f"{name}.{namespace}" if namespace else name)
