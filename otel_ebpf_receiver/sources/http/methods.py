"""Which methods are told by name. Any other is `_OTHER`, with its own text beside it."""

from __future__ import annotations

import numpy as np

from otel_ebpf_receiver.sources.http.record import METHODS, matrix
from otel_ebpf_receiver.telemetry.columns import I64, Records

_LONGEST = 23
"""What the kernel takes for a method has no more letters."""


class Methods:
    """`names`: by number, the first for all others. What the kernel knows has a code in the record; the rest is found by its text."""

    def __init__(self, known: tuple[str, ...]) -> None:
        known = tuple(dict.fromkeys(known))
        self.names = (METHODS[0], *known)
        self._is_kernels = self.names == METHODS
        self._numbers = np.array([0, *(known.index(name) + 1 if name in known else 0 for name in METHODS[1:])], np.int64)
        more = {name: number for number, name in enumerate(known, 1) if name not in METHODS and len(name) <= _LONGEST}
        self._more = [(np.frombuffer(name.encode() + b" ", np.uint8), number) for name, number in more.items()]

    def numbers(self, records: Records, codes: I64) -> I64:
        """The number of each row's method, whose code in the record is at hand."""
        # hot: benchmarks/pipeline.py. Nothing is to be done by default.
        if self._is_kernels:
            return codes
        out = self._numbers[codes]
        rows = np.flatnonzero(codes == 0)
        if rows.size and self._more:
            lines = matrix(records, "line")[rows]
            for text, number in self._more:
                out[rows[(lines[:, : len(text)] == text).all(axis=1)]] = number
        return out
