"""Rates, errors and durations of the last minute, second by second, for many places at once: arrays of a fixed size, no object per exchange."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import F64, I64, Bools

SECONDS = 60
RATE_S = 10
"""Rates and shares of errors are over so many seconds, percentiles over the whole minute."""
PER_OCTAVE = 8
"""Buckets per doubling: a percentile is right within 4.5 %."""
LEAST_LOG2, OCTAVES = 10, 27
"""From a microsecond to more than two minutes."""
BUCKETS = PER_OCTAVE * OCTAVES
QUANTILES = (0.5, 0.95, 0.99)
_SLICE_S = 10
_SLICES = SECONDS // _SLICE_S
Places = npt.NDArray[np.int32]
Histograms = npt.NDArray[np.uint32]


class Window:
    """`places` rows. The second that runs is not told before it is over."""

    def __init__(self, places: int) -> None:
        self.seconds = 0
        """How many are over."""
        self._counts = np.zeros((SECONDS, places), np.uint32)
        self._errors = np.zeros((SECONDS, places), np.uint32)
        self._p95_ns = np.zeros((SECONDS, places), np.float32)
        self._p95_all_ns = np.zeros(SECONDS)
        self._now_counts, self._now_errors = np.zeros(places, np.uint32), np.zeros(places, np.uint32)
        self._now = np.zeros((places, BUCKETS), np.uint32)
        self._slices = np.zeros((_SLICES, places, BUCKETS), np.uint32)

    def add(self, places: Places, duration_ns: I64, is_error: Bools) -> None:
        """Counts one batch."""
        np.add.at(self._now, (places, bucket(duration_ns)), 1)
        np.add.at(self._now_counts, places, 1)
        np.add.at(self._now_errors, places[is_error], 1)

    def tick(self) -> None:
        """A second is over."""
        at, part = self.seconds % SECONDS, self.seconds // _SLICE_S % _SLICES
        if self.seconds % _SLICE_S == 0:
            self._slices[part] = 0
        self._counts[at], self._errors[at], self._p95_ns[at] = self._now_counts, self._now_errors, 0
        busy = np.flatnonzero(self._now_counts)
        self._p95_ns[at, busy] = percentiles_ns(self._now[busy], (0.95,))[:, 0]
        self._p95_all_ns[at] = percentiles_ns(self._now[busy].sum(axis=0)[None], (0.95,))[0, 0]
        self._slices[part][busy] += self._now[busy]
        self._now[busy] = 0
        self._now_counts[:] = 0
        self._now_errors[:] = 0
        self.seconds += 1

    def busy(self) -> npt.NDArray[np.intp]:
        """Places that saw anything in the window."""
        return np.flatnonzero(self._counts.any(axis=0) | (self._now_counts > 0))

    def rates(self, places: npt.NDArray[np.intp]) -> tuple[F64, F64]:
        """Exchanges and errors a second."""
        span = max(1, min(self.seconds, RATE_S))
        rows = np.arange(self.seconds - span, self.seconds) % SECONDS
        return self._counts[rows][:, places].sum(axis=0) / span, self._errors[rows][:, places].sum(axis=0) / span

    def last(self, places: npt.NDArray[np.intp]) -> tuple[I64, I64, F64]:
        """Exchanges, errors and the 95th percentile (ns) of the last second."""
        at = (self.seconds - 1) % SECONDS
        return self._counts[at, places].astype(np.int64), self._errors[at, places].astype(np.int64), self._p95_ns[at, places].astype(float)

    def history(self, places: npt.NDArray[np.intp]) -> tuple[I64, I64, F64]:
        """The same of each second that is over, at most `SECONDS`, the oldest first (seconds x places)."""
        rows = np.arange(max(0, self.seconds - SECONDS), self.seconds) % SECONDS
        picked = np.ix_(rows, places)
        return self._counts[picked].astype(np.int64), self._errors[picked].astype(np.int64), self._p95_ns[picked].astype(float)

    def percentiles_ns(self, places: npt.NDArray[np.intp]) -> F64:
        """`QUANTILES` of each place (places x 3)."""
        return percentiles_ns(self._slices[:, places].sum(axis=0), QUANTILES)

    def total_percentiles_ns(self) -> F64:
        """`QUANTILES` of all places together."""
        out: F64 = percentiles_ns(self._slices.sum(axis=(0, 1))[None], QUANTILES)[0]
        return out

    def total(self, *, with_history: bool) -> tuple[I64, I64, F64]:
        """Exchanges, errors and p95 (ns) of all places together: of each second that is over, or of the last one only."""
        begin = max(0, self.seconds - SECONDS) if with_history else self.seconds - 1
        rows = np.arange(max(0, begin), self.seconds) % SECONDS
        return self._counts[rows].sum(axis=1), self._errors[rows].sum(axis=1), self._p95_all_ns[rows]

    def clear(self, places: npt.NDArray[np.intp]) -> None:
        """Forgets places."""
        for each in (self._counts, self._errors, self._p95_ns):
            each[:, places] = 0
        self._slices[:, places] = 0
        self._now[places] = 0
        self._now_counts[places] = self._now_errors[places] = 0


def bucket(duration_ns: I64) -> npt.NDArray[np.intp]:
    """The bucket of each duration; what is shorter or longer than all goes to the first or the last."""
    log2 = np.log2(np.maximum(duration_ns, 1))
    out: npt.NDArray[np.intp] = np.clip((log2 - LEAST_LOG2) * PER_OCTAVE, 0, BUCKETS - 1).astype(np.intp)
    return out


def percentiles_ns(histograms: Histograms, quantiles: tuple[float, ...]) -> F64:
    """Rows x quantiles: the middle of the bucket that holds the quantile; 0 where nothing was counted."""
    sums = histograms.cumsum(axis=1)
    totals = sums[:, -1]
    out = np.zeros((len(histograms), len(quantiles)))
    for column, quantile in enumerate(quantiles):
        rank = np.maximum(np.ceil(totals * quantile), 1)
        place = (sums < rank[:, None]).sum(axis=1)
        out[:, column] = np.where(totals > 0, np.exp2(LEAST_LOG2 + (place + 0.5) / PER_OCTAVE), 0)
    return out
