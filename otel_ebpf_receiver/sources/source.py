"""What a source is: one kind of observation, declared as data, and the two protocols by which the pipeline uses it.

A new source is a new folder beside this file and one beside `bpf/http`. Nothing here knows what any source observes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.kernel.assemble import KernelPart
from otel_ebpf_receiver.telemetry.columns import I64, U64, Bools, Instrument, Kind, Linkage, Points, Records, Seen, SpanColumns
from otel_ebpf_receiver.telemetry.routes import Routes
from otel_ebpf_receiver.telemetry.sampling import Candidates
from otel_ebpf_receiver.telemetry.workload import Flows, Identified

Rows = npt.NDArray[np.intp]
Offsets = Callable[[U64 | I64], I64]


class Signal(Enum):
    """What a source can give."""

    SPANS = "spans"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Exports:
    """Rows (of n) that carry telemetry. `own`: of an agent of this kind, which are nobody's exchanges. `spans`, `metrics`: of somebody's SDK, who
    is then known to report by itself."""

    own: Bools
    spans: Bools
    metrics: Bools


class View(Protocol):
    """A decoded batch of n records. Whoever made it calls `attach` before anything that is named after it."""

    flows: Flows
    start_unix_ns: U64

    @property
    def end_unix_ns(self) -> U64: ...

    def attach(self, who: Identified, name_of: Callable[[bytes], str], routes: Routes) -> None:
        """Takes in who was there; `name_of` names an address (16 bytes) that stands in a record as text."""

    def points(self) -> Iterable[Points]:
        """Every observation that the batch gives."""


class SpanView(View, Protocol):
    """A view that gives spans too."""

    linkage: Linkage

    def candidates(self, kind: Kind, slow_ns: int) -> Candidates:
        """Which rows might become spans of this kind."""

    def spans(self, kind: Kind, rows: Rows) -> SpanColumns:
        """The columns of `rows`."""


class Decoder(Protocol):
    """Makes views of batches. It may keep caches; the pipeline's thread is the only one that calls it."""

    def seen(self, records: Records) -> Seen:
        """What tells copies apart; asked for only where the source has copies."""

    def decode(self, records: Records, offsets_ns: Offsets) -> View:
        """`offsets_ns` says what to add to times to make them Unix times."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source, as a whole. `kinds`: of its spans, in the order in which they are made; empty: it gives none.

    `has_copies`: one thing is seen at several taps and must be counted once.
    """

    name: str
    kernel: KernelPart
    dtype: np.dtype[np.void]
    instruments: Sequence[Instrument]
    kinds: tuple[Kind, ...]
    decoder: Callable[[], Decoder]
    has_copies: bool = True
    exports: Callable[[View], Exports | None] = lambda view: None
    """Finds telemetry among what is observed; None: there is none in this batch."""
    active: Callable[[Any], Iterable[Points]] | None = None
    """How many there are of what has begun and not ended, as points of instruments that are levels, from a view of such records; None: nobody asks."""

    @property
    def signals(self) -> frozenset[Signal]:
        return frozenset((Signal.METRICS, Signal.SPANS) if self.kinds else (Signal.METRICS,))
