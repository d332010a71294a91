"""Workloads to OTLP Resources: one number and one encoded prefix for each distinct Resource.

The host's own Resource (from the SDK) lends every workload what it does not say itself, and stands for traffic that no workload is known for.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage

from otel_ebpf_receiver.telemetry import names
from otel_ebpf_receiver.telemetry.columns import I64, AttributeValue
from otel_ebpf_receiver.telemetry.keys import distinct
from otel_ebpf_receiver.telemetry.wire import field, key_values, varint
from otel_ebpf_receiver.telemetry.workload import Workload

HOST = 0
"""The number of the host's own Resource."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A Resource: its attributes, and the bytes that open its `ResourceSpans` or `ResourceMetrics`, in both of which they are alike."""

    attributes: tuple[tuple[str, AttributeValue], ...]
    message: bytes


class Resources:
    """Numbers, never used again, for Resources. `retain` lets go of those that nothing refers to."""

    def __init__(self, host: dict[str, AttributeValue], added: dict[str, AttributeValue], version: str) -> None:
        """`host`: what names traffic without a workload; `added`: what every Resource gets unless its workload says it itself."""
        own = {names.SDK_NAME: names.SCOPE_NAME, names.SDK_VERSION: version}
        self._lent = {**added, **own}
        self._own = own
        self._numbers: dict[tuple[tuple[str, AttributeValue], ...], int] = {}
        self._encoded: dict[int, Encoded] = {}
        self._next = HOST
        scope = InstrumentationScope(name=names.SCOPE_NAME, version=version).SerializeToString()
        self._schema = field(3, names.SCHEMA_URL.encode())
        self._scope = field(1, scope) + self._schema
        self._table: Sequence[Workload] | None = None
        self._of_table = np.zeros(0, np.int64)
        self._number({**added, **host, **own})

    def numbers(self, workloads: Sequence[Workload], which: npt.NDArray[np.int32]) -> I64:
        """The Resource of each row; `which` indexes `workloads`, -1 is the host."""
        if workloads is not self._table:
            self._table, self._of_table = workloads, np.full(len(workloads) + 1, -1, np.int64)
            self._of_table[-1] = HOST
        out = self._of_table[which]
        if (out < 0).any():
            for index in distinct(which[out < 0]).tolist():
                self._of_table[index] = self._number({**self._lent, **workloads[index].attributes, **self._own})
            out = self._of_table[which]
        return out

    def attributes(self, number: int) -> dict[str, AttributeValue]:
        return dict(self._encoded[number].attributes)

    def wrap(self, number: int, body_bytes: int) -> bytes:
        """What stands before `body_bytes` of spans or metrics in a request: `ResourceSpans`/`ResourceMetrics` and its one scope, both open."""
        scope, message = self._scope, self._encoded[number].message
        inner = message + b"\x12" + varint(len(scope) + body_bytes) + scope
        return b"\x0a" + varint(len(inner) + body_bytes) + inner

    def retain(self, used: Set[int]) -> None:
        """Forgets every Resource but the host's and `used`."""
        gone = [number for number in self._encoded if number != HOST and number not in used]
        for number in gone:
            del self._numbers[self._encoded.pop(number).attributes]
        if gone:
            self._table = None

    def __len__(self) -> int:
        return len(self._encoded)

    def _number(self, attributes: dict[str, AttributeValue]) -> int:
        key = tuple(attributes.items())
        if key not in self._numbers:
            self._numbers[key] = self._next
            message = ResourceMessage(attributes=key_values(attributes)).SerializeToString()
            self._encoded[self._next] = Encoded(key, field(1, message) + self._schema)
            self._next += 1
        return self._numbers[key]
