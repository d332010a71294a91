"""The other side of a span by name, in the attributes by which service graphs draw their edges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry import names
from otel_ebpf_receiver.telemetry.columns import U64, AttributeValue
from otel_ebpf_receiver.telemetry.keys import distinct
from otel_ebpf_receiver.telemetry.workload import Workload


class Peers:
    """Keys of workloads by their name, so that a new snapshot of the same workloads changes no key."""

    def __init__(self) -> None:
        self._table: Sequence[Workload] = ()
        self._keys = np.zeros(1, np.uint64)
        self._is_known = np.ones(1, bool)

    def keys(self, workloads: Sequence[Workload], which: npt.NDArray[np.int32]) -> U64:
        """The key of each row's workload; -1 is nobody."""
        if workloads is not self._table:
            self._table, self._keys = workloads, np.zeros(len(workloads) + 1, np.uint64)
            self._is_known = np.zeros(len(workloads) + 1, bool)
            self._is_known[-1] = True
        new = distinct(which[~self._is_known[which]])
        for index in new.tolist():
            self._keys[index] = hash(tuple(self.attributes(workloads, index).items())) & 0xFFFFFFFFFFFFFFFF
            self._is_known[index] = True
        return self._keys[which]

    def attributes(self, workloads: Sequence[Workload], index: int) -> dict[str, AttributeValue]:
        """What a span says about its peer."""
        if index < 0:
            return {}
        known = workloads[index].attributes
        out: dict[str, AttributeValue] = {}
        if name := known.get(names.SERVICE_NAME):
            out[names.SERVICE_PEER_NAME] = out[names.PEER_SERVICE] = name
        if namespace := known.get(names.SERVICE_NAMESPACE):
            out[names.SERVICE_PEER_NAMESPACE] = namespace
        return out
