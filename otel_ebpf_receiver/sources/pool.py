"""Rows that are going to be spans, kept until there are enough of them: encoding costs by the batch, and under a cap few of a batch are taken.

Bounded: whoever adds asks `is_full` and takes everything out. All rows belong to one table of workloads; the caller empties the pool when another
comes. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from otel_ebpf_receiver.telemetry.columns import U64, Group, Part, Records, opaque
from otel_ebpf_receiver.telemetry.spans import Links
from otel_ebpf_receiver.telemetry.workload import Identified, Workload

ENOUGH = 2048
"""Rows from which on encoding costs by the row."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows of one batch: their records, who was there, where each hangs, and a group whose parts are known already."""

    records: Records
    who: Identified
    links: Links
    key: U64
    parts: Mapping[int, Part]

    @property
    def group(self) -> Group:
        """What is known of the rows beside what their source says."""
        return Group(self.key, lambda row: self.parts[int(self.key[row])])


class Pool:
    """The chosen rows of one source and kind."""

    def __init__(self) -> None:
        self._waiting: list[Chosen] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        return self._count >= ENOUGH

    def belongs(self, workloads: Sequence[Workload]) -> bool:
        """Whether rows of this table may be added."""
        return not self._waiting or self._waiting[0].who.workloads is workloads

    def add(self, chosen: Chosen) -> None:
        """Adds rows."""
        self._waiting.append(chosen)
        self._count += len(chosen.records)

    def take(self) -> Chosen | None:
        """Everything, as if it had come in one batch; None where nothing waits."""
        waiting, self._waiting, self._count = self._waiting, [], 0
        if len(waiting) < 2:
            return waiting[0] if waiting else None
        parts: dict[int, Part] = {}
        for one in waiting:
            parts.update(one.parts)
        records = np.concatenate([opaque(one.records) for one in waiting]).view(waiting[0].records.dtype)
        who, links = Identified.joined_up([one.who for one in waiting]), Links.joined_up([one.links for one in waiting])
        return Chosen(records, who, links, np.concatenate([one.key for one in waiting]), parts)


def known(groups: Sequence[Group], count: int) -> tuple[U64, dict[int, Part]]:
    """One key per row for several groups of `count` rows, and the part that each key stands for."""
    if not groups:
        return np.zeros(count, np.uint64), {0: Part()}
    key = groups[0].key.copy()
    for group in groups[1:]:
        key = key * np.uint64(3) + group.key
    distinct, first = np.unique(key, return_index=True)
    return key, {each: _merged([group.build(row) for group in groups]) for each, row in zip(distinct.tolist(), first.tolist(), strict=True)}


def _merged(parts: Sequence[Part]) -> Part:
    attributes = {name: value for part in parts for name, value in part.attributes.items()}
    return Part(attributes, trace_state="".join(part.trace_state for part in parts))
