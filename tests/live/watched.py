"""The agent at work in a namespace, and everything that it told by its end: console lines, spans, points, its own counters."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from tests.agent.process import AgentProcess, agent
from tests.capture.namespaces import Namespace
from tests.export.receivers import HttpReceiver

SERVER, CLIENT = 2, 3
"""Kinds of spans, as OTLP numbers them."""
DURATION = "http.server.request.duration"


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it arrived."""

    name: str
    kind: int
    is_error: bool
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]

    @property
    def path(self) -> str:
        return str(self.attributes.get("url.path"))


@dataclass(slots=True)
class Told:
    """What the agent has told. `counts`: observations of histograms; `kernel`: its counters of the kernel side; `gauges`: its own numbers;
    `records`: what became of the kernel's records.
    """

    lines: list[dict[str, Any]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    counts: dict[str, list[tuple[dict[str, Any], int]]] = field(default_factory=dict)
    kernel: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def counted(self, metric: str = DURATION) -> int:
        """Observations of a histogram, over all its series."""
        return sum(count for _, count in self.counts.get(metric, []))

    def at(self, path: str) -> list[Span]:
        """Spans of this path."""
        return [span for span in self.spans if span.path == path]


class Watched:
    """A running agent that exports to a receiver on its namespace's own loopback."""

    def __init__(self, running: AgentProcess, receiver: HttpReceiver) -> None:
        self.running, self.receiver = running, receiver

    def wait_line(self, text: str) -> None:
        """Until a line of the console holds the text."""
        self.running.out.wait(lambda line: line.startswith("{") and text in line)

    def finish(self) -> Told:
        """Ends the agent, which must end well, and returns all that it told."""
        code = self.running.stop()
        said = self.running.out.rest()
        log = self.running.err.rest()
        assert code == 0, "\n".join(log)
        told = Told(lines=[json.loads(line) for line in said if line.startswith("{")], log=log)
        for resource in self.receiver.traces:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found = plain(span.attributes)
                    told.spans.append(
                        Span(span.name, span.kind, span.status.code == 2, span.start_time_unix_nano, span.end_time_unix_nano, found)
                    )
        for metric in last_metrics(self.receiver):
            _add_metric(told, metric)
        return told


def _add_metric(told: Told, metric: Metric) -> None:
    kind = metric.WhichOneof("data")
    if kind == "histogram":
        told.counts.setdefault(metric.name, []).extend((plain(point.attributes), point.count) for point in metric.histogram.data_points)
        return
    for point in (metric.gauge if kind == "gauge" else metric.sum).data_points:
        number = point.as_double if point.WhichOneof("value") == "as_double" else point.as_int
        known = plain(point.attributes)
        if metric.name == "otel_ebpf_receiver.kernel":
            told.kernel[str(known["event"])] = int(number)
        elif metric.name == "otel_ebpf_receiver.records":
            told.records[str(known["fate"])] = int(number)
        elif not known:
            told.gauges[metric.name] = number


def plain(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as plain values."""
    return {pair.key: value(pair) for pair in pairs}


def value(pair: KeyValue) -> Any:
    """The value of one."""
    which = pair.value.WhichOneof("value")
    if which == "array_value":
        return [one.string_value for one in pair.value.array_value.values]
    return getattr(pair.value, which or "string_value")


def last_metrics(receiver: HttpReceiver) -> list[Metric]:
    """Metrics are cumulative: those of the last export of each Resource are all."""
    last = {one.resource.SerializeToString(deterministic=True): one for one in receiver.metrics}
    return [metric for resource in last.values() for scope in resource.scope_metrics for metric in scope.metrics]


@contextlib.contextmanager
def watching(
    here: Namespace, *arguments: str, console: bool = True, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> Iterator[Watched]:
    """The agent in the namespace, ready, started by `prefix`. Its metrics leave once, at its end; every exchange is a span and, with
    `console`, a line.
    """
    with here.inside():
        receiver = HttpReceiver()
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EBPF_RECEIVER_EXPORTERS_CONSOLE_FORMAT": "json",
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
        "OTEL_TRACES_SAMPLER": "always_on",
        "OTEL_EBPF_RECEIVER_TELEMETRY_SAMPLING_SPANS_PER_SECOND": "0",
        **(env or {}),
    }
    shown = ["--console"] if console else []
    with receiver, agent(*shown, *arguments, prefix=here.command(*prefix), env=settings) as running:
        running.ready()
        yield Watched(running, receiver)
