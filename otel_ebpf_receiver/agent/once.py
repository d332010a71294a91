"""Each exchange once: of one that was seen at the own taps of both its sides, and is reported from each, people are shown the server's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.sources.http.columns import HttpView
from otel_ebpf_receiver.telemetry.keys import mix

KEYS_MAX = 50_000
"""Exchanges that are remembered, twice: the records of both sides come within a few drains."""


class Once:
    """Remembers which exchanges were shown; when full it forgets the older half."""

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._old: set[int] = set()

    def rows(self, view: HttpView) -> npt.NDArray[np.intp]:
        """Rows of a batch to show, those of the server's side first; none that is reported from neither."""
        server = np.flatnonzero(view.who.report_server)
        client = np.flatnonzero(view.who.report_client & ~view.who.report_server)
        if not client.size and not self._new:
            return server
        rows = np.concatenate((server, client))
        keys = mix(*view.linkage.words[:, rows])
        return rows[[self._is_first(key) for key in keys.tolist()]]

    def _is_first(self, key: int) -> bool:
        if key in self._new or key in self._old:
            return False
        if len(self._new) >= KEYS_MAX:
            self._old, self._new = self._new, set()
        self._new.add(key)
        return True
