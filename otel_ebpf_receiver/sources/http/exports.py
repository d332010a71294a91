"""Telemetry among the exchanges: what agents of this kind send, and what shows that a workload's own SDK reports (OTLP/HTTP, by its User-Agent)."""

from __future__ import annotations

from typing import cast

import numpy as np

from otel_ebpf_receiver.sources.http.caches import OWN, SDK
from otel_ebpf_receiver.sources.http.columns import HttpView
from otel_ebpf_receiver.sources.http.record import METHODS
from otel_ebpf_receiver.sources.source import Exports, View

POST = METHODS.index("POST")
TRACES, METRICS = b"/v1/traces", b"/v1/metrics"


def exports(view: View) -> Exports | None:
    """See `sources.source.Source`."""
    http = cast(HttpView, view)
    if not http.may_export:
        return None
    kinds = http.agents[0]
    if not (kinds >= OWN).any():
        return None
    spans, metrics = np.zeros(len(kinds), bool), np.zeros(len(kinds), bool)
    for row in np.flatnonzero((kinds == SDK) & (http.method == POST)).tolist():
        path = http.targets.path[row, : http.targets.path_lengths[row]].tobytes()
        spans[row], metrics[row] = path.endswith(TRACES), path.endswith(METRICS)
    return Exports(kinds == OWN, spans, metrics)
