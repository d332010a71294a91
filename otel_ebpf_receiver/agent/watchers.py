"""Exchanges for people: lines on the console, and the JSON of `replay`. Whoever asks for it pays an object per exchange."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from otel_ebpf_receiver.agent.once import Once
from otel_ebpf_receiver.export.destination import LineDestination
from otel_ebpf_receiver.pipeline import Line, TelemetryOptions
from otel_ebpf_receiver.sources.http import lines
from otel_ebpf_receiver.sources.http.columns import HttpView
from otel_ebpf_receiver.sources.source import Source, View
from otel_ebpf_receiver.telemetry.columns import I64, U64, Records
from otel_ebpf_receiver.telemetry.workload import NoIdentity


class Lines:
    """Offers each exchange that is reported to the console as a row, once though both of its sides may be told."""

    def __init__(self, destination: LineDestination) -> None:
        self._destination = destination
        self._once = Once()

    def watch(self, source: Source, view: View) -> None:
        """Called by the line with every admitted batch."""
        http = cast(HttpView, view)
        self._destination.offer(lines.rows(http, np.sort(self._once.rows(http))))


class Printed:
    """The line of `replay`: takes batches as they come, prints one JSON object per exchange on standard output."""

    def __init__(self, source: Source, options: TelemetryOptions) -> None:
        self._given = _Given()
        self._line = Line(options, [(source, self._given)], NoIdentity(), _CaptureClock(), start_unix_ns=0)
        self._line.watchers = [self]

    def emit(self, name: str, records: Records) -> None:
        """One batch of the source `name`."""
        self._given.records = records
        self._line.run(now_ns=0, is_last=True)

    def watch(self, source: Source, view: View) -> None:
        """Called by the line."""
        text = "".join(f"{_json(lines.as_json(row))}\n" for row in lines.rows(cast(HttpView, view)))
        sys.stdout.write(text)


class _Given:
    """A transport that somebody fills."""

    def __init__(self) -> None:
        self.records: Any = np.empty(0)

    def drain(self) -> Records:
        records: Records = self.records
        self.records = records[:0]
        return records


class _CaptureClock:
    """The records' times are Unix times already."""

    def offsets_ns(self, times_ns: U64 | I64) -> I64:
        return np.zeros(len(times_ns), np.int64)


def _json(row: Mapping[str, object]) -> str:
    return json.dumps(row, ensure_ascii=False)
