"""Registers what the agent counts about itself, and keeps a copy of what only the pipeline's thread may read from the kernel."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry.semconv._incubating.attributes.otel_attributes import (
    OTEL_COMPONENT_NAME,
    OTEL_COMPONENT_TYPE,
    OTEL_SPAN_SAMPLING_RESULT,
)
from opentelemetry.semconv._incubating.metrics.otel_metrics import OTEL_SDK_METRIC_READER_COLLECTION_DURATION, OTEL_SDK_SPAN_STARTED

from otel_ebpf_receiver.status.counters import Attributes, Counters, Instrument, Kind, Value, pairs

if TYPE_CHECKING:
    from otel_ebpf_receiver.agent.interval import Interval
    from otel_ebpf_receiver.capture.taps import Taps
    from otel_ebpf_receiver.kernel.programs import OpenRequests, Programs
    from otel_ebpf_receiver.pipeline import Line

PREFIX = "otel_ebpf_receiver"
NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Books:
    """What the kernel had counted at one moment; replaced whole. `evicted`: open requests that the kernel had no room for."""

    counters: Mapping[str, int]
    open: int
    oldest_ns: int
    evicted: int


class Kernel:
    """Reads the kernel's counters; the pipeline's thread reads, everyone looks at the copy."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self.books = Books({}, 0, 0, 0)

    def read(self) -> Books:
        """Reads anew. Evicted requests have no counter of their own: they are those that began, did not end and are not there."""
        before = self._programs.counters()
        waiting: OpenRequests = self._programs.open_requests()
        # What ends during the walk is in none of one moment's numbers: begun before it and ended after it, so that none is called evicted wrongly.
        counted = self._programs.counters()
        ended = sum(counted.get(f"http_{name}", 0) for name in ("answered", "reset", "closed", "given_up"))
        evicted = max(self.books.evicted, before.get("http_opened", 0) - ended - waiting.count)
        self.books = Books(counted, waiting.count, waiting.oldest_ns, max(evicted, 0))
        return self.books


def register(counters: Counters, kernel: Kernel, line: Line, taps: Taps, interval: Interval) -> None:
    """Lets the counters' readers see kernel, pipeline, taps and the rhythm of metrics."""
    what = "What the kernel side counted, by its own names (docs: telemetry reference)."
    counters.observe(Instrument(f"{PREFIX}.kernel", what, "{event}"), lambda: _by("event", kernel.books.counters))
    waiting = Instrument(f"{PREFIX}.requests.open", "Requests without an answer.", "{request}", Kind.GAUGE)
    counters.observe(waiting, lambda: {(): kernel.books.open})
    oldest = Instrument(f"{PREFIX}.requests.oldest", "Age of the oldest request without an answer.", "s", Kind.GAUGE)
    counters.observe(oldest, lambda: {(): _age_s(kernel.books.oldest_ns)})
    evicted = Instrument(f"{PREFIX}.requests.evicted", "Requests forgotten for want of room.", "{request}")
    counters.observe(evicted, lambda: {(): kernel.books.evicted})
    records = Instrument(
        f"{PREFIX}.records", "Records from the kernel; received = copies + exports + admitted + those that wait.", "{record}"
    )
    counters.observe(
        records, lambda: _by("fate", {name: getattr(line.counts, name) for name in ("received", "copies", "exports", "admitted")})
    )
    patience = Instrument(f"{PREFIX}.records.patience", "Records of workloads that were not known when they came.", "{record}")
    counters.observe(patience, lambda: _by("fate", {name: line.patience[name] for name in ("waited", "hurried")}))
    spans = Instrument(f"{PREFIX}.spans", "Spans by what became of them before export.", "{span}")
    names = {"encoded": "spans", "sampled_out": "sampled_out", "silenced": "silenced", "ignored": "ignored"}
    counters.observe(spans, lambda: _by("fate", {fate: getattr(line.counts, name) for fate, name in names.items()}))
    started = Instrument(OTEL_SDK_SPAN_STARTED, "Spans by what the sampler said.", "{span}")
    results = {"RECORD_AND_SAMPLE": "spans", "DROP": "sampled_out"}
    counters.observe(started, lambda: _by(OTEL_SPAN_SAMPLING_RESULT, {said: getattr(line.counts, name) for said, name in results.items()}))
    share = Instrument(f"{PREFIX}.sampling.probability", "Share of the spans that cap and overload let through.", "1", Kind.GAUGE)
    counters.observe(share, lambda: {(): line.probability})
    series = Instrument(f"{PREFIX}.series", "Series in the table of metrics.", "{series}", Kind.GAUGE)
    counters.observe(series, lambda: {(): len(line.red)})
    overflow = Instrument(f"{PREFIX}.series.overflow", "Observations that went to an overflow series.", "{observation}")
    counters.observe(overflow, lambda: {(): line.red.overflowed})
    collected = Instrument(OTEL_SDK_METRIC_READER_COLLECTION_DURATION, "Time to collect an interval of metrics.", "s", Kind.HISTOGRAM)
    reader = pairs({OTEL_COMPONENT_TYPE: PREFIX, OTEL_COMPONENT_NAME: "metrics"})
    counters.observe(collected, lambda: {reader: interval.took.value})
    counters.observe(Instrument(f"{PREFIX}.taps", "Watched interfaces by state.", "{tap}", Kind.GAUGE), lambda: _taps(taps))


def _by(name: str, values: Mapping[str, int]) -> dict[Attributes, Value]:
    return {pairs({name: key}): value for key, value in values.items()}


def _taps(taps: Taps) -> dict[Attributes, Value]:
    found = {"attached": 0, "failed": 0, "one_way": 0}
    for tap in taps.taps.values():
        found[tap.state.replace("-", "_")] += 1
    return _by("state", found)


def _age_s(start_ns: int) -> float:
    return max(0.0, (time.monotonic_ns() - start_ns) / NS) if start_ns else 0.0
