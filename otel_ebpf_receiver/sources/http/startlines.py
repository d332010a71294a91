"""Start lines of requests as the record keeps them (method, space, target; zero behind), for a whole batch: keys, and what tells routes apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from otel_ebpf_receiver.sources.http.record import matrix
from otel_ebpf_receiver.sources.source import Rows
from otel_ebpf_receiver.telemetry import template
from otel_ebpf_receiver.telemetry.columns import I64, U64, Bools, Records
from otel_ebpf_receiver.telemetry.keys import beginnings, mix, text_keys
from otel_ebpf_receiver.telemetry.routes import Paths, Skeletons

_SHORT = 64
"""Lines of at most so many bytes are not looked at in the width of the longest."""


class StartLines:
    """See `telemetry.routes.Lines`. `begin`: of all lines; `is_cut`: not all of the target was kept; `odd`: rows whose target is no plain path;
    `paths` reads some rows."""

    def __init__(self, records: Records, begin: U64, *, is_cut: Bools, odd: Rows, paths: Callable[[Rows], Paths]) -> None:
        self.paths = paths
        self._begin = begin
        self._texts = matrix(records, "line")
        method, kept = records["method_len"].astype(np.int64), records["target_len"].astype(np.int64)
        self._lengths = method + 1 + kept
        self._shape = is_cut.view(np.uint8) | method << 8 | kept << 16
        self._odd = odd

    @cached_property
    def keys(self) -> U64:
        return mix(text_keys(self._texts, self._lengths, self._begin), self._shape)

    def skeletons(self, rows: Rows) -> Skeletons:
        lengths = self._lengths.take(rows)
        is_long = lengths > _SHORT
        groups = [group for group in ((~is_long).nonzero()[0], is_long.nonzero()[0]) if group.size]
        if len(groups) == 1:
            return self._skeletons(rows, lengths)
        keys, is_told = np.zeros(len(rows), np.uint64), np.zeros(len(rows), bool)
        for group in groups:
            found = self._skeletons(rows[group], lengths[group])
            keys[group], is_told[group] = found.keys, found.is_told
        return Skeletons(keys, is_told)

    def _skeletons(self, rows: Rows, lengths: I64) -> Skeletons:
        # hot: benchmarks/pipeline.py
        width = min((int(lengths.max()) + 7) // 8 * 8, self._texts.shape[1])
        # One opaque field a row is copied at once.
        texts = self._texts[:, :width].view(f"V{width}")[:, 0][rows].view(np.uint8).reshape(len(rows), width)
        skeletons, is_told = template.skeletons(texts)
        if np.count_nonzero(texts) != int(lengths.sum()):
            # A NUL inside of a text is shown as another character.
            is_told &= np.count_nonzero(texts, axis=1) == lengths
        if self._odd.size:
            is_told &= ~np.isin(rows, self._odd)
        return Skeletons(mix(text_keys(skeletons, lengths), self._shape.take(rows)), is_told)


def beginning(records: Records) -> U64:
    """The first 64 bytes of the start lines as words (8 x n), from which ids and sameness are made."""
    return beginnings(matrix(records, "line"))
